// The SQS actions that ingestion needs, over one HttpLoop: encode, sign, send, decode.
#pragma once

#include "core/sqs/protocol.h"
#include "core/sqs/protocol_choice.h"
#include "core/sqs/url.h"
#include "net/clock_skew.h"
#include "net/credentials.h"
#include "net/http.h"

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace sqs_ingest {

struct SqsClientOptions {
    std::string queue_url; // opaque to us; sent as it is
    // Where requests go. Empty: AWS_ENDPOINT_URL_SQS, AWS_ENDPOINT_URL, the profile's; else the FIPS or
    // dual-stack variant of the queue's own AWS host, if one is asked for; else the queue URL's host.
    std::optional<Url> endpoint;
    std::string region; // empty: the environment's, the profile's or the instance's
    CredentialsOptions credentials;
    HttpOptions http; // an empty ca_file: AWS_CA_BUNDLE, the profile's ca_bundle, the system's
    ProtocolSetting protocol = ProtocolSetting::automatic;
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

// One request in flight per start_…() call; its end is an SqsEvent of advance() with the same id. While
// credentials are being fetched requests wait, 10 s at most ("CredentialsPending", transient), and have their
// full time to be answered in afterwards. A request that cannot even be signed ends at the next advance()
// with an ApiError of class credentials, with the code of NoCredentials; without a region, of class
// configuration, code "NoRegion"; with a wrong AWS_ENDPOINT_URL…, of class configuration, code
// "BadEndpointUrl".
//
// A request that the server may not have understood is repeated in the other protocol
// (core/sqs/protocol_choice.h) before it ends: under the same id, and with its time limit anew.
class SqsClient {
  public:
    explicit SqsClient(SqsClientOptions options);

    TransferId start_receive(ReceiveRequest request);
    TransferId start_delete(const std::vector<std::string_view>& receipt_handles);
    TransferId start_change_visibility(const std::vector<std::string_view>& receipt_handles, int seconds);
    TransferId start_get_queue_attributes();
    void cancel(TransferId id);

    int descriptor() const;
    std::optional<std::chrono::milliseconds> timeout() const; // 0 when there is something to do at once
    std::vector<SqsEvent> advance();

    // The queue's clock minus ours, from the last Date header: milliseconds; 0 before the first answer.
    // Requests are dated by the queue's clock when it is more than 4 minutes away from ours.
    std::int64_t clock_skew_ms() const { return clock_skew_.ms(); }

    const CredentialsChain& credentials() const { return credentials_; }
    // Where requests go now. The error is a sentence for people.
    Result<Url, std::string> endpoint() const;
    // The region that requests are signed for, once it is known.
    const std::string& region() const { return region_; }

    // The protocol that the next request will be in.
    Protocol protocol() const { return choice_.current(); }

  private:
    struct Judged {
        SqsEvent event;
        Verdict verdict; // what it says about the protocol
    };
    struct Pending {
        TransferId id; // as the caller knows it: that of its first transfer
        Request request;
        ProtocolChoice::Ticket ticket;
        std::optional<Judged> first = std::nullopt; // the answer to it; this is its repetition
        std::string access_key_id = {};             // that signed it
    };
    struct Waiting { // for credentials or the region
        Pending pending;
        std::chrono::steady_clock::time_point give_up;
    };

    TransferId start(Request request);
    void wait(Pending pending, Moment now);
    void send_waiting(Moment now);
    void sign_and_send(Pending pending, const Credentials& credentials, const Url& endpoint, Moment now);
    void refuse_waiting(const ApiError& error);
    void refuse_late(Moment now);
    void refuse(Pending pending, const ApiError& error);
    std::optional<SqsEvent> end(Pending pending, std::variant<HttpAnswer, TransportError> result, Moment now);
    std::optional<SqsEvent> chosen(Pending pending, Judged answer, Moment now);
    static Protocol spoken_in(const Pending& pending);
    Judged judge(const Pending& pending, std::variant<HttpAnswer, TransportError> result) const;
    void learn_from(const ApiError& error, const std::string& access_key_id, Moment now);

    SqsClientOptions options_;
    std::optional<Url> queue_; // the queue URL's own host
    HttpLoop http_;
    CredentialsChain credentials_;
    std::string region_;
    ProtocolChoice choice_;
    std::vector<Waiting> waiting_;
    std::map<TransferId, Pending> pending_; // by transfer
    std::vector<SqsEvent> ready_;           // ended before they were sent
    ClockSkew clock_skew_;
    bool clock_was_refused_ = false; // the queue minds even a small skew
};

} // namespace sqs_ingest
