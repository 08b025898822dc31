// SqsClient against a local server with canned answers: what goes out, and what each answer becomes.
#include "net/sqs_client.h"

#include "local_server.h"

#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using test::CannedAnswer;
using test::LocalServer;
using test::ReceivedRequest;
using Clock = std::chrono::steady_clock;

constexpr const char* kQueueUrl = "http://sqs.example.test/123456789012/logins";

SqsClientOptions options_for(std::uint16_t port) {
    return {.queue_url = kQueueUrl,
            .endpoint = Url{.scheme = "http", .host = "127.0.0.1", .port = port, .path = ""},
            .region = "eu-west-1",
            .credentials = {.profile = "", .config_file = "/dev/null", .credentials_file = "/dev/null"},
            .http = {}};
}

std::vector<SqsEvent> turn(SqsClient& client) {
    pollfd entry{client.descriptor(), POLLIN, 0};
    poll(&entry, 1, static_cast<int>(std::min(client.timeout().value_or(100ms), 100ms).count()));
    return client.advance();
}

template<class T>
T event(SqsClient& client, TransferId id) {
    for (const auto end = Clock::now() + 5s; Clock::now() < end;)
        for (SqsEvent& event : turn(client))
            if (event.id == id)
                return std::get<T>(std::move(event.result));
    throw std::runtime_error("the request did not end");
}

ReceiveRequest waiting(int seconds) {
    ReceiveRequest request;
    request.wait_seconds = seconds;
    return request;
}

ReceiveResult receive(SqsClient& client, int wait_seconds = 0) {
    return event<ReceiveResult>(client, client.start_receive(waiting(wait_seconds)));
}

ApiError receive_error(SqsClient& client) {
    const ReceiveResult result = receive(client);
    return result.outcome.ok() ? ApiError{.code = "no error", .message = ""} : result.outcome.error();
}

// What comes back for every request, and what can be changed between two.
struct Queue {
    CannedAnswer answer;
    LocalServer server{[this](const ReceivedRequest&) { return answer; }};
    SqsClient client{options_for(server.port())};

    ReceivedRequest last_request() const { return server.requests().back(); }
    std::string last_header(const std::string& name) const { return last_request().headers.at(name); }
};

class SqsClientTest : public testing::Test {
  protected:
    void SetUp() override {
        setenv("no_proxy", "*", 1);
        setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
        setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
        setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", 1);
        unsetenv("AWS_SESSION_TOKEN");
        unsetenv("AWS_PROFILE");
    }
    void TearDown() override {
        unsetenv("AWS_ACCESS_KEY_ID");
        unsetenv("AWS_SECRET_ACCESS_KEY");
        unsetenv("AWS_SESSION_TOKEN");
    }
};

CannedAnswer with_body(std::string body) {
    return {.body = std::move(body)};
}

CannedAnswer dated(const std::string& date, int status = 200, const std::string& body = "{}") {
    return {.status = status, .headers = {{"Date", date}}, .body = body};
}

std::string http_date(std::time_t time) {
    char text[64];
    std::tm utc{};
    gmtime_r(&time, &utc);
    std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    return text;
}

TEST_F(SqsClientTest, a_receive_is_a_signed_json_request) {
    Queue queue{.answer = with_body("{}")};
    receive(queue.client);

    const ReceivedRequest request = queue.last_request();
    EXPECT_EQ(request.line, "POST / HTTP/1.1");
    EXPECT_EQ(request.headers.at("host"), "127.0.0.1:" + std::to_string(queue.server.port()));
    EXPECT_EQ(request.headers.at("content-type"), "application/x-amz-json-1.0");
    EXPECT_EQ(request.headers.at("x-amz-target"), "AmazonSQS.ReceiveMessage");
    EXPECT_FALSE(request.headers.contains("x-amz-security-token"));
    EXPECT_EQ(json::parse(request.body).at("QueueUrl"), kQueueUrl);
}

