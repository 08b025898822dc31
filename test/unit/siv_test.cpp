// AES-SIV against the examples of its RFC, and what it must refuse.
#include "core/hex_digit.h"
#include "core/transform/siv.h"

#include <gtest/gtest.h>
#include <openssl/err.h>

namespace sqs_ingest {
namespace {

std::string unhex(std::string_view digits) {
    std::string bytes;
    for (std::size_t i = 0; i < digits.size(); i += 2)
        bytes += static_cast<char>(*hex_digit(digits[i]) << 4 | *hex_digit(digits[i + 1]));
    return bytes;
}

// Bytes 00, 01, … as many as the key has.
std::string counted(std::size_t size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i)
        bytes += static_cast<char>(i);
    return bytes;
}

std::string encrypted(const std::string& key, SivAssociated associated, std::string_view plaintext) {
    return hex(as_bytes(siv_encrypt(as_bytes(key), associated, plaintext)));
}

TEST(Siv, gives_the_ciphertext_of_rfc_5297_a_1) {
    const auto key = unhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
    const auto associated = unhex("101112131415161718191a1b1c1d1e1f2021222324252627");
    const auto plaintext = unhex("112233445566778899aabbccddee");
    const std::string sealed = "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c";
    EXPECT_EQ(encrypted(key, {associated}, plaintext), sealed);
    EXPECT_EQ(siv_decrypt(as_bytes(key), {associated}, unhex(sealed)), plaintext);
}

TEST(Siv, gives_the_ciphertext_of_rfc_5297_a_2) {
    const auto key = unhex("7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f");
    const auto first =
        unhex("00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100");
    const auto second = unhex("102030405060708090a0");
    const auto nonce = unhex("09f911029d74e35bd84156c5635688c0");
    const std::string plaintext = "this is some plaintext to encrypt using SIV-AES";
    const std::string sealed =
        "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa66"
        "3b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d";
    EXPECT_EQ(encrypted(key, {first, second, nonce}, plaintext), sealed);
    EXPECT_EQ(siv_decrypt(as_bytes(key), {first, second, nonce}, unhex(sealed)), plaintext);
}

// Made with Python's cryptography package.
TEST(Siv, takes_keys_of_48_bytes_and_of_64_bytes) {
    EXPECT_EQ(encrypted(counted(48), {"x"}, "abc"), "21f5703a44741d192796aa3f6e00a1e0107c31");
    EXPECT_EQ(encrypted(counted(64), {"x"}, "abc"), "8a12de5b226e518ac3ca8336bbed9b029e9805");
}

TEST(Siv, a_key_of_another_size_is_an_error) {
    for (const std::size_t size : {0, 16, 31, 33, 63, 65, 128}) {
        EXPECT_THROW((void)siv_encrypt(as_bytes(counted(size)), {"x"}, "abc"), CryptoError) << size;
        EXPECT_THROW((void)siv_decrypt(as_bytes(counted(size)), {"x"}, counted(17)), CryptoError) << size;
    }
}

TEST(Siv, nothing_empty_is_taken) {
    const auto key = counted(64);
    EXPECT_THROW((void)siv_encrypt(as_bytes(key), {"x"}, ""), CryptoError);
    EXPECT_THROW((void)siv_encrypt(as_bytes(key), {}, "abc"), CryptoError);
    EXPECT_THROW((void)siv_encrypt(as_bytes(key), {"x", ""}, "abc"), CryptoError);
    EXPECT_EQ(siv_decrypt(as_bytes(key), {"x"}, ""), std::nullopt);
    EXPECT_EQ(siv_decrypt(as_bytes(key), {"x"}, counted(16)), std::nullopt);
}

TEST(Siv, equal_plaintexts_give_equal_ciphertexts_and_others_others) {
    const auto key = counted(64);
    EXPECT_EQ(encrypted(key, {"x"}, "abc"), encrypted(key, {"x"}, "abc"));
    EXPECT_NE(encrypted(key, {"x"}, "abc").substr(0, 32), encrypted(key, {"x"}, "abd").substr(0, 32));
    EXPECT_NE(encrypted(key, {"x"}, "abc").substr(0, 32), encrypted(key, {"y"}, "abc").substr(0, 32));
}

TEST(Siv, associated_data_counts_with_its_number_and_order) {
    const auto key = counted(64);
    const auto sealed = siv_encrypt(as_bytes(key), {"a", "b"}, "abc");
    EXPECT_EQ(siv_decrypt(as_bytes(key), {"a", "b"}, sealed), "abc");
    EXPECT_EQ(siv_decrypt(as_bytes(key), {"b", "a"}, sealed), std::nullopt);
    EXPECT_EQ(siv_decrypt(as_bytes(key), {"ab"}, sealed), std::nullopt);
    EXPECT_EQ(siv_decrypt(as_bytes(key), {"a"}, sealed), std::nullopt);
}

TEST(Siv, another_key_is_refused) {
    auto other = counted(64);
    const auto sealed = siv_encrypt(as_bytes(other), {"x"}, "abc");
    for (const std::size_t at : {0, 31, 32, 63}) {
        other = counted(64);
        other[at] = static_cast<char>(other[at] ^ 1);
        EXPECT_EQ(siv_decrypt(as_bytes(other), {"x"}, sealed), std::nullopt) << at;
    }
}

TEST(Siv, every_changed_bit_is_noticed) {
    const auto key = counted(64);
    const auto sealed = siv_encrypt(as_bytes(key), {"x"}, "199.172.111.135");
    for (std::size_t bit = 0; bit < sealed.size() * 8; ++bit) {
        auto changed = sealed;
        changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ 1 << bit % 8);
        EXPECT_EQ(siv_decrypt(as_bytes(key), {"x"}, changed), std::nullopt) << bit;
    }
}

TEST(Siv, every_cut_and_every_addition_is_noticed) {
    const auto key = counted(64);
    const auto sealed = siv_encrypt(as_bytes(key), {"x"}, "199.172.111.135");
    for (std::size_t size = 0; size < sealed.size(); ++size)
        EXPECT_EQ(siv_decrypt(as_bytes(key), {"x"}, sealed.substr(0, size)), std::nullopt) << size;
    EXPECT_EQ(siv_decrypt(as_bytes(key), {"x"}, sealed + '\0'), std::nullopt);
}

TEST(Siv, the_openssl_error_queue_stays_empty) {
    ERR_clear_error();
    const auto key = counted(64);
    EXPECT_EQ(siv_decrypt(as_bytes(key), {"x"}, counted(40)), std::nullopt);
    EXPECT_THROW((void)siv_encrypt(as_bytes(key), {"x"}, ""), CryptoError);
    EXPECT_EQ(ERR_peek_error(), 0U);
}

// A short text inside the string object would stay behind in each one that it was moved out of.
TEST(Siv, the_shortest_plaintext_is_in_a_heap_buffer_too) {
    const auto key = counted(64);
    auto plaintext = siv_decrypt(as_bytes(key), {"x"}, siv_encrypt(as_bytes(key), {"x"}, "a"));
    ASSERT_EQ(plaintext, "a");
    const char* const where = plaintext->data();
    const std::string moved = std::move(*plaintext);
    EXPECT_EQ(moved.data(), where);
}

} // namespace
} // namespace sqs_ingest
