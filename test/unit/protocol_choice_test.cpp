// Which protocol is spoken after which answers, and what counts as an answer.
#include "core/sqs/protocol_choice.h"

#include "core/sqs/advice.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

// The answers of real servers to a request in AWS JSON.
constexpr const char* kMoto = // 4.1.9, status 400
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ErrorResponse>\n    <Error>\n"
    "        <Code>AWS.SimpleQueueService.NonExistentQueue</Code>\n"
    "        <Message><![CDATA[The specified queue does not exist for this wsdl version.]]></Message>\n"
    "        \n        <RequestId>x</RequestId>\n    </Error>\n</ErrorResponse>";
constexpr const char* kElasticMq = // 1.3.9, status 400
    "<ErrorResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\">\n      <Error>\n"
    "        <Type>Sender</Type>\n        <Code>MissingAction</Code>\n"
    "        <Message>MissingAction; see the SQS docs.</Message>\n        <Detail/>\n      </Error>\n"
    "      <RequestId>00000000-0000-0000-0000-000000000000</RequestId>\n    </ErrorResponse>";
constexpr const char* kLocalStack = // 2.3, status 500
    "<?xml version='1.0' encoding='utf-8'?>\n<ErrorResponse "
    "xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\"><Error><Code>InternalError</"
    "Code><Message>exception "
    "while calling sqs with unknown operation: Operation detection failed. Missing Action in request for "
    "query-protocol service ServiceModel(sqs).</Message></Error><RequestId>x</RequestId></ErrorResponse>";
constexpr const char* kWebPage = "<!doctype html><html lang=en><title>500</title><h1>Error</h1></html>";
constexpr const char* kAwsJson = R"({"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no"})";

Verdict verdict(Protocol spoken, int status, const char* body, const char* header = "") {
    return judge_error(spoken, decode_error_answer(status, header, body));
}

TEST(JudgeError, an_error_in_the_protocols_own_form_is_understood) {
    EXPECT_EQ(verdict(Protocol::json, 400, kAwsJson), Verdict::understood);
    EXPECT_EQ(verdict(Protocol::json, 400, "", "AWS.SimpleQueueService.NonExistentQueue;Sender"),
              Verdict::understood);
    EXPECT_EQ(verdict(Protocol::json, 500, R"({"__type":"InternalError"})"), Verdict::understood);
    EXPECT_EQ(verdict(Protocol::query, 400, kMoto), Verdict::understood);
}

TEST(JudgeError, servers_without_json_refuse_it_in_xml) {
    EXPECT_EQ(verdict(Protocol::json, 400, kMoto), Verdict::refused);
    EXPECT_EQ(verdict(Protocol::json, 400, kElasticMq), Verdict::refused);
    EXPECT_EQ(verdict(Protocol::json, 500, kLocalStack), Verdict::refused);
}

TEST(JudgeError, an_unknown_action_is_a_refusal_in_any_form) {
    EXPECT_EQ(verdict(Protocol::query, 400, kElasticMq), Verdict::refused);
    EXPECT_EQ(verdict(Protocol::query, 400, kAwsJson), Verdict::refused);
    EXPECT_EQ(verdict(Protocol::json, 404, R"({"__type":"UnknownOperationException"})"), Verdict::refused);
}

TEST(JudgeError, what_no_sqs_server_says_is_foreign) {
    for (const Protocol spoken : {Protocol::json, Protocol::query}) {
        EXPECT_EQ(verdict(spoken, 500, kWebPage), Verdict::foreign);
        EXPECT_EQ(verdict(spoken, 400, "Bad Request"), Verdict::foreign); // GoAWS before 0.5
        EXPECT_EQ(verdict(spoken, 404, ""), Verdict::foreign);
        EXPECT_EQ(verdict(spoken, 404, R"({"message":"no Route matched with those values"})"),
                  Verdict::foreign);
    }
}

