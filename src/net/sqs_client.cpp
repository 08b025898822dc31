// A request's way out (encode, date, sign, send) and its answer's way back (transport, error or body, event).
#include "net/sqs_client.h"

#include <cstdlib>
#include <curl/curl.h>
#include <type_traits>
#include <utility>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

constexpr milliseconds kConnectTimeout = 5s;
constexpr milliseconds kAnswerTimeout = 10s; // on top of a long poll's wait
// AWS accepts 5 minutes. Below this the machine's own clock is taken: a Date header is a second coarse.
constexpr milliseconds kTolerableSkew = 4min;
constexpr std::size_t kMaxMessageBytes = 500;

std::int64_t now_ms() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<milliseconds>(now).count();
}

ApiError to_api_error(TransportError error) {
    return {ErrorClass::transient, 0, std::move(error.code), std::move(error.message)};
}

// At most kMaxMessageBytes, ending between two UTF-8 characters.
std::string shortened(std::string text) {
    if (text.size() <= kMaxMessageBytes)
        return text;
    std::size_t end = kMaxMessageBytes;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
        --end;
    text.resize(end);
    return text;
}

// "no AWS credentials were found (looked at: the environment…; …/.aws/credentials: No such file…)"
ApiError to_api_error(NoCredentials none) {
    std::string message = std::move(none.message) + " (looked at: ";
    for (const char c : none.detail)
        message.append(c == '\n' ? "; " : std::string(1, c));
    return {ErrorClass::credentials, 0, "NoCredentials", shortened(std::move(message) + ")")};
}

std::variant<HttpAnswer, ApiError> successful(HttpAnswer answer) {
    if (answer.status / 100 == 2)
        return answer;
    return decode_error(answer.status, answer.query_error, answer.body);
}

// What `decode_body` makes of the answer, unless it is an error already.
template<class Decode>
auto outcome(const std::variant<HttpAnswer, ApiError>& answer, Decode decode_body)
    -> std::invoke_result_t<Decode, const std::string&> {
    if (const auto* error = std::get_if<ApiError>(&answer))
        return *error;
    return decode_body(std::get<HttpAnswer>(answer).body);
}

std::size_t body_size(const std::variant<HttpAnswer, ApiError>& answer) {
    const auto* http = std::get_if<HttpAnswer>(&answer);
    return http ? http->body.size() : 0;
}

const ApiError* error_of(const SqsEvent& event) {
    return std::visit(
        [](const auto& result) { return result.outcome.ok() ? nullptr : &result.outcome.error(); },
        event.result);
}

} // namespace

SqsClient::SqsClient(SqsClientOptions options)
    : options_(std::move(options)), credentials_(options_.credentials), http_(options_.http) {}

TransferId SqsClient::start_receive(int max_messages, int wait_seconds, int visibility_timeout_seconds) {
    return send(encode_receive(options_.queue_url, max_messages, wait_seconds, visibility_timeout_seconds),
                {.action = Action::receive, .waited = wait_seconds > 0},
                std::chrono::seconds(wait_seconds) + kAnswerTimeout);
}

TransferId SqsClient::start_delete(const std::vector<std::string_view>& receipt_handles) {
    return send(encode_delete_batch(options_.queue_url, receipt_handles),
                {.action = Action::delete_batch, .entries = static_cast<int>(receipt_handles.size())},
                kAnswerTimeout);
}

TransferId SqsClient::start_change_visibility(const std::vector<std::string_view>& receipt_handles,
                                              int seconds) {
    return send(encode_change_visibility_batch(options_.queue_url, receipt_handles, seconds),
                {.action = Action::change_visibility, .entries = static_cast<int>(receipt_handles.size())},
                kAnswerTimeout);
}

TransferId SqsClient::start_get_queue_attributes() {
    return send(encode_get_queue_attributes(options_.queue_url), {.action = Action::get_attributes},
                kAnswerTimeout);
}

void SqsClient::cancel(TransferId id) {
    http_.cancel(id);
    pending_.erase(id);
    std::erase_if(ready_, [id](const SqsEvent& event) { return event.id == id; });
}

int SqsClient::descriptor() const {
    return http_.descriptor();
}

std::optional<milliseconds> SqsClient::timeout() const {
    return ready_.empty() ? http_.timeout() : milliseconds::zero();
}

