// JSON Pointers (RFC 6901): how a mapping names a field of a body.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sqs_ingest {

// The decoded reference tokens of a pointer such as "/user/id" or "/a~1b". Empty for text that is none, and
// for "", which is a pointer to the whole document and names no field.
std::optional<std::vector<std::string>> parse_json_pointer(std::string_view pointer);

// The value that the tokens lead to; nullptr when it is not there.
const nlohmann::json* find(const nlohmann::json& document, const std::vector<std::string>& tokens);

} // namespace sqs_ingest
