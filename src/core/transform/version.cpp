#include "core/transform/version.h"

#include <array>
#include <limits>
#include <string>

namespace sqs_ingest {

namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// One or more groups of digits separated by single dots.
bool is_dotted_digits(std::string_view text) {
    bool after_digit = false;
    for (const char c : text) {
        if (!is_digit(c) && (c != '.' || !after_digit))
            return false;
        after_digit = is_digit(c);
    }
    return after_digit;
}

// The digits of `text` as one number, dots passed over.
std::optional<std::int32_t> number_without_dots(std::string_view text) {
    std::int64_t number = 0;
    for (const char c : text) {
        if (c == '.')
            continue;
        number = number * 10 + (c - '0');
        if (number > std::numeric_limits<std::int32_t>::max())
            return std::nullopt;
    }
    return static_cast<std::int32_t>(number);
}

std::optional<std::int32_t> ordinal(std::string_view text) {
    constexpr std::array<std::int64_t, 3> kWeights = {1'000'000, 1'000, 1};
    std::int64_t sum = 0;
    for (std::size_t part = 0; !text.empty(); ++part) {
        const auto number = number_without_dots(text.substr(0, text.find('.')));
        if (part == kWeights.size() || !number || (part > 0 && *number > 999))
            return std::nullopt;
        sum += *number * kWeights[part];
        const auto dot = text.find('.');
        text.remove_prefix(dot == std::string_view::npos ? text.size() : dot + 1);
    }
    if (sum > std::numeric_limits<std::int32_t>::max())
        return std::nullopt;
    return static_cast<std::int32_t>(sum);
}

} // namespace

std::optional<VersionKind> parse_version_kind(std::string_view name) {
    for (const auto kind : {VersionKind::digits, VersionKind::major, VersionKind::ordinal}) {
        if (name == to_string(kind))
            return kind;
    }
    return std::nullopt;
}

const char* to_string(VersionKind kind) {
    switch (kind) {
    case VersionKind::digits:
        return "digits";
    case VersionKind::major:
        return "major";
    case VersionKind::ordinal:
        return "ordinal";
    }
    return "unknown";
}

std::optional<std::int32_t> version_number(std::string_view text, VersionKind kind) {
    if (!is_dotted_digits(text))
        return std::nullopt;
    switch (kind) {
    case VersionKind::digits:
        return number_without_dots(text);
    case VersionKind::major:
        return number_without_dots(text.substr(0, text.find('.')));
    case VersionKind::ordinal:
        return ordinal(text);
    }
    return std::nullopt;
}

} // namespace sqs_ingest
