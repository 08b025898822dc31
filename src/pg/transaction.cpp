#include "pg/transaction.h"

#include "pg/background.h"

namespace sqs_ingest::pg {

namespace {

void set_option(const char* name, const char* value) {
    SetConfigOption(name, value, PGC_SUSET, PGC_S_SESSION);
}

// Until the end of the transaction, as SET LOCAL does.
void set_for_transaction(const char* name, const char* value) {
    set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

[[noreturn]] void exit_after_failed_abort(const ErrorReport& report) {
    ereport(FATAL,
            (errcode(report.sqlstate), errmsg_internal("could not abort a transaction: %s", report.message)));
    pg_unreachable();
}

void set_lock_timeout() {
    set_for_transaction("lock_timeout", psprintf("%d", static_cast<int>(kLockTimeout.count())));
}

} // namespace

void limit_lock_waits() {
    call_pg([] { set_lock_timeout(); });
}

void restore_settings() {
    SetConfigOption("session_authorization", nullptr, PGC_SUSET, PGC_S_SESSION);
    set_option("role", "none"); // not what ALTER ROLE … SET role says
    ResetAllOptions();
    set_option("default_transaction_isolation", "read committed");
    set_option("default_transaction_read_only", "off");
    set_option("default_transaction_deferrable", "off");
    set_option("exit_on_error", "off"); // else a row's error would end the process
    set_option("lock_timeout", psprintf("%d", static_cast<int>(kLockTimeout.count())));
    if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
        set_option("synchronous_commit", "on");
    disarm_transaction_timeout();
}

Transaction::Transaction(Host host, const char* activity)
    : host_(host), outside_(CurrentMemoryContext), outer_owner_(CurrentResourceOwner) {
    try {
        call_pg([&] {
            if (host_ == Host::worker)
                begin_in_worker(activity);
            else
                begin_in_session();
        });
    } catch (...) {
        abort();
        throw;
    }
}

void Transaction::begin_in_worker(const char* activity) {
    // What a cancel left behind after the last statement is not meant for this one; a SIGTERM is.
    QueryCancelPending = terminate_requested();
    SetCurrentStatementStartTimestamp(); // StartTransaction() takes now() from it
    StartTransactionCommand();
    restore_settings();
    XactIsoLevel = XACT_READ_COMMITTED;
    XactReadOnly = false;
    SPI_connect();
    PushActiveSnapshot(GetTransactionSnapshot());
    pgstat_report_activity(STATE_RUNNING, activity);
    // Role settings such as statement_timeout are not enforced in a background process: armed by hand.
    arm_timeout();
}

void Transaction::begin_in_session() {
    SetCurrentStatementStartTimestamp();
    XactIsoLevel = XACT_READ_COMMITTED; // before the transaction's first snapshot
    XactReadOnly = false;
    set_lock_timeout();
    if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
        set_for_transaction("synchronous_commit", "on");
    BeginInternalSubTransaction(nullptr);
    in_subtransaction_ = true;
    MemoryContextSwitchTo(outside_);
    PushActiveSnapshot(GetTransactionSnapshot());
    // No statement timeout but the session's own: who called can cancel.
}

Transaction::~Transaction() {
    if (open_)
        abort();
}

void Transaction::commit() {
    // SPI's own context goes before the commit can fail, and with it the error would.
    if (host_ == Host::worker)
        MemoryContextSwitchTo(TopTransactionContext);
    call_pg([&] {
        if (host_ == Host::worker)
            commit_in_worker();
        else
            commit_in_session();
    });
    open_ = false;
}

void Transaction::commit_in_worker() {
    SPI_finish();
    PopActiveSnapshot();
    // A trigger may have lowered it.
    if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
        set_option("synchronous_commit", "on");
    disarm_timeout();
    CommitTransactionCommand();
    MemoryContextSwitchTo(outside_);
    pgstat_report_stat(true);
    pgstat_report_activity(STATE_IDLE, nullptr);
}

void Transaction::commit_in_session() {
    PopActiveSnapshot();
    ReleaseCurrentSubTransaction();
    in_subtransaction_ = false;
    MemoryContextSwitchTo(outside_);
    CurrentResourceOwner = outer_owner_;
    if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
        set_for_transaction("synchronous_commit", "on");
    SPI_commit(); // fails: it has rolled back, and begun a new one
}

void Transaction::arm_timeout() {
    enable_timeout_after(STATEMENT_TIMEOUT, static_cast<int>(kTransactionTimeout.count()));
    timeout_armed_ = true;
}

void Transaction::disarm_timeout() {
    if (timeout_armed_)
        disable_timeout(STATEMENT_TIMEOUT, false);
    timeout_armed_ = false;
}

// A rollback cannot be refused, and an error in it would be one in the destructor: the process ends instead,
// which loses nothing that was not lost already.
void Transaction::abort() noexcept {
    open_ = false;
    ErrorReport report;
    const bool aborted = run_guarded(
        [](void* argument) {
            auto& self = *static_cast<Transaction*>(argument);
            self.disarm_timeout();
            if (self.host_ == Host::worker) {
                AbortCurrentTransaction();
                pgstat_report_activity(STATE_IDLE, nullptr);
                return;
            }
            if (self.in_subtransaction_)
                RollbackAndReleaseCurrentSubTransaction();
            self.in_subtransaction_ = false;
            MemoryContextSwitchTo(self.outside_);
            CurrentResourceOwner = self.outer_owner_;
            SPI_rollback();
        },
        this, report);
    MemoryContextSwitchTo(outside_);
    if (!aborted)
        exit_after_failed_abort(report);
}

Subtransaction::Subtransaction() : context_(CurrentMemoryContext), owner_(CurrentResourceOwner) {
    call_pg([&] {
        BeginInternalSubTransaction(nullptr);
        MemoryContextSwitchTo(context_);
    });
}

Subtransaction::~Subtransaction() {
    if (!open_)
        return;
    ErrorReport report;
    if (!run_guarded([](void*) { RollbackAndReleaseCurrentSubTransaction(); }, nullptr, report))
        exit_after_failed_abort(report);
    MemoryContextSwitchTo(context_);
    CurrentResourceOwner = owner_;
}

void Subtransaction::release() {
    call_pg([&] {
        ReleaseCurrentSubTransaction();
        MemoryContextSwitchTo(context_);
        CurrentResourceOwner = owner_;
    });
    open_ = false;
}

} // namespace sqs_ingest::pg
