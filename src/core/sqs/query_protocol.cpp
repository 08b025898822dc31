// Implements query_protocol.h.
//
// No error text here quotes an answer: it may hold message bodies.
#include "core/sqs/query_protocol.h"

#include "core/sqs/answer_parts.h"
#include "core/sqs/uri_encode.h"
#include "core/sqs/url.h"
#include "core/sqs/xml_answer.h"
#include "core/utf8.h"

#include <utility>

namespace sqs_ingest::query_protocol {

namespace {

// --- writing

// The queue URL's host can be another than the endpoint's; only its path goes into the request.
std::string path_of(std::string_view queue_url) {
    const Result<Url, std::string> url = parse_url(queue_url);
    return !url.ok() || url.value().path.empty() ? "/" : url.value().path;
}

// The form of one request. Lists are numbered from 1: AttributeName.1.
class Form {
  public:
    Form(std::string_view queue_url, std::string_view action) : path_(path_of(queue_url)) {
        add("Action", action);
        add("Version", "2012-11-05");
        add("QueueUrl", queue_url);
    }

    void add(std::string_view name, std::string_view value) { add_field(body_, name, value); }

    template<class List>
    void add_list(std::string_view name, const List& values) {
        int number = 0;
        for (const std::string_view value : values)
            add(numbered(name, ++number), value);
    }

    // `timeout` is for each entry; empty: the action has none.
    void add_entries(const std::string& entry_name, const std::vector<std::string>& receipt_handles,
                     std::string_view timeout) {
        for (std::size_t position = 0; position < receipt_handles.size(); ++position) {
            const std::string entry = numbered(entry_name, static_cast<int>(position) + 1);
            add(entry + ".Id", std::to_string(position));
            add(entry + ".ReceiptHandle", receipt_handles[position]);
            if (!timeout.empty())
                add(entry + ".VisibilityTimeout", timeout);
        }
    }

    ApiCall call() && {
        return {std::move(path_), "application/x-www-form-urlencoded", "", std::move(body_)};
    }

  private:
    static std::string numbered(std::string_view name, int number) {
        return std::string(name) + "." + std::to_string(number);
    }

