// The keyring: its text, its subkeys, and the file it is kept in.
#include "core/transform/keyring.h"
#include "core/transform/keyring_file.h"

#include "reference_keyring.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <sstream>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

namespace sqs_ingest {
namespace {

using test::keyring_of;
using test::kReferenceLine;
using test::kSecondLine;
using Kind = KeyringFileError::Kind;

constexpr char kDigits[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

std::string error_of(const std::string& text) {
    const auto ring = Keyring::parse(text);
    return ring ? "accepted" : ring.error();
}

TEST(Keyring, the_highest_id_is_the_primary) {
    const auto ring = keyring_of(std::string(kSecondLine) + kReferenceLine);
    EXPECT_EQ(ring.primary().id, 2U);
    EXPECT_EQ(ring.keys().size(), 2U);
    EXPECT_EQ(ring.keys().front().id, 1U);
}

TEST(Keyring, keys_are_found_by_id) {
    const auto ring = keyring_of(std::string(kReferenceLine) + kSecondLine);
    ASSERT_NE(ring.find(1), nullptr);
    EXPECT_EQ(ring.find(1)->id, 1U);
    EXPECT_EQ(ring.find(3), nullptr);
}

// Made with Python's cryptography package.
TEST(Keyring, subkeys_match_the_reference_values) {
    const auto ring = test::reference_keyring();
    EXPECT_EQ(hex(ring.primary().hmac.bytes()),
              "024b1069a57707e4487dd785bfd2cc80f492bac7d1245a53de908190a1701000");
    EXPECT_EQ(hex(ring.primary().siv.bytes()),
              "40997c455dcaf77fcd74b1a716485be765d139f69551c197eb42269cb2114249"
              "ba93d1a1d0632dd140d9ed22609e2866d7f93a8e35bd246cb150a71693ad12e7");
    EXPECT_EQ(hex(ring.primary().seal.bytes()),
              "905a06d13de9e43c2b326b82b99022468b27cf2ba875134f9c03376e7bb4d8a6");
}

// Made with Python's cryptography package.
TEST(Keyring, fingerprints_match_the_reference_values) {
    EXPECT_EQ(test::reference_keyring().primary().fingerprint,
              "f818d1d304520232228a6a8e01b16281752cd3597f815a32c9710621fcc2b7fd");
    EXPECT_EQ(keyring_of(kSecondLine).primary().fingerprint,
              "2d816dc5325d1276b70018d7196b554b203febb6cc381b50ac9d6f7cbea83ade");
}

TEST(Keyring, a_fingerprint_names_the_key_whatever_its_id) {
    EXPECT_EQ(keyring_of("7 " + std::string(kDigits)).primary().fingerprint,
              test::reference_keyring().primary().fingerprint);
    EXPECT_NE(keyring_of("1 " + std::string(64, 'a')).primary().fingerprint,
              test::reference_keyring().primary().fingerprint);
}

TEST(Keyring, a_fingerprint_is_no_mask_of_its_constant) {
    const auto ring = test::reference_keyring();
    EXPECT_NE(hex(hmac_sha256(ring.primary().hmac.bytes(), "sqs_ingest")), ring.primary().fingerprint);
}

TEST(Keyring, comments_blank_lines_and_windows_line_ends_are_read) {
    const auto ring =
        keyring_of("# keys\r\n\r\n \t\n\t7 \t " + std::string(kDigits) + " # primary\r\n3 " + kDigits);
    EXPECT_EQ(ring.primary().id, 7U);
    EXPECT_EQ(ring.keys().size(), 2U);
}

TEST(Keyring, upper_case_digits_are_the_same_key) {
    std::string upper = kDigits;
    for (char& c : upper)
        c = static_cast<char>(std::toupper(c));
    EXPECT_EQ(hex(keyring_of("1 " + upper).primary().hmac.bytes()),
              hex(test::reference_keyring().primary().hmac.bytes()));
}

TEST(Keyring, the_whole_range_of_ids_is_accepted) {
    EXPECT_EQ(keyring_of("4294967295 " + std::string(kDigits)).primary().id, 4294967295U);
    for (const auto* id : {"0", "4294967296", "-1", "+1", "1x", "0x1", "x"})
        EXPECT_NE(error_of(std::string(id) + " " + kDigits).find("line 1: "), std::string::npos) << id;
}

TEST(Keyring, an_id_twice_is_refused) {
    EXPECT_EQ(error_of(std::string(kReferenceLine) + "\n" + kReferenceLine),
              "line 3: this key id is on an earlier line too");
}

TEST(Keyring, a_ring_without_keys_is_refused) {
    EXPECT_EQ(error_of(""), "there is no key in it");
    EXPECT_EQ(error_of("# 1 " + std::string(kDigits)), "there is no key in it");
}

TEST(Keyring, a_key_that_is_not_64_digits_is_refused_by_its_line) {
    const std::string digits = kDigits;
    for (const auto& line : {"1", "1 ", "1 00", "1 x", "1#"})
        EXPECT_EQ(error_of("# comment\n" + std::string(line)),
                  "line 2: expected 64 hexadecimal digits after the key id");
    EXPECT_NE(error_of("1 " + digits + "0"), "accepted");
    EXPECT_NE(error_of("1 " + digits + " " + digits), "accepted");
    EXPECT_NE(error_of("1 g" + digits.substr(1)), "accepted");
}

TEST(Keyring, no_error_repeats_digits_of_a_key) {
    const std::string digits = kDigits;
    for (const auto& text : {digits, "x " + digits, "1 " + digits + "0", "1" + digits, digits + " 1"})
        EXPECT_EQ(error_of(text).find("0102"), std::string::npos) << error_of(text);
}

TEST(SecretBytes, moving_leaves_nothing_behind) {
    SecretBytes first(4);
    first.writable()[0] = 42;
    SecretBytes second(std::move(first));
    EXPECT_EQ(second.bytes().size(), 4U);
    EXPECT_EQ(second.bytes()[0], 42);
    SecretBytes third(0);
    third = std::move(second);
    EXPECT_EQ(third.bytes()[0], 42);
}

// A directory of its own for each test, removed at its end.
class KeyringFile : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = (std::filesystem::temp_directory_path() / "keyring_test.XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        directory_ = name;
        path_ = directory_ + "/keyring";
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    void write(const std::string& text, mode_t mode = 0600) {
        std::ofstream(path_) << text;
        ASSERT_EQ(chmod(path_.c_str(), mode), 0);
    }

    KeyringFileError read_error() {
        auto ring = read_keyring_file(path_);
        EXPECT_FALSE(ring.ok());
        return std::move(ring).error();
    }

    std::string directory_;
    std::string path_;
};

TEST_F(KeyringFile, a_private_file_is_read) {
    write(kReferenceLine);
    const auto ring = read_keyring_file(path_);
    ASSERT_TRUE(ring.ok()) << ring.error().message;
    EXPECT_EQ(ring.value().primary().id, 1U);
}

TEST_F(KeyringFile, a_stricter_mode_is_fine) {
    write(kReferenceLine, 0400);
    EXPECT_TRUE(read_keyring_file(path_).ok());
}

TEST_F(KeyringFile, a_file_that_others_may_touch_is_refused) {
    for (const mode_t mode : {0640, 0604, 0620, 0602, 0610, 0601, 0644, 0666}) {
        write(kReferenceLine, mode);
        EXPECT_EQ(read_error().kind, Kind::unsafe);
    }
    EXPECT_EQ(read_error().message, "keyring file \"" + path_ + "\" has mode 0666");
    EXPECT_FALSE(read_error().hint.empty());
}

TEST_F(KeyringFile, a_file_of_another_user_is_refused) {
    write(kReferenceLine);
    if (chown(path_.c_str(), geteuid() + 1, static_cast<gid_t>(-1)) != 0)
        GTEST_SKIP() << "only root can give files away";
    EXPECT_EQ(read_error().kind, Kind::unsafe);
}

TEST_F(KeyringFile, a_symbolic_link_is_refused) {
    write(kReferenceLine);
    const std::string link = directory_ + "/link";
    ASSERT_EQ(symlink(path_.c_str(), link.c_str()), 0);
    const auto ring = read_keyring_file(link);
    ASSERT_FALSE(ring.ok());
    EXPECT_EQ(ring.error().kind, Kind::unsafe);
}

TEST_F(KeyringFile, what_is_no_regular_file_is_refused_without_waiting) {
    ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
    EXPECT_EQ(read_error().kind, Kind::unsafe);
    const auto ring = read_keyring_file(directory_);
    ASSERT_FALSE(ring.ok());
    EXPECT_EQ(ring.error().kind, Kind::unsafe);
}

TEST_F(KeyringFile, a_missing_file_is_missing) {
    EXPECT_EQ(read_error().kind, Kind::missing);
}

TEST_F(KeyringFile, a_path_through_a_file_is_unreadable) {
    write(kReferenceLine);
    const auto ring = read_keyring_file(path_ + "/keyring");
    ASSERT_FALSE(ring.ok());
    EXPECT_EQ(ring.error().kind, Kind::unreadable);
}

TEST_F(KeyringFile, a_malformed_file_says_where) {
    write("# comment\n1 " + std::string(kDigits) + "\n2 123\n");
    EXPECT_EQ(read_error().kind, Kind::malformed);
    EXPECT_NE(read_error().message.find("line 3: "), std::string::npos);
}

TEST_F(KeyringFile, a_file_up_to_64_kibibytes_is_read) {
    const std::string line = kReferenceLine;
    write(line + std::string(65536 - line.size(), '#'));
    EXPECT_TRUE(read_keyring_file(path_).ok());
    write(line + std::string(65537 - line.size(), '#'));
    EXPECT_EQ(read_error().kind, Kind::malformed);
}

TEST_F(KeyringFile, a_new_file_is_private_and_holds_one_key) {
    const auto made = create_keyring_file(path_);
    ASSERT_TRUE(made.ok()) << made.error().message;
    EXPECT_EQ(made.value().keys().size(), 1U);
    EXPECT_EQ(made.value().primary().id, 1U);

    struct stat status;
    ASSERT_EQ(stat(path_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600U);
    const auto again = read_keyring_file(path_);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(hex(again.value().primary().hmac.bytes()), hex(made.value().primary().hmac.bytes()));
}

TEST_F(KeyringFile, a_new_file_explains_itself) {
    ASSERT_TRUE(create_keyring_file(path_).ok());
    std::stringstream text;
    text << std::ifstream(path_).rdbuf();
    EXPECT_EQ(text.str()[0], '#');
    EXPECT_NE(text.str().find("Back it up"), std::string::npos);
    EXPECT_NE(text.str().find("higher id"), std::string::npos);
}

TEST_F(KeyringFile, two_new_files_hold_different_keys) {
    const auto one = create_keyring_file(path_);
    const auto two = create_keyring_file(path_ + "2");
    EXPECT_NE(hex(one.value().primary().hmac.bytes()), hex(two.value().primary().hmac.bytes()));
}

TEST_F(KeyringFile, an_existing_file_is_never_overwritten) {
    write(kReferenceLine);
    const auto made = create_keyring_file(path_);
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.error().kind, Kind::exists);
    EXPECT_EQ(hex(read_keyring_file(path_).value().primary().hmac.bytes()),
              hex(test::reference_keyring().primary().hmac.bytes()));
}

TEST_F(KeyringFile, a_dangling_link_is_not_followed_by_creation) {
    const std::string target = directory_ + "/target";
    ASSERT_EQ(symlink(target.c_str(), path_.c_str()), 0);
    EXPECT_FALSE(create_keyring_file(path_).ok());
    EXPECT_FALSE(std::filesystem::exists(target));
}

TEST_F(KeyringFile, creation_in_a_missing_directory_fails_with_the_reason) {
    const auto made = create_keyring_file(directory_ + "/nowhere/keyring");
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.error().kind, Kind::unreadable);
    EXPECT_NE(made.error().message.find("No such file or directory"), std::string::npos);
}

} // namespace
} // namespace sqs_ingest
