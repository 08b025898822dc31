// Which pipelines are enabled: a security label on the database, so that
//  - the launcher reads it without connecting to the database (pg_shseclabel is shared),
//  - it changes with the transaction of start() and stop(),
//  - no dump of the database, template copy or restored clone carries it: it names the database's own OID and
//    counts only there.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

inline constexpr const char* kLabelProvider = "sqs_ingest";

// For _PG_init: registers the provider, so that pg_dumpall's output restores.
void register_label();

using PipelineNames = std::set<std::string>;

// Of the current database. Takes a lock that a concurrent start() or stop() waits for; held to the end of the
// transaction. Plain Postgres errors (call inside call_pg or a transaction of the caller's).
PipelineNames lock_enabled_pipelines();
PipelineNames enabled_pipelines();
void set_enabled_pipelines(const PipelineNames& names);

// Of every database, for the launcher. Must run in a transaction.
std::map<Oid, PipelineNames> enabled_pipelines_everywhere();

} // namespace sqs_ingest::pg