// Computed again from what arrived: whatever curl sends, it is what was signed.
TEST_F(SqsClientTest, the_signature_covers_what_was_sent) {
    setenv("AWS_SESSION_TOKEN", "a-session-token", 1);
    Queue queue{.answer = with_body("{}")};
    receive(queue.client);

    const ReceivedRequest request = queue.last_request();
    Headers signed_headers;
    for (const char* name : {"content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"})
        signed_headers.emplace_back(name, request.headers.at(name));
    const std::string expected = authorization_header(
        {"POST", "/", "", signed_headers, request.body},
        {"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a-session-token"},
        {.region = "eu-west-1", .service = "sqs", .amz_date = request.headers.at("x-amz-date")});
    EXPECT_EQ(request.headers.at("authorization"), expected);
    EXPECT_EQ(request.headers.at("x-amz-security-token"), "a-session-token");
}

TEST_F(SqsClientTest, an_empty_receive_is_no_error) {
    for (const std::string body : {"{}", "{\"Messages\":[]}"}) {
        Queue queue{.answer = with_body(body)};
        const ReceiveResult result = receive(queue.client);
        ASSERT_TRUE(result.outcome.ok());
        EXPECT_TRUE(result.outcome.value().messages.empty());
        EXPECT_EQ(result.answer_bytes, body.size());
        EXPECT_FALSE(result.waited);
    }
}

TEST_F(SqsClientTest, messages_are_received) {
    const std::string body =
        R"({"Messages":[{"MessageId":"m-1","ReceiptHandle":"r-1","Body":"hello",)"
        R"("MD5OfBody":"5d41402abc4b2a76b9719d911017c592",)"
        R"("Attributes":{"SentTimestamp":"1751364000000","ApproximateReceiveCount":"2"}}]})";
    Queue queue{.answer = with_body(body)};
    const ReceiveResult result = receive(queue.client, 20);
    ASSERT_TRUE(result.outcome.ok());
    ASSERT_EQ(result.outcome.value().messages.size(), 1u);
    EXPECT_EQ(result.outcome.value().messages[0].message_id, "m-1");
    EXPECT_EQ(result.outcome.value().messages[0].body, "hello");
    EXPECT_TRUE(result.waited);
    EXPECT_EQ(result.answer_bytes, body.size());
}

TEST_F(SqsClientTest, an_answer_of_another_shape_is_transient) {
    Queue queue{.answer = with_body("<html>welcome</html>")};
    EXPECT_EQ(receive_error(queue.client).error_class, ErrorClass::transient);
}

TEST_F(SqsClientTest, a_delete_reports_the_entries_that_failed) {
    Queue queue{.answer = with_body(R"({"Successful":[{"Id":"0"}],"Failed":[{"Id":"1","SenderFault":true,)"
                                    R"("Code":"ReceiptHandleIsInvalid","Message":"stale"}]})")};
    const auto result = event<BatchResult>(queue.client, queue.client.start_delete({"r-0", "r-1"}));
    EXPECT_EQ(queue.last_header("x-amz-target"), "AmazonSQS.DeleteMessageBatch");
    ASSERT_TRUE(result.outcome.ok());
    ASSERT_EQ(result.outcome.value().size(), 1u);
    EXPECT_EQ(result.outcome.value()[0].position, 1);
    EXPECT_EQ(result.outcome.value()[0].error.error_class, ErrorClass::receipt);
}

TEST_F(SqsClientTest, a_visibility_change_is_sent_with_its_timeout) {
    Queue queue{.answer = with_body(R"({"Successful":[{"Id":"0"}],"Failed":[]})")};
    const auto result = event<BatchResult>(queue.client, queue.client.start_change_visibility({"r-0"}, 90));
    EXPECT_TRUE(result.outcome.ok());
    EXPECT_EQ(queue.last_header("x-amz-target"), "AmazonSQS.ChangeMessageVisibilityBatch");
    EXPECT_EQ(json::parse(queue.last_request().body).at("Entries").at(0).at("VisibilityTimeout"), 90);
}

