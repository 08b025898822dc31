// One pipeline's ingestion: receive, transform, write, delete. The state machine is drawn in
// docs/architecture.md.
//
// Driven by turn(), which never waits for the network; the owner waits between turns until descriptor() is
// readable, or timeout() is over. Only a write (and its commit) takes time.
#pragma once

#include "core/policy/attempts.h"
#include "core/policy/backoff.h"
#include "core/policy/delete_queue.h"
#include "core/policy/groups.h"
#include "core/policy/receive_gate.h"
#include "core/policy/visibility.h"
#include "net/sqs_client.h"
#include "pg/shared_state.h"
#include "pg/sink.h"

namespace sqs_ingest::pg {

// When an Ingest has done its work by itself.
struct DrainLimits {
    std::optional<std::int64_t> max_messages; // received; or when the queue is empty, whichever comes first
};

class Ingest {
  public:
    // Counts into `entry`, reports its state in `slot`. Without limits it goes on until stop().
    Ingest(const Pipeline& pipeline, const Extension& extension, PipelineEntry& entry, WorkerSlot& slot,
           Host host, std::optional<DrainLimits> limits = std::nullopt);

    void turn(Instant now);

    // Receives nothing more; writes what is in hand if that can be done, deletes what was written, releases
    // the rest.
    void stop(Instant now);
    bool stopped() const; // after stop(): nothing is left to do, or the time for it is over

    // With limits: they are reached, and everything received was written and deleted.
    bool finished() const;

    // What keeps it from going on.
    struct Stuck {
        Instant since;
        Trouble trouble;
    };
    std::optional<Stuck> stuck() const;

    // It ended for this: what was counted since is nobody's.
    bool pipeline_is_gone() const { return sink_.pipeline_is_gone(); }

    // Gives back what was not written, without touching the database: after an error. Then stopped().
    void abandon(Instant now);

    int descriptor() const { return client_.descriptor(); }
    std::optional<std::chrono::milliseconds> timeout(Instant now) const;

  private:
    // Something that keeps the pipeline from going on, tried again at retry_at.
    struct Obstruction {
        Trouble trouble;
        Instant retry_at;
        Instant began;
        Instant since; // its last error
        Backoff backoff;
        bool active = false;
        Instant said_at; // in the log
        bool said = false;
    };

    struct Receive { // under way
        Instant started;
        int asked_for;
        bool nothing_held; // when it started: an empty answer then means an empty queue, FIFO groups too
        Attempts::Attempt attempt = {}; // of a FIFO queue
    };

    void on_received(ReceiveResult result, const Receive& receive, Instant now);
    void on_attributes(const AttributesResult& result, Instant now);
    void on_deleted(TransferId id, const BatchResult& result, Instant now);
    void on_visibility_changed(TransferId id, const BatchResult& result, Instant now);
    void take(Message message, std::size_t bytes, Instant now);
    std::chrono::seconds receive_visibility() const;
    Content content_now(const Delivery& delivery, std::size_t bytes) const;
    std::size_t max_batch() const { return static_cast<std::size_t>(pipeline_.row.batch_size); }

    void make_ready(Instant now);
    void ask_for_attributes(Instant now);
    void keep_visible(Instant now);
    void write_when_due(Instant now);
    std::size_t next_batch();
    void write(Instant now);
    bool few_are_at_stake(std::size_t n) const;
    void on_written(std::vector<Delivery> batch, const Written& written, Instant now);
    void note_lone_fault(const WriteFault& fault);
    void on_write_fault(const WriteFault& fault, std::size_t n, Instant now); // n: the batch's size
    void confirm_commits(Instant now);
    void prune_ledger(Instant now);
    void purge_dead_letters(Instant now);
    void send_deletes(Instant now);
    void start_receives(Instant now);
    Attempts::Attempt next_attempt(Instant now);
    Instant grace_of(const Receive& receive) const;
    void cancel_old_receives(Instant now);
    void leave_rejected();
    void let_go(Parted parted);
    void release(std::vector<Delivery> deliveries);
    void release(std::vector<Message> messages);
    void return_handles(std::vector<std::string> receipt_handles, std::chrono::seconds invisible_for);
    void release_given_up();
    void report(Instant now);

    void obstruct(Obstruction& obstruction, Trouble trouble, BackoffRange range, Instant now);
    void obstruct_queue(const ApiError& error, Instant started, Instant now);
    void obstruct_database(const WriteFault& fault, Instant now);
    BackoffRange database_backoff() const;
    void queue_answers();
    void clear(Obstruction& obstruction, const char* what);
    void count(Counter counter, std::int64_t n = 1) { pg::count(entry_, counter, n); }
    void count_in_hand();
    std::size_t held() const;
    std::size_t bytes_in_hand() const;
    bool batch_is_due(Instant now) const;
    bool waits(const Obstruction& obstruction, Instant now) const {
        return obstruction.active && obstruction.retry_at > now;
    }

    int messages_to_ask_for() const;
    bool nothing_is_left() const;

    const Pipeline& pipeline_;
    const Host host_;
    const std::optional<DrainLimits> limits_;
    PipelineEntry& entry_;
    WorkerSlot& slot_;
    Sink sink_;
    SqsClient client_;

    // What keeps it from: reading the queue, and writing to the database.
    Obstruction queue_;
    std::optional<Instant> credentials_refused_; // first, since the queue last answered
    std::optional<PgError> refusal_;             // of the queue, which ends a session's drain
    Obstruction database_;
    bool sink_ready_ = false;
    std::uint64_t keyring_ = 0;         // serial of the ring that the sink was made ready with
    int rounds_of_every_row_ = 0;       // in a row, of one batch
    std::uint64_t writes_ = 0;          // that succeeded
    std::int64_t refused_in_a_row_ = 0; // rows, since one was inserted

    ReceiveGate gate_;
    VisibilityPolicy visibility_;
    std::optional<std::chrono::seconds> retention_;
    std::optional<Instant> attributes_read_; // when; empty: not yet
    std::optional<TransferId> attributes_request_;
    Instant attributes_asked_; // the last time
    Instant next_prune_;
    std::optional<Instant> next_purge_; // of dead letters; empty: none is there
    std::int64_t latest_sent_ms_ = 0;   // the queue's clock, as its newest message shows it

    bool fifo_ = false; // the queue keeps an order within its message groups
    Attempts attempts_;
    std::map<TransferId, Receive> receives_;
    std::int64_t received_ = 0;
    bool queue_is_empty_ = false; // by the last answer
    std::map<TransferId, std::vector<DeleteQueue::Entry>> deletes_under_way_;
    struct VisibilityChange {
        std::vector<std::string> receipt_handles;
        Instant visible_until; // if it succeeds
        bool release = false;
    };
    std::map<TransferId, VisibilityChange> visibility_changes_;
    Backoff visibility_backoff_;
    Instant next_visibility_change_;

    std::vector<Delivery> in_hand_;
    Instant oldest_in_hand_;
    std::size_t batch_limit_;
    struct Commit {
        XLogRecPtr end = 0;
        bool waited = false; // for the standbys, which a commit does only if it has written something
        std::vector<Receipt> receipts;
    };
    Commit unconfirmed_; // committed, and not known to be durable
    DeleteQueue deletes_;

    Instant last_turn_;
    Instant turn_ended_;
    Instant answers_came_; // those of this turn, at the earliest
    std::uint64_t receives_answered_ = 0;
    Instant last_message_; // when the last one was received
    std::optional<Instant> stop_deadline_;
};

} // namespace sqs_ingest::pg
