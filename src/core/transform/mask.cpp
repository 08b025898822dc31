#include "core/transform/mask.h"

#include <charconv>
#include <stdexcept>

namespace sqs_ingest {

namespace {

constexpr std::string_view kTruncatedSha256 = "sha256:";

std::string hmac_token(const MaskKey& key, std::string_view value) {
    return "hm" + std::to_string(key.id) + '.' + hex(hmac_sha256(key.hmac.bytes(), value));
}

} // namespace

std::optional<MaskMethod> parse_mask_method(std::string_view name) {
    if (name == "hmac")
        return MaskMethod{MaskMethod::Kind::hmac};
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
        if (keyring == nullptr)
            throw std::logic_error("masking method hmac needs a keyring");
        return hmac_token(keyring->primary(), value);
    case MaskMethod::Kind::sha256:
        return hex(sha256(value)).substr(0, static_cast<std::size_t>(method.hex_digits));
    case MaskMethod::Kind::md5:
        if (const auto digest = md5(value))
            return hex(*digest);
        throw CryptoError("masking method md5 is not available: OpenSSL runs in FIPS mode");
    }
    throw std::logic_error("unknown masking method");
}

} // namespace sqs_ingest
