// What both protocols must do alike, said in each one's words.
#include "core/digest.h"
#include "core/sqs/protocol.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

struct Wording {
    Protocol protocol;
    std::string empty_receive;
    // One message "m" with body "b" and the message attributes text = String "a<é", number = Number.int 7,
    // bytes = Binary 00 01 FF, broken = Binary that is no base64.
    std::string message_attributes;
    // The same, but its attribute "text" holds the byte FF.
    std::string damaged_attribute;
    // Its body is the byte FF; its attributes are what their sender wrote: trace = String "sent so: \uFFFD",
    // raw = Binary.png 89 00 FF, count = Number.int 7. MD5OfMessageAttributes is "DIGEST".
    std::string sent_replacement;
    std::string no_failures; // of a batch of two
};

std::string json_message(const std::string& attributes, const std::string& body = "b") {
    return R"({"Messages":[{"MessageId":"m","ReceiptHandle":"h","Body":")" + body +
           R"(","MD5OfMessageAttributes":"DIGEST","MessageAttributes":{)" + attributes + "}}]}";
}

std::string xml_message(const std::string& attributes, const std::string& body = "b") {
    return "<ReceiveMessageResponse><ReceiveMessageResult><Message><MessageId>m</MessageId>"
           "<ReceiptHandle>h</ReceiptHandle><MD5OfMessageAttributes>DIGEST</MD5OfMessageAttributes><Body>" +
           body + "</Body>" + attributes + "</Message></ReceiveMessageResult></ReceiveMessageResponse>";
}

std::string xml_attribute(const std::string& name, const std::string& type, const std::string& value) {
    return "<MessageAttribute><Name>" + name + "</Name><Value><DataType>" + type + "</DataType>" + value +
           "</Value></MessageAttribute>";
}

const Wording kWordings[] = {
    {Protocol::json, "{}",
     json_message(R"("text":{"DataType":"String","StringValue":"a<é"},)"
                  R"("number":{"DataType":"Number.int","StringValue":"7"},)"
                  R"("bytes":{"DataType":"Binary","BinaryValue":"AAH/"},)"
                  R"("broken":{"DataType":"Binary","BinaryValue":"AAH"},"odd":7)"),
     json_message(R"("text":{"DataType":"String","StringValue":")"
                  "\xFF"
                  R"("})"),
     json_message(R"("trace":{"DataType":"String","StringValue":"sent so: \ufffd"},)"
                  R"("raw":{"DataType":"Binary.png","BinaryValue":"iQD/"},)"
                  R"("count":{"DataType":"Number.int","StringValue":"7"})",
                  "\xFF"),
     R"({"Successful":[{"Id":"0"},{"Id":"1"}]})"},
    {Protocol::query, "<ReceiveMessageResponse><ReceiveMessageResult/></ReceiveMessageResponse>",
     xml_message(xml_attribute("text", "String", "<StringValue>a&lt;é</StringValue>") +
                 xml_attribute("number", "Number.int", "<StringValue>7</StringValue>") +
                 xml_attribute("bytes", "Binary", "<BinaryValue>AAH/</BinaryValue>") +
                 xml_attribute("broken", "Binary", "<BinaryValue>AAH</BinaryValue>")),
     xml_message(xml_attribute("text", "String", "<StringValue>\xFF</StringValue>")),
     xml_message(xml_attribute("trace", "String", "<StringValue>sent so: \xEF\xBF\xBD</StringValue>") +
                     xml_attribute("raw", "Binary.png", "<BinaryValue>iQD/</BinaryValue>") +
                     xml_attribute("count", "Number.int", "<StringValue>7</StringValue>"),
                 "\xFF"),
     "<DeleteMessageBatchResponse><DeleteMessageBatchResult>"
     "<DeleteMessageBatchResultEntry><Id>0</Id></DeleteMessageBatchResultEntry>"
     "<DeleteMessageBatchResultEntry><Id>1</Id></DeleteMessageBatchResultEntry>"
     "</DeleteMessageBatchResult></DeleteMessageBatchResponse>"},
};

class BothProtocols : public testing::TestWithParam<Wording> {
  protected:
    const Codec& protocol = codec(GetParam().protocol);

    Message message(const std::string& answer) {
        auto received = protocol.decode_receive(answer);
        EXPECT_TRUE(received.ok() && received.value().messages.size() == 1);
        return received.ok() ? received.value().messages.at(0) : Message{};
    }
};

