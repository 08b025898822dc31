#include "core/transform/siv.h"

#include "core/transform/evp.h"

#include <openssl/crypto.h>

#include <algorithm>

namespace sqs_ingest {

namespace {

using evp::checked_size;
using evp::Context;
using evp::in;
using evp::out;

void require(bool ok, const char* what = "AES-SIV failed in OpenSSL") {
    evp::require(ok, what);
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

enum class Direction { decrypt = 0, encrypt = 1 }; // as EVP_CipherInit_ex2 counts them

// A new one each time: a kept one would keep the key outside the secure heap.
Context keyed_context(Bytes key, Direction direction) {
    Context context = evp::new_context();
    require(EVP_CipherInit_ex2(context.get(), cipher_for(key), key.data(), nullptr,
                               static_cast<int>(direction), nullptr) == 1);
    return context;
}

void authenticate(EVP_CIPHER_CTX* context, SivAssociated associated) {
    require(associated.size() > 0, "AES-SIV needs associated data here");
    for (const auto text : associated) {
        int written = 0;
        require(!text.empty(), "AES-SIV takes no empty associated data here");
        require(EVP_CipherUpdate(context, nullptr, &written, in(text), checked_size(text)) == 1);
    }
}

// A text of `size` bytes that is never stored inside the string object.
std::string heap_text(std::size_t size) {
    std::string text;
    text.reserve(std::max(size, text.capacity() + 1));
    text.resize(size);
    return text;
}

} // namespace

std::string siv_encrypt(Bytes key, SivAssociated associated, std::string_view plaintext) {
    require(!plaintext.empty(), "AES-SIV takes no empty plaintext in OpenSSL");
    const Context context = keyed_context(key, Direction::encrypt);
    authenticate(context.get(), associated);

    int written = 0;
    std::string sealed(kSivTagBytes + plaintext.size(), '\0');
    // In one piece: the tag, which is the IV, depends on all of it.
    require(EVP_CipherUpdate(context.get(), out(sealed, kSivTagBytes), &written, in(plaintext),
                             checked_size(plaintext)) == 1);
    require(EVP_CipherFinal_ex(context.get(), out(sealed, sealed.size()), &written) == 1);
    require(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kSivTagBytes, out(sealed, 0)) == 1);
    return sealed;
}

std::optional<std::string> siv_decrypt(Bytes key, SivAssociated associated, std::string_view sealed) {
    if (sealed.size() <= kSivTagBytes)
        return std::nullopt;
    const auto ciphertext = sealed.substr(kSivTagBytes);
    std::string tag(sealed.substr(0, kSivTagBytes)); // OpenSSL wants it writable

    const Context context = keyed_context(key, Direction::decrypt);
    require(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kSivTagBytes, out(tag, 0)) == 1);
    authenticate(context.get(), associated);

    int written = 0;
    const int size = checked_size(ciphertext);
    std::string plaintext = heap_text(ciphertext.size());
    if (EVP_CipherUpdate(context.get(), out(plaintext, 0), &written, in(ciphertext), size) != 1 ||
        EVP_CipherFinal_ex(context.get(), out(plaintext, plaintext.size()), &written) != 1) {
        OPENSSL_cleanse(plaintext.data(), plaintext.size());
        ERR_clear_error();
        return std::nullopt;
    }
    return plaintext;
}

} // namespace sqs_ingest
