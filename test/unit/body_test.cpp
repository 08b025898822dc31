// parse_body: which bodies are refused, for which reason, and that none of them takes long.
#include "core/transform/body.h"

#include <ctime>
#include <gtest/gtest.h>
#include <string>

namespace sqs_ingest {
namespace {

using nlohmann::json;
using namespace std::string_literals;

std::string repeated(std::string_view text, std::size_t times) {
    std::string all;
    for (std::size_t i = 0; i < times; ++i)
        all += text;
    return all;
}

// The reason code, or "accepted".
std::string verdict(std::string_view body) {
    const auto parsed = parse_body(body);
    return parsed ? "accepted" : to_string(parsed.error().reason);
}

constexpr std::size_t kMebibyte = 1 << 20;

TEST(Body, an_object_is_parsed_with_all_types_of_values) {
    const auto body = parse_body(R"( {"s": "é\n\ud83d\ude00", "i": -5, "u": 18446744073709551615, "f": 2.5,
                                      "t": true, "n": null, "a": [1, [2], {"b": {}}]} )");
    ASSERT_TRUE(body.ok());
    EXPECT_EQ(body.value()["s"], "é\n\U0001F600");
    EXPECT_EQ(body.value()["i"], -5);
    EXPECT_EQ(body.value()["u"], 18446744073709551615U);
    EXPECT_EQ(body.value()["f"], 2.5);
    EXPECT_EQ(body.value()["t"], true);
    EXPECT_TRUE(body.value()["n"].is_null());
    EXPECT_EQ(body.value()["a"], json::parse(R"([1, [2], {"b": {}}])"));
}

TEST(Body, text_that_is_no_json_is_not_json) {
    for (const auto* body :
         {"", " ", "hello", "{", R"({"a")", R"({"a":1,})", R"({"a":1} x)", R"({"a":01})", "{'a':1}",
          R"({"a":"\x"})", R"({"a":"\u12g4"})", "{\"a\":\"\n\"}", R"({"a":NaN})", "[1,", "/**/{}"})
        EXPECT_EQ(verdict(body), "not_json") << body;
}

TEST(Body, a_zero_byte_does_not_end_the_text) {
    EXPECT_EQ(verdict("{}\0"s), "not_json");
    EXPECT_EQ(verdict("{}\0rest"s), "not_json");
    EXPECT_EQ(verdict("\0"s), "not_json");
    EXPECT_EQ(verdict("{\"a\": \"\0\"}"s), "not_json");
}

TEST(Body, an_escaped_zero_is_json) {
    EXPECT_EQ(verdict(R"({"a": "\u0000"})"), "accepted");
}

TEST(Body, json_that_is_no_object_is_not_object) {
    for (const auto* body : {"[]", R"([{"a": 1}])", "1", "\"text\"", "null", "true"})
        EXPECT_EQ(verdict(body), "not_object") << body;
}

TEST(Body, a_byte_order_mark_is_passed_over) {
    EXPECT_EQ(verdict("\xEF\xBB\xBF{}"), "accepted");
}

TEST(Body, bytes_that_are_no_utf8_are_invalid_utf8) {
    EXPECT_EQ(verdict("{\"a\": \"\xFF\"}"), "invalid_utf8");
    EXPECT_EQ(verdict("\xED\xA0\x80"), "invalid_utf8");
}

TEST(Body, a_lone_surrogate_is_invalid_utf8) {
    for (const auto* body :
         {R"({"a": "\ud83d"})", R"({"a": "\ude00"})", R"({"a": "\ud83dx"})", R"({"a": "\ud83d\n"})",
          R"({"a": "\ud83d\u0041"})", R"({"a": "\\\uDE00"})", R"({"a": "\ud83d\ud83d"})", R"({"\udc00": 1})"})
        EXPECT_EQ(verdict(body), "invalid_utf8") << body;
}

TEST(Body, an_escaped_backslash_before_a_surrogate_like_text_is_text) {
    EXPECT_EQ(verdict(R"({"a": "\\ud83d"})"), "accepted");
    EXPECT_EQ(verdict(R"({"a": "\\ud83d\x"})"), "not_json");
}

TEST(Body, a_duplicate_key_is_refused_at_any_level_without_being_named) {
    EXPECT_EQ(verdict(R"({"a": 1, "b": 2, "a": 1})"), "duplicate_key");
    EXPECT_EQ(verdict(R"({"x": [{"deep": {"a": 1, "a": 2}}]})"), "duplicate_key");
    EXPECT_EQ(verdict(R"({"a": 1, "\u0061": 2})"), "duplicate_key");
    EXPECT_EQ(parse_body(R"({"593-47-5928": 1, "593-47-5928": 1})").error().field, "");
}

TEST(Body, the_same_key_in_different_objects_is_fine) {
    EXPECT_EQ(verdict(R"({"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 1}]})"), "accepted");
}

