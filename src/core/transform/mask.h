// The masking function: one piece of code for the worker and for SQL's mask().
#pragma once

#include "core/transform/keyring.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sqs_ingest {

struct MaskMethod {
    enum class Kind { hmac, siv, sha256, md5 };
    Kind kind = Kind::hmac;
    int hex_digits = 64; // sha256 only: how many of its 64 hex digits are kept, 1..64

    bool needs_key() const { return kind == Kind::hmac || kind == Kind::siv; }
    bool operator==(const MaskMethod&) const = default;
};

// "hmac", "siv", "sha256", "sha256:N" with 1 <= N <= 64, "md5"; lower-case, no spaces. Empty for anything
// else.
std::optional<MaskMethod> parse_mask_method(std::string_view name);
std::string to_string(const MaskMethod& method);

// The token of `value`, UTF-8 taken byte for byte. hmac: "hm<id>." and 64 hex digits under the ring's primary
// key; siv: "sv<id>." and the base64url of AES-256-SIV (RFC 5297) of 0x01 and the value, which unmask() takes
// back; sha256: 64 hex digits, or fewer; md5: 32. `keyring` may be null where !method.needs_key(). Throws
// CryptoError (md5 under FIPS too) and std::logic_error when a needed keyring is null.
std::string mask(const MaskMethod& method, const Keyring* keyring, std::string_view value);

// The tokens of `value` under every key of the ring, the primary one's first, then by descending id: for
// look-ups after a rotation. For a method without a key the one token.
std::vector<std::string> mask_candidates(const MaskMethod& method, const Keyring* keyring,
                                         std::string_view value);

struct UnmaskError {
    enum class Kind {
        not_a_token,   // no token of method siv
        unknown_key,   // its key is not in the ring
        not_authentic, // damaged, or made with another key of that id
    };
    Kind kind;
    std::string message; // for people; names no data but the key's id
    std::string hint;
};

// The value of a token that mask() made with method siv. It is plain: the caller cleanses it. Taken strictly:
// "sv", a decimal id without leading zeros, a dot, canonical base64url without padding of at least 17 bytes.
Result<std::string, UnmaskError> unmask(const Keyring& keyring, std::string_view token);

// The token under the ring's primary key, its value never leaving this function. One that is under it already
// comes back as it is, after it was found authentic.
Result<std::string, UnmaskError> rewrap(const Keyring& keyring, std::string_view token);

} // namespace sqs_ingest
