// Implements json_protocol.h. Requests are written as text, since their shapes are constant; answers are
// parsed into a tree and their strings moved out of it, so that a message body is copied once, by the parser.
//
// No error text here quotes an answer: it may hold message bodies.
#include "core/sqs/json_protocol.h"

#include "core/digest.h"
#include "core/sqs/answer.h"
#include "core/sqs/utf8.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

namespace sqs_ingest {

namespace {

using nlohmann::json;

// --- writing

void append_string(std::string& out, std::string_view text) {
    static constexpr char digits[] = "0123456789abcdef";
    out += '"';
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (byte < 0x20) {
            out += "\\u00";
            out += digits[byte >> 4];
            out += digits[byte & 0x0F];
        } else {
            out += c;
        }
    }
    out += '"';
}

std::string begin_request(std::string_view queue_url) {
    std::string body = R"({"QueueUrl":)";
    append_string(body, queue_url);
    return body;
}

// `rest` is what an entry holds beside its position and its receipt handle.
std::string encode_entries(std::string_view queue_url, const std::vector<std::string_view>& receipt_handles,
                           const std::string& rest) {
    std::string body = begin_request(queue_url);
    body += R"(,"Entries":[)";
    for (std::size_t position = 0; position < receipt_handles.size(); ++position) {
        body += position == 0 ? R"({"Id":")" : R"(,{"Id":")";
        body += std::to_string(position);
        body += R"(","ReceiptHandle":)";
        append_string(body, receipt_handles[position]);
        body += rest;
        body += '}';
    }
    body += "]}";
    return body;
}

// --- reading

ApiError bad_answer(const char* what) {
    return {ErrorClass::transient, 200, "BadAnswer", what};
}

json* member(json& object, const char* key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::string> take_string(json& object, const char* key) {
    json* value = member(object, key);
    if (value == nullptr || !value->is_string())
        return std::nullopt;
    return std::move(value->get_ref<std::string&>());
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
    std::int64_t number = 0;
    const char* end = text.data() + text.size();
    const auto [parsed_to, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || parsed_to != end)
        return std::nullopt;
    return number;
}

// AWS writes numbers among the attributes as strings; some servers write numbers.
std::optional<std::int64_t> read_integer(json& object, const char* key) {
    const json* value = member(object, key);
    if (value == nullptr)
        return std::nullopt;
    if (value->is_string())
        return parse_integer(value->get_ref<const std::string&>());
    if (value->is_number_unsigned() &&
        value->get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        return std::nullopt;
    if (value->is_number_integer())
        return value->get<std::int64_t>();
    return std::nullopt;
}

// A count or a time that is negative or absurd was not said.
std::optional<int> read_natural(json& object, const char* key) {
    const std::optional<std::int64_t> number = read_integer(object, key);
    if (!number || *number < 0 || *number > std::numeric_limits<int>::max())
        return std::nullopt;
    return static_cast<int>(*number);
}

// SentTimestamp, as far as a timestamp of the database can hold it: before the year 10000.
std::optional<std::int64_t> read_epoch_ms(json& object, const char* key) {
    constexpr std::int64_t kYear10000 = 253'402'300'800'000;
    const std::optional<std::int64_t> time = read_integer(object, key);
    return time && *time >= 0 && *time < kYear10000 ? time : std::nullopt;
}

bool read_boolean(json& object, const char* key) {
    const json* value = member(object, key);
    return value != nullptr && (*value == true || *value == "true");
}

enum class Checksum { matches, differs, unknown };

Checksum check_md5(std::string_view body, const std::optional<std::string>& expected_hex) {
    if (!expected_hex)
        return Checksum::unknown;
    const std::optional<Md5Digest> actual = md5(body);
    if (!actual)
        return Checksum::unknown;
    return hex(*actual) == *expected_hex ? Checksum::matches : Checksum::differs;
}

bool holds_replacement(std::string_view text) {
    return text.find(kReplacementCharacter) != std::string_view::npos;
}

// The id becomes a key of the ledger and a part of log lines. AWS: at most 100 characters.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-queue-message-identifiers.html
bool is_plausible_id(std::string_view id) {
    constexpr std::size_t kMaxIdBytes = 100;
    return !id.empty() && id.size() <= kMaxIdBytes &&
           std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < '\x7F'; });
}

void read_attributes(json& delivery, Message& message) {
    json* attributes = member(delivery, "Attributes");
    if (attributes == nullptr || !attributes->is_object())
        return;
    message.sent_at_ms = read_epoch_ms(*attributes, "SentTimestamp");
    message.receive_count = read_natural(*attributes, "ApproximateReceiveCount").value_or(0);
    message.group_id = take_string(*attributes, "MessageGroupId").value_or("");
    message.sequence_number = take_string(*attributes, "SequenceNumber").value_or("");
}

// The error is for people: why this delivery cannot be taken.
Result<Message, std::string> take_message(json& delivery, bool repaired) {
    if (!delivery.is_object())
        return std::string("an entry of Messages is no object");
    Message message;
    message.message_id = take_string(delivery, "MessageId").value_or("");
    if (!is_plausible_id(message.message_id))
        return std::string("a message has no usable MessageId");
    message.receipt_handle = take_string(delivery, "ReceiptHandle").value_or("");
    if (message.receipt_handle.empty() || (repaired && holds_replacement(message.receipt_handle)))
        return "message " + message.message_id + ": it has no usable ReceiptHandle";
    std::optional<std::string> body = take_string(delivery, "Body");
    if (!body)
        return "message " + message.message_id + ": it has no Body";
    message.body = std::move(*body);

    const Checksum checksum = check_md5(message.body, take_string(delivery, "MD5OfBody"));
    // A sender may have written U+FFFD itself: then the checksum matches.
    message.body_damaged = repaired && holds_replacement(message.body) && checksum != Checksum::matches;
    if (checksum == Checksum::differs && !message.body_damaged)
        return "message " + message.message_id + ": MD5OfBody does not match the body";
    read_attributes(delivery, message);
    return message;
}

FailedEntry take_failed_entry(json& entry, int position) {
    const std::string code = take_string(entry, "Code").value_or("Unknown");
    const std::string text = take_string(entry, "Message").value_or("");
    // An unknown code is judged by whose fault it is, as HTTP would say it.
    ApiError error = api_error(code, text, read_boolean(entry, "SenderFault") ? 400 : 500);
    error.http_status = 200;
    return {position, std::move(error)};
}

// The entries of a batch answer's list, as positions; empty when the list is not what was asked for.
std::optional<std::vector<int>> positions_of(json& answer, const char* list_name, int entries) {
    std::vector<int> positions;
    json* list = member(answer, list_name);
    if (list == nullptr)
        return positions;
    if (!list->is_array())
        return std::nullopt;
    for (json& entry : *list) {
        const std::optional<int> position = entry.is_object() ? read_natural(entry, "Id") : std::nullopt;
        if (!position || *position >= entries)
            return std::nullopt;
        positions.push_back(*position);
    }
    return positions;
}

// The RedrivePolicy attribute is JSON inside a string.
std::optional<int> read_max_receive_count(json& attributes) {
    const std::optional<std::string> text = take_string(attributes, "RedrivePolicy");
    if (!text)
        return std::nullopt;
    std::optional<Answer> policy = parse_answer(*text);
    return policy ? read_natural(policy->json, "maxReceiveCount") : std::nullopt;
}

} // namespace

