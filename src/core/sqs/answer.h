// A server's JSON answer as a tree, even when a part of it is damaged.
#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <string_view>

namespace sqs_ingest {

struct Answer {
    nlohmann::json json; // always an object
    // The text held bytes that are no UTF-8, or lone surrogates: each was replaced by U+FFFD.
    bool repaired = false;
};

// Empty when `text` is no JSON object even after repair. Never throws on data, never recurses with its depth.
std::optional<Answer> parse_answer(std::string_view text);

} // namespace sqs_ingest
