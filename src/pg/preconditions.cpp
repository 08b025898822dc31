#include "pg/preconditions.h"

#include "pg/shared_state.h"

namespace sqs_ingest::pg {

namespace {

bool reads_queue(const PipelineEntry& entry, const Pipeline& pipeline, const PipelineNames& enabled_here) {
    if (!entry.used || strcmp(entry.queue_url, pipeline.queue_url.c_str()) != 0)
        return false;
    if (entry.database != MyDatabaseId)
        return entry.enabled;
    return pipeline.row.name != NameStr(entry.name) && enabled_here.count(NameStr(entry.name)) > 0;
}

} // namespace

void require_own_pipeline(const PipelineRow& row) {
    if (!ask_pg([&] { return has_privs_of_role(GetUserId(), row.owner); }))
        throw make_error(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of pipeline \"" + row.name + "\"",
                         "Its owner is \"" + role_name(row.owner) + "\".");
}

PipelineRow lock_own_pipeline(const Extension& extension, const std::string& name, RowLock lock) {
    require_own_pipeline(require_pipeline(extension, name));
    auto row = require_pipeline(extension, name, lock);
    require_own_pipeline(row);
    return row;
}

void require_being_owner(const PipelineRow& row, const char* what) {
    require_own_pipeline(row);
    const std::string owner = role_name(row.owner);
    const bool safe = ask_pg([&] {
        return has_privs_of_role(row.owner, GetSessionUserId()) &&
               has_privs_of_role(row.owner, GetAuthenticatedUserId());
    });
    if (!safe)
        throw make_error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                         std::string(what) + " must be run by role \"" + owner +
                             "\", the owner of pipeline \"" + row.name + "\"",
                         "Connect as \"" + owner +
                             "\". SET ROLE is not enough: a trigger of the target table could RESET ROLE.");
    if (GetUserId() != row.owner)
        throw make_error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                         std::string(what) + " must be run by role \"" + owner +
                             "\", the owner of pipeline \"" + row.name + "\"",
                         "Run SET ROLE, or connect as \"" + owner + "\".");
}

void refuse(const std::optional<Obstacle>& obstacle) {
    if (obstacle)
        throw make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, obstacle->message, obstacle->hint);
}

Pipeline require_resolved(const PipelineRow& row, NeedsQueue needs_queue) {
    auto pipeline = resolve(row, current_settings(), needs_queue);
    if (!pipeline.ok())
        refuse(pipeline.error());
    return std::move(pipeline).value();
}

void require_free_queue(const Pipeline& pipeline, const PipelineNames& enabled_here) {
    if (const auto obstacle = queue_obstacle(pipeline, enabled_here))
        throw make_error(ERRCODE_OBJECT_IN_USE, obstacle->message, obstacle->hint);
}

PgError with_hint(const PgError& error) {
    ErrorReport report = error.report();
    if (report.hint[0])
        return error;
    const char* hint = "";
    switch (report.sqlstate) {
    case ERRCODE_INSUFFICIENT_PRIVILEGE:
        hint = "GRANT it to the pipeline's owner.";
        break;
    case ERRCODE_UNDEFINED_TABLE:
    case ERRCODE_UNDEFINED_SCHEMA:
        hint = "Make the table, or name another target with sqs_ingest_alter_pipeline().";
        break;
    case ERRCODE_INVALID_COLUMN_REFERENCE: // ON CONFLICT
        hint = "Name the columns of a primary key or of a unique constraint in conflict_columns.";
        break;
    }
    strlcpy(report.hint, hint, sizeof report.hint);
    return PgError(report);
}

std::optional<Obstacle> preload_obstacle() {
    if (shared_state())
        return std::nullopt;
    const char* others = GetConfigOption("shared_preload_libraries", true, false);
    const std::string list = others && *others ? std::string(others) + ",sqs_ingest" : "sqs_ingest";
    return Obstacle{"sqs_ingest is not in shared_preload_libraries, so there is no background worker",
                    "Add this line to postgresql.conf and restart the server: shared_preload_libraries = '" +
                        list + "'"};
}

std::optional<Obstacle> queue_obstacle(const Pipeline& pipeline, const PipelineNames& enabled_here) {
    if (!shared_state())
        return std::nullopt;
    std::string other;
    {
        StateLock lock(LW_SHARED);
        for (const auto& entry : shared_state()->pipelines)
            if (reads_queue(entry, pipeline, enabled_here))
                other = NameStr(entry.name);
    }
    if (other.empty())
        return std::nullopt;
    return Obstacle{"queue \"" + pipeline.queue_url + "\" already feeds pipeline \"" + other +
                        "\" in this cluster",
                    "Stop that pipeline, or give this one another queue."};
}

} // namespace sqs_ingest::pg
