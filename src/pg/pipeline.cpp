#include "pg/pipeline.h"

#include "core/aws/endpoint.h"
#include "core/policy/fault.h"
#include "pg/encoding.h"
#include "pg/spi.h"

extern "C" {
#include "access/relation.h"
#include "nodes/parsenodes.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
}

namespace sqs_ingest::pg {

namespace {

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

// What an INSERT into a view goes on to, if the view is one that Postgres updates by itself; else invalid.
Oid table_behind_view(Oid view) {
    Relation relation = relation_open(view, NoLock);
    Oid behind = InvalidOid;
    if (!relation->trigdesc || !relation->trigdesc->trig_insert_instead_row) {
        const Query* query = get_view_query(relation);
        const List* from = query->jointree->fromlist;
        if (list_length(from) == 1 && IsA(linitial(from), RangeTblRef)) {
            const int index = castNode(RangeTblRef, linitial(from))->rtindex;
            const auto* entry = rt_fetch(index, query->rtable);
            if (entry->rtekind == RTE_RELATION)
                behind = entry->relid;
        }
    }
    relation_close(relation, NoLock);
    if (OidIsValid(behind))
        LockRelationOid(behind, RowExclusiveLock);
    return behind;
}

constexpr int kMostViews = 32; // of views on views; views that are each other's have no end

void check_target_owner(const Pipeline& pipeline, Oid table, const std::string& what, int views = 0) {
    check_owner_of_table(pipeline, table, what);
    const char kind = ask_pg([&] { return get_rel_relkind(table); });
    if (kind == RELKIND_VIEW) {
        const Oid behind = ask_pg([&] { return table_behind_view(table); });
        if (OidIsValid(behind) && views == kMostViews)
            throw make_error(ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                             "target table " + pipeline.row.target + " is a view on too many views",
                             "Name the table behind them as the target.");
        if (OidIsValid(behind))
            check_target_owner(pipeline, behind, "table " + qualified_name_of(behind) + " behind " + what,
                               views + 1);
    }
    if (kind != RELKIND_PARTITIONED_TABLE)
        return;
    const List* partitions = ask_pg([&] { return find_all_inheritors(table, NoLock, nullptr); });
    for (int i = 1; i < list_length(partitions); ++i) { // the first is the table itself
        const Oid partition = list_nth_oid(partitions, i);
        if (ask_pg([&] { return get_rel_relkind(partition) != '\0'; })) // it can have gone meanwhile
            check_owner_of_table(pipeline, partition,
                                 "partition " + qualified_name_of(partition) + " of " + what);
    }
}

// A value among its names; empty: none of them.
template<class T, std::size_t n>
std::optional<T> one_of(const std::pair<const char*, T> (&names)[n], const std::string& name) {
    for (const auto& [known, value] : names)
        if (name == known)
            return value;
    return std::nullopt;
}

constexpr std::pair<const char*, OnInvalid> kOnInvalid[] = {
    {"dead_letter", OnInvalid::dead_letter}, {"discard", OnInvalid::discard}, {"leave", OnInvalid::leave}};
constexpr std::pair<const char*, OnConflict> kOnConflict[] = {{"dead_letter", OnConflict::dead_letter},
                                                              {"nothing", OnConflict::nothing},
                                                              {"update", OnConflict::update}};

// The table's constraints let no other names in; a newer version of the extension might.
std::optional<Obstacle> resolve_options(Pipeline& pipeline) {
    const PipelineRow& row = pipeline.row;
    const auto on_invalid = one_of(kOnInvalid, row.on_invalid);
    const auto on_conflict = one_of(kOnConflict, row.on_conflict);
    const auto envelope = parse_envelope(row.envelope);
    const auto encoding = parse_body_encoding(row.body_encoding);
    if (!on_invalid || !on_conflict || !envelope || !encoding)
        return Obstacle{"pipeline \"" + row.name + "\" has an option that this version does not know",
                        "Install the library of the extension's version and restart the server."};
    if (!go_together(*envelope, *encoding))
        return Obstacle{"envelope " + row.envelope + " and body_encoding " + row.body_encoding +
                            " of pipeline \"" + row.name + "\" do not go together",
                        "The payload of an event is JSON: set body_encoding to plain."};
    pipeline.envelope = *envelope;
    pipeline.encoding = *encoding;
    pipeline.on_invalid = *on_invalid;
    pipeline.on_conflict = *on_conflict;
    if (row.conflict_columns)
        for (const auto& column : nlohmann::json::parse(utf8_of(*row.conflict_columns), nullptr, false))
            pipeline.conflict_columns.push_back(column.is_string() ? server_text_of(column.get<std::string>())
                                                                   : "");
    if (pipeline.on_conflict == OnConflict::update)
        for (const auto& key : pipeline.conflict_columns)
            if (!pipeline.mapping.has_column(key))
                return Obstacle{"column \"" + key + "\" of conflict_columns is not mapped in pipeline \"" +
                                    row.name + "\"",
                                "Map it, or name the columns of another unique constraint."};
    return std::nullopt;
}

// Where the pipeline's messages come from.
std::optional<Obstacle> resolve_queue(Pipeline& pipeline, const Settings& settings) {
    const PipelineRow& row = pipeline.row;
    if (pipeline.queue_url.empty())
        return Obstacle{
            "no queue URL is configured for pipeline \"" + row.name + "\"",
            "Give the pipeline a queue_url, or set sqs_ingest.queue_url in postgresql.conf and reload, like "
            "sqs_ingest.queue_url = 'https://sqs.us-east-1.amazonaws.com/123456789012/login-queue'."};
    auto queue = parse_url(pipeline.queue_url);
    if (!queue.ok())
        return Obstacle{"queue URL \"" + pipeline.queue_url + "\" " + queue.error(),
                        "Copy the queue's URL from the SQS console or from \"aws sqs get-queue-url\"."};
    const std::string endpoint_url = row.endpoint_url.value_or(settings.endpoint_url);
    if (!endpoint_url.empty()) {
        auto endpoint = parse_url(endpoint_url);
        if (!endpoint.ok())
            return Obstacle{"endpoint URL \"" + endpoint_url + "\" " + endpoint.error(),
                            row.endpoint_url ? "Correct endpoint_url of the pipeline."
                                             : "Correct sqs_ingest.endpoint_url."};
        pipeline.endpoint = endpoint.value();
    }
    pipeline.region = row.region.value_or(settings.region);
    if (pipeline.region.empty())
        pipeline.region = region_of_host(queue.value().host).value_or("");
    else if (!is_region(pipeline.region))
        return Obstacle{"region of pipeline \"" + row.name + "\" is no AWS region", kRegionHint};
    return std::nullopt;
}

} // namespace

SqsClientOptions client_options(const Pipeline& pipeline) {
    return {pipeline.queue_url,   pipeline.endpoint, pipeline.region,
            pipeline.credentials, pipeline.http,     protocol_setting(pipeline.row.protocol)};
}

// False: there is none. In a statement of its own: one that waits goes on with the row as it is then, but
// with what a function in its FROM has made of the row before.
static bool lock_row(const Extension& extension, const std::string& name, RowLock lock) {
    const char* strength = lock == RowLock::stays     ? "KEY SHARE"
                           : lock == RowLock::changes ? "NO KEY UPDATE"
                                                      : "UPDATE";
    AsExtensionOwner as_owner(extension);
    return !query("SELECT FROM " + extension.table("sqs_ingest_pipeline") + " WHERE name = $1 FOR " +
                      strength,
                  {name})
                .empty();
}

static std::optional<PipelineRow> read_row(const Extension& extension, const std::string& name,
                                           Effect effect) {
    std::vector<TextRow> cells;
    {
        AsExtensionOwner as_owner(extension);
        // By name, since an older version of the extension has fewer columns.
        cells = query("SELECT e.key, e.value FROM " + extension.table("sqs_ingest_pipeline") +
                          " p, jsonb_each_text(to_jsonb(p) - 'created_at' ||"
                          " jsonb_build_object('owner', p.owner::oid::text)) e WHERE p.name = $1",
                      {name}, effect);
    }
    if (cells.empty())
        return std::nullopt;
    std::map<std::string, std::string> values;
    std::string everything;
    for (const auto& cell : cells) {
        if (!cell[1])
            continue;
        everything += *cell[0] + '=' + *cell[1] + '\0';
        values.emplace(*cell[0], *cell[1]);
    }
    const auto text = [&](const char* column) {
        const auto found = values.find(column);
        return found == values.end() ? std::nullopt : std::optional<std::string>(found->second);
    };
    const auto number = [&](const char* column) {
        const auto value = text(column);
        return value ? std::optional<int>(std::stoi(*value)) : std::nullopt;
    };

    PipelineRow row;
    row.name = values.at("name");
    row.owner = static_cast<Oid>(std::stoul(values.at("owner")));
    row.queue_url = text("queue_url");
    row.target = values.at("target");
    row.columns = values.at("columns");
    row.mask_method = values.at("mask_method");
    row.workers = number("workers").value_or(row.workers);
    row.dead_letter_retention = text("dead_letter_retention");
    row.endpoint_url = text("endpoint_url");
    row.region = text("region");
    row.profile = text("profile");
    row.role_arn = text("role_arn");
    row.external_id = text("external_id");
    row.protocol = text("protocol").value_or(row.protocol);
    row.max_receivers = number("max_receivers").value_or(row.max_receivers);
    row.batch_size = number("batch_size").value_or(row.batch_size);
    row.wait_time = number("wait_time").value_or(row.wait_time);
    row.visibility_timeout = number("visibility_timeout");
    row.envelope = text("envelope").value_or(row.envelope);
    row.body_encoding = text("body_encoding").value_or(row.body_encoding);
    row.each = text("each");
    row.on_invalid = text("on_invalid").value_or(row.on_invalid);
    row.max_receive_count = number("max_receive_count");
    row.on_conflict = text("on_conflict").value_or(row.on_conflict);
    row.conflict_columns = text("conflict_columns");
    row.ledger = text("ledger").value_or("true") == "true";
    row.everything = std::move(everything);
    return row;
}

std::optional<PipelineRow> read_pipeline(const Extension& extension, const std::string& name, RowLock lock) {
    if (lock != RowLock::none && !lock_row(extension, name, lock))
        return std::nullopt;
    return read_row(extension, name, Effect::writes);
}

static PipelineRow required(std::optional<PipelineRow> row, const std::string& name) {
    if (!row)
        // Longer than a name can be, or a JSON text: it may be a body, with the arguments swapped.
        throw make_error(
            ERRCODE_UNDEFINED_OBJECT,
            name.size() < NAMEDATALEN && name.find('{') == std::string::npos
                ? "pipeline \"" + name + "\" does not exist"
                : std::string("there is no pipeline of that name"),
            "The table sqs_ingest_pipeline lists the pipelines; sqs_ingest_start() without an argument "
            "makes \"user_logins\".");
    return std::move(*row);
}

PipelineRow require_pipeline(const Extension& extension, const std::string& name, RowLock lock) {
    return required(read_pipeline(extension, name, lock), name);
}

PipelineRow require_latest_pipeline(const Extension& extension, const std::string& name) {
    call_pg([] { PushActiveSnapshot(GetLatestSnapshot()); });
    auto row = read_row(extension, name, Effect::reads);
    call_pg([] { PopActiveSnapshot(); });
    return required(std::move(row), name);
}

std::uint64_t Pipeline::version() const {
    std::string all;
    for (const auto& part :
         {row.everything, queue_url, endpoint ? endpoint->origin() : "", region, credentials.profile,
          credentials.config_file, credentials.credentials_file, http.ca_file}) {
        all += part;
        all += '\0';
    }
    return std::hash<std::string>{}(all);
}

Result<Pipeline, Obstacle> resolve(const PipelineRow& row, const Settings& settings, NeedsQueue needs_queue) {
    Pipeline pipeline;
    pipeline.row = row;
    pipeline.queue_url = row.queue_url.value_or(settings.queue_url);
    pipeline.credentials = settings.credentials;
    pipeline.credentials.profile = row.profile.value_or(pipeline.credentials.profile);
    pipeline.credentials.role_arn = row.role_arn.value_or("");
    pipeline.credentials.external_id = row.external_id.value_or("");
    pipeline.credentials.session_name = "sqs_ingest-" + row.name;
    pipeline.http = settings.http;
    if (needs_queue == NeedsQueue::yes)
        if (auto obstacle = resolve_queue(pipeline, settings))
            return std::move(*obstacle);

    auto mapping = parse_mapping(utf8_of(row.columns), utf8_of(row.each.value_or("")));
    if (!mapping.ok())
        return Obstacle{"the columns of pipeline \"" + row.name +
                            "\" cannot be read: " + server_text_of(mapping.error()),
                        "Correct the pipeline's columns: docs/pipelines.md lists what they can say."};
    pipeline.mapping = std::move(mapping).value();
    for (auto& rule : pipeline.mapping.columns)
        rule.column = server_text_of(rule.column);
    const auto method = parse_mask_method(row.mask_method);
    if (!method)
        return Obstacle{"pipeline \"" + row.name + "\" has the unknown masking method \"" + row.mask_method +
                            "\"",
                        "Valid methods are hmac, siv, sha256, sha256:N and md5."};
    pipeline.mask_method = *method;
    if (auto obstacle = resolve_options(pipeline))
        return std::move(*obstacle);
    return pipeline;
}

OnInvalid fate_of(const Pipeline& pipeline, const Rejection& rejection) {
    // What broke the database for no reason of its own is not thrown away.
    const bool given_up = rejection.reason == Reason::too_many_receives ||
                          (rejection.reason == Reason::row_error && is_pipeline_fault(rejection.sqlstate));
    return given_up ? OnInvalid::dead_letter : pipeline.on_invalid;
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
    check_target_owner(pipeline, table, "target table " + pipeline.row.target);
    return table;
}

std::string qualified_name_of(Oid table) {
    return ask_pg([&] {
        const char* name = get_rel_name(table);
        const char* schema = get_namespace_name(get_rel_namespace(table));
        if (!name || !schema) // a regclass can be any number, and a table can go at any moment
            ereport(ERROR,
                    (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation with OID %u does not exist", table),
                     errhint("Name a table that is there.")));
        return quote_qualified_identifier(schema, name);
    });
}

} // namespace sqs_ingest::pg
