// A server's JSON answer as a tree, even when a part of it is damaged.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sqs_ingest {

struct Answer {
    nlohmann::json json; // always an object
    // The text held bytes that are no UTF-8, or lone surrogates: each was replaced by U+FFFD.
    bool repaired = false;
};

// Empty when `text` is no JSON object even after repair. Never throws on data, never recurses with its depth.
std::optional<Answer> parse_answer(std::string_view text);

// The members that are texts, numbers or booleans, as texts; others are left out. Of anything but an object:
// none. AWS writes numbers among attributes as strings; some servers write numbers.
std::vector<std::pair<std::string, std::string>> named_texts(const nlohmann::json& object);

} // namespace sqs_ingest
