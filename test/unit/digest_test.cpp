// Digests against the examples of their standards.
#include "core/digest.h"

#include <gtest/gtest.h>

#include <vector>

namespace sqs_ingest {
namespace {

std::string hex_of(const std::optional<Md5Digest>& digest) {
    return digest ? hex(*digest) : "unavailable";
}

std::vector<std::uint8_t> derived(Bytes key, std::string_view info, std::size_t length) {
    std::vector<std::uint8_t> out(length);
    hkdf_sha256(key, info, out);
    return out;
}

TEST(Sha256, gives_the_digests_of_fips_180_4) {
    EXPECT_EQ(hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Md5, gives_the_digests_of_rfc_1321) {
    if (!md5(""))
        GTEST_SKIP() << "MD5 is not available here";
    EXPECT_EQ(hex_of(md5("")), "d41d8cd98f00b204e9800998ecf8427e");
    EXPECT_EQ(hex_of(md5("message digest")), "f96b697d7cb7938d525a2f31aaf161d0");
}

TEST(HmacSha256, gives_the_digests_of_rfc_4231) {
    const std::vector<std::uint8_t> first_key(20, 0x0b);
    EXPECT_EQ(hex(hmac_sha256(first_key, "Hi There")),
              "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    EXPECT_EQ(hex(hmac_sha256(as_bytes("Jefe"), "what do ya want for nothing?")),
              "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(HmacSha256, takes_keys_longer_than_a_block) {
    const std::vector<std::uint8_t> key(131, 0xaa);
    EXPECT_EQ(hex(hmac_sha256(key, "Test Using Larger Than Block-Size Key - Hash Key First")),
              "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(HmacSha256, an_empty_key_is_a_key_of_its_own_and_not_the_one_before) {
    const Sha256Digest other = hmac_sha256(as_bytes("another key"), "");
    const Sha256Digest empty = hmac_sha256({}, "");
    EXPECT_EQ(hex(empty), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
    EXPECT_NE(hex(empty), hex(other));
}

TEST(HkdfSha256, gives_the_key_of_rfc_5869_case_3) {
    const std::vector<std::uint8_t> input_key(22, 0x0b);
    EXPECT_EQ(hex(derived(input_key, "", 42)),
              "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
              "9d201395faa4b61a96c8");
}

TEST(HkdfSha256, another_info_gives_another_key) {
    EXPECT_NE(derived(as_bytes("key"), "masking", 32), derived(as_bytes("key"), "sealing", 32));
}

TEST(HkdfSha256, fills_up_to_8160_bytes_and_throws_beyond) {
    EXPECT_EQ(derived(as_bytes("key"), "", 8160).size(), 8160u);
    EXPECT_THROW(derived(as_bytes("key"), "", 8161), CryptoError);
    EXPECT_NO_THROW(derived(as_bytes("key"), "", 0));
}

TEST(RandomBytes, differ_from_call_to_call) {
    std::array<std::uint8_t, 32> first{}, second{};
    random_bytes(first);
    random_bytes(second);
    EXPECT_NE(first, second);
}

TEST(Hex, is_lower_case_and_keeps_leading_zeros) {
    const std::array<std::uint8_t, 3> bytes = {0x00, 0x0F, 0xA0};
    EXPECT_EQ(hex(bytes), "000fa0");
    EXPECT_EQ(hex({}), "");
}

} // namespace
} // namespace sqs_ingest
