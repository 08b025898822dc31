#include "core/transform/seal.h"

#include "core/transform/evp.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <optional>

namespace sqs_ingest {

namespace {

using evp::checked_size;
using evp::Context;
using evp::in;
using evp::kTagBytes;
using evp::new_context;
using evp::out;

constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 5; // version and key id
constexpr std::size_t kNonceBytes = 12;

void require(bool ok) {
    evp::require(ok, "AES-256-GCM failed in OpenSSL");
}

std::string header(std::uint32_t key_id) {
    std::string text(1, static_cast<char>(kVersion));
    for (int shift = 24; shift >= 0; shift -= 8)
        text += static_cast<char>(key_id >> shift & 0xFF);
    return text;
}

// A sealed text, taken apart.
struct Sealed {
    std::uint32_t key_id = 0;
    std::string_view header, nonce, ciphertext, tag;
};

std::optional<Sealed> take_apart(std::string_view text) {
    if (text.size() < kHeaderBytes + kNonceBytes + kTagBytes || as_bytes(text)[0] != kVersion)
        return std::nullopt;
    Sealed sealed;
    sealed.header = text.substr(0, kHeaderBytes);
    for (const std::uint8_t byte : as_bytes(sealed.header.substr(1)))
        sealed.key_id = sealed.key_id << 8 | byte;
    sealed.nonce = text.substr(kHeaderBytes, kNonceBytes);
    sealed.ciphertext =
        text.substr(kHeaderBytes + kNonceBytes, text.size() - kHeaderBytes - kNonceBytes - kTagBytes);
    sealed.tag = text.substr(text.size() - kTagBytes);
    return sealed;
}

// Empty when it is not authentic; what was decrypted until then is cleansed.
std::optional<std::string> open(const MaskKey& key, std::string_view message_id, const Sealed& sealed) {
    const Context context = new_context();
    int written = 0;
    require(EVP_DecryptInit_ex2(context.get(), EVP_aes_256_gcm(), key.seal.bytes().data(), in(sealed.nonce),
                                nullptr) == 1);
    for (const auto associated : {sealed.header, message_id})
        require(EVP_DecryptUpdate(context.get(), nullptr, &written, in(associated),
                                  checked_size(associated)) == 1);

    std::string body(sealed.ciphertext.size(), '\0');
    require(EVP_DecryptUpdate(context.get(), out(body, 0), &written, in(sealed.ciphertext),
                              checked_size(sealed.ciphertext)) == 1);
    std::array<std::uint8_t, kTagBytes> tag; // OpenSSL wants it writable
    std::copy(sealed.tag.begin(), sealed.tag.end(), tag.begin());
    require(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes, tag.data()) == 1);
    if (EVP_DecryptFinal_ex(context.get(), out(body, body.size()), &written) != 1) {
        OPENSSL_cleanse(body.data(), body.size());
        ERR_clear_error();
        return std::nullopt;
    }
    return body;
}

} // namespace

std::string seal(const Keyring& keyring, std::string_view message_id, std::string_view body) {
    const MaskKey& key = keyring.primary();
    std::array<std::uint8_t, kNonceBytes> nonce;
    random_bytes(nonce);

    std::string sealed = header(key.id);
    const Context context = new_context();
    int written = 0;
    require(EVP_EncryptInit_ex2(context.get(), EVP_aes_256_gcm(), key.seal.bytes().data(), nonce.data(),
                                nullptr) == 1);
    for (const auto associated : {std::string_view(sealed), message_id})
        require(EVP_EncryptUpdate(context.get(), nullptr, &written, in(associated),
                                  checked_size(associated)) == 1);

    sealed.append(nonce.begin(), nonce.end());
    const std::size_t at = sealed.size();
    sealed.resize(at + body.size() + kTagBytes);
    const std::size_t tag_at = at + body.size();
    require(EVP_EncryptUpdate(context.get(), out(sealed, at), &written, in(body), checked_size(body)) == 1);
    require(EVP_EncryptFinal_ex(context.get(), out(sealed, tag_at), &written) == 1);
    require(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes, out(sealed, tag_at)) == 1);
    return sealed;
}

Result<std::string, UnsealError> unseal(const Keyring& keyring, std::string_view message_id,
                                        std::string_view sealed) {
    const auto parts = take_apart(sealed);
    if (!parts)
        return UnsealError{"it is no sealed message of this version"};
    const MaskKey* key = keyring.find(parts->key_id);
    if (key == nullptr)
        return UnsealError{"it was sealed under key id " + std::to_string(parts->key_id) +
                           ", which is not in the keyring"};
    auto body = open(*key, message_id, *parts);
    if (!body)
        return UnsealError{
            "it is not authentic: damaged, beside another message id, or sealed under another key"};
    return std::move(*body);
}

} // namespace sqs_ingest
