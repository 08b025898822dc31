// What a dead letter may show of a body: its shape. It is written for bodies that went wrong, so it takes
// anything.
#include "core/transform/body.h"
#include "core/transform/json_pointer.h"
#include "core/transform/transform.h"
#include "core/utf8.h"

#include <exception>
#include <set>

namespace sqs_ingest {

namespace {

using nlohmann::json;

// hmac whenever there is a key: a dead letter must not hold a guessable hash only because the table does.
std::optional<std::string> token(const Transform& transform, const Keyring* keyring,
                                 const std::string& value) {
    const MaskMethod method = keyring != nullptr ? MaskMethod{MaskMethod::Kind::hmac} : transform.mask_method;
    try {
        return mask(method, keyring, value);
    } catch (const std::exception&) { // no key, or no MD5 here: the shape is worth having without the token
        return std::nullopt;
    }
}

json shape(const Transform& transform, const Keyring* keyring, const json& value) {
    json shape = {{"type", is_number(value) ? "number" : value.type_name()}};
    if (!value.is_string())
        return shape;
    const auto& text = value.get_ref<const std::string&>();
    shape["length"] = utf8_length(text);
    if (auto masked = token(transform, keyring, text))
        shape["token"] = std::move(*masked);
    return shape;
}

json fields(const Transform& transform, const Keyring* keyring, const json& body) {
    json fields = json::object();
    for (const auto& rule : transform.mapping.columns) {
        for (const auto& source : rule.sources) {
            const auto* field = std::get_if<BodyField>(&source);
            const json* value = field != nullptr ? find(body, field->tokens) : nullptr;
            if (value != nullptr)
                fields[field->pointer] = shape(transform, keyring, *value);
        }
    }
    return fields;
}

// How many top-level keys no field of the mapping lies under.
std::size_t other_keys(const Mapping& mapping, const json& body) {
    std::set<std::string> mapped;
    for (const auto& rule : mapping.columns) {
        for (const auto& source : rule.sources) {
            if (const auto* field = std::get_if<BodyField>(&source);
                field && body.contains(field->tokens.front()))
                mapped.insert(field->tokens.front());
        }
    }
    return body.size() - mapped.size();
}

} // namespace

json redact(const Transform& transform, const Keyring* keyring, const Message& message) {
    json redacted = {{"bytes", message.body.size()}};
    if (message.body.size() <= kRedactBound) {
        if (const auto body = parse_payload(transform.envelope, transform.encoding, message.body)) {
            redacted["fields"] = fields(transform, keyring, body.value());
            redacted["other_keys"] = other_keys(transform.mapping, body.value());
        }
    }
    return redacted;
}

} // namespace sqs_ingest