TEST(Body, values_are_accepted_up_to_the_bound) {
    const auto holding = [](std::size_t values) { return R"({"a":[0)" + repeated(",{}", values - 3) + "]}"; };
    EXPECT_EQ(verdict(holding(kMaxValues)), "accepted");
    EXPECT_EQ(verdict(holding(kMaxValues + 1)), "too_large");
    EXPECT_EQ(verdict(R"({"a":[0)" + repeated(",0", kMaxValues) + "]}"), "too_large");
}

TEST(Body, nesting_is_accepted_up_to_the_bound) {
    const auto nested = [](std::size_t arrays) {
        return R"({"a":)" + repeated("[", arrays) + repeated("]", arrays) + "}";
    };
    EXPECT_EQ(verdict(nested(kMaxNesting - 1)), "accepted");
    EXPECT_EQ(verdict(nested(kMaxNesting)), "too_deep");
    EXPECT_EQ(verdict(repeated(R"({"a":)", kMaxNesting) + "1" + repeated("}", kMaxNesting)), "accepted");
    EXPECT_EQ(verdict(repeated(R"({"a":)", kMaxNesting + 1)), "too_deep");
}

TEST(Body, a_number_beyond_a_double_is_out_of_range) {
    EXPECT_EQ(verdict(R"({"a": 1e400})"), "number_out_of_range");
    EXPECT_EQ(verdict(R"({"a": -1e400})"), "number_out_of_range");
    EXPECT_EQ(verdict(R"({"a": )" + repeated("9", 400) + "}"), "number_out_of_range");
}

TEST(Body, a_long_integer_that_fits_a_double_is_accepted) {
    EXPECT_EQ(verdict(R"({"a": 123456789012345678901234567890})"), "accepted");
    EXPECT_EQ(verdict(R"({"a": 1e-400})"), "accepted"); // zero
}

TEST(Body, a_mebibyte_of_anything_is_answered_at_once) {
    const std::clock_t begin = std::clock(); // of the processor: a machine may be busy
    EXPECT_EQ(verdict(repeated("[", kMebibyte)), "too_deep");
    EXPECT_EQ(verdict(repeated("{\"a\":", kMebibyte / 5)), "too_deep");
    EXPECT_EQ(verdict("{\"a\":[" + repeated("0,", kMebibyte / 2) + "0]}"), "accepted");
    EXPECT_EQ(verdict("{\"a\":[" + repeated("[],", kMebibyte / 3) + "0]}"), "accepted");
    EXPECT_EQ(verdict("{\"a\":" + repeated("9", kMebibyte) + "}"), "number_out_of_range");
    EXPECT_EQ(verdict("{\"a\":0." + repeated("1", kMebibyte) + "}"), "accepted");
    EXPECT_EQ(verdict("{\"a\":\"" + repeated("\\u00e9", kMebibyte / 6) + "\"}"), "accepted");
    EXPECT_LT(std::clock() - begin, 5 * CLOCKS_PER_SEC);
}

TEST(Body, any_json_text_is_parsed_by_parse_json) {
    EXPECT_EQ(parse_json("[1, 2]").value(), json::parse("[1, 2]"));
    EXPECT_EQ(parse_json(R"([{"a": 1, "a": 1}])").error().reason, Reason::duplicate_key);
}

} // namespace
} // namespace sqs_ingest
