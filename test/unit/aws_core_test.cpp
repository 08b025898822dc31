// Pure parts of AWS's credentials: documents, STS's forms and answers, hosts, when to refresh.
#include "core/aws/endpoint.h"
#include "core/aws/issued_credentials.h"
#include "core/aws/sts.h"
#include "core/date.h"
#include "core/policy/refresh.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

TEST(IssuedCredentialsTest, a_metadata_document_is_read) {
    const auto issued = parse_metadata_document(
        R"({"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"AKID","SecretAccessKey":"secret",)"
        R"("Token":"token","Expiration":"2026-11-21T10:30:00Z"})");
    ASSERT_TRUE(issued.ok());
    EXPECT_EQ(issued.value().keys, (Credentials{"AKID", "secret", "token"}));
    EXPECT_EQ(issued.value().expires_at_ms, parse_timestamp("2026-11-21T10:30:00Z"));
}

TEST(IssuedCredentialsTest, a_document_that_lacks_something_says_what_and_nothing_else) {
    const auto error = [](const char* text) {
        const auto issued = parse_metadata_document(text);
        return issued.ok() ? "none" : issued.error();
    };
    EXPECT_EQ(error("<html>S3CRET</html>"), "is no JSON object");
    EXPECT_EQ(error("[]"), "is no JSON object");
    EXPECT_EQ(error(R"({"Code":"Failed","Message":"S3CRET"})"), "has another Code than \"Success\"");
    EXPECT_EQ(error(R"({"SecretAccessKey":"S3CRET"})"), "has no AccessKeyId");
    EXPECT_EQ(error(R"({"AccessKeyId":"A"})"), "has no SecretAccessKey");
    EXPECT_EQ(error(R"({"AccessKeyId":7,"SecretAccessKey":"S3CRET"})"), "has no AccessKeyId");
    EXPECT_EQ(error(R"({"AccessKeyId":"A","SecretAccessKey":"S3CRET","Expiration":"S3CRET"})"),
              "has an Expiration that is no ISO 8601 timestamp");
    EXPECT_EQ(error("{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Token\":\"a\\r\\nHost: b\"}"),
              "has characters in its AccessKeyId or Token that no HTTP header can hold");
}

TEST(IssuedCredentialsTest, a_process_document_needs_its_version_but_no_expiration) {
    const auto issued =
        parse_process_document(R"({"Version":1,"AccessKeyId":"A","SecretAccessKey":"S","SessionToken":"T"})");
    ASSERT_TRUE(issued.ok());
    EXPECT_EQ(issued.value().keys.session_token, "T");
    EXPECT_EQ(issued.value().expires_at_ms, std::nullopt);
    for (const char* text : {R"({"AccessKeyId":"A","SecretAccessKey":"S"})",
                             R"({"Version":2,"AccessKeyId":"A","SecretAccessKey":"S"})",
                             R"({"Version":"1","AccessKeyId":"A","SecretAccessKey":"S"})"})
        EXPECT_FALSE(parse_process_document(text).ok()) << text;
}

TEST(StsTest, a_role_becomes_a_form) {
    EXPECT_EQ(encode_assume_role({"arn:aws:iam::1:role/a", "name"}),
              "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa"
              "&RoleSessionName=name");
    EXPECT_EQ(encode_assume_role({"r", "n", "a b&c=d", 900}),
              "Action=AssumeRole&Version=2011-06-15&RoleArn=r&RoleSessionName=n&DurationSeconds=900"
              "&ExternalId=a%20b%26c%3Dd");
    EXPECT_EQ(encode_assume_role_with_web_identity({"r", "n"}, "e+J/=."),
              "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=r&RoleSessionName=n"
              "&WebIdentityToken=e%2BJ%2F%3D.");
}

