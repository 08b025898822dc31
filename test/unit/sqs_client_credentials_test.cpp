// SqsClient and the credentials it signs with: requests wait for them, and go where AWS's settings say.
#include "core/date.h"
#include "net/sqs_client.h"

#include "aws_environment.h"
#include "local_server.h"

#include <atomic>
#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;
using test::CannedAnswer;
using test::LocalServer;
using test::ReceivedRequest;
using Clock = std::chrono::steady_clock;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != text.npos;
}

class SqsClientCredentialsTest : public test::AwsEnvironment {
  protected:
    void SetUp() override {
        AwsEnvironment::SetUp();
        set("AWS_ENDPOINT_URL_STS", sts_.url());
        set("AWS_REGION", "eu-west-1");
        set("AWS_ACCESS_KEY_ID", "BASE");
        set("AWS_SECRET_ACCESS_KEY", "secret");
        set("AWS_ENDPOINT_URL_SQS", queue_.url());
    }

    static SqsClientOptions options(const std::string& role = "") {
        SqsClientOptions options;
        options.queue_url = "https://sqs.eu-west-1.amazonaws.com/123456789012/logins";
        options.credentials.role_arn = role;
        options.protocol = ProtocolSetting::json;
        return options;
    }

    CannedAnswer session() {
        ++sessions_;
        CannedAnswer answer{.body = "<R><R><Credentials><AccessKeyId>SESSION" + std::to_string(sessions_) +
                                    "</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t"
                                    "</SessionToken><Expiration>" +
                                    format_timestamp(Moment::now().unix_ms + 3'600'000) +
                                    "</Expiration></Credentials></R></R>"};
        answer.delay = sts_delay_;
        return answer;
    }

    static std::vector<SqsEvent> run(SqsClient& client, std::size_t expected) {
        std::vector<SqsEvent> all;
        for (const auto end = Clock::now() + 15s; all.size() < expected && Clock::now() < end;) {
            pollfd entry{client.descriptor(), POLLIN, 0};
            poll(&entry, 1, static_cast<int>(std::min(client.timeout().value_or(100ms), 100ms).count()));
            for (SqsEvent& event : client.advance())
                all.push_back(std::move(event));
        }
        return all;
    }
    static Result<Received, ApiError> receive(SqsClient& client) {
        client.start_receive({});
        auto events = run(client, 1);
        return std::get<ReceiveResult>(events.at(0).result).outcome;
    }

    std::atomic<int> sessions_ = 0;
    std::chrono::milliseconds sts_delay_{};
    std::function<CannedAnswer(const ReceivedRequest&)> on_request_ = [](const ReceivedRequest&) {
        return CannedAnswer{.body = "{}"};
    };
    LocalServer sts_{[this](const ReceivedRequest&) { return session(); }};
    LocalServer queue_{[this](const ReceivedRequest& request) { return on_request_(request); }};
};

TEST_F(SqsClientCredentialsTest, requests_wait_for_credentials_and_are_then_signed_with_them) {
    sts_delay_ = 100ms;
    SqsClient client(options("r:x"));
    std::vector<TransferId> ids;
    for (int i = 0; i < 3; ++i)
        ids.push_back(client.start_receive({}));
    EXPECT_TRUE(queue_.requests().empty());
    std::vector<TransferId> ended;
    for (const SqsEvent& event : run(client, 3)) {
        EXPECT_TRUE(std::get<ReceiveResult>(event.result).outcome.ok());
        ended.push_back(event.id);
    }
    std::sort(ended.begin(), ended.end());
    EXPECT_EQ(ended, ids);
    EXPECT_EQ(sessions_, 1);
    for (const ReceivedRequest& request : queue_.requests()) {
        EXPECT_TRUE(contains(request.headers.at("authorization"), "Credential=SESSION1/"));
        EXPECT_TRUE(contains(request.headers.at("authorization"), "/eu-west-1/sqs/aws4_request"));
        EXPECT_EQ(request.headers.at("x-amz-security-token"), "t");
    }
    EXPECT_EQ(client.credentials().source(), "role r:x, assumed with environment");
}

TEST_F(SqsClientCredentialsTest, a_request_that_waits_can_be_cancelled) {
    sts_delay_ = 100ms;
    SqsClient client(options("r:x"));
    const TransferId first = client.start_receive({});
    const TransferId second = client.start_receive({});
    client.cancel(first);
    const auto events = run(client, 1);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].id, second);
    EXPECT_EQ(queue_.requests().size(), 1u);
}

