// sqs_ingest_redrive(), sqs_ingest_purge() and sqs_ingest_forget(): what a person does with what could not
// become rows, and with what must go.
#include "core/transform/mention.h"
#include "core/transform/seal.h"
#include "pg/background.h"
#include "pg/dead_letters.h"
#include "pg/encoding.h"
#include "pg/json_text.h"
#include "pg/keyring.h"
#include "pg/preconditions.h"
#include "pg/sink.h"

#include <nlohmann/json.hpp>

extern "C" {
#include "catalog/pg_operator.h"
#include "utils/typcache.h"
}

namespace sqs_ingest::pg {

namespace {

constexpr const char* kUserColumn = "user_id";

// The caller's pipeline with its target locked, for which it may wait long. From then on until the
// transaction ends nobody drops it: the next one of that name can be another's. The target first, as who
// drops both does. The pipeline can be changed and handed over all the same, by who holds a lock on the
// target too: so it is read again when that is there, and after dead letters were read its owner is.
Pipeline lock_pipeline_and_target(const Extension& extension, const std::string& name, const char* function) {
    auto row = require_pipeline(extension, name);
    for (;;) {
        require_being_owner(row, function);
        auto pipeline = require_resolved(row, NeedsQueue::no);
        lock_target(pipeline);
        lock_own_pipeline(extension, name, RowLock::stays);
        auto now = require_latest_pipeline(extension, name);
        if (now.everything == row.everything)
            return pipeline;
        row = std::move(now);
    }
}

// After dead letters were read: if this holds, they were still the caller's.
void require_still_own(const Extension& extension, const std::string& name) {
    require_own_pipeline(require_latest_pipeline(extension, name));
}

// --- redrive

struct Redriven {
    std::int64_t inserted = 0, rejected = 0, closed = 0;
    std::string why_closed; // of the last one

