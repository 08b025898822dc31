// The masking function: one piece of code for the worker and for SQL's mask().
#pragma once

#include "core/transform/keyring.h"

#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

struct MaskMethod {
    enum class Kind { hmac, sha256, md5 };
    Kind kind = Kind::hmac;
    int hex_digits = 64; // sha256 only: how many of its 64 hex digits are kept, 1..64

    bool needs_key() const { return kind == Kind::hmac; }
    bool operator==(const MaskMethod&) const = default;
};

// "hmac", "sha256", "sha256:N" with 1 <= N <= 64, "md5"; lower-case, no spaces. Empty for anything else.
std::optional<MaskMethod> parse_mask_method(std::string_view name);
std::string to_string(const MaskMethod& method);

// The token of `value`, UTF-8 taken byte for byte. hmac: "hm<id>." and 64 hex digits under the ring's primary
// key; sha256: 64 hex digits, or fewer; md5: 32. `keyring` may be null where !method.needs_key(). Throws
// CryptoError (md5 under FIPS too) and std::logic_error when a needed keyring is null.
std::string mask(const MaskMethod& method, const Keyring* keyring, std::string_view value);

} // namespace sqs_ingest