TEST_F(SqsClientCredentialsTest, a_request_does_not_wait_for_ever) {
    sts_delay_ = 60s;
    SqsClient client(options("r:x"));
    const auto outcome = receive(client);
    ASSERT_FALSE(outcome.ok());
    EXPECT_TRUE(outcome.error().code == "CredentialsPending" || outcome.error().code == "StsUnreachable");
    EXPECT_TRUE(queue_.requests().empty());
}

TEST_F(SqsClientCredentialsTest, a_refused_session_is_replaced) {
    on_request_ = [](const ReceivedRequest& request) {
        if (contains(request.headers.at("authorization"), "SESSION1/"))
            return CannedAnswer{.status = 403,
                                .body = R"({"__type":"ExpiredTokenException","message":"expired"})"};
        return CannedAnswer{.body = "{}"};
    };
    SqsClient client(options("r:x"));
    const auto refused = receive(client);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().error_class, ErrorClass::credentials);
    EXPECT_TRUE(receive(client).ok());
    EXPECT_EQ(sessions_, 2);
}

TEST_F(SqsClientCredentialsTest, where_requests_go_is_said_by_the_nearest_setting) {
    const auto endpoint = [](std::optional<Url> given = std::nullopt) {
        SqsClientOptions with = options();
        with.endpoint = std::move(given);
        SqsClient client(with);
        client.start_get_queue_attributes(); // reads the files
        const auto url = client.endpoint();
        return url.ok() ? url.value().origin() : url.error();
    };
    write(config(), "[default]\nendpoint_url = http://profile:1\nservices = mine\n"
                    "[services mine]\nsqs =\n  endpoint_url = http://service:1\n");
    set("AWS_ENDPOINT_URL_SQS", "http://for-sqs:1");
    set("AWS_ENDPOINT_URL", "http://for-all:1");
    EXPECT_EQ(endpoint(parse_url("http://setting:1").value()), "http://setting:1");
    EXPECT_EQ(endpoint(), "http://for-sqs:1");
    unsetenv("AWS_ENDPOINT_URL_SQS");
    EXPECT_EQ(endpoint(), "http://for-all:1");
    unsetenv("AWS_ENDPOINT_URL");
    EXPECT_EQ(endpoint(), "http://service:1");
    write(config(), "[default]\nendpoint_url = http://profile:1\n");
    EXPECT_EQ(endpoint(), "http://profile:1");
    set("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true");
    EXPECT_EQ(endpoint(), "https://sqs.eu-west-1.amazonaws.com");
    set("AWS_USE_FIPS_ENDPOINT", "true");
    EXPECT_EQ(endpoint(), "https://sqs-fips.eu-west-1.amazonaws.com");
    unsetenv("AWS_USE_FIPS_ENDPOINT");
    write(config(), "[default]\nuse_dualstack_endpoint = true\n");
    EXPECT_EQ(endpoint(), "https://sqs.eu-west-1.api.aws");
    EXPECT_EQ(endpoint(parse_url("http://setting:1").value()), "http://setting:1");
}

TEST_F(SqsClientCredentialsTest, a_wrong_endpoint_is_a_matter_of_configuration) {
    set("AWS_ENDPOINT_URL_SQS", "somewhere");
    SqsClient client(options());
    const auto outcome = receive(client);
    ASSERT_FALSE(outcome.ok());
    EXPECT_EQ(outcome.error().error_class, ErrorClass::configuration);
    EXPECT_EQ(outcome.error().message, "AWS_ENDPOINT_URL_SQS has no scheme (http or https)");
}

TEST_F(SqsClientCredentialsTest, the_ca_file_is_the_settings_else_the_environments_else_the_profiles) {
    // Files that are not there show by their names which one was taken.
    LocalServer listener([](const ReceivedRequest&) { return CannedAnswer{}; });
    const auto ca_of = [&](const std::string& setting) {
        SqsClientOptions with = options();
        with.http.ca_file = setting;
        with.endpoint = Url{.scheme = "https", .host = "127.0.0.1", .port = listener.port(), .path = ""};
        SqsClient client(with);
        const auto outcome = receive(client);
        return outcome.ok() ? "" : outcome.error().message;
    };
    write(config(), "[default]\nca_bundle = /no/profile.pem\n");
    EXPECT_TRUE(contains(ca_of(""), "/no/profile.pem"));
    set("AWS_CA_BUNDLE", "/no/environment.pem");
    EXPECT_TRUE(contains(ca_of(""), "/no/environment.pem"));
    EXPECT_TRUE(contains(ca_of("/no/setting.pem"), "/no/setting.pem"));
}

} // namespace
} // namespace sqs_ingest
