// Which pipelines are enabled: a security label on the database, so that
//  - the launcher reads it without connecting to the database (pg_shseclabel is shared),
//  - it changes with the transaction of start() and stop(),
//  - no template copy or restored dump carries it (pg_dumpall and pg_dump -C write it): it names the
//  cluster's system
//    identifier and the database's OID, and counts only there. After pg_upgrade, too, start() has to be
//    called again.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

inline constexpr const char* kLabelProvider = "sqs_ingest";

// For _PG_init: registers the provider, so that pg_dumpall's output restores.
void register_label();

using PipelineNames = std::set<std::string>;

// Of the current database. Throw PgError. lock_…() makes a concurrent start() or stop() wait until the
// transaction ends.
PipelineNames lock_enabled_pipelines();
PipelineNames enabled_pipelines();
void set_enabled_pipelines(const PipelineNames& names);

// Of every database, for the launcher. Must run in a transaction.
std::map<Oid, PipelineNames> enabled_pipelines_everywhere();

} // namespace sqs_ingest::pg
