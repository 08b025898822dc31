// AES-SIV (RFC 5297): deterministic authenticated encryption. Equal plaintexts give equal ciphertexts under one
// key, which is what masking needs, and tell nothing else.
#pragma once

#include "core/digest.h"

#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

inline constexpr std::size_t kSivTagBytes = 16;

// The synthetic IV (the tag, 16 bytes), then the ciphertext. `key`: 32, 48 or 64 bytes for AES-128, -192 and
// -256-SIV. One string of associated data. `plaintext` must not be empty: OpenSSL 3.0 refuses that. Throws
// CryptoError when OpenSSL fails.
std::string siv_encrypt(Bytes key, std::string_view associated, std::string_view plaintext);

// The plaintext, which the caller cleanses. Empty when `sealed` is not authentic, or too short.
std::optional<std::string> siv_decrypt(Bytes key, std::string_view associated, std::string_view sealed);

} // namespace sqs_ingest
