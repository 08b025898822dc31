#include "core/transform/mention.h"

#include "core/transform/body.h"
#include "core/transform/json_pointer.h"

#include <algorithm>
#include <optional>
#include <string>

namespace sqs_ingest {

namespace {

using nlohmann::json;

constexpr std::size_t kTellingLength = 8;

bool is_word(char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x80 || (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
           (byte >= 'A' && byte <= 'Z') || std::string_view("-_.@+").find(c) != std::string_view::npos;
}

// Its letters and digits, lower-case.
std::string skeleton(std::string_view key) {
    std::string letters;
    for (const char c : key) {
        if (c >= 'A' && c <= 'Z')
            letters += static_cast<char>(c - 'A' + 'a');
        else if (is_word(c) && std::string_view("-_.@+").find(c) == std::string_view::npos)
            letters += c;
    }
    return letters;
}

// What is looked for.
struct Wanted {
    std::string_view id;
    std::vector<std::string> keys; // skeletons of the mapped ones

    bool matches(std::string_view key, std::string_view value) const {
        if (value != id)
            return false;
        return id.size() >= kTellingLength ||
               std::find(keys.begin(), keys.end(), skeleton(key)) != keys.end();
    }
};

Wanted wanted(const ColumnRule& rule, std::string_view id) {
    Wanted result{id, {}};
    for (const auto& source : rule.sources)
        if (const auto* field = std::get_if<BodyField>(&source))
            result.keys.push_back(skeleton(field->tokens.back()));
    return result;
}

// A scalar as text; empty for what is none.
std::optional<std::string> scalar(const json& value) {
    if (value.is_string())
        return value.get<std::string>();
    if (value.is_number())
        return value.dump();
    return std::nullopt;
}

// Not deeper than the parser goes.
bool found_in(const json& value, std::string_view key, const Wanted& wanted) {
    if (const auto text = scalar(value))
        return wanted.matches(key, *text);
    if (value.is_array())
        return std::any_of(value.begin(), value.end(),
                           [&](const json& element) { return found_in(element, key, wanted); });
    if (value.is_object())
        for (const auto& [name, member] : value.items())
            if (wanted.matches({}, name) || found_in(member, name, wanted))
                return true;
    return false;
}

// The text of a JSON string literal, escapes resolved as far as they can be.
std::string unescaped(std::string_view literal) {
    const auto parsed = json::parse('"' + std::string(literal) + '"', nullptr, false);
    return parsed.is_string() ? parsed.get<std::string>() : std::string(literal);
}

// Somewhere, between characters that belong to no word.
bool stands_alone_in(std::string_view text, std::string_view id) {
    for (auto at = text.find(id); at != std::string_view::npos; at = text.find(id, at + 1)) {
        const auto end = at + id.size();
        if ((at == 0 || !is_word(text[at - 1])) && (end == text.size() || !is_word(text[end])))
            return true;
    }
    return false;
}

// Words and string literals, one after the other; what stands before a colon is the key of what follows.
bool found_in_text(std::string_view text, const Wanted& wanted) {
    std::string key, last;
    for (std::size_t at = 0; at < text.size();) {
        if (text[at] == ':') {
            key = last;
            ++at;
        } else if (text[at] == '"') {
            std::size_t end = at + 1;
            while (end < text.size() && text[end] != '"')
                end += text[end] == '\\' ? 2 : 1;
            end = std::min(end, text.size());
            last = unescaped(text.substr(at + 1, end - at - 1));
            if (wanted.matches(key, last))
                return true;
            at = end + 1;
        } else if (is_word(text[at])) {
            std::size_t end = at;
            while (end < text.size() && is_word(text[end]))
                ++end;
            last = text.substr(at, end - at);
            if (wanted.matches(key, last))
                return true;
            at = end;
        } else {
            if (text[at] == ',' || text[at] == '{')
                key.clear();
            ++at;
        }
    }
    return wanted.id.size() >= kTellingLength && stands_alone_in(text, wanted.id);
}

} // namespace

bool mentions(std::string_view body, const ColumnRule& rule, std::string_view id) {
    const auto what = wanted(rule, id);
    const auto parsed = parse_json(body);
    if (!parsed)
        return found_in_text(body, what);
    if (parsed.value().is_object())
        for (const auto& source : rule.sources)
            if (const auto* field = std::get_if<BodyField>(&source))
                if (const json* value = find(parsed.value(), field->tokens))
                    if (const auto text = scalar(*value))
                        return *text == id;
    return found_in(parsed.value(), {}, what);
}

} // namespace sqs_ingest
