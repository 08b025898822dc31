#include "pg/pipeline.h"

#include "pg/spi.h"

namespace sqs_ingest::pg {

namespace {

std::optional<ColumnType> column_type(Oid type, int32 modifier) {
    switch (getBaseType(type)) {
    case TEXTOID:
        return ColumnType{ColumnType::Kind::text, std::nullopt};
    case VARCHAROID:
    case BPCHAROID:
        // varchar without a length has modifier -1
        return ColumnType{ColumnType::Kind::text,
                          modifier >= VARHDRSZ ? std::optional<int>(modifier - VARHDRSZ) : std::nullopt};
    case INT2OID:
        return ColumnType{ColumnType::Kind::int2, std::nullopt};
    case INT4OID:
        return ColumnType{ColumnType::Kind::int4, std::nullopt};
    case INT8OID:
        return ColumnType{ColumnType::Kind::int8, std::nullopt};
    case DATEOID:
        return ColumnType{ColumnType::Kind::date, std::nullopt};
    default:
        return std::nullopt;
    }
}

// Its triggers run with the rights of the pipeline's owner, so a table's owner must have those rights anyway:
// the same role, a member of it, or a superuser.
void check_owner_of_table(const Pipeline& pipeline, Oid table, const std::string& what) {
    const Oid owner = pipeline.row.owner;
    struct Found {
        Oid owner;
        bool trusted;
    };
    const Found found = ask_pg([&] {
        Found result{};
        HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
        if (HeapTupleIsValid(tuple)) {
            result.owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
            ReleaseSysCache(tuple);
            result.trusted = has_privs_of_role(result.owner, owner);
        }
        return result;
    });
    if (!found.trusted)
        throw make_error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                         what + " belongs to role \"" + role_name(found.owner) + "\", which pipeline \"" +
                             pipeline.row.name + "\" does not trust",
                         "Its triggers would run with the rights of \"" + role_name(owner) +
                             "\". Make the table's owner the owner of the pipeline, or the other way round.");
}

void check_target_owner(const Pipeline& pipeline, Oid table) {
    const std::string target = "target table " + pipeline.row.target;
    check_owner_of_table(pipeline, table, target);
    if (!ask_pg([&] { return get_rel_relkind(table) == RELKIND_PARTITIONED_TABLE; }))
        return;
    const List* partitions = ask_pg([&] { return find_all_inheritors(table, NoLock, nullptr); });
    for (int i = 1; i < list_length(partitions); ++i) { // the first is the table itself
        const Oid partition = list_nth_oid(partitions, i);
        check_owner_of_table(pipeline, partition,
                             "partition " + qualified_name_of(partition) + " of " + target);
    }
}

// Where the pipeline's messages come from.
std::optional<Obstacle> resolve_queue(Pipeline& pipeline, const Settings& settings) {
    const PipelineRow& row = pipeline.row;
    pipeline.queue_url = row.queue_url.value_or(settings.queue_url);
    if (pipeline.queue_url.empty())
        return Obstacle{
            "no queue URL is configured for pipeline \"" + row.name + "\"",
            "Set sqs_ingest.queue_url in postgresql.conf and reload, like "
            "sqs_ingest.queue_url = 'https://sqs.us-east-1.amazonaws.com/123456789012/login-queue'."};
    auto queue = parse_url(pipeline.queue_url);
    if (!queue.ok())
        return Obstacle{"queue URL \"" + pipeline.queue_url + "\" " + queue.error(),
                        "Copy the queue's URL from the SQS console or from \"aws sqs get-queue-url\"."};
    auto endpoint = settings.endpoint_url.empty() ? queue : parse_url(settings.endpoint_url);
    if (!endpoint.ok())
        return Obstacle{"endpoint URL \"" + settings.endpoint_url + "\" " + endpoint.error(),
                        "Correct sqs_ingest.endpoint_url."};
    pipeline.endpoint = endpoint.value();
    pipeline.region =
        !settings.region.empty() ? settings.region : region_of_host(queue.value().host).value_or("");
    return std::nullopt;
}

} // namespace

std::optional<PipelineRow> read_pipeline(const Extension& extension, const std::string& name) {
    AsExtensionOwner as_owner(extension);
    const auto rows =
        query("SELECT name, owner::pg_catalog.oid::pg_catalog.text, queue_url, target, "
              "columns::pg_catalog.text, mask_method, workers::pg_catalog.text, "
              "dead_letter_retention::pg_catalog.text FROM " +
                  extension.table("sqs_ingest_pipeline") + " WHERE name OPERATOR(pg_catalog.=) $1",
              {name});
    if (rows.empty())
        return std::nullopt;
    const auto& row = rows.front();
    return PipelineRow{
        *row[0], static_cast<Oid>(std::stoul(*row[1])), row[2], *row[3], *row[4], *row[5], std::stoi(*row[6]),
        row[7]};
}

