#include "core/transform/column_type.h"

#include "core/date.h"
#include "core/text.h"
#include "core/transform/body.h"
#include "core/transform/transform.h"
#include "core/utf8.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>

namespace sqs_ingest {

namespace {

using nlohmann::json;
using Kind = ColumnType::Kind;
using Text = Result<std::string, Reason>;

constexpr int kMaxDimensions = 6; // of a Postgres array

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

Text as_text(const json& value, std::optional<int> max_characters) {
    auto text = scalar_text(value);
    if (max_characters && utf8_length(text) > static_cast<std::size_t>(*max_characters))
        return Reason::too_long;
    return text;
}

template<class Integer>
Result<Integer, Reason> integer_of_digits(std::string_view text) {
    Integer number = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error == std::errc::invalid_argument || stop != end)
        return Reason::wrong_type;
    if (error == std::errc::result_out_of_range)
        return Reason::number_out_of_range;
    return number;
}

// "5" of "5.000"; wrong_type for "5.001".
Result<std::string_view, Reason> integral_part(std::string_view number) {
    const auto point = std::min(number.find('.'), number.size());
    if (number.find_first_not_of(".0", point) != std::string_view::npos)
        return Reason::wrong_type;
    return number.substr(0, point);
}

// A number that no 64-bit integer spells: 2.0, 1e3.
Result<std::int64_t, Reason> integer_of_double(double number) {
    constexpr double kExactIntegers = 9007199254740992.0; // 2^53: up to here each is a double of its own
    if (number != std::trunc(number))
        return Reason::wrong_type;
    if (std::abs(number) >= kExactIntegers)
        return Reason::number_out_of_range;
    return static_cast<std::int64_t>(number);
}

template<class Integer>
Text as_integer(const json& value) {
    if (value.is_boolean() || value.is_null())
        return Reason::wrong_type;
    std::string text = scalar_text(value);
    if (value.is_binary() && text.find_first_of("eE") == std::string::npos) {
        const auto part = integral_part(text);
        if (!part)
            return part.error();
        text = std::string(part.value());
    } else if (value.is_number_float() || value.is_binary()) {
        const auto number = integer_of_double(std::strtod(text.c_str(), nullptr));
        if (!number)
            return number.error();
        text = std::to_string(number.value());
    }
    const auto number = integer_of_digits<Integer>(text);
    if (!number)
        return number.error();
    return std::to_string(number.value());
}

Text as_date(const json& value) {
    if (!value.is_string())
        return Reason::wrong_type;
    auto date = iso_date(value.get_ref<const std::string&>());
    return date ? Text(std::move(*date)) : Text(Reason::bad_date);
}

Text as_time(const json& value, Kind kind) {
    if (!value.is_string())
        return Reason::wrong_type;
    auto time = iso_time(value.get_ref<const std::string&>());
    if (!time)
        return Reason::bad_date;
    if (kind == Kind::timestamp)
        time->pop_back(); // the Z: this type has no zone
    return std::move(*time);
}

Text as_boolean(const json& value) {
    if (value.is_structured() || value.is_null())
        return Reason::wrong_type;
    const auto text = ascii_lower(scalar_text(value));
    for (const char* yes : {"true", "t", "yes", "y", "on", "1"})
        if (text == yes)
            return std::string("true");
    for (const char* no : {"false", "f", "no", "n", "off", "0"})
        if (text == no)
            return std::string("false");
    return value.is_string() ? Reason::bad_value : Reason::wrong_type;
}

// A JSON number (RFC 8259, section 6), also with leading zeros or a plus.
bool is_number(std::string_view text) {
    const auto digits = [&] {
        std::size_t n = 0;
        while (n < text.size() && is_digit(text[n]))
            ++n;
        text.remove_prefix(n);
        return n > 0;
    };
    const auto take = [&](std::string_view any_of) {
        if (text.empty() || any_of.find(text.front()) == std::string_view::npos)
            return false;
        text.remove_prefix(1);
        return true;
    };
    take("+-");
    if (!digits() || (take(".") && !digits()))
        return false;
    if (take("eE")) {
        take("+-");
        return digits() && text.empty();
    }
    return text.empty();
}

Text as_number(const json& value) {
    if (value.is_boolean() || value.is_null())
        return Reason::wrong_type;
    auto text = scalar_text(value);
    if (!is_number(text))
        return Reason::bad_value;
    return text;
}

Text as_uuid(const json& value) {
    if (!value.is_string())
        return Reason::wrong_type;
    const auto& text = value.get_ref<const std::string&>();
    const bool hyphens = text.size() == 36;
    if (text.size() != 32 && !hyphens)
        return Reason::bad_value;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool hyphen = hyphens && (i == 8 || i == 13 || i == 18 || i == 23);
        if (hyphen ? text[i] != '-' : !std::isxdigit(static_cast<unsigned char>(text[i])))
            return Reason::bad_value;
    }
    std::string digits = ascii_lower(text);
    if (!hyphens)
        for (const std::size_t at : {8, 13, 18, 23})
            digits.insert(at, 1, '-');
    return digits;
}

