// The SQS actions that ingestion needs, over one HttpLoop: encode, sign, send, decode.
#pragma once

#include "core/sqs/json_protocol.h"
#include "core/sqs/url.h"
#include "net/credentials.h"
#include "net/http.h"

#include <limits>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace sqs_ingest {

struct SqsClientOptions {
    std::string queue_url; // opaque to us; sent as it is
    Url endpoint;          // where requests go
    std::string region;    // empty: the environment's or the profile's
    CredentialsOptions credentials;
    HttpOptions http;
};

struct ReceiveResult {
    Result<Received, ApiError> outcome;
    std::size_t answer_bytes = 0;
    bool waited = false; // it was a long poll (wait_seconds > 0)
};
struct BatchResult { // of a delete or a visibility change
    Result<std::vector<FailedEntry>, ApiError> outcome;
};
struct AttributesResult {
    Result<QueueAttributes, ApiError> outcome;
};

struct SqsEvent {
    TransferId id;
    std::variant<ReceiveResult, BatchResult, AttributesResult> result;
};

// One request in flight per start_…() call; its end is an SqsEvent of advance() with the same id. A request
// that cannot even be signed (no credentials) ends at the next advance() with an ApiError of class
// credentials, code "NoCredentials"; without a region, of class configuration, code "NoRegion".
class SqsClient {
  public:
    explicit SqsClient(SqsClientOptions options);

    TransferId start_receive(int max_messages, int wait_seconds, int visibility_timeout_seconds = 0);
    TransferId start_delete(const std::vector<std::string_view>& receipt_handles);
    TransferId start_change_visibility(const std::vector<std::string_view>& receipt_handles, int seconds);
    TransferId start_get_queue_attributes();
    void cancel(TransferId id);

    int descriptor() const;
    std::optional<std::chrono::milliseconds> timeout() const; // 0 when an event is ready
    std::vector<SqsEvent> advance();

    // The queue's clock minus ours, from the last Date header: milliseconds; 0 before the first answer.
    // Requests are dated by the queue's clock when it is more than 4 minutes away from ours.
    std::int64_t clock_skew_ms() const;

  private:
    enum class Action { receive, delete_batch, change_visibility, get_attributes };
    struct Pending {
        Action action;
        int entries = 0; // of a batch
        bool waited = false;
    };

    TransferId send(ApiCall call, Pending pending, std::chrono::milliseconds total_timeout);
    TransferId refuse(const Pending& pending, ApiError error);
    HttpRequest signed_request(ApiCall call, const Credentials& credentials, const std::string& region) const;
    SqsEvent end(TransferId id, const Pending& pending, std::variant<HttpAnswer, TransportError> result);
    SqsEvent decode(TransferId id, const Pending& pending, std::variant<HttpAnswer, ApiError> answer);
    void note_clock(const std::string& date);
    void learn_from(const ApiError& error);
    std::int64_t now_ms_for_signing() const;

    SqsClientOptions options_;
    CredentialsChain credentials_;
    HttpLoop http_;
    std::map<TransferId, Pending> pending_;
    std::vector<SqsEvent> ready_; // ended before they were sent
    // Their ids count down from the top; HttpLoop's count up.
    TransferId next_unsent_id_ = std::numeric_limits<TransferId>::max();
    std::int64_t clock_skew_ms_ = 0;
    bool clock_was_refused_ = false; // the queue minds even a small skew
};

} // namespace sqs_ingest
