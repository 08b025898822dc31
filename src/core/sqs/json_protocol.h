// The AWS JSON 1.0 protocol of SQS: requests to bytes, answers to values. What each function does is said in
// protocol.h. An empty receive is `{}` or `{"Messages":[]}`.
// https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html
#pragma once

#include "core/sqs/protocol.h"

namespace sqs_ingest::json_protocol {

ApiCall encode(std::string_view queue_url, const Request& request);
Result<Received, ApiError> decode_receive(std::string_view body);
Result<std::vector<FailedEntry>, ApiError> decode_batch(std::string_view body, int entries);
Result<QueueAttributes, ApiError> decode_queue_attributes(std::string_view body);

} // namespace sqs_ingest::json_protocol
