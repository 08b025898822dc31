// The Query protocol: forms as SQS expects them, and XML as servers really give it: whole, odd, damaged and
// hostile.
#include "core/sqs/query_protocol.h"

#include "core/digest.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using query_protocol::decode_batch;
using query_protocol::decode_queue_attributes;
using query_protocol::decode_receive;
using query_protocol::encode;

const std::string kQueueUrl = "https://sqs.us-east-1.amazonaws.com/123456789012/login-queue";
const std::string kEncodedUrl = "https%3A%2F%2Fsqs.us-east-1.amazonaws.com%2F123456789012%2Flogin-queue";
const std::string kReplacement = "\xEF\xBF\xBD";

std::string md5_hex(std::string_view body) {
    const std::optional<Md5Digest> digest = md5(body);
    return digest ? hex(*digest) : "";
}

// `body` is spliced in as it stands.
std::string message(const std::string& id, const std::string& body, const std::string& rest = "") {
    return "<Message><MessageId>" + id + "</MessageId><ReceiptHandle>handle-" + id +
           "</ReceiptHandle><Body>" + body + "</Body>" + rest + "</Message>";
}

std::string with_md5(const std::string& checksum) {
    return "<MD5OfBody>" + checksum + "</MD5OfBody>";
}

std::string answer(const std::string& messages) {
    return "<?xml version=\"1.0\"?><ReceiveMessageResponse "
           "xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\"><ReceiveMessageResult>" +
           messages + "</ReceiveMessageResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>" +
           "</ReceiveMessageResponse>";
}

Received received(const std::string& text) {
    Result<Received, ApiError> result = decode_receive(text);
    EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
    return result.ok() ? std::move(result).value() : Received{};
}

Message only_message(const std::string& text) {
    Received result = received(text);
    EXPECT_EQ(result.messages.size(), 1u);
    EXPECT_TRUE(result.damaged.empty()) << result.damaged.front().why;
    return result.messages.empty() ? Message{} : std::move(result.messages[0]);
}

std::string body_of(const std::string& written) {
    return only_message(answer(message("a", written))).body;
}

template<typename T>
void expect_bad_answer(const Result<T, ApiError>& result) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, "BadAnswer");
    EXPECT_EQ(result.error().error_class, ErrorClass::transient);
}

// --- requests

TEST(EncodeQuery, a_receive_is_a_form_to_the_path_of_the_queue) {
    ReceiveRequest request;
    request.wait_seconds = 20;
    const ApiCall call = encode(kQueueUrl, request);
    EXPECT_EQ(call.path, "/123456789012/login-queue");
    EXPECT_EQ(call.content_type, "application/x-www-form-urlencoded");
    EXPECT_EQ(call.target, "");
    EXPECT_EQ(call.body, "Action=ReceiveMessage&Version=2012-11-05&QueueUrl=" + kEncodedUrl +
                             "&MaxNumberOfMessages=10&WaitTimeSeconds=20"
                             "&MessageSystemAttributeName.1=SentTimestamp"
                             "&MessageSystemAttributeName.2=ApproximateReceiveCount"
                             "&MessageSystemAttributeName.3=MessageGroupId"
                             "&MessageSystemAttributeName.4=SequenceNumber"
                             "&AttributeName.1=SentTimestamp&AttributeName.2=ApproximateReceiveCount"
                             "&AttributeName.3=MessageGroupId&AttributeName.4=SequenceNumber");
}

TEST(EncodeQuery, what_a_receive_may_ask_for_besides) {
    ReceiveRequest request;
    request.visibility_timeout_seconds = 43200;
    request.attempt_id = "a&b=c";
    request.message_attributes = {"trace id", "tenant"};
    const std::string body = encode(kQueueUrl, request).body;
    EXPECT_NE(body.find("&VisibilityTimeout=43200&ReceiveRequestAttemptId=a%26b%3Dc"
                        "&MessageAttributeName.1=trace%20id&MessageAttributeName.2=tenant&"),
              std::string::npos)
        << body;
}

