// to_column: a value's text for a column of any type; misfit: what can never enter one.
#include "core/transform/column_type.h"

#include "core/transform/body.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using Type = ColumnType::Kind;

constexpr Type kAllKinds[] = {Type::text,        Type::int2,    Type::int4,   Type::int8,   Type::date,
                              Type::boolean,     Type::numeric, Type::float4, Type::float8, Type::timestamp,
                              Type::timestamptz, Type::uuid,    Type::json,   Type::array,  Type::other};

ColumnType array_of(Type element, std::optional<int> max_characters = {}) {
    return {Type::array, max_characters, element};
}

// The text, or the reason after a "!".
std::string column(const std::string& value, ColumnType type) {
    const auto text = to_column(parse_json(value).value(), type);
    return text ? text.value() : std::string("!") + to_string(text.error());
}

TEST(ColumnType, numbers_keep_every_digit_that_the_body_has) {
    for (const auto* number :
         {"12345678901234567890.123456789012345678901", "0.1000000000000000055511151231257827",
          "123456789012345678901234567890", "-1.00000000000000000000"})
        for (const auto kind : {Type::numeric, Type::float8, Type::text, Type::json, Type::other})
            EXPECT_EQ(column(number, {kind}), number) << to_string(kind);
}

TEST(ColumnType, exact_integers_are_integers_up_to_64_bits) {
    EXPECT_EQ(column("9007199254740993", {Type::int8}), "9007199254740993");
    EXPECT_EQ(column("-9223372036854775808", {Type::int8}), "-9223372036854775808");
    EXPECT_EQ(column("5.000000000000000000", {Type::int4}), "5");
    EXPECT_EQ(column("5.000000000000000001", {Type::int4}), "!wrong_type");
    EXPECT_EQ(column("123456789012345678901", {Type::int8}), "!number_out_of_range");
}

TEST(ColumnType, numeric_takes_what_is_written_like_a_number) {
    for (const auto* text : {"0", "-0", "+7", "007.50", "1e3", "1E+3", "1.5e-3"})
        EXPECT_EQ(column("\"" + std::string(text) + "\"", {Type::numeric}), text);
    for (const auto* text : {"", "+", ".5", "5.", "1e", "1e+", " 1", "1 ", "1,5", "0x10", "NaN", "Infinity",
                             "--1", "1.2.3", "1_000", "٣"})
        EXPECT_EQ(column("\"" + std::string(text) + "\"", {Type::numeric}), "!bad_value") << text;
    for (const auto* value : {"true", "[1]", "{}"})
        EXPECT_EQ(column(value, {Type::numeric}), "!wrong_type") << value;
}

TEST(ColumnType, booleans_have_the_words_of_postgres) {
    for (const auto* yes : {"true", "1", R"("true")", R"("T")", R"("Yes")", R"("y")", R"("ON")", R"("1")"})
        EXPECT_EQ(column(yes, {Type::boolean}), "true") << yes;
    for (const auto* no : {"false", "0", R"("False")", R"("f")", R"("NO")", R"("n")", R"("off")", R"("0")"})
        EXPECT_EQ(column(no, {Type::boolean}), "false") << no;
    for (const auto* other : {R"("")", R"("maybe")", R"(" true")", R"("tr")"})
        EXPECT_EQ(column(other, {Type::boolean}), "!bad_value") << other;
    for (const auto* other : {"2", "-1", "1.5", "[]", "{}"})
        EXPECT_EQ(column(other, {Type::boolean}), "!wrong_type") << other;
}

TEST(ColumnType, times_are_written_in_utc_and_without_a_zone_where_there_is_none) {
    EXPECT_EQ(column(R"("2026-11-21T10:00:00.5+02:00")", {Type::timestamptz}), "2026-11-21T08:00:00.500000Z");
    EXPECT_EQ(column(R"("2026-11-21T10:00:00.5+02:00")", {Type::timestamp}), "2026-11-21T08:00:00.500000");
    EXPECT_EQ(column(R"("2026-11-21")", {Type::timestamptz}), "2026-11-21T00:00:00Z");
    for (const auto* text :
         {"", "now", "infinity", "2026-13-01", "2026-11-21T24:00:00", "2026-11-21T10:00:00 Europe/Berlin"})
        EXPECT_EQ(column("\"" + std::string(text) + "\"", {Type::timestamptz}), "!bad_date") << text;
    EXPECT_EQ(column("1700000000", {Type::timestamptz}), "!wrong_type");
    EXPECT_EQ(column("true", {Type::timestamp}), "!wrong_type");
}

