// sqs_ingest_start(), sqs_ingest_stop() and the trigger that notices changes of sqs_ingest_pipeline.
#include "pg/built_in.h"
#include "pg/commit_effects.h"
#include "pg/control.h"
#include "pg/keyring.h"
#include "pg/preconditions.h"
#include "pg/shared_state.h"
#include "pg/spi.h"

namespace sqs_ingest::pg {

namespace {

// A worker's write in two transactions of eight seconds, ten for what it does after a stop, and some air.
constexpr int kStopWaitMs = 30 * 1000;

PipelineRow find_or_create_pipeline_row(const Extension& extension, const std::string& name) {
    auto row = read_pipeline(extension, name);
    if (row)
        return *row;
    if (name != kBuiltInPipeline)
        return require_pipeline(extension, name); // says that there is none
    // The first start makes what is missing. Later a lost keyring is an error: new keys would break
    // duplicates.
    if (keyring_is_missing() && ask_pg([] { return superuser(); }) && recorded_keys(extension).empty())
        create_keyring(extension);
    create_built_in_pipeline(extension);
    return require_pipeline(extension, name);
}

bool start(const std::string& name) {
    refuse(preload_obstacle());
    const auto extension = lock_extension();
    SpiConnection spi;
    auto enabled = lock_enabled_pipelines();
    const auto row = find_or_create_pipeline_row(extension, name);
    require_own_pipeline(row);

    const auto pipeline = require_resolved(row);
    refuse(owner_obstacle(row.owner));
    read_columns(pipeline, lock_target(pipeline));
    record_keyring(extension);
    require_free_queue(pipeline, enabled);

    lift_hold(name.c_str());
    look_again_at_commit();
    if (!enabled.insert(name).second)
        return false;
    set_enabled_pipelines(enabled);
    return true;
}

// What an owner sees of its own pipelines (with the tables' row-level security). The grants also tie the role
// to this database: DROP ROLE is refused while it owns a pipeline. What was granted stays when a pipeline
// goes: it shows nothing then.
void grant_sight_to_owners(const Extension& extension) {
    AsExtensionOwner as_owner(extension);
    const std::string pipelines = extension.table("sqs_ingest_pipeline");
    const auto owners = query(
        "SELECT DISTINCT pg_catalog.quote_ident(r.rolname) FROM " + pipelines +
            " p JOIN pg_catalog.pg_roles r ON r.oid = p.owner"
            " WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a"
            " WHERE c.oid = $1::pg_catalog.regclass AND a.grantee = r.oid AND a.privilege_type = 'SELECT')",
        {pipelines});
    for (const auto& owner : owners) {
        query("GRANT SELECT ON " + pipelines + ", " + extension.table("sqs_ingest_dead_letter") + ", " +
              extension.table("pg_stat_sqs_ingest") + " TO " + *owner[0]);
        query("GRANT EXECUTE ON FUNCTION " + extension.table("sqs_ingest_stat()") + ", " +
              extension.table("sqs_ingest_status()") + " TO " + *owner[0]);
    }
}

bool workers_are_gone(const std::string& name) {
    StateLock lock(LW_SHARED);
    const auto* entry = find_pipeline(MyDatabaseId, name.c_str());
    return !entry || live_workers(*entry) == 0;
}

// False: some are still there.
bool wait_for_workers(const std::string& name) {
    const auto since = GetCurrentTimestamp();
    call_pg([] { ConditionVariablePrepareToSleep(&shared_state()->slots_changed); });
    bool gone;
    while (!(gone = workers_are_gone(name)) &&
           !TimestampDifferenceExceeds(since, GetCurrentTimestamp(), kStopWaitMs))
        call_pg([] { ConditionVariableTimedSleep(&shared_state()->slots_changed, 1000, PG_WAIT_EXTENSION); });
    ConditionVariableCancelSleep();
    return gone;
}

// True: it was enabled.
bool disable(PipelineNames enabled, const std::string& name) {
    if (enabled.erase(name) == 0)
        return false;
    set_enabled_pipelines(enabled);
    return true;
}

bool finish_workers(const std::string& name) {
    look_again_at_commit();
    if (!shared_state())
        return true;
    hold_pipeline(name.c_str());
    return wait_for_workers(name);
}

bool stop(const std::string& name) {
    const auto extension = lock_extension();
    SpiConnection spi;
    const auto enabled = lock_enabled_pipelines();
    const auto row = read_pipeline(extension, name);
    if (!row && !enabled.count(name)) {
        if (name != kBuiltInPipeline)
            require_pipeline(extension, name); // says that there is none
        return false;                          // the built-in one was never started
    }
    if (row)
        require_own_pipeline(*row);
    const bool was_enabled = disable(enabled, name);
    if (!finish_workers(name))
        call_pg([&] {
            ereport(WARNING,
                    (errmsg("the workers of pipeline \"%s\" are still finishing", name.c_str()),
                     errhint("They may wait for a lock that this transaction holds, or for a standby. They "
                             "end when they can; sqs_ingest_status() shows it.")));
        });
    return was_enabled;
}

} // namespace

bool stop_pipeline(const std::string& name) {
    disable(lock_enabled_pipelines(), name);
    return finish_workers(name);
}

} // namespace sqs_ingest::pg

extern "C" {

PG_FUNCTION_INFO_V1(sqs_ingest_start);
Datum sqs_ingest_start(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const char* name = text_to_cstring(PG_GETARG_TEXT_PP(0));
    PreventCommandIfReadOnly("sqs_ingest_start()");
    PreventCommandDuringRecovery("sqs_ingest_start()");
    PG_RETURN_BOOL(pg_entry([&] { return start(name); }));
}

PG_FUNCTION_INFO_V1(sqs_ingest_stop);
Datum sqs_ingest_stop(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const char* name = text_to_cstring(PG_GETARG_TEXT_PP(0));
    PreventCommandIfReadOnly("sqs_ingest_stop()");
    PreventCommandDuringRecovery("sqs_ingest_stop()");
    PG_RETURN_BOOL(pg_entry([&] { return stop(name); }));
}

// AFTER … FOR EACH STATEMENT on sqs_ingest_pipeline: plain changes of the table count too.
PG_FUNCTION_INFO_V1(sqs_ingest_pipeline_changed);
Datum sqs_ingest_pipeline_changed(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("sqs_ingest_pipeline_changed() can only be called as a trigger"),
                        errhint("It belongs to the table sqs_ingest_pipeline.")));
    pg_entry([] {
        if (shared_state())
            look_again_at_commit();
        SpiConnection spi;
        grant_sight_to_owners(require_extension());
    });
    return PointerGetDatum(nullptr);
}
}
