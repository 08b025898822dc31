// A request's way out (encode, date, sign, send) and its answer's way back (transport, error or body, event),
// which may lead out once more, in the other protocol.
#include "net/sqs_client.h"

#include "core/overloaded.h"
#include "core/utf8.h"
#include "net/signed_request.h"

#include <algorithm>
#include <iterator>
#include <type_traits>
#include <utility>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

constexpr milliseconds kAnswerTimeout = 10s;      // on top of a long poll's wait
constexpr milliseconds kCredentialsTimeout = 10s; // before that

ApiError to_api_error(TransportError error) {
    return {ErrorClass::transient, 0, std::move(error.code), std::move(error.message)};
}

// "no AWS credentials were found (looked at: the environment…; …/.aws/credentials: No such file…)"
ApiError to_api_error(NoCredentials none) {
    std::string message = std::move(none.message);
    if (none.code == "NoCredentials" && !none.detail.empty()) {
        message += " (looked at: ";
        for (const char c : none.detail)
            message.append(c == '\n' ? "; " : std::string(1, c));
        message += ")";
    }
    truncate_utf8(message, kMaxMessageBytes);
    return {ErrorClass::credentials, 0, std::move(none.code), std::move(message)};
}

ApiError misconfigured(const char* code, std::string message) {
    truncate_utf8(message, kMaxMessageBytes);
    return {ErrorClass::configuration, 0, code, std::move(message)};
}

HttpOptions with_ca_bundle(HttpOptions http, const CredentialsOptions& credentials) {
    if (http.ca_file.empty()) {
        AwsConfig config(credentials);
        config.update(Moment::now());
        http.ca_file = config.ca_bundle();
    }
    return http;
}

CredentialsOptions with_region(CredentialsOptions credentials, const std::string& region) {
    if (credentials.region.empty())
        credentials.region = region;
    return credentials;
}

milliseconds total_timeout(const Request& request) {
    const auto* receive = std::get_if<ReceiveRequest>(&request);
    return kAnswerTimeout + std::chrono::seconds(receive ? receive->wait_seconds : 0);
}

// The end of a request: with an error, or with what `read` makes of the answer.
using Outcome = std::variant<const HttpAnswer*, ApiError>;

template<class T, class Read>
Result<T, ApiError> outcome(Outcome&& end, Read read) {
    if (auto* error = std::get_if<ApiError>(&end))
        return std::move(*error);
    return read(std::get<const HttpAnswer*>(end)->body);
}

SqsEvent event_of(TransferId id, const Codec& codec, const Request& request, Outcome end) {
    const auto* answer = std::get_if<const HttpAnswer*>(&end);
    const std::size_t bytes = answer ? (*answer)->body.size() : 0;
    const auto batch = [&](std::size_t entries) -> SqsEvent {
        return {id, BatchResult{outcome<std::vector<FailedEntry>>(std::move(end), [&](const auto& body) {
                    return codec.decode_batch(body, static_cast<int>(entries));
                })}};
    };
    return std::visit(
        Overloaded{
            [&](const ReceiveRequest& receive) -> SqsEvent {
                return {id, ReceiveResult{outcome<Received>(std::move(end), codec.decode_receive), bytes,
                                          receive.wait_seconds > 0}};
            },
            [&](const DeleteRequest& deletes) { return batch(deletes.receipt_handles.size()); },
            [&](const VisibilityRequest& changes) { return batch(changes.receipt_handles.size()); },
            [&](const AttributesRequest&) -> SqsEvent {
                return {id, AttributesResult{
                                outcome<QueueAttributes>(std::move(end), codec.decode_queue_attributes)}};
            },
        },
        request);
}

std::vector<std::string> strings(const std::vector<std::string_view>& views) {
    return {views.begin(), views.end()};
}

const ApiError* error_of(const SqsEvent& event) {
    return std::visit(
        [](const auto& result) { return result.outcome.ok() ? nullptr : &result.outcome.error(); },
        event.result);
}

} // namespace

SqsClient::SqsClient(SqsClientOptions options)
    : options_(std::move(options)), http_(with_ca_bundle(options_.http, options_.credentials)),
      credentials_(with_region(options_.credentials, options_.region), http_), choice_(options_.protocol) {
    if (auto queue = parse_url(options_.queue_url); queue.ok())
        queue_ = std::move(queue).value();
}