TEST(EncodeQuery, entry_ids_are_positions_and_entries_count_from_one) {
    EXPECT_EQ(encode(kQueueUrl, DeleteRequest{{"a+b/c==", "second"}}).body,
              "Action=DeleteMessageBatch&Version=2012-11-05&QueueUrl=" + kEncodedUrl +
                  "&DeleteMessageBatchRequestEntry.1.Id=0"
                  "&DeleteMessageBatchRequestEntry.1.ReceiptHandle=a%2Bb%2Fc%3D%3D"
                  "&DeleteMessageBatchRequestEntry.2.Id=1"
                  "&DeleteMessageBatchRequestEntry.2.ReceiptHandle=second");
    EXPECT_EQ(encode(kQueueUrl, VisibilityRequest{{"a"}, 90}).body,
              "Action=ChangeMessageVisibilityBatch&Version=2012-11-05&QueueUrl=" + kEncodedUrl +
                  "&ChangeMessageVisibilityBatchRequestEntry.1.Id=0"
                  "&ChangeMessageVisibilityBatchRequestEntry.1.ReceiptHandle=a"
                  "&ChangeMessageVisibilityBatchRequestEntry.1.VisibilityTimeout=90");
}

TEST(EncodeQuery, all_queue_attributes_are_asked_for) {
    EXPECT_EQ(encode(kQueueUrl, AttributesRequest{}).body,
              "Action=GetQueueAttributes&Version=2012-11-05&QueueUrl=" + kEncodedUrl +
                  "&AttributeName.1=All");
}

TEST(EncodeQuery, a_queue_url_that_is_none_goes_to_the_root_and_stays_inside_its_parameter) {
    for (const char* url : {"my-queue", "", "http://host", "a b&Action=DeleteQueue"}) {
        const ApiCall call = encode(url, AttributesRequest{});
        EXPECT_EQ(call.path, "/") << url;
        EXPECT_EQ(call.body.find("Action=DeleteQueue"), std::string::npos);
    }
}

// --- receive

TEST(DecodeQueryReceive, takes_a_message_with_all_its_attributes) {
    const std::string body = R"({"user_id":"<u>"})";
    const Message result = only_message(answer(message(
        "id-1", "{&quot;user_id&quot;:&quot;&lt;u&gt;&quot;}",
        with_md5(md5_hex(body)) +
            "<Attribute><Name>SenderId</Name><Value>me</Value></Attribute>"
            "<Attribute><Name>SentTimestamp</Name><Value>1700000000000</Value></Attribute>"
            "<Attribute><Name>ApproximateReceiveCount</Name><Value>3</Value></Attribute>"
            "<Attribute><Name>MessageGroupId</Name><Value>a &amp; b</Value></Attribute>"
            "<Attribute><Name>SequenceNumber</Name><Value>18870993258745840640</Value></Attribute>")));
    EXPECT_EQ(result.message_id, "id-1");
    EXPECT_EQ(result.receipt_handle, "handle-id-1");
    EXPECT_EQ(result.body, body);
    EXPECT_FALSE(result.body_damaged);
    EXPECT_EQ(result.sent_at_ms, 1700000000000);
    EXPECT_EQ(result.receive_count, 3);
    EXPECT_EQ(result.group_id, "a & b");
    EXPECT_EQ(result.sequence_number, "18870993258745840640");
}

TEST(DecodeQueryReceive, an_answer_may_be_indented_and_have_a_prefix) {
    const Message result = only_message(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- hello -->\n"
        "<q:ReceiveMessageResponse xmlns:q=\"http://queue.amazonaws.com/doc/2012-11-05/\">\n"
        " <q:ReceiveMessageResult>\n  <q:Message>\n   <q:MessageId>a</q:MessageId>\n"
        "   <q:ReceiptHandle>h</q:ReceiptHandle>\n   <q:Body>text</q:Body>\n"
        "   <q:Attribute>\n    <q:Name>SentTimestamp</q:Name>\n    <q:Value>7</q:Value>\n   </q:Attribute>\n"
        "  </q:Message>\n </q:ReceiveMessageResult>\n</q:ReceiveMessageResponse>\n");
    EXPECT_EQ(result.body, "text");
    EXPECT_EQ(result.sent_at_ms, 7);
}

TEST(DecodeQueryReceive, white_space_and_line_ends_of_a_body_are_kept) {
    for (const std::string body : {" both ends ", "\n\n", "   ", "a\r\nb\rc\n\td", ""})
        EXPECT_EQ(body_of(body), body);
    EXPECT_EQ(body_of("a&#xD;&#10;b"), "a\r\nb");
}