TEST(JudgeError, gateways_and_rate_limits_say_nothing_about_the_protocol) {
    for (const int status : {301, 407, 408, 429, 502, 503, 504})
        EXPECT_EQ(verdict(Protocol::json, status, kWebPage), Verdict::outage) << status;
    EXPECT_EQ(verdict(Protocol::json, 503,
                      "<ErrorResponse><Error><Code>ServiceUnavailable</Code></Error>"
                      "</ErrorResponse>"),
              Verdict::outage);
    EXPECT_EQ(verdict(Protocol::json, 400,
                      "<ErrorResponse><Error><Code>RequestThrottled</Code></Error>"
                      "</ErrorResponse>"),
              Verdict::outage);
}

class Automatic : public testing::Test {
  protected:
    ProtocolChoice choice{ProtocolSetting::automatic};

    // A request whose first answer is repeated in the other protocol, and the answer to that.
    bool repeated(Verdict first, Verdict second) {
        const auto ticket = choice.begin();
        EXPECT_TRUE(choice.first_answer(ticket, first));
        return choice.second_answer(ticket, first, second);
    }
};

TEST_F(Automatic, begins_with_json_and_stays_with_it_once_it_is_understood) {
    EXPECT_EQ(choice.current(), Protocol::json);
    EXPECT_FALSE(choice.is_settled());
    EXPECT_FALSE(choice.first_answer(choice.begin(), Verdict::understood));
    EXPECT_TRUE(choice.is_settled());
    EXPECT_FALSE(choice.first_answer(choice.begin(), Verdict::foreign));
    EXPECT_EQ(choice.current(), Protocol::json);
}

TEST_F(Automatic, a_refusal_settles_query_as_soon_as_that_is_understood) {
    EXPECT_TRUE(repeated(Verdict::refused, Verdict::understood));
    EXPECT_TRUE(choice.is_settled());
    EXPECT_EQ(choice.current(), Protocol::query);
}

TEST_F(Automatic, query_is_not_settled_by_one_foreign_answer) {
    EXPECT_TRUE(repeated(Verdict::foreign, Verdict::understood));
    EXPECT_FALSE(choice.is_settled());
    EXPECT_EQ(choice.current(), Protocol::json);
    EXPECT_FALSE(choice.first_answer(choice.begin(), Verdict::understood)); // it was a proxy, now mended
    EXPECT_EQ(choice.current(), Protocol::json);
    EXPECT_TRUE(choice.is_settled());
}

TEST_F(Automatic, query_is_settled_by_the_second_foreign_answer) {
    repeated(Verdict::foreign, Verdict::understood);
    EXPECT_TRUE(repeated(Verdict::foreign, Verdict::understood));
    EXPECT_EQ(choice.current(), Protocol::query);
    EXPECT_TRUE(choice.is_settled());
}

TEST_F(Automatic, two_requests_of_the_same_moment_count_once) {
    const auto first = choice.begin();
    const auto second = choice.begin();
    for (const auto& ticket : {first, second}) {
        EXPECT_TRUE(choice.first_answer(ticket, Verdict::foreign));
        EXPECT_TRUE(choice.second_answer(ticket, Verdict::foreign, Verdict::understood));
    }
    EXPECT_FALSE(choice.is_settled());
}

TEST_F(Automatic, an_outage_is_not_repeated_and_settles_nothing) {
    EXPECT_FALSE(choice.first_answer(choice.begin(), Verdict::outage));
    EXPECT_FALSE(choice.is_settled());
}

TEST_F(Automatic, the_first_answer_counts_when_the_second_is_no_better) {
    EXPECT_FALSE(repeated(Verdict::foreign, Verdict::foreign));
    EXPECT_FALSE(repeated(Verdict::foreign, Verdict::outage));
    EXPECT_FALSE(repeated(Verdict::foreign, Verdict::refused));
    EXPECT_FALSE(repeated(Verdict::refused, Verdict::foreign));
    // The server cannot be meant to speak JSON: that it cannot be reached now says more.
    EXPECT_TRUE(repeated(Verdict::refused, Verdict::outage));
    EXPECT_FALSE(choice.is_settled());
    EXPECT_EQ(choice.current(), Protocol::json);
}

