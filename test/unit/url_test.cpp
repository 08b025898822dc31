// Which texts are endpoint or queue URLs, and which region a host name tells.
#include "core/sqs/url.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

Url parsed(std::string_view text) {
    Result<Url, std::string> url = parse_url(text);
    EXPECT_TRUE(url.ok()) << text << " " << url.error();
    return url.ok() ? url.value() : Url{};
}

std::string refusal(std::string_view text) {
    const Result<Url, std::string> url = parse_url(text);
    return url.ok() ? "" : url.error();
}

TEST(ParseUrl, takes_a_queue_url_apart) {
    const Url url = parsed("https://sqs.us-east-1.amazonaws.com/123456789012/login-queue");
    EXPECT_EQ(url.scheme, "https");
    EXPECT_EQ(url.host, "sqs.us-east-1.amazonaws.com");
    EXPECT_EQ(url.port, 0);
    EXPECT_EQ(url.path, "/123456789012/login-queue");
    EXPECT_EQ(url.origin(), "https://sqs.us-east-1.amazonaws.com");
    EXPECT_EQ(url.host_header(), "sqs.us-east-1.amazonaws.com");
}

TEST(ParseUrl, keeps_a_port_and_names_it_in_the_host_header) {
    const Url url = parsed("http://localhost:9324");
    EXPECT_EQ(url.port, 9324);
    EXPECT_EQ(url.path, "");
    EXPECT_EQ(url.origin(), "http://localhost:9324");
    EXPECT_EQ(url.host_header(), "localhost:9324");
}

TEST(ParseUrl, the_default_port_said_aloud_is_still_the_default) {
    EXPECT_EQ(parsed("https://example.com:443/").port, 0);
    EXPECT_EQ(parsed("http://example.com:80/").host_header(), "example.com");
    EXPECT_EQ(parsed("http://example.com:/q").port, 0);
    EXPECT_EQ(parsed("http://example.com:443/").host_header(), "example.com:443");
}

TEST(ParseUrl, scheme_and_host_are_case_insensitive_but_the_path_is_not) {
    const Url url = parsed("HTTPS://SQS.Example.COM/000000000000/Login-Queue.fifo");
    EXPECT_EQ(url.origin(), "https://sqs.example.com");
    EXPECT_EQ(url.path, "/000000000000/Login-Queue.fifo");
}

TEST(ParseUrl, an_ipv6_host_keeps_its_brackets) {
    EXPECT_EQ(parsed("http://[2001:DB8::1]:4566/q").host_header(), "[2001:db8::1]:4566");
    EXPECT_EQ(parsed("http://[::1]").host, "[::1]");
}

TEST(ParseUrl, refuses_other_schemes) {
    EXPECT_EQ(refusal("sqs.us-east-1.amazonaws.com/1/q"), "has no scheme (http or https)");
    EXPECT_EQ(refusal(""), "has no scheme (http or https)");
    EXPECT_EQ(refusal("ftp://example.com"), "has another scheme than http or https");
    EXPECT_EQ(refusal(" https://example.com"), "has another scheme than http or https");
}

TEST(ParseUrl, refuses_what_would_carry_a_secret_or_be_dropped) {
    EXPECT_NE(refusal("https://user:secret@example.com/"), "");
    EXPECT_NE(refusal("https://example.com/q?Action=Receive"), "");
    EXPECT_NE(refusal("https://example.com/q#top"), "");
}

TEST(ParseUrl, never_quotes_the_password_it_refuses) {
    EXPECT_EQ(refusal("https://user:secret@example.com/").find("secret"), std::string::npos);
}

TEST(ParseUrl, refuses_hosts_that_are_none) {
    for (const char* text :
         {"http://", "http:///q", "http://:80/", "http://exa mple.com/", "http://[::1", "http://::1/",
          "http://[::1]x/", "http://[fe80::1%25eth0]/", "http://[]/", "http://exa%6Dple.com/",
          "http://b\xC3\xBC"
          "cher.de/"})
        EXPECT_NE(refusal(text), "") << text;
}

TEST(ParseUrl, refuses_ports_out_of_range) {
    for (const char* text :
         {"http://h:0/", "http://h:65536/", "http://h:80a/", "http://h:-1/", "http://h:1:2/"})
        EXPECT_EQ(refusal(text), "has a port that is no number from 1 to 65535") << text;
    EXPECT_EQ(parsed("http://h:65535").port, 65535);
}

TEST(ParseUrl, refuses_characters_that_a_path_cannot_hold) {
    using namespace std::string_view_literals;
    for (const std::string_view text : {"http://h/a b"sv, "http://h/a\nb"sv, "http://h/\0"sv,
                                        "http://h/%zz"sv, "http://h/%4"sv, "http://h/\xFF"sv})
        EXPECT_NE(refusal(text), "") << text;
    EXPECT_EQ(parsed("http://h/a%20b/c:d@e").path, "/a%20b/c:d@e");
}

} // namespace
} // namespace sqs_ingest
