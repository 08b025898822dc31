#include "core/sqs/url.h"

#include "core/hex_digit.h"
#include "core/text.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace sqs_ingest {

namespace {

// ASCII only, whatever the locale of the process.
bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// RFC 3986, 2.3 and 2.2.
bool is_unreserved_or_sub_delim(char c) {
    return is_digit(c) || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') ||
           std::string_view("-._~!$&'()*+,;=").find(c) != std::string_view::npos;
}

bool is_reg_name(std::string_view host) {
    return !host.empty() && std::all_of(host.begin(), host.end(), is_unreserved_or_sub_delim);
}

bool is_ipv6_literal(std::string_view host) {
    if (host.size() < 2 || host.front() != '[' || host.back() != ']')
        return false;
    const std::string address(host.substr(1, host.size() - 2));
    in6_addr parsed;
    return address.find('\0') == std::string::npos && inet_pton(AF_INET6, address.c_str(), &parsed) == 1;
}

bool is_path(std::string_view path) {
    for (std::size_t i = 0; i < path.size(); ++i) {
        const char c = path[i];
        const bool is_escape =
            c == '%' && i + 2 < path.size() && hex_digit(path[i + 1]) && hex_digit(path[i + 2]);
        if (!is_escape && !is_unreserved_or_sub_delim(c) && c != ':' && c != '@' && c != '/')
            return false;
    }
    return true;
}

std::uint16_t default_port(std::string_view scheme) {
    return scheme == "https" ? 443 : 80;
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
    std::uint16_t port = 0;
    const char* end = text.data() + text.size();
    const auto [parsed_to, error] = std::from_chars(text.data(), end, port);
    if (error != std::errc{} || parsed_to != end || port == 0)
        return std::nullopt;
    return port;
}

struct Authority {
    std::string_view host;
    std::string_view port; // empty: none, or an empty one (which RFC 3986 allows)
};

// The colons inside an IPv6 literal's brackets do not begin a port.
Authority split_authority(std::string_view authority) {
    const std::size_t bracket = authority.rfind(']');
    const std::size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
    if (colon == std::string_view::npos)
        return {authority, {}};
    return {authority.substr(0, colon), authority.substr(colon + 1)};
}

} // namespace

std::string Url::origin() const {
    return scheme + "://" + host_header();
}

std::string Url::host_header() const {
    if (port == 0 || port == default_port(scheme))
        return host;
    return host + ":" + std::to_string(port);
}

Result<Url, std::string> parse_url(std::string_view text) {
    const std::size_t separator = text.find("://");
    if (separator == std::string_view::npos)
        return std::string("has no scheme (http or https)");
    Url url;
    url.scheme = ascii_lower(text.substr(0, separator));
    if (url.scheme != "http" && url.scheme != "https")
        return std::string("has another scheme than http or https");
    text.remove_prefix(separator + 3);

    if (text.find('?') != std::string_view::npos)
        return std::string("has a query (the part after \"?\")");
    if (text.find('#') != std::string_view::npos)
        return std::string("has a fragment (the part after \"#\")");
    const std::size_t path_start = std::min(text.find('/'), text.size());
    const std::string_view authority = text.substr(0, path_start);
    url.path = text.substr(path_start);

    if (authority.find('@') != std::string_view::npos)
        return std::string("has a user name or a password (the part before \"@\")");
    const auto [host, port] = split_authority(authority);
    if (host.empty())
        return std::string("has no host");
    // No percent-encoded hosts: an HTTP client would decode them, and send another Host than the one that was
    // signed.
    if (!is_ipv6_literal(host) && !is_reg_name(host))
        return std::string("has a host that is no host name and no IP address");
    url.host = ascii_lower(host);
    if (!port.empty()) {
        const std::optional<std::uint16_t> number = parse_port(port);
        if (!number)
            return std::string("has a port that is no number from 1 to 65535");
        url.port = *number == default_port(url.scheme) ? 0 : *number;
    }
    if (!is_path(url.path))
        return std::string("has a character in its path that a URL cannot hold");
    return url;
}

bool is_region(std::string_view text) {
    constexpr std::size_t kMaxLabel = 63; // RFC 1035, 2.3.4
    return !text.empty() && text.size() <= kMaxLabel && std::all_of(text.begin(), text.end(), [](char c) {
        return is_digit(c) || (c >= 'a' && c <= 'z') || c == '-';
    });
}

} // namespace sqs_ingest
