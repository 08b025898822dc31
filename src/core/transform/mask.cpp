#include "core/transform/mask.h"

#include "core/base64url.h"
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

// A value, cleansed when it goes.
class Plain {
  public:
    explicit Plain(std::string text) : text_(std::move(text)) {}
    ~Plain() { OPENSSL_cleanse(text_.data(), text_.size()); }
    Plain(const Plain&) = delete;
    Plain& operator=(const Plain&) = delete;
    std::string_view text() const { return text_; }

  private:
    std::string text_;
};

constexpr char kValueFollows = 0x01; // AES-SIV in OpenSSL takes no empty plaintext

std::string siv_token(const MaskKey& key, std::string_view value) {
    std::string marked;
    marked.reserve(value.size() + 1); // it never grows: that would leave copies behind
    marked += kValueFollows;
    marked += value;
    const Plain plain(std::move(marked));
    return "sv" + std::to_string(key.id) + '.' + base64url(siv_encrypt(key.siv.bytes(), kSivInfo, plain.text()));
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

UnmaskError not_a_token(std::string_view token) {
    if (token.starts_with("hm"))
        return {UnmaskError::Kind::not_a_token, "a mask of method hmac cannot be reversed",
                "Only tokens of method siv, which begin with \"sv\", can."};
    return {UnmaskError::Kind::not_a_token, "it is no token of method siv",
            "Such a token begins with \"sv\", the key id and a dot."};
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

std::vector<std::string> mask_candidates(const MaskMethod& method, const Keyring* keyring, std::string_view value) {
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
    auto marked = siv_decrypt(key->siv.bytes(), kSivInfo, parts->sealed);
    if (!marked || marked->front() != kValueFollows)
        return UnmaskError{UnmaskError::Kind::not_authentic,
                           "the token is not authentic: damaged, or made with another key of id " + id,
                           "Compare it with where it came from, and the keyring with its backup."};
    const Plain plain(std::move(*marked));
    return std::string(plain.text().substr(1));
}

Result<std::string, UnmaskError> rewrap(const Keyring& keyring, std::string_view token) {
    auto value = unmask(keyring, token);
    if (!value)
        return std::move(value).error();
    const Plain plain(std::move(value).value());
    return siv_token(keyring.primary(), plain.text());
}

} // namespace sqs_ingest
