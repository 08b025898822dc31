// Application versions as integers.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace sqs_ingest {

enum class VersionKind {
    digits,  // the dots removed: 2.3.0 -> 230, 0.96 -> 96
    major,   // the first part: 2.3.0 -> 2
    ordinal, // major*10^6 + minor*10^3 + patch: sorts and never collides; minor and patch at most 999, at
             // most 3 parts
};

std::optional<VersionKind> parse_version_kind(std::string_view name);
const char* to_string(VersionKind kind);

// `text`: one or more groups of ASCII digits separated by single dots, nothing else. Empty when it is not, or
// when the result does not fit a 32-bit integer.
std::optional<std::int32_t> version_number(std::string_view text, VersionKind kind);

} // namespace sqs_ingest
