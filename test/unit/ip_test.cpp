// canonical_ip: one spelling per address, and what is no address.
#include "core/transform/ip.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

std::string canonical(std::string_view text) {
    return canonical_ip(text).value_or("none");
}

TEST(Ip, an_ipv4_address_stays_as_it_is) {
    for (const auto* address : {"199.172.111.135", "0.0.0.0", "255.255.255.255", "10.0.100.1"})
        EXPECT_EQ(canonical(address), address);
}

TEST(Ip, what_is_not_exactly_four_plain_octets_is_no_ipv4_address) {
    for (const auto* text : {"",           "1",        "1.2.3",    "1.2.3.4.5",  "256.1.1.1",  "1.1.1.999",
                             "1.1.1.1000", "01.2.3.4", "1.2.3.04", "00.0.0.0",   "1..2.3",     ".1.2.3",
                             "1.2.3.",     "1.2.3.4 ", " 1.2.3.4", "1.2.3.4:80", "1.2.3.4/24", "0x1.2.3.4",
                             "1.2.3.a",    "-1.2.3.4", "+1.2.3.4", "1,2,3,4",    "localhost"})
        EXPECT_EQ(canonical(text), "none") << text;
}

TEST(Ip, ipv6_is_lower_case_without_leading_zeros) {
    EXPECT_EQ(canonical("2001:0DB8:0000:0001:000A:00AB:0ABC:ABCD"), "2001:db8:0:1:a:ab:abc:abcd");
    EXPECT_EQ(canonical("1:2:3:4:5:6:7:8"), "1:2:3:4:5:6:7:8");
}

// The examples of RFC 5952, section 4.
TEST(Ip, the_longest_run_of_zeros_is_compressed) {
    EXPECT_EQ(canonical("2001:db8:0:0:0:0:2:1"), "2001:db8::2:1");
    EXPECT_EQ(canonical("2001:db8:0:1:1:1:1:1"), "2001:db8:0:1:1:1:1:1"); // never a single group
    EXPECT_EQ(canonical("2001:db8::1:1:1:1:1"), "2001:db8:0:1:1:1:1:1");
    EXPECT_EQ(canonical("2001:0:0:1:0:0:0:1"), "2001:0:0:1::1");
    EXPECT_EQ(canonical("2001:db8:0:0:1:0:0:1"), "2001:db8::1:0:0:1"); // the first of equals
}

TEST(Ip, zeros_at_the_ends_are_compressed_too) {
    EXPECT_EQ(canonical("0:0:0:0:0:0:0:0"), "::");
    EXPECT_EQ(canonical("::"), "::");
    EXPECT_EQ(canonical("0:0:0:0:0:0:0:1"), "::1");
    EXPECT_EQ(canonical("1:0:0:0:0:0:0:0"), "1::");
    EXPECT_EQ(canonical("fe80:0::"), "fe80::");
    EXPECT_EQ(canonical("0:0:1:1:1:1:0:0"), "::1:1:1:1:0:0");
}

TEST(Ip, all_spellings_of_an_ipv6_address_become_one) {
    for (const auto* text : {"2001:db8::1", "2001:DB8::1", "2001:0db8::0001", "2001:db8:0:0:0:0:0:1",
                             "2001:db8::0:0:1", "2001:db8:0::0:1", "2001:db8::0.0.0.1"})
        EXPECT_EQ(canonical(text), "2001:db8::1") << text;
}

TEST(Ip, an_ipv4_mapped_address_is_the_ipv4_address) {
    EXPECT_EQ(canonical("::ffff:199.172.111.135"), "199.172.111.135");
    EXPECT_EQ(canonical("::FFFF:c7ac:6f87"), "199.172.111.135");
    EXPECT_EQ(canonical("0:0:0:0:0:ffff:199.172.111.135"), "199.172.111.135");
}

TEST(Ip, other_embedded_ipv4_addresses_stay_ipv6) {
    EXPECT_EQ(canonical("64:ff9b::192.0.2.33"), "64:ff9b::c000:221");
    EXPECT_EQ(canonical("::192.0.2.33"), "::c000:221");
}

TEST(Ip, what_is_no_ipv6_address_has_no_canonical_form) {
    for (const auto* text : {":",
                             ":::",
                             "1",
                             "1:2",
                             "1:2:3:4:5:6:7",
                             "1:2:3:4:5:6:7:8:9",
                             "1::2::3",
                             ":1:2:3:4:5:6:7",
                             "1:2:3:4:5:6:7:",
                             "1:2:3:4:5:6:7:8::",
                             "::1:2:3:4:5:6:7:8",
                             "1::2:3:4:5:6:7:8",
                             "12345::",
                             "g::",
                             "fe80::1%eth0",
                             "2001:db8::/32",
                             "[::1]",
                             "[::1]:80",
                             "::1 ",
                             "::1.2.3",
                             "::1.2.3.4:1",
                             "1.2.3.4::",
                             "1:2:3:4:5:6:7:1.2.3.4",
                             "::ffff:1.2.3.04",
                             "0x1::",
                             "::-1"})
        EXPECT_EQ(canonical(text), "none") << text;
}

TEST(Ip, the_longest_spelling_is_still_read) {
    EXPECT_EQ(canonical("0000:0000:0000:0000:0000:ffff:199.172.111.135"), "199.172.111.135");
    EXPECT_EQ(canonical("ABCD:ABCD:ABCD:ABCD:ABCD:ABCD:192.168.158.190"),
              "abcd:abcd:abcd:abcd:abcd:abcd:c0a8:9ebe");
}

TEST(Ip, a_canonical_form_is_its_own) {
    for (const auto* text : {"1.2.3.4", "::", "::1", "2001:db8::2:1", "64:ff9b::c000:221"})
        EXPECT_EQ(canonical(canonical(text)), canonical(text));
}

} // namespace
} // namespace sqs_ingest