TEST(StsTest, any_text_becomes_a_session_name_that_aws_accepts) {
    EXPECT_EQ(role_session_name("sqs_ingest-user_logins"), "sqs_ingest-user_logins");
    EXPECT_EQ(role_session_name("a name/with: more"), "a-name-with--more");
    EXPECT_EQ(role_session_name("\xC3\xA4"), "--");
    EXPECT_EQ(role_session_name(""), "--");
    EXPECT_EQ(role_session_name(std::string(100, 'x')).size(), 64u);
}

constexpr const char* kAnswer =
    R"(<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>)"
    R"(<AssumedRoleUser><Arn>arn</Arn></AssumedRoleUser><Credentials><AccessKeyId>ASIA</AccessKeyId>)"
    R"(<SecretAccessKey>a&amp;b</SecretAccessKey><SessionToken>token</SessionToken>)"
    R"(<Expiration>2026-11-21T10:30:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>)";

TEST(StsTest, an_answer_holds_credentials) {
    const auto issued = decode_assumed_role(200, kAnswer);
    ASSERT_TRUE(issued.ok());
    EXPECT_EQ(issued.value().keys, (Credentials{"ASIA", "a&b", "token"}));
    EXPECT_EQ(issued.value().expires_at_ms, parse_timestamp("2026-11-21T10:30:00Z"));
}

TEST(StsTest, an_answer_that_is_cut_anywhere_is_an_error) {
    const std::string answer = kAnswer;
    for (std::size_t size = 0; size < answer.find("</Expiration>"); ++size)
        EXPECT_FALSE(decode_assumed_role(200, answer.substr(0, size)).ok()) << size;
}

TEST(StsTest, credentials_that_no_header_can_hold_are_refused_unquoted) {
    std::string answer = kAnswer;
    answer.replace(answer.find("token"), 5, "to&#13;&#10;ken");
    const auto issued = decode_assumed_role(200, answer);
    ASSERT_FALSE(issued.ok());
    EXPECT_EQ(issued.error().message, "STS answered credentials that no HTTP header can hold");
}

TEST(StsTest, a_refusal_keeps_its_code) {
    const auto issued = decode_assumed_role(
        403,
        "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"
        "<Message>User x is not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>");
    ASSERT_FALSE(issued.ok());
    EXPECT_EQ(issued.error().code, "AccessDenied");
    EXPECT_EQ(issued.error().message, "User x is not authorized to perform: sts:AssumeRole");
}

std::string host(const char* region, EndpointVariant variant = {}) {
    return aws_endpoint("sqs", region, variant).origin();
}

TEST(EndpointTest, each_variant_has_its_host) {
    constexpr EndpointVariant kFips{.fips = true}, kDual{.dual_stack = true}, kBoth{true, true};
    EXPECT_EQ(host("eu-west-1"), "https://sqs.eu-west-1.amazonaws.com");
    EXPECT_EQ(host("us-east-1", kFips), "https://sqs-fips.us-east-1.amazonaws.com");
    EXPECT_EQ(host("us-east-1", kDual), "https://sqs.us-east-1.api.aws");
    EXPECT_EQ(host("us-east-1", kBoth), "https://sqs-fips.us-east-1.api.aws");
    EXPECT_EQ(host("cn-north-1"), "https://sqs.cn-north-1.amazonaws.com.cn");
    EXPECT_EQ(host("cn-north-1", kDual), "https://sqs.cn-north-1.api.amazonwebservices.com.cn");
    EXPECT_EQ(host("us-gov-west-1", kFips), "https://sqs.us-gov-west-1.amazonaws.com");
    EXPECT_EQ(host("us-gov-west-1", kBoth), "https://sqs-fips.us-gov-west-1.api.aws");
    EXPECT_EQ(host("us-iso-east-1"), "https://sqs.us-iso-east-1.c2s.ic.gov");
    EXPECT_EQ(host("us-isob-east-1"), "https://sqs.us-isob-east-1.sc2s.sgov.gov");
    EXPECT_EQ(host("eusc-de-east-1"), "https://sqs.eusc-de-east-1.amazonaws.eu");
    EXPECT_EQ(aws_endpoint("sts", "eu-west-1").origin(), "https://sts.eu-west-1.amazonaws.com");
}

