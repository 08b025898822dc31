// A token that somebody else writes into a file, and replaces: Kubernetes's projected tokens.
#pragma once

#include "core/result.h"

#include <string>

namespace sqs_ingest {

struct TokenFileError {
    std::string reason;
};

// The file's text without the white space around it. The error says what is wrong with the file: "No such
// file or directory", "is empty", "holds something that is no token".
Result<std::string, TokenFileError> read_token_file(const std::string& path);

} // namespace sqs_ingest
