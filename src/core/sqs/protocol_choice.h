// Which protocol to speak with a server of which nobody said what it knows.
//
// JSON comes first. A server that does not know it may say anything: moto answers "queue does not exist" in
// XML, ElasticMQ "MissingAction", LocalStack an error 500, GoAWS plain text. So an answer that is not in the
// protocol of its request has the request repeated in the other one, and the answer to that decides:
//
//                    ┌─ understood ────────────────────▶ JSON is settled
//     JSON request ──┼─ SQS's own error, but in XML ─┬─▶ the Query request
//                    ├─ anything else ───────────────┘
//                    └─ an outage (502, 503, 429 …) ───▶ this answer counts
//
//                    ┌─ understood, after SQS's own error ──────────────────▶ Query is settled
//    Query request ──┼─ understood, after anything else: the first time ────▶ this answer counts
//                    │                       the second time in a row ──────▶ Query is settled
//                    └─ not understood ─▶ the first answer counts, and JSON is next again
//
// "Anything else" is also what a broken proxy says, and it may be mended between the two requests: hence
// twice, the second JSON request sent after the first Query answer. Settled is settled, until a server
// answers a request with an SQS error in the other protocol's form (it was replaced by another version): then
// that one is tried.
#pragma once

#include "core/sqs/protocol.h"

namespace sqs_ingest {

// What a pipeline's options say.
enum class ProtocolSetting { automatic, json, query };

// Of "auto", "json" or "query"; automatic for anything else.
ProtocolSetting protocol_setting(std::string_view text);

// What an answer says about the protocol of its request.
enum class Verdict {
    understood, // it is in the protocol's own form, be it an error
    refused,    // an SQS server's error, in the other protocol's form, or one that says: no such action
    foreign,    // something else; perhaps that is how the server says it
    outage,     // no answer, or one that gateways give
};

// Of an answer with an error status.
Verdict judge_error(Protocol spoken, const DecodedError& error);

// Of an answer with a success status that could be decoded, or not.
Verdict judge_success(bool decoded);

class ProtocolChoice {
  public:
    explicit ProtocolChoice(ProtocolSetting setting);

    // Of the next request.
    Protocol current() const { return current_; }
    bool is_settled() const { return settled_; }

    // What a request carries from its start to its answer.
    struct Ticket {
        Protocol protocol;
        int round;
    };
    Ticket begin() const { return {current_, round_}; }

    // The answer to a request of that ticket. True: repeat it in the other protocol, then report that answer
    // with second_answer().
    bool first_answer(const Ticket& ticket, Verdict verdict);

    // The answers in the ticket's protocol and then in the other one. True: the second one counts.
    bool second_answer(const Ticket& ticket, Verdict first, Verdict second);

  private:
    void settle(Protocol protocol);

    bool automatic_;
    Protocol current_;
    bool settled_;
    int round_ = 0; // how often in a row the other protocol was understood where JSON was not
};

Protocol other(Protocol protocol);

// For a protocol that is prescribed: an error that looks like the server's not knowing it becomes one of
// class configuration, code "ProtocolMismatch", that says so. Others stay as they are.
ApiError explain_mismatch(Protocol spoken, Verdict verdict, ApiError error);

} // namespace sqs_ingest
