// The Query protocol of SQS: form-encoded requests, XML answers. What each function does is said in
// protocol.h. Requests go to the path of the queue URL, and name it as a parameter too: servers look at one
// or the other.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-xml.html
// https://smithy.io/2.0/aws/protocols/aws-query-protocol.html
#pragma once

#include "core/sqs/protocol.h"

namespace sqs_ingest::query_protocol {

ApiCall encode(std::string_view queue_url, const Request& request);
Result<Received, ApiError> decode_receive(std::string_view body);
Result<std::vector<FailedEntry>, ApiError> decode_batch(std::string_view body, int entries);
Result<QueueAttributes, ApiError> decode_queue_attributes(std::string_view body);

} // namespace sqs_ingest::query_protocol
