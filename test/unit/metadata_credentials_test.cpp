// Instance metadata and container endpoints, against servers that check what they are asked with.
#include "core/date.h"
#include "net/credentials.h"

#include "aws_environment.h"
#include "chain_under_test.h"
#include "local_server.h"

#include <atomic>
#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;
using test::CannedAnswer;
using test::ChainUnderTest;
using test::LocalServer;
using test::ReceivedRequest;

constexpr std::int64_t kHour = 3'600'000;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != text.npos;
}

std::string document(int n, std::int64_t expires_at_ms) {
    const std::string number = std::to_string(n);
    return R"({"Code":"Success","AccessKeyId":"ROLE)" + number + R"(","SecretAccessKey":"s3cret)" + number +
           R"(","Token":"t0ken)" + number + R"(","Expiration":")" + format_timestamp(expires_at_ms) + "\"}";
}

// EC2's service, version 2: nothing without a session's token. The n-th credentials are ROLE<n>.
class Ec2 {
  public:
    std::string endpoint() const {
        std::string url = server_.url();
        url.pop_back();
        return url;
    }
    std::vector<ReceivedRequest> requests() const { return server_.requests(); }
    int given() const { return given_; }
    const LocalServer& server() const { return server_; }

    std::optional<CannedAnswer> outage = {};
    std::string role = "web-server";
    std::string region = "ap-southeast-2";
    std::int64_t life_ms = 6 * kHour;

  private:
    CannedAnswer answer(const ReceivedRequest& request) {
        if (outage)
            return *outage;
        if (request.line == "PUT /latest/api/token HTTP/1.1")
            return request.headers.contains("x-aws-ec2-metadata-token-ttl-seconds")
                       ? CannedAnswer{.body = "session-token=="}
                       : CannedAnswer{.status = 400};
        const auto token = request.headers.find("x-aws-ec2-metadata-token");
        if (token == request.headers.end() || token->second != "session-token==")
            return {.status = 401};
        const std::string roles = "GET /latest/meta-data/iam/security-credentials/";
        if (request.line == roles + " HTTP/1.1")
            return role.empty() ? CannedAnswer{.status = 404} : CannedAnswer{.body = role + "\n"};
        if (request.line == roles + role + " HTTP/1.1")
            return {.body = document(++given_, Moment::now().unix_ms + life_ms)};
        if (request.line == "GET /latest/meta-data/placement/region HTTP/1.1")
            return {.body = region};
        return {.status = 404};
    }

    std::atomic<int> given_ = 0;
    LocalServer server_{[this](const ReceivedRequest& request) { return answer(request); }};
};

class InstanceMetadataTest : public test::AwsEnvironment {
  protected:
    void SetUp() override {
        AwsEnvironment::SetUp();
        unsetenv("AWS_EC2_METADATA_DISABLED");
        set("AWS_EC2_METADATA_SERVICE_ENDPOINT", ec2_.endpoint() + "/");
    }
    Ec2 ec2_;
};

TEST_F(InstanceMetadataTest, a_role_is_asked_for_with_a_sessions_token) {
    ChainUnderTest chain({});
    EXPECT_EQ(chain.found(), (Credentials{"ROLE1", "s3cret1", "t0ken1"}));
    ASSERT_EQ(ec2_.requests().size(), 3u);
    EXPECT_EQ(ec2_.requests()[0].headers.at("content-length"), "0");
    EXPECT_FALSE(ec2_.requests()[0].headers.contains("content-type"));
    EXPECT_EQ(chain->source(), "instance metadata, role web-server");
    ASSERT_TRUE(chain->expires_at_ms());
    EXPECT_NEAR(static_cast<double>(*chain->expires_at_ms() - Moment::now().unix_ms), 6.0 * kHour, 60'000.0);
}

TEST_F(InstanceMetadataTest, it_is_the_last_place_to_be_asked) {
    write(credentials(), "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n");
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "FILE");
    EXPECT_TRUE(ec2_.requests().empty());
}

