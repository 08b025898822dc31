// Requests as SQS expects them, and answers as servers really give them: whole, odd, damaged and hostile.
#include "core/sqs/json_protocol.h"

#include "core/digest.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace sqs_ingest {
namespace {

using json_protocol::decode_batch;
using json_protocol::decode_queue_attributes;
using json_protocol::decode_receive;
using json_protocol::encode;
using nlohmann::json;

const std::string kQueueUrl = "https://sqs.us-east-1.amazonaws.com/123456789012/login-queue";
const std::string kReplacement = "\xEF\xBF\xBD";

std::string md5_hex(std::string_view body) {
    const std::optional<Md5Digest> digest = md5(body);
    return digest ? hex(*digest) : "";
}

// A message as JSON text. `body` is spliced in as it stands, between quotes.
std::string delivery(const std::string& id, const std::string& body, const std::string& rest = "") {
    return R"({"MessageId":")" + id + R"(","ReceiptHandle":"handle-)" + id + R"(","Body":")" + body + '"' +
           rest + "}";
}

std::string with_md5(const std::string& checksum) {
    return R"(,"MD5OfBody":")" + checksum + '"';
}

std::string answer(std::initializer_list<std::string> deliveries) {
    std::string text = R"({"Messages":[)";
    for (const std::string& one : deliveries) {
        text += text.ends_with('[') ? "" : ",";
        text += one;
    }
    return text + "]}";
}

Received received(const std::string& text) {
    Result<Received, ApiError> result = decode_receive(text);
    EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
    return result.ok() ? std::move(result).value() : Received{};
}

template<typename T>
void expect_bad_answer(const Result<T, ApiError>& result) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, "BadAnswer");
    EXPECT_EQ(result.error().error_class, ErrorClass::transient);
}

// --- requests

TEST(EncodeReceive, asks_for_attributes_under_both_names) {
    const ApiCall call =
        encode(kQueueUrl, ReceiveRequest{.wait_seconds = 20, .attempt_id = "", .message_attributes = {}});
    EXPECT_EQ(call.target, "AmazonSQS.ReceiveMessage");
    const json body = json::parse(call.body);
    EXPECT_EQ(body["QueueUrl"], kQueueUrl);
    EXPECT_EQ(body["MaxNumberOfMessages"], 10);
    EXPECT_EQ(body["WaitTimeSeconds"], 20);
    const json names = {"SentTimestamp", "ApproximateReceiveCount", "MessageGroupId", "SequenceNumber"};
    EXPECT_EQ(body["MessageSystemAttributeNames"], names);
    EXPECT_EQ(body["AttributeNames"], names);
    EXPECT_EQ(body.size(), 5u);
}

TEST(EncodeReceive, a_queue_url_cannot_break_out_of_its_string) {
    const std::string hostile = "http://h/\",\"x\":\"\\\n\x01";
    EXPECT_EQ(json::parse(encode(hostile, ReceiveRequest{}).body)["QueueUrl"], hostile);
}

TEST(EncodeDeleteBatch, entry_ids_are_positions) {
    const ApiCall call = encode(kQueueUrl, DeleteRequest{{"first\"handle", "second"}});
    EXPECT_EQ(call.target, "AmazonSQS.DeleteMessageBatch");
    EXPECT_EQ(json::parse(call.body), json::parse(R"({"QueueUrl":")" + kQueueUrl + R"(","Entries":[
        {"Id":"0","ReceiptHandle":"first\"handle"},{"Id":"1","ReceiptHandle":"second"}]})"));
}

TEST(EncodeChangeVisibilityBatch, gives_every_entry_the_timeout) {
    const ApiCall call = encode(kQueueUrl, VisibilityRequest{{"a", "b"}, 43200});
    EXPECT_EQ(call.target, "AmazonSQS.ChangeMessageVisibilityBatch");
    EXPECT_EQ(json::parse(call.body), json::parse(R"({"QueueUrl":")" + kQueueUrl + R"(","Entries":[
        {"Id":"0","ReceiptHandle":"a","VisibilityTimeout":43200},
        {"Id":"1","ReceiptHandle":"b","VisibilityTimeout":43200}]})"));
}