std::string endpoint(const char* queue, EndpointVariant variant, const char* configured = nullptr) {
    const auto url = configured ? std::optional(parse_url(configured).value()) : std::nullopt;
    return sqs_endpoint(parse_url(queue).value(), url, variant).origin();
}

TEST(EndpointTest, a_region_is_a_label_of_a_host) {
    for (const char* region : {"us-east-1", "eusc-de-east-1", "x"})
        EXPECT_TRUE(is_region(region)) << region;
    for (const char* text :
         {"", "x.evil.org/", "us-east-1\r\nhost: x", "us east 1", "US-EAST-1", "us-east-1#"})
        EXPECT_FALSE(is_region(text)) << text;
    EXPECT_FALSE(is_region(std::string(64, 'a')));
}

TEST(EndpointTest, a_variant_keeps_what_the_host_says_itself) {
    EXPECT_EQ(endpoint("https://sqs-fips.us-east-2.amazonaws.com/1/q", {.dual_stack = true}),
              "https://sqs-fips.us-east-2.api.aws");
    EXPECT_EQ(endpoint("https://sqs.us-east-2.api.aws/1/q", {.fips = true}),
              "https://sqs-fips.us-east-2.api.aws");
    EXPECT_EQ(endpoint("https://sqs.eusc-de-east-1.amazonaws.eu/1/q", {.dual_stack = true}),
              "https://sqs.eusc-de-east-1.api.amazonwebservices.eu");
}

TEST(EndpointTest, a_variant_replaces_a_standard_host_only) {
    constexpr EndpointVariant kFips{.fips = true};
    EXPECT_EQ(endpoint("https://sqs.us-east-2.amazonaws.com/1/q", {}), "https://sqs.us-east-2.amazonaws.com");
    EXPECT_EQ(endpoint("https://sqs.us-east-2.amazonaws.com/1/q", kFips),
              "https://sqs-fips.us-east-2.amazonaws.com");
    EXPECT_EQ(endpoint("https://queue.amazonaws.com/1/q", kFips), "https://sqs-fips.us-east-1.amazonaws.com");
    for (const char* queue :
         {"https://vpce-0a.sqs.us-east-2.vpce.amazonaws.com/1/q", "http://127.0.0.1:9324/1/q",
          "https://sqs.us-east-2.amazonaws.com:8443/1/q", "http://sqs.us-east-2.amazonaws.com/1/q"})
        EXPECT_EQ(endpoint(queue, kFips), parse_url(queue).value().origin());
}

TEST(EndpointTest, what_is_configured_wins_over_a_variant) {
    EXPECT_EQ(endpoint("https://sqs.us-east-2.amazonaws.com/1/q", {.fips = true}, "http://localhost:4566"),
              "http://localhost:4566");
}

