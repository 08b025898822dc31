#include "pg/durability.h"

#include "pg/background.h"

namespace sqs_ingest::pg {

namespace {

// From the setting, not from WalSndCtl's own flag, whose form changed in minor releases. Around a change of
// the setting this errs towards waiting.
bool standbys_are_configured() {
    return max_wal_senders > 0 && SyncRepStandbyNames && *SyncRepStandbyNames;
}

// SyncRepWaitForLSN() returns early, with a warning only, when the wait is cancelled.
bool standbys_confirmed(XLogRecPtr commit_end) {
    const int mode =
        synchronous_commit >= SYNCHRONOUS_COMMIT_REMOTE_APPLY ? SYNC_REP_WAIT_APPLY : SYNC_REP_WAIT_FLUSH;
    LWLockAcquire(SyncRepLock, LW_SHARED);
    const bool confirmed = WalSndCtl->lsn[mode] >= commit_end;
    LWLockRelease(SyncRepLock);
    return confirmed;
}

} // namespace

bool durable_barrier(XLogRecPtr commit_end, bool wait) {
    call_pg([&] {
        XLogFlush(commit_end);
        if (!wait || terminate_requested())
            return;
        // As at commit: the wait is not to be interrupted by a longjmp.
        HOLD_INTERRUPTS();
        SyncRepWaitForLSN(commit_end, true);
        RESUME_INTERRUPTS();
    });
    return !standbys_are_configured() || standbys_confirmed(commit_end);
}

bool fsync_is_on() {
    return enableFsync;
}

const char* durability() {
    if (!enableFsync)
        return "not durable: fsync is off";
    if (standbys_are_configured())
        return "flushed and confirmed by synchronous standbys";
    return "flushed";
}

} // namespace sqs_ingest::pg