TEST(EncodeGetQueueAttributes, asks_for_all_since_standard_queues_refuse_the_fifo_ones_by_name) {
    const ApiCall call = encode(kQueueUrl, AttributesRequest{});
    EXPECT_EQ(call.target, "AmazonSQS.GetQueueAttributes");
    EXPECT_EQ(json::parse(call.body),
              json::parse(R"({"QueueUrl":")" + kQueueUrl + R"(","AttributeNames":["All"]})"));
}

// --- receive

TEST(DecodeReceive, takes_a_message_with_all_its_attributes) {
    const Received result = received(answer(
        {delivery("id-1", R"({\"user_id\":\"u\"})",
                  with_md5(md5_hex(R"({"user_id":"u"})")) +
                      R"(,"Attributes":{"SentTimestamp":"1700000000000","ApproximateReceiveCount":"3",)"
                      R"("MessageGroupId":"group","SequenceNumber":"18870993258745840640"})")}));
    ASSERT_EQ(result.messages.size(), 1u);
    const Message& message = result.messages[0];
    EXPECT_EQ(message.message_id, "id-1");
    EXPECT_EQ(message.receipt_handle, "handle-id-1");
    EXPECT_EQ(message.body, R"({"user_id":"u"})");
    EXPECT_FALSE(message.body_damaged);
    EXPECT_EQ(message.sent_at_ms, 1700000000000);
    EXPECT_EQ(message.receive_count, 3);
    EXPECT_EQ(message.group_id, "group");
    EXPECT_EQ(message.sequence_number, "18870993258745840640");
    EXPECT_TRUE(result.damaged.empty());
}

TEST(DecodeReceive, an_empty_receive_has_several_spellings) {
    for (const char* text : {"{}", R"({"Messages":[]})", R"({"Messages":null})"}) {
        const Received result = received(text);
        EXPECT_TRUE(result.messages.empty() && result.damaged.empty()) << text;
    }
}

TEST(DecodeReceive, keeps_the_order_of_the_answer) {
    const Received result = received(answer({delivery("b", ""), delivery("a", ""), delivery("c", "")}));
    ASSERT_EQ(result.messages.size(), 3u);
    EXPECT_EQ(result.messages[0].message_id + result.messages[1].message_id + result.messages[2].message_id,
              "bac");
}

TEST(DecodeReceive, attributes_may_be_numbers_or_missing) {
    const Received result = received(answer(
        {delivery("a", "", R"(,"Attributes":{"SentTimestamp":1700000000000,"ApproximateReceiveCount":2})"),
         delivery("b", "")}));
    ASSERT_EQ(result.messages.size(), 2u);
    EXPECT_EQ(result.messages[0].sent_at_ms, 1700000000000);
    EXPECT_EQ(result.messages[0].receive_count, 2);
    EXPECT_EQ(result.messages[1].sent_at_ms, std::nullopt);
    EXPECT_EQ(result.messages[1].receive_count, 0);
}

TEST(DecodeReceive, absurd_attributes_count_as_not_said) {
    for (const char* attributes : {R"({"SentTimestamp":"soon","ApproximateReceiveCount":"-1"})",
                                   R"({"SentTimestamp":"-1","ApproximateReceiveCount":"99999999999"})",
                                   R"({"SentTimestamp":18446744073709551615,"ApproximateReceiveCount":1.5})",
                                   R"({"SentTimestamp":"9223372036854775807","ApproximateReceiveCount":{}})",
                                   R"({"SentTimestamp":"1700000000000x","ApproximateReceiveCount":null})",
                                   R"("none")", "[]", "null"}) {
        const Received result =
            received(answer({delivery("a", "", R"(,"Attributes":)" + std::string(attributes))}));
        ASSERT_EQ(result.messages.size(), 1u) << attributes;
        EXPECT_EQ(result.messages[0].sent_at_ms, std::nullopt) << attributes;
        EXPECT_EQ(result.messages[0].receive_count, 0) << attributes;
    }
}

