// Transactions of a pipeline: each is bounded in time, writes at READ COMMITTED, and is either committed or
// aborted before anything else happens.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

// The longest that a worker's transaction takes: locks are waited for this long, statements run this long.
// The visibility of what a transaction writes is extended beyond it first.
inline constexpr std::chrono::milliseconds kLockTimeout{4000}; // in a session too
inline constexpr std::chrono::milliseconds kTransactionTimeout{8000};

// Who runs them.
enum class Host {
    worker,  // a background process of ours: each begins with the settings that the process started with
    session, // a procedure in somebody's session, connected to SPI as SPI_OPT_NONATOMIC: the session's
             // settings are left alone. A transaction is open all the time; between two of these it has
             // neither a snapshot nor a transaction id
};

// One transaction with an SPI connection and an active snapshot. Not committed when it goes: aborted.
class Transaction {
  public:
    Transaction(Host host, const char* activity); // shown in pg_stat_activity
    ~Transaction();
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;

    // Throws PgError when a deferred constraint or the commit itself fails; then it is aborted.
    void commit();

  private:
    void begin_in_worker(const char* activity);
    void begin_in_session();
    void commit_in_worker();
    void commit_in_session();
    void arm_timeout();
    void disarm_timeout();
    void abort() noexcept;

    Host host_;
    MemoryContext outside_; // a commit or abort leaves us in TopMemoryContext, where nothing is ever freed
    bool open_ = true;
    bool timeout_armed_ = false;
    ResourceOwner outer_owner_; // of a session, whose work is a subtransaction: that cleans up after errors
    bool in_subtransaction_ = false;
};

// For workers. A trigger's SET or SET ROLE outlives its statement and its transaction. Back to what the
// process started with (the role's and the database's settings), except for what ingestion depends on: done
// at each begin, and to be done before each further statement on a target. Inside call_pg.
void restore_settings();

// lock_timeout = kLockTimeout until the transaction or subtransaction ends.
void limit_lock_waits();

// A subtransaction inside a Transaction. Not released when it goes: rolled back.
class Subtransaction {
  public:
    Subtransaction();
    ~Subtransaction();
    Subtransaction(const Subtransaction&) = delete;
    Subtransaction& operator=(const Subtransaction&) = delete;
    void release();

  private:
    MemoryContext context_;
    ResourceOwner owner_;
    bool open_ = true;
};

} // namespace sqs_ingest::pg
