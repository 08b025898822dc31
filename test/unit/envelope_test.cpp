// parse_payload: what lies in an SQS body, in which envelope and how encoded, and what is refused.
#include "core/transform/body.h"
#include "core/transform/envelope.h"
#include "core/transform/gunzip.h"
#include "core/utf8.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <array>
#include <cstdlib>
#include <random>

namespace sqs_ingest {
namespace {

using nlohmann::json;
using enum Envelope;
using enum BodyEncoding;

std::string gzip(std::string_view text) {
    z_stream stream{};
    EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    std::string packed(deflateBound(&stream, text.size()) + 64, '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_out = static_cast<uInt>(packed.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    packed.resize(stream.total_out);
    deflateEnd(&stream);
    return packed;
}

std::string in_base64(std::string_view bytes, std::string_view last_two = "+/", bool padded = true) {
    const std::string alphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + std::string(last_two);
    std::string text;
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
        const auto byte = [&](std::size_t i) {
            return i < bytes.size() ? std::uint32_t{static_cast<std::uint8_t>(bytes[i])} : 0u;
        };
        const auto bits = byte(at) << 16 | byte(at + 1) << 8 | byte(at + 2);
        const auto digits = std::min<std::size_t>(bytes.size() - at, 3) + 1;
        for (std::size_t i = 0; i < digits; ++i)
            text += alphabet[bits >> (18 - 6 * i) & 63];
        if (padded)
            text.append(4 - digits, '=');
    }
    return text;
}

std::string notification(std::string_view message) {
    return json{{"Type", "Notification"},
                {"MessageId", "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"},
                {"TopicArn", "arn:aws:sns:us-west-2:123456789012:MyTopic"},
                {"Subject", "My First Message"},
                {"Message", message},
                {"Timestamp", "2012-05-02T00:54:06.655Z"},
                {"SignatureVersion", "1"},
                {"MessageAttributes", {{"kind", {{"Type", "String"}, {"Value", "login"}}}}}}
        .dump();
}

std::string event(std::string_view detail) {
    return R"({"version":"0","id":"6a7e8feb-b491-4cf7-a9f1-bf3703467718","detail-type":"login",)"
           R"("source":"shop","account":"111122223333","time":"2017-12-22T18:43:48Z","region":"us-west-1",)"
           R"("resources":[],"detail":)" +
           std::string(detail) + "}";
}

json payload(Envelope envelope, BodyEncoding encoding, std::string_view body) {
    auto parsed = parse_payload(envelope, encoding, body);
    return parsed ? std::move(parsed).value()
                  : json("refused: " + std::string(to_string(parsed.error().reason)));
}

Rejection rejection(Envelope envelope, BodyEncoding encoding, std::string_view body) {
    auto parsed = parse_payload(envelope, encoding, body);
    EXPECT_FALSE(parsed.ok()) << body;
    return parsed ? Rejection{Reason::row_error, "accepted"} : std::move(parsed).error();
}

Reason reason(Envelope envelope, BodyEncoding encoding, std::string_view body) {
    return rejection(envelope, encoding, body).reason;
}

const std::string kText = R"({"user_id":"ю??>~","n":18446744073709551615})";
const json kPayload = json::parse(kText);

TEST(Envelope, option_names_are_read_and_written) {
    for (const auto envelope : {none, sns, eventbridge})
        EXPECT_EQ(parse_envelope(to_string(envelope)), envelope);
    for (const auto encoding : {plain, base64, gzip_base64})
        EXPECT_EQ(parse_body_encoding(to_string(encoding)), encoding);
    EXPECT_EQ(parse_body_encoding("gzip+base64"), gzip_base64);
    for (const auto* wrong : {"", "SNS", "sns ", "gzip", "raw"}) {
        EXPECT_EQ(parse_envelope(wrong), std::nullopt) << wrong;
        EXPECT_EQ(parse_body_encoding(wrong), std::nullopt) << wrong;
    }
}

TEST(Envelope, an_event_is_never_encoded) {
    for (const auto encoding : {plain, base64, gzip_base64}) {
        EXPECT_TRUE(go_together(none, encoding));
        EXPECT_TRUE(go_together(sns, encoding));
    }
    EXPECT_TRUE(go_together(eventbridge, plain));
    EXPECT_FALSE(go_together(eventbridge, base64));
    EXPECT_FALSE(go_together(eventbridge, gzip_base64));
}

TEST(Envelope, every_combination_yields_the_payload) {
    EXPECT_EQ(payload(none, plain, kText), kPayload);
    EXPECT_EQ(payload(none, base64, in_base64(kText)), kPayload);
    EXPECT_EQ(payload(none, gzip_base64, in_base64(gzip(kText))), kPayload);
    EXPECT_EQ(payload(sns, plain, notification(kText)), kPayload);
    EXPECT_EQ(payload(sns, base64, notification(in_base64(kText))), kPayload);
    EXPECT_EQ(payload(sns, gzip_base64, notification(in_base64(gzip(kText)))), kPayload);
    EXPECT_EQ(payload(eventbridge, plain, event(kText)), kPayload);
}

TEST(Envelope, a_notification_is_one_only_with_its_type_and_message) {
    const auto refused = [](std::string_view body) {
        const auto why = rejection(sns, plain, body);
        return std::string(to_string(why.reason)) + " " + why.field;
    };
    EXPECT_EQ(refused(kText), "bad_envelope Type");
    EXPECT_EQ(refused(R"({"Type":"SubscriptionConfirmation","Token":"2336","Message":"{}"})"),
              "bad_envelope Type");
    EXPECT_EQ(refused(R"({"Type":"UnsubscribeConfirmation","Message":"{}"})"), "bad_envelope Type");
    EXPECT_EQ(refused(R"({"Type":7,"Message":"{}"})"), "bad_envelope Type");
    EXPECT_EQ(refused(R"({"type":"Notification","Message":"{}"})"), "bad_envelope Type");
    EXPECT_EQ(refused(R"({"Type":"Notification"})"), "bad_envelope Message");
    EXPECT_EQ(refused(R"({"Type":"Notification","Message":null})"), "bad_envelope Message");
    EXPECT_EQ(refused(R"({"Type":"Notification","Message":{"user_id":"u"}})"), "bad_envelope Message");
    EXPECT_EQ(refused("hello"), "bad_envelope ");
    EXPECT_EQ(refused("[]"), "bad_envelope ");
    EXPECT_EQ(refused(""), "bad_envelope ");
}

TEST(Envelope, an_event_is_one_only_with_its_detail) {
    for (const auto* body : {"{}", R"({"detail":null})", R"({"detail":"{}"})", R"({"detail":[{}]})"}) {
        EXPECT_EQ(reason(eventbridge, plain, body), Reason::bad_envelope) << body;
        EXPECT_EQ(rejection(eventbridge, plain, body).field, "detail") << body;
    }
    EXPECT_EQ(reason(eventbridge, plain, "nothing"), Reason::bad_envelope);
    EXPECT_EQ(payload(eventbridge, plain, event("{}")), json::object());
}

TEST(Envelope, an_envelope_is_parsed_as_strictly_as_a_payload) {
    EXPECT_EQ(reason(sns, plain, R"({"Type":"Notification","Message":"{}","Message":"{}"})"),
              Reason::duplicate_key);
    EXPECT_EQ(reason(sns, plain, "{\"Type\":\"Notification\",\"Message\":\"\xFF\"}"), Reason::invalid_utf8);
    EXPECT_EQ(reason(eventbridge, plain, event(R"({"a":1,"a":2})")), Reason::duplicate_key);
    EXPECT_EQ(reason(eventbridge, plain, event(R"({"a":1e999})")), Reason::number_out_of_range);
    const auto nested = [](int levels) { return std::string(levels, '[') + std::string(levels, ']'); };
    EXPECT_EQ(reason(eventbridge, plain, event("{\"a\":" + nested(kMaxNesting - 1) + "}")), Reason::too_deep);
    EXPECT_TRUE(parse_payload(eventbridge, plain, event("{\"a\":" + nested(kMaxNesting - 2) + "}")).ok());
}

TEST(Envelope, a_payload_keeps_the_rejections_of_a_body) {
    EXPECT_EQ(reason(sns, plain, notification("hello")), Reason::not_json);
    EXPECT_EQ(reason(sns, plain, notification("[1]")), Reason::not_object);
    EXPECT_EQ(reason(sns, plain, notification(R"({"a":1,"a":2})")), Reason::duplicate_key);
    EXPECT_EQ(reason(none, base64, in_base64("hello")), Reason::not_json);
    EXPECT_EQ(reason(none, base64, in_base64("{\"a\":\"\xFF\"}")), Reason::invalid_utf8);
    EXPECT_EQ(reason(none, gzip_base64, in_base64(gzip("7"))), Reason::not_object);
    EXPECT_EQ(reason(none, gzip_base64, in_base64(gzip(""))), Reason::not_json);
}

TEST(Envelope, base64_may_be_of_either_alphabet_unpadded_or_broken_into_lines) {
    // 0xFB 0xFF… would need both special characters: JSON text has them where its bytes are "ю" and "?".
    for (const std::string text : {R"({"a":"????>>>>~~~~ююю"})", R"({"a":"?>~ю1"})", R"({"a":"?>~ю12"})"}) {
        const auto standard = in_base64(text), url_safe = in_base64(text, "-_");
        ASSERT_NE(standard, url_safe);
        EXPECT_EQ(payload(none, base64, standard), json::parse(text));
        EXPECT_EQ(payload(none, base64, url_safe), json::parse(text));
        EXPECT_EQ(payload(none, base64, in_base64(text, "+/", false)), json::parse(text));
        EXPECT_EQ(payload(none, base64, in_base64(text, "-_", false)), json::parse(text));
        auto lines = standard;
        for (std::size_t at = 4; at < lines.size(); at += 9)
            lines.insert(at, "\r\n \t");
        EXPECT_EQ(payload(none, base64, lines + "\n"), json::parse(text));
    }
}

TEST(Envelope, what_no_encoder_writes_is_no_base64) {
    ASSERT_EQ(in_base64("{}"), "e30=");
    EXPECT_EQ(payload(none, base64, "e30"), json::object());
    for (const auto* text : {"e30==", "e30===", "e3=0", "=e30", "e30=e30=", "e31=", "e", "e30=x", "e30!",
                             "{}", "e3\v0", "e30\xC3\xA9", "Pz8-Pz8/", "===="})
        EXPECT_EQ(reason(none, base64, text), Reason::bad_encoding) << text;
    EXPECT_EQ(reason(none, base64, std::string_view("e30\0", 4)), Reason::bad_encoding);
    EXPECT_EQ(reason(none, base64, ""), Reason::not_json);
}

TEST(Envelope, a_gzip_of_several_members_is_one_text) {
    const auto packed = gzip(kText.substr(0, 9)) + gzip("") + gzip(kText.substr(9));
    EXPECT_EQ(payload(none, gzip_base64, in_base64(packed)), kPayload);
}

TEST(Envelope, a_damaged_gzip_is_refused) {
    const auto packed = gzip(kText);
    for (std::size_t n = 0; n < packed.size(); ++n)
        EXPECT_EQ(reason(none, gzip_base64, in_base64(packed.substr(0, n))), Reason::bad_encoding) << n;
    EXPECT_EQ(reason(none, gzip_base64, in_base64(packed + "x")), Reason::bad_encoding);
    EXPECT_EQ(reason(none, gzip_base64, in_base64(packed + std::string(4, '\0'))), Reason::bad_encoding);
    EXPECT_EQ(reason(none, gzip_base64, in_base64(packed + packed.substr(0, 30))), Reason::bad_encoding);
    auto wrong_checksum = packed;
    wrong_checksum[packed.size() - 8] ^= 1;
    EXPECT_EQ(reason(none, gzip_base64, in_base64(wrong_checksum)), Reason::bad_encoding);
    EXPECT_EQ(reason(none, gzip_base64, in_base64(kText)), Reason::bad_encoding);
    EXPECT_EQ(reason(none, gzip_base64, packed), Reason::bad_encoding);
}

TEST(Envelope, a_gzip_is_unpacked_up_to_the_limit_and_no_further) {
    const auto text = [](std::size_t bytes) { return R"({"a":")" + std::string(bytes - 8, ' ') + R"("})"; };
    EXPECT_TRUE(parse_payload(none, gzip_base64, in_base64(gzip(text(kMaxPayload)))).ok());
    EXPECT_EQ(reason(none, gzip_base64, in_base64(gzip(text(kMaxPayload + 1)))), Reason::too_large);
    std::string members;
    for (int i = 0; i < 5; ++i)
        members += gzip(std::string(kMaxPayload / 4, ' '));
    EXPECT_EQ(reason(none, gzip_base64, in_base64(members)), Reason::too_large);
}

TEST(Envelope, a_payload_that_is_too_large_to_unpack_is_told_from_others_that_cannot_be_read) {
    const std::string bomb = in_base64(gzip(std::string(kMaxPayload + 1, ' ')));
    EXPECT_TRUE(is_too_large_to_unpack(none, gzip_base64, bomb));
    EXPECT_TRUE(is_too_large_to_unpack(sns, gzip_base64, notification(bomb)));
    EXPECT_FALSE(is_too_large_to_unpack(none, gzip_base64, in_base64(gzip(kText))));
    EXPECT_FALSE(is_too_large_to_unpack(none, gzip_base64, kText));
    EXPECT_FALSE(is_too_large_to_unpack(sns, gzip_base64, kText));
    EXPECT_FALSE(is_too_large_to_unpack(none, base64, bomb));
    EXPECT_FALSE(is_too_large_to_unpack(none, plain, bomb));
}

TEST(Envelope, gunzip_takes_output_of_any_length) {
    for (const std::size_t n : {0, 1, 65535, 65536, 65537, 131072}) {
        const auto text = gunzip(gzip(std::string(n, 'x')), n);
        ASSERT_TRUE(text.ok()) << n;
        EXPECT_EQ(text.value(), std::string(n, 'x'));
        if (n > 0) {
            EXPECT_EQ(gunzip(gzip(std::string(n, 'x')), n - 1).error(), GunzipError::too_large) << n;
        }
    }
}

// Bodies that were damaged at random, at every layer. Deterministic; SQS_INGEST_FUZZ_ROUNDS sets how many.
TEST(Envelope, any_damage_is_data) {
    const char* rounds = std::getenv("SQS_INGEST_FUZZ_ROUNDS");
    std::mt19937 random(7);
    const auto below = [&](std::size_t n) { return n == 0 ? 0 : random() % n; };
    const auto damaged = [&](std::string text) {
        for (auto n = below(4); n > 0 && !text.empty(); --n) {
            const auto at = below(text.size());
            switch (below(4)) {
            case 0:
                text[at] = static_cast<char>(below(256));
                break;
            case 1:
                text.erase(at, 1 + below(8));
                break;
            case 2:
                text.insert(at, text.substr(below(text.size()), below(16)));
                break;
            default:
                text[at] ^= static_cast<char>(1 << below(8));
            }
        }
        return text;
    };
    int accepted = 0;
    for (long i = rounds ? std::atol(rounds) : 20000; i > 0; --i) {
        auto text = damaged(kText);
        const auto encoding = std::array{plain, base64, gzip_base64}[below(3)];
        if (encoding == gzip_base64)
            text = damaged(gzip(text));
        if (encoding != plain)
            text = damaged(in_base64(text, below(2) ? "+/" : "-_", below(2)));
        for (const auto envelope : {none, sns, eventbridge}) {
            std::string body = text;
            if (envelope == sns)
                body = damaged(is_valid_utf8(text) ? notification(text) : text);
            if (envelope == eventbridge)
                body = damaged(event(text));
            const auto parsed = parse_payload(envelope, encoding, body);
            accepted += parsed.ok();
            ASSERT_TRUE(parsed.ok() ? parsed.value().is_object()
                                    : to_string(parsed.error().reason) != std::string_view("unknown"));
        }
    }
    EXPECT_GT(accepted, 0);
}

} // namespace
} // namespace sqs_ingest