TEST(DecodeQueryReceive, entities_are_decoded_once) {
    EXPECT_EQ(body_of("&lt;&gt;&amp;&quot;&apos;"), "<>&\"'");
    EXPECT_EQ(body_of("&amp;lt; &amp;#65;"), "&lt; &#65;");
    EXPECT_EQ(body_of("&#233;&#x20AC;&#x1F600;&#x1f600;"),
              "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xF0\x9F\x98\x80");
    EXPECT_EQ(body_of("&#xD83D;&#xDE00;"), "\xF0\x9F\x98\x80"); // as some serializers write it
    EXPECT_EQ(body_of("<![CDATA[<a> &amp; ]]>&amp;<![CDATA[b]]>"), "<a> &amp; &b");
}

TEST(DecodeQueryReceive, an_ampersand_that_begins_no_known_entity_stays) {
    for (const std::string body : {"a & b", "&", "&;", "&nbsp;", "&#;", "&#x;", "&#12a;", "&#-1;", "&lt",
                                   "&muchtoolongforanentity;", "&&&"})
        EXPECT_EQ(body_of(body), body);
    EXPECT_EQ(body_of("&&amp;"), "&&");
}

TEST(DecodeQueryReceive, a_reference_to_no_character_costs_that_message_only) {
    for (const std::string reference : {"&#x0;", "&#0;", "&#xD800;", "&#xDFFF;", "&#xD800;&#xD800;",
                                        "&#x110000;", "&#xFFFFFFFF;", "&#x100000041;"}) {
        const Received result =
            received(answer(message("a", "fine", with_md5(md5_hex("fine"))) +
                            message("b", "x" + reference + "y", with_md5("0123")) + message("c", "good")));
        ASSERT_EQ(result.messages.size(), 3u) << reference;
        EXPECT_FALSE(result.messages[0].body_damaged);
        EXPECT_TRUE(result.messages[1].body_damaged) << reference;
        EXPECT_TRUE(result.messages[1].body.starts_with("x" + kReplacement)) << reference;
        EXPECT_TRUE(result.messages[1].body.ends_with("y")) << reference;
        EXPECT_FALSE(result.messages[2].body_damaged);
        EXPECT_TRUE(result.damaged.empty());
    }
}

TEST(DecodeQueryReceive, bytes_that_are_no_utf8_cost_that_message_only) {
    using namespace std::string_literals;
    for (const std::string& bytes : {"\xFF\xFE"s, "\xC0\xAF"s, "\xED\xA0\x80"s, "\xF4\x90\x80\x80"s, "\0"s}) {
        const Received result =
            received(answer(message("a", "caf\xC3\xA9") + message("b", "x" + bytes + "y", with_md5("0123"))));
        ASSERT_EQ(result.messages.size(), 2u);
        EXPECT_FALSE(result.messages[0].body_damaged);
        EXPECT_EQ(result.messages[0].body, "caf\xC3\xA9");
        EXPECT_TRUE(result.messages[1].body_damaged);
        EXPECT_TRUE(result.messages[1].body.starts_with("x" + kReplacement));
    }
}

TEST(DecodeQueryReceive, a_replacement_character_that_the_sender_wrote_is_no_damage) {
    if (!md5(""))
        GTEST_SKIP() << "MD5 is not available here";
    const std::string genuine = "sent so: " + kReplacement;
    const Received result =
        received(answer(message("a", genuine, with_md5(md5_hex(genuine))) + message("b", "\xFF")));
    ASSERT_EQ(result.messages.size(), 2u);
    EXPECT_FALSE(result.messages[0].body_damaged);
    EXPECT_TRUE(result.messages[1].body_damaged);
}

TEST(DecodeQueryReceive, a_control_character_is_what_its_checksum_says) {
    if (!md5(""))
        GTEST_SKIP() << "MD5 is not available here";
    const std::string body = "bell \x07";
    for (const std::string written : {"bell \x07", "bell &#x7;"}) {
        const Message result = only_message(answer(message("a", written, with_md5(md5_hex(body)))));
        EXPECT_EQ(result.body, body);
        EXPECT_FALSE(result.body_damaged);
    }
}

TEST(DecodeQueryReceive, markup_inside_a_body_is_damage) {
    const Message result = only_message(answer(message("a", "one <b>two</b> three", with_md5("0123"))));
    EXPECT_TRUE(result.body_damaged);
}

