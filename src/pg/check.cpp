// sqs_ingest_check(): all that a pipeline needs, looked at one by one, so that a person reads what is missing
// before it is started; and sqs_ingest_preview(): what would become of one body. Neither changes anything.
#include "core/date.h"
#include "core/sqs/advice.h"
#include "core/transform/body.h"
#include "net/sqs_client.h"
#include "pg/arrays.h"
#include "pg/as_pipeline_owner.h"
#include "pg/background.h"
#include "pg/built_in.h"
#include "pg/durability.h"
#include "pg/encoding.h"
#include "pg/epoch.h"
#include "pg/json_text.h"
#include "pg/keyring.h"
#include "pg/preconditions.h"
#include "pg/shared_state.h"
#include "pg/sink.h"

namespace sqs_ingest::pg {

namespace {

using namespace std::chrono_literals;

constexpr auto kQueueTime = 12s;     // for the queue to answer; a request gives up after 10 s
constexpr int kShortVisibility = 30; // seconds: below, the worker asks for more at each receive
constexpr int kFewReceives = 3;      // a redrive policy below gives up on a message early

constexpr std::size_t kLongestMessage = 1 << 20; // of SQS

struct Item {
    const char* item;
    std::optional<bool> ok; // empty: not looked at, because of something above
    std::string detail;
    std::string hint;
};
using Items = std::vector<Item>;

void put(Items& items, const char* item, const std::optional<Obstacle>& obstacle,
         const std::string& when_ok) {
    if (obstacle)
        items.push_back({item, false, obstacle->message, obstacle->hint});
    else
        items.push_back({item, true, when_ok, {}});
}

// A cancel, or the server's own trouble.
bool says_nothing_about_the_pipeline(int sqlstate) {
    const int category = ERRCODE_TO_CATEGORY(sqlstate);
    return category == ERRCODE_OPERATOR_INTERVENTION || category == ERRCODE_INSUFFICIENT_RESOURCES ||
           category == ERRCODE_INTERNAL_ERROR;
}

// Runs a part; what it throws becomes a row that is not ok.
template<class F>
bool look(Items& items, const char* item, F part) {
    try {
        Subtransaction subtransaction; // rolled back, whatever happens
        limit_lock_waits();
        items.push_back({item, true, part(), {}});
        return true;
    } catch (const PgError& error) {
        const auto& report = error.report();
        if (says_nothing_about_the_pipeline(report.sqlstate))
            throw;
        items.push_back({item, false, report.message, with_hint(error).report().hint});
        return false;
    }
}

void check_server(Items& items) {
    put(items, "preloaded", preload_obstacle(), "sqs_ingest is in shared_preload_libraries");
    if (ingest_enabled())
        items.push_back({"sqs_ingest.enabled", true, "on", {}});
    else
        items.push_back({"sqs_ingest.enabled", false, "off: no pipeline of this cluster runs",
                         "Set it on in postgresql.conf and reload."});
    if (!shared_state())
        return;
    pid_t launcher;
    int free_slots = 0;
    {
        StateLock lock(LW_SHARED);
        launcher = shared_state()->launcher;
        for (int i = 0; i < shared_state()->slots_count; ++i)
            free_slots += shared_state()->slots[i].pipeline < 0;
    }
    if (launcher)
        items.push_back({"launcher", true, "it runs with pid " + std::to_string(launcher), {}});
    else
        items.push_back({"launcher", false, "it does not run",
                         RecoveryInProgress()
                             ? "This server is a standby: it starts on promotion."
                             : "It needs a free background worker slot: raise "
                               "max_worker_processes and restart the server. After an error it comes "
                               "back within some seconds."});
    const std::string slots =
        std::to_string(free_slots) + " of " + std::to_string(max_workers()) + " are free";
    items.push_back(
        {"worker slots", true, slots,
         free_slots > 0 ? "" : "Raise sqs_ingest.max_workers unless this pipeline has one of them."});
}

void check_target(Items& items, const Pipeline& pipeline, const Extension& extension) {
    Sink sink(pipeline, extension, Host::session);
    const auto owner = owner_obstacle(pipeline.row.owner);
    put(items, "owner", owner, "role \"" + role_name(pipeline.row.owner) + "\" can be connected as");
    if (!owner && ask_pg([&] { return superuser_arg(pipeline.row.owner); }))
        items.back().hint = "It is a superuser, and so are the target's triggers: an ordinary role is safer.";
    if (pipeline.row.target.empty()) {
        items.push_back({"target", true, "sqs_ingest_start() will make the table user_logins", {}});
        return;
    }
    const auto none = std::string("not looked at");
    const bool target = look(items, "target", [&] {
        return pipeline.row.target + " has all " +
               std::to_string(read_columns(pipeline, lock_target(pipeline)).types.size()) + " columns";
    });
    if (owner || !target) {
        items.push_back({"insert", std::nullopt, none, {}});
        return;
    }
    look(items, "insert", [&] {
        AsPipelineOwner as_owner(pipeline.row.owner);
        sink.rehearse();
        return "role \"" + role_name(pipeline.row.owner) + "\" can insert into " + pipeline.row.target;
    });
}

void check_keyring(Items& items, const Extension& extension, bool first_start) {
    const bool will_be_made = first_start && keyring_is_missing() && ask_pg([] { return superuser(); }) &&
                              recorded_keys(extension, Effect::reads).empty();
    if (will_be_made) {
        items.push_back({"keyring", true, "sqs_ingest_start() will make \"" + keyring_path() + "\"", {}});
        return;
    }
    const bool usable = look(items, "keyring", [&] {
        const Keyring ring = verified_keyring_file(extension);
        return "\"" + keyring_path() + "\", keys: " + std::to_string(ring.keys().size()) +
               ", primary key: " + std::to_string(ring.primary().id);
    });
    if (usable && keyring_lies_inside_data_directory())
        items.back().hint =
            "It lies inside the data directory: base backups carry it. Set sqs_ingest.mask_keyring to a "
            "file elsewhere and move it there.";
}

AttributesResult ask_queue(SqsClient& client) {
    const auto until = std::chrono::steady_clock::now() + kQueueTime;
    const uint32 event = wait_event("SqsIngestCheck");
    client.start_get_queue_attributes();
    for (;;) {
        auto events = client.advance();
        if (!events.empty())
            return std::get<AttributesResult>(std::move(events.front().result));
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
        if (left <= 0ms)
            return {ApiError{ErrorClass::transient, 0, "Timeout", "the queue did not answer"}};
        wait_for(client.descriptor(),
                 static_cast<long>(std::min(client.timeout().value_or(left), left).count()), event);
        call_pg([] { CHECK_FOR_INTERRUPTS(); });
    }
}

std::string describe(const QueueAttributes& queue) {
    const auto seconds = [](const std::optional<int>& n) {
        return n ? std::to_string(*n) + " s" : "unknown";
    };
    std::string text = queue.fifo ? "FIFO queue" : "standard queue";
    text += ", visibility timeout " + seconds(queue.visibility_timeout_seconds) + ", retention " +
            seconds(queue.retention_seconds);
    if (queue.approximate_messages)
        text += ", about " + std::to_string(*queue.approximate_messages) + " messages";
    if (queue.max_receive_count)
        text += ", to its dead letter queue after " + std::to_string(*queue.max_receive_count) + " receives";
    return text;
}

// By the request that needed them.
void check_credentials(Items& items, const SqsClient& client, const AttributesResult& answer) {
    const CredentialsChain& chain = client.credentials();
    if (const std::string source = chain.source(); !source.empty()) {
        const auto expire = chain.expires_at_ms();
        items.push_back(
            {"credentials", true, source + (expire ? ", until " + format_timestamp(*expire) : ""), {}});
        return;
    }
    const ApiError& error = answer.outcome.error();
    items.push_back({"credentials", false, error.message, advice(error)});
}

void check_queue(Items& items, const Pipeline& pipeline) {
    items.push_back({"queue URL", true, pipeline.queue_url, {}});
    put(items, "queue is free", queue_obstacle(pipeline, enabled_pipelines()),
        "no other enabled pipeline of this cluster reads it");

    SqsClient client(client_options(pipeline));
    const auto answer = ask_queue(client);
    check_credentials(items, client, answer);
    const bool region = !client.region().empty();
    items.push_back(
        {"region", region, region ? client.region() : "none is known",
         region
             ? ""
             : "Set the pipeline's region or sqs_ingest.region, or AWS_REGION in the server's environment."});
    if (!region || client.credentials().source().empty()) {
        items.push_back({"queue", std::nullopt, "not asked", {}});
        return;
    }
    if (!answer.outcome.ok()) {
        const auto& error = answer.outcome.error();
        items.push_back({"queue", false,
                         error.message.empty() ? error.code : error.code + ": " + error.message,
                         advice(error)});
        return;
    }
    const auto& queue = answer.outcome.value();
    Item item{"queue", true, describe(queue), {}};
    if (queue.max_receive_count && *queue.max_receive_count < kFewReceives)
        item.hint = "Its redrive policy takes a message away after few receives: a restart in the wrong "
                    "moment costs one. Raise maxReceiveCount.";
    else if (queue.visibility_timeout_seconds && *queue.visibility_timeout_seconds < kShortVisibility)
        item.hint = "Its visibility timeout is short; the workers ask for more at each receive.";
    items.push_back(std::move(item));
    if (std::abs(client.clock_skew_ms()) > 60'000)
        items.push_back({"clock", false,
                         "this machine's clock is " + std::to_string(client.clock_skew_ms() / 1000) +
                             " s off the queue's",
                         "Requests are dated by the queue's clock; correct the machine's all the same."});
}

Items check(const std::string& name) {
    Items items;
    const auto extension = require_extension();
    auto row = read_pipeline(extension, name);
    const bool will_be_made = !row && name == kBuiltInPipeline;
    if (will_be_made)
        row = built_in_row(find_user_logins().value_or(""));
    else if (!row)
        row = require_pipeline(extension, name); // says that there is none
    require_own_pipeline(*row);
    check_server(items);
    check_keyring(items, extension, will_be_made);
    const auto pipeline = resolve(*row, current_settings(), NeedsQueue::no);
    if (!pipeline.ok()) {
        items.push_back({"configuration", false, pipeline.error().message, pipeline.error().hint});
        return items;
    }
    items.push_back({"configuration",
                     true,
                     std::to_string(pipeline.value().mapping.columns.size()) + " columns, method " +
                         to_string(pipeline.value().mask_method),
                     {}});
    check_target(items, pipeline.value(), extension);
    const auto with_queue = resolve(*row, current_settings());
    if (with_queue.ok())
        check_queue(items, with_queue.value());
    else
        items.push_back({"queue URL", false, with_queue.error().message, with_queue.error().hint});
    const std::string durable = durability();
    items.push_back({"durability", fsync_is_on(), durable,
                     fsync_is_on()
                         ? ""
                         : "Set fsync on: a message that is deleted from the queue can be lost otherwise."});
    return items;
}

void put_items(ReturnSetInfo* result, const std::string& name) {
    Items items;
    {
        SpiConnection spi;
        items = check(name);
    }
    for (const auto& item : items)
        call_pg([&] {
            Datum values[] = {CStringGetTextDatum(item.item), BoolGetDatum(item.ok.value_or(false)),
                              server_text_datum(Text(item.detail)), server_text_datum(Text(item.hint))};
            bool nulls[] = {false, !item.ok, item.detail.empty(), item.hint.empty()};
            tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
        });
}

// As it would be stored: integers and booleans as such, JSON as JSON, everything else as text.
nlohmann::json cell_json(const ColumnType& type, const std::optional<std::string>& value) {
    if (!value)
        return nullptr;
    switch (type.kind) {
    case ColumnType::Kind::int2:
    case ColumnType::Kind::int4:
    case ColumnType::Kind::int8:
    case ColumnType::Kind::boolean:
    case ColumnType::Kind::json:
        if (auto json = parse_json(*value)) // numbers with every digit
            return std::move(json).value();
        return *value;
    default:
        return *value;
    }
}

struct Previewed {
    nlohmann::json rows = nlohmann::json::array();
    nlohmann::json columns = nlohmann::json::array();
    std::optional<Rejection> rejected;
};

// Column by column; what the database itself would not take for a column's type is found here, too.
Previewed preview_columns(const Pipeline& pipeline, const TargetColumns& target,
                          const Explanation& explanation) {
    Previewed result;
    result.rejected = explanation.rejected;
    for (const auto& outcomes : explanation.rows) {
        auto row = nlohmann::json::object(), columns = nlohmann::json::object();
        for (std::size_t i = 0; i < outcomes.size(); ++i) {
            auto outcome = outcomes[i];
            const auto& rule = pipeline.mapping.columns[i];
            if (const int refusal = outcome.value ? refusal_of(*outcome.value, target.declared[i]) : 0)
                outcome.rejected = reason_of_refusal(refusal);
            if (outcome.rejected && !result.rejected)
                result.rejected = Rejection{*outcome.rejected, rule.field()};
            const std::string column = utf8_of(rule.column);
            auto& told = columns[column];
            told["from"] = outcome.source.empty() ? nlohmann::json() : nlohmann::json(outcome.source);
            if (outcome.rejected)
                told["rejected"] = to_string(*outcome.rejected);
            else
                told["value"] = row[column] = cell_json(target.types[i], outcome.value);
        }
        result.rows.push_back(std::move(row));
        result.columns.push_back(std::move(columns));
    }
    return result;
}

std::string preview(const std::string& name, Message message) {
    if (message.body.size() > kLongestMessage)
        throw make_error(ERRCODE_PROGRAM_LIMIT_EXCEEDED, "the body is longer than a message of SQS can be",
                         "A message has at most 1 MiB.");
    SpiConnection spi;
    const auto extension = require_extension();
    const auto row = require_pipeline(extension, name);
    require_own_pipeline(row); // it masks, so it can test guesses
    const auto pipeline = require_resolved(row, NeedsQueue::no);
    const Keyring& keyring = verified_keyring();
    const auto target = read_columns(pipeline, lock_target(pipeline));
    const auto how = transform_for(pipeline, target.types);
    const AsPipelineOwner as_owner(row.owner); // checks of domains are functions of somebody's
    auto previewed = preview_columns(pipeline, target, explain(how, &keyring, message));
    nlohmann::json json;
    if (previewed.rejected) {
        json["rejected"] = {{"reason", to_string(previewed.rejected->reason)},
                            {"redacted", redact(how, &keyring, message)}};
        if (!previewed.rejected->field.empty())
            json["rejected"]["field"] = previewed.rejected->field;
    } else if (pipeline.mapping.each) {
        json["rows"] = std::move(previewed.rows);
    } else {
        json["row"] = std::move(previewed.rows.front());
    }
    if (pipeline.mapping.each)
        json["columns"] = std::move(previewed.columns);
    else if (!previewed.columns.empty())
        json["columns"] = std::move(previewed.columns.front());
    return json_text(json);
}

// {"name": "value"}: scalars, as SQS has attributes.
std::map<std::string, MessageAttribute> attributes_of(const char* json) {
    std::map<std::string, MessageAttribute> attributes;
    if (!json)
        return attributes;
    const auto members = nlohmann::json::parse(json, nullptr, false);
    if (!members.is_object())
        throw make_error(ERRCODE_INVALID_PARAMETER_VALUE, "attributes must be a JSON object",
                         "Like {\"trace_id\": \"abc\"}.");
    for (const auto& [name, value] : members.items())
        attributes[name] = {"String", value.is_string() ? value.get<std::string>() : value.dump()};
    return attributes;
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" {

PG_FUNCTION_INFO_V1(sqs_ingest_check);
Datum sqs_ingest_check(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    const char* name = text_to_cstring(PG_GETARG_TEXT_PP(0));
    pg_entry([&] { put_items(result, name); });
    return Datum(0);
}

// (pipeline, body, sent_at), and maybe (…, attributes, group_id).
PG_FUNCTION_INFO_V1(sqs_ingest_preview);
Datum sqs_ingest_preview(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
        PG_RETURN_NULL();
    const char* name = text_to_cstring(PG_GETARG_TEXT_PP(0));
    char* body = to_utf8(text_to_cstring(PG_GETARG_TEXT_PP(1)));
    const TimestampTz sent_at =
        PG_ARGISNULL(2) ? GetCurrentTransactionStartTimestamp() : PG_GETARG_TIMESTAMPTZ(2);
    if (TIMESTAMP_NOT_FINITE(sent_at))
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("sent_at must be a moment in time"),
                        errhint("Leave it out for now.")));
    char* attributes = nullptr;
    char* group_id = nullptr;
    if (PG_NARGS() > 3 && !PG_ARGISNULL(3))
        attributes = to_utf8(OidOutputFunctionCall(F_JSONB_OUT, PG_GETARG_DATUM(3)));
    if (PG_NARGS() > 4 && !PG_ARGISNULL(4))
        group_id = to_utf8(text_to_cstring(PG_GETARG_TEXT_PP(4)));
    return pg_entry([&] {
        sqs_ingest::Message message;
        message.body = body;
        message.sent_at_ms = message.received_at_ms = ms_of_timestamp(sent_at);
        message.receive_count = 1;
        message.message_id = "00000000-0000-0000-0000-000000000000";
        message.attributes = attributes_of(attributes);
        message.group_id = group_id ? group_id : "";
        const std::string json = preview(name, std::move(message));
        return ask_pg([&] { return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.c_str())); });
    });
}
}