std::vector<SqsEvent> SqsClient::advance() {
    std::vector<SqsEvent> events = std::exchange(ready_, {});
    for (Completed& completed : http_.advance()) {
        const auto pending = pending_.extract(completed.id);
        events.push_back(end(completed.id, pending.mapped(), std::move(completed.result)));
    }
    return events;
}

std::int64_t SqsClient::clock_skew_ms() const {
    return clock_skew_ms_;
}

TransferId SqsClient::send(ApiCall call, Pending pending, milliseconds total_timeout) {
    auto credentials = credentials_.get();
    if (!credentials)
        return refuse(pending, to_api_error(std::move(credentials).error()));
    const std::string region = options_.region.empty() ? credentials_.region().value_or("") : options_.region;
    if (region.empty())
        return refuse(pending, {ErrorClass::configuration, 0, "NoRegion", "no AWS region is configured"});
    HttpRequest request = signed_request(std::move(call), credentials.value(), region);
    request.total_timeout = total_timeout;
    const TransferId id = http_.start(std::move(request));
    pending_.emplace(id, pending);
    return id;
}

TransferId SqsClient::refuse(const Pending& pending, ApiError error) {
    const TransferId id = next_unsent_id_--;
    ready_.push_back(decode(id, pending, std::move(error)));
    return id;
}

// Host is signed as libcurl will send it.
HttpRequest SqsClient::signed_request(ApiCall call, const Credentials& credentials,
                                      const std::string& region) const {
    const std::string amz_date = format_amz_date(now_ms_for_signing() / 1000);
    Headers headers = {{"content-type", "application/x-amz-json-1.0"},
                       {"x-amz-date", amz_date},
                       {"x-amz-target", std::move(call.target)}};
    if (!credentials.session_token.empty())
        headers.emplace_back("x-amz-security-token", credentials.session_token);

    RequestToSign to_sign{"POST", "/", "", headers, call.body};
    to_sign.headers.emplace_back("host", options_.endpoint.host_header());
    headers.emplace_back("Authorization",
                         authorization_header(to_sign, credentials, {region, "sqs", amz_date}));
    return {.url = options_.endpoint.origin() + "/",
            .headers = std::move(headers),
            .body = std::move(call.body),
            .connect_timeout = kConnectTimeout};
}

SqsEvent SqsClient::end(TransferId id, const Pending& pending,
                        std::variant<HttpAnswer, TransportError> result) {
    if (auto* lost = std::get_if<TransportError>(&result))
        return decode(id, pending, to_api_error(std::move(*lost)));
    auto& answer = std::get<HttpAnswer>(result);
    note_clock(answer.date);
    SqsEvent event = decode(id, pending, successful(std::move(answer)));
    if (const ApiError* error = error_of(event))
        learn_from(*error);
    return event;
}

SqsEvent SqsClient::decode(TransferId id, const Pending& pending, std::variant<HttpAnswer, ApiError> answer) {
    switch (pending.action) {
    case Action::receive:
        return {id, ReceiveResult{outcome(answer, decode_receive), body_size(answer), pending.waited}};
    case Action::delete_batch:
    case Action::change_visibility:
        return {id, BatchResult{outcome(answer, [&](const std::string& body) {
                    return decode_batch(body, pending.entries);
                })}};
    case Action::get_attributes:
        break;
    }
    return {id, AttributesResult{outcome(answer, decode_queue_attributes)}};
}

void SqsClient::note_clock(const std::string& date) {
    const auto server_s = curl_getdate(date.c_str(), nullptr);
    if (!date.empty() && server_s >= 0)
        clock_skew_ms_ = static_cast<std::int64_t>(server_s) * 1000 - now_ms();
}

void SqsClient::learn_from(const ApiError& error) {
    if (error.error_class == ErrorClass::credentials)
        credentials_.refresh();
    if (error.error_class == ErrorClass::clock)
        clock_was_refused_ = true;
}

std::int64_t SqsClient::now_ms_for_signing() const {
    const bool far_off = std::abs(clock_skew_ms_) > kTolerableSkew.count();
    return now_ms() + (far_off || clock_was_refused_ ? clock_skew_ms_ : 0);
}

} // namespace sqs_ingest
