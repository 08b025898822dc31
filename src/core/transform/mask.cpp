#include "core/transform/mask.h"

#include "core/base64url.h"
#include "core/cleansed.h"
#include "core/transform/siv.h"

#include <openssl/crypto.h>

#include <charconv>
#include <stdexcept>

namespace sqs_ingest {

namespace {

constexpr std::string_view kTruncatedSha256 = "sha256:";

std::string hmac_token(const MaskKey& key, std::string_view value) {
    return "hm" + std::to_string(key.id) + '.' + hex(hmac_sha256(key.hmac.bytes(), value));
}

constexpr char kValueFollows = 0x01; // OpenSSL's AES-SIV takes no empty plaintext

std::string siv_token(const MaskKey& key, std::string_view value) {
    std::string plaintext;
    const Cleansed cleansed(plaintext);
    plaintext.reserve(1 + value.size()); // it never grows: that would leave a copy behind
    plaintext += kValueFollows;
    plaintext += value;
    return "sv" + std::to_string(key.id) + '.' +
           base64url(siv_encrypt(key.siv.bytes(), {kSivInfo}, plaintext));
}

std::string token_under(const MaskKey& key, const MaskMethod& method, std::string_view value) {
    return method.kind == MaskMethod::Kind::siv ? siv_token(key, value) : hmac_token(key, value);
}

// A siv token, taken apart.
struct SivToken {
    std::uint32_t key_id;
    std::string sealed;
};

std::optional<SivToken> take_apart(std::string_view token) {
    if (!token.starts_with("sv"))
        return std::nullopt;
    token.remove_prefix(2);
    const auto dot = token.find('.');
    if (dot == std::string_view::npos)
        return std::nullopt;
    SivToken parts{};
    const auto [end, error] = std::from_chars(token.data(), token.data() + dot, parts.key_id);
    if (error != std::errc() || end != token.data() + dot || token[0] == '0')
        return std::nullopt;
    auto sealed = from_base64url(token.substr(dot + 1));
    if (!sealed || sealed->size() <= kSivTagBytes)
        return std::nullopt;
    parts.sealed = std::move(*sealed);
    return parts;
}

// The value; empty when it is not authentic. It is moved, never copied: see siv_decrypt().
std::optional<std::string> open(const MaskKey& key, std::string_view sealed) {
    auto plaintext = siv_decrypt(key.siv.bytes(), {kSivInfo}, sealed);
    if (!plaintext)
        return std::nullopt;
    if (plaintext->front() != kValueFollows) {
        OPENSSL_cleanse(plaintext->data(), plaintext->size());
        return std::nullopt;
    }
    plaintext->erase(0, 1);
    return plaintext;
}

bool is_digest(std::string_view token, std::size_t digits) {
    return token.size() == digits && token.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_hmac_token(std::string_view token) {
    const auto dot = token.find('.');
    return token.starts_with("hm") && dot != std::string_view::npos && is_digest(token.substr(dot + 1), 64);
}

UnmaskError not_a_token(std::string_view token) {
    constexpr auto kind = UnmaskError::Kind::not_a_token;
    const char* const only_siv =
        "Only tokens of method siv, which begin with \"sv\", can be. To find a value "
        "that is known, compare with its mask_candidates().";
    if (is_hmac_token(token))
        return {kind, "a token of method hmac cannot be reversed", only_siv};
    if (is_digest(token, 64) || is_digest(token, 32))
        return {kind, "a digest, as of method sha256 or md5, cannot be reversed", only_siv};
    return {kind, "it is no token of method siv",
            "Such a token begins with \"sv\", the key id and a dot; all of it is needed."};
}

} // namespace

std::optional<MaskMethod> parse_mask_method(std::string_view name) {
    if (name == "hmac")
        return MaskMethod{MaskMethod::Kind::hmac};
    if (name == "siv")
        return MaskMethod{MaskMethod::Kind::siv};
    if (name == "sha256")
        return MaskMethod{MaskMethod::Kind::sha256};
    if (name == "md5")
        return MaskMethod{MaskMethod::Kind::md5};
    if (!name.starts_with(kTruncatedSha256))
        return std::nullopt;

    const auto digits = name.substr(kTruncatedSha256.size());
    int count = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
    const bool number = error == std::errc() && end == digits.data() + digits.size() && digits[0] != '0';
    if (!number || count < 1 || count > 64)
        return std::nullopt;
    return MaskMethod{MaskMethod::Kind::sha256, count};
}

std::string to_string(const MaskMethod& method) {
    switch (method.kind) {
    case MaskMethod::Kind::hmac:
        return "hmac";
    case MaskMethod::Kind::siv:
        return "siv";
    case MaskMethod::Kind::sha256:
        return method.hex_digits == 64 ? "sha256"
                                       : std::string(kTruncatedSha256) + std::to_string(method.hex_digits);
    case MaskMethod::Kind::md5:
        return "md5";
    }
    return "unknown";
}

std::string mask(const MaskMethod& method, const Keyring* keyring, std::string_view value) {
    switch (method.kind) {
    case MaskMethod::Kind::hmac:
    case MaskMethod::Kind::siv:
        if (keyring == nullptr)
            throw std::logic_error("this masking method needs a keyring");
        return token_under(keyring->primary(), method, value);
    case MaskMethod::Kind::sha256:
        return hex(sha256(value)).substr(0, static_cast<std::size_t>(method.hex_digits));
    case MaskMethod::Kind::md5:
        if (const auto digest = md5(value))
            return hex(*digest);
        throw CryptoError("masking method md5 is not available: OpenSSL runs in FIPS mode");
    }
    throw std::logic_error("unknown masking method");
}

std::vector<std::string> mask_candidates(const MaskMethod& method, const Keyring* keyring,
                                         std::string_view value) {
    if (!method.needs_key())
        return {mask(method, keyring, value)};
    if (keyring == nullptr)
        throw std::logic_error("this masking method needs a keyring");
    std::vector<std::string> tokens;
    for (auto key = keyring->keys().rbegin(); key != keyring->keys().rend(); ++key)
        tokens.push_back(token_under(*key, method, value));
    return tokens;
}

Result<std::string, UnmaskError> unmask(const Keyring& keyring, std::string_view token) {
    const auto parts = take_apart(token);
    if (!parts)
        return not_a_token(token);
    const std::string id = std::to_string(parts->key_id);
    const MaskKey* key = keyring.find(parts->key_id);
    if (key == nullptr)
        return UnmaskError{UnmaskError::Kind::unknown_key,
                           "the token was made under key id " + id + ", which is not in the keyring",
                           "Put that key back into the keyring, and reload."};
    auto value = open(*key, parts->sealed);
    if (!value)
        return UnmaskError{UnmaskError::Kind::not_authentic,
                           "the token is not authentic: damaged, or made with another key of id " + id,
                           "Compare it with where it came from, and the keyring with its backup."};
    return std::move(*value);
}

Result<std::string, UnmaskError> rewrap(const Keyring& keyring, std::string_view token) {
    auto value = unmask(keyring, token);
    if (!value)
        return std::move(value).error();
    const Cleansed cleansed(value.value());
    return siv_token(keyring.primary(), value.value());
}

} // namespace sqs_ingest
