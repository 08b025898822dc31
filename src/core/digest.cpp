// Implements digest.h on OpenSSL's EVP interface.
//
// Hashing one field must cost little more than the hash: algorithms are fetched once a process and contexts
// are kept one a thread. Both are leaked on purpose: a destructor would run inside exit(), in an order this
// file does not control, and a Postgres process calls exit() from many places. So threads that hash must be
// few and long-lived.
#include "core/digest.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <climits>
#include <memory>

namespace sqs_ingest {

namespace {

// Takes OpenSSL's own reason, and leaves its error queue empty: a stale entry there would make libcurl's next
// TLS read look like a failure.
[[noreturn]] void fail(const char* what) {
    std::string message = what;
    if (const char* reason = ERR_reason_error_string(ERR_peek_last_error())) {
        message += ": ";
        message += reason;
    }
    ERR_clear_error();
    throw CryptoError(message);
}

template<typename Pointer>
Pointer require(Pointer pointer, const char* what) {
    if (pointer == nullptr)
        fail(what);
    return pointer;
}

const EVP_MD* fetched_sha256() {
    static const EVP_MD* const algorithm =
        require(EVP_MD_fetch(nullptr, "SHA256", nullptr), "OpenSSL has no SHA-256");
    return algorithm;
}

// Null where a FIPS provider is the only one.
const EVP_MD* fetched_md5() {
    static const EVP_MD* const algorithm = [] {
        ERR_set_mark();
        const EVP_MD* fetched = EVP_MD_fetch(nullptr, "MD5", nullptr);
        ERR_pop_to_mark();
        return fetched;
    }();
    return algorithm;
}

EVP_MD_CTX* digest_context() {
    thread_local EVP_MD_CTX* const context =
        require(EVP_MD_CTX_new(), "OpenSSL could not allocate a digest context");
    return context;
}

template<typename Digest>
Digest digest(const EVP_MD* algorithm, std::string_view data) {
    Digest out;
    EVP_MD_CTX* context = digest_context();
    if (EVP_DigestInit_ex2(context, algorithm, nullptr) != 1 ||
        EVP_DigestUpdate(context, data.data(), data.size()) != 1 ||
        EVP_DigestFinal_ex(context, out.data(), nullptr) != 1)
        fail("OpenSSL could not compute a digest");
    return out;
}

// The digest is set here, once: naming it in each EVP_MAC_init would fetch it each time.
EVP_MAC_CTX* new_hmac_sha256_context() {
    static EVP_MAC* const algorithm =
        require(EVP_MAC_fetch(nullptr, OSSL_MAC_NAME_HMAC, nullptr), "OpenSSL has no HMAC");
    EVP_MAC_CTX* context = require(EVP_MAC_CTX_new(algorithm), "OpenSSL could not allocate an HMAC context");
    char digest_name[] = "SHA256";
    const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest_name, 0),
                                     OSSL_PARAM_construct_end()};
    if (EVP_MAC_CTX_set_params(context, parameters) != 1) {
        EVP_MAC_CTX_free(context);
        fail("OpenSSL could not set up HMAC-SHA-256");
    }
    return context;
}

EVP_MAC_CTX* hmac_sha256_context() {
    thread_local EVP_MAC_CTX* const context = new_hmac_sha256_context();
    return context;
}

EVP_KDF* fetched_hkdf() {
    static EVP_KDF* const algorithm =
        require(EVP_KDF_fetch(nullptr, OSSL_KDF_NAME_HKDF, nullptr), "OpenSSL has no HKDF");
    return algorithm;
}

// OpenSSL reads a null key as "keep the key of the last call", so an empty one needs an address.
const std::uint8_t* address_of(Bytes key) {
    static const std::uint8_t nothing = 0;
    return key.empty() ? &nothing : key.data();
}

} // namespace

Bytes as_bytes(std::string_view text) {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

Sha256Digest sha256(std::string_view data) {
    return digest<Sha256Digest>(fetched_sha256(), data);
}

std::optional<Md5Digest> md5(std::string_view data) {
    const EVP_MD* algorithm = fetched_md5();
    if (algorithm == nullptr)
        return std::nullopt;
    return digest<Md5Digest>(algorithm, data);
}

Sha256Digest hmac_sha256(Bytes key, std::string_view data) {
    Sha256Digest out;
    std::size_t written = 0;
    EVP_MAC_CTX* context = hmac_sha256_context();
    if (EVP_MAC_init(context, address_of(key), key.size(), nullptr) != 1 ||
        EVP_MAC_update(context, as_bytes(data).data(), data.size()) != 1 ||
        EVP_MAC_final(context, out.data(), &written, out.size()) != 1 || written != out.size())
        fail("OpenSSL could not compute an HMAC");
    // The context keeps a copy of its key in plain memory: another one takes its place.
    if (EVP_MAC_init(context, address_of({}), 0, nullptr) != 1)
        fail("OpenSSL could not compute an HMAC");
    return out;
}

void hkdf_sha256(Bytes input_key, std::string_view info, std::span<std::uint8_t> out) {
    if (out.empty())
        return;
    const std::unique_ptr<EVP_KDF_CTX, decltype(&EVP_KDF_CTX_free)> context(
        require(EVP_KDF_CTX_new(fetched_hkdf()), "OpenSSL could not allocate an HKDF context"),
        EVP_KDF_CTX_free);
    char digest_name[] = "SHA256";
    // OSSL_PARAM has no const; EVP_KDF_derive only reads.
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest_name, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY,
                                          const_cast<std::uint8_t*>(address_of(input_key)), input_key.size()),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, const_cast<char*>(info.data()), info.size()),
        OSSL_PARAM_construct_end()};
    if (EVP_KDF_derive(context.get(), out.data(), out.size(), parameters) != 1)
        fail("OpenSSL could not derive a key");
}

void random_bytes(std::span<std::uint8_t> out) {
    if (out.size() > INT_MAX || RAND_bytes(out.data(), static_cast<int>(out.size())) != 1)
        fail("OpenSSL has no random bytes");
}

std::string hex(Bytes data) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text(data.size() * 2, '\0');
    for (std::size_t i = 0; i < data.size(); ++i) {
        text[2 * i] = digits[data[i] >> 4];
        text[2 * i + 1] = digits[data[i] & 0x0f];
    }
    return text;
}

} // namespace sqs_ingest
