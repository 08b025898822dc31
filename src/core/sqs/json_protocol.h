// The AWS JSON 1.0 protocol of SQS: requests to bytes, answers to values.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
#pragma once

#include "core/result.h"
#include "core/sqs/error.h"
#include "core/sqs/message.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sqs_ingest {

// An HTTP request's variable part. The rest is constant: POST /, Content-Type application/x-amz-json-1.0.
struct ApiCall {
    std::string target; // X-Amz-Target, "AmazonSQS.ReceiveMessage"
    std::string body;
};

// ReceiveMessage. max_messages 1..10, wait_seconds 0..20, visibility_timeout_seconds 1..43200, or 0 for the
// queue's own. Asks for SentTimestamp, ApproximateReceiveCount, MessageGroupId and SequenceNumber under both
// names of the parameter (MessageSystemAttributeNames, AttributeNames).
ApiCall encode_receive(std::string_view queue_url, int max_messages, int wait_seconds,
                       int visibility_timeout_seconds = 0);

struct Received {
    std::vector<Message> messages;
    // Deliveries that cannot be taken: MD5OfBody did not match, or MessageId, ReceiptHandle or Body is
    // missing. They are not ours to delete; they come back by themselves.
    std::vector<std::string> damaged; // for people: "message 5fea…: MD5OfBody does not match the body"
};

// An empty receive is `{}` or `{"Messages":[]}`. One message with invalid UTF-8 does not cost the others:
// it comes back with body_damaged. MD5OfBody is checked where MD5 is available, except for a damaged body.
// The error is of class transient when the answer is no JSON object of the expected shape.
Result<Received, ApiError> decode_receive(std::string_view body);

// DeleteMessageBatch: 1..10 receipt handles; the entry ids are their positions, "0".."9".
ApiCall encode_delete_batch(std::string_view queue_url, const std::vector<std::string_view>& receipt_handles);

// ChangeMessageVisibilityBatch: 1..10 receipt handles, timeout 0..43200 s for all of them.
ApiCall encode_change_visibility_batch(std::string_view queue_url,
                                       const std::vector<std::string_view>& receipt_handles,
                                       int visibility_timeout_seconds);

struct FailedEntry {
    int position; // in the request
    ApiError error;
};

// The `Failed` entries of a batch answer; every other position succeeded. An entry id that was not sent makes
// the whole answer an error of class transient. An entry's http_status is 200, that of the answer.
Result<std::vector<FailedEntry>, ApiError> decode_batch(std::string_view body, int entries);

// GetQueueAttributes for All: a standard queue refuses the whole request when FifoQueue is asked for by name
// ("Unknown Attribute FifoQueue"). Read are VisibilityTimeout, MessageRetentionPeriod, RedrivePolicy,
// ApproximateNumberOfMessages and FifoQueue.
ApiCall encode_get_queue_attributes(std::string_view queue_url);

struct QueueAttributes {
    std::optional<int> visibility_timeout_seconds;
    std::optional<int> retention_seconds;
    std::optional<std::int64_t> approximate_messages;
    bool fifo = false;
    std::optional<int> max_receive_count; // of the RedrivePolicy
};

Result<QueueAttributes, ApiError> decode_queue_attributes(std::string_view body);

} // namespace sqs_ingest
