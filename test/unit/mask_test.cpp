// mask: reference values of every method, made with independent implementations.
#include "core/transform/mask.h"

#include "reference_keyring.h"

#include <gtest/gtest.h>
#include <stdexcept>
#include <vector>

namespace sqs_ingest {
namespace {

using namespace std::string_literals;
using Kind = MaskMethod::Kind;

constexpr MaskMethod kHmac{Kind::hmac};
constexpr MaskMethod kSiv{Kind::siv};
constexpr MaskMethod kSha256{Kind::sha256};
constexpr MaskMethod kMd5{Kind::md5};

TEST(Mask, hmac_matches_the_reference_values) {
    const auto ring = test::reference_keyring();
    EXPECT_EQ(mask(kHmac, &ring, "199.172.111.135"),
              "hm1.e1d6621dd5242b11ae8af728593de86ea367875408e955ddaaa47a96b2c254a9");
    EXPECT_EQ(mask(kHmac, &ring, "593-47-5928"),
              "hm1.f310b0f44b7074899d3407c4edea3fdac8dc7c9d485d185bd65a89165a79458c");
    EXPECT_EQ(mask(kHmac, &ring, ""), "hm1.85e1908afa60bfe8ba9961cac185c3cae4c906dacabbecf45f45a2e5426cd68e");
}

TEST(Mask, hmac_uses_the_primary_key_and_names_it) {
    const auto ring = test::keyring_of(std::string(test::kReferenceLine) + test::kSecondLine);
    EXPECT_EQ(mask(kHmac, &ring, "x").substr(0, 4), "hm2.");
    const auto old_ring = test::reference_keyring();
    EXPECT_NE(mask(kHmac, &ring, "x").substr(4), mask(kHmac, &old_ring, "x").substr(4));
}

TEST(Mask, siv_matches_the_reference_values) {
    const auto ring = test::reference_keyring();
    EXPECT_EQ(mask(kSiv, &ring, "199.172.111.135"), "sv1.ILXOtPpzg32HJhIvC4BQIIWEqHYIPjJYCalEUfGMEYo");
    EXPECT_EQ(mask(kSiv, &ring, "593-47-5928"), "sv1.8E9zgV1-fwT2aoVFEKw7mfkuFzCbK92xNYSZHw");
    EXPECT_EQ(mask(kSiv, &ring, ""), "sv1.6yIWGjOxF85szKz4y24Tnuc");
    EXPECT_EQ(mask(kSiv, &ring, "Zürich 東京 🦊"),
              "sv1.Ryt54GgrWtViMIyKOV8koGiVCpRoHjcW8L-WS_wHaPytE2Qv");
}

TEST(Mask, siv_uses_the_primary_key_and_names_it) {
    const auto ring = test::keyring_of(std::string(test::kReferenceLine) + test::kSecondLine);
    EXPECT_EQ(mask(kSiv, &ring, "199.172.111.135"), "sv2.xBRH4OMIqa2GEblpsYYFr5s1_ortRNg1Azd0DeMLrQg");
}

TEST(Mask, equal_values_give_equal_tokens_and_others_others) {
    const auto ring = test::reference_keyring();
    const auto again = test::reference_keyring();
    for (const auto& method : {kHmac, kSiv}) {
        EXPECT_EQ(mask(method, &ring, "199.172.111.135"), mask(method, &again, "199.172.111.135"));
        EXPECT_NE(mask(method, &ring, "199.172.111.135"), mask(method, &ring, "199.172.111.136"));
    }
}

TEST(Mask, sha256_matches_fips_180_and_sha256sum) {
    EXPECT_EQ(mask(kSha256, nullptr, "abc"),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(mask(kSha256, nullptr, "199.172.111.135"),
              "a6d0e2f27f6111e10b06790db42f34123e724aa0fd24b280f4a0ef5ee986784c");
}

TEST(Mask, truncated_sha256_is_the_beginning_of_the_digest) {
    EXPECT_EQ(mask({Kind::sha256, 8}, nullptr, "199.172.111.135"), "a6d0e2f2");
    EXPECT_EQ(mask({Kind::sha256, 1}, nullptr, "199.172.111.135"), "a");
    EXPECT_EQ(mask({Kind::sha256, 64}, nullptr, "abc"), mask(kSha256, nullptr, "abc"));
}

TEST(Mask, md5_matches_md5sum) {
    if (!md5(""))
        GTEST_SKIP() << "OpenSSL has no MD5 here";
    EXPECT_EQ(mask(kMd5, nullptr, "199.172.111.135"), "a56e7589b4b780605f7c614d13df6696");
}

TEST(Mask, the_value_is_taken_byte_for_byte) {
    const auto ring = test::reference_keyring();
    for (const auto& method : {kHmac, kSiv, kSha256}) {
        EXPECT_NE(mask(method, &ring, "a"), mask(method, &ring, "A"));
        EXPECT_NE(mask(method, &ring, "a"), mask(method, &ring, " a"));
        EXPECT_NE(mask(method, &ring, "a"), mask(method, &ring, "a\0"s));
    }
}

TEST(Mask, a_needed_keyring_left_out_is_a_programming_error) {
    for (const auto& method : {kHmac, kSiv}) {
        EXPECT_THROW(mask(method, nullptr, "x"), std::logic_error);
        EXPECT_THROW(mask_candidates(method, nullptr, "x"), std::logic_error);
    }
}

TEST(MaskCandidates, are_the_tokens_under_every_key_by_descending_id) {
    const std::string third = "30 " + std::string(64, 'a') + '\n';
    const auto first = test::reference_keyring();
    const auto second = test::keyring_of(test::kSecondLine);
    const auto last = test::keyring_of(third);
    const auto ring = test::keyring_of(test::kSecondLine + third + test::kReferenceLine);
    for (const auto& method : {kHmac, kSiv})
        EXPECT_EQ(
            mask_candidates(method, &ring, "x"),
            (std::vector{mask(method, &last, "x"), mask(method, &second, "x"), mask(method, &first, "x")}));
}

TEST(MaskCandidates, begin_with_what_mask_gives) {
    const auto ring = test::keyring_of(std::string(test::kReferenceLine) + test::kSecondLine);
    for (const auto& method : {kHmac, kSiv})
        EXPECT_EQ(mask_candidates(method, &ring, "x").front(), mask(method, &ring, "x"));
}

TEST(MaskCandidates, without_a_key_there_is_one) {
    const auto ring = test::keyring_of(std::string(test::kReferenceLine) + test::kSecondLine);
    const std::vector only{mask(kSha256, nullptr, "x")};
    EXPECT_EQ(mask_candidates(kSha256, &ring, "x"), only);
    EXPECT_EQ(mask_candidates(kSha256, nullptr, "x"), only);
}

TEST(MaskMethod, a_method_is_read_as_it_is_written) {
    for (const auto* name : {"hmac", "siv", "sha256", "sha256:1", "sha256:8", "sha256:63", "md5"}) {
        const auto method = parse_mask_method(name);
        ASSERT_TRUE(method) << name;
        EXPECT_EQ(to_string(*method), name);
    }
    EXPECT_EQ(parse_mask_method("sha256:64"), parse_mask_method("sha256"));
}

TEST(MaskMethod, anything_else_is_none) {
    for (const auto* name : {"", "HMAC", " hmac", "hmac ", "sha256:", "sha256:0", "sha256:65", "sha256:08",
                             "sha256:-1", "sha256:+8", "sha256:8x", "sha256: 8", "sha256:99999999999",
                             "sha-256", "md5:8", "SIV", "siv ", "siv:8", "none"})
        EXPECT_EQ(parse_mask_method(name), std::nullopt) << name;
}

TEST(MaskMethod, hmac_and_siv_need_a_key) {
    EXPECT_TRUE(kHmac.needs_key());
    EXPECT_TRUE(kSiv.needs_key());
    EXPECT_FALSE(kSha256.needs_key());
    EXPECT_FALSE(kMd5.needs_key());
}

} // namespace
} // namespace sqs_ingest
