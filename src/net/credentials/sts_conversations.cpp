// AssumeRole and AssumeRoleWithWebIdentity.
#include "core/sqs/sigv4.h"
#include "net/credentials/conversation.h"
#include "net/credentials/token_file.h"

#include <openssl/crypto.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;

constexpr auto kAnswerTimeout = 10s;
constexpr std::size_t kMaxAnswerBytes = 64u << 10;
constexpr const char* kFormType = "application/x-www-form-urlencoded; charset=utf-8";

HttpRequest sts_request(const StsEndpoint& sts, Headers headers, std::string body) {
    return {.url = sts.url.origin() + "/",
            .headers = std::move(headers),
            .body = std::move(body),
            .connect_timeout = 5s,
            .total_timeout = kAnswerTimeout,
            .max_answer_bytes = kMaxAnswerBytes};
}

// "assuming role arn:…: AccessDenied: User … is not authorized …"
FetchFailure failure(const RoleToAssume& role, const ApiError& error, std::string code) {
    std::string message = "role " + role.role_arn + " could not be assumed: " + error.code;
    if (!error.message.empty())
        message += ": " + error.message;
    return {std::move(code), std::move(message),
            error.error_class == ErrorClass::transient || error.error_class == ErrorClass::throttle};
}

FetchFailure unreachable(const RoleToAssume& role, const StsEndpoint& sts, const TransportError& error) {
    return {"StsUnreachable", "role " + role.role_arn + " could not be assumed: STS at " + sts.url.origin() +
                                  ": " + error.message};
}

class AssumeRole : public Conversation {
  public:
    AssumeRole(RoleToAssume role, Credentials source, StsEndpoint sts, ClockSkew& skew)
        : role_(std::move(role)), source_(std::move(source)), sts_(std::move(sts)), skew_(skew) {}

    NextStep begin(std::int64_t now_ms) override {
        return signed_request(skew_.signing_ms(now_ms, clock_was_refused_));
    }

    NextStep on(StepResult reply, std::int64_t now_ms) override {
        if (const auto* lost = std::get_if<TransportError>(&reply))
            return unreachable(role_, sts_, *lost);
        auto& answer = std::get<HttpAnswer>(reply);
        skew_.learn(answer.date, now_ms);
        auto issued = decode_assumed_role(answer.status, answer.body);
        OPENSSL_cleanse(answer.body.data(), answer.body.size());
        if (issued.ok())
            return FoundCredentials{std::move(issued).value()};
        if (issued.error().error_class == ErrorClass::clock && !clock_was_refused_) {
            clock_was_refused_ = true; // once more, dated by the server's clock
            return begin(now_ms);
        }
        return failure(role_, issued.error(), "AssumeRole");
    }

  private:
    NextStep signed_request(std::int64_t unix_ms) const {
        const std::string amz_date = format_amz_date(unix_ms / 1000);
        const std::string body = encode_assume_role(role_);
        Headers headers = {{"content-type", kFormType}, {"x-amz-date", amz_date}};
        if (!source_.session_token.empty())
            headers.emplace_back("x-amz-security-token", source_.session_token);
        RequestToSign to_sign{"POST", "/", "", headers, body};
        to_sign.headers.emplace_back("host", sts_.url.host_header());
        headers.emplace_back("Authorization",
                             authorization_header(to_sign, source_, {sts_.region, "sts", amz_date}));
        return sts_request(sts_, std::move(headers), body);
    }

    RoleToAssume role_;
    Credentials source_;
    StsEndpoint sts_;
    ClockSkew& skew_;
    bool clock_was_refused_ = false;
};

class AssumeRoleWithWebIdentity : public Conversation {
  public:
    AssumeRoleWithWebIdentity(WebIdentity identity, StsEndpoint sts, ClockSkew& skew)
        : identity_(std::move(identity)), sts_(std::move(sts)), skew_(skew) {}

    NextStep begin(std::int64_t) override {
        auto token = read_token_file(identity_.token_file);
        if (!token.ok())
            return FetchFailure{"WebIdentityTokenFile", "web identity token file " + identity_.token_file +
                                                            ": " + token.error().reason};
        HttpRequest request =
            sts_request(sts_, {{"content-type", kFormType}},
                        encode_assume_role_with_web_identity(identity_.role, token.value()));
        OPENSSL_cleanse(token.value().data(), token.value().size());
        return request;
    }

    NextStep on(StepResult reply, std::int64_t now_ms) override {
        if (const auto* lost = std::get_if<TransportError>(&reply))
            return unreachable(identity_.role, sts_, *lost);
        auto& answer = std::get<HttpAnswer>(reply);
        skew_.learn(answer.date, now_ms);
        auto issued = decode_assumed_role(answer.status, answer.body);
        OPENSSL_cleanse(answer.body.data(), answer.body.size());
        if (issued.ok())
            return FoundCredentials{std::move(issued).value()};
        return failure(identity_.role, issued.error(), "WebIdentity");
    }

  private:
    WebIdentity identity_;
    StsEndpoint sts_;
    ClockSkew& skew_;
};

} // namespace

std::unique_ptr<Conversation> assume_role(RoleToAssume role, Credentials source, StsEndpoint sts,
                                          ClockSkew& skew) {
    return std::make_unique<AssumeRole>(std::move(role), std::move(source), std::move(sts), skew);
}

std::unique_ptr<Conversation> assume_role_with_web_identity(WebIdentity identity, StsEndpoint sts,
                                                            ClockSkew& skew) {
    return std::make_unique<AssumeRoleWithWebIdentity>(std::move(identity), std::move(sts), skew);
}

} // namespace sqs_ingest