TEST(ColumnType, a_uuid_has_its_hyphens_in_place_or_none) {
    EXPECT_EQ(column(R"("424CDD21-063A-43a7-b91b-7ca1a833afae")", {Type::uuid}),
              "424cdd21-063a-43a7-b91b-7ca1a833afae");
    EXPECT_EQ(column(R"("424cdd21063a43a7b91b7ca1a833afae")", {Type::uuid}),
              "424cdd21-063a-43a7-b91b-7ca1a833afae");
    for (const auto* text : {"", "424cdd21-063a-43a7-b91b-7ca1a833afa",
                             "424cdd21-063a-43a7-b91b-7ca1a833afag", "424cdd2-1063a-43a7-b91b-7ca1a833afae",
                             "{424cdd21-063a-43a7-b91b-7ca1a833af}", "424cdd21063a43a7b91b7ca1a833afae----"})
        EXPECT_EQ(column("\"" + std::string(text) + "\"", {Type::uuid}), "!bad_value") << text;
    EXPECT_EQ(column("7", {Type::uuid}), "!wrong_type");
}

TEST(ColumnType, json_columns_take_any_json) {
    for (const auto* value :
         {R"({"a":[1,{"b":null}],"c":"é\"\\"})", "[]", "{}", "7", R"("x")", "true", "1e3", "[2.50]"})
        EXPECT_EQ(parse_json(column(value, {Type::json})).value(), parse_json(value).value()) << value;
    for (const auto* value : {R"("\u0000")", R"(["a\u0000"])", R"({"a\u0000": 1})", R"([[{"b": "\u0000"}]])"})
        EXPECT_EQ(column(value, {Type::json}), "!nul_character") << value;
}

TEST(ColumnType, arrays_are_array_literals) {
    EXPECT_EQ(column("[1, null, -2]", array_of(Type::int4)), R"({"1",NULL,"-2"})");
    EXPECT_EQ(column("[]", array_of(Type::int4)), "{}");
    EXPECT_EQ(column("[[1], [2]]", array_of(Type::int4)), R"({{"1"},{"2"}})");
    EXPECT_EQ(column(R"(["a\"b", "c\\d", "NULL", "", "{,}"])", array_of(Type::text)),
              R"({"a\"b","c\\d","NULL","","{,}"})");
    EXPECT_EQ(column(R"([{"a": "\""}, [1], "x"])", array_of(Type::json)),
              R"({"{\"a\":\"\\\"\"}","[1]","\"x\""})");
    EXPECT_EQ(column(R"(["abc", "abcd"])", array_of(Type::text, 3)), "!too_long");
    EXPECT_EQ(column("[1.5]", array_of(Type::int4)), "!wrong_type");
    EXPECT_EQ(column("[{}]", array_of(Type::text)), "!wrong_type");
    EXPECT_EQ(column(R"(["x\u0000"])", array_of(Type::text)), "!nul_character");
    EXPECT_EQ(column("[[[[[[1]]]]]]", array_of(Type::int4)), R"({{{{{{"1"}}}}}})");
    EXPECT_EQ(column("[[[[[[[1]]]]]]]", array_of(Type::int4)), "!bad_value");
    EXPECT_EQ(column(R"("{1,2}")", array_of(Type::int4)), "{1,2}"); // the database's cast decides
    EXPECT_EQ(column("{}", array_of(Type::int4)), "!wrong_type");
}

TEST(ColumnType, other_types_get_scalars_as_text) {
    EXPECT_EQ(column(R"(" (1,2) ")", {Type::other}), " (1,2) ");
    EXPECT_EQ(column("1.50", {Type::other}), "1.5");
    EXPECT_EQ(column("true", {Type::other}), "true");
    EXPECT_EQ(column("[1, 2]", {Type::other}), "!wrong_type");
    EXPECT_EQ(column("{}", {Type::other}), "!wrong_type");
}

