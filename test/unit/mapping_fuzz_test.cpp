// Random mappings against random messages: whatever comes, the transform is total, and what it says of a
// message is the same each way it is asked. SQS_INGEST_FUZZ_ROUNDS says how many mappings; the seed is fixed.
#include "core/transform/body.h"
#include "core/transform/mention.h"
#include "core/transform/transform.h"
#include "core/utf8.h"

#include "reference_keyring.h"

#include <cstdlib>
#include <gtest/gtest.h>
#include <random>

namespace sqs_ingest {
namespace {

using nlohmann::json;
using Kind = ColumnType::Kind;

constexpr const char* kSecret = "SECRET-4711";

class Dice {
  public:
    explicit Dice(unsigned seed) : engine_(seed) {}

    int below(int n) { return static_cast<int>(engine_() % static_cast<unsigned>(n)); }
    bool one_in(int n) { return below(n) == 0; }
    template<class T, std::size_t n>
    const T& of(const T (&choices)[n]) {
        return choices[static_cast<std::size_t>(below(static_cast<int>(n)))];
    }

  private:
    std::mt19937 engine_;
};

constexpr const char* kKeys[] = {"a", "b", "c", "items", "", "a/b", "é", "0", "1"};
constexpr const char* kScalars[] = {"null",
                                    "true",
                                    "false",
                                    "0",
                                    "-0",
                                    "-0.0",
                                    "1",
                                    "7.0",
                                    "2.50",
                                    "1e3",
                                    "1e-7",
                                    "1e308",
                                    "-1e308",
                                    "32768",
                                    "2147483648",
                                    "9223372036854775807",
                                    "9223372036854775808",
                                    "18446744073709551616",
                                    "123456789012345678901.123456789",
                                    "0.1000000000000000055511151231257827",
                                    R"("")",
                                    R"(" x ")",
                                    R"("x")",
                                    R"("ÄÖ")",
                                    R"("\ud83d\ude00")",
                                    R"("a\u0000b")",
                                    R"("10.0.0.1")",
                                    R"("::FFFF:10.0.0.1")",
                                    R"("2.3.0")",
                                    R"("2026-11-21")",
                                    R"("2026-11-21T10:00:00.123+02:00")",
                                    R"("0000-00-00")",
                                    R"("9999-12-31T23:59:60-14:00")",
                                    R"("1700000000")",
                                    R"("nan")",
                                    R"("-inf")",
                                    R"("1e400")",
                                    R"("true")",
                                    R"("{1,2}")",
                                    R"("424cdd21-063a-43a7-b91b-7ca1a833afae")",
                                    R"("SECRET-4711")",
                                    R"("\"\\\n")"};

std::string random_json(Dice& dice, int depth) {
    if (depth == 0 || !dice.one_in(3))
        return dice.of(kScalars);
    const bool object = dice.one_in(2);
    std::string text = object ? "{" : "[";
    std::vector<std::string> used;
    for (int i = dice.below(5); i > 0; --i) {
        const std::string key = dice.of(kKeys);
        if (object && std::find(used.begin(), used.end(), key) != used.end())
            continue;
        used.push_back(key);
        if (text.size() > 1)
            text += ",";
        text += (object ? json(key).dump() + ":" : "") + random_json(dice, depth - 1);
    }
    return text + (object ? "}" : "]");
}

std::string random_body(Dice& dice) {
    std::string body = "{";
    for (const char* key : {"a", "b", "items", "a/b"})
        if (!dice.one_in(4))
            body += (body.size() > 1 ? "," : "") + json(key).dump() + ":" + random_json(dice, 4);
    body += "}";
    if (dice.one_in(10))
        body[static_cast<std::size_t>(dice.below(static_cast<int>(body.size())))] =
            static_cast<char>(dice.below(256));
    return body;
}

std::string random_source(Dice& dice) {
    static constexpr const char* kSources[] = {"/a",
                                               "/b",
                                               "/a/b",
                                               "/items/0",
                                               "/a~1b",
                                               "/",
                                               "/items",
                                               "@each",
                                               "@each/a",
                                               "@each/b/0",
                                               "@index",
                                               "@attribute:x",
                                               "@attribute:bin",
                                               "@message_id",
                                               "@sent_at",
                                               "@received_at",
                                               "@receive_count",
                                               "@group_id",
                                               "@sequence_number",
                                               "@queue"};
    return dice.of(kSources);
}

json random_rule(Dice& dice, int number) {
    static constexpr const char* kSteps[] = {"ip",    "version", "version:major", "version:ordinal", "date",
                                             "lower", "trim",    "epoch_seconds", "epoch_millis"};
    static constexpr const char* kMasks[] = {"mask", "mask:siv", "mask:sha256", "mask:sha256:1", "mask:md5"};
    json rule{{"column", "c" + std::to_string(number)}};
    if (dice.one_in(12)) {
        rule["from"] = "@body";
        rule["mask_parts"] = json::array({random_source(dice), "/a"});
        if (dice.one_in(2))
            rule["mask_parts"] = json{"/a", "/items"};
        return rule;
    }
    if (dice.one_in(10)) {
        rule["constant"] = json::parse(random_json(dice, 2), nullptr, false);
    } else {
        rule["from"] = json::array();
        for (int i = 1 + dice.below(3); i > 0; --i)
            rule["from"].push_back(random_source(dice));
        if (dice.one_in(4))
            rule["default"] = json::parse(random_json(dice, 2), nullptr, false);
        else
            rule["required"] = dice.one_in(3);
    }
    rule["steps"] = json::array();
    for (int i = dice.below(4); i > 0; --i)
        rule["steps"].push_back(dice.of(kSteps));
    if (dice.one_in(3))
        rule["steps"].push_back(dice.of(kMasks));
    return rule;
}

ColumnType random_type(Dice& dice) {
    static constexpr Kind kKinds[] = {Kind::text,   Kind::int2,      Kind::int4,        Kind::int8,
                                      Kind::date,   Kind::boolean,   Kind::numeric,     Kind::float4,
                                      Kind::float8, Kind::timestamp, Kind::timestamptz, Kind::uuid,
                                      Kind::json,   Kind::array,     Kind::other};
    ColumnType type{dice.of(kKinds)};
    type.element = dice.of(kKinds);
    if (type.element == Kind::array)
        type.element = Kind::text;
    if (dice.one_in(3))
        type.max_characters = 1 + dice.below(80);
    return type;
}

Message random_message(Dice& dice) {
    Message message;
    message.message_id = "00000000-0000-0000-0000-000000000001";
    message.body = random_body(dice);
    if (!dice.one_in(8))
        message.sent_at_ms =
            dice.one_in(8) ? static_cast<std::int64_t>(dice.below(1 << 30)) << 33 : 1'700'000'000'000;
    message.received_at_ms = 1'700'000'001'000;
    message.receive_count = dice.below(5);
    message.body_damaged = dice.one_in(50);
    if (dice.one_in(2))
        message.group_id = kSecret;
    if (dice.one_in(2))
        message.sequence_number = "18850000000000000000";
    if (dice.one_in(2))
        message.attributes["x"] = {"String", dice.one_in(3) ? kSecret : "2.3.0"};
    if (dice.one_in(2))
        message.attributes["bin"] = {"Binary", dice.one_in(2) ? std::string("\xff\x00", 2) : "text"};
    return message;
}

struct Case {
    Transform how;
    Message message;
};

// What a parsed mapping never does, whatever it says and whatever comes.
void check(const Case& one, const Keyring& ring) {
    const auto rows = transform(one.how, &ring, one.message);
    const auto told = explain(one.how, &ring, one.message);
    ASSERT_EQ(rows.ok(), !told.rejected.has_value());
    if (rows) {
        ASSERT_EQ(rows.value().size(), told.rows.size());
        for (std::size_t r = 0; r < rows.value().size(); ++r) {
            const auto& values = rows.value()[r].values;
            ASSERT_EQ(values.size(), one.how.mapping.columns.size());
            for (std::size_t i = 0; i < values.size(); ++i) {
                ASSERT_EQ(values[i], told.rows[r][i].value);
                if (!values[i])
                    continue;
                const auto& rule = one.how.mapping.columns[i];
                const auto& type = one.how.types[i];
                ASSERT_TRUE(is_valid_utf8(*values[i]));
                ASSERT_EQ(values[i]->find('\0'), std::string::npos);
                ASSERT_FALSE(rule.required && values[i]->empty()) << rule.column;
                if (rule.mask() != nullptr) {
                    ASSERT_EQ(values[i]->find(kSecret), std::string::npos);
                }
                if (type.kind == Kind::text && type.max_characters &&
                    !std::holds_alternative<WholeBody>(rule.sources[0])) {
                    ASSERT_LE(utf8_length(*values[i]), static_cast<std::size_t>(*type.max_characters));
                }
                if (type.kind == Kind::json) {
                    ASSERT_TRUE(parse_json(*values[i]).ok()) << *values[i];
                }
                const bool number =
                    type.kind == Kind::int2 || type.kind == Kind::int4 || type.kind == Kind::int8;
                if (number) {
                    ASSERT_EQ(std::to_string(std::stoll(*values[i])), *values[i]);
                }
            }
        }
    } else {
        ASSERT_EQ(rows.error().reason, told.rejected->reason);
        ASSERT_EQ(rows.error().field, told.rejected->field);
        ASSERT_EQ(rows.error().field.find(kSecret), std::string::npos);
    }
    const auto shown = json_text(redact(one.how, &ring, one.message), Escape::all_but_ascii);
    ASSERT_TRUE(json::accept(shown));
    ASSERT_EQ(shown.find(kSecret), std::string::npos);
    ASSERT_TRUE(std::all_of(shown.begin(), shown.end(), [](char c) { return c >= ' ' && c <= '~'; }));
    for (const auto& rule : one.how.mapping.columns) {
        (void)mentions(one.how, one.message, rule, kSecret);
        (void)normalised(rule, " SECRET ");
    }
}

int rounds() {
    const char* set = std::getenv("SQS_INGEST_FUZZ_ROUNDS");
    return set ? std::atoi(set) : 1500;
}

TEST(MappingFuzz, any_mapping_and_any_message_end_in_rows_or_a_rejection) {
    const Keyring ring = test::reference_keyring();
    Dice dice(20261121);
    int usable = 0, accepted = 0;
    for (int i = 0; i < rounds(); ++i) {
        json columns = json::array();
        for (int n = 1 + dice.below(5); n > 0; --n)
            columns.push_back(random_rule(dice, n));
        const auto mapping = parse_mapping(columns.dump(), dice.one_in(2) ? "/items" : "");
        if (!mapping) {
            ASSERT_FALSE(mapping.error().empty());
            continue;
        }
        ++usable;
        Case one{{mapping.value(),
                  {},
                  dice.one_in(4) ? MaskMethod{MaskMethod::Kind::siv} : MaskMethod{},
                  "https://queue"},
                 {}};
        for (std::size_t n = 0; n < mapping.value().columns.size(); ++n) {
            one.how.types.push_back(random_type(dice));
            (void)misfit(mapping.value().columns[n], one.how.types.back(), one.how.mask_method);
        }
        for (int n = 0; n < 10; ++n) {
            one.message = random_message(dice);
            accepted += transform(one.how, &ring, one.message).ok();
            check(one, ring);
            if (HasFatalFailure())
                FAIL() << columns.dump() << "\n" << one.message.body;
        }
    }
    EXPECT_GT(usable, rounds() / 5); // else it tests nothing
    EXPECT_GT(accepted, rounds() / 5);
}

TEST(MappingFuzz, damaged_mappings_are_refused_or_read_never_more) {
    Dice dice(1);
    for (int i = 0; i < rounds(); ++i) {
        std::string text = json::array({random_rule(dice, 1), random_rule(dice, 2)}).dump();
        for (int n = 1 + dice.below(4); n > 0; --n)
            text[static_cast<std::size_t>(dice.below(static_cast<int>(text.size())))] =
                static_cast<char>(dice.below(256));
        const auto mapping = parse_mapping(text, "/items");
        if (mapping) {
            ASSERT_FALSE(mapping.value().columns.empty());
            for (const auto& rule : mapping.value().columns)
                ASSERT_FALSE(rule.sources.empty());
        } else {
            ASSERT_FALSE(mapping.error().empty());
        }
    }
}

} // namespace
} // namespace sqs_ingest
