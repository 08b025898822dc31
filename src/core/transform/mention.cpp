#include "core/transform/mention.h"

#include "core/text.h"
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
        if (is_word(c) && std::string_view("-_.@+").find(c) == std::string_view::npos)
            letters += ascii_lower(c);
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
        else if (const auto* each = std::get_if<ElementField>(&source); each && !each->tokens.empty())
            result.keys.push_back(skeleton(each->tokens.back()));
    return result;
}

// A scalar as text; empty for what is none.
std::optional<std::string> scalar(const json& value) {
    if (value.is_string())
        return value.get<std::string>();
    if (is_number(value))
        return scalar_text(value);
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

// The values of the mapped fields that are there: of each element, where there are several.
std::vector<std::string> mapped_values(const ColumnRule& rule, const Mapping& mapping, const json& body,
                                       const Message& message) {
    std::vector<std::string> values;
    const auto add = [&](const json* value) {
        if (const auto text = value ? scalar(*value) : std::nullopt)
            values.push_back(*text);
    };
    const json* elements = mapping.each ? find(body, mapping.each->tokens) : nullptr;
    for (const auto& source : rule.sources) {
        if (const auto* field = std::get_if<BodyField>(&source))
            add(find(body, field->tokens));
        else if (const auto* attribute = std::get_if<Attribute>(&source)) {
            if (const auto found = message.attributes.find(attribute->name);
                found != message.attributes.end())
                values.push_back(found->second.value);
        } else if (std::holds_alternative<MessageField>(source) &&
                   std::get<MessageField>(source) == MessageField::group_id) {
            if (!message.group_id.empty())
                values.push_back(message.group_id);
        } else if (const auto* each = std::get_if<ElementField>(&source);
                   each && elements && elements->is_array()) {
            for (const auto& element : *elements)
                add(find(element, each->tokens));
        }
        if (!values.empty())
            return values;
    }
    return values;
}

} // namespace

bool mentions(const Transform& transform, const Message& message, const ColumnRule& rule, std::string_view id,
              const SameAsId& same) {
    const auto what = wanted(rule, id);
    auto parsed = parse_payload(transform.envelope, transform.encoding, message.body);
    if (!parsed) {
        const auto payload = payload_text(transform.envelope, transform.encoding, message.body);
        const std::string& text = payload ? *payload : message.body;
        parsed = parse_json(text);
        if (!parsed)
            return found_in_text(text, what);
    }
    bool decided = false;
    for (const auto& value : mapped_values(rule, transform.mapping, parsed.value(), message)) {
        if (const auto text = normalised(rule, value); text == id || (same && same(text)))
            return true;
        decided = true;
    }
    return !decided && found_in(parsed.value(), {}, what);
}

} // namespace sqs_ingest
