// sqs_ingest_create_pipeline(), sqs_ingest_alter_pipeline() and sqs_ingest_drop_pipeline().
//
// What they write is one row of sqs_ingest_pipeline, which the workers are configured by; the launcher finds
// out when the transaction commits. Before that everything is tried that can be tried without the queue.
#include "core/text.h"
#include "pg/as_pipeline_owner.h"
#include "pg/commit_effects.h"
#include "pg/control.h"
#include "pg/dead_letters.h"
#include "pg/encoding.h"
#include "pg/json_text.h"
#include "pg/keyring.h"
#include "pg/preconditions.h"
#include "pg/shared_state.h"
#include "pg/sink.h"
#include "pg/spi.h"
#include "pg/table_mapping.h"

namespace sqs_ingest::pg {

namespace {

using nlohmann::json;

// The columns of sqs_ingest_pipeline that are arguments, in the order of the SQL functions, which all begin
// with the name. A null argument stays as it is, or has its default.
constexpr const char* kOptions[] = {
    "queue_url",
    "target",
    "columns",
    "mask_method",
    "workers",
    "dead_letter_retention",
    "endpoint_url",
    "region",
    "profile",
    "role_arn",
    "external_id",
    "protocol",
    "max_receivers",
    "batch_size",
    "wait_time",
    "visibility_timeout",
    "envelope",
    "body_encoding",
    "each",
    "on_invalid",
    "max_receive_count",
    "on_conflict",
    "conflict_columns",
    "ledger",
};
constexpr int kOptionCount = static_cast<int>(std::size(kOptions));
constexpr int kTarget = 1, kColumns = 2;

// The arguments as text, null pointers for NULL. Raises plain Postgres errors.
struct Arguments {
    const char* name;
    const char* options[kOptionCount];
    Oid target; // invalid: none was given
};

// As jsonb_populate_record() takes them, without the mapping, which stays the text that it is: its numbers
// have more digits than a double.
json changes_of(const Arguments& arguments) {
    json changes = json::object();
    for (int i = 0; i < kOptionCount; ++i)
        if (arguments.options[i] && i != kColumns)
            changes[kOptions[i]] = utf8_of(arguments.options[i]);
    if (OidIsValid(arguments.target))
        changes[kOptions[kTarget]] = utf8_of(qualified_name_of(arguments.target));
    return changes;
}

// The launcher reads names in JSON, and without a database: without an encoding.
void require_readable_name(const char* name) {
    if (pg_verify_mbstr(PG_UTF8, name, static_cast<int>(strlen(name)), true))
        return;
    throw make_error(ERRCODE_INVALID_NAME,
                     "the name of a pipeline must be ASCII in a database whose encoding is not UTF8",
                     "Choose another name. Tables and columns can have theirs.");
}

bool has_default(std::string_view option) {
    return option != "target" && option != "columns" && option != "mask_method";
}

std::string options_with_default() {
    std::string list;
    for (const char* option : kOptions)
        if (has_default(option))
            list += std::string(list.empty() ? "" : ", ") + option;
    return list;
}

// Everything that can be known without the queue: the row as it is now in the table is read back, resolved,
// and tried on its target as the owner would write it.
Pipeline try_out(const Extension& extension, const std::string& name) {
    const auto row = require_pipeline(extension, name);
    const auto pipeline = require_resolved(row);
    refuse(owner_obstacle(row.owner));
    Sink sink(pipeline, extension, Host::session);
    Subtransaction rolled_back;
    limit_lock_waits();
    AsPipelineOwner as_owner(row.owner);
    try {
        sink.rehearse();
    } catch (const PgError& error) {
        throw with_hint(error);
    }
    return pipeline;
}

[[noreturn]] void refuse_name() {
    throw make_error(ERRCODE_DUPLICATE_OBJECT, "a pipeline of that name exists already",
                     "sqs_ingest_alter_pipeline() changes it, sqs_ingest_drop_pipeline() removes it.");
}

// The table's constraints name themselves; what they stand for is said here.
[[noreturn]] void explain_refusal(const PgError& error) {
    const auto& report = error.report();
    if (report.sqlstate == ERRCODE_UNIQUE_VIOLATION) // somebody was quicker
        refuse_name();
    if (report.sqlstate != ERRCODE_CHECK_VIOLATION)
        throw error;
    const std::string constraint = report.constraint;
    std::string_view name = constraint;
    const bool of_option = remove_prefix(name, "sqs_ingest_pipeline_") && remove_suffix(name, "_check");
    const std::string option(of_option ? name : constraint);
    static const std::map<std::string, const char*> kRanges = {
        {"name", "A name has 1 to 63 bytes."},
        {"workers", "It is a number from 1 to 16."},
        {"dead_letter_retention", "It is an interval above zero and up to 100 years."},
        {"protocol", "It is auto, json or query."},
        {"max_receivers", "It is a number from 1 to 32."},
        {"batch_size", "It is a number of messages from 1 to 2000."},
        {"wait_time", "It is a number of seconds from 1 to 20."},
        {"visibility_timeout", "It is a number of seconds from 30 to 43200."},
        {"envelope", "It is none, sns or eventbridge."},
        {"body_encoding", "It is plain, base64 or gzip+base64."},
        {"on_invalid", "It is dead_letter, discard or leave."},
        {"max_receive_count", "It is a number above zero."},
        {"on_conflict", "It is dead_letter, nothing or update."},
        {"conflict_columns",
         "on_conflict => 'update' needs the columns of a unique constraint in conflict_columns, "
         "'nothing' may have them, 'dead_letter' has none."},
    };
    const auto range = kRanges.find(option);
    throw make_error(ERRCODE_INVALID_PARAMETER_VALUE,
                     "invalid value for option \"" + option + "\" of a pipeline",
                     range == kRanges.end() ? "The constraint " + constraint + " says which values are valid."
                                            : range->second);
}

template<class F>
void explaining_refusals(F f) {
    try {
        f();
    } catch (const PgError& error) {
        explain_refusal(error);
    }
}

std::string create(const Arguments& arguments) {
    require_readable_name(arguments.name);
    const auto extension = lock_extension();
    SpiConnection spi;
    lock_enabled_pipelines(); // one at a time: the table's trigger grants
    if (read_pipeline(extension, arguments.name))
        refuse_name();
    require_no_orphans(extension, arguments.name,
                       std::string("Choose another name, or let a superuser call sqs_ingest_purge('") +
                           arguments.name + "', older_than => '0').");
    json row = changes_of(arguments);
    std::string mapping;
    if (arguments.options[kColumns]) {
        mapping = arguments.options[kColumns];
    } else {
        const auto inferred = mapping_of_table(arguments.target);
        mapping = inferred.columns;
        if (!inferred.left_out.empty())
            call_pg([&] {
                ereport(NOTICE, (errmsg("columns left to the database, which fills them: %s",
                                        inferred.left_out.c_str())));
            });
    }
    if (!row.contains("mask_method"))
        row["mask_method"] = to_string(current_settings().mask_method);
    explaining_refusals([&] {
        const std::string owner = std::to_string(GetUserId());
        AsExtensionOwner as_owner(extension);
        const std::string table = extension.table("sqs_ingest_pipeline");
        std::string columns = "name, owner, columns", values = "$2, $3::oid::regrole, $4::jsonb";
        for (const auto& [option, value] : row.items()) {
            columns += ", " + option;
            values += ", r." + option;
        }
        query("INSERT INTO " + table + " (" + columns + ") SELECT " + values +
                  " FROM jsonb_populate_record(NULL::" + table + ", $1::jsonb) r",
              {json_text(row), arguments.name, owner, mapping});
    });
    try_out(extension, arguments.name);
    forget_at_commit(arguments.name); // what another one of that name has left, however it went
    return mapping;
}

// `reset`: names of options that go back to their default.
void alter(const Arguments& arguments, const std::set<std::string>& reset) {
    const auto extension = lock_extension();
    SpiConnection spi;
    const auto enabled = lock_enabled_pipelines();
    lock_own_pipeline(extension, arguments.name, RowLock::changes); // it may be handed over just now
    json changes = changes_of(arguments);
    std::string assignments;
    const auto assign = [&](const std::string& option, const std::string& value) {
        assignments += (assignments.empty() ? "" : ", ") + option + " = " + value;
    };
    for (const auto& [option, value] : changes.items())
        assign(option, "r." + option);
    std::optional<std::string> mapping;
    if (arguments.options[kColumns]) {
        mapping = arguments.options[kColumns];
        assign("columns", "$3::jsonb");
    }
    for (const auto& option : reset) {
        const bool known = std::find(std::begin(kOptions), std::end(kOptions), option) != std::end(kOptions);
        if (!known || !has_default(option))
            throw make_error(ERRCODE_INVALID_PARAMETER_VALUE, "there is no option to reset of that name",
                             "Those that have a default are: " + options_with_default() + ".");
        if (changes.contains(option))
            throw make_error(ERRCODE_INVALID_PARAMETER_VALUE,
                             "option \"" + option + "\" cannot be both set and reset", "Do one of the two.");
        assign(option, "DEFAULT");
    }
    if (assignments.empty())
        throw make_error(ERRCODE_INVALID_PARAMETER_VALUE, "nothing is to be changed",
                         "Name an option, like workers => 2, or one to reset, like reset => '{region}'.");
    explaining_refusals([&] {
        AsExtensionOwner as_owner(extension);
        const std::string table = extension.table("sqs_ingest_pipeline");
        query("UPDATE " + table + " p SET " + assignments + " FROM (SELECT r.* FROM " + table +
                  " t, jsonb_populate_record(t, $1::jsonb) r WHERE t.name = $2) r WHERE p.name = $2",
              {json_text(changes), arguments.name, mapping});
    });
    const auto pipeline = try_out(extension, arguments.name);
    if (enabled.count(arguments.name))
        require_free_queue(pipeline, enabled);
}

void require_no_dead_letters(const Extension& extension, const std::string& name) {
    AsExtensionOwner as_owner(extension);
    const std::string of_it = " FROM " + extension.table("sqs_ingest_dead_letter") + " WHERE pipeline = $1";
    if (query("SELECT" + of_it + " LIMIT 1", {name}).empty())
        return;
    const auto left = query("SELECT count(*)::text" + of_it, {name});
    throw make_error(
        ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
        "pipeline \"" + name + "\" has " + *left.front()[0] + " dead letters",
        "sqs_ingest_redrive() or sqs_ingest_purge() them first, or drop it with cascade => true: "
        "then they are lost.");
}

// Everybody who starts, stops or alters a pipeline waits for this transaction meanwhile: so it waits for the
// sessions that have the pipeline in hand only so long.
void require_no_session(const Extension& extension, const std::string& name) {
    try {
        Subtransaction rolled_back;
        limit_lock_waits();
        read_pipeline(extension, name, RowLock::goes);
    } catch (const PgError& error) {
        if (error.report().sqlstate != ERRCODE_LOCK_NOT_AVAILABLE)
            throw;
        throw make_error(
            ERRCODE_OBJECT_IN_USE,
            "a drain, redrive, purge or forget of pipeline \"" + name + "\" is under way",
            "Drop it when that transaction has ended. While this one waits, pg_blocking_pids() of its "
            "process tells whose it is.");
    }
}

void drop(const std::string& name, bool cascade) {
    const auto extension = lock_extension();
    SpiConnection spi;
    lock_enabled_pipelines(); // before the look at whose it is
    require_own_pipeline(require_pipeline(extension, name));
    if (!cascade)
        require_no_dead_letters(extension, name); // before its workers are stopped for nothing
    if (!stop_pipeline(name))
        throw make_error(ERRCODE_OBJECT_IN_USE,
                         "the workers of pipeline \"" + name + "\" are still finishing",
                         "They may wait for a lock that this transaction holds, or for a standby. Run "
                         "sqs_ingest_stop() and wait until sqs_ingest_status() shows none, then drop it.");
    require_no_session(extension, name);
    // Nobody writes or redrives any more under this name. It may have been handed over meanwhile.
    require_own_pipeline(require_pipeline(extension, name, RowLock::goes));
    if (!cascade)
        require_no_dead_letters(extension, name); // what was written last
    AsExtensionOwner as_owner(extension);
    if (cascade)
        query("DELETE FROM " + extension.table("sqs_ingest_dead_letter") + " WHERE pipeline = $1", {name});
    query("DELETE FROM " + extension.table("sqs_ingest_ledger") + " WHERE pipeline = $1", {name});
    query("DELETE FROM " + extension.table("sqs_ingest_pipeline") + " WHERE name = $1", {name});
    forget_at_commit(name.c_str());
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" {

static sqs_ingest::pg::Arguments arguments_of(FunctionCallInfo fcinfo) {
    using namespace sqs_ingest::pg;
    Arguments arguments{};
    if (PG_ARGISNULL(0))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("name must not be null"),
                        errhint("Name the pipeline.")));
    arguments.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
    for (int i = 0; i < kOptionCount; ++i) {
        if (PG_ARGISNULL(i + 1))
            continue;
        if (i == kTarget) {
            arguments.target = PG_GETARG_OID(i + 1);
            continue;
        }
        Oid output;
        bool varlena;
        getTypeOutputInfo(get_fn_expr_argtype(fcinfo->flinfo, i + 1), &output, &varlena);
        arguments.options[i] = OidOutputFunctionCall(output, PG_GETARG_DATUM(i + 1));
    }
    return arguments;
}

PG_FUNCTION_INFO_V1(sqs_ingest_create_pipeline);
Datum sqs_ingest_create_pipeline(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const auto arguments = arguments_of(fcinfo);
    if (!OidIsValid(arguments.target))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("target must not be null"),
                        errhint("Name the table that the rows go into.")));
    PreventCommandIfReadOnly("sqs_ingest_create_pipeline()");
    return pg_entry([&] {
        const std::string columns = create(arguments);
        return ask_pg([&] { return DirectFunctionCall1(jsonb_in, CStringGetDatum(columns.c_str())); });
    });
}

