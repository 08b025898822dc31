// Endpoint and queue URLs.
#pragma once

#include "core/result.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

struct Url {
    std::string scheme;     // "http" or "https"
    std::string host;       // lower-case; an IPv6 address keeps its brackets
    std::uint16_t port = 0; // 0: the scheme's default
    std::string path;       // starts with '/', or empty

    // scheme://host[:port], without path: where requests go.
    std::string origin() const;
    // The Host header as an HTTP client sends it: the port only when it is not the scheme's default.
    std::string host_header() const;
};

// http and https only; user info, query and fragment are refused (RFC 3986 grammar otherwise, without
// percent-decoding). The error is a sentence fragment for people: "has no scheme (http or https)".
Result<Url, std::string> parse_url(std::string_view text);

// Whether a text can be the name of a region: lower-case letters, digits and hyphens, a label of a host. What
// is none must not become a part of one.
bool is_region(std::string_view text);

} // namespace sqs_ingest
