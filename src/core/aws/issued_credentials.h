// Credentials that somebody issued for a time, and the JSON documents they come in.
#pragma once

#include "core/result.h"
#include "core/sqs/sigv4.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

struct IssuedCredentials {
    Credentials keys;
    std::optional<std::int64_t> expires_at_ms = {}; // since 1970, by the issuer's clock; empty: never
};

// What an issuer's document lacks or has too much of, as a sentence fragment: "is no JSON object",
// "has no SecretAccessKey". Never a part of the document: that may hold secrets.
using DocumentError = std::string;

// The document of the instance metadata service and of container credentials endpoints: AccessKeyId,
// SecretAccessKey, Token, Expiration. An instance metadata document whose Code is not "Success" is an error.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
Result<IssuedCredentials, DocumentError> parse_metadata_document(std::string_view text);

// What a credential_process prints: Version (1), AccessKeyId, SecretAccessKey, SessionToken, Expiration.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
Result<IssuedCredentials, DocumentError> parse_process_document(std::string_view text);

} // namespace sqs_ingest