    std::int64_t tried() const { return inserted + rejected + closed; }
};

// It stays, with the reason of today.
void keep(const Extension& extension, const DeadLetter& letter, const Rejection& rejection,
          const std::string& constraint, const Transform& how, const Keyring& keyring) {
    const auto text = [](const std::string& value) {
        return value.empty() ? std::nullopt : std::optional<std::string>(value);
    };
    // Under today's primary key.
    const std::string sealed = seal(keyring, letter.message.message_id, letter.message.body);
    std::vector<std::optional<std::string>> parameters{std::to_string(letter.id),
                                                       to_string(rejection.reason),
                                                       text(server_text_of(rejection.field)),
                                                       text(rejection.sqlstate),
                                                       text(constraint),
                                                       json_text(redact(how, &keyring, letter.message)),
                                                       hex(as_bytes(sealed))};
    std::string metadata;
    if (keeps_metadata(extension)) {
        const auto sealed_too = sealed_metadata(keyring, letter.message, rejection.reason);
        metadata = ", sealed_metadata = decode($8, 'hex')";
        parameters.push_back(text(hex(as_bytes(sealed_too)))); // NULL: nothing stays under an older key
    }
    AsExtensionOwner as_owner(extension);
    query("UPDATE " + extension.table("sqs_ingest_dead_letter") +
              " SET reason = $2, field = $3, sqlstate = $4, constraint_name = $5, redacted = $6::jsonb,"
              " sealed = decode($7, 'hex'), redrives = redrives + 1, redriven_at = clock_timestamp()" +
              metadata + " WHERE id = $1::int8",
          parameters);
}

void redrive_batch(Sink& sink, const Extension& extension, const std::vector<DeadLetter>& letters,
                   const Keyring& keyring, Redriven& total) {
    std::vector<Delivery> batch;
    std::vector<const DeadLetter*> opened;
    for (const auto& letter : letters) {
        if (!letter.closed.empty()) {
            ++total.closed;
            total.why_closed = letter.closed;
            continue;
        }
        batch.push_back({letter.message, content_of(sink.transform(), keyring, letter.message), {}});
        opened.push_back(&letter);
    }
    std::map<std::size_t, Refused> refused;
    for (auto& one : sink.insert(batch))
        refused.emplace(one.position, std::move(one));

    std::vector<std::int64_t> done;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const auto found = refused.find(i);
        if (const auto* rejection = std::get_if<Rejection>(&batch[i].content))
            keep(extension, *opened[i], *rejection, "", sink.transform(), keyring);
        else if (found != refused.end())
            keep(extension, *opened[i], found->second.rejection, found->second.report.constraint,
                 sink.transform(), keyring);
        else
            done.push_back(opened[i]->id);
    }
    delete_dead_letters(extension, done);
    total.inserted += static_cast<std::int64_t>(done.size());
    total.rejected += static_cast<std::int64_t>(batch.size() - done.size());
}

void say_closed(std::int64_t closed, const std::string& why) {
    call_pg([&] {
        ereport(WARNING,
                (errmsg_plural("%lld dead letter could not be opened and was left: %s",
                               "%lld dead letters could not be opened and were left; the last one: %s",
                               closed, static_cast<long long>(closed), why.c_str()),
                 errhint("A key that is missing can be put back into the keyring from its backup; what is "
                         "damaged can only be purged.")));
    });
}

std::int64_t redrive(const DeadLetterFilter& filter, std::int64_t max_letters) {
    SpiConnection spi;
    const auto extension = require_extension();
    const auto pipeline = lock_pipeline_and_target(extension, filter.pipeline, "sqs_ingest_redrive()");
    const Keyring& keyring = verified_keyring();
    try_deferred_constraints(); // what the caller left open is not to be blamed on a dead letter
    Sink sink(pipeline, extension, Host::session);
    sink.rehearse();

    Redriven total;
    TurnMemory memory;
    for (std::int64_t last = 0;;) {
        memory.begin_turn();
        call_pg([] { CHECK_FOR_INTERRUPTS(); });
        const auto letters =
            next_dead_letters(extension, filter, keyring, last, Lock::skip, max_letters - total.tried());
        if (letters.empty())
            break;
        require_still_own(extension, filter.pipeline);
        last = letters.back().id;
        redrive_batch(sink, extension, letters, keyring, total);
        const std::string activity = "sqs_ingest_redrive of \"" + filter.pipeline +
                                     "\": " + std::to_string(total.inserted) + " inserted, " +
                                     std::to_string(total.rejected) + " rejected again";
        pgstat_report_activity(STATE_RUNNING, activity.c_str());
    }
    if (total.inserted + total.rejected > 0)
        record_keyring(extension); // last: others wait for it until the transaction ends
    if (total.closed > 0)
        say_closed(total.closed, total.why_closed);
    call_pg([&] {
        ereport(NOTICE, (errmsg("redrove dead letters of \"%s\": %lld inserted, %lld rejected again",
                                filter.pipeline.c_str(), static_cast<long long>(total.inserted),
                                static_cast<long long>(total.rejected))));
    });
    return total.inserted;
}

// --- purge

std::int64_t purge(DeadLetterFilter filter) {
    SpiConnection spi;
    const auto extension = require_extension();
    std::optional<PipelineRow> row;
    // A superuser may purge what a deleted pipeline left behind.
    if (read_pipeline(extension, filter.pipeline) || !ask_pg([] { return superuser(); }))
        row = lock_own_pipeline(extension, filter.pipeline, RowLock::stays);
    if (!filter.chooses() && row)
        filter.older_than = row->dead_letter_retention;
    if (!filter.chooses())
        throw make_error(ERRCODE_INVALID_PARAMETER_VALUE, "sqs_ingest_purge() needs at least one condition",
                         "Name reason, ids, older_than or newer_than; older_than => '0' chooses all. Or set "
                         "dead_letter_retention of the pipeline.");
    const auto deleted = delete_dead_letters(extension, filter);
    if (row)
        require_still_own(extension, filter.pipeline);
    return deleted;
}

// --- forget

// The position of the column that the mapping marks; in mappings of older versions of the one named user_id.
std::size_t user_column(const Pipeline& pipeline) {
    const auto& columns = pipeline.mapping.columns;
    auto found = std::find_if(columns.begin(), columns.end(), [](const auto& rule) { return rule.user; });
    if (found == columns.end())
        found = std::find_if(columns.begin(), columns.end(),
                             [](const auto& rule) { return rule.column == kUserColumn; });
    if (found != columns.end())
        return static_cast<std::size_t>(found - columns.begin());
    throw make_error(
        ERRCODE_UNDEFINED_COLUMN,
        "no column of pipeline \"" + pipeline.row.name + "\" is marked as the user's",
        "Add \"user\": true to the column of the pipeline's columns that says whom a row is about.");
}

// As the column holds the user's id: as it is, or masked under any key.
std::vector<std::string> stored_forms(const ColumnRule& rule, const Pipeline& pipeline,
                                      const Keyring& keyring, const std::string& user_id) {
    const Mask* mask = rule.mask();
    if (!mask)
        return {user_id};
    return mask_candidates(mask->method.value_or(pipeline.mask_method), &keyring, user_id);
}

// SQL for a type and its own equality, whatever the search_path has: quoted and qualified.
struct Comparison {
    const char *type, *equals;
};

Comparison comparison_of(Oid declared) {
    const Oid type = getBaseType(declared);
    const Oid equals = lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr;
    HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(equals));
    if (!HeapTupleIsValid(tuple))
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
                        errmsg("values of type %s cannot be compared", format_type_be(type)),
                        errhint("Mark another column of the pipeline with \"user\": true.")));
    const auto* form = reinterpret_cast<Form_pg_operator>(GETSTRUCT(tuple));
    const Comparison comparison{
        format_type_extended(type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY),
        psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
                 NameStr(form->oprname))};
    ReleaseSysCache(tuple);
    return comparison;
}