TEST_F(SqsClientTest, queue_attributes_are_read) {
    Queue queue{.answer = with_body(
                    R"({"Attributes":{"VisibilityTimeout":"30","MessageRetentionPeriod":"345600"}})")};
    const auto result = event<AttributesResult>(queue.client, queue.client.start_get_queue_attributes());
    EXPECT_EQ(queue.last_header("x-amz-target"), "AmazonSQS.GetQueueAttributes");
    ASSERT_TRUE(result.outcome.ok());
    EXPECT_EQ(result.outcome.value().visibility_timeout_seconds, 30);
}

TEST_F(SqsClientTest, an_error_is_understood_as_json) {
    Queue queue{
        .answer = {.status = 400,
                   .body = R"({"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no such queue"})"}};
    const ApiError error = receive_error(queue.client);
    EXPECT_EQ(error.error_class, ErrorClass::configuration);
    EXPECT_EQ(error.http_status, 400);
    EXPECT_EQ(error.code, "QueueDoesNotExist");
    EXPECT_EQ(error.message, "no such queue");
}

TEST_F(SqsClientTest, an_error_is_understood_as_xml) {
    Queue queue{.answer = {.status = 403,
                           .body = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"
                                   "<Message>not you</Message></Error></ErrorResponse>"}};
    const ApiError error = receive_error(queue.client);
    EXPECT_EQ(error.error_class, ErrorClass::configuration);
    EXPECT_EQ(error.code, "AccessDenied");
}

TEST_F(SqsClientTest, an_unavailable_service_is_transient) {
    Queue queue{.answer = {.status = 503, .body = "<html>busy</html>"}};
    const ApiError error = receive_error(queue.client);
    EXPECT_EQ(error.error_class, ErrorClass::transient);
    EXPECT_EQ(error.http_status, 503);
}

TEST_F(SqsClientTest, every_action_reports_an_error_in_its_own_event) {
    Queue queue{.answer = {.status = 500}};
    SqsClient& client = queue.client;
    EXPECT_FALSE(event<BatchResult>(client, client.start_delete({"r"})).outcome.ok());
    EXPECT_FALSE(event<BatchResult>(client, client.start_change_visibility({"r"}, 0)).outcome.ok());
    EXPECT_FALSE(event<AttributesResult>(client, client.start_get_queue_attributes()).outcome.ok());
}

TEST_F(SqsClientTest, a_transport_error_is_transient_and_named) {
    SqsClient client(options_for(LocalServer::unused_port()));
    const ApiError error = receive_error(client);
    EXPECT_EQ(error.error_class, ErrorClass::transient);
    EXPECT_EQ(error.http_status, 0);
    EXPECT_EQ(error.code, "CouldNotConnect");
    EXPECT_FALSE(error.message.empty());
}

TEST_F(SqsClientTest, without_credentials_nothing_is_sent_and_an_event_says_so) {
    unsetenv("AWS_ACCESS_KEY_ID");
    Queue queue{.answer = with_body("{}")};
    const TransferId id = queue.client.start_receive(waiting(20));
    EXPECT_EQ(queue.client.timeout(), 0ms);
    const auto result = event<ReceiveResult>(queue.client, id);
    ASSERT_FALSE(result.outcome.ok());
    EXPECT_EQ(result.outcome.error().error_class, ErrorClass::credentials);
    EXPECT_EQ(result.outcome.error().code, "NoCredentials");
    EXPECT_NE(result.outcome.error().message.find("looked at"), std::string::npos);
    EXPECT_LE(result.outcome.error().message.size(), 500u);
    EXPECT_TRUE(result.waited);
    EXPECT_TRUE(queue.server.requests().empty());
}