    std::string path_;
    std::string body_;
};

ApiCall encode_one(std::string_view queue_url, const ReceiveRequest& request) {
    static constexpr std::string_view kNames[] = {"SentTimestamp", "ApproximateReceiveCount",
                                                  "MessageGroupId", "SequenceNumber"};
    Form form(queue_url, "ReceiveMessage");
    form.add("MaxNumberOfMessages", std::to_string(request.max_messages));
    form.add("WaitTimeSeconds", std::to_string(request.wait_seconds));
    if (request.visibility_timeout_seconds > 0)
        form.add("VisibilityTimeout", std::to_string(request.visibility_timeout_seconds));
    if (!request.attempt_id.empty())
        form.add("ReceiveRequestAttemptId", request.attempt_id);
    form.add_list("MessageAttributeName", request.message_attributes);
    form.add_list("MessageSystemAttributeName", kNames);
    form.add_list("AttributeName", kNames);
    return std::move(form).call();
}

ApiCall encode_one(std::string_view queue_url, const DeleteRequest& request) {
    Form form(queue_url, "DeleteMessageBatch");
    form.add_entries("DeleteMessageBatchRequestEntry", request.receipt_handles, "");
    return std::move(form).call();
}

ApiCall encode_one(std::string_view queue_url, const VisibilityRequest& request) {
    Form form(queue_url, "ChangeMessageVisibilityBatch");
    form.add_entries("ChangeMessageVisibilityBatchRequestEntry", request.receipt_handles,
                     std::to_string(request.timeout_seconds));
    return std::move(form).call();
}

ApiCall encode_one(std::string_view queue_url, const AttributesRequest&) {
    Form form(queue_url, "GetQueueAttributes");
    form.add("AttributeName.1", "All");
    return std::move(form).call();
}

// --- reading

// The text of a child element; empty when there is none.
std::optional<WireText> text_of_child(const XmlAnswer& answer, const pugi::xml_node& parent,
                                      std::string_view name) {
    const pugi::xml_node child = xml_child(parent, name);
    if (!child)
        return std::nullopt;
    WireText text = xml_text(child);
    if (answer.repaired && text.text.find(kReplacementCharacter) != std::string::npos)
        text.damaged = true;
    return text;
}

std::string string_of_child(const pugi::xml_node& parent, std::string_view name) {
    return xml_text(xml_child(parent, name)).text;
}

MessageAttribute read_attribute(const XmlAnswer& answer, const pugi::xml_node& value) {
    std::string data_type = string_of_child(value, "DataType");
    if (xml_child(value, "BinaryValue"))
        return binary_attribute(std::move(data_type), string_of_child(value, "BinaryValue"));
    WireText text = text_of_child(answer, value, "StringValue").value_or(WireText{});
    return {std::move(data_type), std::move(text.text), text.damaged};
}

void read_system_attribute(NamedTexts& attributes, const pugi::xml_node& attribute) {
    attributes.emplace_back(string_of_child(attribute, "Name"), string_of_child(attribute, "Value"));
}

WireMessage read_message(const XmlAnswer& answer, const pugi::xml_node& message) {
    WireMessage wire;
    wire.message_id = text_of_child(answer, message, "MessageId");
    wire.receipt_handle = text_of_child(answer, message, "ReceiptHandle");
    wire.body = text_of_child(answer, message, "Body");
    wire.md5_of_body = text_of_child(answer, message, "MD5OfBody");
    wire.md5_of_message_attributes = text_of_child(answer, message, "MD5OfMessageAttributes");
    for (const pugi::xml_node& child : message.children()) {
        if (xml_name(child) == "Attribute")
            read_system_attribute(wire.attributes, child);
        else if (xml_name(child) == "MessageAttribute")
            wire.message_attributes.emplace(string_of_child(child, "Name"),
                                            read_attribute(answer, xml_child(child, "Value")));
    }
    return wire;
}

BatchEntry read_batch_entry(const pugi::xml_node& entry) {
    return {string_of_child(entry, "Id"), string_of_child(entry, "Code"), string_of_child(entry, "Message"),
            string_of_child(entry, "SenderFault") == "true"};
}

// <ReceiveMessageResponse><ReceiveMessageResult>… : the second of them, when the answer is one of `action`.
pugi::xml_node result_of(const XmlAnswer& answer, const std::string& action) {
    if (xml_name(answer.root()) != action + "Response")
        return {};
    return xml_child(answer.root(), action + "Result");
}

// What stands before a fault in the XML is whole, but for the message that the fault is in.
bool is_unfinished(const XmlAnswer& answer, const pugi::xml_node& result, const pugi::xml_node& message) {
    return answer.broken && !message.next_sibling() && !result.next_sibling();
}

} // namespace

ApiCall encode(std::string_view queue_url, const Request& request) {
    return std::visit([&](const auto& one) { return encode_one(queue_url, one); }, request);
}

Result<Received, ApiError> decode_receive(std::string_view body) {
    const std::optional<XmlAnswer> answer = parse_xml_answer(body);
    const pugi::xml_node result = answer ? result_of(*answer, "ReceiveMessage") : pugi::xml_node();
    if (!result)
        return bad_answer("the answer to ReceiveMessage is no ReceiveMessageResponse");
    Received received;
    for (const pugi::xml_node& message : result.children()) {
        if (xml_name(message) != "Message")
            continue;
        if (is_unfinished(*answer, result, message))
            take_damaged_into(received, "the answer to ReceiveMessage is no XML from this message on");
        else
            take_into(received, read_message(*answer, message));
    }
    if (answer->broken && received.messages.empty() && received.damaged.empty())
        return bad_answer("the answer to ReceiveMessage is no XML from some point on");
    return received;
}

Result<std::vector<FailedEntry>, ApiError> decode_batch(std::string_view body, int entries) {
    const std::optional<XmlAnswer> answer = parse_xml_answer(body);
    pugi::xml_node result;
    for (const char* action : {"DeleteMessageBatch", "ChangeMessageVisibilityBatch"})
        if (answer && !answer->broken && !result)
            result = result_of(*answer, action);
    if (!result)
        return bad_answer("the answer to a batch is no response to one");
    std::vector<BatchEntry> successful;
    std::vector<BatchEntry> failed;
    for (const pugi::xml_node& entry : result.children()) {
        if (xml_name(entry) == "BatchResultErrorEntry")
            failed.push_back(read_batch_entry(entry));
        else if (xml_name(entry).ends_with("BatchResultEntry"))
            successful.push_back(read_batch_entry(entry));
    }
    return failed_entries(successful, failed, entries);
}

Result<QueueAttributes, ApiError> decode_queue_attributes(std::string_view body) {
    const std::optional<XmlAnswer> answer = parse_xml_answer(body);
    const pugi::xml_node result =
        answer && !answer->broken ? result_of(*answer, "GetQueueAttributes") : pugi::xml_node();
    if (!result)
        return bad_answer("the answer to GetQueueAttributes is no GetQueueAttributesResponse");
    NamedTexts attributes;
    for (const pugi::xml_node& attribute : result.children())
        if (xml_name(attribute) == "Attribute")
            read_system_attribute(attributes, attribute);
    return queue_attributes(attributes);
}

} // namespace sqs_ingest::query_protocol
