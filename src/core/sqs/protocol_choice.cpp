#include "core/sqs/protocol_choice.h"

#include "core/utf8.h"

#include <algorithm>
#include <string>
#include <utility>

namespace sqs_ingest {

namespace {

constexpr int kRoundsOfForeignAnswers = 2;

// Statuses of gateways, proxies and rate limits: none is an answer to a protocol.
bool is_outage(int http_status) {
    static constexpr int kOutages[] = {0, 407, 408, 429, 502, 503, 504};
    return std::find(std::begin(kOutages), std::end(kOutages), http_status) != std::end(kOutages) ||
           http_status / 100 == 3;
}

bool says_no_such_action(std::string_view code) {
    return code == "MissingAction" || code == "InvalidAction" || code.starts_with("UnknownOperation");
}

// A wrong key or a date is a matter of its own, in whatever form it is said.
bool may_be_mismatch(const ApiError& error) {
    return (error.error_class == ErrorClass::configuration || error.error_class == ErrorClass::transient) &&
           !error.code.starts_with("AccessDenied");
}

const char* name(Protocol protocol) {
    return protocol == Protocol::json ? "AWS JSON" : "Query";
}

} // namespace

ProtocolSetting protocol_setting(std::string_view text) {
    if (text == "json")
        return ProtocolSetting::json;
    return text == "query" ? ProtocolSetting::query : ProtocolSetting::automatic;
}

Protocol other(Protocol protocol) {
    return protocol == Protocol::json ? Protocol::query : Protocol::json;
}

Verdict judge_error(Protocol spoken, const DecodedError& error) {
    if (is_outage(error.error.http_status) || error.error.error_class == ErrorClass::throttle)
        return Verdict::outage;
    if (error.form == ErrorForm::foreign)
        return Verdict::foreign;
    const ErrorForm own = spoken == Protocol::json ? ErrorForm::json : ErrorForm::xml;
    return error.form == own && !says_no_such_action(error.error.code) ? Verdict::understood
                                                                       : Verdict::refused;
}

Verdict judge_success(bool decoded) {
    return decoded ? Verdict::understood : Verdict::foreign;
}

ProtocolChoice::ProtocolChoice(ProtocolSetting setting)
    : automatic_(setting == ProtocolSetting::automatic),
      current_(setting == ProtocolSetting::query ? Protocol::query : Protocol::json), settled_(!automatic_) {}

bool ProtocolChoice::first_answer(const Ticket& ticket, Verdict verdict) {
    if (!automatic_)
        return false;
    if (verdict == Verdict::understood) {
        if (!settled_)
            settle(ticket.protocol);
        return false;
    }
    if (verdict == Verdict::refused)
        return true;
    // Sent before the other protocol was settled: the server may know only that.
    const bool outdated = ticket.protocol != current_;
    return verdict == Verdict::foreign && (!settled_ || outdated);
}

bool ProtocolChoice::second_answer(const Ticket& ticket, Verdict first, Verdict second) {
    // That the first protocol is not known is certain then: what the other one says is worth more.
    if (second != Verdict::understood)
        return first == Verdict::refused && second != Verdict::foreign;
    if (first == Verdict::refused)
        settle(other(ticket.protocol));
    else if (!settled_ && ticket.round == round_ && ++round_ == kRoundsOfForeignAnswers)
        settle(other(ticket.protocol));
    return true;
}

void ProtocolChoice::settle(Protocol protocol) {
    current_ = protocol;
    settled_ = true;
    round_ = 0;
}

ApiError explain_mismatch(Protocol spoken, Verdict verdict, ApiError error) {
    if (verdict != Verdict::refused || !may_be_mismatch(error))
        return error;
    std::string message = std::string("the server does not seem to know the ") + name(spoken) +
                          " protocol: it answered " + error.code;
    if (!error.message.empty())
        message += ": " + error.message;
    truncate_utf8(message, kMaxMessageBytes);
    return {ErrorClass::configuration, error.http_status, "ProtocolMismatch", std::move(message)};
}

} // namespace sqs_ingest
