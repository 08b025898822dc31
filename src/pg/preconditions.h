// What the SQL functions ask before they touch a pipeline: who may, and whether it can run at all.
#pragma once

#include "pg/enabled.h"
#include "pg/pipeline.h"

namespace sqs_ingest::pg {

// Throws PgError for a caller who is neither the pipeline's owner nor a member of that role, nor a superuser.
void require_own_pipeline(const PipelineRow& row);

// The row, locked. Its owner is judged before it is waited for, so that nobody else waits, and again as it is
// then. Needs an SPI connection.
PipelineRow lock_own_pipeline(const Extension& extension, const std::string& name, RowLock lock);

// For what writes to the target in a session, and so runs its triggers there: throws PgError unless the
// caller is the owner itself, and nobody that a trigger could become by RESET ROLE or RESET SESSION
// AUTHORIZATION can do more than the owner.
void require_being_owner(const PipelineRow& row, const char* what);

// Throws an obstacle as a PgError.
void refuse(const std::optional<Obstacle>& obstacle);

// resolve(), for who needs it: throws the obstacle.
Pipeline require_resolved(const PipelineRow& row, NeedsQueue needs_queue = NeedsQueue::yes);

// Throws PgError when another enabled pipeline reads the queue.
void require_free_queue(const Pipeline& pipeline, const PipelineNames& enabled_here);

// The library was not preloaded, so there is neither launcher nor worker.
std::optional<Obstacle> preload_obstacle();

// The error with a hint, where Postgres itself gives none for what is wrong with a target.
PgError with_hint(const PgError& error);

// Another enabled pipeline of the cluster reads the same queue: by the catalog in this database, by what the
// launcher knows in others.
std::optional<Obstacle> queue_obstacle(const Pipeline& pipeline, const PipelineNames& enabled_here);

} // namespace sqs_ingest::pg
