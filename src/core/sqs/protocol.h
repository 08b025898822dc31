// What is asked of SQS and what comes back, whichever of its two protocols carries it.
//
// SQS speaks AWS JSON 1.0 (json_protocol.h) and the older Query protocol with XML answers (query_protocol.h).
// AWS knows both; LocalStack before 3.0, ElasticMQ before 1.4, GoAWS before 0.5 and moto before 4.1.10 know
// only the Query protocol, and some servers only JSON. A Codec is one protocol's functions, chosen once a
// request. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
#pragma once

#include "core/result.h"
#include "core/sqs/error.h"
#include "core/sqs/message.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sqs_ingest {

enum class Protocol { json, query };

// "json", "query"
const char* to_string(Protocol protocol);

// --- requests

// ReceiveMessage. Asks for SentTimestamp, ApproximateReceiveCount, MessageGroupId and SequenceNumber under
// both names of the parameter (MessageSystemAttributeNames, AttributeNames).
struct ReceiveRequest {
    int max_messages = 10;              // 1..10
    int wait_seconds = 0;               // 0..20
    int visibility_timeout_seconds = 0; // 1..43200; 0: the queue's own
    // ReceiveRequestAttemptId, for FIFO queues: a receive whose answer was lost, repeated within 5 minutes
    // with the same id, gets the same messages. At most 128 letters, digits and punctuation; empty: none.
    std::string attempt_id;
    // Names of the senders' attributes to ask for ("All": every one); empty: none.
    std::vector<std::string> message_attributes;
};

// DeleteMessageBatch: 1..10 receipt handles; the entry ids are their positions, "0".."9".
struct DeleteRequest {
    std::vector<std::string> receipt_handles;
};

// ChangeMessageVisibilityBatch: 1..10 receipt handles, timeout 0..43200 s for all of them.
struct VisibilityRequest {
    std::vector<std::string> receipt_handles;
    int timeout_seconds = 0;
};

// GetQueueAttributes for All: a standard queue refuses the whole request when FifoQueue is asked for by name
// ("Unknown Attribute FifoQueue").
struct AttributesRequest {};

using Request = std::variant<ReceiveRequest, DeleteRequest, VisibilityRequest, AttributesRequest>;

// An HTTP POST, without what is the same for all: host, date, signature.
struct ApiCall {
    std::string path; // absolute, as sent
    std::string content_type;
    std::string target; // X-Amz-Target; empty: the protocol has none
    std::string body;
};

// --- answers

// A delivery that cannot be taken: MD5OfBody did not match, or MessageId, ReceiptHandle or Body is missing.
// It is not ours to delete; it comes back by itself.
struct Damaged {
    std::string why;        // for people: "message 5fea…: MD5OfBody does not match the body"
    std::string group_id;   // empty: none, or unknown
    std::size_t before = 0; // how many messages of the answer came before it
};

struct Received {
    std::vector<Message> messages;
    std::vector<Damaged> damaged;
};

// The code of an entry of which the answer says neither that it succeeded nor that it failed. Of class
// transient.
inline constexpr const char* kNotAnswered = "NotAnswered";

struct FailedEntry {
    int position; // in the request
    ApiError error;
};

struct QueueAttributes {
    std::optional<int> visibility_timeout_seconds;
    std::optional<int> retention_seconds;
    std::optional<std::int64_t> approximate_messages;
    bool fifo = false;
    std::optional<int> max_receive_count; // of the RedrivePolicy
};

// --- one protocol

// The errors of the decoders are of class transient, code "BadAnswer": the answer has another shape.
struct Codec {
    ApiCall (*encode)(std::string_view queue_url, const Request& request);

    // One message with invalid UTF-8 does not cost the others: it comes back with body_damaged. MD5OfBody is
    // checked where MD5 is available, except for a damaged body. MD5OfMessageAttributes only tells what is no
    // damage.
    Result<Received, ApiError> (*decode_receive)(std::string_view body);

    // The entries that failed, those that the answer leaves out among them; every other position succeeded.
    // An entry id that was not sent spoils the whole answer. An entry's http_status is 200, that of the
    // answer.
    Result<std::vector<FailedEntry>, ApiError> (*decode_batch)(std::string_view body, int entries);

    Result<QueueAttributes, ApiError> (*decode_queue_attributes)(std::string_view body);
};

const Codec& codec(Protocol protocol);

} // namespace sqs_ingest