TEST(DecodeQueryReceive, what_stands_before_a_fault_in_the_xml_is_taken) {
    const std::string whole = message("a", "one") + message("b", "two");
    for (const std::string fault : {"<Message><MessageId>c</MessageId><Body>1 < 2</Body></Message>",
                                    "<Message><MessageId>c</MessageId><Body><b></Body></Message>",
                                    "<Message><MessageId>c</MessageId><Bo"}) {
        const Received result = received(answer(whole + fault + message("d", "four")));
        ASSERT_EQ(result.messages.size(), 2u) << fault;
        EXPECT_EQ(result.messages[1].body, "two");
        EXPECT_EQ(result.damaged.size(), 1u);
    }
}

TEST(DecodeQueryReceive, an_answer_that_was_cut_off_is_no_empty_one) {
    const std::string text = answer("");
    for (std::size_t length = 0; length < text.size(); ++length) {
        const Result<Received, ApiError> result = decode_receive(text.substr(0, length));
        EXPECT_FALSE(result.ok()) << text.substr(0, length);
    }
}

TEST(DecodeQueryReceive, a_message_that_was_cut_off_is_never_taken) {
    const std::string text = answer(message("a", "some text") + message("b", "more text"));
    for (std::size_t length = 0; length < text.size(); ++length) {
        const Result<Received, ApiError> result = decode_receive(text.substr(0, length));
        if (!result.ok())
            continue;
        for (const Message& one : result.value().messages)
            EXPECT_EQ(one.body, one.message_id == "a" ? "some text" : "more text") << length;
    }
}

TEST(DecodeQueryReceive, an_answer_of_another_shape_is_a_transient_error) {
    for (const char* text :
         {"", "{}", "hello", "<html><body>welcome</body></html>", "<ReceiveMessageResponse/>",
          "<ReceiveMessageResult/>",
          "<DeleteMessageBatchResponse><ReceiveMessageResult/>"
          "</DeleteMessageBatchResponse>",
          "<", "<!-- -->", "\xFF", "<ErrorResponse><Error><Code>X</Code></Error></ErrorResponse>"})
        expect_bad_answer(decode_receive(text));
}

TEST(DecodeQueryReceive, no_entity_is_ever_defined_or_fetched) {
    const Received result =
        received("<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\"><!ENTITY f SYSTEM "
                 "\"file:///etc/passwd\">]>" +
                 answer(message("m", "&b;&f;")).substr(21));
    ASSERT_EQ(result.messages.size(), 1u);
    EXPECT_EQ(result.messages[0].body, "&b;&f;");
}

TEST(DecodeQueryReceive, deliveries_without_what_is_needed_are_set_aside) {
    const Received result = received(
        answer("<Message><ReceiptHandle>h</ReceiptHandle><Body>b</Body></Message>"
               "<Message><MessageId>a</MessageId><Body>b</Body></Message>"
               "<Message><MessageId>c</MessageId><ReceiptHandle>h</ReceiptHandle></Message>"
               "<Message><MessageId>d</MessageId><ReceiptHandle/><Body>b</Body></Message>"
               "<Message><MessageId>e</MessageId><ReceiptHandle>&#x0;</ReceiptHandle><Body>b</Body></Message>"
               "<Message/>" +
               message("two words", "") + message(std::string(101, 'x'), "") + message("good", "")));
    EXPECT_EQ(result.damaged.size(), 8u);
    ASSERT_EQ(result.messages.size(), 1u);
    EXPECT_EQ(result.messages[0].message_id, "good");
}

TEST(DecodeQueryReceive, an_empty_body_element_is_an_empty_body) {
    EXPECT_EQ(only_message(answer("<Message><MessageId>a</MessageId><ReceiptHandle>h</ReceiptHandle><Body/>"
                                  "</Message>"))
                  .body,
              "");
}

TEST(DecodeQueryReceive, a_million_levels_of_nesting_do_not_crash) {
    constexpr std::size_t kLevels = 400'000;
    std::string open;
    std::string close;
    for (std::size_t i = 0; i < kLevels; ++i) {
        open += "<a>";
        close += "</a>";
    }
    expect_bad_answer(decode_receive(open + close));
    expect_bad_answer(decode_receive(open));
    EXPECT_EQ(received(answer(message("a", "x", open + close) + message("b", "y"))).messages.size(), 2u);
    expect_bad_answer(decode_receive(answer(open + open + open)));
}

TEST(DecodeQueryReceive, ten_messages_of_a_mebibyte_come_through) {
    const std::string body(1u << 20, 'x');
    std::string messages;
    for (int i = 0; i < 10; ++i)
        messages += message("m" + std::to_string(i), body, with_md5(md5_hex(body)));
    const Received result = received(answer(messages));
    ASSERT_EQ(result.messages.size(), 10u);
    EXPECT_EQ(result.messages[9].body, body);
}

