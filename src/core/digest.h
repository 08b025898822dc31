// Hashes, keyed hashes and text encodings of bytes, on OpenSSL 3. Shared by signing (sqs/) and masking
// (transform/). Every function throws CryptoError when OpenSSL itself fails.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace sqs_ingest {

struct CryptoError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

using Bytes = std::span<const std::uint8_t>;
using Sha256Digest = std::array<std::uint8_t, 32>;
using Md5Digest = std::array<std::uint8_t, 16>;

// The bytes of a text, without a copy.
Bytes as_bytes(std::string_view text);

// FIPS 180-4.
Sha256Digest sha256(std::string_view data);

// RFC 1321. Empty where MD5 is not available (FIPS providers).
std::optional<Md5Digest> md5(std::string_view data);

// RFC 2104 with SHA-256. The key may have any length.
Sha256Digest hmac_sha256(Bytes key, std::string_view data);

// RFC 5869 extract and expand with SHA-256 and an empty salt; fills all of `out` (at most 8160 bytes).
void hkdf_sha256(Bytes input_key, std::string_view info, std::span<std::uint8_t> out);

// Fills `out` from OpenSSL's CSPRNG.
void random_bytes(std::span<std::uint8_t> out);

// Lower-case hexadecimal, two characters a byte.
std::string hex(Bytes data);

} // namespace sqs_ingest