std::int64_t delete_rows(const Pipeline& pipeline, std::size_t position,
                         const std::vector<std::string>& values) {
    const Oid table = lock_target(pipeline);
    const auto columns = read_columns(pipeline, table);
    const std::string& column = pipeline.mapping.columns[position].column;
    auto texts = nlohmann::json::array(); // those that the column can hold
    for (const auto& value : values)
        if (auto text = to_column(value, columns.types[position]))
            if (refusal_of(text.value(), columns.declared[position]) == 0)
                texts.push_back(std::move(text).value());
    const auto comparison = ask_pg([&] { return comparison_of(columns.declared[position].type); });
    const std::string type = comparison.type;
    const auto rows =
        query("WITH gone AS (DELETE FROM " + qualified_name_of(table) + " WHERE " + quoted(column) +
                  "::" + type + " " + comparison.equals + " ANY (ARRAY(SELECT e::" + type +
                  " FROM pg_catalog.jsonb_array_elements_text($1::pg_catalog.jsonb) e))"
                  " RETURNING 1) SELECT pg_catalog.count(*)::pg_catalog.text FROM gone",
              {json_text(texts)});
    return std::stoll(*rows.front()[0]);
}

struct Forgotten {
    std::int64_t rows = 0, letters = 0, closed = 0;
    std::string why_closed; // of the last one
};

// As values of the column's type, by its own equality and collation: 2001:db8::1 is 2001:DB8:0::1.
bool are_equal(const std::string& one, const std::string& other, const TargetColumns::Declared& column) {
    if (one == other || refusal_of(one, column) != 0 || refusal_of(other, column) != 0)
        return one == other;
    return ask_pg([&] {
        const auto* type = lookup_type_cache(getBaseType(column.type), TYPECACHE_EQ_OPR_FINFO);
        if (!OidIsValid(type->eq_opr))
            return false;
        Oid input, parameter;
        getTypeInputInfo(column.type, &input, &parameter);
        const auto value_of = [&](const std::string& text) {
            return OidInputFunctionCall(input, to_server(text.c_str()), parameter, column.modifier);
        };
        return DatumGetBool(FunctionCall2Coll(const_cast<FmgrInfo*>(&type->eq_opr_finfo), column.collation,
                                              value_of(one), value_of(other)));
    });
}

void forget_dead_letters(const Extension& extension, const Pipeline& pipeline, const Keyring& keyring,
                         const std::string& user_id, std::size_t position, Forgotten& total) {
    DeadLetterFilter all;
    all.pipeline = pipeline.row.name;
    const auto columns = read_columns(pipeline, lock_target(pipeline));
    const auto how = transform_for(pipeline, columns.types);
    const auto& rule = how.mapping.columns[position];
    const auto id = rule.mask() ? Result<std::string, Reason>(Reason::bad_value)
                                : to_column(user_id, columns.types[position]);
    const auto same = [&](const std::string& value) {
        const auto text = to_column(value, columns.types[position]);
        return id.ok() && text.ok() && are_equal(id.value(), text.value(), columns.declared[position]);
    };
    TurnMemory memory;
    for (std::int64_t last = 0;;) {
        memory.begin_turn();
        call_pg([] { CHECK_FOR_INTERRUPTS(); });
        const auto letters = next_dead_letters(extension, all, keyring, last, Lock::none);
        if (letters.empty())
            return;
        require_still_own(extension, pipeline.row.name);
        last = letters.back().id;
        std::vector<std::int64_t> gone;
        for (const auto& letter : letters) {
            if (!letter.closed.empty()) {
                ++total.closed;
                total.why_closed = letter.closed;
            } else if (mentions(how, letter.message, rule, user_id, same)) {
                gone.push_back(letter.id);
            } else if (is_too_large_to_unpack(how.envelope, how.encoding, letter.message.body)) {
                ++total.closed;
                total.why_closed = "its payload is too large to be unpacked";
            }
        }
        delete_dead_letters(extension, gone);
        total.letters += static_cast<std::int64_t>(gone.size());
    }
}