TEST_F(SqsClientTest, requests_that_were_not_sent_have_ids_of_their_own) {
    Queue queue{.answer = with_body("{}")};
    const TransferId sent = queue.client.start_receive(waiting(0));
    unsetenv("AWS_ACCESS_KEY_ID");
    const TransferId first = queue.client.start_receive(waiting(0));
    const TransferId second = queue.client.start_receive(waiting(0));
    EXPECT_NE(first, sent);
    EXPECT_NE(first, second);
    queue.client.cancel(first);
    EXPECT_FALSE(event<ReceiveResult>(queue.client, second).outcome.ok());
    EXPECT_TRUE(event<ReceiveResult>(queue.client, sent).outcome.ok());
}

TEST_F(SqsClientTest, refused_credentials_are_read_again) {
    unsetenv("AWS_ACCESS_KEY_ID");
    std::string file = testing::TempDir() + "sqs-client-XXXXXX";
    close(mkstemp(file.data()));
    const auto write = [&](const std::string& id) {
        FILE* out = fopen(file.c_str(), "w");
        fprintf(out, "[default]\naws_access_key_id=%s\naws_secret_access_key=secret\n", id.c_str());
        fclose(out);
        const timespec times[2] = {{1000, 0}, {1000, 0}}; // so that only a refresh sees the difference
        utimensat(AT_FDCWD, file.c_str(), times, 0);
    };
    write("OLD1");
    LocalServer server([](const ReceivedRequest& request) {
        if (request.headers.at("authorization").find("OLD1") == std::string::npos)
            return with_body("{}");
        return CannedAnswer{.status = 403,
                            .body = R"({"__type":"ExpiredTokenException","message":"expired"})"};
    });
    SqsClientOptions options = options_for(server.port());
    options.credentials.credentials_file = file;
    SqsClient client(options);

    EXPECT_EQ(receive_error(client).error_class, ErrorClass::credentials);
    write("NEW1");
    EXPECT_TRUE(receive(client).outcome.ok());
    unlink(file.c_str());
}

TEST_F(SqsClientTest, the_skew_of_the_clocks_is_measured) {
    Queue queue{.answer = dated(http_date(std::time(nullptr) + 60))};
    EXPECT_EQ(queue.client.clock_skew_ms(), 0);
    receive(queue.client);
    EXPECT_NEAR(static_cast<double>(queue.client.clock_skew_ms()), 60'000, 5'000);
}

TEST_F(SqsClientTest, requests_are_dated_by_a_queue_clock_that_is_far_away) {
    Queue queue{.answer = dated("Tue, 01 Jan 2030 12:00:00 GMT")};
    receive(queue.client);
    receive(queue.client);
    EXPECT_TRUE(queue.last_header("x-amz-date").starts_with("20300101T1200"));
}

TEST_F(SqsClientTest, a_small_skew_is_left_alone_until_the_queue_minds) {
    const std::time_t ahead = std::time(nullptr) + 120;
    Queue queue{.answer = dated(http_date(ahead))};
    const auto seconds_ahead = [&] {
        receive(queue.client);
        std::tm utc{};
        strptime(queue.last_header("x-amz-date").c_str(), "%Y%m%dT%H%M%SZ", &utc);
        return timegm(&utc) - std::time(nullptr);
    };
    seconds_ahead();
    EXPECT_LT(seconds_ahead(), 5);
    queue.answer = dated(http_date(ahead), 403, R"({"__type":"RequestExpired","message":"too late"})");
    EXPECT_LT(seconds_ahead(), 5);
    EXPECT_GT(seconds_ahead(), 100);
}

TEST_F(SqsClientTest, a_date_that_is_none_changes_nothing) {
    Queue queue{.answer = dated("half past nine")};
    receive(queue.client);
    EXPECT_EQ(queue.client.clock_skew_ms(), 0);
}

TEST_F(SqsClientTest, a_cancelled_long_poll_is_ended) {
    Queue queue{.answer = {.body = "{}", .delay = 10s}};
    const TransferId id = queue.client.start_receive(waiting(20));
    for (const auto end = Clock::now() + 5s; queue.server.requests().empty() && Clock::now() < end;)
        turn(queue.client);
    queue.client.cancel(id);
    for (const auto end = Clock::now() + 5s; queue.server.abandoned() == 0 && Clock::now() < end;)
        EXPECT_TRUE(turn(queue.client).empty());
    EXPECT_EQ(queue.server.abandoned(), 1);
}

