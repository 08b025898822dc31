// What is well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF), and how any bytes
// become it: for texts from a network that are shown to people or parsed strictly.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sqs_ingest {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD"; // U+FFFD

// A copy of `text` in which each byte that is no part of a well-formed sequence became U+FFFD.
std::string replace_ill_formed_utf8(std::string_view text);

bool is_valid_utf8(std::string_view text);

// Code points in well-formed UTF-8.
std::size_t utf8_length(std::string_view text);

// Cuts well-formed UTF-8 down to at most `max_bytes`, between two characters.
void truncate_utf8(std::string& text, std::size_t max_bytes);

} // namespace sqs_ingest