ApiCall encode_receive(std::string_view queue_url, int max_messages, int wait_seconds,
                       int visibility_timeout_seconds) {
    constexpr std::string_view kNames =
        R"(["SentTimestamp","ApproximateReceiveCount","MessageGroupId","SequenceNumber"])";
    std::string body = begin_request(queue_url);
    body += R"(,"MaxNumberOfMessages":)";
    body += std::to_string(max_messages);
    body += R"(,"WaitTimeSeconds":)";
    body += std::to_string(wait_seconds);
    if (visibility_timeout_seconds > 0)
        body += R"(,"VisibilityTimeout":)" + std::to_string(visibility_timeout_seconds);
    body += R"(,"MessageSystemAttributeNames":)";
    body += kNames;
    body += R"(,"AttributeNames":)";
    body += kNames;
    body += '}';
    return {"AmazonSQS.ReceiveMessage", std::move(body)};
}

Result<Received, ApiError> decode_receive(std::string_view body) {
    std::optional<Answer> answer = parse_answer(body);
    if (!answer)
        return bad_answer("the answer to ReceiveMessage is no JSON object");
    Received received;
    json* deliveries = member(answer->json, "Messages");
    if (deliveries == nullptr)
        return received;
    if (!deliveries->is_array())
        return bad_answer("the answer to ReceiveMessage has Messages that are no array");
    received.messages.reserve(deliveries->size());
    for (json& delivery : *deliveries) {
        Result<Message, std::string> message = take_message(delivery, answer->repaired);
        if (message)
            received.messages.push_back(std::move(message).value());
        else
            received.damaged.push_back(std::move(message).error());
    }
    return received;
}