PipelineRow require_pipeline(const Extension& extension, const std::string& name) {
    auto row = read_pipeline(extension, name);
    if (!row)
        // Longer than a name can be, or a JSON text: it may be a body, with the arguments swapped.
        throw make_error(
            ERRCODE_UNDEFINED_OBJECT,
            name.size() < NAMEDATALEN && name.find('{') == std::string::npos
                ? "pipeline \"" + name + "\" does not exist"
                : std::string("there is no pipeline of that name"),
            "The table sqs_ingest_pipeline lists the pipelines; sqs_ingest_start() without an argument "
            "makes \"user_logins\".");
    return *row;
}

std::uint64_t Pipeline::version() const {
    std::string all;
    for (const auto& part :
         {row.name, std::to_string(row.owner), queue_url, endpoint.origin(), region, row.target, row.columns,
          row.mask_method, std::to_string(row.workers), row.dead_letter_retention.value_or(""),
          credentials.profile, credentials.config_file, credentials.credentials_file, http.ca_file}) {
        all += part;
        all += '\0';
    }
    return std::hash<std::string>{}(all);
}

Result<Pipeline, Obstacle> resolve(const PipelineRow& row, const Settings& settings, NeedsQueue needs_queue) {
    Pipeline pipeline;
    pipeline.row = row;
    pipeline.credentials = settings.credentials;
    pipeline.http = settings.http;
    if (needs_queue == NeedsQueue::yes)
        if (auto obstacle = resolve_queue(pipeline, settings))
            return std::move(*obstacle);

    auto mapping = parse_mapping(row.columns);
    if (!mapping.ok())
        return Obstacle{"the columns of pipeline \"" + row.name + "\" cannot be read: " + mapping.error(),
                        "Correct column \"columns\" of sqs_ingest_pipeline."};
    pipeline.mapping = std::move(mapping).value();
    const auto method = parse_mask_method(row.mask_method);
    if (!method)
        return Obstacle{"pipeline \"" + row.name + "\" has the unknown masking method \"" + row.mask_method +
                            "\"",
                        "Valid methods are hmac, siv, sha256, sha256:N and md5."};
    pipeline.mask_method = *method;
    return pipeline;
}

std::optional<Obstacle> owner_obstacle(Oid owner) {
    struct Role {
        bool exists, may_login, may_connect;
    };
    const Role role = ask_pg([&] {
        Role result{};
        HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(owner));
        if (!HeapTupleIsValid(tuple))
            return result;
        result.exists = true;
        result.may_login =
            reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple))->rolcanlogin || !SQS_OWNER_NEEDS_LOGIN;
        ReleaseSysCache(tuple);
        result.may_connect = may_connect_here(owner);
        return result;
    });
    if (!role.exists)
        return Obstacle{"the pipeline's owner, role " + std::to_string(owner) + ", does not exist",
                        "Set column \"owner\" of sqs_ingest_pipeline to a role."};
    const std::string name = role_name(owner);
    if (!role.may_login)
        return Obstacle{
            "the pipeline's owner \"" + name + "\" is not permitted to log in",
            "Run ALTER ROLE with LOGIN: before PostgreSQL 17 a worker can only run as a role with LOGIN."};
    if (!role.may_connect)
        return Obstacle{"the pipeline's owner \"" + name + "\" has no CONNECT privilege on this database",
                        "GRANT it CONNECT ON DATABASE."};
    return std::nullopt;
}

Oid lock_target(const Pipeline& pipeline) {
    const Oid table = ask_pg([&] {
        RangeVar* name = makeRangeVarFromNameList(qualified_name(pipeline.row.target.c_str()));
        return RangeVarGetRelid(name, RowExclusiveLock, false);
    });
    check_target_owner(pipeline, table);
    return table;
}

std::string qualified_name_of(Oid table) {
    return ask_pg([&] {
        return quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), get_rel_name(table));
    });
}

std::vector<ColumnType> read_columns(const Pipeline& pipeline, Oid table) {
    std::vector<ColumnType> types;
    for (const auto& rule : pipeline.mapping.columns) {
        struct Column {
            bool exists;
            Oid type;
            int32 modifier;
        };
        const Column column = ask_pg([&] {
            Column result{};
            const AttrNumber number = get_attnum(table, rule.column.c_str());
            if (number > 0) {
                Oid collation;
                get_atttypetypmodcoll(table, number, &result.type, &result.modifier, &collation);
                if (get_typtype(result.type) == TYPTYPE_DOMAIN)
                    result.type = getBaseTypeAndTypmod(result.type, &result.modifier);
                result.exists = true;
            }
            return result;
        });
        if (!column.exists)
            throw make_error(ERRCODE_UNDEFINED_COLUMN,
                             "target table " + pipeline.row.target + " has no column \"" + rule.column + "\"",
                             "Add the column, or rename the table so that another one is made.");
        const auto type = column_type(column.type, column.modifier);
        if (!type)
            throw make_error(ERRCODE_DATATYPE_MISMATCH,
                             "column \"" + rule.column + "\" of target table " + pipeline.row.target +
                                 " has a type that is not supported",
                             "Supported are text, varchar, char, smallint, integer, bigint and date.");
        types.push_back(*type);
    }
    return types;
}

} // namespace sqs_ingest::pg
