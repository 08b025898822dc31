// What the launcher, the workers and the SQL functions share: which pipelines are wanted, which workers there
// are, and what they did. Plain data only: no pointer, handle or descriptor of a process. Lives as long as
// the postmaster; after a crash it starts empty and the launcher fills it again from the catalogs.
//
// Locking: one LWLock (state_lock()) for everything but the counters, which are atomic. It is held for a few
// copies, never across anything that can raise an error or wait.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

inline constexpr int kMaxPipelines = 64; // entries; a stopped pipeline's entry is reused when they run out
inline constexpr int kUrlLength = 1024;

enum class PipelineState { starting, running, idle, backing_off, stopping, stopped, cannot_start };
const char* to_string(PipelineState state);

// ASCII only: databases with different encodings read it.
template<std::size_t N>
void copy_ascii(char (&to)[N], const char* from) {
    strlcpy(to, from, N);
    for (char* c = to; *c; ++c)
        if (IS_HIGHBIT_SET(*c))
            *c = '?';
}

// What is wrong, for people: what happened, and what to do about it. An empty message: nothing.
struct Trouble {
    char code[64];
    char message[512];
    char hint[256];
    TimestampTz at;
};
Trouble make_trouble(const char* code, const std::string& message, const std::string& hint, TimestampTz at);

// received = inserted + duplicates + dead_letters + discarded + released + in hand, at every moment between
// two batches.
enum class Counter {
    received,        // deliveries taken from the queue
    inserted,        // messages that became rows
    duplicates,      // deliveries of messages that were ingested before, and Written::conflicts
    dead_letters,    // messages that became dead letters
    released,        // deliveries given back to the queue, or lost to its visibility timeout
    deleted,         // messages deleted from the queue
    delete_failures, // delete entries that failed, each try counted
    bytes,           // answer bytes of receives
    transactions,    // committed batches
    receive_errors,  // failed receives
    discarded,       // messages that were deleted without becoming anything (on_invalid = discard)
    count_,
};
inline constexpr int kCounters = static_cast<int>(Counter::count_);
const char* to_string(Counter counter); // the column's name

// Messages committed lately, in buckets of ten seconds.
struct RateWindow {
    static constexpr int kBuckets = 7;
    static constexpr int kBucketSeconds = 10;
    int64 epoch[kBuckets]; // which ten seconds the bucket counts
    int64 messages[kBuckets];

    void add(TimestampTz now, int64 n);
    double per_second(TimestampTz now) const; // over the last full minute
};

struct PipelineEntry {
    bool used;
    Oid database;
    NameData name;

    // Wanted, as the launcher and its scouts read it from the catalogs.
    bool enabled;
    bool scouted; // the fields below are known
    Oid owner;
    int workers;
    uint64 version; // of everything a worker is configured by; another one means other workers
    char queue_url[kUrlLength];
    Trouble obstacle; // why it cannot start

    // Sessions inside sqs_ingest_stop() whose transaction has not ended.
    int holds;

    // Pacing of restarts.
    int failures; // worker ends in a row that nobody asked for
    TimestampTz not_before;

    // Reported by the workers.
    Trouble last_error; // kept after it is over
    TimestampTz last_poll;
    TimestampTz stats_since;
    int64 lag_ms; // age of the oldest message of the last receive, when it was committed; 0 after an empty
                  // receive
    RateWindow rate;
    char protocol[8];      // that the queue's server speaks
    char credentials[256]; // where they come from
    pg_atomic_uint64 counters[kCounters];
};

struct WorkerSlot {
    int pipeline;      // index of its entry; -1: the slot is free
    uint32 generation; // of the slot's use: a worker that comes late finds another number and leaves
    uint64 version;    // the entry's when it was launched
    TimestampTz launched_at;
    pid_t pid; // 0: not attached yet
    TimestampTz since;
    bool stop;           // asked to finish
    bool ready;          // it reached its main loop
    PipelineState state; // running, idle, backing_off or stopping
    Trouble trouble;     // of backing_off
    int32 in_hand;       // deliveries received and not yet written or released
};

struct SharedState {
    pid_t launcher;
    bool nudged;     // since the launcher's pass began: it makes another one
    bool look_again; // the catalogs changed: scout every database that has enabled pipelines
    PipelineEntry pipelines[kMaxPipelines];
    ConditionVariable slots_changed; // broadcast when a worker leaves its slot
    int slots_count;
    WorkerSlot slots[FLEXIBLE_ARRAY_MEMBER]; // max_workers
};

// For _PG_init, while preloading.
void request_shared_state();

// Null when the library was not preloaded.
SharedState* shared_state();
LWLock* state_lock();

// Holds state_lock(), if there is a shared state to protect. Nothing inside may raise.
class StateLock {
  public:
    explicit StateLock(LWLockMode mode = LW_EXCLUSIVE) {
        if (shared_state())
            LWLockAcquire(state_lock(), mode);
    }
    ~StateLock() {
        if (shared_state())
            LWLockRelease(state_lock());
    }
    StateLock(const StateLock&) = delete;
    StateLock& operator=(const StateLock&) = delete;
};

// With state_lock() held:
PipelineEntry* find_pipeline(Oid database, const char* name);           // nullptr: none
PipelineEntry* find_or_create_pipeline(Oid database, const char* name); // nullptr: all entries are in use
void reset_counters(PipelineEntry& entry);     // to what is in hand, so that they still add up
void forget_all_but_use(PipelineEntry& entry); // as new, but for its holds and the workers that it still has
int live_workers(const PipelineEntry& entry, bool of_any_version = true); // slots that are taken for it
void ask_to_stop(WorkerSlot& slot);                                       // and wakes it
void wake(pid_t pid);                                                     // sets a process's latch
inline int index_of(const PipelineEntry& entry) {
    return static_cast<int>(&entry - shared_state()->pipelines);
}

// Without the lock:
inline void count(PipelineEntry& entry, Counter counter, int64 n = 1) {
    pg_atomic_fetch_add_u64(&entry.counters[static_cast<int>(counter)], n);
}
inline int64 counted(const PipelineEntry& entry, Counter counter) {
    auto* cell = const_cast<pg_atomic_uint64*>(&entry.counters[static_cast<int>(counter)]);
    return static_cast<int64>(pg_atomic_read_u64(cell));
}
void wake_launcher(bool look_again);

// An entry that is nobody else's, in this process's memory.
void initialise_entry(PipelineEntry& entry, Oid database, const char* name);
// Adds what was counted in `mine` to the shared entry of that name, if there is a shared state.
void add_to_shared_entry(const PipelineEntry& mine);

} // namespace sqs_ingest::pg
