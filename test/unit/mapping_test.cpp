// parse_mapping: what a mapping says, and how its mistakes are reported.
#include "core/transform/mapping.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

Mapping mapping_of(std::string_view json) {
    return parse_mapping(json).value();
}

std::string error_of(std::string_view json) {
    const auto mapping = parse_mapping(json);
    return mapping ? "accepted" : mapping.error();
}

bool error_mentions(std::string_view json, std::string_view text) {
    return error_of(json).find(text) != std::string::npos;
}

// The error of a column "c" whose entry goes on like this.
std::string column_error(const std::string& rest) {
    return error_of(R"([{"column": "c", )" + rest + "}]");
}

TEST(Mapping, a_column_needs_only_its_source) {
    const auto mapping = mapping_of(R"([{"column": "c", "from": "/a"}])");
    ASSERT_EQ(mapping.columns.size(), 1U);
    const auto& rule = mapping.columns[0];
    EXPECT_EQ(rule.column, "c");
    EXPECT_EQ(std::get<BodyField>(rule.sources.at(0)).pointer, "/a");
    EXPECT_TRUE(rule.steps.empty());
    EXPECT_FALSE(rule.required);
    EXPECT_FALSE(rule.mask() != nullptr);
}

TEST(Mapping, columns_keep_the_order_they_are_written_in) {
    const auto mapping = mapping_of(R"([{"column": "z", "from": "/a"}, {"column": "a", "from": "/a"}])");
    EXPECT_EQ(mapping.columns[0].column, "z");
    EXPECT_EQ(mapping.columns[1].column, "a");
}

TEST(Mapping, sources_are_kept_in_order) {
    const auto mapping = mapping_of(R"([{"column": "c", "from": ["/a", "@sent_at", "/b"]}])");
    const auto& sources = mapping.columns[0].sources;
    ASSERT_EQ(sources.size(), 3U);
    EXPECT_EQ(std::get<BodyField>(sources[0]).pointer, "/a");
    EXPECT_TRUE(std::get<MessageField>(sources[1]) == MessageField::sent_at);
    EXPECT_EQ(std::get<BodyField>(sources[2]).pointer, "/b");
}

TEST(Mapping, pointers_are_decoded_as_rfc_6901_says) {
    const auto tokens = [](const std::string& pointer) {
        const auto mapping = mapping_of(R"([{"column": "c", "from": ")" + pointer + "\"}]");
        return std::get<BodyField>(mapping.columns[0].sources[0]).tokens;
    };
    EXPECT_EQ(tokens("/a/b/0"), (std::vector<std::string>{"a", "b", "0"}));
    EXPECT_EQ(tokens("/a~1b/m~0n/~01"), (std::vector<std::string>{"a/b", "m~n", "~1"}));
    EXPECT_EQ(tokens("/"), (std::vector<std::string>{""}));
    EXPECT_EQ(tokens("/a//b"), (std::vector<std::string>{"a", "", "b"}));
}

TEST(Mapping, steps_are_read) {
    const auto mapping = mapping_of(R"([{"column": "c", "from": "/a", "required": true,
        "steps": ["ip", "date", "version", "version:digits", "version:major", "version:ordinal", "mask"]}])");
    const auto& rule = mapping.columns[0];
    ASSERT_EQ(rule.steps.size(), 7U);
    EXPECT_TRUE(std::holds_alternative<CanonicalIp>(rule.steps[0]));
    EXPECT_TRUE(std::holds_alternative<IsoDate>(rule.steps[1]));
    EXPECT_EQ(std::get<VersionNumber>(rule.steps[2]).kind, VersionKind::digits);
    EXPECT_EQ(std::get<VersionNumber>(rule.steps[3]).kind, VersionKind::digits);
    EXPECT_EQ(std::get<VersionNumber>(rule.steps[4]).kind, VersionKind::major);
    EXPECT_EQ(std::get<VersionNumber>(rule.steps[5]).kind, VersionKind::ordinal);
    EXPECT_TRUE(rule.mask() != nullptr);
    EXPECT_TRUE(rule.required);
}

TEST(Mapping, what_is_no_array_of_columns_is_refused) {
    for (const auto* json : {"", "{", "{}", "[]", "null", R"({"column": "c", "from": "/a"})"})
        EXPECT_TRUE(error_mentions(json, "a mapping must be")) << json;
    EXPECT_TRUE(error_mentions(R"([{"column": "c", "from": "/a", "from": "/b"}])", "duplicate_key"));
}

