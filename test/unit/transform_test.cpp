// transform and redact: which row a body becomes, why it becomes none, and what may be shown of it then.
#include "core/transform/transform.h"

#include "core/transform/body.h"

#include "reference_keyring.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <limits>
#include <nlohmann/json.hpp>

namespace sqs_ingest {
namespace {

using nlohmann::json;
using Type = ColumnType::Kind;
using Values = std::vector<std::optional<std::string>>;

constexpr std::int64_t kSentAt = 1'700'000'000'000; // 2023-11-14
constexpr char kLogin[] = R"({"user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae", "app_version": "2.3.0",)"
                          R"( "device_type": "android", "ip": "199.172.111.135", "locale": "RU",)"
                          R"( "device_id": "593-47-5928"})";

const Keyring& ring() {
    static const Keyring ring = test::reference_keyring();
    return ring;
}

Message message_of(std::string body) {
    Message message;
    message.message_id = "id-1";
    message.body = std::move(body);
    message.sent_at_ms = kSentAt;
    return message;
}

Transform user_logins(MaskMethod method = {}) {
    return {parse_mapping(user_logins_mapping()).value(),
            {{Type::text, 128},
             {Type::text, 32},
             {Type::text, 256},
             {Type::text, 256},
             {Type::text, 32},
             {Type::int4, {}},
             {Type::date, {}}},
            method};
}

// The real message with some fields replaced; a discarded value removes one.
std::string login_with(const json& changes) {
    json login = json::parse(kLogin);
    login.update(changes);
    return login.dump();
}
std::string login_without(const char* field) {
    json login = json::parse(kLogin);
    login.erase(field);
    return login.dump();
}

// "reason field", or "accepted".
std::string verdict(const Result<Rows, Rejection>& result) {
    if (result)
        return "accepted";
    return to_string(result.error().reason) +
           (result.error().field.empty() ? "" : " " + result.error().field);
}
std::string verdict(const std::string& login) {
    return verdict(transform(user_logins(), &ring(), message_of(login)));
}

// The column that a one-column mapping makes of the body {"f": value}: its text, "NULL", or the rejection.
std::string cell(const std::string& value, ColumnType type, const std::string& steps = "",
                 MaskMethod method = {}) {
    const Transform one{parse_mapping(R"([{"column": "c", "from": "/f", "steps": [)" + steps + "]}]").value(),
                        {type},
                        method};
    const auto row = transform(one, &ring(), message_of("{\"f\": " + value + "}"));
    return row ? row.value().front().values.at(0).value_or("NULL") : verdict(row);
}

std::string token(std::string_view value) {
    return mask({}, &ring(), value);
}

TEST(Transform, a_real_message_becomes_the_expected_row) {
    const auto row = transform(user_logins(), &ring(), message_of(kLogin));
    ASSERT_TRUE(row.ok());
    EXPECT_EQ(row.value().front().values,
              (Values{"424cdd21-063a-43a7-b91b-7ca1a833afae", "android",
                      "hm1.e1d6621dd5242b11ae8af728593de86ea367875408e955ddaaa47a96b2c254a9",
                      "hm1.f310b0f44b7074899d3407c4edea3fdac8dc7c9d485d185bd65a89165a79458c", "RU", "230",
                      "2023-11-14"}));
}

TEST(Transform, sha256_reproduces_older_pipelines_bit_for_bit) {
    const auto row = transform(user_logins({MaskMethod::Kind::sha256}), nullptr, message_of(kLogin));
    ASSERT_TRUE(row.ok());
    EXPECT_EQ(row.value().front().values[2],
              "a6d0e2f27f6111e10b06790db42f34123e724aa0fd24b280f4a0ef5ee986784c");
    EXPECT_EQ(row.value().front().values[3],
              "4f00c1a807b673887c7af517d0df68e6b41aecf8cbec26c71fe4c580664669ed");
}

TEST(Transform, the_rogue_message_of_the_queue_is_rejected) {
    EXPECT_EQ(verdict(R"({"foo": "oops_wrong_msg_type", "bar": "123"})"), "missing_field user_id");
}

TEST(Transform, a_required_field_that_is_missing_is_rejected) {
    for (const std::string field : {"user_id", "ip", "device_id"})
        EXPECT_EQ(verdict(login_without(field.c_str())), "missing_field " + field);
}

TEST(Transform, a_required_field_that_is_null_is_rejected) {
    for (const std::string field : {"user_id", "ip", "device_id"})
        EXPECT_EQ(verdict(login_with({{field, nullptr}})), "missing_field " + field);
}

TEST(Transform, a_required_field_that_is_empty_is_rejected) {
    for (const std::string field : {"user_id", "ip", "device_id"})
        EXPECT_EQ(verdict(login_with({{field, ""}})), "empty_field " + field);
}

TEST(Transform, an_optional_field_that_is_null_or_missing_is_null) {
    for (const auto& [field, column] : {std::pair("device_type", 1), {"locale", 4}, {"app_version", 5}}) {
        for (const auto& login : {login_with({{field, nullptr}}), login_without(field)}) {
            const auto row = transform(user_logins(), &ring(), message_of(login));
            ASSERT_TRUE(row.ok());
            EXPECT_EQ(row.value().front().values[static_cast<std::size_t>(column)], std::nullopt) << field;
        }
    }
}

TEST(Transform, an_empty_optional_text_is_stored_as_it_is) {
    const auto row = transform(user_logins(), &ring(), message_of(login_with({{"locale", ""}})));
    ASSERT_TRUE(row.ok());
    EXPECT_EQ(row.value().front().values[4], "");
}

TEST(Transform, an_empty_optional_number_or_date_is_rejected) {
    EXPECT_EQ(verdict(login_with({{"app_version", ""}})), "bad_version app_version");
    EXPECT_EQ(verdict(login_with({{"create_date", ""}})), "bad_date create_date");
    EXPECT_EQ(cell(R"("")", {Type::int4, {}}), "wrong_type f");
}

TEST(Transform, keys_outside_the_mapping_are_ignored) {
    EXPECT_EQ(verdict(login_with({{"extra", {1, 2, 3}}, {"zero", std::string(1, '\0')}})), "accepted");
}

TEST(Transform, the_date_is_the_bodys_else_the_queues) {
    const auto date = [](const std::string& login) {
        return transform(user_logins(), &ring(), message_of(login)).value().front().values[6];
    };
    EXPECT_EQ(date(login_with({{"create_date", "2026-11-21"}})), "2026-11-21");
    EXPECT_EQ(date(login_with({{"create_date", "2026-11-21T23:30:00-01:00"}})), "2026-11-22");
    EXPECT_EQ(date(login_with({{"create_date", nullptr}})), "2023-11-14");
}

TEST(Transform, without_a_sent_timestamp_the_date_is_null) {
    Message message = message_of(kLogin);
    message.sent_at_ms.reset();
    EXPECT_EQ(transform(user_logins(), &ring(), message).value().front().values[6], std::nullopt);
}

TEST(Transform, a_sent_timestamp_outside_the_calendar_is_rejected) {
    Message message = message_of(kLogin);
    message.sent_at_ms = std::numeric_limits<std::int64_t>::max();
    EXPECT_EQ(verdict(transform(user_logins(), &ring(), message)), "bad_date create_date");
}

TEST(Transform, a_sent_timestamp_that_microseconds_cannot_say_is_rejected) {
    const Transform one{
        parse_mapping(R"([{"column": "c", "from": "@sent_at"}])").value(), {{Type::timestamptz, {}}}, {}};
    Message message = message_of("{}");
    for (const auto ms : {std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min(),
                          std::int64_t{253402300800000}}) {
        message.sent_at_ms = ms;
        EXPECT_EQ(verdict(transform(one, &ring(), message)), "bad_date @sent_at") << ms;
    }
}

TEST(Transform, the_sent_timestamp_is_milliseconds_where_no_date_is_wanted) {
    const auto value = [](ColumnType type, const char* steps) {
        const Transform one{
            parse_mapping(R"([{"column": "c", "from": "@sent_at", "steps": [)" + std::string(steps) + "]}]")
                .value(),
            {type},
            {}};
        const auto row = transform(one, &ring(), message_of("{}"));
        return row ? row.value().front().values[0].value_or("NULL") : verdict(row);
    };
    EXPECT_EQ(value({Type::int8, {}}, ""), "1700000000000");
    EXPECT_EQ(value({Type::text, {}}, ""), "1700000000000");
    EXPECT_EQ(value({Type::int4, {}}, ""), "number_out_of_range @sent_at");
    EXPECT_EQ(value({Type::date, {}}, ""), "2023-11-14");
    EXPECT_EQ(value({Type::text, {}}, R"("date")"), "2023-11-14");
}

TEST(Transform, equal_addresses_get_equal_masks) {
    const ColumnType text{Type::text, {}};
    for (const auto* spelling :
         {R"("199.172.111.135")", R"("::ffff:199.172.111.135")", R"("::FFFF:C7AC:6F87")"})
        EXPECT_EQ(cell(spelling, text, R"("ip", "mask")"), token("199.172.111.135")) << spelling;
    EXPECT_EQ(cell(R"("2001:DB8:0:0::1")", text, R"("ip", "mask")"), token("2001:db8::1"));
}

TEST(Transform, what_is_no_address_is_masked_as_it_stands) {
    const ColumnType text{Type::text, {}};
    for (const std::string value : {"199.172.111.135 ", "199.172.111.135:80", "unknown"})
        EXPECT_EQ(cell("\"" + value + "\"", text, R"("ip", "mask")"), token(value));
}

TEST(Transform, numbers_are_masked_by_their_spelling) {
    const ColumnType text{Type::text, {}};
    EXPECT_EQ(cell("42", text, R"("mask")"), token("42"));
    EXPECT_EQ(cell("-2.5", text, R"("mask")"), token("-2.5"));
    EXPECT_EQ(cell("18446744073709551615", text, R"("mask")"), token("18446744073709551615"));
}

TEST(Transform, an_empty_optional_text_is_masked_as_it_is) {
    EXPECT_EQ(cell(R"("")", {Type::text, {}}, R"("mask")"), token(""));
}

TEST(Transform, booleans_objects_and_arrays_are_never_masked) {
    for (const auto* value : {"true", "false", "{}", R"({"a": 1})", "[]", R"(["199.172.111.135"])"})
        EXPECT_EQ(cell(value, {Type::text, {}}, R"("mask")"), "wrong_type f") << value;
}

TEST(Transform, text_columns_take_strings_numbers_and_booleans) {
    const ColumnType text{Type::text, {}};
    EXPECT_EQ(cell(R"("é")", text), "é");
    EXPECT_EQ(cell("2.5", text), "2.5");
    EXPECT_EQ(cell("-7", text), "-7");
    EXPECT_EQ(cell("true", text), "true");
    EXPECT_EQ(cell("false", text), "false");
    EXPECT_EQ(cell("null", text), "NULL");
    EXPECT_EQ(cell("{}", text), "wrong_type f");
    EXPECT_EQ(cell("[]", text), "wrong_type f");
}

TEST(Transform, an_integer_beyond_64_bits_does_not_pass_for_its_neighbour) {
    const ColumnType text{Type::text, {}};
    EXPECT_EQ(cell("123456789012345678901", text), "123456789012345678901");
    EXPECT_NE(cell("123456789012345678901", text, R"("mask")"),
              cell("123456789012345678902", text, R"("mask")"));
}

TEST(Transform, integer_columns_take_integral_numbers_and_digits) {
    const ColumnType int4{Type::int4, {}};
    EXPECT_EQ(cell("5", int4), "5");
    EXPECT_EQ(cell("-5", int4), "-5");
    EXPECT_EQ(cell("5.0", int4), "5");
    EXPECT_EQ(cell("1e3", int4), "1000");
    EXPECT_EQ(cell("-0.0", int4), "0");
    EXPECT_EQ(cell(R"("-0042")", int4), "-42");
    for (const auto* value : {"2.5", "true", R"("5.0")", R"("+5")", R"(" 5")", R"("5 ")", R"("-")",
                              R"("five")", R"("0x5")", "[5]"})
        EXPECT_EQ(cell(value, int4), "wrong_type f") << value;
}

TEST(Transform, an_integer_that_does_not_fit_its_column_is_rejected) {
    const ColumnType int2{Type::int2, {}};
    const ColumnType int4{Type::int4, {}};
    const ColumnType int8{Type::int8, {}};
    EXPECT_EQ(cell("32767", int2), "32767");
    EXPECT_EQ(cell("32768", int2), "number_out_of_range f");
    EXPECT_EQ(cell("-2147483648", int4), "-2147483648");
    EXPECT_EQ(cell("2147483648", int4), "number_out_of_range f");
    EXPECT_EQ(cell(R"("9223372036854775807")", int8), "9223372036854775807");
    EXPECT_EQ(cell("-9223372036854775808", int8), "-9223372036854775808");
    for (const auto* value :
         {"9223372036854775808", "1e300", "-1e300", R"("9223372036854775808")", R"("-9223372036854775809")"})
        EXPECT_EQ(cell(value, int8), "number_out_of_range f") << value;
}

TEST(Transform, date_columns_take_dates) {
    const ColumnType date{Type::date, {}};
    EXPECT_EQ(cell(R"("2026-11-21")", date), "2026-11-21");
    EXPECT_EQ(cell(R"("2026-11-21T00:30:00+01:00")", date, R"("date")"), "2026-11-20");
    EXPECT_EQ(cell(R"("yesterday")", date), "bad_date f");
    EXPECT_EQ(cell("20261121", date), "wrong_type f");
    EXPECT_EQ(cell("true", date, R"("date")"), "wrong_type f");
}

TEST(Transform, versions_are_read_from_strings_and_numbers) {
    const ColumnType int4{Type::int4, {}};
    EXPECT_EQ(cell(R"("0.96")", int4, R"("version")"), "96");
    EXPECT_EQ(cell("2.3", int4, R"("version")"), "23");
    EXPECT_EQ(cell("2", int4, R"("version:ordinal")"), "2000000");
    EXPECT_EQ(cell(R"("2.3.0")", int4, R"("version:major")"), "2");
    for (const auto* value : {"-2.3", "1e30", "1e-7", R"("2.3-beta")", R"("99999999999")"})
        EXPECT_EQ(cell(value, int4, R"("version")"), "bad_version f") << value;
    EXPECT_EQ(cell("true", int4, R"("version")"), "wrong_type f");
    EXPECT_EQ(cell(R"("99999")", {Type::int2, {}}, R"("version")"), "number_out_of_range f");
}

TEST(Transform, a_version_can_stay_text) {
    EXPECT_EQ(cell(R"("2.3.0")", {Type::text, 32}), "2.3.0");
}

TEST(Transform, a_zero_character_is_rejected_before_masking_too) {
    EXPECT_EQ(verdict(R"({"user_id": "a\u0000b"})"), "nul_character user_id");
    EXPECT_EQ(cell(R"("\u0000")", {Type::text, {}}, R"("mask")"), "nul_character f");
    EXPECT_EQ(cell(R"("1\u0000")", {Type::int4, {}}), "nul_character f");
}

TEST(Transform, lengths_are_counted_in_characters) {
    const ColumnType three{Type::text, 3};
    EXPECT_EQ(cell(R"("éé€")", three), "éé€");
    EXPECT_EQ(cell(R"("éé€x")", three), "too_long f");
    EXPECT_EQ(cell("1234", three), "too_long f");
}

TEST(Transform, a_token_longer_than_its_column_is_rejected_never_cut) {
    EXPECT_EQ(cell(R"("x")", {Type::text, 67}, R"("mask")"), "too_long f");
    EXPECT_EQ(cell(R"("x")", {Type::text, 68}, R"("mask")"), token("x"));
    EXPECT_EQ(cell(R"("abc")", {Type::text, 8}, R"("mask")", {MaskMethod::Kind::sha256, 8}), "ba7816bf");
}

TEST(Transform, nested_fields_are_reached_by_pointer) {
    const Transform nested{
        parse_mapping(R"([{"column": "c", "from": ["/user/ids/1", "/user/id"], "required": true}])").value(),
        {{Type::text, {}}},
        {}};
    const auto value = [&](const char* body) {
        const auto row = transform(nested, &ring(), message_of(body));
        return row ? row.value().front().values[0].value_or("NULL") : verdict(row);
    };
    EXPECT_EQ(value(R"({"user": {"ids": ["a", "b"], "id": "c"}})"), "b");
    EXPECT_EQ(value(R"({"user": {"ids": ["a", null], "id": "c"}})"), "c");
    EXPECT_EQ(value(R"({"user": {"ids": ["a"], "id": "c"}})"), "c");
    EXPECT_EQ(value(R"({"user": {"ids": {"1": "b"}}})"), "b");
    EXPECT_EQ(value(R"({"user": "text"})"), "missing_field user/ids/1");
}

TEST(Transform, a_body_that_cannot_be_parsed_is_rejected_as_a_whole) {
    EXPECT_EQ(verdict("no json"), "not_json");
    EXPECT_EQ(verdict("[]"), "not_object");
    EXPECT_EQ(verdict(std::string("{\"ip\": \"\xFF\"}")), "invalid_utf8");
}

TEST(Transform, a_damaged_body_is_rejected_though_it_parses) {
    Message message = message_of(kLogin);
    message.body_damaged = true;
    EXPECT_EQ(verdict(transform(user_logins(), &ring(), message)), "invalid_utf8");
}

TEST(Transform, a_type_missing_for_a_column_is_a_programming_error) {
    Transform broken = user_logins();
    broken.types.pop_back();
    EXPECT_THROW((void)transform(broken, &ring(), message_of(kLogin)), std::logic_error);
}

// --- any mapping

// A transform of columns "a", "b", … of these types.
Transform mapped(const std::string& rules, std::vector<ColumnType> types, std::string_view each = {}) {
    return {parse_mapping("[" + rules + "]", each).value(), std::move(types), {}, "https://queue"};
}

// Rows as text, "1,NULL;2,x"; or the verdict.
std::string rows_of(const Transform& how, const Message& message) {
    const auto rows = transform(how, &ring(), message);
    if (!rows)
        return verdict(rows);
    std::string text;
    for (const auto& row : rows.value()) {
        text += text.empty() ? "" : ";";
        for (std::size_t i = 0; i < row.values.size(); ++i)
            text += (i ? "," : "") + row.values[i].value_or("NULL");
    }
    return text;
}

Message with_metadata(std::string body) {
    Message message = message_of(std::move(body));
    message.received_at_ms = kSentAt + 250;
    message.receive_count = 3;
    message.group_id = "group";
    message.sequence_number = "18850000000000000001";
    message.attributes["trace"] = {"String", " ABC "};
    message.attributes["binary"] = {"Binary", "\xff"};
    return message;
}

std::string value_from(const std::string& source, ColumnType type, const std::string& steps = "") {
    return rows_of(
        mapped(R"({"column": "c", "from": ")" + source + R"(", "steps": [)" + steps + "]}", {type}),
        with_metadata("{}"));
}

TEST(Sources, metadata_is_what_the_queue_says_of_the_message) {
    const ColumnType text{Type::text};
    EXPECT_EQ(value_from("@message_id", text), "id-1");
    EXPECT_EQ(value_from("@receive_count", {Type::int4}), "3");
    EXPECT_EQ(value_from("@group_id", text), "group");
    EXPECT_EQ(value_from("@sequence_number", {Type::numeric}), "18850000000000000001");
    EXPECT_EQ(value_from("@queue", text), "https://queue");
    EXPECT_EQ(value_from("@sent_at", {Type::timestamptz}), "2023-11-14T22:13:20Z");
    EXPECT_EQ(value_from("@received_at", {Type::timestamptz}), "2023-11-14T22:13:20.250000Z");
    EXPECT_EQ(value_from("@received_at", {Type::int8}), "1700000000250");
    EXPECT_EQ(value_from("@sent_at", {Type::date}), "2023-11-14");
    EXPECT_EQ(value_from("@group_id", text, R"("mask")"), token("group"));
}

TEST(Sources, metadata_that_a_message_has_not_is_null) {
    for (const auto* source : {"@group_id", "@sequence_number", "@attribute:trace", "@received_at"})
        EXPECT_EQ(
            rows_of(mapped(R"({"column": "c", "from": ")" + std::string(source) + "\"}", {{Type::text}}),
                    message_of("{}")),
            "NULL")
            << source;
}

TEST(Sources, a_time_of_the_message_goes_through_the_steps_of_what_it_stands_in_for) {
    const auto value = [](const char* steps, ColumnType type) {
        return rows_of(mapped(R"({"column": "c", "from": ["/created", "@sent_at"], "steps": [)" +
                                  std::string(steps) + "]}",
                              {type}),
                       with_metadata("{}"));
    };
    EXPECT_EQ(value(R"("epoch_millis")", {Type::timestamptz}), "2023-11-14T22:13:20Z");
    EXPECT_EQ(value(R"("epoch_millis")", {Type::date}), "2023-11-14");
    EXPECT_EQ(value(R"("epoch_millis", "date")", {Type::text}), "2023-11-14");
    EXPECT_EQ(value(R"("trim")", {Type::timestamptz}), "2023-11-14T22:13:20Z");
    EXPECT_EQ(value(R"("trim")", {Type::date}), "2023-11-14");
    EXPECT_EQ(value(R"("date")", {Type::date}), "2023-11-14");
}

TEST(Sources, attributes_are_texts_and_binary_ones_only_if_they_are_utf8) {
    EXPECT_EQ(value_from("@attribute:trace", {Type::text}), " ABC ");
    EXPECT_EQ(value_from("@attribute:trace", {Type::text}, R"("trim", "lower", "mask")"), token("abc"));
    EXPECT_EQ(value_from("@attribute:other", {Type::text}), "NULL");
    EXPECT_EQ(value_from("@attribute:binary", {Type::text}), "invalid_utf8 @attribute:binary");
}

TEST(Sources, the_first_that_is_there_and_not_null_counts) {
    const auto how =
        mapped(R"({"column": "c", "from": ["/a", "@attribute:trace", "/b"], "default": 7})", {{Type::text}});
    EXPECT_EQ(rows_of(how, with_metadata(R"({"a": "x", "b": "y"})")), "x");
    EXPECT_EQ(rows_of(how, with_metadata(R"({"a": null, "b": "y"})")), " ABC ");
    EXPECT_EQ(rows_of(how, message_of(R"({"a": null, "b": "y"})")), "y");
    EXPECT_EQ(rows_of(how, message_of(R"({"a": null, "b": null})")), "7");
    EXPECT_EQ(rows_of(how, message_of(R"({"a": ""})")), ""); // it is there
}

TEST(Sources, a_whole_body_keeps_everything_but_what_is_masked) {
    const auto how = mapped(R"({"column": "c", "from": "@body", "mask_parts": ["/p", "/none", "/list/1"]})",
                            {{Type::json}});
    const auto row = transform(
        how, &ring(),
        message_of(R"({"p": {"a": ["x", 1.50, null]}, "list": ["k", "m"], "n": 12345678901234567890.5})"));
    const json expected{{"p", {{"a", {token("x"), token("1.5"), nullptr}}}}, {"list", {"k", token("m")}}};
    json stored = json::parse(row.value().front().values[0].value());
    EXPECT_NE(row.value().front().values[0].value().find("12345678901234567890.5"), std::string::npos);
    stored.erase("n");
    EXPECT_EQ(stored, expected);
    EXPECT_EQ(rows_of(how, message_of(R"({"x": "\u0000"})")), "nul_character @body");
}

TEST(Sources, parts_of_a_body_that_overlap_are_masked_once) {
    for (const auto* parts :
         {R"(["/p", "/p/a"])", R"(["/p/a", "/p"])", R"(["/p", "/p"])", R"(["/p/a", "/p", "/p/a"])"}) {
        const auto how = mapped(
            R"({"column": "c", "from": "@body", "mask_parts": )" + std::string(parts) + "}", {{Type::json}});
        EXPECT_EQ(json::parse(rows_of(how, message_of(R"({"p": {"a": "x"}, "pa": "y"})"))),
                  (json{{"p", {{"a", token("x")}}}, {"pa", "y"}}))
            << parts;
    }
}

TEST(Steps, epochs_are_times_in_utc) {
    const ColumnType time{Type::timestamptz};
    EXPECT_EQ(cell("1700000000", time, R"("epoch_seconds")"), "2023-11-14T22:13:20Z");
    EXPECT_EQ(cell("1700000000.25", time, R"("epoch_seconds")"), "2023-11-14T22:13:20.250000Z");
    EXPECT_EQ(cell(R"("1700000000250")", time, R"("epoch_millis")"), "2023-11-14T22:13:20.250000Z");
    EXPECT_EQ(cell("-1", time, R"("epoch_millis")"), "1969-12-31T23:59:59.999000Z");
    EXPECT_EQ(cell("1700000000", {Type::date}, R"("epoch_seconds", "date")"), "2023-11-14");
    EXPECT_EQ(cell("1700000000", {Type::timestamp}, R"("epoch_seconds")"), "2023-11-14T22:13:20");
    for (const auto* value :
         {R"("")", R"("soon")", R"("nan")", R"("inf")", R"("1 ")", "1e300", "-1e18", "253402300800"})
        EXPECT_EQ(cell(value, time, R"("epoch_seconds")"), "bad_date f") << value;
    for (const auto* value : {"true", "{}", "[1]"})
        EXPECT_EQ(cell(value, time, R"("epoch_seconds")"), "wrong_type f") << value;
}

TEST(Steps, lower_and_trim_change_ascii_of_strings_only) {
    const ColumnType text{Type::text};
    EXPECT_EQ(cell(R"(" \tÄB C\n")", text, R"("trim", "lower")"), "Äb c");
    EXPECT_EQ(cell(R"("  ")", text, R"("trim")"), "");
    EXPECT_EQ(cell("7", text, R"("trim", "lower", "ip")"), "7");
    EXPECT_EQ(cell("{}", text, R"("trim")"), "wrong_type f");
}

TEST(Steps, a_required_value_is_not_empty_after_its_steps_either) {
    const auto how =
        mapped(R"({"column": "c", "from": "/a", "steps": ["trim"], "required": true})", {{Type::text}});
    EXPECT_EQ(rows_of(how, message_of(R"({"a": " \t"})")), "empty_field a");
    const auto masked = mapped(
        R"({"column": "c", "from": "/a", "steps": ["trim", "mask"], "required": true})", {{Type::text}});
    EXPECT_EQ(rows_of(masked, message_of(R"({"a": " x "})")), token("x"));
}

TEST(Steps, each_mask_has_its_own_method) {
    const ColumnType text{Type::text};
    EXPECT_EQ(cell(R"("x")", text, R"("mask:md5")"), mask({MaskMethod::Kind::md5}, nullptr, "x"));
    EXPECT_EQ(cell(R"("x")", text, R"("mask:sha256:8")", {MaskMethod::Kind::siv}),
              mask({MaskMethod::Kind::sha256, 8}, nullptr, "x"));
    EXPECT_EQ(cell(R"("x")", text, R"("mask")", {MaskMethod::Kind::siv}),
              mask({MaskMethod::Kind::siv}, &ring(), "x"));
}

constexpr char kLines[] =
    R"({"column": "order", "from": "/order"}, {"column": "n", "from": "@index"},)"
    R"( {"column": "sku", "from": "@each/sku", "required": true}, {"column": "qty", "from": ["@each/qty", "/qty"]})";

Transform lines() {
    return mapped(kLines, {{Type::text}, {Type::int4}, {Type::text, 3}, {Type::int4}}, "/items");
}

TEST(Each, a_row_for_each_element_in_order) {
    EXPECT_EQ(
        rows_of(lines(),
                message_of(R"({"order": "A", "qty": 9, "items": [{"sku": "x", "qty": 1}, {"sku": "y"}]})")),
        "A,0,x,1;A,1,y,9");
    EXPECT_EQ(rows_of(lines(), message_of(R"({"items": []})")), "");
    EXPECT_EQ(transform(lines(), &ring(), message_of(R"({"items": []})")).value().size(), 0U);
}

TEST(Each, one_bad_element_rejects_all) {
    EXPECT_EQ(rows_of(lines(), message_of(R"({"items": [{"sku": "x"}, {}]})")), "missing_field @each/sku");
    EXPECT_EQ(rows_of(lines(), message_of(R"({"items": [{"sku": "x"}, {"sku": "four"}]})")),
              "too_long @each/sku");
    EXPECT_EQ(rows_of(lines(), message_of(R"({"items": [{"sku": "x", "qty": true}]})")),
              "wrong_type @each/qty");
    EXPECT_EQ(rows_of(lines(), message_of(R"({"items": ["x"]})")), "missing_field @each/sku");
}

TEST(Each, what_is_no_array_is_rejected) {
    EXPECT_EQ(rows_of(lines(), message_of("{}")), "missing_field items");
    EXPECT_EQ(rows_of(lines(), message_of(R"({"items": null})")), "missing_field items");
    for (const auto* items : {"{}", "1", R"("x")", "true"})
        EXPECT_EQ(rows_of(lines(), message_of("{\"items\": " + std::string(items) + "}")), "wrong_type items")
            << items;
}

TEST(Each, elements_can_be_scalars) {
    const auto how = mapped(R"({"column": "v", "from": "@each", "steps": ["mask"]})", {{Type::text}}, "/a/b");
    EXPECT_EQ(rows_of(how, message_of(R"({"a": {"b": ["x", 7, null]}})")),
              token("x") + ";" + token("7") + ";NULL");
}

TEST(Explain, each_column_tells_its_source_and_value_or_rejection) {
    const auto told = explain(lines(), &ring(),
                              message_of(R"({"order": 5, "qty": 2, "items": [{"sku": "x"}, {"qty": 1.5}]})"));
    ASSERT_EQ(told.rows.size(), 2U);
    EXPECT_EQ(told.rows[0][0].source, "/order");
    EXPECT_EQ(told.rows[0][0].value, "5");
    EXPECT_EQ(told.rows[0][1].source, "@index");
    EXPECT_EQ(told.rows[0][3].source, "/qty");
    EXPECT_EQ(told.rows[1][2].source, "");
    EXPECT_EQ(told.rows[1][2].rejected, Reason::missing_field);
    EXPECT_EQ(told.rows[1][3].rejected, Reason::wrong_type);
    ASSERT_TRUE(told.rejected);
    EXPECT_EQ(told.rejected->reason, Reason::missing_field);
    EXPECT_EQ(told.rejected->field, "@each/sku");
}

TEST(Explain, a_body_that_cannot_be_read_has_no_columns) {
    for (const auto* body : {"no json", "[]", "{}"}) {
        const auto told = explain(lines(), &ring(), message_of(body));
        EXPECT_TRUE(told.rejected && told.rows.empty()) << body;
    }
}

TEST(Normalised, a_text_is_as_its_steps_leave_it_before_the_mask) {
    const auto rule = [](const char* steps) {
        return mapped(R"({"column": "c", "from": "/a", "steps": [)" + std::string(steps) + "]}",
                      {{Type::text}})
            .mapping.columns[0];
    };
    EXPECT_EQ(normalised(rule(R"("trim", "lower", "mask")"), " Jane@X "), "jane@x");
    EXPECT_EQ(normalised(rule(R"("ip", "mask")"), "::FFFF:10.0.0.1"), "10.0.0.1");
    EXPECT_EQ(normalised(rule(R"("version")"), "2.3"), "2.3");
    EXPECT_EQ(normalised(rule(""), " x "), " x ");
}

json redacted(const std::string& body, const Keyring* keyring, MaskMethod method = {}) {
    return redact(user_logins(method), keyring, message_of(body));
}

TEST(Redact, a_body_is_shown_by_its_shape_alone) {
    const auto shown =
        redacted(R"({"ip": "199.172.111.135", "user_id": 7, "locale": null, "device_id": ["x"],)"
                 R"( "device_type": true, "app_version": {"a": "b"}, "foo": "secret", "bar": 1})",
                 &ring());
    EXPECT_EQ(shown,
              (json{{"bytes", 150},
                    {"fields",
                     {{"/ip", {{"type", "string"}, {"length", 15}, {"token", token("199.172.111.135")}}},
                      {"/user_id", {{"type", "number"}}},
                      {"/locale", {{"type", "null"}}},
                      {"/device_id", {{"type", "array"}}},
                      {"/device_type", {{"type", "boolean"}}},
                      {"/app_version", {{"type", "object"}}}}},
                    {"other_keys", 2}}));
}

TEST(Redact, no_value_of_a_body_is_shown) {
    const auto shown = redact(user_logins(), &ring(), message_of(kLogin)).dump();
    const json login = json::parse(kLogin);
    for (const auto& [key, value] : login.items())
        EXPECT_EQ(shown.find(value.get<std::string>()), std::string::npos) << key;
}

TEST(Redact, a_key_is_used_wherever_there_is_one) {
    const MaskMethod sha256{MaskMethod::Kind::sha256};
    const MaskMethod siv{MaskMethod::Kind::siv};
    EXPECT_EQ(redacted(kLogin, &ring(), sha256)["fields"]["/ip"]["token"], token("199.172.111.135"));
    EXPECT_EQ(redacted(kLogin, &ring(), siv)["fields"]["/ip"]["token"], token("199.172.111.135"));
    EXPECT_EQ(redacted(kLogin, nullptr, sha256)["fields"]["/ip"]["token"],
              mask(sha256, nullptr, "199.172.111.135"));
}

TEST(Redact, without_a_needed_key_the_shape_has_no_tokens) {
    const auto shown = redacted(kLogin, nullptr);
    EXPECT_EQ(shown["fields"]["/ip"], (json{{"type", "string"}, {"length", 15}}));
}

TEST(Redact, what_is_no_object_shows_its_length_only) {
    for (const auto* body :
         {"", "secret", "[1]", "{\"ip\": \"\xFF\"}", R"({"ip": 1, "ip": 2})", "{\"ip\": \"\\ud800\"}"})
        EXPECT_EQ(redacted(body, &ring()), (json{{"bytes", std::string_view(body).size()}})) << body;
}

TEST(Redact, a_long_body_shows_its_length_only) {
    const auto body = [](std::size_t size) { return R"({"ip": ")" + std::string(size - 10, 'x') + "\"}"; };
    EXPECT_TRUE(redacted(body(kRedactBound), &ring()).contains("fields"));
    EXPECT_EQ(redacted(body(kRedactBound + 1), &ring()), (json{{"bytes", kRedactBound + 1}}));
}

TEST(Redact, the_text_is_plain_ascii_that_jsonb_takes) {
    const Transform odd{
        parse_mapping(R"([{"column": "c", "from": "/naïve"}])").value(), {{Type::text, {}}}, {}};
    const auto shown =
        json_text(redact(odd, &ring(), message_of(R"({"naïve": "a\u0000é"})")), Escape::all_but_ascii);
    EXPECT_TRUE(std::all_of(shown.begin(), shown.end(), [](char c) { return c >= ' ' && c <= '~'; }))
        << shown;
    EXPECT_EQ(shown.find("\\u0000"), std::string::npos);
    EXPECT_EQ(json::parse(shown)["fields"]["/naïve"]["length"], 3);
}

} // namespace
} // namespace sqs_ingest
