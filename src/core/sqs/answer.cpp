// An answer carries up to ten messages in one JSON text, and a strict parser refuses the whole text for one
// bad byte. So a refused text is repaired and parsed once more; which message was damaged is the decoder's to
// find out.
#include "core/sqs/answer.h"

#include "core/utf8.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>

namespace sqs_ingest {

namespace {

constexpr std::size_t kUnicodeEscape = 6; // \uXXXX

// The UTF-16 code unit of the \uXXXX that `text` begins with.
std::optional<unsigned> leading_code_unit(std::string_view text) {
    if (text.size() < kUnicodeEscape || !text.starts_with("\\u"))
        return std::nullopt;
    unsigned unit = 0;
    const char* end = text.data() + kUnicodeEscape;
    const auto [parsed_to, error] = std::from_chars(text.data() + 2, end, unit, 16);
    if (error != std::errc{} || parsed_to != end)
        return std::nullopt;
    return unit;
}

bool is_high_surrogate(unsigned unit) {
    return unit >= 0xD800 && unit <= 0xDBFF;
}

bool is_low_surrogate(unsigned unit) {
    return unit >= 0xDC00 && unit <= 0xDFFF;
}

struct Escape {
    std::size_t length; // of the escape, or of the pair of escapes that belong together
    bool lone_surrogate;
};

// Of the escape that `text` begins with. Two characters at least, so that an escaped backslash never starts
// another.
Escape leading_escape(std::string_view text) {
    const std::optional<unsigned> unit = leading_code_unit(text);
    if (!unit)
        return {std::min<std::size_t>(2, text.size()), false};
    if (is_low_surrogate(*unit))
        return {kUnicodeEscape, true};
    if (!is_high_surrogate(*unit))
        return {kUnicodeEscape, false};
    const std::optional<unsigned> next = leading_code_unit(text.substr(kUnicodeEscape));
    if (next && is_low_surrogate(*next))
        return {2 * kUnicodeEscape, false};
    return {kUnicodeEscape, true};
}

std::string replace_lone_surrogates(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const std::size_t plain = std::min(text.find('\\'), text.size());
        out += text.substr(0, plain);
        text.remove_prefix(plain);
        if (text.empty())
            break;
        const Escape escape = leading_escape(text);
        out += escape.lone_surrogate ? std::string_view("\\ufffd") : text.substr(0, escape.length);
        text.remove_prefix(escape.length);
    }
    return out;
}

nlohmann::json parse(std::string_view text) {
    return nlohmann::json::parse(text, nullptr, /* allow_exceptions = */ false);
}

} // namespace

std::optional<Answer> parse_answer(std::string_view text) {
    Answer answer{parse(text)};
    if (answer.json.is_discarded()) {
        const std::string repaired = replace_lone_surrogates(replace_ill_formed_utf8(text));
        if (repaired == text)
            return std::nullopt; // refused for its structure
        answer = {parse(repaired), true};
    }
    if (!answer.json.is_object())
        return std::nullopt;
    return answer;
}

std::vector<std::pair<std::string, std::string>> named_texts(const nlohmann::json& object) {
    std::vector<std::pair<std::string, std::string>> texts;
    if (!object.is_object())
        return texts;
    for (const auto& [name, value] : object.items()) {
        if (value.is_string())
            texts.emplace_back(name, value.get_ref<const std::string&>());
        else if (value.is_number() || value.is_boolean())
            texts.emplace_back(name, value.dump());
    }
    return texts;
}

} // namespace sqs_ingest
