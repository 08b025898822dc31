// What a dead letter keeps of a message beside its body, so that a redrive finds it again: its attributes,
// MessageGroupId and SequenceNumber. Plain text that may be personal: it is sealed like the body.
#pragma once

#include "core/sqs/message.h"

#include <string>
#include <string_view>

namespace sqs_ingest {

// JSON in ASCII; empty when the message has none of them.
std::string encode_metadata(const Message& message);

// Takes them into the message. What is no such JSON leaves it as it is.
void decode_metadata(std::string_view text, Message& message);

} // namespace sqs_ingest