TEST(ColumnType, every_kind_has_a_name_and_takes_or_rejects_everything) {
    for (const auto kind : kAllKinds) {
        EXPECT_STRNE(to_string(kind), "unknown");
        for (const auto* value :
             {"true", "0", "-1", "1e300", "0.5", "99999999999999999999.5", R"("")", R"("x")", R"("\u0000")",
              R"("é")", "[]", "[[]]", "[[[[[[[[]]]]]]]]", "{}", R"({"a": [1]})"})
            EXPECT_NE(column(value, {kind}), "!") << to_string(kind) << " " << value;
    }
}

// --- misfit

// Why a rule like this does not fit; "fits" when it does.
std::string misfit_of(const std::string& rest, ColumnType type, MaskMethod method = {}) {
    const auto mapping = parse_mapping(R"([{"column": "c", )" + rest + "}]", "/items");
    if (!mapping)
        return mapping.error();
    return misfit(mapping.value().columns[0], type, method).value_or("fits");
}

TEST(Misfit, tokens_are_text_and_need_room) {
    const std::string rule = R"("from": "/a", "steps": ["mask"])";
    for (const auto kind : kAllKinds)
        EXPECT_EQ(misfit_of(rule, {kind}) == "fits", kind == Type::text) << to_string(kind);
    EXPECT_EQ(misfit_of(rule, {Type::text, 68}), "fits");
    EXPECT_NE(misfit_of(rule, {Type::text, 67}).find("at least 68 characters, but the column holds 67"),
              std::string::npos);
    EXPECT_EQ(misfit_of(rule, {Type::text, 8}, {MaskMethod::Kind::sha256, 8}), "fits");
    EXPECT_EQ(misfit_of(R"("from": "/a", "steps": ["mask:md5"])", {Type::text, 32}), "fits");
    EXPECT_NE(misfit_of(R"("from": "/a", "steps": ["mask:md5"])", {Type::text, 31}), "fits");
    EXPECT_NE(misfit_of(R"("from": "/a", "steps": ["mask:siv"])", {Type::text, 26}), "fits");
    EXPECT_EQ(misfit_of(R"("from": "/a", "steps": ["mask:siv"])", {Type::text, 27}), "fits");
}

TEST(Misfit, what_steps_make_must_fit_the_column) {
    const auto fits = [](const char* step, Type kind) {
        return misfit_of(R"("from": "/a", "steps": [")" + std::string(step) + "\"]", {kind}) == "fits";
    };
    for (const auto* step : {"date", "epoch_seconds", "epoch_millis"}) {
        for (const auto kind :
             {Type::date, Type::timestamp, Type::timestamptz, Type::text, Type::json, Type::other})
            EXPECT_TRUE(fits(step, kind)) << step << to_string(kind);
        for (const auto kind :
             {Type::int4, Type::int8, Type::boolean, Type::numeric, Type::uuid, Type::array})
            EXPECT_FALSE(fits(step, kind)) << step << to_string(kind);
    }
    for (const auto kind : {Type::int2, Type::int4, Type::int8, Type::numeric, Type::float8, Type::text})
        EXPECT_TRUE(fits("version", kind)) << to_string(kind);
    for (const auto kind : {Type::boolean, Type::date, Type::timestamptz, Type::uuid})
        EXPECT_FALSE(fits("version", kind)) << to_string(kind);
    EXPECT_TRUE(fits("ip", Type::other)); // inet
    EXPECT_FALSE(fits("ip", Type::int4));
    for (const auto kind : kAllKinds)
        EXPECT_TRUE(fits("trim", kind)) << to_string(kind);
}

