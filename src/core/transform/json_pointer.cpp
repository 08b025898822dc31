#include "core/transform/json_pointer.h"

#include <algorithm>
#include <charconv>

namespace sqs_ingest {

namespace {

using nlohmann::json;

// "~1" is a slash and "~0" a tilde; any other "~" is an error.
std::optional<std::string> decode(std::string_view token) {
    std::string decoded;
    for (std::size_t i = 0; i < token.size(); ++i) {
        if (token[i] != '~') {
            decoded += token[i];
            continue;
        }
        if (++i == token.size() || (token[i] != '0' && token[i] != '1'))
            return std::nullopt;
        decoded += token[i] == '0' ? '~' : '/';
    }
    return decoded;
}

const json* member(const json& object, const std::string& key) {
    const auto found = object.find(key);
    return found == object.end() ? nullptr : &*found;
}

// An index has no leading zeros (section 4); "-", the element after the last one, never exists.
const json* element(const json& array, const std::string& token) {
    std::size_t index = 0;
    const char* end = token.data() + token.size();
    const auto [stop, error] = std::from_chars(token.data(), end, index);
    const bool leading_zero = token.size() > 1 && token[0] == '0';
    if (error != std::errc() || stop != end || leading_zero || index >= array.size())
        return nullptr;
    return &array[index];
}

} // namespace

std::optional<std::vector<std::string>> parse_json_pointer(std::string_view pointer) {
    std::vector<std::string> tokens;
    while (!pointer.empty()) {
        if (pointer[0] != '/')
            return std::nullopt;
        pointer.remove_prefix(1);
        const auto end = std::min(pointer.find('/'), pointer.size());
        auto token = decode(pointer.substr(0, end));
        if (!token)
            return std::nullopt;
        tokens.push_back(std::move(*token));
        pointer.remove_prefix(end);
    }
    if (tokens.empty())
        return std::nullopt;
    return tokens;
}

const json* find(const json& document, const std::vector<std::string>& tokens) {
    const json* at = &document;
    for (const auto& token : tokens) {
        at = at->is_object() ? member(*at, token) : at->is_array() ? element(*at, token) : nullptr;
        if (at == nullptr)
            return nullptr;
    }
    return at;
}

} // namespace sqs_ingest
