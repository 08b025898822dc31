#include "core/transform/transform.h"

#include "core/transform/body.h"
#include "core/transform/date.h"
#include "core/transform/ip.h"
#include "core/transform/json_pointer.h"
#include "core/transform/version.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

namespace sqs_ingest {

namespace {

using nlohmann::json;

// On its way from the body to its column, a value is a JSON string, number or boolean.
using Value = json;

constexpr double kExactIntegers = 9007199254740992.0; // 2^53: up to here every integer is a double of its own

// The text of a value, numbers and booleans as JSON spells them. An integer too long for 64 bits was rounded
// when it was parsed; its text, or a mask of it, would pass for that of its neighbours, so it is refused.
Result<std::string, Reason> spelling(const Value& value) {
    if (value.is_string())
        return value.get_ref<const std::string&>();
    if (value.is_number_float()) {
        const auto number = value.get<double>();
        if (std::abs(number) >= kExactIntegers)
            return Reason::number_out_of_range;
    }
    return value.dump();
}

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
    const auto text = spelling(value);
    const auto number = text ? version_number(text.value(), kind) : std::nullopt;
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

Result<Value, Reason> mask_step(const Value& value, const MaskMethod& method, const Keyring* keyring) {
    if (value.is_boolean())
        return Reason::wrong_type;
    const auto text = spelling(value);
    if (!text)
        return text.error();
    return Value(mask(method, keyring, text.value()));
}

Result<Value, Reason> take_step(const Step& step, Value value, const MaskMethod& method,
                                const Keyring* keyring) {
    if (std::holds_alternative<CanonicalIp>(step))
        return canonical_ip_step(std::move(value));
    if (const auto* version = std::get_if<VersionNumber>(&step))
        return version_step(value, version->kind);
    if (std::holds_alternative<IsoDate>(step))
        return date_step(value);
    return mask_step(value, method, keyring);
}

Result<std::string, Reason> as_text(const Value& value, std::optional<int> max_characters) {
    auto text = spelling(value);
    if (text && max_characters && utf8_length(text.value()) > static_cast<std::size_t>(*max_characters))
        return Reason::too_long;
    return text;
}

Result<std::int64_t, Reason> integer_of_digits(std::string_view text) {
    std::int64_t number = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error == std::errc::invalid_argument || stop != end)
        return Reason::wrong_type;
    if (error == std::errc::result_out_of_range)
        return Reason::number_out_of_range;
    return number;
}

Result<std::int64_t, Reason> integer_of(const Value& value) {
    if (value.is_string())
        return integer_of_digits(value.get_ref<const std::string&>());
    if (value.is_number_float()) {
        const auto number = value.get<double>();
        if (number != std::trunc(number))
            return Reason::wrong_type;
        if (std::abs(number) >= kExactIntegers)
            return Reason::number_out_of_range;
        return static_cast<std::int64_t>(number);
    }
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())
        return Reason::number_out_of_range;
    if (!value.is_number())
        return Reason::wrong_type;
    return value.get<std::int64_t>();
}

template<typename Integer>
Result<std::string, Reason> as_integer(const Value& value) {
    const auto number = integer_of(value);
    if (!number)
        return number.error();
    if (number.value() < std::numeric_limits<Integer>::min() ||
        number.value() > std::numeric_limits<Integer>::max())
        return Reason::number_out_of_range;
    return std::to_string(number.value());
}

Result<std::string, Reason> as_date(const Value& value) {
    const auto date = date_step(value);
    if (!date)
        return date.error();
    return date.value().get<std::string>();
}

Result<std::string, Reason> as_type(const Value& value, const ColumnType& type) {
    switch (type.kind) {
    case ColumnType::Kind::text:
        return as_text(value, type.max_characters);
    case ColumnType::Kind::int2:
        return as_integer<std::int16_t>(value);
    case ColumnType::Kind::int4:
        return as_integer<std::int32_t>(value);
    case ColumnType::Kind::int8:
        return as_integer<std::int64_t>(value);
    case ColumnType::Kind::date:
        return as_date(value);
    }
    return Reason::wrong_type;
}

bool wants_date(const ColumnRule& rule, const ColumnType& type) {
    if (type.kind == ColumnType::Kind::date)
        return true;
    for (const auto& step : rule.steps) {
        if (std::holds_alternative<IsoDate>(step))
            return true;
    }
    return false;
}

// The SentTimestamp: a number of milliseconds, or already the date where one is wanted ("", which is none,
// for a time that no calendar date has).
Value sent_at_value(std::int64_t sent_at_ms, bool as_date) {
    if (!as_date)
        return sent_at_ms;
    return date_of_epoch_ms(sent_at_ms).value_or("");
}

// The first source that is there and not null; else null. Of an object or array only the type: nothing takes
// it.
Value first_value(const ColumnRule& rule, const ColumnType& type, const json& body, const Message& message) {
    for (const auto& source : rule.sources) {
        if (const auto* field = std::get_if<BodyField>(&source)) {
            const json* found = find(body, field->tokens);
            if (found != nullptr && !found->is_null())
                return found->is_structured() ? Value(found->type()) : *found;
        } else if (message.sent_at_ms) {
            return sent_at_value(*message.sent_at_ms, wants_date(rule, type));
        }
    }
    return nullptr;
}

// Why a value cannot even start; empty when it can.
std::optional<Reason> refused(const Value& value, bool required) {
    if (value.is_structured())
        return Reason::wrong_type;
    if (!value.is_string())
        return std::nullopt;
    const auto& text = value.get_ref<const std::string&>();
    if (required && text.empty())
        return Reason::empty_field;
    if (text.find('\0') != std::string::npos)
        return Reason::nul_character;
    return std::nullopt;
}

using Cell = std::optional<std::string>;

Result<Cell, Reason> cell(const ColumnRule& rule, const ColumnType& type, const Transform& transform,
                          const Keyring* keyring, const json& body, const Message& message) {
    Value value = first_value(rule, type, body, message);
    if (value.is_null())
        return rule.required ? Result<Cell, Reason>(Reason::missing_field) : Cell();
    if (const auto reason = refused(value, rule.required))
        return *reason;
    for (const auto& step : rule.steps) {
        auto next = take_step(step, std::move(value), transform.mask_method, keyring);
        if (!next)
            return next.error();
        value = std::move(next).value();
    }
    auto text = as_type(value, type);
    if (!text)
        return text.error();
    return Cell(std::move(text).value());
}

// What a rejection calls a column's field: its first source, without the leading slash.
std::string field_name(const ColumnRule& rule) {
    const auto* field = std::get_if<BodyField>(&rule.sources.front());
    return field != nullptr ? field->pointer.substr(1) : "@sent_at";
}

} // namespace

Result<Row, Rejection> transform(const Transform& transform, const Keyring* keyring, const Message& message) {
    if (message.body_damaged) // its values are not the sender's, and neither would their masks be
        return Rejection{Reason::invalid_utf8, {}};
    const auto body = parse_body(message.body);
    if (!body)
        return body.error();

    Row row;
    row.values.reserve(transform.mapping.columns.size());
    for (std::size_t i = 0; i < transform.mapping.columns.size(); ++i) {
        const auto& rule = transform.mapping.columns[i];
        auto value = cell(rule, transform.types.at(i), transform, keyring, body.value(), message);
        if (!value)
            return Rejection{value.error(), field_name(rule)};
        row.values.push_back(std::move(value).value());
    }
    return row;
}

} // namespace sqs_ingest