TEST(Misfit, what_sources_give_must_fit_the_column) {
    const auto fits = [](const char* source, ColumnType type) {
        return misfit_of(R"("from": ")" + std::string(source) + "\"", type) == "fits";
    };
    for (const auto kind : kAllKinds)
        EXPECT_TRUE(fits("/a", {kind}) && fits("@each/a", {kind}) && fits("@attribute:a", {kind}))
            << to_string(kind);
    EXPECT_TRUE(fits("@message_id", {Type::uuid}) && fits("@message_id", {Type::text}));
    EXPECT_FALSE(fits("@message_id", {Type::int8}) || fits("@message_id", {Type::timestamptz}));
    EXPECT_TRUE(fits("@receive_count", {Type::int2}) && fits("@receive_count", {Type::text}));
    EXPECT_FALSE(fits("@receive_count", {Type::boolean}) || fits("@receive_count", {Type::date}));
    EXPECT_TRUE(fits("@sequence_number", {Type::numeric}) && fits("@sequence_number", {Type::text}));
    EXPECT_FALSE(fits("@sequence_number", {Type::int8}) || fits("@sequence_number", {Type::uuid}));
    for (const auto* time : {"@sent_at", "@received_at"}) {
        for (const auto kind :
             {Type::int8, Type::date, Type::timestamp, Type::timestamptz, Type::numeric, Type::text})
            EXPECT_TRUE(fits(time, {kind})) << time << to_string(kind);
        for (const auto kind : {Type::int2, Type::int4, Type::uuid, Type::boolean})
            EXPECT_FALSE(fits(time, {kind})) << time << to_string(kind);
    }
    EXPECT_TRUE(fits("@index", {Type::int4}) && fits("@index", {Type::text}));
    EXPECT_FALSE(fits("@index", {Type::date}) || fits("@index", {Type::boolean}));
    EXPECT_FALSE(fits("@queue", {Type::int4}));
}

TEST(Misfit, times_of_the_message_are_milliseconds) {
    for (const auto* time : {"@sent_at", "@received_at"}) {
        const std::string from = R"("from": ["/a", ")" + std::string(time) + R"("], "steps": [)";
        EXPECT_EQ(misfit_of(from + R"("epoch_millis"])", {Type::timestamptz}), "fits");
        EXPECT_NE(misfit_of(from + R"("epoch_seconds"])", {Type::timestamptz}), "fits");
    }
}

TEST(Misfit, a_whole_body_is_json) {
    const std::string rule = R"("from": "@body", "mask_parts": [])";
    EXPECT_EQ(misfit_of(rule, {Type::json}), "fits");
    EXPECT_EQ(misfit_of(rule, {Type::text}), "fits");
    EXPECT_NE(misfit_of(rule, {Type::text, 100}), "fits");
    EXPECT_NE(misfit_of(rule, {Type::other}), "fits");
    EXPECT_NE(misfit_of(rule, array_of(Type::json)), "fits");
}

TEST(Misfit, a_constant_or_default_is_held_against_the_column_at_once) {
    EXPECT_EQ(misfit_of(R"("constant": 7)", {Type::int4}), "fits");
    EXPECT_NE(misfit_of(R"("constant": "x")", {Type::int4})
                  .find("constant or default is no value of type integer (wrong_type)"),
              std::string::npos);
    EXPECT_NE(misfit_of(R"("from": "/a", "default": 40000)", {Type::int2}), "fits");
    EXPECT_NE(misfit_of(R"("constant": "abcd")", {Type::text, 3}), "fits");
    EXPECT_NE(misfit_of(R"("constant": {})", {Type::text}), "fits");
    EXPECT_EQ(misfit_of(R"("constant": {"a": [1]})", {Type::json}), "fits");
    EXPECT_EQ(misfit_of(R"("constant": [1, 2])", array_of(Type::int4)), "fits");
    EXPECT_NE(misfit_of(R"("constant": ["x"])", array_of(Type::int4)), "fits");
    EXPECT_NE(misfit_of(R"("constant": "x\u0000")", {Type::text}), "fits");
}

TEST(Misfit, a_constant_that_its_steps_do_not_take_is_found_at_once) {
    EXPECT_EQ(misfit_of(R"("constant": "2.3.0", "steps": ["version"])", {Type::int4}), "fits");
    EXPECT_NE(misfit_of(R"("constant": "two", "steps": ["version"])", {Type::int4}), "fits");
    EXPECT_NE(misfit_of(R"("from": "/a", "default": "soon", "steps": ["date"])", {Type::date}), "fits");
    EXPECT_NE(misfit_of(R"("constant": "ABCD", "steps": ["lower"])", {Type::text, 3}), "fits");
}

} // namespace
} // namespace sqs_ingest
