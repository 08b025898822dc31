// base64url: one text for every string of bytes, and no other; and base64 as others write it.
#include "core/base64url.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using namespace std::string_literals;

std::string all_bytes() {
    std::string bytes;
    for (int byte = 0; byte < 256; ++byte)
        bytes += static_cast<char>(byte);
    return bytes;
}

TEST(Base64url, gives_the_texts_of_rfc_4648_without_padding) {
    const std::pair<const char*, const char*> vectors[] = {
        {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},         {"foo", "Zm9v"},
        {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}};
    for (const auto& [bytes, text] : vectors) {
        EXPECT_EQ(base64url(bytes), text);
        EXPECT_EQ(from_base64url(text), bytes);
    }
}

TEST(Base64url, its_last_two_digits_are_safe_in_urls) {
    EXPECT_EQ(base64url("\xFB\xFF"), "-_8");
    EXPECT_EQ(from_base64url("-_8"), "\xFB\xFF");
    for (const auto* text : {"+/8", "-/8", "+_8"})
        EXPECT_EQ(from_base64url(text), std::nullopt) << text;
}

TEST(Base64url, all_bytes_come_back_at_every_length) {
    const auto bytes = all_bytes();
    for (std::size_t size = 0; size <= bytes.size(); ++size)
        EXPECT_EQ(from_base64url(base64url(bytes.substr(bytes.size() - size))),
                  bytes.substr(bytes.size() - size));
}

TEST(Base64url, any_other_character_is_refused_wherever_it_stands) {
    const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (const char c : all_bytes()) {
        const bool digit = digits.find(c) != std::string::npos;
        for (std::size_t at = 0; at < 4; ++at) {
            std::string text = "Zm9v";
            text[at] = c;
            EXPECT_EQ(from_base64url(text).has_value(), digit) << int{static_cast<unsigned char>(c)};
        }
    }
}

TEST(Base64url, padding_and_space_are_refused) {
    for (const auto& text : {"Zg=="s, "Zm8="s, "="s, "===="s, " Zm9v"s, "Zm9v\n"s, "Zm\n9v"s, "Zm9v\0"s})
        EXPECT_EQ(from_base64url(text), std::nullopt) << text;
}

TEST(Base64url, a_length_that_no_bytes_have_is_refused) {
    for (const auto* text : {"A", "Zm9vA", "Zm9vZm9vA"})
        EXPECT_EQ(from_base64url(text), std::nullopt) << text;
}

TEST(Base64url, unused_bits_must_be_zero) {
    EXPECT_EQ(from_base64url("Zg"), "f");
    EXPECT_EQ(from_base64url("Zm8"), "fo");
    for (const auto* text : {"Zh", "Zi", "Zk", "Zo", "Zv", "Zm9", "Zm-", "Zm_"})
        EXPECT_EQ(from_base64url(text), std::nullopt) << text;
}

TEST(Base64, is_read_with_its_padding_only) {
    EXPECT_EQ(from_base64(""), "");
    EXPECT_EQ(from_base64("Zg=="), "f");
    EXPECT_EQ(from_base64("+/8="), "\xFB\xFF");
    for (const auto* text : {"Zg", "Zg=", "Zg===", "====", "Z=g=", "-_8=", "+_8=", "Zg==\n", " Zg=", "Zh=="})
        EXPECT_EQ(from_base64(text), std::nullopt) << text;
}

TEST(AnyBase64, is_read_in_either_alphabet_unpadded_or_broken_into_lines) {
    EXPECT_EQ(from_any_base64(""), "");
    for (const auto* text : {"+/8=", "-_8=", "+/8", "-_8", " +/\r\n8\t=\n"})
        EXPECT_EQ(from_any_base64(text), "\xFB\xFF") << text;
    for (const auto* text :
         {"=", "==", "====", "Z", "Zg=", "Zg===", "Zm9v==", "Z=g=", "+_8=", "Zh==", "Zg==Zg==", "Zg\v=="})
        EXPECT_EQ(from_any_base64(text), std::nullopt) << text;
}

} // namespace
} // namespace sqs_ingest
