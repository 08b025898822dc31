// How the payload, which the mapping reads, lies in an SQS body: in which envelope, and how encoded.
#pragma once

#include "core/result.h"
#include "core/transform/rejection.h"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

// What a service in between has put around it. SNS with raw message delivery adds nothing: none.
enum class Envelope {
    none,
    sns,         // a notification: {"Type": "Notification", "Message": "<the payload>", …}
    eventbridge, // an event: {"detail-type": …, "detail": {<the payload>}, …}
};

// How the payload's text is written.
enum class BodyEncoding {
    plain,
    base64,      // RFC 4648, sections 4 and 5
    gzip_base64, // gzip (RFC 1952), and that in base64
};

// "none", "sns", "eventbridge"; "plain", "base64", "gzip+base64". Empty for anything else.
std::optional<Envelope> parse_envelope(std::string_view name);
std::optional<BodyEncoding> parse_body_encoding(std::string_view name);
const char* to_string(Envelope envelope);
const char* to_string(BodyEncoding encoding);

// False for an event with an encoding: its payload is JSON, not text.
bool go_together(Envelope envelope, BodyEncoding encoding);

// Above this many bytes an unpacked payload is too_large: no message's size, which is at most 1 MiB, says how
// much a gzip holds.
inline constexpr std::size_t kMaxPayload = 16u << 20;

// The payload of an SQS body, parsed as parse_body() does, with its rejections, and these:
//   bad_envelope  the body is no JSON object, "Type" is not "Notification" (a subscription's confirmation),
//                 "Message" is no string, "detail" is no object; the field names the one of these
//   bad_encoding  no base64, or no gzip
//   too_large     more than kMaxPayload bytes
// An envelope is parsed as strictly as a payload; an event's levels of nesting count with its payload's.
// base64: the standard or the URL-safe alphabet, not both; with or without padding; spaces, tabs and line
// ends anywhere; unused bits are zero. gzip: one or more members, complete, checksums right, nothing behind.
// Never throws on data.
// https://docs.aws.amazon.com/sns/latest/dg/http-notification-json.html
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
Result<nlohmann::json, Rejection> parse_payload(Envelope envelope, BodyEncoding encoding,
                                                std::string_view body);

// Its text, as far as the envelope and the encoding can be taken off. Empty: they cannot, or the payload is
// no text of its own (eventbridge).
std::optional<std::string> payload_text(Envelope envelope, BodyEncoding encoding, std::string_view body);

// True when there is no such text because it is longer than kMaxPayload: nobody can search it.
bool is_too_large_to_unpack(Envelope envelope, BodyEncoding encoding, std::string_view body);

} // namespace sqs_ingest
