// sqs_ingest_stat(): the shared state as rows, one per pipeline of this database that is enabled or was. The
// view pg_stat_sqs_ingest joins it with the pipelines; sqs_ingest_status() shows that as JSON.
#include "pg/durability.h"
#include "pg/enabled.h"
#include "pg/preconditions.h"
#include "pg/settings.h"
#include "pg/shared_state.h"
#include "pg/spi.h"

#include <nlohmann/json.hpp>

namespace sqs_ingest::pg {

namespace {

// A copy, taken under the lock.
struct Snapshot {
    PipelineEntry entry;
    std::vector<WorkerSlot> workers;
    bool launcher_runs;
};

std::vector<Snapshot> take_snapshots() {
    std::vector<Snapshot> snapshots;
    snapshots.reserve(kMaxPipelines);
    auto& state = *shared_state();
    std::vector<WorkerSlot> slots(static_cast<std::size_t>(state.slots_count));
    std::vector<int> indexes;
    indexes.reserve(kMaxPipelines);
    {
        StateLock lock(LW_SHARED);
        for (const auto& entry : state.pipelines)
            if (entry.used && entry.database == MyDatabaseId) {
                snapshots.push_back({entry, {}, state.launcher != 0});
                indexes.push_back(index_of(entry));
            }
        std::copy(state.slots, state.slots + state.slots_count, slots.begin());
    }
    for (std::size_t i = 0; i < snapshots.size(); ++i)
        for (const auto& slot : slots)
            if (slot.pipeline == indexes[i])
                snapshots[i].workers.push_back(slot);
    return snapshots;
}

struct Summary {
    PipelineState state;
    Trouble trouble; // why, and what to do
};

Trouble words(const char* message, const char* hint = "") {
    return make_trouble("", message, hint, 0);
}

// One state for all workers of a pipeline: the worst that needs a person's eyes, else the busiest.
Summary summarise(const Snapshot& snapshot, bool enabled) {
    const auto& entry = snapshot.entry;
    const auto worker_in = [&](PipelineState state) {
        return std::find_if(snapshot.workers.begin(), snapshot.workers.end(),
                            [&](const WorkerSlot& slot) { return slot.state == state; });
    };
    if (!snapshot.workers.empty()) {
        const bool stopping = !enabled || std::all_of(snapshot.workers.begin(), snapshot.workers.end(),
                                                      [](const WorkerSlot& slot) { return slot.stop; });
        if (stopping)
            return {PipelineState::stopping, words("the workers finish what they have in hand")};
        if (const auto worker = worker_in(PipelineState::backing_off); worker != snapshot.workers.end())
            return {PipelineState::backing_off, worker->trouble};
        for (const auto state : {PipelineState::running, PipelineState::idle})
            if (worker_in(state) != snapshot.workers.end())
                return {state,
                        words(state == PipelineState::idle ? "the queue is empty" : "messages are ingested")};
        return {PipelineState::starting, words("a worker starts")};
    }
    if (!enabled)
        return {PipelineState::stopped,
                words("the pipeline is not enabled", "Run sqs_ingest_start() to enable it.")};
    if (RecoveryInProgress())
        return {PipelineState::stopped,
                words("this server is a standby", "The pipeline starts by itself on promotion.")};
    if (!ingest_enabled())
        return {PipelineState::stopped,
                words("sqs_ingest.enabled is off", "Set it on in postgresql.conf and reload.")};
    if (!snapshot.launcher_runs)
        return {PipelineState::cannot_start, words("the launcher of sqs_ingest does not run",
                                                   "It starts with the server if max_worker_processes has "
                                                   "room for it, and again some seconds after "
                                                   "it ended.")};
    if (entry.obstacle.message[0])
        return {PipelineState::cannot_start, entry.obstacle};
    if (entry.failures > 0 && entry.last_error.message[0])
        return {PipelineState::cannot_start, entry.last_error};
    return {PipelineState::starting, words("the launcher has not started a worker yet")};
}

std::string iso_time(TimestampTz time) {
    return time == 0 ? std::string() : timestamptz_to_str(time);
}

std::string workers_json(const std::vector<WorkerSlot>& workers) {
    auto list = nlohmann::json::array();
    for (const auto& worker : workers)
        if (worker.pid != 0)
            list.push_back(
                {{"pid", worker.pid}, {"since", iso_time(worker.since)}, {"state", to_string(worker.state)}});
    return list.dump();
}

// Version 1.0 of the extension has only these, and no columns behind stats_since.
constexpr int kFirstCounters = static_cast<int>(Counter::discarded);
// A standby can have the catalog of a later version while it still has this library.
constexpr int kMostColumns = 100;
// Plain values of one row, ready for Datums: nothing here has a destructor when Postgres is called.
struct Cells {
    Datum values[kMostColumns];
    bool nulls[kMostColumns];
    int n = 0;