TransferId SqsClient::start_receive(ReceiveRequest request) {
    return start(std::move(request));
}

TransferId SqsClient::start_delete(const std::vector<std::string_view>& receipt_handles) {
    return start(DeleteRequest{strings(receipt_handles)});
}

TransferId SqsClient::start_change_visibility(const std::vector<std::string_view>& receipt_handles,
                                              int seconds) {
    return start(VisibilityRequest{strings(receipt_handles), seconds});
}

TransferId SqsClient::start_get_queue_attributes() {
    return start(AttributesRequest{});
}

void SqsClient::cancel(TransferId id) {
    for (auto transfer = pending_.begin(); transfer != pending_.end(); ++transfer) {
        if (transfer->second.id != id)
            continue;
        http_.cancel(transfer->first);
        pending_.erase(transfer);
        break;
    }
    std::erase_if(waiting_, [id](const Waiting& waiting) { return waiting.pending.id == id; });
    std::erase_if(ready_, [id](const SqsEvent& event) { return event.id == id; });
}

int SqsClient::descriptor() const {
    return http_.descriptor();
}

std::optional<milliseconds> SqsClient::timeout() const {
    if (!ready_.empty())
        return milliseconds::zero();
    auto wait = http_.timeout();
    const auto not_after = [&](std::chrono::steady_clock::time_point then) {
        const auto left = std::max(milliseconds::zero(),
                                   std::chrono::ceil<milliseconds>(then - std::chrono::steady_clock::now()));
        wait = std::min(wait.value_or(left), left);
    };
    for (const Waiting& waiting : waiting_)
        not_after(waiting.give_up);
    if (const auto look = credentials_.next_look())
        not_after(*look);
    return wait;
}

std::vector<SqsEvent> SqsClient::advance() {
    std::vector<SqsEvent> events;
    auto all_completed = http_.advance();
    const Moment now = Moment::now();
    for (Completed& completed : all_completed) {
        if (credentials_.take(completed, now))
            continue;
        auto pending = pending_.extract(completed.id);
        if (pending.empty()) // the chain's own, which it has given up meanwhile
            continue;
        if (auto event = end(std::move(pending.mapped()), std::move(completed.result), now))
            events.push_back(std::move(*event));
    }
    credentials_.advance(now);
    send_waiting(now);
    refuse_late(now);
    std::move(ready_.begin(), ready_.end(), std::back_inserter(events));
    ready_.clear();
    return events;
}

TransferId SqsClient::start(Request request) {
    const TransferId id = http_.reserve();
    const Moment now = Moment::now();
    wait({id, std::move(request), choice_.begin()}, now);
    send_waiting(now);
    return id;
}

void SqsClient::wait(Pending pending, Moment now) {
    waiting_.push_back({std::move(pending), now.steady + kCredentialsTimeout});
}

// All that wait go the same way: they are sent, they are refused, or they go on waiting.
void SqsClient::send_waiting(Moment now) {
    if (waiting_.empty())
        return;
    auto region = credentials_.region(now);
    if (auto* known = std::get_if<std::string>(&region))
        region_ = std::move(*known);
    auto credentials = credentials_.get(now);
    if (auto* none = std::get_if<NoCredentials>(&credentials))
        return refuse_waiting(to_api_error(std::move(*none)));
    if (auto* none = std::get_if<NoRegion>(&region))
        return refuse_waiting(misconfigured("NoRegion", none->message));
    const auto endpoint = this->endpoint();
    if (!endpoint.ok())
        return refuse_waiting(misconfigured("BadEndpointUrl", endpoint.error()));
    if (std::holds_alternative<BeingFetched>(credentials) || std::holds_alternative<BeingFetched>(region))
        return;
    for (Waiting& waiting : std::exchange(waiting_, {}))
        sign_and_send(std::move(waiting.pending), std::get<Credentials>(credentials), endpoint.value(), now);
}

void SqsClient::sign_and_send(Pending pending, const Credentials& credentials, const Url& endpoint,
                              Moment now) {
    const std::string date = format_amz_date(clock_skew_.signing_ms(now.unix_ms, clock_was_refused_) / 1000);
    HttpRequest request =
        signed_request(codec(spoken_in(pending)).encode(options_.queue_url, pending.request), endpoint,
                       credentials, {region_, "sqs", date});
    request.total_timeout = total_timeout(pending.request);
    pending.access_key_id = credentials.access_key_id;
    const TransferId transfer = pending.first ? http_.reserve() : pending.id;
    http_.start(transfer, std::move(request));
    pending_.emplace(transfer, std::move(pending));
}

