// IP addresses in one spelling, so that equal addresses get equal masks.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

// The canonical text of an IPv4 or IPv6 address: dotted decimal without leading zeros; IPv6 compressed
// lower-case (RFC 5952); IPv4-mapped IPv6 (::ffff:a.b.c.d) as the IPv4 address. Empty when `text` is no
// address: ports, zones (%eth0), prefixes (/24), spaces and octal or short IPv4 forms are none.
std::optional<std::string> canonical_ip(std::string_view text);

} // namespace sqs_ingest
