// What a receive hands to the rest of the program.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace sqs_ingest {

// One delivery of one message. The same message_id can be delivered again with another receipt handle.
struct Message {
    std::string message_id;
    std::string receipt_handle;
    std::string body; // UTF-8, except when body_damaged
    // The response held bytes that are no UTF-8 (or a lone surrogate): they were replaced by U+FFFD here.
    bool body_damaged = false;
    std::optional<std::int64_t> sent_at_ms; // SentTimestamp, milliseconds since 1970 by the queue's clock
    std::int32_t receive_count = 0;         // ApproximateReceiveCount; 0 when the server did not say
    std::string group_id;                   // MessageGroupId; FIFO only, else empty
    std::string sequence_number;            // SequenceNumber; FIFO only, else empty
};

} // namespace sqs_ingest