void SqsClient::refuse_waiting(const ApiError& error) {
    for (Waiting& waiting : std::exchange(waiting_, {}))
        refuse(std::move(waiting.pending), error);
}

void SqsClient::refuse_late(Moment now) {
    const auto late = std::stable_partition(waiting_.begin(), waiting_.end(), [&](const Waiting& waiting) {
        return waiting.give_up > now.steady;
    });
    for (auto waiting = late; waiting != waiting_.end(); ++waiting)
        refuse(std::move(waiting->pending),
               {ErrorClass::transient, 0, "CredentialsPending", "AWS credentials are still being fetched"});
    waiting_.erase(late, waiting_.end());
}

// One that was answered already, in the other protocol, ends with that answer.
void SqsClient::refuse(Pending pending, const ApiError& error) {
    ready_.push_back(pending.first
                         ? std::move(pending.first->event)
                         : event_of(pending.id, codec(pending.ticket.protocol), pending.request, error));
}

Result<Url, std::string> SqsClient::endpoint() const {
    if (options_.endpoint)
        return *options_.endpoint;
    auto configured = credentials_.config().endpoint_url("sqs");
    if (!configured.ok())
        return std::move(configured).error();
    if (!queue_)
        return std::string("the queue's URL has no host");
    return sqs_endpoint(*queue_, configured.value(), credentials_.config().endpoint_variant());
}

std::optional<SqsEvent> SqsClient::end(Pending pending, std::variant<HttpAnswer, TransportError> result,
                                       Moment now) {
    if (const auto* answer = std::get_if<HttpAnswer>(&result))
        clock_skew_.learn(answer->date, now.unix_ms);
    const std::string access_key_id = pending.access_key_id;
    Judged answer = judge(pending, std::move(result));
    std::optional<SqsEvent> event = chosen(std::move(pending), std::move(answer), now);
    if (const ApiError* error = event ? error_of(*event) : nullptr)
        learn_from(*error, access_key_id, now);
    return event;
}

// The event that the request ends with; none when it goes out again, in the other protocol.
std::optional<SqsEvent> SqsClient::chosen(Pending pending, Judged answer, Moment now) {
    if (pending.first) {
        const bool second = choice_.second_answer(pending.ticket, pending.first->verdict, answer.verdict);
        return std::move((second ? answer : *pending.first).event);
    }
    if (!choice_.first_answer(pending.ticket, answer.verdict))
        return std::move(answer.event);
    pending.first = std::move(answer);
    wait(std::move(pending), now); // for nothing, as a rule: its first transfer had credentials
    return std::nullopt;
}

Protocol SqsClient::spoken_in(const Pending& pending) {
    return pending.first ? other(pending.ticket.protocol) : pending.ticket.protocol;
}

SqsClient::Judged SqsClient::judge(const Pending& pending,
                                   std::variant<HttpAnswer, TransportError> result) const {
    const Protocol spoken = spoken_in(pending);
    const auto event = [&](Outcome end) {
        return event_of(pending.id, codec(spoken), pending.request, std::move(end));
    };
    if (auto* lost = std::get_if<TransportError>(&result))
        return {event(to_api_error(std::move(*lost))), Verdict::outage};
    const auto& answer = std::get<HttpAnswer>(result);
    if (answer.status / 100 == 2) {
        SqsEvent decoded = event(&answer);
        const bool understood = error_of(decoded) == nullptr;
        return {std::move(decoded), judge_success(understood)};
    }
    DecodedError decoded = decode_error_answer(answer.status, answer.query_error, answer.body);
    const Verdict verdict = judge_error(spoken, decoded);
    if (options_.protocol != ProtocolSetting::automatic)
        decoded.error = explain_mismatch(spoken, verdict, std::move(decoded.error));
    return {event(std::move(decoded.error)), verdict};
}

void SqsClient::learn_from(const ApiError& error, const std::string& access_key_id, Moment now) {
    if (error.error_class == ErrorClass::credentials)
        credentials_.refused(access_key_id, now);
    if (error.error_class == ErrorClass::clock)
        clock_was_refused_ = true;
}

} // namespace sqs_ingest
