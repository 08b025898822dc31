// unmask and rewrap: the way back from a token of method siv, for the right key and an untouched token only.
#include "core/base64url.h"
#include "core/transform/mask.h"
#include "core/transform/siv.h"

#include "reference_keyring.h"

#include <gtest/gtest.h>
#include <openssl/err.h>

namespace sqs_ingest {
namespace {

using namespace std::string_literals;
using Kind = UnmaskError::Kind;

constexpr MaskMethod kSiv{MaskMethod::Kind::siv};
constexpr char kIp[] = "199.172.111.135";
constexpr char kIpToken[] = "sv1.ILXOtPpzg32HJhIvC4BQIIWEqHYIPjJYCalEUfGMEYo";

const Keyring& ring() {
    static const Keyring ring = test::reference_keyring();
    return ring;
}
// The reference key, and a primary after it.
const Keyring& rotated() {
    static const Keyring ring = test::keyring_of(std::string(test::kReferenceLine) + test::kSecondLine);
    return ring;
}

std::string unmasked(const Keyring& keyring, std::string_view token) {
    const auto value = unmask(keyring, token);
    return value ? value.value() : "refused: " + value.error().message;
}

// unmask and rewrap refuse alike; empty when they do not refuse.
std::optional<Kind> refusal(const Keyring& keyring, std::string_view token) {
    const auto value = unmask(keyring, token);
    const auto wrapped = rewrap(keyring, token);
    EXPECT_EQ(value.ok(), wrapped.ok()) << token;
    if (value.ok() || wrapped.ok())
        return std::nullopt;
    EXPECT_EQ(value.error().message, wrapped.error().message);
    EXPECT_EQ(value.error().kind, wrapped.error().kind);
    return value.error().kind;
}

std::string token_of(std::string_view plaintext, std::string_view associated = kSivInfo) {
    return "sv1." + base64url(siv_encrypt(ring().primary().siv.bytes(), {associated}, plaintext));
}

TEST(Unmask, the_reference_tokens_give_their_values) {
    EXPECT_EQ(unmasked(ring(), kIpToken), kIp);
    EXPECT_EQ(unmasked(ring(), "sv1.8E9zgV1-fwT2aoVFEKw7mfkuFzCbK92xNYSZHw"), "593-47-5928");
    EXPECT_EQ(unmasked(ring(), "sv1.6yIWGjOxF85szKz4y24Tnuc"), "");
}

TEST(Unmask, every_value_comes_back) {
    for (const auto& value :
         {""s, "a"s, "Zürich 東京 🦊"s, "\x01"s, "\0"s, "a\0b"s, "\xFF\xFE"s, "sv1.x"s,
          std::string(14, 'x'), std::string(15, 'x'), std::string(16, 'x'), std::string(65536, 'x')})
        EXPECT_EQ(unmasked(ring(), mask(kSiv, &ring(), value)), value);
}

TEST(Unmask, every_changed_character_is_refused) {
    const std::string token = kIpToken;
    for (std::size_t i = 0; i < token.size(); ++i) {
        for (const char c : {'A', 'B', 'z', '0', '1', '2', '-', '_', '.', '=', ' ', '\0', '\x7F', '\xFF'}) {
            auto changed = token;
            changed[i] = c;
            if (changed == token)
                continue;
            EXPECT_NE(refusal(ring(), changed), std::nullopt) << i << ' ' << int{c};
        }
    }
}

TEST(Unmask, every_changed_bit_under_the_base64_is_not_authentic) {
    const auto sealed = from_base64url(std::string_view(kIpToken).substr(4)).value();
    for (std::size_t bit = 0; bit < sealed.size() * 8; ++bit) {
        auto changed = sealed;
        changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ 1 << bit % 8);
        EXPECT_EQ(refusal(ring(), "sv1." + base64url(changed)), Kind::not_authentic) << bit;
    }
}

TEST(Unmask, every_cut_is_refused) {
    const std::string token = kIpToken;
    for (std::size_t size = 0; size < token.size(); ++size)
        EXPECT_NE(refusal(ring(), token.substr(0, size)), std::nullopt) << size;
    EXPECT_NE(refusal(ring(), token.substr(1)), std::nullopt);
}

TEST(Unmask, another_key_under_the_same_id_is_refused) {
    const auto impostor = test::keyring_of("1 " + std::string(64, 'a'));
    EXPECT_EQ(refusal(impostor, kIpToken), Kind::not_authentic);
}

TEST(Unmask, a_token_moved_to_another_key_id_is_refused) {
    EXPECT_EQ(refusal(rotated(), "sv2." + std::string(kIpToken).substr(4)), Kind::not_authentic);
}

TEST(Unmask, a_key_that_is_not_in_the_ring_is_named) {
    const auto token = mask(kSiv, &rotated(), kIp);
    EXPECT_EQ(refusal(ring(), token), Kind::unknown_key);
    EXPECT_EQ(unmasked(ring(), token),
              "refused: the token was made under key id 2, which is not in the keyring");
    EXPECT_EQ(refusal(ring(), "sv4294967295." + std::string(kIpToken).substr(4)), Kind::unknown_key);
}

TEST(Unmask, a_key_id_has_one_spelling) {
    const auto sealed = std::string(kIpToken).substr(4);
    for (const auto* id : {"", "0", "01", "+1", "-1", " 1", "1 ", "0x1", "1.1", "1e0", "4294967296",
                           "4294967297", "99999999999999999999"})
        EXPECT_EQ(refusal(ring(), "sv"s + id + "." + sealed), Kind::not_a_token) << id;
}

TEST(Unmask, base64_that_mask_would_not_write_is_refused) {
    const std::string token = "sv1.8E9zgV1-fwT2aoVFEKw7mfkuFzCbK92xNYSZHw"; // 28 bytes: four bits unused
    for (const auto& other :
         {token.substr(0, token.size() - 1) + 'x', token + "==", token + "=", token + "\n", token + " ",
          token + "AAA", token.substr(0, 10) + '+' + token.substr(11)})
        EXPECT_EQ(refusal(ring(), other), Kind::not_a_token) << other;
}

TEST(Unmask, the_shortest_token_is_a_tag_and_one_byte) {
    EXPECT_EQ(refusal(ring(), "sv1." + base64url(std::string(16, 'x'))), Kind::not_a_token);
    EXPECT_EQ(refusal(ring(), "sv1." + base64url(std::string(17, 'x'))), Kind::not_authentic);
}

TEST(Unmask, what_is_no_token_is_refused) {
    for (const auto& text : {""s, "s"s, "sv"s, "sv1"s, "sv1."s, "sv."s, "sv.."s, "1."s, "SV1."s + kIpToken,
                             ""s + kIp, "sw1."s + (kIpToken + 4), " "s + kIpToken, "\0"s + kIpToken})
        EXPECT_EQ(refusal(ring(), text), Kind::not_a_token) << text;
    EXPECT_EQ(unmasked(ring(), kIp), "refused: it is no token of method siv");
}

TEST(Unmask, tokens_of_the_other_methods_cannot_be_reversed_and_that_is_said) {
    const auto hmac = mask({}, &ring(), kIp);
    EXPECT_EQ(refusal(ring(), hmac), Kind::not_a_token);
    EXPECT_EQ(unmasked(ring(), hmac), "refused: a token of method hmac cannot be reversed");
    for (const auto& digest :
         {mask({MaskMethod::Kind::sha256}, nullptr, kIp), "a56e7589b4b780605f7c614d13df6696"s}) {
        EXPECT_EQ(refusal(ring(), digest), Kind::not_a_token);
        EXPECT_EQ(unmasked(ring(), digest),
                  "refused: a digest, as of method sha256 or md5, cannot be reversed");
    }
}

TEST(Unmask, an_authentic_token_of_another_make_is_refused) {
    EXPECT_EQ(unmasked(ring(), token_of("\x01x")), "x");
    EXPECT_EQ(refusal(ring(), token_of("\x02x")), Kind::not_authentic);
    EXPECT_EQ(refusal(ring(), token_of("x")), Kind::not_authentic);
    EXPECT_EQ(refusal(ring(), token_of("\x01x", "sqs_ingest/v2/siv")), Kind::not_authentic);
}

TEST(Unmask, errors_help_and_show_nothing_of_the_token_but_its_key_id) {
    const auto impostor = test::keyring_of("1 " + std::string(64, 'a'));
    for (const auto& token : {std::string(kIpToken), "sv7." + std::string(kIpToken).substr(4),
                              mask({}, &ring(), kIp), "sv1.!" + std::string(kIpToken).substr(4)}) {
        const auto refused = unmask(impostor, token);
        ASSERT_FALSE(refused.ok());
        const auto& error = refused.error();
        EXPECT_TRUE(error.message[0] >= 'a' && error.message[0] <= 'z') << error.message;
        EXPECT_EQ(error.hint.back(), '.') << error.hint;
        for (std::size_t at = 3; at + 4 <= token.size(); ++at)
            EXPECT_EQ((error.message + error.hint).find(token.substr(at, 4)), std::string::npos);
    }
}

TEST(Unmask, the_openssl_error_queue_stays_empty) {
    ERR_clear_error();
    EXPECT_EQ(refusal(rotated(), "sv2." + std::string(kIpToken).substr(4)), Kind::not_authentic);
    EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST(Unmask, old_tokens_still_give_their_values_after_a_rotation) {
    EXPECT_EQ(unmasked(rotated(), kIpToken), kIp);
    EXPECT_EQ(unmasked(rotated(), mask(kSiv, &rotated(), kIp)), kIp);
}

TEST(Rewrap, an_old_token_becomes_what_mask_gives_now) {
    for (const auto& value : {""s, std::string(kIp), "Zürich 東京 🦊"s, std::string(65536, 'x')}) {
        const auto wrapped = rewrap(rotated(), mask(kSiv, &ring(), value));
        ASSERT_TRUE(wrapped.ok()) << wrapped.error().message;
        EXPECT_EQ(wrapped.value(), mask(kSiv, &rotated(), value));
    }
}

TEST(Rewrap, a_token_under_the_primary_key_stays_as_it_is) {
    const auto wrapped = rewrap(ring(), kIpToken);
    ASSERT_TRUE(wrapped.ok());
    EXPECT_EQ(wrapped.value(), kIpToken);
}

TEST(Rewrap, a_damaged_token_under_the_primary_key_is_refused_all_the_same) {
    std::string token = kIpToken;
    token[10] = token[10] == 'A' ? 'B' : 'A';
    EXPECT_EQ(refusal(ring(), token), Kind::not_authentic);
}

} // namespace
} // namespace sqs_ingest
