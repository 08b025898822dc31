#include "core/transform/mapping.h"

#include "core/overloaded.h"
#include "core/transform/body.h"
#include "core/transform/json_pointer.h"

#include <algorithm>
#include <set>
#include <utility>

namespace sqs_ingest {

namespace {

using nlohmann::json;

constexpr std::string_view kVersion = "version";
constexpr std::string_view kMask = "mask";
constexpr std::string_view kEach = "@each";
constexpr std::string_view kAttribute = "@attribute:";

constexpr std::pair<std::string_view, MessageField> kMetadata[] = {
    {"@message_id", MessageField::message_id},
    {"@sent_at", MessageField::sent_at},
    {"@received_at", MessageField::received_at},
    {"@receive_count", MessageField::receive_count},
    {"@group_id", MessageField::group_id},
    {"@sequence_number", MessageField::sequence_number},
    {"@queue", MessageField::queue},
};

bool has_nul(std::string_view text) {
    return text.find('\0') != std::string_view::npos;
}

std::optional<BodyField> body_field(const std::string& pointer) {
    auto tokens = parse_json_pointer(pointer);
    if (!tokens || has_nul(pointer))
        return std::nullopt;
    return BodyField{pointer, std::move(*tokens)};
}

std::optional<Source> source_named(const std::string& text) {
    for (const auto& [name, metadata] : kMetadata)
        if (text == name)
            return metadata;
    if (text == "@body")
        return WholeBody{};
    if (text == "@index")
        return ElementIndex{};
    if (text == kEach)
        return ElementField{text, {}};
    if (text.starts_with("@each/")) {
        auto field = body_field(text.substr(kEach.size()));
        return field ? std::optional<Source>(ElementField{text, std::move(field->tokens)}) : std::nullopt;
    }
    if (text.starts_with(kAttribute) && text.size() > kAttribute.size() && !has_nul(text))
        return Attribute{text.substr(kAttribute.size())};
    auto field = body_field(text);
    return field ? std::optional<Source>(std::move(*field)) : std::nullopt;
}

Result<std::vector<Source>, std::string> parse_sources(const json& value) {
    const json list = value.is_array() ? value : json::array({value});
    if (list.empty())
        return std::string("\"from\" must name at least one source");
    std::vector<Source> sources;
    for (const auto& item : list) {
        auto source = item.is_string() ? source_named(item.get_ref<const std::string&>()) : std::nullopt;
        if (!source)
            return "\"from\" must be a JSON Pointer like \"/user_id\", \"@attribute:NAME\", \"@message_id\", "
                   "\"@sent_at\", \"@received_at\", \"@receive_count\", \"@group_id\", \"@sequence_number\", "
                   "\"@queue\", \"@body\", with each also \"@each\", \"@each/field\" and \"@index\", or an "
                   "array of those: not " +
                   item.dump();
        sources.push_back(std::move(*source));
    }
    return sources;
}

std::optional<Step> step_named(std::string_view name) {
    if (name == "ip")
        return CanonicalIp{};
    if (name == "date")
        return IsoDate{};
    if (name == "lower")
        return Lower{};
    if (name == "trim")
        return Trim{};
    if (name == "epoch_seconds" || name == "epoch_millis")
        return EpochTime{name == "epoch_millis"};
    if (name == kMask)
        return Mask{};
    if (name == kVersion)
        return VersionNumber{};
    const auto colon = name.find(':');
    if (colon == std::string_view::npos)
        return std::nullopt;
    const auto kind = name.substr(colon + 1);
    if (name.substr(0, colon) == kMask)
        if (const auto method = parse_mask_method(kind))
            return Mask{*method};
    if (name.substr(0, colon) == kVersion)
        if (const auto version = parse_version_kind(kind))
            return VersionNumber{*version};
    return std::nullopt;
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
                   "\"version:ordinal\", \"lower\", \"trim\", \"date\", \"epoch_seconds\", \"epoch_millis\", "
                   "\"mask\", and \"mask:\" with hmac, siv, sha256, sha256:N or md5";
        if (!steps.empty() && std::holds_alternative<Mask>(steps.back()))
            return std::string("\"mask\" must be the last step: nothing can be read out of a token");
        steps.push_back(*step);
    }
    return steps;
}

Result<std::vector<BodyField>, std::string> parse_parts(const json& value) {
    std::vector<BodyField> parts;
    if (!value.is_array())
        return std::string("\"mask_parts\" must be an array of JSON Pointers");
    for (const auto& item : value) {
        auto part = item.is_string() ? body_field(item.get_ref<const std::string&>()) : std::nullopt;
        if (!part)
            return "\"mask_parts\" must be an array of JSON Pointers like \"/ip\": not " + item.dump();
        parts.push_back(std::move(*part));
    }
    // What lies in another part is masked with it, and once.
    std::sort(parts.begin(), parts.end(),
              [](const BodyField& a, const BodyField& b) { return a.tokens < b.tokens; });
    const auto lies_in = [](const BodyField& outer, const BodyField& inner) {
        return outer.tokens.size() <= inner.tokens.size() &&
               std::equal(outer.tokens.begin(), outer.tokens.end(), inner.tokens.begin());
    };
    parts.erase(std::unique(parts.begin(), parts.end(), lies_in), parts.end());
    return parts;
}

// What may be said of a column, while it is being read.
struct Entry {
    ColumnRule rule;
    bool has_from = false, has_parts = false;
    std::optional<Constant> constant, fallback;
};

// One key of an entry; the error says what is wrong with its value.
std::optional<std::string> parse_key(const std::string& key, const json& value, Entry& entry) {
    const auto flag = [&](bool& target) -> std::optional<std::string> {
        if (!value.is_boolean())
            return "\"" + key + "\" must be true or false";
        target = value.get<bool>();
        return std::nullopt;
    };
    const auto constant = [&](std::optional<Constant>& target) -> std::optional<std::string> {
        if (value.is_null())
            return "\"" + key + "\" must not be null: without it the value is NULL";
        target = Constant{value};
        return std::nullopt;
    };
    if (key == "required")
        return flag(entry.rule.required);
    if (key == "user")
        return flag(entry.rule.user);
    if (key == "constant")
        return constant(entry.constant);
    if (key == "default")
        return constant(entry.fallback);
    const auto take = [](auto parsed, auto& target) -> std::optional<std::string> {
        if (!parsed)
            return std::move(parsed).error();
        target = std::move(parsed).value();
        return std::nullopt;
    };
    if (key == "from") {
        entry.has_from = true;
        return take(parse_sources(value), entry.rule.sources);
    }
    if (key == "steps")
        return take(parse_steps(value), entry.rule.steps);
    if (key == "mask_parts") {
        entry.has_parts = true;
        return take(parse_parts(value), entry.rule.mask_parts);
    }
    if (key == "column")
        return std::nullopt;
    return "unknown key " + json(key).dump() +
           "; there are \"column\", \"from\", \"steps\", \"required\", \"default\", \"constant\", \"user\" "
           "and "
           "\"mask_parts\"";
}

template<class Kind>
bool reads(const ColumnRule& rule) {
    return std::any_of(rule.sources.begin(), rule.sources.end(),
                       [](const Source& source) { return std::holds_alternative<Kind>(source); });
}

// What does not go together.
std::optional<std::string> contradiction(const Entry& entry, bool each) {
    const auto& rule = entry.rule;
    if (entry.constant && (entry.has_from || entry.fallback || rule.required))
        return "\"constant\" needs no \"from\", \"default\" or \"required\"";
    if (!entry.constant && !entry.has_from)
        return "\"from\" is missing";
    if (entry.fallback && rule.required)
        return "it cannot be both \"required\" and have a \"default\"";
    if (!each && (reads<ElementField>(rule) || reads<ElementIndex>(rule)))
        return "\"@each\" and \"@index\" need the pipeline's option each, a JSON Pointer to an array";
    if (reads<WholeBody>(rule) != entry.has_parts)
        return reads<WholeBody>(rule)
                   ? "\"@body\" needs \"mask_parts\": JSON Pointers to what is personal in it, [] for nothing"
                   : "\"mask_parts\" is for \"@body\" only";
    if (reads<WholeBody>(rule) && (rule.sources.size() > 1 || !rule.steps.empty()))
        return "\"@body\" stands alone, without other sources and \"steps\"";
    return std::nullopt;
}

// One entry of the array but its name. The error does not name the column; the caller does.
Result<ColumnRule, std::string> parse_rule(const json& members, bool each) {
    Entry entry;
    for (const auto& [key, value] : members.items())
        if (auto wrong = parse_key(key, value, entry))
            return std::move(*wrong);
    if (auto wrong = contradiction(entry, each))
        return std::move(*wrong);
    if (auto& last = entry.constant ? entry.constant : entry.fallback)
        entry.rule.sources.push_back(std::move(*last));
    return std::move(entry.rule);
}

std::optional<std::string> column_name(const json& entry) {
    if (!entry.is_object() || !entry.contains("column") || !entry["column"].is_string())
        return std::nullopt;
    auto name = entry["column"].get<std::string>();
    if (name.empty() || has_nul(name))
        return std::nullopt;
    return name;
}

} // namespace