TEST_F(InstanceMetadataTest, it_can_be_switched_off) {
    set("AWS_EC2_METADATA_DISABLED", "TRUE");
    ChainUnderTest chain({});
    EXPECT_EQ(chain.refusal().message, "no AWS credentials were found");
    EXPECT_TRUE(ec2_.requests().empty());
}

TEST_F(InstanceMetadataTest, no_line_of_a_file_switches_it_off) {
    write(config(), "[default]\n= true\n");
    EXPECT_EQ(ChainUnderTest({}).key_id(), "ROLE1");
}

TEST_F(InstanceMetadataTest, there_is_no_way_back_to_version_1) {
    ec2_.outage = CannedAnswer{.status = 404};
    ChainUnderTest chain({});
    EXPECT_TRUE(contains(chain.refusal().detail,
                         "instance metadata gave no session token: HTTP 404 (version 2 is needed)"));
    EXPECT_EQ(ec2_.requests().size(), 1u);
}

TEST_F(InstanceMetadataTest, a_machine_without_a_role_is_said_to_be_one) {
    ec2_.role = "";
    ChainUnderTest chain({});
    EXPECT_EQ(chain.refusal().message, "no AWS credentials were found");
    EXPECT_TRUE(contains(chain.refusal().detail, "instance metadata says that this instance has no role"));
}

TEST_F(InstanceMetadataTest, a_machine_that_is_no_instance_has_no_credentials) {
    set("AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "http://127.0.0.1:" + std::to_string(LocalServer::unused_port()));
    ChainUnderTest chain({});
    const NoCredentials none = chain.refusal();
    EXPECT_EQ(none.message, "no AWS credentials were found");
    EXPECT_EQ(none.code, "NoCredentials");
    EXPECT_TRUE(contains(none.detail, credentials().string() + ": No such file or directory"));
    EXPECT_TRUE(contains(none.detail, "instance metadata cannot be reached at http://127.0.0.1:"));
}

TEST_F(InstanceMetadataTest, it_is_never_asked_through_a_proxy) {
    const std::string nobody = "http://127.0.0.1:" + std::to_string(LocalServer::unused_port());
    for (const char* name : {"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"})
        set(name, nobody);
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "ROLE1");
}

TEST_F(InstanceMetadataTest, garbage_is_no_role_and_no_credentials) {
    ec2_.role = "two/parts";
    ChainUnderTest strange({});
    EXPECT_TRUE(contains(strange.refusal().detail, "did not name the instance's role"));
    for (const CannedAnswer& garbage :
         {CannedAnswer{.body = ""}, CannedAnswer{.body = "\x01\x02"},
          CannedAnswer{.body = std::string(9000, 'x')},
          CannedAnswer{.raw = "no HTTP at all\r\n\r\n", .close = true}, CannedAnswer{.status = 500}}) {
        ec2_.outage = garbage;
        ChainUnderTest chain({});
        EXPECT_EQ(chain.refusal().message, "no AWS credentials were found");
    }
    ec2_.outage = CannedAnswer{.body = std::string(65 << 10, 'x')};
    ChainUnderTest huge({});
    EXPECT_TRUE(contains(huge.refusal().detail, "larger than 65536 bytes"));
}

TEST_F(InstanceMetadataTest, an_outage_does_not_cost_what_has_expired_meanwhile) {
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "ROLE1");
    ec2_.outage = CannedAnswer{.status = 503};
    chain.pass(7h);
    EXPECT_EQ(chain.key_id(), "ROLE1") << "EC2 extends them";
    ASSERT_TRUE(chain->trouble());
    EXPECT_TRUE(contains(chain->source(), "role web-server (not renewed: instance metadata gave no session "
                                          "token: HTTP 503"));
    const auto asked = ec2_.requests().size();
    for (int i = 0; i < 100; ++i)
        EXPECT_EQ(chain.key_id(), "ROLE1");
    EXPECT_LE(ec2_.requests().size(), asked + 3) << "with pauses";

    ec2_.outage.reset();
    ec2_.life_ms = 20 * kHour;
    chain.pass(2min);
    chain.ask();
    chain.settle();
    EXPECT_EQ(chain.key_id(), "ROLE2");
    EXPECT_FALSE(chain->trouble());
}