// --- batches

std::string batch(const std::string& entries, const std::string& action = "DeleteMessageBatch") {
    return "<" + action + "Response><" + action + "Result>" + entries + "</" + action + "Result></" + action +
           "Response>";
}

std::string success(const std::string& id, const std::string& action = "DeleteMessageBatch") {
    return "<" + action + "ResultEntry><Id>" + id + "</Id></" + action + "ResultEntry>";
}

std::string failure(const std::string& id, const std::string& rest = "") {
    return "<BatchResultErrorEntry><Id>" + id + "</Id>" + rest + "</BatchResultErrorEntry>";
}

TEST(DecodeQueryBatch, failed_entries_come_with_position_and_class) {
    const auto result =
        decode_batch(batch(success("1") +
                           failure("0", "<Code>ReceiptHandleIsInvalid</Code><Message>not&#10;valid</Message>"
                                        "<SenderFault>true</SenderFault>") +
                           failure("2", "<Code>InternalError</Code><SenderFault>false</SenderFault>")),
                     3);
    ASSERT_TRUE(result.ok());
    ASSERT_EQ(result.value().size(), 2u);
    EXPECT_EQ(result.value()[0].position, 0);
    EXPECT_EQ(result.value()[0].error.error_class, ErrorClass::receipt);
    EXPECT_EQ(result.value()[0].error.message, "not valid");
    EXPECT_EQ(result.value()[1].position, 2);
    EXPECT_EQ(result.value()[1].error.error_class, ErrorClass::transient);
}

TEST(DecodeQueryBatch, an_entry_that_the_answer_leaves_out_has_not_succeeded) {
    const auto result = decode_batch(batch(success("1")), 2);
    ASSERT_TRUE(result.ok());
    ASSERT_EQ(result.value().size(), 1u);
    EXPECT_EQ(result.value()[0].position, 0);
    EXPECT_EQ(result.value()[0].error.code, kNotAnswered);
}

TEST(DecodeQueryBatch, visibility_changes_are_answered_alike) {
    const std::string action = "ChangeMessageVisibilityBatch";
    const auto result = decode_batch(batch(success("0", action) + failure("1", "<Code>X</Code>"), action), 2);
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result.value().size(), 1u);
}

TEST(DecodeQueryBatch, an_entry_that_was_not_sent_or_an_unfinished_answer_spoils_it) {
    for (const std::string& text :
         {batch(failure("2")), batch(failure("-1")), batch(failure("x")), batch(failure("")),
          batch(success("5")), batch("<BatchResultErrorEntry/>"), batch(success("0")).substr(0, 90),
          std::string("{}"), std::string(), std::string("<html/>")})
        expect_bad_answer(decode_batch(text, 2));
}

// --- queue attributes

TEST(DecodeQueryQueueAttributes, reads_what_the_pipeline_needs) {
    const auto attribute = [](const std::string& name, const std::string& value) {
        return "\n  <Attribute>\n <Name>" + name + "</Name>\n <Value>" + value + "</Value></Attribute>";
    };
    const auto result = decode_queue_attributes(
        "<GetQueueAttributesResponse><GetQueueAttributesResult>" + attribute("VisibilityTimeout", "30") +
        attribute("MessageRetentionPeriod", "345600") + attribute("ApproximateNumberOfMessages", "12") +
        attribute("FifoQueue", "true") +
        attribute("RedrivePolicy", "{&quot;maxReceiveCount&quot;:&quot;5&quot;}") +
        "</GetQueueAttributesResult></GetQueueAttributesResponse>");
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result.value().visibility_timeout_seconds, 30);
    EXPECT_EQ(result.value().retention_seconds, 345600);
    EXPECT_EQ(result.value().approximate_messages, 12);
    EXPECT_TRUE(result.value().fifo);
    EXPECT_EQ(result.value().max_receive_count, 5);
}

TEST(DecodeQueryQueueAttributes, an_answer_of_another_shape_is_a_transient_error) {
    for (const char* text : {"", "{}", "<html></html>", "<GetQueueAttributesResponse/>",
                             "<GetQueueAttributesResponse><GetQueueAttributesResult>"})
        expect_bad_answer(decode_queue_attributes(text));
}

} // namespace
} // namespace sqs_ingest
