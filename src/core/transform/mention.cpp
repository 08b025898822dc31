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
    const ColumnRule& rule;
    std::string_view id;
    std::vector<std::string> keys; // skeletons of the mapped ones

    bool matches(std::string_view key, std::string_view value) const {
        if (value != id && normalised(rule, std::string(value)) != id)
            return false;
        return id.size() >= kTellingLength ||
               std::find(keys.begin(), keys.end(), skeleton(key)) != keys.end();
    }
};

Wanted wanted(const ColumnRule& rule, std::string_view id) {
    Wanted result{rule, id, {}};
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

// What the mapping makes of a source, as text; empty where that is nothing, or nothing that a row could have.
std::string mapped_text(const Source& source, const json& body, const json* element, const Message& message) {
    const json* found = nullptr;
    if (const auto* field = std::get_if<BodyField>(&source))
        found = find(body, field->tokens);
    else if (const auto* each = std::get_if<ElementField>(&source); each && element)
        found = find(*element, each->tokens);
    else if (const auto* named = std::get_if<Attribute>(&source)) {
        const auto attribute = message.attributes.find(named->name);
        return attribute != message.attributes.end() && !attribute->second.damaged ? attribute->second.value
                                                                                   : "";
    } else if (const auto* field = std::get_if<MessageField>(&source);
               field && *field == MessageField::group_id)
        return message.group_id;
    return found ? scalar(*found).value_or("") : "";
}

// Whom a row is about, by the first of the mapped fields that says so; empty: none does.
std::string mapped_id(const ColumnRule& rule, const json& body, const json* element, const Message& message) {
    for (const auto& source : rule.sources)
        if (auto id = normalised(rule, mapped_text(source, body, element, message)); !id.empty())
            return id;
    return {};
}

// What each row is made of besides the body: as in transform(), an element, or nothing.
std::vector<json*> elements_of(json& body, const Mapping& mapping) {
    std::vector<json*> elements;
    if (const json* array = mapping.each ? find(body, mapping.each->tokens) : nullptr;
        array && array->is_array())
        for (auto& element : const_cast<json&>(*array))
            elements.push_back(&element);
    if (elements.empty())
        elements.push_back(nullptr);
    return elements;
}

} // namespace

bool mentions(const Transform& transform, const Message& message, const ColumnRule& rule, std::string_view id,
              const SameAsId& same) {
    const auto what = wanted(rule, id);
    const auto is_the_one = [&](const std::string& found) {
        return !found.empty() && (found == id || (same && same(found)));
    };
    auto parsed = parse_payload(transform.envelope, transform.encoding, message.body);
    if (!parsed) {
        const auto payload = payload_text(transform.envelope, transform.encoding, message.body);
        const std::string& text = payload ? *payload : message.body;
        parsed = parse_json(text);
        if (!parsed)
            return is_the_one(mapped_id(rule, {}, nullptr, message)) || found_in_text(text, what);
    }
    json body = std::move(parsed).value();
    const auto elements = elements_of(body, transform.mapping);
    std::vector<json*> decided;
    for (json* element : elements) {
        const auto found = mapped_id(rule, body, element, message);
        if (is_the_one(found))
            return true;
        if (!found.empty())
            decided.push_back(element);
    }
    if (decided.size() == elements.size())
        return false;
    for (json* element : decided)
        *element = nullptr;
    return found_in(body, {}, what);
}

} // namespace sqs_ingest
