// The masking keys and what is derived from them. See docs/security.md for who can reach them.
#pragma once

#include "core/digest.h"
#include "core/result.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sqs_ingest {

// Key bytes in OpenSSL's secure heap (plain heap until CRYPTO_secure_malloc_init has run in this process),
// cleansed when they go. Movable, not copyable.
class SecretBytes {
  public:
    explicit SecretBytes(std::size_t size);
    SecretBytes(SecretBytes&& other) noexcept;
    SecretBytes& operator=(SecretBytes&& other) noexcept;
    SecretBytes(const SecretBytes&) = delete;
    SecretBytes& operator=(const SecretBytes&) = delete;
    ~SecretBytes();

    Bytes bytes() const { return {data_, size_}; }
    std::span<std::uint8_t> writable() { return {data_, size_}; }

  private:
    std::uint8_t* data_;
    std::size_t size_;
};

// The info of the siv subkey, and the associated data of every token.
inline constexpr std::string_view kSivInfo = "sqs_ingest/v1/siv";

// One line of the keyring. Only subkeys are kept: HKDF-SHA-256(master, empty salt, info).
struct MaskKey {
    std::uint32_t id;
    SecretBytes hmac; // 32 bytes, info "sqs_ingest/v1/hmac"
    SecretBytes siv;  // 64 bytes, info "sqs_ingest/v1/siv"
    SecretBytes seal; // 32 bytes, info "sqs_ingest/v1/seal"

    // Names the key and tells nothing about it: HMAC-SHA-256 of "sqs_ingest" under a subkey of its own (info
    // "sqs_ingest/v1/fingerprint"), 64 lower-case hex digits. No secret.
    std::string fingerprint;
};

class Keyring {
  public:
    // `text`: a key a line, `<id> <64 hex digits>`; ids 1..2^32-1, each once; `#` starts a comment; blank
    // lines are allowed; at least one key. The error says line number and what is wrong, never a key's
    // digits.
    static Result<Keyring, std::string> parse(std::string_view text);

    const MaskKey& primary() const { return keys_.back(); }    // the highest id
    const MaskKey* find(std::uint32_t id) const;               // nullptr: not in the ring
    const std::vector<MaskKey>& keys() const { return keys_; } // by ascending id

  private:
    std::vector<MaskKey> keys_;
};

} // namespace sqs_ingest
