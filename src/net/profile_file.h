// The grammar of AWS shared files (~/.aws/config, ~/.aws/credentials).
// https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace sqs_ingest {

// An AWS shared file: sections of `key = value` lines, `#` and `;` comments. Section names as written without
// the brackets, nor quotes around the second part: "default", "profile x", "services y". Keys in lower case;
// those of a nested block ("sqs =" with deeper "endpoint_url = …") have their parent's name before them:
// "sqs.endpoint_url".
using Profile = std::map<std::string, std::string>;
using ProfileFile = std::map<std::string, Profile>;
ProfileFile parse_profile_file(std::string_view text);

// A key's value; empty: there is no such key, or no profile.
std::string value_of(const Profile* profile, const std::string& key);

} // namespace sqs_ingest