TEST_F(InstanceMetadataTest, what_it_hands_out_expired_is_used_all_the_same) {
    ec2_.life_ms = -kHour;
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "ROLE1");
    EXPECT_TRUE(contains(chain->source(), "expired, and still handed out"));
    chain.pass(4min);
    EXPECT_EQ(chain.key_id(), "ROLE1");
    chain.pass(7min);
    chain.get();
    chain.settle();
    EXPECT_EQ(chain.key_id(), "ROLE2") << "asked again after 5 to 10 minutes";
}

TEST_F(InstanceMetadataTest, the_region_comes_from_it_when_nothing_else_says) {
    ChainUnderTest chain({});
    EXPECT_EQ(std::get<std::string>(chain.region()), "ap-southeast-2");
    EXPECT_EQ(std::get<std::string>(chain.region()), "ap-southeast-2");
    EXPECT_EQ(ec2_.requests().size(), 2u) << "asked once";
    ChainUnderTest told({.region = "eu-west-1"});
    EXPECT_EQ(std::get<std::string>(told.region()), "eu-west-1");
    EXPECT_EQ(ec2_.requests().size(), 2u);
}

TEST_F(InstanceMetadataTest, without_it_there_is_no_region_and_it_is_not_asked_again_at_once) {
    ec2_.outage = CannedAnswer{.status = 500};
    ChainUnderTest chain({});
    for (int i = 0; i < 20; ++i)
        EXPECT_TRUE(contains(std::get<NoRegion>(chain.region()).message,
                             "no AWS region is configured; instance metadata gave no session token"));
    EXPECT_EQ(ec2_.requests().size(), 1u);
}

TEST_F(InstanceMetadataTest, a_profiles_role_can_be_assumed_with_it) {
    LocalServer sts([](const ReceivedRequest&) {
        return CannedAnswer{.body = "<R><R><Credentials><AccessKeyId>ASSUMED</AccessKeyId><SecretAccessKey>s"
                                    "</SecretAccessKey><SessionToken>t</SessionToken><Expiration>" +
                                    format_timestamp(Moment::now().unix_ms + kHour) +
                                    "</Expiration></Credentials></R></R>"};
    });
    set("AWS_ENDPOINT_URL_STS", sts.url());
    write(config(), "[profile p]\nrole_arn = r:p\ncredential_source = Ec2InstanceMetadata\n");
    ChainUnderTest chain({.profile = "p"});
    EXPECT_EQ(chain.key_id(), "ASSUMED");
    const ReceivedRequest request = sts.requests().at(0);
    EXPECT_TRUE(contains(request.headers.at("authorization"), "Credential=ROLE1/"));
    EXPECT_TRUE(contains(request.headers.at("authorization"), "/ap-southeast-2/sts/aws4_request"))
        << "the instance's region";
    EXPECT_EQ(request.headers.at("x-amz-security-token"), "t0ken1");
    EXPECT_EQ(chain->source(), "role r:p, assumed with instance metadata, role web-server");
}

TEST_F(InstanceMetadataTest, a_wrong_endpoint_is_an_error) {
    set("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ftp://x");
    EXPECT_EQ(ChainUnderTest({}).refusal().message,
              "AWS_EC2_METADATA_SERVICE_ENDPOINT has another scheme than http or https");
    unsetenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    set("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv5");
    EXPECT_EQ(ChainUnderTest({}).refusal().message,
              "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE is neither IPv4 nor IPv6");
}

// --- container endpoint