    void add(Datum value, bool is_null = false) {
        values[n] = value;
        nulls[n++] = is_null;
    }
    void add_text(const char* text) {
        add(text && *text ? CStringGetTextDatum(text) : Datum(0), !text || !*text);
    }
    void add_time(TimestampTz time) { add(TimestampTzGetDatum(time), time == 0); }
};

void put_row(ReturnSetInfo* result, const Snapshot& snapshot, const Summary& summary, const char* workers) {
    const auto& entry = snapshot.entry;
    int32 in_hand = 0;
    for (const auto& worker : snapshot.workers)
        in_hand += worker.in_hand;
    const auto now = GetCurrentTimestamp();
    call_pg([&] {
        Cells cells;
        cells.add_text(NameStr(entry.name));
        cells.add_text(to_string(summary.state));
        cells.add_text(summary.trouble.message);
        cells.add_text(summary.trouble.hint);
        cells.add(DirectFunctionCall1(jsonb_in, CStringGetDatum(workers)));
        cells.add_text(entry.queue_url);
        for (int i = 0; i < kFirstCounters; ++i)
            cells.add(Int64GetDatum(counted(entry, static_cast<Counter>(i))));
        cells.add(Int32GetDatum(in_hand));
        cells.add_text(entry.last_error.message);
        cells.add_time(entry.last_error.at);
        cells.add_time(entry.last_poll);
        cells.add(Float8GetDatum(static_cast<double>(entry.lag_ms) / 1000.0));
        cells.add(Float8GetDatum(entry.rate.per_second(now)));
        cells.add_text(durability());
        cells.add_time(entry.stats_since);
        for (int i = kFirstCounters; i < kCounters; ++i)
            cells.add(Int64GetDatum(counted(entry, static_cast<Counter>(i))));
        cells.add_text(entry.protocol);
        cells.add_text(entry.credentials);
        if (result->setDesc->natts > kMostColumns)
            ereport(ERROR,
                    (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                     errmsg("the library of sqs_ingest is too old for the extension in this database"),
                     errhint("Install the library of the extension's version and restart the server.")));
        while (cells.n < result->setDesc->natts)
            cells.add(Datum(0), true);
        tuplestore_putvalues(result->setResult, result->setDesc, cells.values, cells.nulls);
    });
}

// Monitoring roles see all pipelines, others their own, by the catalog: what the launcher knows may be old.
class Sight {
  public:
    Sight() : sees_all_(ask_pg([] { return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS); })) {
        if (sees_all_)
            return;
        SpiConnection spi;
        const auto extension = require_extension();
        AsExtensionOwner as_owner(extension);
        for (const auto& row :
             query("SELECT name, owner::oid::text FROM " + extension.table("sqs_ingest_pipeline"), {},
                   Effect::reads))
            owners_[*row[0]] = static_cast<Oid>(std::stoul(*row[1]));
    }

    bool sees(const std::string& pipeline) const {
        if (sees_all_)
            return true;
        const auto owner = owners_.find(pipeline);
        return owner != owners_.end() &&
               ask_pg([&] { return has_privs_of_role(GetUserId(), owner->second); });
    }

  private:
    bool sees_all_;
    std::map<std::string, Oid> owners_;
};

// An enabled pipeline that the launcher has not seen yet, or that no launcher will see.
Snapshot unseen(const std::string& name) {
    Snapshot snapshot{};
    initialise_entry(snapshot.entry, MyDatabaseId, name.c_str());
    snapshot.entry.stats_since = 0;
    StateLock lock(LW_SHARED);
    snapshot.launcher_runs = shared_state()->launcher != 0;
    return snapshot;
}

void put_all(ReturnSetInfo* result) {
    if (!shared_state())
        return;
    const auto enabled = enabled_pipelines();
    auto snapshots = take_snapshots();
    for (const auto& name : enabled) {
        const bool seen = std::any_of(snapshots.begin(), snapshots.end(), [&](const Snapshot& snapshot) {
            return name == NameStr(snapshot.entry.name);
        });
        if (!seen)
            snapshots.push_back(unseen(name));
    }
    const Sight sight;
    for (const auto& snapshot : snapshots) {
        if (!sight.sees(NameStr(snapshot.entry.name)))
            continue;
        const auto summary = summarise(snapshot, enabled.count(NameStr(snapshot.entry.name)) > 0);
        put_row(result, snapshot, summary, workers_json(snapshot.workers).c_str());
    }
}

// `name` null: all pipelines of the caller.
void reset(const char* name) {
    std::vector<std::string> names;
    {
        SpiConnection spi;
        const auto extension = require_extension();
        if (name) {
            require_own_pipeline(require_pipeline(extension, name));
            names.push_back(name);
        } else {
            AsExtensionOwner as_owner(extension);
            for (const auto& row : query("SELECT name FROM " + extension.table("sqs_ingest_pipeline") +
                                             " WHERE pg_has_role($1::oid, owner, 'USAGE')",
                                         {std::to_string(as_owner.user())}, Effect::reads))
                names.push_back(*row[0]);
        }
    }
    if (!shared_state())
        return;
    StateLock lock;
    for (const auto& one : names)
        if (auto* entry = find_pipeline(MyDatabaseId, one.c_str()))
            reset_counters(*entry);
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" {

PG_FUNCTION_INFO_V1(sqs_ingest_stat);
Datum sqs_ingest_stat(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    pg_entry([&] { put_all(result); });
    return Datum(0);
}

PG_FUNCTION_INFO_V1(sqs_ingest_stat_reset);
Datum sqs_ingest_stat_reset(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const char* name = PG_ARGISNULL(0) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(0));
    pg_entry([&] { reset(name); });
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(sqs_ingest_preloaded);
Datum sqs_ingest_preloaded(PG_FUNCTION_ARGS) {
    (void)fcinfo;
    PG_RETURN_BOOL(sqs_ingest::pg::shared_state() != nullptr);
}
}