const Mask* ColumnRule::mask() const {
    return steps.empty() ? nullptr : std::get_if<Mask>(&steps.back());
}

std::string ColumnRule::field() const {
    return std::visit(Overloaded{
                          [](const BodyField& field) { return field.pointer.substr(1); },
                          [](const ElementField& field) { return field.pointer; },
                          [](const ElementIndex&) { return std::string("@index"); },
                          [](const WholeBody&) { return std::string("@body"); },
                          [](const Attribute& attribute) { return std::string(kAttribute) + attribute.name; },
                          [](MessageField metadata) {
                              for (const auto& [name, known] : kMetadata)
                                  if (known == metadata)
                                      return std::string(name);
                              return std::string();
                          },
                          [](const Constant&) { return std::string("constant"); },
                      },
                      sources.front());
}

bool Mapping::has_column(std::string_view name) const {
    return std::any_of(columns.begin(), columns.end(),
                       [&](const ColumnRule& rule) { return rule.column == name; });
}

std::vector<std::string> Mapping::attributes() const {
    std::set<std::string> names;
    for (const auto& rule : columns)
        for (const auto& source : rule.sources)
            if (const auto* attribute = std::get_if<Attribute>(&source))
                names.insert(attribute->name);
    return {names.begin(), names.end()};
}

