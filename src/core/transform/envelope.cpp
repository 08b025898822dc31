#include "core/transform/envelope.h"

#include "core/base64url.h"
#include "core/transform/body.h"
#include "core/transform/gunzip.h"

#include <string>
#include <utility>

namespace sqs_ingest {

namespace {

using nlohmann::json;

Result<std::string, Rejection> unpacked_gzip(std::string_view bytes) {
    auto text = gunzip(bytes, kMaxPayload);
    if (text)
        return std::move(text).value();
    return Rejection{text.error() == GunzipError::too_large ? Reason::too_large : Reason::bad_encoding, {}};
}

Result<std::string, Rejection> unpacked(BodyEncoding encoding, std::string_view text) {
    if (encoding == BodyEncoding::plain)
        return std::string(text);
    auto bytes = from_any_base64(text);
    if (!bytes)
        return Rejection{Reason::bad_encoding, {}};
    if (encoding == BodyEncoding::gzip_base64)
        return unpacked_gzip(*bytes);
    if (bytes->size() > kMaxPayload)
        return Rejection{Reason::too_large, {}};
    return std::move(*bytes);
}

Result<json, Rejection> decode(BodyEncoding encoding, std::string_view text) {
    if (encoding == BodyEncoding::plain)
        return parse_body(text);
    const auto payload = unpacked(encoding, text);
    return payload ? parse_body(payload.value()) : payload.error();
}

// The envelope itself. What is no JSON object is no envelope; what is wrong inside of it keeps its name.
Result<json, Rejection> open_envelope(std::string_view body) {
    auto envelope = parse_body(body);
    if (!envelope &&
        (envelope.error().reason == Reason::not_json || envelope.error().reason == Reason::not_object))
        return Rejection{Reason::bad_envelope, {}};
    return envelope;
}

Result<std::string, Rejection> message_of_notification(std::string_view body) {
    const auto notification = open_envelope(body);
    if (!notification)
        return notification.error();
    const auto type = notification.value().find("Type");
    if (type == notification.value().end() || *type != "Notification")
        return Rejection{Reason::bad_envelope, "Type"};
    const auto message = notification.value().find("Message");
    if (message == notification.value().end() || !message->is_string())
        return Rejection{Reason::bad_envelope, "Message"};
    return message->get<std::string>();
}

// Of an envelope whose payload is text.
Result<std::string, Rejection> encoded_payload(Envelope envelope, std::string_view body) {
    return envelope == Envelope::sns ? message_of_notification(body) : std::string(body);
}

Result<json, Rejection> payload_of_event(std::string_view body) {
    auto event = open_envelope(body);
    if (!event)
        return event;
    const auto detail = event.value().find("detail");
    if (detail == event.value().end() || !detail->is_object())
        return Rejection{Reason::bad_envelope, "detail"};
    return std::move(*detail);
}

} // namespace

std::optional<Envelope> parse_envelope(std::string_view name) {
    for (const auto envelope : {Envelope::none, Envelope::sns, Envelope::eventbridge}) {
        if (name == to_string(envelope))
            return envelope;
    }
    return std::nullopt;
}

std::optional<BodyEncoding> parse_body_encoding(std::string_view name) {
    for (const auto encoding : {BodyEncoding::plain, BodyEncoding::base64, BodyEncoding::gzip_base64}) {
        if (name == to_string(encoding))
            return encoding;
    }
    return std::nullopt;
}

const char* to_string(Envelope envelope) {
    switch (envelope) {
    case Envelope::none:
        return "none";
    case Envelope::sns:
        return "sns";
    case Envelope::eventbridge:
        return "eventbridge";
    }
    return "unknown";
}

const char* to_string(BodyEncoding encoding) {
    switch (encoding) {
    case BodyEncoding::plain:
        return "plain";
    case BodyEncoding::base64:
        return "base64";
    case BodyEncoding::gzip_base64:
        return "gzip+base64";
    }
    return "unknown";
}

bool go_together(Envelope envelope, BodyEncoding encoding) {
    return envelope != Envelope::eventbridge || encoding == BodyEncoding::plain;
}

Result<json, Rejection> parse_payload(Envelope envelope, BodyEncoding encoding, std::string_view body) {
    switch (envelope) {
    case Envelope::none:
        return decode(encoding, body);
    case Envelope::sns: {
        const auto message = message_of_notification(body);
        return message ? decode(encoding, message.value()) : message.error();
    }
    case Envelope::eventbridge:
        return payload_of_event(body);
    }
    return Rejection{Reason::bad_envelope, {}};
}

std::optional<std::string> payload_text(Envelope envelope, BodyEncoding encoding, std::string_view body) {
    if (envelope == Envelope::eventbridge)
        return std::nullopt;
    auto text = encoded_payload(envelope, body);
    if (text)
        text = unpacked(encoding, text.value());
    return text ? std::optional(std::move(text).value()) : std::nullopt;
}

bool is_too_large_to_unpack(Envelope envelope, BodyEncoding encoding, std::string_view body) {
    if (encoding == BodyEncoding::plain)
        return false;
    const auto encoded = encoded_payload(envelope, body);
    if (!encoded)
        return false;
    const auto text = unpacked(encoding, encoded.value());
    return !text && text.error().reason == Reason::too_large;
}

} // namespace sqs_ingest