TEST_F(Automatic, a_request_sent_before_query_was_settled_is_repeated) {
    const auto before = choice.begin();
    repeated(Verdict::refused, Verdict::understood);
    EXPECT_TRUE(choice.first_answer(before, Verdict::foreign));
    EXPECT_TRUE(choice.second_answer(before, Verdict::foreign, Verdict::understood));
    EXPECT_EQ(choice.current(), Protocol::query);
}

TEST_F(Automatic, a_server_that_changed_is_followed) {
    repeated(Verdict::refused, Verdict::understood);
    EXPECT_FALSE(choice.first_answer(choice.begin(), Verdict::understood));
    EXPECT_FALSE(choice.first_answer(choice.begin(), Verdict::foreign));
    EXPECT_TRUE(repeated(Verdict::refused, Verdict::understood));
    EXPECT_EQ(choice.current(), Protocol::json);
    EXPECT_TRUE(repeated(Verdict::refused, Verdict::understood));
    EXPECT_EQ(choice.current(), Protocol::query);
}

TEST(Prescribed, a_protocol_is_never_left) {
    for (const ProtocolSetting setting : {ProtocolSetting::json, ProtocolSetting::query}) {
        ProtocolChoice choice(setting);
        const Protocol expected = setting == ProtocolSetting::json ? Protocol::json : Protocol::query;
        EXPECT_EQ(choice.current(), expected);
        EXPECT_TRUE(choice.is_settled());
        for (const Verdict verdict : {Verdict::refused, Verdict::foreign, Verdict::outage})
            EXPECT_FALSE(choice.first_answer(choice.begin(), verdict));
        EXPECT_EQ(choice.current(), expected);
    }
}

TEST(ProtocolSettingOf, reads_the_option) {
    EXPECT_EQ(protocol_setting("auto"), ProtocolSetting::automatic);
    EXPECT_EQ(protocol_setting("json"), ProtocolSetting::json);
    EXPECT_EQ(protocol_setting("query"), ProtocolSetting::query);
}

ApiError explained(Protocol spoken, int status, const char* body) {
    DecodedError decoded = decode_error_answer(status, "", body);
    return explain_mismatch(spoken, judge_error(spoken, decoded), decoded.error);
}

TEST(ExplainMismatch, a_refused_protocol_is_named_with_what_to_do) {
    for (const auto& [status, body] :
         {std::pair{400, kMoto}, std::pair{400, kElasticMq}, std::pair{500, kLocalStack}}) {
        const ApiError error = explained(Protocol::json, status, body);
        EXPECT_EQ(error.code, "ProtocolMismatch");
        EXPECT_EQ(error.error_class, ErrorClass::configuration);
        EXPECT_NE(error.message.find("AWS JSON"), std::string::npos);
        EXPECT_LE(error.message.size(), kMaxMessageBytes);
        EXPECT_NE(advice(error).find("'auto'"), std::string::npos);
    }
    EXPECT_NE(explained(Protocol::query, 400, kAwsJson).message.find("Query"), std::string::npos);
}

TEST(ExplainMismatch, other_errors_stay_what_they_are) {
    EXPECT_EQ(explained(Protocol::json, 400, kAwsJson).code, "QueueDoesNotExist");
    EXPECT_EQ(explained(Protocol::query, 400, kMoto).code, "QueueDoesNotExist");
    EXPECT_EQ(explained(Protocol::json, 500, kWebPage).code, "HTTP 500");
    for (const std::string code : {"SignatureDoesNotMatch", "ExpiredToken", "AccessDenied"})
        EXPECT_EQ(
            explained(Protocol::json, 403,
                      ("<ErrorResponse><Error><Code>" + code + "</Code></Error></ErrorResponse>").c_str())
                .code,
            code);
}

} // namespace
} // namespace sqs_ingest
