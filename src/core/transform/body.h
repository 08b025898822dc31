// A message body, parsed with suspicion.
#pragma once

#include "core/result.h"
#include "core/transform/rejection.h"

#include <nlohmann/json.hpp>

#include <string_view>

namespace sqs_ingest {

inline constexpr int kMaxNesting = 64;
// More than a message of 1 MiB has room for; an unpacked payload would take ten times its size in memory.
inline constexpr std::size_t kMaxValues = 1'000'000;

// Parses strictly: UTF-8 only, no duplicate keys in any object, at most kMaxNesting levels, numbers that fit
// a double or a 64-bit integer. The top must be an object. Never throws on data, never recurses with the
// input's depth. Rejections: not_json, not_object, invalid_utf8, too_deep, duplicate_key (field: empty, since
// a key can be personal data too), number_out_of_range, too_large (more than kMaxValues values).
Result<nlohmann::json, Rejection> parse_body(std::string_view body);

// The same for any JSON text: every rejection but not_object.
Result<nlohmann::json, Rejection> parse_json(std::string_view text);

// What parse_json() makes of a number with more than 15 significant digits, which a double does not keep: a
// binary value, which JSON itself has not, with the number's spelling. The functions below know it;
// is_number() of nlohmann's does not.
bool is_number(const nlohmann::json& value);

// A scalar as text: strings as they are, numbers and booleans by their JSON spelling ("2.3", "true"), with
// every digit. Of anything else its JSON text.
std::string scalar_text(const nlohmann::json& value);

// Any value as JSON text, numbers with every digit. What is no UTF-8 is replaced by U+FFFD.
enum class Escape { as_needed, all_but_ascii };
std::string json_text(const nlohmann::json& value, Escape escape = Escape::as_needed);

} // namespace sqs_ingest
