#include "core/sqs/answer_parts.h"

#include "core/base64url.h"
#include "core/digest.h"
#include "core/sqs/answer.h"
#include "core/text.h"

#include <algorithm>
#include <charconv>
#include <limits>

namespace sqs_ingest {

namespace {

const std::string* find(const NamedTexts& texts, std::string_view name) {
    const auto found =
        std::find_if(texts.begin(), texts.end(), [&](const auto& entry) { return entry.first == name; });
    return found == texts.end() ? nullptr : &found->second;
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
    std::int64_t number = 0;
    const char* end = text.data() + text.size();
    const auto [parsed_to, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || parsed_to != end)
        return std::nullopt;
    return number;
}

std::optional<std::int64_t> integer(const NamedTexts& texts, std::string_view name) {
    const std::string* text = find(texts, name);
    return text ? parse_integer(*text) : std::nullopt;
}

// A count or a time that is negative or absurd was not said.
std::optional<int> as_natural(std::optional<std::int64_t> number) {
    if (!number || *number < 0 || *number > std::numeric_limits<int>::max())
        return std::nullopt;
    return static_cast<int>(*number);
}

std::optional<int> natural(const NamedTexts& texts, std::string_view name) {
    return as_natural(integer(texts, name));
}

// SentTimestamp, as far as a timestamp of the database can hold it: before the year 10000.
std::optional<std::int64_t> epoch_ms(const NamedTexts& texts, std::string_view name) {
    constexpr std::int64_t kYear10000 = 253'402'300'800'000;
    const std::optional<std::int64_t> time = integer(texts, name);
    return time && *time >= 0 && *time < kYear10000 ? time : std::nullopt;
}

std::string text_or_empty(const NamedTexts& texts, std::string_view name) {
    const std::string* text = find(texts, name);
    return text ? *text : "";
}

enum class Checksum { matches, differs, unknown };

Checksum check_md5(std::string_view body, const std::optional<WireText>& expected_hex) {
    if (!expected_hex)
        return Checksum::unknown;
    const std::optional<Md5Digest> actual = md5(body);
    if (!actual)
        return Checksum::unknown;
    return hex(*actual) == expected_hex->text ? Checksum::matches : Checksum::differs;
}

// What MD5OfMessageAttributes is the MD5 of.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html#sqs-attributes-md5-message-digest-calculation
std::string digested(const std::map<std::string, MessageAttribute>& attributes) {
    std::string out;
    const auto add = [&](std::string_view part) {
        for (const int shift : {24, 16, 8, 0}) // its length, big-endian
            out += static_cast<char>(part.size() >> shift & 0xFF);
        out += part;
    };
    for (const auto& [name, attribute] : attributes) {
        add(name);
        add(attribute.data_type);
        out += attribute.data_type.starts_with("Binary") ? '\2' : '\1';
        add(attribute.value);
    }
    return out;
}

// As of a body: where the digest matches, U+FFFD is the sender's own. One that differs is not held against
// the message: servers take it of all attributes, or of those that were asked for, or not at all.
void clear_damage(std::map<std::string, MessageAttribute>& attributes,
                  const std::optional<WireText>& expected_hex) {
    const bool damaged = std::any_of(attributes.begin(), attributes.end(),
                                     [](const auto& attribute) { return attribute.second.damaged; });
    if (damaged && check_md5(digested(attributes), expected_hex) == Checksum::matches)
        for (auto& [name, attribute] : attributes)
            attribute.damaged = false;
}

// The id becomes a key of the ledger and a part of log lines. AWS: at most 100 characters.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-queue-message-identifiers.html
bool is_plausible_id(std::string_view id) {
    constexpr std::size_t kMaxIdBytes = 100;
    return !id.empty() && id.size() <= kMaxIdBytes && is_printable(id);
}

// The position that an entry's id names, if it was sent.
std::optional<int> position_of(const BatchEntry& entry, int entries) {
    const std::optional<int> position = as_natural(parse_integer(entry.id));
    return position && *position < entries ? position : std::nullopt;
}

// The RedrivePolicy attribute is JSON inside a string.
std::optional<int> max_receive_count(const NamedTexts& attributes) {
    const std::string* text = find(attributes, "RedrivePolicy");
    const std::optional<Answer> policy = text ? parse_answer(*text) : std::nullopt;
    if (!policy)
        return std::nullopt;
    return natural(named_texts(policy->json), "maxReceiveCount");
}

} // namespace

Result<Message, std::string> take_message(WireMessage wire) {
    Message message;
    if (!wire.message_id || !is_plausible_id(wire.message_id->text))
        return std::string("a message has no usable MessageId");
    message.message_id = std::move(wire.message_id->text);
    if (!wire.receipt_handle || wire.receipt_handle->text.empty() || wire.receipt_handle->damaged)
        return "message " + message.message_id + ": it has no usable ReceiptHandle";
    message.receipt_handle = std::move(wire.receipt_handle->text);
    if (!wire.body)
        return "message " + message.message_id + ": it has no Body";
    message.body = std::move(wire.body->text);

    const Checksum checksum = check_md5(message.body, wire.md5_of_body);
    // A sender may have written U+FFFD itself: then the checksum matches.
    message.body_damaged = wire.body->damaged && checksum != Checksum::matches;
    if (checksum == Checksum::differs && !message.body_damaged)
        return "message " + message.message_id + ": MD5OfBody does not match the body";

    message.sent_at_ms = epoch_ms(wire.attributes, "SentTimestamp");
    message.receive_count = natural(wire.attributes, "ApproximateReceiveCount").value_or(0);
    message.group_id = text_or_empty(wire.attributes, "MessageGroupId");
    message.sequence_number = text_or_empty(wire.attributes, "SequenceNumber");
    message.attributes = std::move(wire.message_attributes);
    clear_damage(message.attributes, wire.md5_of_message_attributes);
    return message;
}

void take_into(Received& received, WireMessage wire) {
    std::string group_id = text_or_empty(wire.attributes, "MessageGroupId");
    Result<Message, std::string> message = take_message(std::move(wire));
    if (message)
        received.messages.push_back(std::move(message).value());
    else
        take_damaged_into(received, std::move(message).error(), std::move(group_id));
}

void take_damaged_into(Received& received, std::string why, std::string group_id) {
    received.damaged.push_back({std::move(why), std::move(group_id), received.messages.size()});
}

MessageAttribute binary_attribute(std::string data_type, std::string_view base64) {
    std::optional<std::string> bytes = from_base64(base64);
    return {std::move(data_type), bytes.value_or(""), !bytes};
}

Result<std::vector<FailedEntry>, ApiError> failed_entries(const std::vector<BatchEntry>& successful,
                                                          const std::vector<BatchEntry>& failed,
                                                          int entries) {
    constexpr const char* kForeign = "the answer to a batch names entries that were not sent";
    std::vector<bool> answered(static_cast<std::size_t>(entries));
    for (const BatchEntry& entry : successful) {
        const std::optional<int> position = position_of(entry, entries);
        if (!position)
            return bad_answer(kForeign);
        answered[static_cast<std::size_t>(*position)] = true;
    }
    std::vector<FailedEntry> result;
    result.reserve(failed.size());
    for (const BatchEntry& entry : failed) {
        const std::optional<int> position = position_of(entry, entries);
        if (!position)
            return bad_answer(kForeign);
        answered[static_cast<std::size_t>(*position)] = true;
        // An unknown code is judged by whose fault it is, as HTTP would say it.
        ApiError error = api_error(entry.code.empty() ? "Unknown" : entry.code, entry.message,
                                   entry.sender_fault ? 400 : 500);
        error.http_status = 200;
        result.push_back({*position, std::move(error)});
    }
    for (int position = 0; position < entries; ++position)
        if (!answered[static_cast<std::size_t>(position)])
            result.push_back({position,
                              {ErrorClass::transient, 200, kNotAnswered,
                               "the answer to a batch leaves out an entry that was sent"}});
    return result;
}

QueueAttributes queue_attributes(const NamedTexts& attributes) {
    QueueAttributes result;
    result.visibility_timeout_seconds = natural(attributes, "VisibilityTimeout");
    result.retention_seconds = natural(attributes, "MessageRetentionPeriod");
    result.approximate_messages = integer(attributes, "ApproximateNumberOfMessages");
    result.fifo = text_or_empty(attributes, "FifoQueue") == "true";
    result.max_receive_count = max_receive_count(attributes);
    return result;
}

ApiError bad_answer(const char* what) {
    return {ErrorClass::transient, 200, "BadAnswer", what};
}

} // namespace sqs_ingest
