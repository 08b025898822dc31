// Implements json_protocol.h. Requests are written as text, since their shapes are constant; answers are
// parsed into a tree and their strings moved out of it, so that a message body is copied once, by the parser.
//
// No error text here quotes an answer: it may hold message bodies.
#include "core/sqs/json_protocol.h"

#include "core/sqs/answer.h"
#include "core/sqs/answer_parts.h"
#include "core/utf8.h"

#include <utility>

namespace sqs_ingest::json_protocol {

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
std::string encode_entries(std::string_view queue_url, const std::vector<std::string>& receipt_handles,
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

std::string string_list(const std::vector<std::string>& texts) {
    std::string list = "[";
    for (const std::string& text : texts) {
        list += list.size() > 1 ? "," : "";
        append_string(list, text);
    }
    return list + "]";
}

ApiCall call(const char* action, std::string body) {
    return {"/", "application/x-amz-json-1.0", std::string("AmazonSQS.") + action, std::move(body)};
}

ApiCall encode_one(std::string_view queue_url, const ReceiveRequest& request) {
    constexpr std::string_view kNames =
        R"(["SentTimestamp","ApproximateReceiveCount","MessageGroupId","SequenceNumber"])";
    std::string body = begin_request(queue_url);
    body += R"(,"MaxNumberOfMessages":)" + std::to_string(request.max_messages);
    body += R"(,"WaitTimeSeconds":)" + std::to_string(request.wait_seconds);
    if (request.visibility_timeout_seconds > 0)
        body += R"(,"VisibilityTimeout":)" + std::to_string(request.visibility_timeout_seconds);
    if (!request.attempt_id.empty()) {
        body += R"(,"ReceiveRequestAttemptId":)";
        append_string(body, request.attempt_id);
    }
    if (!request.message_attributes.empty())
        body += R"(,"MessageAttributeNames":)" + string_list(request.message_attributes);
    body += R"(,"MessageSystemAttributeNames":)";
    body += kNames;
    body += R"(,"AttributeNames":)";
    body += kNames;
    body += '}';
    return call("ReceiveMessage", std::move(body));
}

ApiCall encode_one(std::string_view queue_url, const DeleteRequest& request) {
    return call("DeleteMessageBatch", encode_entries(queue_url, request.receipt_handles, ""));
}

ApiCall encode_one(std::string_view queue_url, const VisibilityRequest& request) {
    const std::string rest = R"(,"VisibilityTimeout":)" + std::to_string(request.timeout_seconds);
    return call("ChangeMessageVisibilityBatch", encode_entries(queue_url, request.receipt_handles, rest));
}

ApiCall encode_one(std::string_view queue_url, const AttributesRequest&) {
    return call("GetQueueAttributes", begin_request(queue_url) + R"(,"AttributeNames":["All"]})");
}

// --- reading

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

// An answer that was repaired holds U+FFFD where it was damaged, and perhaps where a sender wrote one.
bool may_be_damaged(const std::string& text, bool repaired) {
    return repaired && text.find(kReplacementCharacter) != std::string::npos;
}

std::optional<WireText> take_text(json& object, const char* key, bool repaired) {
    std::optional<std::string> text = take_string(object, key);
    if (!text)
        return std::nullopt;
    const bool damaged = may_be_damaged(*text, repaired);
    return WireText{std::move(*text), damaged};
}

MessageAttribute take_attribute(json& value, bool repaired) {
    MessageAttribute attribute;
    attribute.data_type = take_string(value, "DataType").value_or("");
    if (const std::optional<std::string> base64 = take_string(value, "BinaryValue"))
        return binary_attribute(std::move(attribute.data_type), *base64);
    attribute.value = take_string(value, "StringValue").value_or("");
    attribute.damaged = may_be_damaged(attribute.value, repaired);
    return attribute;
}

std::map<std::string, MessageAttribute> take_attributes(json& delivery, bool repaired) {
    std::map<std::string, MessageAttribute> attributes;
    json* object = member(delivery, "MessageAttributes");
    if (object == nullptr || !object->is_object())
        return attributes;
    for (auto& [name, value] : object->items())
        if (value.is_object())
            attributes.emplace(name, take_attribute(value, repaired));
    return attributes;
}

WireMessage read_message(json& object, bool repaired) {
    WireMessage wire;
    wire.message_id = take_text(object, "MessageId", repaired);
    wire.receipt_handle = take_text(object, "ReceiptHandle", repaired);
    wire.body = take_text(object, "Body", repaired);
    wire.md5_of_body = take_text(object, "MD5OfBody", repaired);
    wire.md5_of_message_attributes = take_text(object, "MD5OfMessageAttributes", repaired);
    if (const json* attributes = member(object, "Attributes"))
        wire.attributes = named_texts(*attributes);
    wire.message_attributes = take_attributes(object, repaired);
    return wire;
}

BatchEntry batch_entry(const json& object) {
    BatchEntry entry;
    for (auto& [name, text] : named_texts(object)) {
        if (name == "Id")
            entry.id = std::move(text);
        else if (name == "Code" && object["Code"].is_string())
            entry.code = std::move(text);
        else if (name == "Message" && object["Message"].is_string())
            entry.message = std::move(text);
        else if (name == "SenderFault")
            entry.sender_fault = text == "true";
    }
    return entry;
}

// Empty when the member is no list; one that is missing is an empty list.
std::optional<std::vector<BatchEntry>> batch_entries(json& answer, const char* name) {
    std::vector<BatchEntry> entries;
    const json* list = member(answer, name);
    if (list == nullptr)
        return entries;
    if (!list->is_array())
        return std::nullopt;
    for (const json& object : *list)
        entries.push_back(batch_entry(object));
    return entries;
}

} // namespace

ApiCall encode(std::string_view queue_url, const Request& request) {
    return std::visit([&](const auto& one) { return encode_one(queue_url, one); }, request);
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
        if (delivery.is_object())
            take_into(received, read_message(delivery, answer->repaired));
        else
            take_damaged_into(received, "an entry of Messages is no object");
    }
    return received;
}

Result<std::vector<FailedEntry>, ApiError> decode_batch(std::string_view body, int entries) {
    std::optional<Answer> answer = parse_answer(body);
    if (!answer)
        return bad_answer("the answer to a batch is no JSON object");
    const auto successful = batch_entries(answer->json, "Successful");
    const auto failed = batch_entries(answer->json, "Failed");
    if (!successful || !failed)
        return bad_answer("the answer to a batch has entries that are no list");
    return failed_entries(*successful, *failed, entries);
}

Result<QueueAttributes, ApiError> decode_queue_attributes(std::string_view body) {
    std::optional<Answer> answer = parse_answer(body);
    if (!answer)
        return bad_answer("the answer to GetQueueAttributes is no JSON object");
    const json* attributes = member(answer->json, "Attributes");
    if (attributes == nullptr)
        return QueueAttributes{};
    if (!attributes->is_object())
        return bad_answer("the answer to GetQueueAttributes has Attributes that are no object");
    return queue_attributes(named_texts(*attributes));
}

} // namespace sqs_ingest::json_protocol
