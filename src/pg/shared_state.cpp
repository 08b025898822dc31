#include "pg/shared_state.h"

#include "pg/settings.h"

namespace sqs_ingest::pg {

namespace {

constexpr const char* kTranche = "sqs_ingest";

SharedState* state = nullptr;
shmem_request_hook_type previous_request_hook = nullptr;
shmem_startup_hook_type previous_startup_hook = nullptr;

Size state_size() {
    return add_size(offsetof(SharedState, slots), mul_size(sizeof(WorkerSlot), max_workers()));
}

void initialise(SharedState& fresh) {
    std::memset(static_cast<void*>(&fresh), 0, state_size());
    for (auto& entry : fresh.pipelines)
        for (auto& counter : entry.counters)
            pg_atomic_init_u64(&counter, 0);
    ConditionVariableInit(&fresh.slots_changed);
    fresh.slots_count = max_workers();
    for (int i = 0; i < fresh.slots_count; ++i)
        fresh.slots[i].pipeline = -1;
}

extern "C" {
static void request_memory() {
    if (previous_request_hook)
        previous_request_hook();
    RequestAddinShmemSpace(state_size());
    RequestNamedLWLockTranche(kTranche, 1);
}

static void attach_memory() {
    if (previous_startup_hook)
        previous_startup_hook();
    bool found;
    LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
    state = static_cast<SharedState*>(ShmemInitStruct("sqs_ingest", state_size(), &found));
    if (!found)
        initialise(*state);
    LWLockRelease(AddinShmemInitLock);
}
}

} // namespace

const char* to_string(PipelineState value) {
    switch (value) {
    case PipelineState::starting:
        return "starting";
    case PipelineState::running:
        return "running";
    case PipelineState::idle:
        return "idle";
    case PipelineState::backing_off:
        return "backing_off";
    case PipelineState::stopping:
        return "stopping";
    case PipelineState::stopped:
        return "stopped";
    case PipelineState::cannot_start:
        return "cannot_start";
    }
    return "unknown";
}

const char* to_string(Counter counter) {
    static constexpr const char* kNames[kCounters] = {
        "received",        "inserted", "duplicates",   "dead_letters",   "released",  "deleted",
        "delete_failures", "bytes",    "transactions", "receive_errors", "discarded",
    };
    return kNames[static_cast<int>(counter)];
}

Trouble make_trouble(const char* code, const std::string& message, const std::string& hint, TimestampTz at) {
    Trouble trouble{};
    copy_ascii(trouble.code, code);
    copy_ascii(trouble.message, message.c_str());
    copy_ascii(trouble.hint, hint.c_str());
    trouble.at = at;
    return trouble;
}

void RateWindow::add(TimestampTz now, int64 n) {
    const int64 bucket = now / (kBucketSeconds * USECS_PER_SEC);
    const int i = static_cast<int>(bucket % kBuckets);
    if (epoch[i] != bucket) {
        epoch[i] = bucket;
        messages[i] = 0;
    }
    messages[i] += n;
}

double RateWindow::per_second(TimestampTz now) const {
    const int64 current = now / (kBucketSeconds * USECS_PER_SEC);
    int64 sum = 0;
    for (int i = 0; i < kBuckets; ++i)
        if (epoch[i] < current && epoch[i] >= current - (kBuckets - 1))
            sum += messages[i];
    return static_cast<double>(sum) / ((kBuckets - 1) * kBucketSeconds);
}

void request_shared_state() {
    previous_request_hook = shmem_request_hook;
    shmem_request_hook = request_memory;
    previous_startup_hook = shmem_startup_hook;
    shmem_startup_hook = attach_memory;
}

SharedState* shared_state() {
    return state;
}

LWLock* state_lock() {
    static LWLock* lock = nullptr; // the tranche's address is the same in every process and for good
    if (!lock)
        lock = &GetNamedLWLockTranche(kTranche)->lock;
    return lock;
}

PipelineEntry* find_pipeline(Oid database, const char* name) {
    for (auto& entry : state->pipelines)
        if (entry.used && entry.database == database && strcmp(NameStr(entry.name), name) == 0)
            return &entry;
    return nullptr;
}

static TimestampTz last_use(const PipelineEntry& entry) {
    return std::max(entry.last_poll, entry.stats_since);
}

PipelineEntry* find_or_create_pipeline(Oid database, const char* name) {
    if (auto* entry = find_pipeline(database, name))
        return entry;
    PipelineEntry* free_entry = nullptr;
    for (auto& entry : state->pipelines) {
        if (!entry.used) {
            free_entry = &entry;
            break;
        }
        // A stopped pipeline is only remembered for its counters: the one that was used longest ago goes.
        const bool stopped = !entry.enabled && entry.holds == 0 && live_workers(entry) == 0;
        if (stopped && (!free_entry || last_use(entry) < last_use(*free_entry)))
            free_entry = &entry;
    }
    if (!free_entry)
        return nullptr;
    initialise_entry(*free_entry, database, name);
    return free_entry;
}

void initialise_entry(PipelineEntry& entry, Oid database, const char* name) {
    std::memset(static_cast<void*>(&entry), 0, sizeof entry);
    for (auto& counter : entry.counters)
        pg_atomic_init_u64(&counter, 0);
    entry.used = true;
    entry.database = database;
    namestrcpy(&entry.name, name);
    entry.stats_since = GetCurrentTimestamp();
}

void add_to_shared_entry(const PipelineEntry& mine) {
    if (!state)
        return;
    StateLock lock;
    auto* shared = find_or_create_pipeline(mine.database, NameStr(mine.name));
    if (!shared)
        return;
    for (int i = 0; i < kCounters; ++i)
        count(*shared, static_cast<Counter>(i), counted(mine, static_cast<Counter>(i)));
    if (mine.last_error.at > shared->last_error.at)
        shared->last_error = mine.last_error;
    shared->last_poll = std::max(shared->last_poll, mine.last_poll);
}

void reset_counters(PipelineEntry& entry) {
    int64 in_hand = 0;
    for (int i = 0; i < state->slots_count; ++i)
        if (state->slots[i].pipeline == index_of(entry))
            in_hand += state->slots[i].in_hand;
    for (auto& counter : entry.counters)
        pg_atomic_write_u64(&counter, 0);
    count(entry, Counter::received, in_hand);
    entry.last_error = {};
    entry.rate = {};
    entry.stats_since = GetCurrentTimestamp();
}

void forget_all_but_use(PipelineEntry& entry) {
    const NameData name = entry.name;
    const bool enabled = entry.enabled;
    const int holds = entry.holds;
    initialise_entry(entry, entry.database, NameStr(name));
    entry.enabled = enabled;
    entry.holds = holds;
    reset_counters(entry);
}

int live_workers(const PipelineEntry& entry, bool of_any_version) {
    int n = 0;
    for (int i = 0; i < state->slots_count; ++i) {
        const auto& slot = state->slots[i];
        n += slot.pipeline == index_of(entry) && (of_any_version || slot.version == entry.version);
    }
    return n;
}

void wake(pid_t pid) {
    // BackendPidGetProc takes ProcArrayLock in shared mode: after state_lock, never the other way round.
    if (pid == 0)
        return;
    if (PGPROC* process = BackendPidGetProc(pid))
        SetLatch(&process->procLatch);
}

void ask_to_stop(WorkerSlot& slot) {
    slot.stop = true;
    wake(slot.pid);
}

void wake_launcher(bool look_again) {
    if (!state)
        return;
    StateLock lock;
    state->nudged = true;
    state->look_again |= look_again;
    wake(state->launcher);
}

} // namespace sqs_ingest::pg
