#include "pg/built_in.h"

#include "pg/dead_letters.h"
#include "pg/spi.h"

namespace sqs_ingest::pg {

std::optional<std::string> find_user_logins() {
    const auto found =
        query("SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c"
              " JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace"
              " WHERE c.relname OPERATOR(pg_catalog.=) 'user_logins'"
              " AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}')"
              " AND n.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false))"
              " ORDER BY pg_catalog.array_position(pg_catalog.current_schemas(false), n.nspname) LIMIT 1");
    if (found.empty())
        return std::nullopt;
    return *found.front().front();
}

PipelineRow built_in_row(const std::string& target) {
    PipelineRow row;
    row.name = kBuiltInPipeline;
    row.owner = GetUserId();
    row.target = target;
    row.columns = user_logins_mapping();
    row.mask_method = to_string(current_settings().mask_method);
    return row;
}

void create_built_in_pipeline(const Extension& extension) {
    auto target = find_user_logins();
    if (!target) {
        query(
            "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),"
            " masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)");
        call_pg([] { ereport(NOTICE, (errmsg("created the target table \"user_logins\""))); });
        target = find_user_logins();
    }
    if (!target)
        throw make_error(ERRCODE_UNDEFINED_TABLE, "the target table \"user_logins\" could not be made",
                         "Check search_path: its first schema must be one where tables can be made.");
    const auto row = built_in_row(*target);
    require_no_orphans(extension, row.name,
                       "A superuser decides: sqs_ingest_purge('" + row.name +
                           "', older_than => '0'), or the first start.");
    AsExtensionOwner as_owner(extension);
    query("INSERT INTO " + extension.table("sqs_ingest_pipeline") +
              " (name, owner, target, columns, mask_method)"
              " VALUES ($1, $2::pg_catalog.oid::pg_catalog.regrole, $3, $4::pg_catalog.jsonb, $5)",
          {row.name, std::to_string(row.owner), row.target, row.columns, row.mask_method});
}

} // namespace sqs_ingest::pg
