// EC2's instance metadata service, version 2 only, and the container endpoints of ECS and EKS Pod Identity.
#include "core/text.h"
#include "net/credentials/conversation.h"
#include "net/credentials/token_file.h"

#include <algorithm>
#include <openssl/crypto.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxAnswerBytes = 64u << 10;
constexpr const char* kTokenPath = "/latest/api/token";
constexpr const char* kTokenSeconds = "60"; // it serves the two requests that follow
constexpr const char* kRolePath = "/latest/meta-data/iam/security-credentials/";
constexpr const char* kRegionPath = "/latest/meta-data/placement/region";

// Never through a proxy: it would be the proxy's machine whose identity is asked for.
HttpRequest local_request(std::string url, HttpMethod method, Headers headers) {
    return {.url = std::move(url),
            .headers = std::move(headers),
            .body = {},
            .connect_timeout = 1s,
            .total_timeout = 5s,
            .method = method,
            .max_answer_bytes = kMaxAnswerBytes,
            .no_proxy = true,
            .metadata = MetadataAddresses::allowed};
}

// A role's or a region's name: one line, printable, that can stand in a path.
bool is_name(const std::string& text) {
    return !text.empty() && text.size() <= 256 && std::all_of(text.begin(), text.end(), [](char c) {
        return c > ' ' && c <= '~' && c != '/' && c != '?' && c != '#';
    });
}

std::string first_line(const std::string& text) {
    std::string line = text.substr(0, text.find_first_of("\r\n"));
    line.erase(line.find_last_not_of(" \t") + 1);
    return line;
}

// A session's token, then whatever is asked for with it. There is no way back to version 1, which needs no
// token: a request that can be forged through any open proxy must not yield credentials.
class MetadataConversation : public Conversation {
  public:
    explicit MetadataConversation(InstanceMetadata metadata) : metadata_(std::move(metadata)) {}
    ~MetadataConversation() override { OPENSSL_cleanse(token_.data(), token_.size()); }

    NextStep begin(std::int64_t) override {
        return local_request(metadata_.endpoint + kTokenPath, HttpMethod::put,
                             {{"x-aws-ec2-metadata-token-ttl-seconds", kTokenSeconds}});
    }

    NextStep on(StepResult reply, std::int64_t) override {
        if (const auto* lost = std::get_if<TransportError>(&reply))
            return failed("cannot be reached at " + metadata_.endpoint + ": " + lost->message);
        auto& answer = std::get<HttpAnswer>(reply);
        if (!token_.empty())
            return on_answer(std::move(answer));
        if (answer.status == 403)
            return failed("is switched off for this instance (HTTP 403)", false);
        if (answer.status != 200 || !is_token(first_line(answer.body)))
            return failed("gave no session token: HTTP " + std::to_string(answer.status) +
                          " (version 2 is needed)");
        token_ = first_line(answer.body);
        OPENSSL_cleanse(answer.body.data(), answer.body.size());
        return after_token();
    }

  protected:
    virtual NextStep after_token() = 0;
    virtual NextStep on_answer(HttpAnswer answer) = 0;

    NextStep get(const std::string& path) const {
        return local_request(metadata_.endpoint + path, HttpMethod::get,
                             {{"x-aws-ec2-metadata-token", token_}});
    }

    static FetchFailure failed(const std::string& what, bool is_outage = true) {
        return {"InstanceMetadata", "instance metadata " + what, is_outage};
    }

  private:
    static bool is_token(const std::string& text) {
        return !text.empty() && text.size() <= 4096 && is_printable(text);
    }

    InstanceMetadata metadata_;
    std::string token_;
};

class InstanceCredentials : public MetadataConversation {
  public:
    using MetadataConversation::MetadataConversation;

  private:
    NextStep after_token() override { return get(kRolePath); }

    NextStep on_answer(HttpAnswer answer) override {
        return role_.empty() ? on_role(answer) : on_keys(answer);
    }

