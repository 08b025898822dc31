// Signatures against AWS's public test suite, and of requests shaped like those to SQS.
#include "core/sqs/sigv4.h"

#include "sigv4_vectors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>

namespace sqs_ingest {

// Found by GoogleTest, which would print the bytes otherwise.
void PrintTo(const SigV4Vector& vector, std::ostream* out) {
    *out << vector.name;
}

namespace {

class SigV4Suite : public testing::TestWithParam<SigV4Vector> {
  protected:
    RequestToSign request() const {
        const SigV4Vector& vector = GetParam();
        return {vector.method, vector.path, vector.query, vector.headers, vector.body};
    }
    SigningScope scope() const {
        return {kVectorRegion, kVectorService, kVectorDate, GetParam().normalize_path};
    }
};

TEST_P(SigV4Suite, canonical_request_is_the_published_one) {
    EXPECT_EQ(canonical_request(request(), scope()), GetParam().canonical_request);
}

TEST_P(SigV4Suite, string_to_sign_is_the_published_one) {
    EXPECT_EQ(string_to_sign(GetParam().canonical_request, scope()), GetParam().string_to_sign);
}

TEST_P(SigV4Suite, signature_is_the_published_one) {
    EXPECT_EQ(signature(GetParam().string_to_sign, kVectorCredentials, scope()), GetParam().signature);
}

TEST_P(SigV4Suite, authorization_header_is_the_published_one) {
    EXPECT_EQ(authorization_header(request(), kVectorCredentials, scope()), GetParam().authorization_header);
}

std::string test_name(const testing::TestParamInfo<SigV4Vector>& info) {
    std::string name(info.param.name);
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(PublicVectors, SigV4Suite, testing::ValuesIn(kSigV4Vectors), test_name);

const Credentials kTemporary = {"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "SESSION/TOKEN=="};
const SigningScope kSqsScope = {"eu-central-1", "sqs", "20260102T030405Z", true};

RequestToSign receive_request() {
    return {"POST",
            "/",
            "",
            {{"Host", "localhost:4566"},
             {"Content-Type", "application/x-amz-json-1.0"},
             {"X-Amz-Date", "20260102T030405Z"},
             {"X-Amz-Target", "AmazonSQS.ReceiveMessage"},
             {"X-Amz-Security-Token", "SESSION/TOKEN=="}},
            R"({"QueueUrl":"https://sqs.eu-central-1.amazonaws.com/123456789012/login-queue"})"};
}

// The expected value was computed with botocore 1.x's SigV4Auth.
TEST(SigV4, signs_a_json_request_with_temporary_credentials) {
    EXPECT_EQ(authorization_header(receive_request(), kTemporary, kSqsScope),
              "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-central-1/sqs/aws4_request, "
              "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, "
              "Signature=5c70981cf4480b2eb5fa4a14503e194e9b0abd73e2c9892b3f19dc0b3fa41f35");
}

TEST(SigV4, every_part_of_the_request_changes_the_signature) {
    const std::string original = authorization_header(receive_request(), kTemporary, kSqsScope);
    RequestToSign other_body = receive_request();
    other_body.body = "{}";
    RequestToSign other_host = receive_request();
    other_host.headers[0].second = "localhost:4567";
    RequestToSign other_target = receive_request();
    other_target.headers[3].second = "AmazonSQS.DeleteMessageBatch";
    RequestToSign other_path = receive_request();
    other_path.path = "/queue";
    for (const RequestToSign& request : {other_body, other_host, other_target, other_path})
        EXPECT_NE(authorization_header(request, kTemporary, kSqsScope), original);
}

TEST(SigV4, the_secret_does_not_appear_in_the_header) {
    const std::string header = authorization_header(receive_request(), kTemporary, kSqsScope);
    EXPECT_EQ(header.find(kTemporary.secret_access_key), std::string::npos);
    EXPECT_EQ(header.find(kTemporary.session_token), std::string::npos);
}

std::string canonical_path_of(std::string_view path) {
    const std::string canonical = canonical_request({"GET", path, "", {{"Host", "h"}}, ""}, kSqsScope);
    return canonical.substr(4, canonical.find('\n', 4) - 4);
}

TEST(SigV4, an_encoded_path_is_encoded_once_more) {
    EXPECT_EQ(canonical_path_of("/a%20b"), "/a%2520b");
}

TEST(SigV4, dot_segments_at_the_end_leave_a_slash) {
    EXPECT_EQ(canonical_path_of("/a/b/.."), "/a/");
    EXPECT_EQ(canonical_path_of("/a/b/../"), "/a/");
    EXPECT_EQ(canonical_path_of("/a/b"), "/a/b");
    EXPECT_EQ(canonical_path_of("/../.."), "/");
    EXPECT_EQ(canonical_path_of(""), "/");
}

TEST(FormatAmzDate, is_utc_in_basic_format) {
    EXPECT_EQ(format_amz_date(1440938160), "20150830T123600Z");
    EXPECT_EQ(format_amz_date(0), "19700101T000000Z");
    EXPECT_EQ(format_amz_date(1709251199), "20240229T235959Z");
    EXPECT_EQ(format_amz_date(-1), "19691231T235959Z");
}

} // namespace
} // namespace sqs_ingest
