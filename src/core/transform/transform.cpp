#include "core/transform/transform.h"

#include "core/date.h"
#include "core/text.h"
#include "core/transform/body.h"
#include "core/transform/ip.h"
#include "core/transform/json_pointer.h"
#include "core/transform/version.h"
#include "core/utf8.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <utility>

namespace sqs_ingest {

namespace {

using nlohmann::json;

// On its way from the message to its column, a value is a JSON string, number or boolean; for columns of JSON
// and arrays any JSON.
using Value = json;

// --- steps

Result<Value, Reason> canonical_ip_step(Value value) {
    if (value.is_string()) {
        if (auto ip = canonical_ip(value.get_ref<const std::string&>()))
            return Value(std::move(*ip));
    }
    return value;
}

Result<Value, Reason> version_step(const Value& value, VersionKind kind) {
    if (value.is_boolean())
        return Reason::wrong_type;
    const auto number = version_number(scalar_text(value), kind);
    if (!number)
        return Reason::bad_version;
    return Value(*number);
}

Result<Value, Reason> date_step(const Value& value) {
    if (!value.is_string())
        return Reason::wrong_type;
    auto date = iso_date(value.get_ref<const std::string&>());
    if (!date)
        return Reason::bad_date;
    return Value(std::move(*date));
}

Value lower_step(Value value) {
    return value.is_string() ? Value(ascii_lower(value.get_ref<const std::string&>())) : value;
}

Value trim_step(Value value) {
    if (!value.is_string())
        return value;
    constexpr std::string_view kSpace = " \t\n\v\f\r";
    std::string_view text = value.get_ref<const std::string&>();
    text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    text = text.substr(0, text.find_last_not_of(kSpace) + 1);
    return std::string(text);
}

// Numbers, and strings of digits. As a double: microseconds of today are exact in it.
Result<Value, Reason> epoch_step(const Value& value, bool millis) {
    if (value.is_boolean())
        return Reason::wrong_type;
    const std::string text = scalar_text(value);
    double number = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || stop != text.data() + text.size())
        return Reason::bad_date;
    const double us = number * (millis ? 1e3 : 1e6);
    constexpr double kFar = 1e18; // thirty thousand years, which fit 64 bits
    if (!(std::abs(us) < kFar))
        return Reason::bad_date;
    auto time = time_of_epoch_us(std::llround(us));
    if (!time)
        return Reason::bad_date;
    return Value(std::move(*time));
}

Result<Value, Reason> mask_step(const Value& value, const MaskMethod& method, const Keyring* keyring) {
    if (value.is_boolean())
        return Reason::wrong_type;
    return Value(mask(method, keyring, scalar_text(value)));
}

Result<Value, Reason> take_step(const Step& step, Value value, const MaskMethod& pipeline_method,
                                const Keyring* keyring) {
    if (std::holds_alternative<CanonicalIp>(step))
        return canonical_ip_step(std::move(value));
    if (const auto* version = std::get_if<VersionNumber>(&step))
        return version_step(value, version->kind);
    if (std::holds_alternative<IsoDate>(step))
        return date_step(value);
    if (std::holds_alternative<Lower>(step))
        return lower_step(std::move(value));
    if (std::holds_alternative<Trim>(step))
        return trim_step(std::move(value));
    if (const auto* epoch = std::get_if<EpochTime>(&step))
        return epoch_step(value, epoch->millis);
    return mask_step(value, std::get<Mask>(step).method.value_or(pipeline_method), keyring);
}

Result<Value, Reason> take_steps(const ColumnRule& rule, Value value, const MaskMethod& pipeline_method,
                                 const Keyring* keyring) {
    for (const auto& step : rule.steps) {
        auto next = take_step(step, std::move(value), pipeline_method, keyring);
        if (!next)
            return next.error();
        value = std::move(next).value();
    }
    return value;
}

// --- sources

// What a row is made of.
struct Origin {
    const Transform& transform;
    const Keyring* keyring;
    const Message& message;
    const json& body;
    const json* element = nullptr; // of the array; nullptr: there is none
    std::size_t index = 0;
};

template<class Kind>
bool has_step(const ColumnRule& rule) {
    return std::any_of(rule.steps.begin(), rule.steps.end(),
                       [](const Step& step) { return std::holds_alternative<Kind>(step); });
}

// A number of milliseconds, or already the date or time where one is wanted ("", which is none, for one that
// the calendar has not) and no step makes it.
Value time_value(std::int64_t ms, const ColumnRule& rule, const ColumnType& type) {
    constexpr std::int64_t kFar = 1'000'000'000'000'000; // thirty thousand years
    if (ms < -kFar || ms > kFar)
        return "";
    if (has_step<EpochTime>(rule))
        return ms;
    if (type.kind == ColumnType::Kind::date || has_step<IsoDate>(rule))
        return date_of_epoch_ms(ms).value_or("");
    if (type.kind == ColumnType::Kind::timestamp || type.kind == ColumnType::Kind::timestamptz)
        return time_of_epoch_us(ms * 1000).value_or("");
    return ms;
}

Value metadata_value(MessageField metadata, const Origin& from, const ColumnRule& rule,
                     const ColumnType& type) {
    const auto text = [](const std::string& value) { return value.empty() ? Value() : Value(value); };
    const auto time = [&](const std::optional<std::int64_t>& ms) {
        return ms ? time_value(*ms, rule, type) : Value();
    };
    switch (metadata) {
    case MessageField::message_id:
        return text(from.message.message_id);
    case MessageField::sent_at:
        return time(from.message.sent_at_ms);
    case MessageField::received_at:
        return time(from.message.received_at_ms);
    case MessageField::receive_count:
        return from.message.receive_count;
    case MessageField::group_id:
        return text(from.message.group_id);
    case MessageField::sequence_number:
        return text(from.message.sequence_number);
    case MessageField::queue:
        return text(from.transform.queue_url);
    }
    return nullptr;
}

// Every scalar in it, but null.
void mask_all(json& value, const MaskMethod& method, const Keyring* keyring) {
    if (value.is_structured())
        for (auto& member : value)
            mask_all(member, method, keyring);
    else if (!value.is_null())
        value = mask(method, keyring, scalar_text(value));
}

Value whole_body(const Origin& from, const ColumnRule& rule) {
    json body = from.body;
    for (const auto& part : rule.mask_parts)
        if (const json* found = find(body, part.tokens))
            mask_all(const_cast<json&>(*found), from.transform.mask_method, from.keyring);
    return body;
}

bool takes_structures(const ColumnRule& rule, const ColumnType& type) {
    return rule.steps.empty() &&
           (type.kind == ColumnType::Kind::json || type.kind == ColumnType::Kind::array);
}

// Of an object or array only the type, where nothing takes it.
Value found_value(const json* found, const ColumnRule& rule, const ColumnType& type) {
    if (found == nullptr)
        return nullptr;
    return found->is_structured() && !takes_structures(rule, type) ? Value(found->type()) : *found;
}

Value value_of(const Source& source, const Origin& from, const ColumnRule& rule, const ColumnType& type) {
    if (const auto* field = std::get_if<BodyField>(&source))
        return found_value(find(from.body, field->tokens), rule, type);
    if (const auto* field = std::get_if<ElementField>(&source))
        return found_value(find(*from.element, field->tokens), rule, type);
    if (std::holds_alternative<ElementIndex>(source))
        return from.index;
    if (std::holds_alternative<WholeBody>(source))
        return whole_body(from, rule);
    if (const auto* attribute = std::get_if<Attribute>(&source)) {
        const auto found = from.message.attributes.find(attribute->name);
        return found == from.message.attributes.end() ? Value() : Value(found->second.value);
    }
    if (const auto* metadata = std::get_if<MessageField>(&source))
        return metadata_value(*metadata, from, rule, type);
    return std::get<Constant>(source).value;
}

struct Found {
    Value value;
    const Source* source;
};

// The first that is there and not null.
Found first_value(const ColumnRule& rule, const ColumnType& type, const Origin& from) {
    for (const auto& source : rule.sources) {
        Value value = value_of(source, from, rule, type);
        if (!value.is_null())
            return {std::move(value), &source};
    }
    return {nullptr, nullptr};
}

// Why a value cannot even start; empty when it can.
std::optional<Reason> refused(const Value& value, const ColumnRule& rule, const ColumnType& type) {
    if (value.is_structured() && !takes_structures(rule, type) &&
        !std::holds_alternative<WholeBody>(rule.sources.front()))
        return Reason::wrong_type;
    if (!value.is_string())
        return std::nullopt;
    const auto& text = value.get_ref<const std::string&>();
    if (rule.required && text.empty())
        return Reason::empty_field;
    if (text.find('\0') != std::string::npos)
        return Reason::nul_character;
    if (!is_valid_utf8(text)) // an attribute that is binary
        return Reason::invalid_utf8;
    return std::nullopt;
}

// It is not what the sender wrote, and neither would its mask be.
bool is_damaged(const Source& source, const Message& message) {
    const auto* attribute = std::get_if<Attribute>(&source);
    const auto found = attribute ? message.attributes.find(attribute->name) : message.attributes.end();
    return found != message.attributes.end() && found->second.damaged;
}

using Cell = std::optional<std::string>;

Result<Cell, Reason> cell(Found found, const ColumnRule& rule, const ColumnType& type, const Origin& from) {
    if (found.source == nullptr)
        return rule.required ? Result<Cell, Reason>(Reason::missing_field) : Cell();
    if (is_damaged(*found.source, from.message))
        return Reason::invalid_utf8;
    if (const auto reason = refused(found.value, rule, type))
        return *reason;
    auto taken = take_steps(rule, std::move(found.value), from.transform.mask_method, from.keyring);
    if (!taken)
        return taken.error();
    const Value& value = taken.value();
    if (rule.required && value.is_string() && value.get_ref<const std::string&>().empty())
        return Reason::empty_field; // of nothing but space
    // A column of text takes a whole body as JSON.
    const bool as_json =
        std::holds_alternative<WholeBody>(rule.sources.front()) && type.kind == ColumnType::Kind::text;
    auto text = to_column(value, as_json ? ColumnType{ColumnType::Kind::json} : type);
    if (!text)
        return text.error();
    return Cell(std::move(text).value());
}

// --- rows

Result<Row, Rejection> row_of(const Origin& from) {
    Row row;
    const auto& columns = from.transform.mapping.columns;
    row.values.reserve(columns.size());
    for (std::size_t i = 0; i < columns.size(); ++i) {
        const auto& type = from.transform.types.at(i);
        auto value = cell(first_value(columns[i], type, from), columns[i], type, from);
        if (!value)
            return Rejection{value.error(), columns[i].field()};
        row.values.push_back(std::move(value).value());
    }
    return row;
}

// The elements that rows are made of; a body without an array of them is one.
Result<std::vector<const json*>, Rejection> elements_of(const json& body, const Mapping& mapping) {
    if (!mapping.each)
        return std::vector<const json*>{nullptr};
    const json* array = find(body, mapping.each->tokens);
    if (array == nullptr || array->is_null())
        return Rejection{Reason::missing_field, mapping.each->pointer.substr(1)};
    if (!array->is_array())
        return Rejection{Reason::wrong_type, mapping.each->pointer.substr(1)};
    if (array->size() > kMaxRows)
        return Rejection{Reason::too_large, mapping.each->pointer.substr(1)};
    std::vector<const json*> elements;
    for (const auto& element : *array)
        elements.push_back(&element);
    return elements;
}

// What the mapping calls a source.
std::string written(const Source& source) {
    if (const auto* field = std::get_if<BodyField>(&source))
        return field->pointer;
    ColumnRule rule;
    rule.sources.push_back(source);
    return rule.field();
}

ColumnOutcome outcome(const ColumnRule& rule, const ColumnType& type, const Origin& from) {
    auto found = first_value(rule, type, from);
    ColumnOutcome outcome;
    if (found.source != nullptr)
        outcome.source = std::holds_alternative<Constant>(*found.source) && rule.sources.size() > 1
                             ? "default"
                             : written(*found.source);
    auto value = cell(std::move(found), rule, type, from);
    if (value)
        outcome.value = std::move(value).value();
    else
        outcome.rejected = value.error();
    return outcome;
}

} // namespace