    NextStep on_role(const HttpAnswer& answer) {
        if (answer.status == 404)
            return failed("says that this instance has no role", false);
        const std::string role = first_line(answer.body);
        if (answer.status != 200 || !is_name(role))
            return failed("did not name the instance's role: HTTP " + std::to_string(answer.status));
        role_ = role;
        return get(kRolePath + role_);
    }

    NextStep on_keys(HttpAnswer& answer) {
        if (answer.status != 200)
            return failed("gave no credentials of role " + role_ + ": HTTP " + std::to_string(answer.status));
        auto issued = parse_metadata_document(answer.body);
        OPENSSL_cleanse(answer.body.data(), answer.body.size());
        if (!issued.ok())
            return failed("of role " + role_ + " " + issued.error());
        return FoundCredentials{std::move(issued).value(), "role " + role_};
    }

    std::string role_;
};

class InstanceRegion : public MetadataConversation {
  public:
    using MetadataConversation::MetadataConversation;

  private:
    NextStep after_token() override { return get(kRegionPath); }

    NextStep on_answer(HttpAnswer answer) override {
        const std::string region = first_line(answer.body);
        if (answer.status != 200 || !is_region(region))
            return failed("did not name the region: HTTP " + std::to_string(answer.status));
        return FoundRegion{region};
    }
};

class ContainerCredentials : public Conversation {
  public:
    explicit ContainerCredentials(ContainerEndpoint endpoint) : endpoint_(std::move(endpoint)) {}
    ~ContainerCredentials() override { OPENSSL_cleanse(endpoint_.token.data(), endpoint_.token.size()); }

    NextStep begin(std::int64_t) override {
        Headers headers = {{"accept", "application/json"}};
        std::string token = endpoint_.token;
        if (!endpoint_.token_file.empty()) { // EKS Pod Identity: rotated
            auto read = read_token_file(endpoint_.token_file);
            if (!read.ok())
                return failed("token file " + endpoint_.token_file + ": " + read.error().reason);
            token = std::move(read).value();
        } else if (token.find_first_of("\r\n") != token.npos) {
            return failed("token in AWS_CONTAINER_AUTHORIZATION_TOKEN holds a line break", false);
        }
        if (!token.empty())
            headers.emplace_back("authorization", token);
        OPENSSL_cleanse(token.data(), token.size());
        HttpRequest request = local_request(endpoint_.url, HttpMethod::get, std::move(headers));
        request.no_proxy = endpoint_.url.starts_with("http://"); // else it may be anywhere
        return request;
    }

    NextStep on(StepResult reply, std::int64_t) override {
        if (const auto* lost = std::get_if<TransportError>(&reply))
            return failed("cannot be reached: " + lost->message);
        auto& answer = std::get<HttpAnswer>(reply);
        if (answer.status != 200)
            return failed("answered HTTP " + std::to_string(answer.status) +
                              (answer.status == 401 || answer.status == 403
                                   ? ": it does not accept the authorization token"
                                   : ""),
                          answer.status >= 500);
        auto issued = parse_metadata_document(answer.body);
        OPENSSL_cleanse(answer.body.data(), answer.body.size());
        if (!issued.ok())
            return failed("document " + issued.error());
        return FoundCredentials{std::move(issued).value()};
    }

  private:
    FetchFailure failed(const std::string& what, bool is_outage = true) const {
        return {"ContainerCredentials", "container credentials " + what, is_outage};
    }

    ContainerEndpoint endpoint_;
};

} // namespace

std::unique_ptr<Conversation> ask_container_endpoint(ContainerEndpoint endpoint) {
    return std::make_unique<ContainerCredentials>(std::move(endpoint));
}

std::unique_ptr<Conversation> ask_instance_metadata(InstanceMetadata metadata) {
    return std::make_unique<InstanceCredentials>(std::move(metadata));
}

std::unique_ptr<Conversation> ask_instance_region(InstanceMetadata metadata) {
    return std::make_unique<InstanceRegion>(std::move(metadata));
}

} // namespace sqs_ingest