TEST(DecodeReceive, a_checksum_that_does_not_match_sets_the_message_aside) {
    if (!md5(""))
        GTEST_SKIP() << "MD5 is not available here";
    const Received result = received(answer({delivery("bad", "secret", with_md5(md5_hex("other"))),
                                             delivery("good", "text", with_md5(md5_hex("text")))}));
    ASSERT_EQ(result.messages.size(), 1u);
    EXPECT_EQ(result.messages[0].message_id, "good");
    ASSERT_EQ(result.damaged.size(), 1u);
    EXPECT_EQ(result.damaged[0].why, "message bad: MD5OfBody does not match the body");
}

TEST(DecodeReceive, a_missing_checksum_is_accepted) {
    EXPECT_EQ(received(answer({delivery("a", "text")})).messages.size(), 1u);
}

TEST(DecodeReceive, the_checksum_counts_the_bytes_behind_the_escapes) {
    using namespace std::string_literals;
    const std::string body = "\xC3\xA9\xF0\x9F\x98\x80\0"s;
    const Received result =
        received(answer({delivery("a", "\\u00e9\\ud83d\\ude00\\u0000", with_md5(md5_hex(body)))}));
    ASSERT_EQ(result.messages.size(), 1u);
    EXPECT_EQ(result.messages[0].body, body);
}

TEST(DecodeReceive, one_damaged_message_does_not_cost_the_others) {
    const Received result = received(
        answer({delivery("a", "fine", with_md5(md5_hex("fine"))),
                delivery("b", "bytes \xFF\xFE", with_md5("0123")), delivery("c", "lone \\ud800 surrogate"),
                delivery("d", "caf\xC3\xA9", with_md5(md5_hex("caf\xC3\xA9")))}));
    ASSERT_EQ(result.messages.size(), 4u);
    EXPECT_FALSE(result.messages[0].body_damaged);
    EXPECT_TRUE(result.messages[1].body_damaged);
    EXPECT_EQ(result.messages[1].body, "bytes " + kReplacement + kReplacement);
    EXPECT_TRUE(result.messages[2].body_damaged);
    EXPECT_EQ(result.messages[2].body, "lone " + kReplacement + " surrogate");
    EXPECT_FALSE(result.messages[3].body_damaged);
    EXPECT_EQ(result.messages[3].body, "caf\xC3\xA9");
    EXPECT_TRUE(result.damaged.empty());
}

TEST(DecodeReceive, each_kind_of_ill_formed_utf8_is_damage) {
    const std::string ill_formed[] = {
        "\x80",             // a continuation byte alone
        "\xC0\xAF",         // overlong
        "\xE0\x80\xAF",     // overlong
        "\xED\xA0\x80",     // a surrogate
        "\xF4\x90\x80\x80", // above U+10FFFF
        "\xF8\x88\x80\x80", // five bytes announced
        "\xE2\x82",         // cut off
    };
    for (const std::string& bytes : ill_formed) {
        const Received result =
            received(answer({delivery("a", "<" + bytes + ">"), delivery("b", "\xE2\x82\xAC")}));
        ASSERT_EQ(result.messages.size(), 2u);
        EXPECT_TRUE(result.messages[0].body_damaged);
        EXPECT_TRUE(result.messages[0].body.starts_with("<" + kReplacement));
        EXPECT_TRUE(result.messages[0].body.ends_with(kReplacement + ">"));
        EXPECT_FALSE(result.messages[1].body_damaged);
    }
}

TEST(DecodeReceive, each_kind_of_lone_surrogate_is_damage) {
    for (const char* escapes :
         {"\\ud800", "\\uDFFF", "\\ud800\\ud800", "\\udc00\\ud800", "\\ud83dx", "\\ud83d\\n"}) {
        const Received result = received(answer({delivery("a", escapes)}));
        ASSERT_EQ(result.messages.size(), 1u) << escapes;
        EXPECT_TRUE(result.messages[0].body_damaged) << escapes;
        EXPECT_TRUE(result.messages[0].body.starts_with(kReplacement)) << escapes;
    }
}

