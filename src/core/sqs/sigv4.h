// AWS Signature Version 4, for requests with a body in memory.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
#pragma once

#include <openssl/crypto.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sqs_ingest {

struct Credentials {
    std::string access_key_id;
    std::string secret_access_key;
    std::string session_token; // empty: long-term credentials

    Credentials() = default;
    Credentials(std::string id, std::string secret, std::string token = {})
        : access_key_id(std::move(id)), secret_access_key(std::move(secret)),
          session_token(std::move(token)) {}
    bool operator==(const Credentials&) const = default;

    // Every copy is wiped when it goes, and when another takes its place. There is no move: what it left
    // behind would not be wiped.
    Credentials(const Credentials&) = default;
    Credentials& operator=(Credentials other) noexcept {
        access_key_id.swap(other.access_key_id);
        secret_access_key.swap(other.secret_access_key);
        session_token.swap(other.session_token);
        return *this;
    }
    ~Credentials() {
        OPENSSL_cleanse(secret_access_key.data(), secret_access_key.size());
        OPENSSL_cleanse(session_token.data(), session_token.size());
    }
};

// Whether what HTTP headers carry of them is printable ASCII.
bool fit_in_headers(const Credentials& credentials);

using Headers = std::vector<std::pair<std::string, std::string>>;

struct RequestToSign {
    std::string_view method; // "POST"
    std::string_view path;   // absolute path as sent, may be percent-encoded
    std::string_view query;  // without '?', as sent
    Headers headers;         // all of them are signed; names in any case; host must be among them
    std::string_view body;
};

struct SigningScope {
    std::string_view region;
    std::string_view service;
    std::string_view amz_date; // "20150830T123600Z", the value of the x-amz-date header
    bool normalize_path = true;
};

// The steps, each public for the test vectors.
std::string canonical_request(const RequestToSign& request, const SigningScope& scope);
std::string string_to_sign(std::string_view canonical_request, const SigningScope& scope);
std::string signature(std::string_view string_to_sign, const Credentials& credentials,
                      const SigningScope& scope);

// The value of the Authorization header. Throws CryptoError only.
std::string authorization_header(const RequestToSign& request, const Credentials& credentials,
                                 const SigningScope& scope);

// "20150830T123600Z" of seconds since 1970, UTC.
std::string format_amz_date(long long epoch_seconds);

} // namespace sqs_ingest
