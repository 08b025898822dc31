// Our own parser and not inet_pton(): its leniency differs between systems, and the same text must get the
// same mask on all of them.
#include "core/transform/ip.h"

#include "core/hex_digit.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sqs_ingest {

namespace {

using Ipv4 = std::array<std::uint8_t, 4>;
using Ipv6 = std::array<std::uint16_t, 8>;

constexpr auto npos = std::string_view::npos;

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    for (std::size_t end; (end = text.find(separator)) != npos; text.remove_prefix(end + 1))
        parts.push_back(text.substr(0, end));
    parts.push_back(text);
    return parts;
}

// 0 to 255 without leading zeros, which some systems read as octal.
std::optional<std::uint8_t> parse_octet(std::string_view text) {
    if (text.empty() || text.size() > 3 || (text.size() > 1 && text[0] == '0'))
        return std::nullopt;
    int octet = 0;
    for (const char c : text) {
        if (c < '0' || c > '9')
            return std::nullopt;
        octet = octet * 10 + (c - '0');
    }
    if (octet > 255)
        return std::nullopt;
    return static_cast<std::uint8_t>(octet);
}

std::optional<Ipv4> parse_ipv4(std::string_view text) {
    const auto parts = split(text, '.');
    Ipv4 address{};
    if (parts.size() != address.size())
        return std::nullopt;
    for (std::size_t i = 0; i < address.size(); ++i) {
        const auto octet = parse_octet(parts[i]);
        if (!octet)
            return std::nullopt;
        address[i] = *octet;
    }
    return address;
}

// One to four hexadecimal digits.
std::optional<std::uint16_t> parse_group(std::string_view text) {
    if (text.empty() || text.size() > 4)
        return std::nullopt;
    unsigned group = 0;
    for (const char c : text) {
        const auto digit = hex_digit(c);
        if (!digit)
            return std::nullopt;
        group = group << 4 | *digit;
    }
    return static_cast<std::uint16_t>(group);
}

// The groups of one side of "::" (none when it is empty). `ipv4_tail`: the last one may be a dotted IPv4
// address.
std::optional<std::vector<std::uint16_t>> parse_groups(std::string_view text, bool ipv4_tail) {
    std::vector<std::uint16_t> groups;
    if (text.empty())
        return groups;
    const auto parts = split(text, ':');
    for (std::size_t i = 0; i < parts.size(); ++i) {
        const bool last = i + 1 == parts.size();
        if (const auto group = parse_group(parts[i])) {
            groups.push_back(*group);
        } else if (const auto tail = parse_ipv4(parts[i]); tail && last && ipv4_tail) {
            groups.push_back(static_cast<std::uint16_t>((*tail)[0] << 8 | (*tail)[1]));
            groups.push_back(static_cast<std::uint16_t>((*tail)[2] << 8 | (*tail)[3]));
        } else {
            return std::nullopt;
        }
    }
    return groups;
}

// RFC 4291, section 2.2.
std::optional<Ipv6> parse_ipv6(std::string_view text) {
    const auto gap = text.find("::");
    const auto head = parse_groups(text.substr(0, gap), gap == npos);
    const auto tail = parse_groups(gap == npos ? "" : text.substr(gap + 2), true);
    if (!head || !tail)
        return std::nullopt;

    Ipv6 address{};
    const std::size_t given = head->size() + tail->size();
    const bool complete =
        gap == npos ? given == address.size() : given < address.size(); // "::" is one group or more
    if (!complete)
        return std::nullopt;
    std::size_t at = 0;
    for (const auto group : *head)
        address[at++] = group;
    at = address.size() - tail->size();
    for (const auto group : *tail)
        address[at++] = group;
    return address;
}

// ::ffff:a.b.c.d: RFC 4291, section 2.5.5.2.
std::optional<Ipv4> mapped_ipv4(const Ipv6& address) {
    for (std::size_t i = 0; i < 5; ++i) {
        if (address[i] != 0)
            return std::nullopt;
    }
    if (address[5] != 0xFFFF)
        return std::nullopt;
    return Ipv4{static_cast<std::uint8_t>(address[6] >> 8), static_cast<std::uint8_t>(address[6]),
                static_cast<std::uint8_t>(address[7] >> 8), static_cast<std::uint8_t>(address[7])};
}

std::string write(const Ipv4& address) {
    return std::to_string(address[0]) + '.' + std::to_string(address[1]) + '.' + std::to_string(address[2]) +
           '.' + std::to_string(address[3]);
}

struct ZeroRun {
    std::size_t first = 0;
    std::size_t length = 0;
};

// What "::" stands for: the longest run of zero groups, the first of equals, never a single one (RFC 5952,
// section 4.2).
ZeroRun compressed_run(const Ipv6& address) {
    ZeroRun longest;
    ZeroRun run;
    for (std::size_t i = 0; i < address.size(); ++i) {
        if (address[i] != 0) {
            run = {};
            continue;
        }
        if (run.length++ == 0)
            run.first = i;
        if (run.length > longest.length)
            longest = run;
    }
    return longest.length > 1 ? longest : ZeroRun{};
}

void append_group(std::string& text, std::uint16_t group) {
    bool leading = true;
    for (int shift = 12; shift >= 0; shift -= 4) {
        const unsigned digit = group >> shift & 0xF;
        leading = leading && digit == 0 && shift > 0;
        if (!leading)
            text += "0123456789abcdef"[digit];
    }
}

std::string write(const Ipv6& address) {
    const ZeroRun run = compressed_run(address);
    std::string text;
    for (std::size_t i = 0; i < address.size();) {
        if (run.length > 0 && i == run.first) {
            text += "::";
            i += run.length;
            continue;
        }
        if (!text.empty() && text.back() != ':')
            text += ':';
        append_group(text, address[i++]);
    }
    return text;
}

} // namespace

std::optional<std::string> canonical_ip(std::string_view text) {
    constexpr std::size_t kLongest = 45; // eight groups of which the last two are written as IPv4
    if (text.size() > kLongest)
        return std::nullopt;
    if (const auto ipv4 = parse_ipv4(text))
        return write(*ipv4);
    const auto ipv6 = parse_ipv6(text);
    if (!ipv6)
        return std::nullopt;
    if (const auto ipv4 = mapped_ipv4(*ipv6))
        return write(*ipv4);
    return write(*ipv6);
}

} // namespace sqs_ingest
