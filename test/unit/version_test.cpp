// version_number: what each kind makes of a version, and what is none.
#include "core/transform/version.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using enum VersionKind;

constexpr auto none = std::nullopt;

TEST(Version, digits_removes_the_dots) {
    EXPECT_EQ(version_number("2.3.0", digits), 230);
    EXPECT_EQ(version_number("0.96", digits), 96);
    EXPECT_EQ(version_number("26", digits), 26);
    EXPECT_EQ(version_number("1.2.3.4.5", digits), 12345);
    EXPECT_EQ(version_number("0", digits), 0);
}

TEST(Version, major_is_the_first_part) {
    EXPECT_EQ(version_number("2.3.0", major), 2);
    EXPECT_EQ(version_number("0.96", major), 0);
    EXPECT_EQ(version_number("26", major), 26);
    EXPECT_EQ(version_number("7.99999999999999999999", major), 7);
}

TEST(Version, ordinal_sorts_and_never_collides) {
    EXPECT_EQ(version_number("2.3.0", ordinal), 2'003'000);
    EXPECT_EQ(version_number("0.96", ordinal), 96'000);
    EXPECT_EQ(version_number("26", ordinal), 26'000'000);
    EXPECT_LT(version_number("2.9.0", ordinal), version_number("2.10.0", ordinal));
    EXPECT_NE(version_number("1.23.0", ordinal), version_number("12.3.0", ordinal));
}

TEST(Version, ordinal_refuses_what_would_collide) {
    EXPECT_EQ(version_number("1.2.3.4", ordinal), none);
    EXPECT_EQ(version_number("1.1000", ordinal), none);
    EXPECT_EQ(version_number("1.1.1000", ordinal), none);
    EXPECT_EQ(version_number("1.999.999", ordinal), 1'999'999);
}

TEST(Version, leading_zeros_are_allowed) {
    EXPECT_EQ(version_number("1.05", digits), 105);
    EXPECT_EQ(version_number("1.05", ordinal), 1'005'000);
    EXPECT_EQ(version_number("00000000000000000001", digits), 1);
}

TEST(Version, what_does_not_fit_32_bits_is_refused) {
    EXPECT_EQ(version_number("2.147.483.647", digits), 2147483647);
    EXPECT_EQ(version_number("2.147.483.648", digits), none);
    EXPECT_EQ(version_number("2147483648", major), none);
    EXPECT_EQ(version_number("2147.483.647", ordinal), 2147483647);
    EXPECT_EQ(version_number("2147.483.648", ordinal), none);
    EXPECT_EQ(version_number("2148", ordinal), none);
    EXPECT_EQ(version_number(std::string(10000, '9'), digits), none);
}

TEST(Version, anything_but_dotted_digits_is_none) {
    for (const auto* text : {"", ".", "1.", ".1", "1..2", "v1.2", "1.2-beta", "1.2 ", " 1.2", "-1", "+1",
                             "1,2", "1e5", "2.x", "\xD9\xA1"})
        for (const auto kind : {digits, major, ordinal})
            EXPECT_EQ(version_number(text, kind), none) << text;
}

TEST(Version, a_kind_is_read_as_it_is_written) {
    for (const auto kind : {digits, major, ordinal})
        EXPECT_EQ(parse_version_kind(to_string(kind)), kind);
    EXPECT_EQ(parse_version_kind("Digits"), none);
    EXPECT_EQ(parse_version_kind(""), none);
}

} // namespace
} // namespace sqs_ingest
