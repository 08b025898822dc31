// seal and unseal: only the right keyring, the right message id and an untouched text open it.
#include "core/hex_digit.h"
#include "core/transform/seal.h"

#include "reference_keyring.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using namespace std::string_literals;

const std::string kBody = R"({"ip": "199.172.111.135"})";
constexpr std::size_t kOverhead = 1 + 4 + 12 + 16;

std::string opened(const Keyring& ring, std::string_view id, std::string_view sealed) {
    const auto body = unseal(ring, id, sealed);
    return body ? body.value() : "refused: " + body.error().message;
}

std::string unhex(std::string_view digits) {
    std::string bytes;
    for (std::size_t i = 0; i < digits.size(); i += 2)
        bytes += static_cast<char>(*hex_digit(digits[i]) << 4 | *hex_digit(digits[i + 1]));
    return bytes;
}

bool refused(const Keyring& ring, std::string_view id, std::string_view sealed) {
    return !unseal(ring, id, sealed).ok();
}

TEST(Seal, a_sealed_body_opens_again) {
    const auto ring = test::reference_keyring();
    for (const auto& body : {kBody, ""s, "\0\xFF"s, std::string(1 << 20, 'x')})
        EXPECT_EQ(opened(ring, "id-1", seal(ring, "id-1", body)), body);
}

TEST(Seal, the_layout_is_version_key_id_nonce_ciphertext_tag) {
    const auto ring = test::keyring_of("258 " + std::string(64, 'a'));
    const auto sealed = seal(ring, "id-1", kBody);
    EXPECT_EQ(sealed.size(), kBody.size() + kOverhead);
    EXPECT_EQ(sealed.substr(0, 5), "\x01\x00\x00\x01\x02"s);
    EXPECT_EQ(sealed.find("199.172"), std::string::npos);
}

// Made with Python's cryptography package, nonce 00, 01, … 0b.
TEST(Seal, a_body_sealed_elsewhere_opens) {
    const auto ring = test::reference_keyring();
    const auto sealed = unhex(
        "0100000001000102030405060708090a0b7adb382f1ca71f3f7e74fdf62115f1fe8c5ac2d3e3f781e0bde80d7a82dbee714c"
        "cd64e8e6018741d8");
    EXPECT_EQ(opened(ring, "id-1", sealed), kBody);
}

TEST(Seal, the_same_body_is_never_sealed_alike) {
    const auto ring = test::reference_keyring();
    EXPECT_NE(seal(ring, "id-1", kBody), seal(ring, "id-1", kBody));
}

TEST(Seal, it_opens_only_beside_its_own_message_id) {
    const auto ring = test::reference_keyring();
    const auto sealed = seal(ring, "id-1", kBody);
    for (const auto* id : {"id-2", "", "id-1 "})
        EXPECT_TRUE(refused(ring, id, sealed)) << id;
}

TEST(Seal, every_changed_byte_is_noticed) {
    const auto ring = test::reference_keyring();
    const auto sealed = seal(ring, "id-1", kBody);
    for (std::size_t i = 0; i < sealed.size(); ++i) {
        std::string changed = sealed;
        changed[i] = static_cast<char>(changed[i] ^ 1);
        EXPECT_TRUE(refused(ring, "id-1", changed)) << i;
    }
}

TEST(Seal, every_cut_is_noticed) {
    const auto ring = test::reference_keyring();
    const auto sealed = seal(ring, "id-1", kBody);
    for (std::size_t size = 0; size < sealed.size(); ++size)
        EXPECT_TRUE(refused(ring, "id-1", sealed.substr(0, size))) << size;
    EXPECT_TRUE(refused(ring, "id-1", sealed + "x"));
}

TEST(Seal, an_older_key_still_opens_after_rotation) {
    const auto old_ring = test::reference_keyring();
    const auto new_ring = test::keyring_of(std::string(test::kReferenceLine) + test::kSecondLine);
    EXPECT_EQ(opened(new_ring, "id-1", seal(old_ring, "id-1", kBody)), kBody);
    EXPECT_TRUE(refused(old_ring, "id-1", seal(new_ring, "id-1", kBody)));
}

TEST(Seal, errors_say_why_and_name_no_data) {
    const auto ring = test::reference_keyring();
    const auto stranger = test::keyring_of(test::kSecondLine);
    const auto impostor = test::keyring_of("1 " + std::string(64, 'a'));
    const auto sealed = seal(ring, "id-1", kBody);
    EXPECT_EQ(opened(stranger, "id-1", sealed),
              "refused: it was sealed under key id 1, which is not in the keyring");
    EXPECT_EQ(
        opened(impostor, "id-1", sealed),
        "refused: it is not authentic: damaged, beside another message id, or sealed under another key");
    EXPECT_EQ(opened(ring, "id-1", ""), "refused: it is no sealed message of this version");
    EXPECT_EQ(opened(ring, "id-1", "\x02" + sealed.substr(1)),
              "refused: it is no sealed message of this version");
}

} // namespace
} // namespace sqs_ingest