TEST(Mapping, an_entry_without_a_column_is_named_by_its_number) {
    for (const auto* entry : {"1", "[]", "{}", R"({"from": "/a"})", R"({"column": 1})", R"({"column": ""})",
                              R"({"column": "a\u0000b", "from": "/a"})"})
        EXPECT_TRUE(
            error_mentions(R"([{"column": "c", "from": "/a"}, )" + std::string(entry) + "]", "entry 2 "))
            << entry;
}

TEST(Mapping, a_column_twice_is_refused) {
    EXPECT_EQ(error_of(R"([{"column": "c", "from": "/a"}, {"column": "c", "from": "/b"}])"),
              "column \"c\" is mapped twice");
}

TEST(Mapping, an_unknown_key_is_refused_by_column_and_name) {
    EXPECT_TRUE(column_error(R"("from": "/a", "step": [])")
                    .starts_with("column \"c\": unknown key \"step\"; there are"));
}

TEST(Mapping, a_missing_source_is_refused) {
    EXPECT_EQ(column_error(R"("steps": [])"), "column \"c\": \"from\" is missing");
    EXPECT_EQ(column_error(R"("from": [])"), "column \"c\": \"from\" must name at least one source");
}

TEST(Mapping, what_is_no_pointer_is_refused) {
    for (const auto* from : {R"("")", R"("a")", R"("@sentat")", R"("/a~2")", R"("/a~")", R"("/a\u0000b")",
                             "1", "null", R"(["/a", "b"])", R"([["/a"]])", R"({"a": 1})"})
        EXPECT_EQ(column_error("\"from\": " + std::string(from)).rfind("column \"c\": \"from\" must be", 0),
                  0U)
            << from;
}

TEST(Mapping, an_unknown_step_is_refused_and_the_known_ones_are_listed) {
    for (const auto* step :
         {R"("upper")", R"("")", R"("Mask")", R"("version:")", R"("version:x")", R"("versions")", "1"}) {
        const auto error = column_error(R"("from": "/a", "steps": [)" + std::string(step) + "]");
        EXPECT_EQ(error.rfind("column \"c\": unknown step ", 0), 0U) << error;
        EXPECT_NE(error.find("\"version:ordinal\""), std::string::npos);
    }
    EXPECT_EQ(column_error(R"("from": "/a", "steps": "mask")"), "column \"c\": \"steps\" must be an array");
}

TEST(Mapping, nothing_follows_the_mask) {
    EXPECT_NE(column_error(R"("from": "/a", "steps": ["mask", "ip"])").find("must be the last step"),
              std::string::npos);
    EXPECT_NE(column_error(R"("from": "/a", "steps": ["mask", "mask"])").find("must be the last step"),
              std::string::npos);
}

TEST(Mapping, required_is_a_boolean) {
    EXPECT_EQ(column_error(R"("from": "/a", "required": 1)"),
              "column \"c\": \"required\" must be true or false");
}

TEST(Mapping, every_source_is_read) {
    const auto source = [](const std::string& from) {
        return parse_mapping(R"([{"column": "c", "from": ")" + from + "\"}]", "/items").value().columns[0];
    };
    EXPECT_EQ(std::get<Attribute>(source("@attribute:a b:c/d").sources[0]).name, "a b:c/d");
    EXPECT_TRUE(std::get<ElementField>(source("@each").sources[0]).tokens.empty());
    EXPECT_EQ(std::get<ElementField>(source("@each/a~1b").sources[0]).tokens,
              std::vector<std::string>{"a/b"});
    EXPECT_TRUE(std::holds_alternative<ElementIndex>(source("@index").sources[0]));
    for (const auto* name : {"@message_id", "@sent_at", "@received_at", "@receive_count", "@group_id",
                             "@sequence_number", "@queue"}) {
        EXPECT_TRUE(std::holds_alternative<MessageField>(source(name).sources[0])) << name;
        EXPECT_EQ(source(name).field(), name);
    }
    EXPECT_EQ(source("@each/a").field(), "@each/a");
    EXPECT_EQ(source("/a/b").field(), "a/b");
    for (const auto* from : {"@attribute:", "@attribute", "@Each", "@each/~2", "@eachx", "@body/a", "@"})
        EXPECT_TRUE(error_mentions(R"([{"column": "c", "from": ")" + std::string(from) + "\"}]", "must be"))
            << from;
}

