// When a commit may be trusted with the deletion of the messages it stored.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

// Makes a commit of this process durable: flushed here and, where synchronous standbys are configured,
// confirmed by them; waits for that if `wait`. False: the standbys have not confirmed, because there was no
// wait or it ended early (a cancel, a shutdown); nothing may be deleted then. Call outside a transaction;
// throws PgError.
bool durable_barrier(XLogRecPtr commit_end, bool wait);

// The end of this process's last commit record.
inline XLogRecPtr last_commit_end() {
    return XactLastCommitEnd;
}

// For the status, from the settings in force: "flushed", "flushed and confirmed by synchronous standbys",
// "not durable: fsync is off".
const char* durability();
bool fsync_is_on();

} // namespace sqs_ingest::pg
