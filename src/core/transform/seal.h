// Sealed originals: what became a dead letter, readable only with the keyring.
#pragma once

#include "core/result.h"
#include "core/transform/keyring.h"

#include <string>
#include <string_view>

namespace sqs_ingest {

// AES-256-GCM under the ring's primary seal subkey with a random 96-bit nonce (NIST SP 800-38D). Layout:
//   0x01 | key id, 4 bytes big-endian | nonce, 12 | ciphertext | tag, 16
// The additional data is the first 5 bytes and `message_id`, so a sealed body opens only beside its own id.
std::string seal(const Keyring& keyring, std::string_view message_id, std::string_view body);

struct UnsealError {
    std::string message; // for people; names no data: unknown key id, or not authentic
};

Result<std::string, UnsealError> unseal(const Keyring& keyring, std::string_view message_id,
                                        std::string_view sealed);

} // namespace sqs_ingest
