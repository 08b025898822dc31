// The longest keyring in OpenSSL's secure heap, as large as each process of the server makes it.
#include "core/transform/keyring.h"
#include "core/transform/mask.h"

#include "reference_keyring.h"

#include <cstdio>
#include <gtest/gtest.h>
#include <openssl/crypto.h>

namespace sqs_ingest {
namespace {

constexpr std::size_t kHeap = 262144;    // kSecureMemory of pg/keyring.cpp
constexpr std::size_t kLongest = 65536;  // of a keyring file
constexpr std::uint32_t kMostKeys = 951; // as many as its bytes can hold

// The last key is another one with each `variant`.
std::string longest_text(unsigned variant = 0) {
    std::string text;
    for (std::uint32_t id = 1; id <= kMostKeys; ++id) {
        char digits[65];
        std::snprintf(digits, sizeof digits, "%064x", id == kMostKeys ? 0xabcd0000U + variant : id);
        text += std::to_string(id) + ' ' + digits + '\n';
    }
    return text;
}

// OpenSSL's secure heap belongs to the process: it is made for each test and taken down after it.
class SecureHeap : public ::testing::Test {
  protected:
    void SetUp() override {
        ASSERT_FALSE(CRYPTO_secure_malloc_initialized());
        ASSERT_NE(CRYPTO_secure_malloc_init(kHeap, 16),
                  0); // 2: not locked in memory, where that is not allowed
    }
    void TearDown() override { EXPECT_EQ(CRYPTO_secure_malloc_done(), 1) << CRYPTO_secure_used(); }
};

TEST_F(SecureHeap, the_longest_text_has_no_room_for_another_key) {
    EXPECT_LE(longest_text().size(), kLongest);
    EXPECT_GT(longest_text().size() + std::string("952 ").size() + 64, kLongest);
}

TEST_F(SecureHeap, it_holds_every_key_and_nothing_is_left_when_the_ring_goes) {
    {
        const auto ring = test::keyring_of(longest_text());
        ASSERT_EQ(ring.keys().size(), kMostKeys);
        for (const auto& key : ring.keys())
            for (const auto* secret : {&key.hmac, &key.siv, &key.seal})
                ASSERT_TRUE(CRYPTO_secure_allocated(secret->bytes().data())) << key.id;
        EXPECT_GE(CRYPTO_secure_used(), kMostKeys * 128);
    }
    EXPECT_EQ(CRYPTO_secure_used(), 0U);
}

TEST_F(SecureHeap, one_ring_can_replace_another_again_and_again) {
    auto ring = test::keyring_of(longest_text());
    const auto before = mask({}, &ring, "x");
    for (unsigned reload = 1; reload <= 10; ++reload) {
        auto next = Keyring::parse(longest_text(reload)); // both are there now
        ASSERT_TRUE(next.ok()) << next.error();
        ring = std::move(next).value();
        EXPECT_NE(mask({}, &ring, "x"), before);
    }
    EXPECT_EQ(ring.primary().id, kMostKeys);
}

TEST_F(SecureHeap, a_broken_text_leaves_nothing_behind) {
    EXPECT_FALSE(Keyring::parse(longest_text() + "952 x\n").ok());
    EXPECT_FALSE(Keyring::parse(longest_text() + test::kReferenceLine).ok());
    EXPECT_EQ(CRYPTO_secure_used(), 0U);
}

TEST_F(SecureHeap, what_does_not_fit_is_an_error_and_not_an_ordinary_heap) {
    const auto one = test::keyring_of(longest_text()), other = test::keyring_of(longest_text(1));
    const auto used = CRYPTO_secure_used();
    EXPECT_THROW((void)Keyring::parse(longest_text(2)), CryptoError);
    EXPECT_EQ(CRYPTO_secure_used(), used);
}

} // namespace
} // namespace sqs_ingest
