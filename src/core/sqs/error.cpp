#include "core/sqs/error.h"

#include "core/sqs/answer.h"
#include "core/sqs/xml_answer.h"
#include "core/text.h"
#include "core/utf8.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace sqs_ingest {

namespace {

struct KnownCode {
    std::string_view code; // with a '*' at its end: every code that begins so
    ErrorClass error_class;
};

// The first match counts. AWS spells the common errors with and without "Exception", hence the stars.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
constexpr KnownCode kKnownCodes[] = {
    {"RequestThrottled*", ErrorClass::throttle},
    {"Throttl*", ErrorClass::throttle},
    {"TooManyRequests*", ErrorClass::throttle},
    {"SlowDown", ErrorClass::throttle},
    {"KmsThrottled", ErrorClass::throttle},
    {"RequestLimitExceeded", ErrorClass::throttle},
    {"BandwidthLimitExceeded", ErrorClass::throttle},

    {"RequestTimeout*", ErrorClass::transient},
    {"InternalError*", ErrorClass::transient},
    {"InternalFailure*", ErrorClass::transient},
    {"InternalServerError*", ErrorClass::transient},
    {"ServiceUnavailable*", ErrorClass::transient},

    {"ExpiredToken*", ErrorClass::credentials},
    {"InvalidClientTokenId*", ErrorClass::credentials},
    {"UnrecognizedClient*", ErrorClass::credentials},
    {"InvalidAccessKeyId", ErrorClass::credentials},
    {"IncompleteSignature*", ErrorClass::credentials},
    {"MissingAuthenticationToken*", ErrorClass::credentials},
    {"AuthFailure", ErrorClass::credentials},

    // A wrong secret key looks the same as a wrong clock: "signature does not match" says both.
    {"RequestTimeTooSkewed", ErrorClass::clock},
    {"RequestExpired", ErrorClass::clock},
    {"RequestInTheFuture", ErrorClass::clock},
    {"SignatureDoesNotMatch", ErrorClass::clock},
    {"InvalidSignature*", ErrorClass::clock},

    {"QueueDoesNotExist", ErrorClass::configuration},
    {"AccessDenied*", ErrorClass::configuration},
    {"InvalidAddress", ErrorClass::configuration},
    {"InvalidSecurity", ErrorClass::configuration},
    {"Kms*", ErrorClass::configuration},

    {"OverLimit", ErrorClass::over_limit},

    {"ReceiptHandleIsInvalid", ErrorClass::receipt},
    {"MessageNotInflight", ErrorClass::receipt},
    {"InvalidIdFormat",
     ErrorClass::receipt}, // "The specified receipt handle isn't valid for the current version."
};

bool matches(std::string_view pattern, std::string_view code) {
    if (pattern.ends_with('*'))
        return code.starts_with(pattern.substr(0, pattern.size() - 1));
    return code == pattern;
}

ErrorClass classify_status(int http_status) {
    if (http_status == 429)
        return ErrorClass::throttle;
    if (http_status == 408)
        return ErrorClass::transient;
    // A redirect as well: the endpoint in the settings is not where the queue is.
    if (http_status >= 300 && http_status < 500)
        return ErrorClass::configuration;
    return ErrorClass::transient;
}

// "com.amazonaws.sqs#QueueDoesNotExist:http://…" to "QueueDoesNotExist".
// https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html#operation-error-serialization
std::string_view without_namespace(std::string_view code) {
    code = code.substr(0, code.find(':'));
    return code.substr(code.rfind('#') + 1); // npos + 1 is 0
}

// The Query protocol's names of the same errors (the API model's awsQueryError traits).
std::string modern_code(std::string_view code) {
    remove_prefix(code, "AWS.SimpleQueueService.");
    if (code == "NonExistentQueue")
        return "QueueDoesNotExist";
    if (code == "QueueAlreadyExists")
        return "QueueNameExists";
    if (code == "KMS.ThrottlingException")
        return "KmsThrottled";
    if (remove_prefix(code, "KMS.")) {
        remove_suffix(code, "Exception");
        return "Kms" + std::string(code);
    }
    return std::string(code);
}

bool is_code_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

// Codes end up in logs and metrics: anything that does not look like one is not taken for one.
std::optional<std::string> short_code(std::string_view code) {
    constexpr std::size_t kMaxCodeBytes = 100;
    code = without_namespace(code);
    if (code.empty() || code.size() > kMaxCodeBytes ||
        !std::all_of(code.begin(), code.end(), is_code_character))
        return std::nullopt;
    return modern_code(code);
}

std::string status_code_name(int http_status) {
    return "HTTP " + std::to_string(http_status);
}

// U+0000 to U+001F, U+007F, and U+0080 to U+009F, which a terminal obeys as well.
void blank_control_characters(std::string& text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
        if (byte < 0x20 || byte == 0x7F)
            text[i] = ' ';
        else if (byte == 0xC2 && next >= 0x80 && next < 0xA0)
            text[i] = text[i + 1] = ' ';
    }
}