// --- two protocols

constexpr const char* kEmptyXml = "<ReceiveMessageResponse><ReceiveMessageResult/></ReceiveMessageResponse>";

bool is_json(const ReceivedRequest& request) {
    return request.headers.contains("x-amz-target");
}

// A server that knows one protocol, and says `refusal` to the other one.
CannedAnswer knows_only(Protocol known, const ReceivedRequest& request, const CannedAnswer& refusal) {
    if (is_json(request) != (known == Protocol::json))
        return refusal;
    return with_body(known == Protocol::json ? "{}" : kEmptyXml);
}

const CannedAnswer kRefusedInXml = {
    .status = 400, .body = "<ErrorResponse><Error><Code>MissingAction</Code></Error></ErrorResponse>"};
const CannedAnswer kRefusedInText = {.status = 400, .body = "Bad Request"};
const CannedAnswer kRefusedInJson = {.status = 400, .body = R"({"__type":"UnknownOperationException"})"};

SqsClientOptions speaking(ProtocolSetting protocol, std::uint16_t port) {
    SqsClientOptions options = options_for(port);
    options.protocol = protocol;
    return options;
}

std::string protocols_of(const LocalServer& server) {
    std::string letters;
    for (const ReceivedRequest& request : server.requests())
        letters += is_json(request) ? 'j' : 'q';
    return letters;
}

TEST_F(SqsClientTest, a_query_request_is_a_signed_form_to_the_queues_path) {
    setenv("AWS_SESSION_TOKEN", "a-session-token", 1);
    LocalServer server([](const ReceivedRequest&) { return with_body(kEmptyXml); });
    SqsClient client(speaking(ProtocolSetting::query, server.port()));
    EXPECT_TRUE(receive(client, 20).outcome.ok());

    const ReceivedRequest request = server.requests().back();
    EXPECT_EQ(request.line, "POST /123456789012/logins HTTP/1.1");
    EXPECT_EQ(request.headers.at("content-type"), "application/x-www-form-urlencoded");
    EXPECT_FALSE(request.headers.contains("x-amz-target"));
    EXPECT_TRUE(request.body.starts_with("Action=ReceiveMessage&Version=2012-11-05&QueueUrl=http%3A%2F%2F"));
    Headers signed_headers;
    for (const char* name : {"content-type", "host", "x-amz-date", "x-amz-security-token"})
        signed_headers.emplace_back(name, request.headers.at(name));
    EXPECT_EQ(request.headers.at("authorization"),
              authorization_header(
                  {"POST", "/123456789012/logins", "", signed_headers, request.body},
                  {"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a-session-token"},
                  {.region = "eu-west-1", .service = "sqs", .amz_date = request.headers.at("x-amz-date")}));
}

TEST_F(SqsClientTest, a_request_that_json_is_refused_for_is_repeated_in_query_and_ends_once) {
    LocalServer server(
        [](const ReceivedRequest& request) { return knows_only(Protocol::query, request, kRefusedInXml); });
    SqsClient client(options_for(server.port()));
    EXPECT_EQ(client.protocol(), Protocol::json);
    EXPECT_TRUE(receive(client).outcome.ok());
    EXPECT_EQ(client.protocol(), Protocol::query);
    EXPECT_TRUE(receive(client).outcome.ok());
    EXPECT_EQ(protocols_of(server), "jqq");
}

TEST_F(SqsClientTest, a_server_that_does_not_even_say_so_is_understood_as_well) {
    LocalServer server(
        [](const ReceivedRequest& request) { return knows_only(Protocol::query, request, kRefusedInText); });
    SqsClient client(options_for(server.port()));
    for (int i = 0; i < 4; ++i)
        EXPECT_TRUE(receive(client).outcome.ok());
    EXPECT_EQ(protocols_of(server), "jqjqqq");
}