std::string array_element(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\')
            out += '\\';
        out += c;
    }
    return out += '"';
}

// A Postgres array literal. https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
Text as_array(const json& value, const ColumnType& element, int dimension) {
    if (dimension > kMaxDimensions)
        return Reason::bad_value;
    std::string literal = "{";
    for (const auto& item : value) {
        if (literal.size() > 1)
            literal += ',';
        if (item.is_null()) {
            literal += "NULL";
            continue;
        }
        const bool nested = item.is_array() && element.kind != Kind::json;
        auto text = nested ? as_array(item, element, dimension + 1) : to_column(item, element);
        if (!text)
            return text;
        literal += nested ? text.value() : array_element(text.value());
    }
    return literal += '}';
}

bool has_nul(const json& value) {
    if (value.is_string())
        return value.get_ref<const std::string&>().find('\0') != std::string::npos;
    if (value.is_array())
        return std::any_of(value.begin(), value.end(), has_nul);
    if (value.is_object())
        for (const auto& [key, member] : value.items())
            if (key.find('\0') != std::string::npos || has_nul(member))
                return true;
    return false;
}

Text convert(const json& value, const ColumnType& type) {
    if (type.kind == Kind::json)
        return json_text(value);
    if (type.kind == Kind::array && value.is_array())
        return as_array(value, {type.element, type.max_characters}, 1);
    if (value.is_structured())
        return Reason::wrong_type;
    switch (type.kind) {
    case Kind::text:
        return as_text(value, type.max_characters);
    case Kind::int2:
        return as_integer<std::int16_t>(value);
    case Kind::int4:
        return as_integer<std::int32_t>(value);
    case Kind::int8:
        return as_integer<std::int64_t>(value);
    case Kind::date:
        return as_date(value);
    case Kind::boolean:
        return as_boolean(value);
    case Kind::numeric:
    case Kind::float4:
    case Kind::float8:
        return as_number(value);
    case Kind::timestamp:
    case Kind::timestamptz:
        return as_time(value, type.kind);
    case Kind::uuid:
        return as_uuid(value);
    case Kind::json:
    case Kind::array:
    case Kind::other:
        break;
    }
    return scalar_text(value);
}

// --- what cannot work

bool is_integer(Kind kind) {
    return kind == Kind::int2 || kind == Kind::int4 || kind == Kind::int8;
}

bool is_numeric(Kind kind) {
    return is_integer(kind) || kind == Kind::numeric || kind == Kind::float4 || kind == Kind::float8;
}

bool is_time(Kind kind) {
    return kind == Kind::date || kind == Kind::timestamp || kind == Kind::timestamptz;
}

bool takes_text(Kind kind) {
    return kind == Kind::text || kind == Kind::json || kind == Kind::other;
}

// The shortest token that a method makes.
int shortest_token(const MaskMethod& method) {
    switch (method.kind) {
    case MaskMethod::Kind::hmac:
        return 4 + 64; // "hm1." and HMAC-SHA-256
    case MaskMethod::Kind::siv:
        return 4 + 23; // "sv1." and 17 bytes in base64url
    case MaskMethod::Kind::sha256:
        return method.hex_digits;
    case MaskMethod::Kind::md5:
        return 32;
    }
    return 0;
}

std::string column_is(const ColumnType& type) {
    return ", but the column is " + std::string(to_string(type.kind));
}

std::optional<std::string> mask_misfit(const MaskMethod& method, const ColumnType& type) {
    if (type.kind != Kind::text)
        return "its values are masked, which makes text" + column_is(type);
    if (const int length = shortest_token(method); type.max_characters && length > *type.max_characters)
        return "a token of method " + to_string(method) + " has at least " + std::to_string(length) +
               " characters, but the column holds " + std::to_string(*type.max_characters);
    return std::nullopt;
}

