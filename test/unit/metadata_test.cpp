// What a dead letter keeps of a message beside its body.
#include "core/transform/metadata.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

Message kept(const Message& message, Reason reason) {
    Message found;
    decode_metadata(encode_metadata(message, reason), found);
    return found;
}

TEST(Metadata, comes_back_as_it_was) {
    Message message;
    message.group_id = "group";
    message.sequence_number = "18850000000000000001";
    message.attributes["text"] = {"String", "t\xC3\xB6n"};
    message.attributes["bytes"] = {"Binary", std::string("\xFF\0", 2)};
    message.attributes["broken"] = {"Binary", "", true};
    const auto found = kept(message, Reason::missing_field);
    EXPECT_EQ(found.group_id, message.group_id);
    EXPECT_EQ(found.sequence_number, message.sequence_number);
    ASSERT_EQ(found.attributes.size(), 3u);
    for (const auto& [name, attribute] : message.attributes) {
        EXPECT_EQ(found.attributes.at(name).data_type, attribute.data_type) << name;
        EXPECT_EQ(found.attributes.at(name).value, attribute.value) << name;
        EXPECT_EQ(found.attributes.at(name).damaged, attribute.damaged) << name;
    }
}

TEST(Metadata, a_message_that_has_none_keeps_nothing) {
    EXPECT_EQ(encode_metadata({}, Reason::not_json), "");
}

TEST(Metadata, a_damaged_body_stays_damaged_whatever_it_was_rejected_for) {
    Message damaged;
    damaged.body_damaged = true;
    EXPECT_TRUE(kept(damaged, Reason::too_many_receives).body_damaged);
    EXPECT_TRUE(kept(damaged, Reason::invalid_utf8).body_damaged);
}

TEST(Metadata, what_is_no_utf8_for_another_reason_is_said_not_to_be_damaged) {
    Message found;
    found.body_damaged = true; // as the reason alone would have it
    decode_metadata(encode_metadata({}, Reason::invalid_utf8), found);
    EXPECT_FALSE(found.body_damaged);
}

TEST(Metadata, what_is_no_metadata_changes_nothing) {
    for (const auto* text :
         {"", "null", "[]", "{", R"({"attributes": 7})", R"({"attributes": {"a": ["x"]}})"}) {
        Message message;
        message.body_damaged = true;
        decode_metadata(text, message);
        EXPECT_TRUE(message.body_damaged && message.attributes.empty()) << text;
    }
}

} // namespace
} // namespace sqs_ingest
