#include "core/transform/siv.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include <climits>
#include <memory>

namespace sqs_ingest {

namespace {

using Context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

// OpenSSL's error queue is left empty: see digest.cpp.
void require(bool ok, const char* what = "AES-SIV failed in OpenSSL") {
    if (ok)
        return;
    ERR_clear_error();
    throw CryptoError(what);
}

// Fetched once and leaked: see digest.cpp.
const EVP_CIPHER* fetched(const char* name) {
    const EVP_CIPHER* cipher = EVP_CIPHER_fetch(nullptr, name, nullptr);
    require(cipher != nullptr, "OpenSSL has no AES-SIV");
    return cipher;
}

const EVP_CIPHER* cipher_for(Bytes key) {
    switch (key.size()) {
    case 32: {
        static const EVP_CIPHER* const cipher = fetched("AES-128-SIV");
        return cipher;
    }
    case 48: {
        static const EVP_CIPHER* const cipher = fetched("AES-192-SIV");
        return cipher;
    }
    case 64: {
        static const EVP_CIPHER* const cipher = fetched("AES-256-SIV");
        return cipher;
    }
    default:
        throw CryptoError("an AES-SIV key has 32, 48 or 64 bytes");
    }
}

Context new_context() {
    Context context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
    require(context != nullptr);
    return context;
}

int checked_size(std::string_view data) {
    if (data.size() > INT_MAX - kSivTagBytes)
        throw CryptoError("too long for AES-SIV in one piece");
    return static_cast<int>(data.size());
}

std::uint8_t* out(std::string& text, std::size_t at) {
    return reinterpret_cast<std::uint8_t*>(text.data()) + at;
}

} // namespace

std::string siv_encrypt(Bytes key, std::string_view associated, std::string_view plaintext) {
    const Context context = new_context();
    int written = 0;
    require(EVP_EncryptInit_ex2(context.get(), cipher_for(key), key.data(), nullptr, nullptr) == 1);
    require(EVP_EncryptUpdate(context.get(), nullptr, &written, as_bytes(associated).data(),
                              checked_size(associated)) == 1);
    std::string sealed(kSivTagBytes + plaintext.size(), '\0');
    require(EVP_EncryptUpdate(context.get(), out(sealed, kSivTagBytes), &written, as_bytes(plaintext).data(),
                              checked_size(plaintext)) == 1);
    require(EVP_EncryptFinal_ex(context.get(), out(sealed, 0), &written) == 1);
    require(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kSivTagBytes, out(sealed, 0)) == 1);
    return sealed;
}

std::optional<std::string> siv_decrypt(Bytes key, std::string_view associated, std::string_view sealed) {
    if (sealed.size() <= kSivTagBytes)
        return std::nullopt;
    std::string tag(sealed.substr(0, kSivTagBytes)); // OpenSSL wants it writable
    const auto ciphertext = sealed.substr(kSivTagBytes);
    const Context context = new_context();
    int written = 0;
    require(EVP_DecryptInit_ex2(context.get(), cipher_for(key), key.data(), nullptr, nullptr) == 1);
    require(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kSivTagBytes, out(tag, 0)) == 1);
    require(EVP_DecryptUpdate(context.get(), nullptr, &written, as_bytes(associated).data(),
                              checked_size(associated)) == 1);
    std::string plaintext(ciphertext.size(), '\0');
    // In one piece: this call authenticates.
    if (EVP_DecryptUpdate(context.get(), out(plaintext, 0), &written, as_bytes(ciphertext).data(),
                          checked_size(ciphertext)) != 1) {
        OPENSSL_cleanse(plaintext.data(), plaintext.size());
        ERR_clear_error();
        return std::nullopt;
    }
    return plaintext;
}

} // namespace sqs_ingest