// What a step makes, if not any kind.
std::optional<std::string> step_misfit(const Step& step, const ColumnType& type) {
    const Kind kind = type.kind;
    const bool date = std::holds_alternative<IsoDate>(step), time = std::holds_alternative<EpochTime>(step);
    if ((date || time) && !is_time(kind) && !takes_text(kind))
        return std::string("its steps make a ") + (date ? "date" : "time") + column_is(type);
    if (std::holds_alternative<VersionNumber>(step) && !is_numeric(kind) && !takes_text(kind))
        return "its steps make a number" + column_is(type);
    if (std::holds_alternative<CanonicalIp>(step) && !takes_text(kind))
        return "its steps make an IP address" + column_is(type);
    return std::nullopt;
}

std::optional<std::string> metadata_misfit(MessageField metadata, const ColumnRule& rule,
                                           const ColumnType& type) {
    const Kind kind = type.kind;
    switch (metadata) {
    case MessageField::message_id:
        return takes_text(kind) || kind == Kind::uuid
                   ? std::nullopt
                   : std::optional("a message id is text" + column_is(type));
    case MessageField::group_id:
        return std::nullopt; // any text
    case MessageField::queue:
        return takes_text(kind) ? std::nullopt : std::optional("a queue URL is text" + column_is(type));
    case MessageField::receive_count:
        return takes_text(kind) || is_numeric(kind)
                   ? std::nullopt
                   : std::optional("a receive count is a number" + column_is(type));
    case MessageField::sequence_number: // 20 digits
        return takes_text(kind) || kind == Kind::numeric
                   ? std::nullopt
                   : std::optional("a sequence number has 20 digits" + column_is(type));
    case MessageField::sent_at:
    case MessageField::received_at:
        for (const auto& step : rule.steps)
            if (const auto* epoch = std::get_if<EpochTime>(&step); epoch && !epoch->millis)
                return "it is a number of milliseconds: its step is epoch_millis, not epoch_seconds";
        if (kind == Kind::int2 || kind == Kind::int4)
            return "milliseconds since 1970 need bigint" + column_is(type);
        return takes_text(kind) || is_numeric(kind) || is_time(kind) || !rule.steps.empty()
                   ? std::nullopt
                   : std::optional("it is a time" + column_is(type));
    }
    return std::nullopt;
}

std::optional<std::string> source_misfit(const Source& source, const ColumnRule& rule,
                                         const ColumnType& type) {
    if (std::holds_alternative<WholeBody>(source) && type.kind != Kind::json &&
        (type.kind != Kind::text || type.max_characters))
        return "a whole body is JSON" + column_is(type);
    if (std::holds_alternative<ElementIndex>(source) && !takes_text(type.kind) && !is_numeric(type.kind))
        return "an element's position is a number" + column_is(type);
    if (const auto* metadata = std::get_if<MessageField>(&source))
        return metadata_misfit(*metadata, rule, type);
    if (const auto* constant = std::get_if<Constant>(&source)) {
        const auto text = through_steps(rule, type, constant->value);
        if (!text)
            return "its constant or default is no value of type " + std::string(to_string(type.kind)) + " (" +
                   to_string(text.error()) + ")";
    }
    return std::nullopt;
}

} // namespace

const char* to_string(Kind kind) {
    switch (kind) {
    case Kind::text:
        return "text";
    case Kind::int2:
        return "smallint";
    case Kind::int4:
        return "integer";
    case Kind::int8:
        return "bigint";
    case Kind::date:
        return "date";
    case Kind::boolean:
        return "boolean";
    case Kind::numeric:
        return "numeric";
    case Kind::float4:
        return "real";
    case Kind::float8:
        return "double precision";
    case Kind::timestamp:
        return "timestamp";
    case Kind::timestamptz:
        return "timestamptz";
    case Kind::uuid:
        return "uuid";
    case Kind::json:
        return "json";
    case Kind::array:
        return "an array";
    case Kind::other:
        return "of another type";
    }
    return "unknown";
}

Result<std::string, Reason> to_column(const json& value, const ColumnType& type) {
    if (has_nul(value))
        return Reason::nul_character;
    return convert(value, type);
}

std::optional<std::string> misfit(const ColumnRule& rule, const ColumnType& type,
                                  const MaskMethod& pipeline_method) {
    if (const auto* mask = rule.mask()) {
        for (const auto& source : rule.sources)
            if (const auto* constant = std::get_if<Constant>(&source);
                constant && (constant->value.is_boolean() || constant->value.is_structured()))
                return "its constant or default cannot be masked: only texts and numbers can";
        return mask_misfit(mask->method.value_or(pipeline_method), type);
    }
    if (!rule.steps.empty())
        if (auto wrong = step_misfit(rule.steps.back(), type))
            return wrong;
    for (const auto& source : rule.sources)
        if (auto wrong = source_misfit(source, rule, type))
            return wrong;
    return std::nullopt;
}

} // namespace sqs_ingest
