// Which bytes are UTF-8, what becomes of others, and where a text is cut.
#include "core/utf8.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using namespace std::string_literals;

TEST(Utf8, well_formed_text_is_valid) {
    EXPECT_TRUE(is_valid_utf8(""));
    EXPECT_TRUE(is_valid_utf8("plain\0text"s));
    EXPECT_TRUE(is_valid_utf8("\xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80 \xEF\xBF\xBF"));
    EXPECT_TRUE(is_valid_utf8("\xF0\x90\x80\x80 \xF4\x8F\xBF\xBF"));
}

TEST(Utf8, malformed_text_is_not) {
    for (const auto* text :
         {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2 ", "\xE0\x9F\xBF", "\xE0\xA0", "\xE1\x80 ",
          "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x90\x80", "\xF1\x80\x80 ",
          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF"})
        EXPECT_FALSE(is_valid_utf8(text));
}

TEST(Utf8, length_counts_code_points) {
    EXPECT_EQ(utf8_length(""), 0U);
    EXPECT_EQ(utf8_length("abc"), 3U);
    EXPECT_EQ(utf8_length("é€\U0001F600"), 3U);
}

TEST(Utf8, a_byte_that_belongs_to_no_character_is_replaced) {
    EXPECT_EQ(replace_ill_formed_utf8("a\xC3\xA4z"), "a\xC3\xA4z");
    EXPECT_EQ(replace_ill_formed_utf8("a\xC3z"), "a\uFFFDz");
    EXPECT_EQ(replace_ill_formed_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
}

TEST(Utf8, a_text_is_cut_between_two_characters) {
    for (const auto& [bytes, left] : {std::pair(5u, "a€b"), {4u, "a€"}, {3u, "a"}, {1u, "a"}, {0u, ""}}) {
        std::string text = "a€b";
        truncate_utf8(text, bytes);
        EXPECT_EQ(text, left) << bytes;
    }
}

} // namespace
} // namespace sqs_ingest
