// The launcher: one static process without a database that keeps the wanted and the actual workers the same.
//
// Every pass starts from the catalogs: the security labels of the databases say which pipelines are enabled.
// When something changed (a nudge from start(), stop() or a change of a pipeline; SIGHUP; its own start),
// scouts read the details from each database. Then workers are asked to stop or launched. A nudge that got
// lost costs a minute, never a pipeline.
#include "pg/background.h"
#include "pg/enabled.h"
#include "pg/settings.h"
#include "pg/shared_state.h"
#include "pg/transaction.h"
#include "pg/worker.h"

namespace sqs_ingest::pg {

namespace {

constexpr long kPassEveryMs = 60 * 1000;
constexpr int kRetryObstacleMs = 15 * 1000;
constexpr int kAttachWithinMs = 30 * 1000; // a launched worker must have taken its slot by then
constexpr int kScoutWithinMs = 30 * 1000;

// The launcher sleeps until then at most.
class NextPass {
  public:
    explicit NextPass(TimestampTz now) : now_(now), at_(TimestampTzPlusMilliseconds(now, kPassEveryMs)) {}
    void not_after(TimestampTz when) { at_ = std::min(at_, when); }
    void in_ms(int ms) { not_after(TimestampTzPlusMilliseconds(now_, ms)); }
    long wait_ms() const { return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), at_); }

  private:
    TimestampTz now_, at_;
};

// An error here ends the launcher, which starts again: no transaction has to be cleaned up.
std::map<Oid, PipelineNames> read_labels() {
    MemoryContext outside = CurrentMemoryContext;
    call_pg([] {
        SetCurrentStatementStartTimestamp();
        StartTransactionCommand();
        PushActiveSnapshot(GetTransactionSnapshot());
    });
    auto labels = enabled_pipelines_everywhere();
    call_pg([&] {
        PopActiveSnapshot();
        CommitTransactionCommand();
        MemoryContextSwitchTo(outside);
    });
    return labels;
}

// Marks the entries of enabled pipelines, and makes those that are new. Returns the databases to scout.
std::set<Oid> note_enabled(const std::map<Oid, PipelineNames>& labels, bool look_again) {
    StateLock lock;
    auto& state = *shared_state();
    const auto now = GetCurrentTimestamp();
    for (auto& entry : state.pipelines)
        if (entry.used) {
            const auto names = labels.find(entry.database);
            const bool enabled = names != labels.end() && names->second.count(NameStr(entry.name)) > 0;
            if (enabled && !entry.enabled)
                entry.scouted = false; // its row may have changed meanwhile
            entry.enabled = enabled;
        }
    std::set<Oid> to_scout;
    for (const auto& [database, names] : labels)
        for (const auto& name : names) {
            auto* entry = find_or_create_pipeline(database, name.c_str());
            if (!entry)
                continue; // more than kMaxPipelines: the status says that it does not run
            entry->enabled = true;
            const bool retry = entry->obstacle.message[0] &&
                               TimestampDifferenceExceeds(entry->obstacle.at, now, kRetryObstacleMs);
            if (look_again || !entry->scouted || retry)
                to_scout.insert(database);
        }
    return to_scout;
}

void note_no_process_slot(PipelineEntry& entry) {
    entry.obstacle = make_trouble("NoWorkerSlot", "no background worker slot is free",
                                  "Raise max_worker_processes in postgresql.conf and restart the server.",
                                  GetCurrentTimestamp());
}

// Rate-limited: it would be said at every try.
void warn_no_process_slot() {
    static TimestampTz last = 0;
    const auto now = GetCurrentTimestamp();
    if (last != 0 && !TimestampDifferenceExceeds(last, now, 60 * 1000))
        return;
    last = now;
    ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
                      errmsg("sqs_ingest cannot start a worker: no background worker slot is free"),
                      errhint("Raise max_worker_processes (currently %d) and restart the server.",
                              max_worker_processes)));
}

bool launch(BackgroundWorker& process, BackgroundWorkerHandle** handle) {
    process.bgw_notify_pid = MyProcPid;
    return ask_pg([&] {
        MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
        const bool registered = RegisterDynamicBackgroundWorker(&process, handle);
        MemoryContextSwitchTo(old);
        return registered;
    });
}