Result<json, Rejection> body_of(const Transform& transform, const Message& message) {
    if (message.body_damaged) // its values are not the sender's, and neither would their masks be
        return Rejection{Reason::invalid_utf8, {}};
    return parse_payload(transform.envelope, transform.encoding, message.body);
}

Result<Rows, Rejection> transform(const Transform& transform, const Keyring* keyring,
                                  const Message& message) {
    const auto body = body_of(transform, message);
    if (!body)
        return body.error();
    const auto elements = elements_of(body.value(), transform.mapping);
    if (!elements)
        return elements.error();
    Rows rows;
    rows.reserve(elements.value().size());
    std::size_t bytes = 0;
    Origin from{transform, keyring, message, body.value()};
    for (const json* element : elements.value()) {
        from.element = element;
        auto row = row_of(from);
        if (!row)
            return row.error();
        bytes += memory_of(row.value());
        if (bytes > kMaxRowBytes)
            return Rejection{Reason::too_large, {}};
        rows.push_back(std::move(row).value());
        ++from.index;
    }
    return rows;
}

std::size_t memory_of(const Row& row) {
    std::size_t bytes = sizeof row + row.values.size() * sizeof row.values.front();
    for (const auto& value : row.values)
        bytes += value ? value->size() : 0;
    return bytes;
}

