// Percent-encoding, as signatures and form-encoded requests need it.
#pragma once

#include <string>
#include <string_view>

namespace sqs_ingest {

// AWS's UriEncode: every byte but the unreserved ones (RFC 3986, 2.3), and but those of `kept`.
std::string uri_encode(std::string_view text, std::string_view kept = {});

// Adds `name=value` to a body of application/x-www-form-urlencoded; the name is one that needs no encoding.
void add_field(std::string& form, std::string_view name, std::string_view value);

} // namespace sqs_ingest