// Sends a scout and waits for its end. False: no process slot.
bool scout(Oid database) {
    auto process = describe_process("sqs_ingest scout", "sqs_ingest_scout_main", ObjectIdGetDatum(database));
    BackgroundWorkerHandle* handle = nullptr;
    if (!launch(process, &handle))
        return false;
    const auto started = GetCurrentTimestamp();
    for (;;) {
        pid_t pid;
        const auto status = ask_pg([&] { return GetBackgroundWorkerPid(handle, &pid); });
        if (status == BGWH_STOPPED || status == BGWH_POSTMASTER_DIED || terminate_requested())
            break;
        if (TimestampDifferenceExceeds(started, GetCurrentTimestamp(), kScoutWithinMs)) {
            call_pg([&] { TerminateBackgroundWorker(handle); });
            break;
        }
        wait_for(-1, 100, PG_WAIT_EXTENSION);
        handle_interrupts();
    }
    pfree(handle);
    return true;
}

void scout_all(const std::set<Oid>& databases) {
    for (const Oid database : databases) {
        if (scout(database))
            continue;
        warn_no_process_slot();
        StateLock lock;
        for (auto& entry : shared_state()->pipelines)
            if (entry.used && entry.database == database)
                note_no_process_slot(entry);
    }
}

// One queue feeds one pipeline. The entry that comes first keeps it.
bool queue_is_taken(const PipelineEntry& entry) {
    for (const auto& other : shared_state()->pipelines) {
        if (&other == &entry)
            return false;
        if (other.used && other.enabled && other.scouted && strcmp(other.queue_url, entry.queue_url) == 0)
            return true;
    }
    return false;
}

int wanted_workers(PipelineEntry& entry) {
    if (!entry.used || !entry.enabled || !entry.scouted || !ingest_enabled() || entry.holds > 0)
        return 0;
    if (entry.obstacle.message[0] && strcmp(entry.obstacle.code, "NoWorkerSlot") != 0)
        return 0;
    if (queue_is_taken(entry)) {
        entry.obstacle =
            make_trouble("QueueInUse", "another enabled pipeline of this cluster reads the same queue",
                         "Stop the other pipeline, or give this one another queue.", GetCurrentTimestamp());
        return 0;
    }
    return entry.workers;
}

// Takes a free slot for the pipeline; -1: none is free.
int reserve_slot(const PipelineEntry& entry) {
    auto& state = *shared_state();
    for (int i = 0; i < state.slots_count; ++i) {
        auto& slot = state.slots[i];
        if (slot.pipeline >= 0)
            continue;
        const uint32 generation = slot.generation + 1;
        slot = WorkerSlot{};
        slot.pipeline = index_of(entry);
        slot.generation = generation;
        slot.version = entry.version;
        slot.launched_at = GetCurrentTimestamp();
        slot.state = PipelineState::starting;
        return i;
    }
    return -1;
}

void free_slot(int index) {
    StateLock lock;
    shared_state()->slots[index].pipeline = -1;
}

// Workers that are not wanted any more, and those of an older version, are asked to finish. Slots whose
// process never came are given back.
void stop_unwanted(NextPass& next) {
    StateLock lock;
    auto& state = *shared_state();
    const auto now = GetCurrentTimestamp();
    int kept[kMaxPipelines] = {};
    for (int i = 0; i < state.slots_count; ++i) {
        auto& slot = state.slots[i];
        if (slot.pipeline < 0)
            continue;
        auto& entry = state.pipelines[slot.pipeline];
        if (slot.pid == 0) {
            if (TimestampDifferenceExceeds(slot.launched_at, now, kAttachWithinMs)) {
                slot.pipeline = -1;
                continue;
            }
            next.in_ms(kAttachWithinMs);
        }
        const bool wanted = slot.version == entry.version && kept[slot.pipeline] < wanted_workers(entry);
        if (wanted)
            ++kept[slot.pipeline];
        else if (!slot.stop)
            ask_to_stop(slot);
    }
}