PG_FUNCTION_INFO_V1(sqs_ingest_alter_pipeline);
Datum sqs_ingest_alter_pipeline(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const auto arguments = arguments_of(fcinfo);
    constexpr int kReset = kOptionCount + 1;
    Datum* elements = nullptr;
    bool* nulls = nullptr;
    int n = 0;
    if (!PG_ARGISNULL(kReset))
        deconstruct_array(PG_GETARG_ARRAYTYPE_P(kReset), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls,
                          &n);
    const char** reset = static_cast<const char**>(palloc(sizeof(char*) * (n + 1)));
    for (int i = 0; i < n; ++i)
        reset[i] = nulls[i] ? "" : TextDatumGetCString(elements[i]);
    PreventCommandIfReadOnly("sqs_ingest_alter_pipeline()");
    pg_entry([&] { alter(arguments, std::set<std::string>(reset, reset + n)); });
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(sqs_ingest_drop_pipeline);
Datum sqs_ingest_drop_pipeline(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const char* name = text_to_cstring(PG_GETARG_TEXT_PP(0));
    const bool cascade = PG_GETARG_BOOL(1);
    PreventCommandIfReadOnly("sqs_ingest_drop_pipeline()");
    PreventCommandDuringRecovery("sqs_ingest_drop_pipeline()");
    pg_entry([&] { drop(name, cascade); });
    PG_RETURN_VOID();
}
}