TEST(Mapping, constants_and_defaults_are_the_last_resort) {
    const auto mapping = mapping_of(
        R"([{"column": "a", "constant": {"k": 1}}, {"column": "b", "from": "/b", "default": false}])");
    EXPECT_EQ(std::get<Constant>(mapping.columns[0].sources.at(0)).value.dump(), R"({"k":1})");
    EXPECT_EQ(std::get<Constant>(mapping.columns[1].sources.at(1)).value.dump(), "false");
    for (const auto* rest :
         {R"("constant": 1, "from": "/a")", R"("constant": 1, "default": 1)",
          R"("constant": 1, "required": true)", R"("constant": null)", R"("from": "/a", "default": null)",
          R"("from": "/a", "default": 1, "required": true)", R"("default": 1)"})
        EXPECT_NE(column_error(rest), "accepted") << rest;
}

TEST(Mapping, elements_need_the_option_each) {
    EXPECT_NE(column_error(R"("from": "@each/a")").find("option each"), std::string::npos);
    EXPECT_NE(column_error(R"("from": ["/a", "@index"])").find("option each"), std::string::npos);
    for (const auto* each : {"items", "/a~", "@each"})
        EXPECT_FALSE(parse_mapping(R"([{"column": "c", "from": "/a"}])", each).ok()) << each;
}

TEST(Mapping, a_whole_body_stands_alone_and_names_what_is_personal) {
    EXPECT_EQ(column_error(R"("from": "@body", "mask_parts": ["/ip", "/a/0"])"), "accepted");
    EXPECT_EQ(column_error(R"("from": "@body", "mask_parts": [])"), "accepted");
    for (const auto* rest :
         {R"("from": "@body")", R"("from": ["@body", "/a"], "mask_parts": [])",
          R"("from": "@body", "mask_parts": [], "steps": ["mask"])", R"("from": "/a", "mask_parts": [])",
          R"("from": "@body", "mask_parts": "/ip")", R"("from": "@body", "mask_parts": ["ip"])",
          R"("from": "@body", "mask_parts": [1])"})
        EXPECT_NE(column_error(rest), "accepted") << rest;
}

TEST(Mapping, masks_name_their_method) {
    const auto method = [](const char* step) {
        return mapping_of(R"([{"column": "c", "from": "/a", "steps": [")" + std::string(step) + "\"]}]")
            .columns[0]
            .mask()
            ->method;
    };
    EXPECT_EQ(method("mask"), std::nullopt);
    EXPECT_EQ(method("mask:siv"), (MaskMethod{MaskMethod::Kind::siv}));
    EXPECT_EQ(method("mask:sha256:12"), (MaskMethod{MaskMethod::Kind::sha256, 12}));
    EXPECT_NE(column_error(R"("from": "/a", "steps": ["mask:sha256:0"])"), "accepted");
    EXPECT_NE(column_error(R"("from": "/a", "steps": ["mask:"])"), "accepted");
}

TEST(Mapping, attributes_are_listed_once_and_sorted) {
    const auto mapping = mapping_of(
        R"([{"column": "a", "from": ["@attribute:z", "@attribute:b"]}, {"column": "c", "from": "@attribute:z"}])");
    EXPECT_EQ(mapping.attributes(), (std::vector<std::string>{"b", "z"}));
}

TEST(Mapping, one_column_at_most_is_the_users) {
    EXPECT_TRUE(mapping_of(R"([{"column": "a", "from": "/a", "user": true}])").columns[0].user);
    EXPECT_TRUE(error_mentions(
        R"([{"column": "a", "from": "/a", "user": true}, {"column": "b", "from": "/b", "user": true}])",
        "only one column"));
}

TEST(Mapping, the_built_in_mapping_has_the_columns_of_user_logins) {
    const auto mapping = mapping_of(user_logins_mapping());
    std::vector<std::string> columns;
    for (const auto& rule : mapping.columns) {
        columns.push_back(rule.column);
        EXPECT_EQ(rule.mask() != nullptr, rule.column.starts_with("masked_")) << rule.column;
        EXPECT_EQ(rule.required, rule.mask() != nullptr || rule.column == "user_id") << rule.column;
    }
    EXPECT_EQ(columns, (std::vector<std::string>{"user_id", "device_type", "masked_ip", "masked_device_id",
                                                 "locale", "app_version", "create_date"}));
}

} // namespace
} // namespace sqs_ingest
