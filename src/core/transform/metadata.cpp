#include "core/transform/metadata.h"

#include "core/base64url.h"

#include <nlohmann/json.hpp>

namespace sqs_ingest {

using nlohmann::json;

std::string encode_metadata(const Message& message, Reason reason) {
    json metadata = json::object();
    if (message.body_damaged || reason == Reason::invalid_utf8)
        metadata["body_damaged"] = message.body_damaged;
    if (!message.group_id.empty())
        metadata["group_id"] = message.group_id;
    if (!message.sequence_number.empty())
        metadata["sequence_number"] = message.sequence_number;
    for (const auto& [name, attribute] : message.attributes) // in base64: a Binary is any bytes
        metadata["attributes"][name] = {attribute.data_type, base64url(attribute.value), attribute.damaged};
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
    if (const auto damaged = metadata.find("body_damaged"); damaged != metadata.end())
        message.body_damaged = *damaged == true;
    message.group_id = text_of("group_id");
    message.sequence_number = text_of("sequence_number");
    const auto attributes = metadata.find("attributes");
    if (attributes == metadata.end())
        return;
    for (const auto& [name, attribute] : attributes->items()) {
        if (!attribute.is_array() || attribute.size() != 3 || !attribute[0].is_string() ||
            !attribute[1].is_string())
            continue;
        if (auto value = from_base64url(attribute[1].get_ref<const std::string&>()))
            message.attributes[name] = {attribute[0].get<std::string>(), std::move(*value),
                                        attribute[2] == true};
    }
}

} // namespace sqs_ingest