TEST(DecodeReceive, repair_touches_neither_pairs_nor_escaped_backslashes) {
    const Received result =
        received(answer({delivery("damaged", "\\udfff"), delivery("pair", "\\ud83d\\ude00"),
                         delivery("backslash", R"(\\ud800)"), delivery("both", R"(\\\ud800)")}));
    ASSERT_EQ(result.messages.size(), 4u);
    EXPECT_EQ(result.messages[1].body, "\xF0\x9F\x98\x80");
    EXPECT_FALSE(result.messages[1].body_damaged);
    EXPECT_EQ(result.messages[2].body, R"(\ud800)");
    EXPECT_FALSE(result.messages[2].body_damaged);
    EXPECT_EQ(result.messages[3].body, "\\" + kReplacement);
    EXPECT_TRUE(result.messages[3].body_damaged);
}

TEST(DecodeReceive, a_replacement_character_that_the_sender_wrote_is_no_damage) {
    if (!md5(""))
        GTEST_SKIP() << "MD5 is not available here";
    const std::string genuine = "sent so: " + kReplacement;
    const Received result =
        received(answer({delivery("a", genuine, with_md5(md5_hex(genuine))), delivery("b", "\xFF")}));
    ASSERT_EQ(result.messages.size(), 2u);
    EXPECT_FALSE(result.messages[0].body_damaged);
    EXPECT_TRUE(result.messages[1].body_damaged);
    EXPECT_FALSE(received(answer({delivery("a", genuine)})).messages.at(0).body_damaged);
}

TEST(DecodeReceive, a_wrong_checksum_beside_a_damaged_message_is_still_noticed) {
    if (!md5(""))
        GTEST_SKIP() << "MD5 is not available here";
    const Received result =
        received(answer({delivery("a", "\xFF"), delivery("b", "intact", with_md5(md5_hex("other")))}));
    EXPECT_EQ(result.messages.size(), 1u);
    EXPECT_EQ(result.damaged.size(), 1u);
}

TEST(DecodeReceive, deliveries_without_what_is_needed_are_set_aside) {
    const Received result = received(answer(
        {R"({"ReceiptHandle":"h","Body":"b"})", R"({"MessageId":"a","Body":"b"})",
         R"({"MessageId":"c","ReceiptHandle":"h"})", R"({"MessageId":7,"ReceiptHandle":"h","Body":"b"})",
         R"({"MessageId":"d","ReceiptHandle":"","Body":"b"})",
         R"({"MessageId":"e","ReceiptHandle":"h","Body":{}})",
         R"({"MessageId":"f\u0000","ReceiptHandle":"h","Body":""})",
         R"({"MessageId":")" + std::string(101, 'x') + R"(","ReceiptHandle":"h","Body":""})", "null", "[]",
         "7", delivery("good", "")}));
    EXPECT_EQ(result.damaged.size(), 11u);
    ASSERT_EQ(result.messages.size(), 1u);
    EXPECT_EQ(result.messages[0].message_id, "good");
    EXPECT_EQ(result.messages[0].body, "");
}

TEST(DecodeReceive, a_damaged_receipt_handle_is_set_aside) {
    const Received result = received(answer({R"({"MessageId":"a","ReceiptHandle":"h\ud800","Body":"b"})"}));
    EXPECT_EQ(result.damaged.size(), 1u);
    EXPECT_TRUE(result.messages.empty());
}

TEST(DecodeReceive, an_answer_of_another_shape_is_a_transient_error) {
    for (const char* text :
         {"", "null", "[]", "\"x\"", "<html></html>", "{", R"({"Messages":{}})", R"({"Messages":"x"})",
          R"({"Messages":[)", R"({"Messages":[]} trailing)", R"({"a":1e999})", "\xFF"})
        expect_bad_answer(decode_receive(text));
}

TEST(DecodeReceive, an_error_never_quotes_the_answer) {
    const Result<Received, ApiError> result = decode_receive(R"({"Messages":[{"Body":"secret")");
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().message.find("secret"), std::string::npos);
}