std::string normalised(const ColumnRule& rule, std::string text) {
    Value value = std::move(text);
    for (const auto& step : rule.steps) {
        if (std::holds_alternative<CanonicalIp>(step))
            value = canonical_ip_step(std::move(value)).value();
        else if (std::holds_alternative<Lower>(step))
            value = lower_step(std::move(value));
        else if (std::holds_alternative<Trim>(step))
            value = trim_step(std::move(value));
    }
    return value.get<std::string>();
}

Result<std::string, Reason> through_steps(const ColumnRule& rule, const ColumnType& type, json value) {
    const auto taken = take_steps(rule, std::move(value), {}, nullptr);
    return taken ? to_column(taken.value(), type) : taken.error();
}

Explanation explain(const Transform& transform, const Keyring* keyring, const Message& message) {
    Explanation explanation;
    const auto body = body_of(transform, message);
    const auto elements = body ? elements_of(body.value(), transform.mapping)
                               : Result<std::vector<const json*>, Rejection>(body.error());
    if (!elements) {
        explanation.rejected = elements.error();
        return explanation;
    }
    const auto& columns = transform.mapping.columns;
    std::size_t bytes = 0;
    Origin from{transform, keyring, message, body.value()};
    for (const json* element : elements.value()) {
        from.element = element;
        auto& row = explanation.rows.emplace_back();
        for (std::size_t i = 0; i < columns.size(); ++i) {
            row.push_back(outcome(columns[i], transform.types.at(i), from));
            bytes += sizeof(ColumnOutcome) + (row.back().value ? row.back().value->size() : 0);
            if (row.back().rejected && !explanation.rejected)
                explanation.rejected = Rejection{*row.back().rejected, columns[i].field()};
        }
        ++from.index;
        if (bytes > kMaxRowBytes) {
            explanation.rejected = Rejection{Reason::too_large, {}};
            return explanation;
        }
    }
    return explanation;
}

} // namespace sqs_ingest