TEST_P(BothProtocols, an_empty_receive_is_no_error) {
    const auto received = protocol.decode_receive(GetParam().empty_receive);
    ASSERT_TRUE(received.ok());
    EXPECT_TRUE(received.value().messages.empty() && received.value().damaged.empty());
}

TEST_P(BothProtocols, message_attributes_come_with_their_type_and_bytes) {
    const Message taken = message(GetParam().message_attributes);
    ASSERT_GE(taken.attributes.size(), 4u);
    EXPECT_EQ(taken.attributes.at("text").data_type, "String");
    EXPECT_EQ(taken.attributes.at("text").value, "a<é");
    EXPECT_FALSE(taken.attributes.at("text").damaged);
    EXPECT_EQ(taken.attributes.at("number").data_type, "Number.int");
    EXPECT_EQ(taken.attributes.at("number").value, "7");
    EXPECT_EQ(taken.attributes.at("bytes").data_type, "Binary");
    EXPECT_EQ(taken.attributes.at("bytes").value, std::string("\x00\x01\xFF", 3));
    EXPECT_FALSE(taken.attributes.at("bytes").damaged);
    EXPECT_TRUE(taken.attributes.at("broken").damaged);
    EXPECT_EQ(taken.attributes.at("broken").value, "");
    EXPECT_FALSE(taken.body_damaged);
}

TEST_P(BothProtocols, a_damaged_attribute_is_marked_and_leaves_the_body_alone) {
    const Message taken = message(GetParam().damaged_attribute);
    EXPECT_TRUE(taken.attributes.at("text").damaged);
    EXPECT_EQ(taken.attributes.at("text").value, "\xEF\xBF\xBD");
    EXPECT_FALSE(taken.body_damaged);
}

TEST_P(BothProtocols, a_replacement_character_that_the_sender_wrote_in_an_attribute_is_no_damage) {
    if (!md5(""))
        GTEST_SKIP() << "MD5 is not available here";
    const auto sent_with = [](std::string_view digest) {
        std::string answer = GetParam().sent_replacement;
        return answer.replace(answer.find("DIGEST"), 6, digest);
    };
    const Message taken = message(sent_with("de3e295a53aaec3095aa3575b71fb64a"));
    EXPECT_TRUE(taken.body_damaged);
    EXPECT_EQ(taken.attributes.at("trace").value, "sent so: \xEF\xBF\xBD");
    EXPECT_FALSE(taken.attributes.at("trace").damaged);
    // A digest of something else proves nothing.
    EXPECT_TRUE(message(sent_with(std::string(32, '0'))).attributes.at("trace").damaged);
}

TEST_P(BothProtocols, every_entry_that_did_not_fail_succeeded) {
    const auto failed = protocol.decode_batch(GetParam().no_failures, 2);
    ASSERT_TRUE(failed.ok());
    EXPECT_TRUE(failed.value().empty());
    EXPECT_FALSE(protocol.decode_batch(GetParam().no_failures, 1).ok());
}

TEST_P(BothProtocols, a_request_names_what_it_asks_for_and_no_more) {
    ReceiveRequest plain;
    const std::string body = protocol.encode("http://h/1/q", plain).body;
    EXPECT_EQ(body.find("ReceiveRequestAttemptId"), std::string::npos);
    EXPECT_EQ(body.find("MessageAttributeName"), std::string::npos);
    EXPECT_EQ(body.find("VisibilityTimeout"), std::string::npos);

    ReceiveRequest full;
    full.attempt_id = "attempt-7";
    full.message_attributes = {"tenant"};
    full.visibility_timeout_seconds = 33;
    const std::string more = protocol.encode("http://h/1/q", full).body;
    for (const char* part : {"ReceiveRequestAttemptId", "attempt-7", "MessageAttributeName", "tenant",
                             "VisibilityTimeout", "33"})
        EXPECT_NE(more.find(part), std::string::npos) << part;
}

TEST_P(BothProtocols, the_other_protocols_answer_is_not_understood) {
    for (const Wording& wording : kWordings) {
        if (wording.protocol == GetParam().protocol)
            continue;
        EXPECT_FALSE(protocol.decode_receive(wording.message_attributes).ok());
        EXPECT_FALSE(protocol.decode_batch(wording.no_failures, 2).ok());
        EXPECT_FALSE(protocol.decode_queue_attributes(wording.message_attributes).ok());
    }
}

INSTANTIATE_TEST_SUITE_P(Protocols, BothProtocols, testing::ValuesIn(kWordings),
                         [](const auto& wording) { return to_string(wording.param.protocol); });

} // namespace
} // namespace sqs_ingest
