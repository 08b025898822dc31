#include "core/transform/mention.h"

#include <gtest/gtest.h>

namespace {

using namespace sqs_ingest;

ColumnRule user_id() {
    const auto mapping = parse_mapping(user_logins_mapping());
    return mapping.value().columns.front();
}

bool about(std::string_view body, std::string_view id) {
    Transform transform;
    transform.mapping = parse_mapping(user_logins_mapping()).value();
    Message message;
    message.body = body;
    return mentions(transform, message, user_id(), id);
}

// As `columns` and `each` would have it; the first column is the user's.
bool about(std::string_view columns, std::string_view each, const Message& message, std::string_view id) {
    Transform transform;
    transform.mapping = parse_mapping(columns, each).value();
    return mentions(transform, message, transform.mapping.columns.front(), id);
}

Message message_of(std::string_view body, std::map<std::string, MessageAttribute> attributes = {}) {
    Message message;
    message.body = body;
    message.attributes = std::move(attributes);
    return message;
}

TEST(Mention, mapped_field_decides) {
    EXPECT_TRUE(about(R"({"user_id": "u1", "ip": "1.2.3.4"})", "u1"));
    EXPECT_TRUE(about(R"({"user_id": 4711})", "4711"));
    EXPECT_FALSE(about(R"({"user_id": "other", "device_type": "android", "note": "customer-1"})", "android"));
    EXPECT_FALSE(about(R"({"user_id": "other", "friend": "customer-1"})", "customer-1"));
}

TEST(Mention, each_row_is_decided_by_itself) {
    const auto about_bob = [](std::string_view body) {
        return about(R"([{"column": "u", "from": ["@each/user_id", "/user_id"], "user": true}])", "/items",
                     message_of(body), "bob-customer");
    };
    EXPECT_TRUE(about_bob(R"({"items": [{"user_id": "alice"}, {"user_id": "bob-customer"}]})"));
    EXPECT_TRUE(about_bob(R"({"user_id": "bob-customer", "items": [{"user_id": "alice"}, {}]})"));
    EXPECT_TRUE(about_bob(R"({"items": [{"user_id": "alice"}, {"userId": "bob-customer"}]})"));
    EXPECT_TRUE(about_bob(R"({"userId": "bob-customer", "items": [{"user_id": "alice"}, {}]})"));
    EXPECT_TRUE(about_bob(R"({"userId": "bob-customer", "items": []})"));
    EXPECT_TRUE(about_bob(R"({"user_id": "bob-customer", "items": 7})"));

    EXPECT_FALSE(about_bob(R"({"user_id": "bob-customer", "items": [{"user_id": "alice"}]})"));
    EXPECT_FALSE(
        about_bob(R"({"items": [{"user_id": "alice", "friend": "bob-customer"}, {"user_id": "eve"}]})"));
    EXPECT_FALSE(about_bob(R"({"items": [{"user_id": "alice", "friend": "bob-customer"}, {}]})"));
    EXPECT_FALSE(about_bob(R"({"user_id": "alice", "items": [{"friend": "bob-customer"}]})"));
}

TEST(Mention, mapped_field_that_is_empty_or_damaged_decides_nothing) {
    EXPECT_TRUE(about(R"({"user_id": "", "userId": "bob-customer"})", "bob-customer"));
    EXPECT_TRUE(about(R"({"user_id": {"id": "bob-customer"}})", "bob-customer"));
    const auto about_bob = [](std::string_view body, MessageAttribute uid) {
        return about(R"([{"column": "u", "from": "@attribute:uid", "steps": ["trim"], "user": true}])", "",
                     message_of(body, {{"uid", std::move(uid)}}), "bob-customer");
    };
    EXPECT_TRUE(about_bob(R"({"uid": "bob-customer"})", {"Binary", "", true}));
    EXPECT_TRUE(about_bob(R"({"uid": "bob-customer"})", {"String", "ali\xEF\xBF\xBD", true}));
    EXPECT_TRUE(about_bob(R"({"uid": "bob-customer"})", {"String", "  ", false}));
    EXPECT_FALSE(about_bob(R"({"uid": "bob-customer"})", {"String", "alice", false}));
}

TEST(Mention, mapped_attribute_counts_when_the_body_cannot_be_read) {
    const auto about_bob = [](std::string value) {
        return about(R"([{"column": "u", "from": "@attribute:uid", "user": true}])", "",
                     message_of("no JSON", {{"uid", {"String", std::move(value), false}}}), "bob");
    };
    EXPECT_TRUE(about_bob("bob"));
    EXPECT_FALSE(about_bob("alice"));
}

TEST(Mention, the_steps_of_the_column_are_taken_under_another_key_too) {
    const auto about_bob = [](std::string_view body) {
        return about(R"([{"column": "u", "from": "/user_id", "steps": ["trim", "lower"], "user": true}])", "",
                     message_of(body), "bob-customer");
    };
    EXPECT_TRUE(about_bob(R"({"user_id": " Bob-Customer"})"));
    EXPECT_TRUE(about_bob(R"({"userId": " Bob-Customer"})"));
    EXPECT_TRUE(about_bob(R"({"userId": "Bob-Customer", )"));
    EXPECT_TRUE(about_bob("Bob-Customer logged in"));
    EXPECT_FALSE(about_bob(R"({"userId": "Bobby-Customer"})"));
}

TEST(Mention, misspelt_key_is_understood_for_ids_of_any_length) {
    EXPECT_TRUE(about(R"({"userId": "u1"})", "u1"));
    EXPECT_TRUE(about(R"({"userid": 4711})", "4711"));
    EXPECT_TRUE(about(R"({"login": {"USER-ID": "u1"}})", "u1"));
}

TEST(Mention, other_key_counts_for_ids_that_are_telling) {
    EXPECT_TRUE(about(R"({"uid": "customer-1"})", "customer-1"));
    EXPECT_TRUE(about(R"([{"uid": ["customer-1"]}])", "customer-1"));
    EXPECT_TRUE(about(R"({"customer-1": {"ip": "1.2.3.4"}})", "customer-1"));
    EXPECT_FALSE(about(R"({"app_version": "1"})", "1"));
    EXPECT_FALSE(about(R"({"device_type": "android"})", "android"));
}

TEST(Mention, a_payload_that_cannot_be_parsed_is_searched_without_its_envelope_and_encoding) {
    const auto about = [](Envelope envelope, BodyEncoding encoding, std::string_view body) {
        Transform transform;
        transform.mapping = parse_mapping(user_logins_mapping()).value();
        transform.envelope = envelope;
        transform.encoding = encoding;
        Message message;
        message.body = body;
        return mentions(transform, message, user_id(), "customer-1");
    };
    EXPECT_TRUE(about(Envelope::sns, BodyEncoding::plain,
                      R"({"Type":"Notification","Message":"{\"user_id\":\"customer-1\",\"a\":1,\"a\":2}"})"));
    EXPECT_TRUE(about(Envelope::sns, BodyEncoding::plain,
                      R"({"Type":"Notification","Message":"customer-1 logged in"})"));
    // {"user_id":"customer-1",
    EXPECT_TRUE(about(Envelope::none, BodyEncoding::base64, "eyJ1c2VyX2lkIjoiY3VzdG9tZXItMSIs"));
    EXPECT_FALSE(about(Envelope::none, BodyEncoding::base64, "eyJ1c2VyX2lkIjoiY3VzdG9tZXItMiIs"));
    // Not in the envelope at all.
    EXPECT_TRUE(about(Envelope::sns, BodyEncoding::plain, R"({"user_id":"customer-1"})"));
    EXPECT_TRUE(about(Envelope::eventbridge, BodyEncoding::plain, R"({"detail":"customer-1"})"));
}

TEST(Mention, part_of_a_value_never_counts) {
    EXPECT_FALSE(about(R"({"uid": "mary-jane.doe@example.org"})", "jane.doe@example.org"));
    EXPECT_FALSE(about(R"({"uid": "mary-jane.doe@example.org", )", "jane.doe@example.org"));
    EXPECT_FALSE(about("jane.doe@example.org0 logged in", "jane.doe@example.org"));
    EXPECT_FALSE(about(R"({"uid": "customer-10")", "customer-1"));
}

TEST(Mention, text_that_is_no_json_is_searched) {
    EXPECT_TRUE(about(R"({"user_id": "u1", "ip)", "u1"));
    EXPECT_TRUE(about(R"({"user_id":4711,)", "4711"));
    EXPECT_TRUE(about("jane.doe@example.org logged in", "jane.doe@example.org"));
    EXPECT_TRUE(about("login of org/customer 1, from 1.2.3.4", "org/customer 1"));
    EXPECT_TRUE(about(R"({"user_id": "j\u00fcrgen/7", "ip)", "j\xc3\xbcrgen/7"));
    EXPECT_FALSE(about(R"({"app_version": "1", "ip)", "1"));
    EXPECT_FALSE(about(R"({"user_id": "other", "x": "u1)", "u1"));
    EXPECT_TRUE(about(R"("customer-1)", "customer-1"));
    EXPECT_FALSE(about("", "customer-1"));
    EXPECT_FALSE(about("\"\\", "customer-1"));
}

} // namespace