TEST(DecodeReceive, a_million_levels_of_nesting_do_not_crash) {
    constexpr std::size_t kLevels = 1'000'000;
    std::string objects;
    for (std::size_t i = 0; i < kLevels; ++i)
        objects += R"({"a":)";
    const std::string arrays = std::string(kLevels, '[') + std::string(kLevels, ']');
    expect_bad_answer(decode_receive(arrays));
    expect_bad_answer(decode_receive(objects));
    expect_bad_answer(decode_receive(std::string(kLevels, '[')));
    EXPECT_TRUE(received(R"({"x":)" + arrays + "}").messages.empty());
    EXPECT_EQ(
        received(answer({objects + "1" + std::string(kLevels, '}'), delivery("good", "")})).messages.size(),
        1u);
    EXPECT_EQ(received(answer({delivery("good", "", R"(,"Attributes":)" + arrays)})).messages.size(), 1u);
}

// --- batches

std::vector<FailedEntry> failed(const std::string& text, int entries) {
    Result<std::vector<FailedEntry>, ApiError> result = decode_batch(text, entries);
    EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
    return result.ok() ? std::move(result).value() : std::vector<FailedEntry>{};
}

TEST(DecodeBatch, entries_that_succeeded_are_not_among_the_failed) {
    EXPECT_TRUE(failed(R"({"Successful":[{"Id":"0"},{"Id":"1"}],"Failed":[]})", 2).empty());
    EXPECT_TRUE(failed(R"({"Successful":[{"Id":"0"}]})", 1).empty());
    EXPECT_TRUE(failed(R"({"Successful":[{"Id":"0"},{"Id":"0"}],"Failed":null})", 1).empty());
}

TEST(DecodeBatch, an_entry_that_the_answer_leaves_out_has_not_succeeded) {
    const std::vector<FailedEntry> entries =
        failed(R"({"Successful":[{"Id":"0"}],"Failed":[{"Id":"2","Code":"InternalError"}]})", 4);
    ASSERT_EQ(entries.size(), 3u);
    EXPECT_EQ(entries[0].error.code, "InternalError");
    for (const std::size_t i : {1u, 2u}) {
        EXPECT_EQ(entries[i].position, i == 1 ? 1 : 3);
        EXPECT_EQ(entries[i].error.code, kNotAnswered);
        EXPECT_EQ(entries[i].error.error_class, ErrorClass::transient);
        EXPECT_EQ(entries[i].error.http_status, 200);
    }
    EXPECT_EQ(failed(R"({"Successful":null,"Failed":null})", 3).size(), 3u);
    EXPECT_EQ(failed("{}", 3).size(), 3u);
}

TEST(DecodeBatch, failed_entries_come_with_position_and_class) {
    const std::vector<FailedEntry> entries = failed(R"({"Successful":[{"Id":"1"}],"Failed":[
            {"Id":"0","SenderFault":true,"Code":"ReceiptHandleIsInvalid","Message":"not\nvalid"},
            {"Id":"3","SenderFault":false,"Code":"InternalError"},
            {"Id":"2","SenderFault":true,"Code":"AWS.SimpleQueueService.MessageNotInflight"}]})",
                                                    4);
    ASSERT_EQ(entries.size(), 3u);
    EXPECT_EQ(entries[0].position, 0);
    EXPECT_EQ(entries[0].error.error_class, ErrorClass::receipt);
    EXPECT_EQ(entries[0].error.message, "not valid");
    EXPECT_EQ(entries[0].error.http_status, 200);
    EXPECT_EQ(entries[1].position, 3);
    EXPECT_EQ(entries[1].error.error_class, ErrorClass::transient);
    EXPECT_EQ(entries[2].error.code, "MessageNotInflight");
    EXPECT_EQ(entries[2].error.error_class, ErrorClass::receipt);
}

