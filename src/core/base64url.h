// base64url without padding (RFC 4648, section 5), and reading of base64 in other spellings (section 4).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

std::string base64url(std::string_view bytes);

// The bytes. Empty for anything that base64url() would not have written: another character, padding, a length
// that no number of bytes has, unused bits that are not zero.
std::optional<std::string> from_base64url(std::string_view text);

// The bytes of plain base64 with its padding. Empty for anything else.
std::optional<std::string> from_base64(std::string_view text);

// The bytes of base64 as people write it: either alphabet, not both; with or without padding; spaces, tabs
// and line ends anywhere; unused bits are zero. Empty for anything else.
std::optional<std::string> from_any_base64(std::string_view text);

} // namespace sqs_ingest
