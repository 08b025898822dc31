// A profile's credential_process.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
#include "net/credentials/conversation.h"

#include <openssl/crypto.h>

namespace sqs_ingest {
namespace {

class ProcessCredentials : public Conversation {
  public:
    explicit ProcessCredentials(CredentialProcess process) : process_(std::move(process)) {}

    NextStep begin(std::int64_t) override { return ProcessRequest{process_.command}; }

    // What it wrote to stderr is nowhere to be seen, and neither is its command line: both may hold secrets.
    NextStep on(StepResult reply, std::int64_t) override {
        auto& end = std::get<ProcessEnd>(reply);
        if (!end.failure.empty())
            return FetchFailure{"CredentialProcess", "credential_process " + end.failure};
        auto issued = parse_process_document(end.output);
        OPENSSL_cleanse(end.output.data(), end.output.size());
        if (!issued.ok())
            return FetchFailure{"CredentialProcess", "what credential_process printed " + issued.error()};
        return FoundCredentials{std::move(issued).value()};
    }

  private:
    CredentialProcess process_;
};

} // namespace

std::unique_ptr<Conversation> run_credential_process(CredentialProcess process) {
    return std::make_unique<ProcessCredentials>(std::move(process));
}

} // namespace sqs_ingest