TEST(RegionOfHost, knows_every_form_of_aws_host_name) {
    EXPECT_EQ(region_of_host("sqs.us-east-1.amazonaws.com"), "us-east-1");
    EXPECT_EQ(region_of_host("SQS.EU-Central-1.amazonaws.com"), "eu-central-1");
    EXPECT_EQ(region_of_host("sqs.cn-north-1.amazonaws.com.cn"), "cn-north-1");
    EXPECT_EQ(region_of_host("us-west-2.queue.amazonaws.com"), "us-west-2");
    EXPECT_EQ(region_of_host("cn-north-1.queue.amazonaws.com.cn"), "cn-north-1");
    EXPECT_EQ(region_of_host("queue.amazonaws.com"), "us-east-1");
    EXPECT_EQ(region_of_host("sqs-fips.us-gov-west-1.amazonaws.com"), "us-gov-west-1");
    EXPECT_EQ(region_of_host("sqs.eu-west-1.api.aws"), "eu-west-1");
    EXPECT_EQ(region_of_host("vpce-0a1b2c-3d4e.sqs.ap-south-1.vpce.amazonaws.com"), "ap-south-1");
    EXPECT_EQ(region_of_host("vpce-0a1b2c-3d4e-us-east-1a.sqs.us-east-1.vpce.amazonaws.com"), "us-east-1");
    EXPECT_EQ(region_of_host("sqs.cn-north-1.api.amazonwebservices.com.cn"), "cn-north-1");
    EXPECT_EQ(region_of_host("vpce-0a1b2c-3d4e.sqs.cn-north-1.vpce.amazonaws.com.cn"), "cn-north-1");
    for (const char* region : {"us-east-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1", "us-iso-east-1",
                               "us-isob-east-1", "us-isof-south-1", "eu-isoe-west-1"})
        for (const EndpointVariant variant :
             {EndpointVariant{}, {.fips = true}, {.dual_stack = true}, {.fips = true, .dual_stack = true}})
            EXPECT_EQ(region_of_host(aws_endpoint("sqs", region, variant).host), region);
}

TEST(RegionOfHost, is_empty_for_any_other_host) {
    for (const char* host :
         {"localhost", "", "sqs.us-east-1.example.com", "amazonaws.com", "sqs.amazonaws.com",
          "sqs..amazonaws.com", "s3.us-east-1.amazonaws.com", "sqs.a.us-east-1.amazonaws.com",
          "evil-amazonaws.com", "api.aws", "sqs.us-east-1.vpce.amazonaws.com",
          "sqs.us-east-1.amazonaws.com.evil.example", "[::1]", "queue.amazonaws.eu",
          "sqs.eusc-de-east-1.evil-amazonaws.eu", "sqs.s3.eu-west-1.api.aws"})
        EXPECT_EQ(region_of_host(host), std::nullopt) << host;
}

constexpr std::int64_t kMinute = 60'000;

TEST(RefreshTest, an_hour_is_refreshed_a_quarter_of_an_hour_ahead_and_used_to_its_end) {
    const auto times = refresh_times(0, 60 * kMinute, 0.0);
    EXPECT_EQ(times.refresh_at, 45 * kMinute);
    EXPECT_EQ(times.usable_until, 60 * kMinute - 10'000);
}

TEST(RefreshTest, half_a_day_is_refreshed_a_quarter_of_an_hour_ahead_too) {
    EXPECT_EQ(refresh_times(0, 12 * 60 * kMinute, 0.0).refresh_at, (12 * 60 - 15) * kMinute);
}

TEST(RefreshTest, a_short_session_is_not_refreshed_all_the_time) {
    EXPECT_GE(refresh_times(0, 15 * kMinute, 0.999).refresh_at, 10 * kMinute);
    EXPECT_LT(refresh_times(0, 15 * kMinute, 0.0).refresh_at, 12 * kMinute);
}

TEST(RefreshTest, jitter_only_brings_it_forward) {
    for (const double random : {0.0, 0.3, 0.999}) {
        const auto at = refresh_times(0, 60 * kMinute, random).refresh_at;
        EXPECT_LE(at, 45 * kMinute);
        EXPECT_GE(at, 40 * kMinute);
    }
}

TEST(RefreshTest, the_times_are_in_order_however_short_the_life_is) {
    for (const std::int64_t life : {0ll, 1ll, 100ll, 2'000ll, 30'000ll}) {
        const auto times = refresh_times(1'000, 1'000 + life, 0.999);
        EXPECT_LE(times.refresh_at, times.usable_until);
        EXPECT_LE(times.usable_until, 1'000 + life);
        EXPECT_GE(times.refresh_at, 1'000);
    }
    EXPECT_LE(refresh_times(10'000, 5'000, 0.5).usable_until, 5'000) << "it had expired before it came";
}

} // namespace
} // namespace sqs_ingest
