// The parts of an answer, in no protocol's form: a protocol reads them, and here they are judged.
#pragma once

#include "core/sqs/protocol.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sqs_ingest {

struct WireText {
    std::string text;
    // Something in it could not be read and was replaced by U+FFFD, as far as the protocol can tell: a sender
    // may have written U+FFFD itself.
    bool damaged = false;
};

// Name and value as text; numbers and booleans too.
using NamedTexts = std::vector<std::pair<std::string, std::string>>;

// One entry of a ReceiveMessage's answer, not judged yet.
struct WireMessage {
    std::optional<WireText> message_id;
    std::optional<WireText> receipt_handle;
    std::optional<WireText> body;
    std::optional<WireText> md5_of_body;
    std::optional<WireText> md5_of_message_attributes;
    NamedTexts attributes; // SentTimestamp, …
    std::map<std::string, MessageAttribute> message_attributes;
};

// The error is for people: why this delivery cannot be taken.
Result<Message, std::string> take_message(WireMessage wire);

// Puts it among the messages or the damaged.
void take_into(Received& received, WireMessage wire);

// For a delivery of which nothing can be read.
void take_damaged_into(Received& received, std::string why, std::string group_id = {});

// A Binary attribute's value as both protocols carry it.
MessageAttribute binary_attribute(std::string data_type, std::string_view base64);

// One entry of a batch's answer; those that succeeded have an id only.
struct BatchEntry {
    std::string id;
    std::string code;
    std::string message;
    bool sender_fault = false;
};

Result<std::vector<FailedEntry>, ApiError> failed_entries(const std::vector<BatchEntry>& successful,
                                                          const std::vector<BatchEntry>& failed, int entries);

QueueAttributes queue_attributes(const NamedTexts& attributes);

// Class transient, code "BadAnswer". `what` never quotes an answer: it may hold message bodies.
ApiError bad_answer(const char* what);

} // namespace sqs_ingest
