#include "pg/transaction.h"

#include "pg/background.h"

extern "C" {
#include "utils/resowner.h"
}

namespace sqs_ingest::pg {

namespace {

void set_option(const char* name, const char* value) {
    SetConfigOption(name, value, PGC_SUSET, PGC_S_SESSION);
}

// A rollback cannot be refused, and an error in it would be one in the destructor: the process ends instead,
// which loses nothing that was not lost already.
void abort_or_exit() noexcept {
    ErrorReport report;
    const bool aborted = run_guarded(
        [](void*) {
            disable_timeout(STATEMENT_TIMEOUT, false);
            AbortCurrentTransaction();
            pgstat_report_activity(STATE_IDLE, nullptr);
        },
        nullptr, report);
    if (!aborted)
        ereport(FATAL, (errcode(report.sqlstate),
                        errmsg_internal("could not abort a transaction: %s", report.message)));
}

} // namespace

void restore_settings() {
    SetConfigOption("session_authorization", nullptr, PGC_SUSET, PGC_S_SESSION);
    SetConfigOption("role", nullptr, PGC_SUSET, PGC_S_SESSION);
    ResetAllOptions();
    set_option("default_transaction_isolation", "read committed");
    set_option("default_transaction_read_only", "off");
    set_option("default_transaction_deferrable", "off");
    set_option("lock_timeout", psprintf("%d", static_cast<int>(kLockTimeout.count())));
    if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
        set_option("synchronous_commit", "on");
    disarm_transaction_timeout();
}

Transaction::Transaction(const char* activity) : outside_(CurrentMemoryContext) {
    try {
        call_pg([&] {
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
            // Role settings such as statement_timeout are not enforced in a background process: armed by
            // hand.
            enable_timeout_after(STATEMENT_TIMEOUT, static_cast<int>(kTransactionTimeout.count()));
        });
    } catch (...) {
        abort_or_exit();
        MemoryContextSwitchTo(outside_);
        throw;
    }
}

Transaction::~Transaction() {
    if (!open_)
        return;
    abort_or_exit();
    MemoryContextSwitchTo(outside_);
}

void Transaction::commit() {
    // SPI's own context goes before the commit can fail, and with it the error would.
    MemoryContextSwitchTo(TopTransactionContext);
    call_pg([&] {
        SPI_finish();
        PopActiveSnapshot();
        // A trigger may have lowered it.
        if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
            set_option("synchronous_commit", "on");
        disable_timeout(STATEMENT_TIMEOUT, false);
        CommitTransactionCommand();
        MemoryContextSwitchTo(outside_);
        pgstat_report_stat(true);
        pgstat_report_activity(STATE_IDLE, nullptr);
    });
    open_ = false;
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
        abort_or_exit(); // the next statement then fails: there is no transaction any more
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