std::string forget(const std::string& name, std::string user_id) {
    if (user_id.empty())
        throw make_error(ERRCODE_INVALID_PARAMETER_VALUE, "user_id must not be empty",
                         "Name the user whose rows and dead letters are to go.");
    SpiConnection spi;
    const auto extension = require_extension();
    const auto pipeline = lock_pipeline_and_target(extension, name, "sqs_ingest_forget()");
    const Keyring& keyring = verified_keyring();
    const auto position = user_column(pipeline);
    const auto& rule = pipeline.mapping.columns[position];
    user_id = normalised(rule, std::move(user_id));

    // Dead letters first: a redrive under way is waited for, and the rows that it makes are found below.
    Forgotten total;
    forget_dead_letters(extension, pipeline, keyring, user_id, position, total);
    total.rows = delete_rows(pipeline, position, stored_forms(rule, pipeline, keyring, user_id));
    if (total.closed > 0)
        say_closed(total.closed, total.why_closed);
    return nlohmann::json{{"rows", total.rows}, {"dead_letters", total.letters}, {"not_opened", total.closed}}
        .dump();
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" {

// The arguments as plain C strings in Postgres memory; NULL stays a null pointer. Raises plain Postgres
// errors.
struct FilterArguments {
    const char *pipeline, *reason, *ids, *older_than, *newer_than;
};

static FilterArguments filter_arguments(FunctionCallInfo fcinfo) {
    if (PG_ARGISNULL(0))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("pipeline must not be null"),
                        errhint("Name the pipeline, or leave the argument out for \"user_logins\".")));
    const auto string = [&](int i) {
        return PG_ARGISNULL(i) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(i));
    };
    const auto output = [&](int i, Oid function) {
        return PG_ARGISNULL(i) ? nullptr : OidOutputFunctionCall(function, PG_GETARG_DATUM(i));
    };
    return {string(0), string(1), output(2, F_ARRAY_OUT), output(3, F_INTERVAL_OUT),
            output(4, F_INTERVAL_OUT)};
}

static sqs_ingest::pg::DeadLetterFilter filter_of(const FilterArguments& arguments) {
    const auto optional = [](const char* text) {
        return text ? std::optional<std::string>(text) : std::nullopt;
    };
    return {arguments.pipeline, optional(arguments.reason), optional(arguments.ids),
            optional(arguments.older_than), optional(arguments.newer_than)};
}

PG_FUNCTION_INFO_V1(sqs_ingest_redrive);
Datum sqs_ingest_redrive(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const auto arguments = filter_arguments(fcinfo);
    const int64 max_letters = PG_ARGISNULL(5) ? PG_INT64_MAX : PG_GETARG_INT64(5);
    if (max_letters < 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("max_letters must not be negative"),
                        errhint("Leave it out for no limit.")));
    PreventCommandIfReadOnly("sqs_ingest_redrive()");
    PG_RETURN_INT64(pg_entry([&] { return redrive(filter_of(arguments), max_letters); }));
}

PG_FUNCTION_INFO_V1(sqs_ingest_purge);
Datum sqs_ingest_purge(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const auto arguments = filter_arguments(fcinfo);
    PreventCommandIfReadOnly("sqs_ingest_purge()");
    PG_RETURN_INT64(pg_entry([&] { return purge(filter_of(arguments)); }));
}

PG_FUNCTION_INFO_V1(sqs_ingest_forget);
Datum sqs_ingest_forget(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const char* user_id = to_utf8(text_to_cstring(PG_GETARG_TEXT_PP(0)));
    const char* name = text_to_cstring(PG_GETARG_TEXT_PP(1));
    PreventCommandIfReadOnly("sqs_ingest_forget()");
    return pg_entry([&] {
        const std::string counts = forget(name, user_id);
        return ask_pg([&] { return DirectFunctionCall1(jsonb_in, CStringGetDatum(counts.c_str())); });
    });
}
}
