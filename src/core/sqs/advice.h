// What a person can do about an SQS error, in a sentence.
#pragma once

#include "core/sqs/error.h"

#include <string>

namespace sqs_ingest {

// A hint that names the settings to look at; never empty.
std::string advice(const ApiError& error);

} // namespace sqs_ingest
