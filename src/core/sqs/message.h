// What a receive hands to the rest of the program.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace sqs_ingest {

// What a sender attached to a message, beside its body.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
struct MessageAttribute {
    std::string data_type; // "String", "Number", "Binary", or one of those with a label: "Number.int"
    std::string value;     // text; of a Binary its bytes
    // The text held bytes that are no UTF-8, replaced by U+FFFD here, or the base64 was none and `value` is
    // empty.
    bool damaged = false;
};

// One delivery of one message. The same message_id can be delivered again with another receipt handle.
struct Message {
    std::string message_id;
    std::string receipt_handle;
    std::string body; // UTF-8, except when body_damaged
    // The response held bytes that are no UTF-8 (or a lone surrogate, or in XML a reference to no character):
    // they were replaced by U+FFFD here.
    bool body_damaged = false;
    std::optional<std::int64_t> sent_at_ms;     // SentTimestamp, milliseconds since 1970 by the queue's clock
    std::optional<std::int64_t> received_at_ms; // by this machine's clock; set by whoever receives
    std::int32_t receive_count = 0;             // ApproximateReceiveCount; 0 when the server did not say
    std::string group_id;                       // MessageGroupId; FIFO only, else empty
    std::string sequence_number;                // SequenceNumber; FIFO only, else empty
    std::map<std::string, MessageAttribute> attributes; // those that were asked for
};

} // namespace sqs_ingest
