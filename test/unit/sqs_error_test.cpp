// Error answers in every form a server or a proxy may give them, and what to do about each.
#include "core/sqs/error.h"

#include <gtest/gtest.h>

#include <string>

namespace sqs_ingest {
namespace {

const std::string kReplacement = "\xEF\xBF\xBD";

TEST(Classify, sorts_the_documented_codes) {
    const std::pair<const char*, ErrorClass> expected[] = {
        {"RequestThrottled", ErrorClass::throttle},
        {"ThrottlingException", ErrorClass::throttle},
        {"Throttling", ErrorClass::throttle},
        {"TooManyRequestsException", ErrorClass::throttle},
        {"SlowDown", ErrorClass::throttle},
        {"KmsThrottled", ErrorClass::throttle},
        {"RequestTimeoutException", ErrorClass::transient},
        {"InternalFailure", ErrorClass::transient},
        {"ServiceUnavailable", ErrorClass::transient},
        {"ExpiredToken", ErrorClass::credentials},
        {"ExpiredTokenException", ErrorClass::credentials},
        {"InvalidClientTokenId", ErrorClass::credentials},
        {"UnrecognizedClientException", ErrorClass::credentials},
        {"IncompleteSignature", ErrorClass::credentials},
        {"MissingAuthenticationToken", ErrorClass::credentials},
        {"InvalidAccessKeyId", ErrorClass::credentials},
        {"AuthFailure", ErrorClass::credentials},
        {"RequestTimeTooSkewed", ErrorClass::clock},
        {"RequestExpired", ErrorClass::clock},
        {"RequestInTheFuture", ErrorClass::clock},
        {"SignatureDoesNotMatch", ErrorClass::clock},
        {"InvalidSignatureException", ErrorClass::clock},
        {"QueueDoesNotExist", ErrorClass::configuration},
        {"AccessDenied", ErrorClass::configuration},
        {"AccessDeniedException", ErrorClass::configuration},
        {"InvalidAddress", ErrorClass::configuration},
        {"InvalidSecurity", ErrorClass::configuration},
        {"KmsAccessDenied", ErrorClass::configuration},
        {"OverLimit", ErrorClass::over_limit},
        {"ReceiptHandleIsInvalid", ErrorClass::receipt},
        {"MessageNotInflight", ErrorClass::receipt},
    };
    for (const auto& [code, error_class] : expected)
        EXPECT_EQ(classify(code, 400), error_class) << code;
}

TEST(Classify, a_known_code_counts_more_than_the_status) {
    EXPECT_EQ(classify("ThrottlingException", 503), ErrorClass::throttle);
    EXPECT_EQ(classify("QueueDoesNotExist", 500), ErrorClass::configuration);
}

TEST(Classify, the_status_decides_for_unknown_codes) {
    EXPECT_EQ(classify("Whatever", 429), ErrorClass::throttle);
    EXPECT_EQ(classify("Whatever", 500), ErrorClass::transient);
    EXPECT_EQ(classify("Whatever", 503), ErrorClass::transient);
    EXPECT_EQ(classify("Whatever", 408), ErrorClass::transient);
    EXPECT_EQ(classify("Whatever", 301), ErrorClass::configuration);
    EXPECT_EQ(classify("Whatever", 403), ErrorClass::configuration);
    EXPECT_EQ(classify("Whatever", 404), ErrorClass::configuration);
    EXPECT_EQ(classify("CURLE_COULDNT_CONNECT", 0), ErrorClass::transient);
    EXPECT_EQ(classify("", 200), ErrorClass::transient);
}

TEST(DecodeError, reads_aws_json) {
    const ApiError error = decode_error(400, "AWS.SimpleQueueService.NonExistentQueue;Sender",
                                        R"({"__type":"com.amazonaws.sqs#QueueDoesNotExist",)"
                                        R"("message":"The specified queue does not exist."})");
    EXPECT_EQ(error.code, "QueueDoesNotExist");
    EXPECT_EQ(error.error_class, ErrorClass::configuration);
    EXPECT_EQ(error.http_status, 400);
    EXPECT_EQ(error.message, "The specified queue does not exist.");
}

TEST(DecodeError, reads_a_type_with_a_url_behind_it_and_a_capital_message) {
    const ApiError error = decode_error(
        400, "", R"({"__type":"OverLimit:http://internal.amazon.com/coral/#x","Message":"Too many"})");
    EXPECT_EQ(error.code, "OverLimit");
    EXPECT_EQ(error.message, "Too many");
}

TEST(DecodeError, prefers_the_type_to_the_header) {
    EXPECT_EQ(decode_error(400, "InvalidParameterValue;Sender", R"({"__type":"x#OverLimit"})").code,
              "OverLimit");
}

TEST(DecodeError, takes_the_header_when_there_is_no_type) {
    const ApiError error =
        decode_error(400, "AWS.SimpleQueueService.NonExistentQueue;Sender", R"({"message":"no such queue"})");
    EXPECT_EQ(error.code, "QueueDoesNotExist");
    EXPECT_EQ(error.message, "no such queue");
    EXPECT_EQ(decode_error(400, "OverLimit", "").code, "OverLimit");
}

TEST(DecodeError, legacy_codes_become_the_short_ones) {
    const std::pair<const char*, const char*> expected[] = {
        {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"},
        {"AWS.SimpleQueueService.MessageNotInflight", "MessageNotInflight"},
        {"AWS.SimpleQueueService.TooManyEntriesInBatchRequest", "TooManyEntriesInBatchRequest"},
        {"QueueAlreadyExists", "QueueNameExists"},
        {"KMS.AccessDeniedException", "KmsAccessDenied"},
        {"KMS.ThrottlingException", "KmsThrottled"},
        {"KMS.OptInRequired", "KmsOptInRequired"},
        {"ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid"},
    };
    for (const auto& [legacy, code] : expected) {
        EXPECT_EQ(decode_error(400, std::string(legacy) + ";Sender", "").code, code);
        EXPECT_EQ(decode_error(400, "", R"({"__type":")" + std::string(legacy) + "\"}").code, code);
    }
}

TEST(DecodeError, reads_xml_given_to_a_json_request) {
    const ApiError error =
        decode_error(403, "",
                     "<?xml version=\"1.0\"?>\n<ErrorResponse><Error><Type>Sender</Type>"
                     "<Code>SignatureDoesNotMatch</Code><Message>a &lt;b&gt; &amp;quot; &quot;c&quot; "
                     "&apos;d&apos; &unknown;</Message></Error></ErrorResponse>");
    EXPECT_EQ(error.code, "SignatureDoesNotMatch");
    EXPECT_EQ(error.error_class, ErrorClass::clock);
    EXPECT_EQ(error.message, "a <b> &quot; \"c\" 'd' &unknown;");
}

TEST(DecodeError, a_web_page_is_named_by_its_status_and_not_quoted) {
    const ApiError error = decode_error(502, "", "<html><title>Bad Gateway</title><code>x</code></html>");
    EXPECT_EQ(error.code, "HTTP 502");
    EXPECT_EQ(error.error_class, ErrorClass::transient);
    EXPECT_EQ(error.message, "the answer is a web page and not from SQS: is a proxy in between?");
}

TEST(DecodeError, understands_nothing_at_all) {
    EXPECT_EQ(decode_error(503, "", "").message, "the answer is empty");
    EXPECT_EQ(decode_error(503, "", "no healthy upstream").message, "the answer is not from SQS");
    EXPECT_EQ(decode_error(429, "", "").error_class, ErrorClass::throttle);
    EXPECT_EQ(decode_error(400, "", "[1,2]").code, "HTTP 400");
}

TEST(DecodeError, survives_wrong_types_and_unfinished_texts) {
    EXPECT_EQ(decode_error(400, "", R"({"__type":7,"message":["x"]})").code, "HTTP 400");
    EXPECT_EQ(decode_error(400, "", R"({"__type":"Over)").code, "HTTP 400");
    EXPECT_EQ(decode_error(400, "", "<Code>Over").code, "HTTP 400");
    EXPECT_EQ(decode_error(400, "", "<Error><Message>only</Message></Error>").message, "only");
    EXPECT_EQ(decode_error(400, ";Sender", R"({"__type":"#:"})").code, "HTTP 400");
}

TEST(DecodeError, a_code_that_looks_like_none_is_not_taken) {
    EXPECT_EQ(decode_error(400, "", R"({"__type":"two\nlines"})").code, "HTTP 400");
    EXPECT_EQ(decode_error(400, std::string(5000, 'A'), "").code, "HTTP 400");
}

TEST(DecodeError, control_characters_of_a_message_become_spaces) {
    const ApiError error = decode_error(400, "", R"({"__type":"X","message":"a\nb\u0000c\u007fd\u009be"})");
    EXPECT_EQ(error.message, "a b c d  e");
}

TEST(DecodeError, a_long_message_is_cut_between_characters) {
    std::string text;
    for (int i = 0; i < 200; ++i)
        text += "\xE2\x82\xAC"
                "ab "; // 6 bytes; byte 500 is inside a euro sign
    const ApiError error = decode_error(400, "", R"({"__type":"X","message":")" + text + "\"}");
    EXPECT_EQ(error.message, text.substr(0, 498));
}

TEST(DecodeError, a_message_of_broken_utf8_is_mended) {
    const ApiError error = decode_error(400, "", "<Error><Code>X</Code><Message>a\xFFz</Message></Error>");
    EXPECT_EQ(error.message, "a" + kReplacement + "z");
}

TEST(ApiError, a_quoted_receipt_handle_is_shortened_so_that_the_reason_stays_readable) {
    const ApiError error =
        api_error("InvalidParameterValue",
                  "Value " + std::string(450, 'A') +
                      " for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
                  400);
    EXPECT_EQ(error.message,
              "Value AAAAAAAAAAAA... for parameter ReceiptHandle is invalid. Reason: The receipt handle "
              "has expired.");
    EXPECT_EQ(error.error_class, ErrorClass::receipt);
}

TEST(ApiError, another_invalid_parameter_is_a_matter_of_configuration) {
    EXPECT_EQ(api_error("InvalidParameterValue", "Value 99 for parameter WaitTimeSeconds is invalid.", 400)
                  .error_class,
              ErrorClass::configuration);
}

} // namespace
} // namespace sqs_ingest
