#include "core/transform/metadata.h"

#include "core/base64url.h"

#include <nlohmann/json.hpp>

namespace sqs_ingest {

using nlohmann::json;

std::string encode_metadata(const Message& message) {
    json metadata = json::object();
    if (!message.group_id.empty())
        metadata["group_id"] = message.group_id;
    if (!message.sequence_number.empty())
        metadata["sequence_number"] = message.sequence_number;
    for (const auto& [name, attribute] : message.attributes) // in base64: a Binary is any bytes
        metadata["attributes"][name] = {attribute.data_type, base64url(attribute.value)};
    if (metadata.empty())
        return {};
    return metadata.dump(-1, ' ', true, json::error_handler_t::replace);
}

void decode_metadata(std::string_view text, Message& message) {
    const json metadata = json::parse(text, nullptr, false);
    if (!metadata.is_object())
        return;
    const auto text_of = [&](const char* key) {
        const auto found = metadata.find(key);
        return found != metadata.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    message.group_id = text_of("group_id");
    message.sequence_number = text_of("sequence_number");
    const auto attributes = metadata.find("attributes");
    if (attributes == metadata.end())
        return;
    for (const auto& [name, pair] : attributes->items()) {
        if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
            continue;
        if (auto value = from_base64url(pair[1].get_ref<const std::string&>()))
            message.attributes[name] = {pair[0].get<std::string>(), std::move(*value)};
    }
}

} // namespace sqs_ingest
