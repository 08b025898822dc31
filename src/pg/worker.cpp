// An ingestion worker: one process, connected as its pipeline's owner, that runs one Ingest.
//
// It ends when it is asked to (its slot's stop flag, SIGTERM), and never restarts by itself: the launcher
// starts another one when that is wanted. Whatever goes wrong ends here, with exit code 0; a death by signal
// would restart the whole cluster.
#include "pg/worker.h"
#include "pg/background.h"
#include "pg/ingest.h"
#include "pg/keyring.h"

namespace sqs_ingest::pg {

namespace {

constexpr int kMaxExtraFailures = 8; // doublings of the launcher's pause

int my_slot = -1;

// At exit, at any stage: leaves the slot. What was in hand returns to the queue when its visibility timeout
// is over.
void leave_slot(int, Datum) {
    if (my_slot < 0)
        return;
    {
        StateLock lock;
        auto& slot = shared_state()->slots[my_slot];
        if (slot.pipeline >= 0) {
            auto& entry = shared_state()->pipelines[slot.pipeline];
            count(entry, Counter::released, slot.in_hand);
            if (!slot.ready)
                entry.scouted = false; // a scout may know why
            if (slot.stop) {
                entry.failures = 0;
            } else {
                // Nobody asked: the launcher waits before it starts another one, longer each time.
                const bool lasted = TimestampDifferenceExceeds(slot.since, GetCurrentTimestamp(), 60 * 1000);
                entry.failures = lasted ? 1 : std::min(entry.failures + 1, kMaxExtraFailures);
                entry.not_before =
                    TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 500 << (entry.failures - 1));
                const bool said_why = entry.last_error.at >= slot.since;
                if (!slot.ready && !said_why && !entry.obstacle.message[0])
                    entry.last_error = make_trouble("CannotConnect", "a worker could not start",
                                                    "The server log says why.", GetCurrentTimestamp());
            }
        }
        slot.pipeline = -1;
        slot.pid = 0;
        slot.in_hand = 0;
        my_slot = -1;
    }
    ConditionVariableBroadcast(&shared_state()->slots_changed);
    wake_launcher(false);
}

struct Assignment {
    Oid database, owner;
    int pipeline;
    char name[NAMEDATALEN];
};

// False: the launcher gave the slot to somebody else meanwhile.
bool enter_slot(int index, uint32 generation, Assignment& assignment) {
    before_shmem_exit(leave_slot, 0);
    StateLock lock;
    auto& slot = shared_state()->slots[index];
    if (slot.pipeline < 0 || slot.generation != generation || slot.pid != 0)
        return false;
    const auto& entry = shared_state()->pipelines[slot.pipeline];
    slot.pid = MyProcPid;
    slot.since = GetCurrentTimestamp();
    my_slot = index;
    assignment = {entry.database, entry.owner, slot.pipeline, {}};
    strlcpy(assignment.name, NameStr(entry.name), sizeof assignment.name);
    return true;
}

struct Configured {
    Extension extension;
    Pipeline pipeline;
};

Configured configure(const std::string& name) {
    Transaction transaction(Host::worker, "sqs_ingest: reading the pipeline");
    const auto extension = require_extension();
    const auto row = read_pipeline(extension, name);
    if (!row)
        throw make_error(ERRCODE_UNDEFINED_OBJECT, "pipeline \"" + name + "\" does not exist",
                         "Its row was deleted while it was enabled: sqs_ingest_stop() it, or make it again.");
    if (row->owner != GetUserId())
        throw make_error(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the worker of pipeline \"" + name + "\" runs as role \"" + role_name(GetUserId()) +
                "\", not as its owner \"" + role_name(row->owner) + "\"",
            "The owner has just changed, or its own settings name another session_authorization: "
            "reset that with ALTER ROLE.");
    auto pipeline = resolve(*row, current_settings());
    if (!pipeline.ok())
        throw make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, pipeline.error().message,
                         pipeline.error().hint);
    transaction.commit();
    return {extension, std::move(pipeline).value()};
}

bool asked_to_stop() {
    if (terminate_requested())
        return true;
    StateLock lock(LW_SHARED);
    return shared_state()->slots[my_slot].stop;
}

void reload_configuration() {
    ConfigReloadPending = false;
    call_pg([] { ProcessConfigFile(PGC_SIGHUP); });
    try {
        current_keyring();
    } catch (const PgError&) {
        // The pipeline finds out, says so in its status and tries again.
    }
    // Other settings change the pipeline's version: the launcher replaces this worker.
}

void run(const Assignment& assignment) {
    const Configured configured = configure(assignment.name);
    const std::string title = std::string("sqs_ingest ") + assignment.name;
    call_pg([&] { // for pg_stat_activity; a source that RESET leaves alone
        SetConfigOption("application_name", title.c_str(), PGC_USERSET, PGC_S_OVERRIDE);
    });
    const uint32 event = wait_event("SqsIngestWorker");
    auto& entry = shared_state()->pipelines[assignment.pipeline];
    auto& slot = shared_state()->slots[my_slot];
    {
        StateLock lock;
        slot.ready = true;
    }
    Ingest ingest(configured.pipeline, configured.extension, entry, slot, Host::worker);
    TurnMemory memory;
    for (;;) {
        memory.begin_turn();
        if (ConfigReloadPending)
            reload_configuration();
        const auto now = std::chrono::steady_clock::now();
        handle_interrupts();
        if (asked_to_stop())
            ingest.stop(now);
        ingest.turn(now);
        if (ingest.stopped())
            return;
        const auto timeout = ingest.timeout(std::chrono::steady_clock::now());
        wait_for(ingest.descriptor(), timeout ? static_cast<long>(timeout->count()) : -1, event);
    }
}

void note_failure(const Assignment& assignment, const ErrorReport& report) {
    {
        StateLock lock;
        shared_state()->pipelines[assignment.pipeline].last_error = make_trouble(
            unpack_sql_state(report.sqlstate), report.message, report.hint, GetCurrentTimestamp());
    }
    ereport(LOG, (errmsg("sqs_ingest worker of pipeline \"%s\" ends: %s", assignment.name, report.message),
                  report.hint[0] ? errhint("%s", report.hint) : 0));
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" PGDLLEXPORT void sqs_ingest_worker_main(Datum argument) {
    using namespace sqs_ingest::pg;

    Assignment assignment;
    uint32 generation;
    std::memcpy(&generation, MyBgworkerEntry->bgw_extra, sizeof generation);
    if (!enter_slot(DatumGetInt32(argument), generation, assignment))
        proc_exit(0);
    install_signal_handlers();
    BackgroundWorkerInitializeConnectionByOid(assignment.database, assignment.owner,
                                              SQS_WORKER_CONNECT_FLAGS);

    ErrorReport report;
    bool failed = false;
    try {
        run(assignment);
    } catch (...) {
        describe_current_exception(report);
        failed = true;
    }
    if (failed)
        note_failure(assignment, report);
    proc_exit(0);
}