// AWS quotes the receipt handle (some 400 characters) before it says what is wrong with it.
std::string shorten_long_words(std::string_view text) {
    constexpr std::size_t kLongestWord = 200; // an ARN is shorter
    constexpr std::size_t kShown = 12;
    std::string out;
    while (!text.empty()) {
        std::string word(text.substr(0, text.find(' ')));
        text.remove_prefix(std::min(word.size() + 1, text.size()));
        if (word.size() > kLongestWord) {
            truncate_utf8(word, kShown);
            word += "...";
        }
        out += word;
        if (!text.empty())
            out += ' ';
    }
    return out;
}

std::string presentable(std::string_view message) {
    std::string text = replace_ill_formed_utf8(message);
    blank_control_characters(text);
    text = shorten_long_words(text);
    truncate_utf8(text, kMaxMessageBytes);
    return text;
}

bool concerns_receipt_handle(std::string_view code, std::string_view message) {
    return code == "InvalidParameterValue" && (message.find("ReceiptHandle") != std::string_view::npos ||
                                               message.find("receipt handle") != std::string_view::npos);
}

struct CodeAndMessage {
    std::string code; // empty: the answer names none
    std::string message;
};

std::string string_member(const nlohmann::json& object, const char* key) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string())
        return {};
    return found->get<std::string>();
}

std::optional<CodeAndMessage> read_json_error(std::string_view body) {
    const std::optional<Answer> answer = parse_answer(body);
    if (!answer)
        return std::nullopt;
    CodeAndMessage error{string_member(answer->json, "__type"), string_member(answer->json, "message")};
    if (error.message.empty())
        error.message = string_member(answer->json, "Message");
    return error;
}

// Query's <ErrorResponse><Error>, EC2's and old SQS's <Response><Errors><Error>, or a lone <Error>.
pugi::xml_node error_element(const XmlAnswer& answer) {
    const pugi::xml_node root = answer.root();
    if (xml_name(root) == "Error")
        return root;
    const pugi::xml_node errors = xml_child(root, "Errors");
    return xml_child(errors ? errors : root, "Error");
}

std::optional<CodeAndMessage> read_xml_error(std::string_view body) {
    const std::optional<XmlAnswer> answer = parse_xml_answer(body);
    const pugi::xml_node error = answer ? error_element(*answer) : pugi::xml_node();
    if (!error)
        return std::nullopt;
    return CodeAndMessage{xml_text(xml_child(error, "Code")).text,
                          xml_text(xml_child(error, "Message")).text};
}

const char* describe_foreign(std::string_view body) {
    const std::size_t first = body.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos)
        return "the answer is empty";
    if (body[first] == '<')
        return "the answer is a web page and not from SQS: is a proxy in between?";
    return "the answer is not from SQS";
}

} // namespace

const char* to_string(ErrorClass error_class) {
    switch (error_class) {
    case ErrorClass::throttle:
        return "throttle";
    case ErrorClass::transient:
        return "transient";
    case ErrorClass::credentials:
        return "credentials";
    case ErrorClass::clock:
        return "clock";
    case ErrorClass::configuration:
        return "configuration";
    case ErrorClass::over_limit:
        return "over_limit";
    case ErrorClass::receipt:
        return "receipt";
    }
    return "unknown";
}

ErrorClass classify(std::string_view code, int http_status) {
    for (const KnownCode& known : kKnownCodes)
        if (matches(known.code, code))
            return known.error_class;
    return classify_status(http_status);
}

ApiError api_error(std::string_view code, std::string_view message, int http_status) {
    ApiError error;
    error.http_status = http_status;
    error.code = short_code(code).value_or(status_code_name(http_status));
    error.error_class = concerns_receipt_handle(error.code, message) ? ErrorClass::receipt
                                                                     : classify(error.code, http_status);
    error.message = presentable(message);
    return error;
}

DecodedError decode_error_answer(int http_status, std::string_view query_error_header,
                                 std::string_view body) {
    DecodedError decoded;
    CodeAndMessage error;
    if (std::optional<CodeAndMessage> json = read_json_error(body)) {
        error = std::move(*json);
        decoded.form = short_code(error.code) ? ErrorForm::json : ErrorForm::foreign;
    } else if (std::optional<CodeAndMessage> xml = read_xml_error(body)) {
        error = std::move(*xml);
        decoded.form = short_code(error.code) ? ErrorForm::xml : ErrorForm::foreign;
    }
    if (!short_code(error.code)) {
        error.code = query_error_header.substr(0, query_error_header.find(';'));
        if (short_code(error.code))
            decoded.form = ErrorForm::json;
    }
    if (!short_code(error.code) && error.message.empty())
        error.message = describe_foreign(body);
    decoded.error = api_error(error.code, error.message, http_status);
    return decoded;
}

ApiError decode_error(int http_status, std::string_view query_error_header, std::string_view body) {
    return decode_error_answer(http_status, query_error_header, body).error;
}

} // namespace sqs_ingest