TEST(DecodeBatch, a_stale_handle_of_a_fifo_queue_is_recognised) {
    const std::vector<FailedEntry> entries = failed(
        R"({"Failed":[{"Id":"0","SenderFault":true,"Code":"InvalidParameterValue","Message":"Value x for )"
        R"(parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."}]})",
        1);
    ASSERT_EQ(entries.size(), 1u);
    EXPECT_EQ(entries[0].error.error_class, ErrorClass::receipt);
}

TEST(DecodeBatch, an_unknown_code_is_judged_by_whose_fault_it_is) {
    const std::vector<FailedEntry> entries = failed(
        R"({"Failed":[{"Id":"0","SenderFault":true,"Code":"New"},{"Id":"1","Code":"New"},{"Id":"2","Code":7}]})",
        3);
    ASSERT_EQ(entries.size(), 3u);
    EXPECT_EQ(entries[0].error.error_class, ErrorClass::configuration);
    EXPECT_EQ(entries[1].error.error_class, ErrorClass::transient);
    EXPECT_EQ(entries[2].error.code, "Unknown");
}

TEST(DecodeBatch, an_entry_that_was_not_sent_spoils_the_answer) {
    for (const char* text : {R"({"Failed":[{"Id":"2"}]})", R"({"Failed":[{"Id":"-1"}]})",
                             R"({"Failed":[{"Id":"x"}]})", R"({"Failed":[{}]})", R"({"Failed":[7]})",
                             R"({"Failed":{}})", R"({"Successful":[{"Id":"5"}]})", "[]", ""})
        expect_bad_answer(decode_batch(text, 2));
}

// --- queue attributes

TEST(DecodeQueueAttributes, reads_what_the_pipeline_needs) {
    const Result<QueueAttributes, ApiError> result = decode_queue_attributes(
        R"({"Attributes":{"VisibilityTimeout":"30","MessageRetentionPeriod":"345600",)"
        R"("ApproximateNumberOfMessages":"12","FifoQueue":"true","QueueArn":"arn:aws:sqs:x",)"
        R"("RedrivePolicy":"{\"deadLetterTargetArn\":\"arn\",\"maxReceiveCount\":\"5\"}"}})");
    ASSERT_TRUE(result.ok());
    const QueueAttributes& attributes = result.value();
    EXPECT_EQ(attributes.visibility_timeout_seconds, 30);
    EXPECT_EQ(attributes.retention_seconds, 345600);
    EXPECT_EQ(attributes.approximate_messages, 12);
    EXPECT_TRUE(attributes.fifo);
    EXPECT_EQ(attributes.max_receive_count, 5);
}

TEST(DecodeQueueAttributes, what_the_server_does_not_say_stays_empty) {
    for (const char* text :
         {"{}", R"({"Attributes":{}})", R"({"Attributes":null})",
          R"({"Attributes":{"VisibilityTimeout":"x","RedrivePolicy":"no json","FifoQueue":"false"}})"}) {
        const Result<QueueAttributes, ApiError> result = decode_queue_attributes(text);
        ASSERT_TRUE(result.ok()) << text;
        EXPECT_EQ(result.value().visibility_timeout_seconds, std::nullopt) << text;
        EXPECT_EQ(result.value().max_receive_count, std::nullopt) << text;
        EXPECT_FALSE(result.value().fifo) << text;
    }
}

TEST(DecodeQueueAttributes, numbers_and_booleans_may_be_unquoted) {
    const Result<QueueAttributes, ApiError> result = decode_queue_attributes(
        R"({"Attributes":{"VisibilityTimeout":30,"FifoQueue":true,"RedrivePolicy":"{\"maxReceiveCount\":4}"}})");
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result.value().visibility_timeout_seconds, 30);
    EXPECT_TRUE(result.value().fifo);
    EXPECT_EQ(result.value().max_receive_count, 4);
}

TEST(DecodeQueueAttributes, an_answer_of_another_shape_is_a_transient_error) {
    for (const char* text : {"", "[]", R"({"Attributes":[]})", "<html>"})
        expect_bad_answer(decode_queue_attributes(text));
}

} // namespace
} // namespace sqs_ingest
