// Makes any bytes well-formed UTF-8: for texts from a network that are shown to people or parsed strictly.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sqs_ingest {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD"; // U+FFFD

// A copy of `text` in which each byte that is no part of a well-formed sequence (RFC 3629) became U+FFFD.
std::string replace_ill_formed_utf8(std::string_view text);

bool is_well_formed_utf8(std::string_view text);

// Cuts well-formed UTF-8 down to at most `max_bytes`, between two characters.
void truncate_utf8(std::string& text, std::size_t max_bytes);

} // namespace sqs_ingest
