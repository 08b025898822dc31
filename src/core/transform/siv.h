// AES-SIV (RFC 5297): deterministic authenticated encryption. Equal plaintexts give equal ciphertexts under
// one key, which is what masking needs, and tell nothing else but their length.
#pragma once

#include "core/digest.h"

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

inline constexpr std::size_t kSivTagBytes = 16;

// Strings that are authenticated but not encrypted, in an order that counts. At least one, none of them
// empty: OpenSSL before 3.0.10 skips an empty one (CVE-2023-2975).
using SivAssociated = std::initializer_list<std::string_view>;

// The synthetic IV (the tag, 16 bytes), then the ciphertext, as long as the plaintext. `key`: 32, 48 or 64
// bytes for AES-128-, -192- and -256-SIV. `plaintext` must not be empty: OpenSSL refuses that. Throws
// CryptoError for input outside these rules, and when OpenSSL fails.
std::string siv_encrypt(Bytes key, SivAssociated associated, std::string_view plaintext);

// The plaintext, which the caller cleanses: in one heap buffer however short, so that moving it leaves
// nothing behind. Empty when `sealed` is not authentic, or too short. Throws as siv_encrypt() does.
std::optional<std::string> siv_decrypt(Bytes key, SivAssociated associated, std::string_view sealed);

} // namespace sqs_ingest