Result<Mapping, std::string> parse_mapping(std::string_view text, std::string_view each) {
    const auto parsed = parse_json(text);
    if (!parsed)
        return std::string("a mapping must be JSON: ") + to_string(parsed.error().reason);
    const json& entries = parsed.value();
    if (!entries.is_array() || entries.empty())
        return std::string("a mapping must be a JSON array with an object for each column");

    Mapping mapping;
    if (!each.empty()) {
        mapping.each = body_field(std::string(each));
        if (!mapping.each)
            return std::string("each must be a JSON Pointer to an array, like \"/items\"");
    }
    for (const auto& entry : entries) {
        const auto name = column_name(entry);
        const auto number = std::to_string(mapping.columns.size() + 1);
        if (!name)
            return "entry " + number + " must be an object whose \"column\" is the name of a column";
        if (mapping.has_column(*name))
            return "column \"" + *name + "\" is mapped twice";
        auto rule = parse_rule(entry, mapping.each.has_value());
        if (!rule)
            return "column \"" + *name + "\": " + rule.error();
        rule.value().column = *name;
        mapping.columns.push_back(std::move(rule).value());
    }
    if (std::count_if(mapping.columns.begin(), mapping.columns.end(),
                      [](const ColumnRule& rule) { return rule.user; }) > 1)
        return std::string("only one column can have \"user\": true");
    return mapping;
}

std::string_view user_logins_mapping() {
    return R"([
  {"column": "user_id", "from": "/user_id", "required": true, "user": true},
  {"column": "device_type", "from": "/device_type"},
  {"column": "masked_ip", "from": "/ip", "steps": ["ip", "mask"], "required": true},
  {"column": "masked_device_id", "from": "/device_id", "steps": ["mask"], "required": true},
  {"column": "locale", "from": "/locale"},
  {"column": "app_version", "from": "/app_version", "steps": ["version"]},
  {"column": "create_date", "from": ["/create_date", "@sent_at"], "steps": ["date"]}
])";
}

} // namespace sqs_ingest