class ContainerTest : public test::AwsEnvironment {
  protected:
    void SetUp() override {
        AwsEnvironment::SetUp();
        set("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent_.url() + "v1/credentials?id=7");
    }
    CannedAnswer answer(const ReceivedRequest& request) {
        if (refusal_)
            return *refusal_;
        const auto token = request.headers.find("authorization");
        if (token == request.headers.end() ? !wanted_.empty() : token->second != wanted_)
            return {.status = 401, .body = "wrong token " + wanted_};
        return {.body = document(++given_, Moment::now().unix_ms + kHour)};
    }
    std::string token_file() const { return (home_ / "token").string(); }

    std::string wanted_;
    std::optional<CannedAnswer> refusal_;
    std::atomic<int> given_ = 0;
    LocalServer agent_{[this](const ReceivedRequest& request) { return answer(request); }};
};

TEST_F(ContainerTest, credentials_are_asked_for_at_the_full_uri) {
    ChainUnderTest chain({});
    EXPECT_EQ(chain.found(), (Credentials{"ROLE1", "s3cret1", "t0ken1"}));
    EXPECT_EQ(agent_.requests().at(0).line, "GET /v1/credentials?id=7 HTTP/1.1");
    EXPECT_TRUE(chain->source().starts_with("container endpoint http://127.0.0.1:"));
}

TEST_F(ContainerTest, the_token_of_the_environment_is_sent_as_it_is) {
    wanted_ = "Basic abc";
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic abc");
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "ROLE1");
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a\r\nHost: elsewhere");
    EXPECT_TRUE(contains(chain.refusal().message, "holds a line break"));
}

TEST_F(ContainerTest, the_token_file_wins_and_is_read_for_each_request) {
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "not-this-one");
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file());
    write(token_file(), wanted_ = "first");
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "ROLE1");
    write(token_file(), wanted_ = "second");
    chain.pass(50min);
    chain.ask();
    chain.settle();
    EXPECT_EQ(chain.key_id(), "ROLE2");
}

TEST_F(ContainerTest, a_missing_token_file_is_named) {
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file());
    ChainUnderTest chain({});
    EXPECT_EQ(chain.refusal().message,
              "container credentials token file " + token_file() + ": No such file or directory");
    EXPECT_TRUE(agent_.requests().empty());
}

TEST_F(ContainerTest, a_refusal_is_told_without_the_token) {
    wanted_ = "S3CRET";
    ChainUnderTest chain({});
    const NoCredentials none = chain.refusal();
    EXPECT_EQ(none.code, "ContainerCredentials");
    EXPECT_EQ(none.message,
              "container credentials answered HTTP 401: it does not accept the authorization token");
    EXPECT_FALSE(contains(none.message + none.detail, "S3CRET"));
}

TEST_F(ContainerTest, garbage_is_named_by_what_it_lacks) {
    refusal_ = CannedAnswer{.body = R"({"AccessKeyId":"A","SecretAccessKey":""})"};
    EXPECT_EQ(ChainUnderTest({}).refusal().message, "container credentials document has no SecretAccessKey");
    refusal_ = CannedAnswer{.status = 302, .headers = {{"Location", agent_.url()}}};
    EXPECT_TRUE(contains(ChainUnderTest({}).refusal().message, "HTTP 302")) << "no redirects";
}

TEST_F(ContainerTest, a_token_travels_in_the_clear_only_to_this_machine_and_to_the_agents) {
    const auto said = [](const char* url) {
        set("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
        HttpLoop http({});
        CredentialsChain chain({}, http);
        const auto answer = chain.get(Moment::now());
        const auto* none = std::get_if<NoCredentials>(&answer);
        return none ? none->message : "asked";
    };
    for (const char* url : {"http://169.254.170.2/x", "http://169.254.170.23/v1/credentials",
                            "http://[fd00:ec2::23]/v1/credentials", "http://localhost/x",
                            "http://127.1.2.3/x", "http://[::1]/x", "https://credentials.example.com/x"})
        EXPECT_EQ(said(url), "asked") << url;
    for (const char* url : {"http://169.254.169.254/x", "http://10.0.0.1/x", "http://example.com/x",
                            "http://127.example.com/x", "http://localhost.example.com/x"})
        EXPECT_TRUE(contains(said(url), "neither https nor a loopback")) << url;
    EXPECT_TRUE(contains(said("http://user:password@localhost/"), "user name or a password"));
}

TEST_F(ContainerTest, a_relative_uri_must_be_one) {
    set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@example.com/x");
    EXPECT_EQ(ChainUnderTest({}).refusal().message,
              "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with a slash");
}

} // namespace
} // namespace sqs_ingest
