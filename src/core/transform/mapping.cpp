#include "core/transform/mapping.h"

#include "core/transform/body.h"
#include "core/transform/json_pointer.h"

#include <algorithm>
#include <utility>

namespace sqs_ingest {

namespace {

using nlohmann::json;

constexpr std::string_view kSentAt = "@sent_at";
constexpr std::string_view kVersion = "version";

bool has_nul(const std::string& text) {
    return text.find('\0') != std::string::npos;
}

Result<Source, std::string> parse_source(const json& value) {
    if (!value.is_string())
        return std::string("\"from\" must be a JSON Pointer, or an array of them");
    const auto& text = value.get_ref<const std::string&>();
    if (text == kSentAt)
        return Source(SentAt{});
    auto tokens = parse_json_pointer(text);
    if (!tokens || has_nul(text))
        return "\"from\" must be a JSON Pointer like \"/user_id\", or \"@sent_at\": not " + json(text).dump();
    return Source(BodyField{text, std::move(*tokens)});
}

Result<std::vector<Source>, std::string> parse_sources(const json& value) {
    const json list = value.is_array() ? value : json::array({value});
    if (list.empty())
        return std::string("\"from\" must name at least one source");
    std::vector<Source> sources;
    for (const auto& item : list) {
        auto source = parse_source(item);
        if (!source)
            return std::move(source).error();
        sources.push_back(std::move(source).value());
    }
    return sources;
}

std::optional<Step> step_named(std::string_view name) {
    if (name == "ip")
        return CanonicalIp{};
    if (name == "date")
        return IsoDate{};
    if (name == "mask")
        return Mask{};
    if (name == kVersion)
        return VersionNumber{};
    if (!name.starts_with(kVersion) || name[kVersion.size()] != ':')
        return std::nullopt;
    const auto kind = parse_version_kind(name.substr(kVersion.size() + 1));
    if (!kind)
        return std::nullopt;
    return VersionNumber{*kind};
}

Result<std::vector<Step>, std::string> parse_steps(const json& value) {
    if (!value.is_array())
        return std::string("\"steps\" must be an array");
    std::vector<Step> steps;
    for (const auto& item : value) {
        const auto step = item.is_string() ? step_named(item.get_ref<const std::string&>()) : std::nullopt;
        if (!step)
            return "unknown step " + item.dump() +
                   "; there are \"ip\", \"version\", \"version:digits\", \"version:major\", "
                   "\"version:ordinal\", "
                   "\"date\" and \"mask\"";
        if (!steps.empty() && std::holds_alternative<Mask>(steps.back()))
            return std::string("\"mask\" must be the last step: nothing can be read out of a token");
        steps.push_back(*step);
    }
    return steps;
}

// One entry of the array but its name. The error does not name the column; the caller does.
Result<ColumnRule, std::string> parse_rule(const json& entry) {
    ColumnRule rule;
    for (const auto& [key, value] : entry.items()) {
        if (key == "from") {
            auto sources = parse_sources(value);
            if (!sources)
                return std::move(sources).error();
            rule.sources = std::move(sources).value();
        } else if (key == "steps") {
            auto steps = parse_steps(value);
            if (!steps)
                return std::move(steps).error();
            rule.steps = std::move(steps).value();
        } else if (key == "required") {
            if (!value.is_boolean())
                return std::string("\"required\" must be true or false");
            rule.required = value.get<bool>();
        } else if (key != "column") {
            return "unknown key " + json(key).dump();
        }
    }
    if (rule.sources.empty())
        return std::string("\"from\" is missing");
    return rule;
}

std::optional<std::string> column_name(const json& entry) {
    if (!entry.is_object() || !entry.contains("column") || !entry["column"].is_string())
        return std::nullopt;
    auto name = entry["column"].get<std::string>();
    if (name.empty() || has_nul(name))
        return std::nullopt;
    return name;
}

bool has_column(const Mapping& mapping, const std::string& name) {
    return std::any_of(mapping.columns.begin(), mapping.columns.end(),
                       [&](const ColumnRule& rule) { return rule.column == name; });
}

} // namespace

bool ColumnRule::masked() const {
    return std::any_of(steps.begin(), steps.end(),
                       [](const Step& step) { return std::holds_alternative<Mask>(step); });
}

Result<Mapping, std::string> parse_mapping(std::string_view text) {
    const auto parsed = parse_json(text);
    if (!parsed)
        return std::string("a mapping must be JSON: ") + to_string(parsed.error().reason);
    const json& entries = parsed.value();
    if (!entries.is_array() || entries.empty())
        return std::string("a mapping must be a JSON array with an object for each column");

    Mapping mapping;
    for (const auto& entry : entries) {
        const auto name = column_name(entry);
        const auto number = std::to_string(mapping.columns.size() + 1);
        if (!name)
            return "entry " + number + " must be an object whose \"column\" is the name of a column";
        if (has_column(mapping, *name))
            return "column \"" + *name + "\" is mapped twice";
        auto rule = parse_rule(entry);
        if (!rule)
            return "column \"" + *name + "\": " + rule.error();
        rule.value().column = *name;
        mapping.columns.push_back(std::move(rule).value());
    }
    return mapping;
}

std::string_view user_logins_mapping() {
    return R"([
  {"column": "user_id", "from": "/user_id", "required": true},
  {"column": "device_type", "from": "/device_type"},
  {"column": "masked_ip", "from": "/ip", "steps": ["ip", "mask"], "required": true},
  {"column": "masked_device_id", "from": "/device_id", "steps": ["mask"], "required": true},
  {"column": "locale", "from": "/locale"},
  {"column": "app_version", "from": "/app_version", "steps": ["version"]},
  {"column": "create_date", "from": ["/create_date", "@sent_at"], "steps": ["date"]}
])";
}

} // namespace sqs_ingest