// The next worker to launch: reserves its slot. Empty: all that are wanted are there, or have to wait.
struct Order {
    int slot;
    uint32 generation;
    int pipeline;
};
std::optional<Order> next_order(NextPass& next) {
    StateLock lock;
    auto& state = *shared_state();
    const auto now = GetCurrentTimestamp();
    for (auto& entry : state.pipelines) {
        if (live_workers(entry) >= wanted_workers(entry))
            continue;
        if (entry.not_before > now) {
            next.not_after(entry.not_before);
            continue;
        }
        const int slot = reserve_slot(entry);
        if (slot < 0) {
            entry.obstacle = make_trouble("NoWorkerSlot", "all workers of sqs_ingest.max_workers are in use",
                                          "Raise sqs_ingest.max_workers and restart the server.", now);
            next.in_ms(kRetryObstacleMs);
            continue;
        }
        return Order{slot, state.slots[slot].generation, index_of(entry)};
    }
    return std::nullopt;
}

void start_wanted(NextPass& next) {
    while (const auto order = next_order(next)) {
        auto process =
            describe_process("sqs_ingest worker", "sqs_ingest_worker_main", Int32GetDatum(order->slot));
        std::memcpy(process.bgw_extra, &order->generation, sizeof order->generation);
        BackgroundWorkerHandle* handle = nullptr;
        const bool launched = launch(process, &handle);
        auto& entry = shared_state()->pipelines[order->pipeline];
        if (!launched) {
            free_slot(order->slot);
            warn_no_process_slot();
            {
                StateLock lock;
                note_no_process_slot(entry);
                entry.not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kRetryObstacleMs);
            }
            next.in_ms(kRetryObstacleMs);
            continue;
        }
        pfree(handle);
        StateLock lock;
        if (strcmp(entry.obstacle.code, "NoWorkerSlot") == 0)
            entry.obstacle = {};
    }
}

// When an obstacle is looked at again.
void plan_retries(NextPass& next) {
    StateLock lock(LW_SHARED);
    for (const auto& entry : shared_state()->pipelines)
        if (entry.used && entry.enabled && (!entry.scouted || entry.obstacle.message[0]))
            next.in_ms(kRetryObstacleMs + 100);
}

bool was_nudged() {
    StateLock lock(LW_SHARED);
    return shared_state()->nudged;
}

void pass(NextPass& next) {
    bool look_again;
    {
        // Taken before the labels are read: what is committed after that asks for another pass.
        StateLock lock;
        shared_state()->nudged = false;
        look_again = std::exchange(shared_state()->look_again, false);
    }
    scout_all(note_enabled(read_labels(), look_again));
    stop_unwanted(next);
    start_wanted(next);
    plan_retries(next);
}

void forget_launcher(int, Datum) {
    StateLock lock;
    if (shared_state()->launcher == MyProcPid)
        shared_state()->launcher = 0;
}

void run() {
    const uint32 event = wait_event("SqsIngestLauncher");
    TurnMemory memory;
    while (!terminate_requested()) {
        memory.begin_turn();
        if (ConfigReloadPending) {
            ConfigReloadPending = false;
            call_pg([] { ProcessConfigFile(PGC_SIGHUP); });
            StateLock lock;
            shared_state()->look_again = true;
        }
        NextPass next(GetCurrentTimestamp());
        pass(next);
        // Waiting for a scout takes latch events away: a nudge that came meanwhile is not slept over.
        wait_for(-1, was_nudged() ? 0 : std::max(10L, next.wait_ms()), event);
        handle_interrupts();
    }
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" PGDLLEXPORT void sqs_ingest_launcher_main(Datum) {
    using namespace sqs_ingest::pg;

    before_shmem_exit(forget_launcher, 0);
    install_signal_handlers();
    BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
    {
        StateLock lock;
        shared_state()->launcher = MyProcPid;
        shared_state()->look_again = true;
    }
    ereport(LOG, (errmsg("sqs_ingest launcher started")));

    ErrorReport report;
    bool failed = false;
    try {
        run();
    } catch (...) {
        describe_current_exception(report);
        failed = true;
    }
    if (failed)
        ereport(LOG, (errmsg("sqs_ingest launcher ends: %s", report.message)));
    // Exit code 1 also after SIGTERM: with 0 the postmaster would never start another one. In a shutdown it
    // does not.
    proc_exit(1);
}