TEST_F(SqsClientTest, every_action_is_repeated) {
    const auto answer_to = [](const ReceivedRequest& request) {
        if (is_json(request))
            return kRefusedInText;
        const std::string action = request.body.substr(7, request.body.find('&') - 7);
        return with_body("<" + action + "Response><" + action + "Result/></" + action + "Response>");
    };
    LocalServer server(answer_to);
    const auto fresh = [&] { return SqsClient(options_for(server.port())); };
    SqsClient first = fresh(), second = fresh(), third = fresh();
    EXPECT_TRUE(event<BatchResult>(first, first.start_delete({"r"})).outcome.ok());
    EXPECT_TRUE(event<BatchResult>(second, second.start_change_visibility({"r"}, 0)).outcome.ok());
    EXPECT_TRUE(event<AttributesResult>(third, third.start_get_queue_attributes()).outcome.ok());
    EXPECT_EQ(protocols_of(server), "jqjqjq");
    EXPECT_NE(server.requests().at(1).body.find("ReceiptHandle=r"), std::string::npos);
}

TEST_F(SqsClientTest, when_neither_is_understood_the_first_error_counts) {
    LocalServer server([](const ReceivedRequest& request) {
        return CannedAnswer{.status = is_json(request) ? 500 : 404, .body = "<html>?</html>"};
    });
    SqsClient client(options_for(server.port()));
    EXPECT_EQ(receive_error(client).http_status, 500);
    EXPECT_EQ(client.protocol(), Protocol::json);
}

TEST_F(SqsClientTest, an_overloaded_server_is_not_asked_twice) {
    Queue queue{.answer = {.status = 503, .body = "<html>busy</html>"}};
    receive_error(queue.client);
    EXPECT_EQ(protocols_of(queue.server), "j");
}

TEST_F(SqsClientTest, a_server_that_knows_only_json_gets_json) {
    LocalServer server(
        [](const ReceivedRequest& request) { return knows_only(Protocol::json, request, kRefusedInJson); });
    SqsClient client(options_for(server.port()));
    EXPECT_TRUE(receive(client).outcome.ok());
    EXPECT_EQ(protocols_of(server), "j");
}

TEST_F(SqsClientTest, a_prescribed_protocol_that_the_server_does_not_know_is_an_error_that_says_so) {
    const std::tuple<ProtocolSetting, Protocol, CannedAnswer> cases[] = {
        {ProtocolSetting::json, Protocol::query, kRefusedInXml},
        {ProtocolSetting::query, Protocol::json, kRefusedInJson},
    };
    for (const auto& [setting, known, refusal] : cases) {
        LocalServer server([&known = known, &refusal = refusal](const ReceivedRequest& request) {
            return knows_only(known, request, refusal);
        });
        SqsClient client(speaking(setting, server.port()));
        const ApiError error = receive_error(client);
        EXPECT_EQ(error.code, "ProtocolMismatch");
        EXPECT_EQ(error.error_class, ErrorClass::configuration);
        EXPECT_EQ(server.requests().size(), 1u);
    }
}

TEST_F(SqsClientTest, a_repetition_is_cancelled_under_the_first_id) {
    LocalServer server([](const ReceivedRequest& request) {
        return is_json(request) ? kRefusedInXml : CannedAnswer{.body = kEmptyXml, .delay = 10s};
    });
    SqsClient client(options_for(server.port()));
    const TransferId id = client.start_receive(waiting(20));
    for (const auto end = Clock::now() + 5s; server.requests().size() < 2 && Clock::now() < end;)
        EXPECT_TRUE(turn(client).empty());
    client.cancel(id);
    for (const auto end = Clock::now() + 5s; server.abandoned() == 0 && Clock::now() < end;)
        EXPECT_TRUE(turn(client).empty());
    EXPECT_EQ(server.abandoned(), 1);
}

} // namespace
} // namespace sqs_ingest
