// What a dead letter keeps of a message beside its body, so that a redrive finds it again: its attributes,
// MessageGroupId and SequenceNumber, and what of it was damaged on its way. Plain text that may be personal:
// it is sealed like the body.
#pragma once

#include "core/sqs/message.h"
#include "core/transform/rejection.h"

#include <string>
#include <string_view>

namespace sqs_ingest {

// JSON in ASCII; empty when the message has none of them. `reason`: why it is a dead letter; for
// invalid_utf8, whether the body was damaged is always said.
std::string encode_metadata(const Message& message, Reason reason);

// Takes them into the message. What is not said stays as it is.
void decode_metadata(std::string_view text, Message& message);

} // namespace sqs_ingest
