// How each place is asked, step by step, without doing any of it: a conversation says what to send next, and
// is told what came back. Whoever carries it through (errand.h) owns sockets, processes and deadlines.
#pragma once

#include "core/aws/issued_credentials.h"
#include "net/clock_skew.h"
#include "net/credentials/plan.h"
#include "net/http.h"

#include <cstdint>
#include <memory>
#include <string>
#include <variant>

namespace sqs_ingest {

struct ProcessRequest {
    std::string command; // for /bin/sh -c
};
struct ProcessEnd {
    std::string output;  // empty after a failure
    std::string failure; // "ended with exit status 1", "was killed: …"; empty: it succeeded
};

struct FoundCredentials {
    IssuedCredentials issued;
    std::string note = {}; // what the source's name lacks: "role y"; empty: nothing
};
struct FoundRegion {
    std::string region;
};
struct FetchFailure {
    std::string code;      // for core/sqs/advice.h
    std::string message;   // never a secret
    bool is_outage = true; // nobody answered, or with an error of his own; else: somebody said no
};

using StepResult = std::variant<HttpAnswer, TransportError, ProcessEnd>;
using NextStep = std::variant<HttpRequest, ProcessRequest, FoundCredentials, FoundRegion, FetchFailure>;

class Conversation {
  public:
    virtual ~Conversation() = default;
    // `now_ms`: milliseconds since 1970.
    virtual NextStep begin(std::int64_t now_ms) = 0;
    virtual NextStep on(StepResult reply, std::int64_t now_ms) = 0;
};

// STS as requests reach it.
struct StsEndpoint {
    Url url;
    std::string region; // that requests are signed for
};

// The skew is that of STS, shared by the conversations of one chain.
std::unique_ptr<Conversation> assume_role(RoleToAssume role, Credentials source, StsEndpoint sts,
                                          ClockSkew& skew);
std::unique_ptr<Conversation> assume_role_with_web_identity(WebIdentity identity, StsEndpoint sts,
                                                            ClockSkew& skew);
std::unique_ptr<Conversation> run_credential_process(CredentialProcess process);
std::unique_ptr<Conversation> ask_container_endpoint(ContainerEndpoint endpoint);
std::unique_ptr<Conversation> ask_instance_metadata(InstanceMetadata metadata);
std::unique_ptr<Conversation> ask_instance_region(InstanceMetadata metadata);

} // namespace sqs_ingest
