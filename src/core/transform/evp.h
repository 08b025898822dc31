// What sealing (AES-GCM) and reversible masking (AES-SIV) share of OpenSSL's cipher interface.
#pragma once

#include "core/digest.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <climits>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace sqs_ingest::evp {

inline constexpr std::size_t kTagBytes = 16; // of both

using Context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

// OpenSSL's error queue is left empty: an entry of ours there would look like a TLS failure to whoever reads
// it next.
inline void require(bool ok, const char* what) {
    if (ok)
        return;
    ERR_clear_error();
    throw CryptoError(what);
}

// Freeing it cleanses the key that it was given.
inline Context new_context() {
    Context context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
    require(context != nullptr, "OpenSSL could not allocate a cipher context");
    return context;
}

inline int checked_size(std::string_view data) {
    require(data.size() <= INT_MAX - kTagBytes, "too long to be encrypted in one piece");
    return static_cast<int>(data.size());
}

inline const std::uint8_t* in(std::string_view text) {
    return as_bytes(text).data();
}

inline std::uint8_t* out(std::string& text, std::size_t at) {
    return reinterpret_cast<std::uint8_t*>(text.data()) + at;
}

} // namespace sqs_ingest::evp
