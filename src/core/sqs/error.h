// What went wrong with an SQS request, sorted by what to do about it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sqs_ingest {

enum class ErrorClass {
    throttle,      // RequestThrottled, Throttling*, TooManyRequests, SlowDown, HTTP 429: slow down
    transient,     // HTTP 5xx, RequestTimeout*, transport errors, answers nobody understands: try again
    credentials,   // ExpiredToken*, InvalidClientTokenId, UnrecognizedClient*: refresh, try again, show
    clock,         // RequestTimeTooSkewed, RequestExpired, RequestInTheFuture, SignatureDoesNotMatch
    configuration, // QueueDoesNotExist, AccessDenied, InvalidAddress, InvalidSecurity, Kms*: slow retry, show
    over_limit,    // OverLimit: stop receiving, flush deletes
    receipt,       // ReceiptHandleIsInvalid, MessageNotInflight: this delivery is no longer ours
};

const char* to_string(ErrorClass error_class);

inline constexpr std::size_t kMaxMessageBytes = 500; // of an ApiError's message

struct ApiError {
    ErrorClass error_class = ErrorClass::transient;
    int http_status = 0; // 0: there was no HTTP answer
    std::string code;    // AWS's short code ("QueueDoesNotExist"), a curl error's name, or "HTTP 502"
    std::string message; // for people; at most kMaxMessageBytes; never a header or a body in full
};

// The class of a short code; `http_status` decides for unknown codes: 429 throttle, 408 transient, any other
// 3xx or 4xx configuration (403 too: credentials are known by their codes), everything else transient.
ErrorClass classify(std::string_view code, int http_status);

// An error as AWS words it. `code` may be in any of its spellings ("com.amazonaws.sqs#QueueDoesNotExist",
// "AWS.SimpleQueueService.NonExistentQueue") and becomes the short one; `message` is made presentable: valid
// UTF-8, no control characters, receipt handles shortened, at most 500 bytes. A receipt handle that AWS
// reports as an InvalidParameterValue (FIFO queues, visibility changes) is of class receipt.
ApiError api_error(std::string_view code, std::string_view message, int http_status);

// What an error answer looks like, which tells who gave it, and which protocol it knows.
enum class ErrorForm {
    json,    // a JSON object with a __type, or the header x-amzn-query-error, which comes with JSON only
    xml,     // <ErrorResponse><Error>, <Response><Errors><Error> or <Error>, with a <Code>
    foreign, // anything else: a proxy's web page, plain text, nothing
};

struct DecodedError {
    ApiError error;
    ErrorForm form = ErrorForm::foreign;
};

// Understands an error answer whatever its form: AWS JSON (`__type`, "message" or "Message"), the header
// x-amzn-query-error ("CODE;Sender"), AWS Query XML (<Code>, <Message>), HTML, or nothing at all.
DecodedError decode_error_answer(int http_status, std::string_view query_error_header, std::string_view body);
ApiError decode_error(int http_status, std::string_view query_error_header, std::string_view body);

} // namespace sqs_ingest