ApiCall encode_delete_batch(std::string_view queue_url,
                            const std::vector<std::string_view>& receipt_handles) {
    return {"AmazonSQS.DeleteMessageBatch", encode_entries(queue_url, receipt_handles, "")};
}

ApiCall encode_change_visibility_batch(std::string_view queue_url,
                                       const std::vector<std::string_view>& receipt_handles,
                                       int visibility_timeout_seconds) {
    const std::string rest = R"(,"VisibilityTimeout":)" + std::to_string(visibility_timeout_seconds);
    return {"AmazonSQS.ChangeMessageVisibilityBatch", encode_entries(queue_url, receipt_handles, rest)};
}

Result<std::vector<FailedEntry>, ApiError> decode_batch(std::string_view body, int entries) {
    std::optional<Answer> answer = parse_answer(body);
    if (!answer)
        return bad_answer("the answer to a batch is no JSON object");
    const std::optional<std::vector<int>> positions = positions_of(answer->json, "Failed", entries);
    if (!positions || !positions_of(answer->json, "Successful", entries))
        return bad_answer("the answer to a batch names entries that were not sent");
    std::vector<FailedEntry> failed;
    failed.reserve(positions->size());
    for (std::size_t i = 0; i < positions->size(); ++i)
        failed.push_back(take_failed_entry(answer->json["Failed"][i], (*positions)[i]));
    return failed;
}

ApiCall encode_get_queue_attributes(std::string_view queue_url) {
    return {"AmazonSQS.GetQueueAttributes", begin_request(queue_url) + R"(,"AttributeNames":["All"]})"};
}

Result<QueueAttributes, ApiError> decode_queue_attributes(std::string_view body) {
    std::optional<Answer> answer = parse_answer(body);
    if (!answer)
        return bad_answer("the answer to GetQueueAttributes is no JSON object");
    QueueAttributes result;
    json* attributes = member(answer->json, "Attributes");
    if (attributes == nullptr)
        return result;
    if (!attributes->is_object())
        return bad_answer("the answer to GetQueueAttributes has Attributes that are no object");
    result.visibility_timeout_seconds = read_natural(*attributes, "VisibilityTimeout");
    result.retention_seconds = read_natural(*attributes, "MessageRetentionPeriod");
    result.approximate_messages = read_integer(*attributes, "ApproximateNumberOfMessages");
    result.fifo = read_boolean(*attributes, "FifoQueue");
    result.max_receive_count = read_max_receive_count(*attributes);
    return result;
}

} // namespace sqs_ingest
