// A DOM builder on nlohmann's SAX parser: it stops at the first key or level too many, before either costs
// anything.
#include "core/transform/body.h"

#include "core/hex_digit.h"
#include "core/utf8.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sqs_ingest {

namespace {

using nlohmann::json;

// The four hexadecimal digits of an escape \uXXXX at `at`; empty when there is none.
std::optional<std::uint32_t> unicode_escape(std::string_view text, std::size_t at) {
    if (text.size() < at + 6 || text[at] != '\\' || text[at + 1] != 'u')
        return std::nullopt;
    std::uint32_t unit = 0;
    for (const char c : text.substr(at + 2, 4)) {
        const auto digit = hex_digit(c);
        if (!digit)
            return std::nullopt;
        unit = unit << 4 | *digit;
    }
    return unit;
}

// Whether a string's JSON spelling holds half of a surrogate pair: JSON's grammar allows it, UTF-8 cannot say
// it.
bool has_lone_surrogate(std::string_view spelling) {
    std::size_t at = 0;
    while ((at = spelling.find('\\', at)) != std::string_view::npos) {
        const auto unit = unicode_escape(spelling, at).value_or(0);
        if (unit >= 0xDC00 && unit <= 0xDFFF)
            return true;
        if (unit < 0xD800 || unit > 0xDBFF) {
            at += 2; // an escaped backslash starts no escape of its own
            continue;
        }
        const auto next = unicode_escape(spelling, at + 6).value_or(0);
        if (next < 0xDC00 || next > 0xDFFF)
            return true;
        at += 12;
    }
    return false;
}

// Of a JSON number, leading and trailing zeros counted too: rather too many than too few.
int significant_digits(std::string_view number) {
    number = number.substr(0, number.find_first_of("eE"));
    return static_cast<int>(
        std::count_if(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; }));
}

// Receives the parser's events; a false return stops it. The member functions' names are nlohmann's.
class DomBuilder {
  public:
    bool null() { return add(nullptr); }
    bool boolean(bool value) { return add(value); }
    bool number_integer(json::number_integer_t value) { return add(value); }
    bool number_unsigned(json::number_unsigned_t value) { return add(value); }
    bool number_float(json::number_float_t value, const std::string& spelling) {
        if (significant_digits(spelling) <= std::numeric_limits<double>::digits10)
            return add(value);
        return add(json::binary({spelling.begin(), spelling.end()}));
    }
    bool string(std::string& value) { return add(std::move(value)); }
    bool binary(json::binary_t&) { return refuse(Reason::not_json); } // JSON text has none

    bool start_object(std::size_t) { return open(json::object()); }
    bool start_array(std::size_t) { return open(json::array()); }
    bool end_object() { return close(); }
    bool end_array() { return close(); }

    bool key(std::string& name) {
        auto& members = open_.back()->get_ref<json::object_t&>();
        const auto [member, fresh] = members.try_emplace(std::move(name));
        member_ = &member->second;
        return fresh || refuse(Reason::duplicate_key);
    }

    bool parse_error(std::size_t, const std::string& last_token, const nlohmann::detail::exception& error) {
        constexpr int kNumberOverflow = 406; // nlohmann's exception id
        if (error.id == kNumberOverflow)
            return refuse(Reason::number_out_of_range);
        return refuse(has_lone_surrogate(last_token) ? Reason::invalid_utf8 : Reason::not_json);
    }

    Result<json, Rejection> result() && {
        if (refusal_)
            return Rejection{*refusal_, {}};
        return std::move(root_);
    }

  private:
    // Puts a value where the parser is: at the top, at the end of an array, or behind the last key.
    json* place(json value) {
        if (open_.empty())
            return &(root_ = std::move(value));
        json& parent = *open_.back();
        if (parent.is_object())
            return &(*member_ = std::move(value));
        parent.push_back(std::move(value));
        return &parent.back();
    }

    bool add(json value) {
        if (++values_ > kMaxValues)
            return refuse(Reason::too_large);
        place(std::move(value));
        return true;
    }

    bool open(json container) {
        if (open_.size() == kMaxNesting)
            return refuse(Reason::too_deep);
        if (++values_ > kMaxValues)
            return refuse(Reason::too_large);
        open_.push_back(place(std::move(container)));
        return true;
    }

    bool close() {
        open_.pop_back();
        return true;
    }

    bool refuse(Reason reason) {
        refusal_ = reason;
        return false;
    }

    json root_;
    std::vector<json*> open_; // the containers around the parser, outermost first
    std::size_t values_ = 0;  // so far
    json* member_ = nullptr;  // in an object: where the value of the last key goes
    std::optional<Reason> refusal_;
};

} // namespace

bool is_number(const json& value) {
    return value.is_number() || value.is_binary();
}

std::string scalar_text(const json& value) {
    return value.is_string() ? value.get_ref<const std::string&>() : json_text(value);
}

std::string json_text(const json& value, Escape escape) {
    if (value.is_binary())
        return {value.get_binary().begin(), value.get_binary().end()};
    const auto dump = [&](const json& scalar) {
        return scalar.dump(-1, ' ', escape == Escape::all_but_ascii, json::error_handler_t::replace);
    };
    if (!value.is_structured())
        return dump(value);
    std::string text(1, value.is_array() ? '[' : '{');
    for (const auto& [key, member] : value.items()) {
        if (text.size() > 1)
            text += ',';
        if (value.is_object())
            text += dump(key) + ':';
        text += json_text(member, escape);
    }
    return text += value.is_array() ? ']' : '}';
}

Result<json, Rejection> parse_json(std::string_view text) {
    if (!is_valid_utf8(text))
        return Rejection{Reason::invalid_utf8, {}};
    if (text.find('\0') != std::string_view::npos) // nlohmann's lexer takes it for the end of the text
        return Rejection{Reason::not_json, {}};
    DomBuilder dom;
    json::sax_parse(text.begin(), text.end(), &dom);
    return std::move(dom).result();
}

Result<json, Rejection> parse_body(std::string_view body) {
    auto parsed = parse_json(body);
    if (parsed.ok() && !parsed.value().is_object())
        return Rejection{Reason::not_object, {}};
    return parsed;
}

} // namespace sqs_ingest
