// AssumeRole and AssumeRoleWithWebIdentity.
#include "net/credentials/conversation.h"
#include "net/credentials/token_file.h"
#include "net/signed_request.h"

#include <openssl/crypto.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;

constexpr auto kAnswerTimeout = 10s;
constexpr std::size_t kMaxAnswerBytes = 64u << 10;
constexpr const char* kFormType = "application/x-www-form-urlencoded; charset=utf-8";

HttpRequest with_limits(HttpRequest request) {
    request.total_timeout = kAnswerTimeout;
    request.max_answer_bytes = kMaxAnswerBytes;
    return request;
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

// What STS issued, and what its clock says; the answer's secrets are wiped.
Result<IssuedCredentials, ApiError> issued_by(HttpAnswer& answer, ClockSkew& skew, std::int64_t now_ms) {
    skew.learn(answer.date, now_ms);
    auto issued = decode_assumed_role(answer.status, answer.body);
    OPENSSL_cleanse(answer.body.data(), answer.body.size());
    return issued;
}

class AssumeRole : public Conversation {
  public:
    AssumeRole(RoleToAssume role, Credentials source, StsEndpoint sts, ClockSkew& skew)
        : role_(std::move(role)), source_(std::move(source)), sts_(std::move(sts)), skew_(skew) {}

    NextStep begin(std::int64_t now_ms) override {
        const std::string date = format_amz_date(skew_.signing_ms(now_ms, clock_was_refused_) / 1000);
        return with_limits(signed_request({"/", kFormType, "", encode_assume_role(role_)}, sts_.url, source_,
                                          {sts_.region, "sts", date}));
    }

    NextStep on(StepResult reply, std::int64_t now_ms) override {
        if (const auto* lost = std::get_if<TransportError>(&reply))
            return unreachable(role_, sts_, *lost);
        auto issued = issued_by(std::get<HttpAnswer>(reply), skew_, now_ms);
        if (issued.ok())
            return FoundCredentials{std::move(issued).value()};
        if (issued.error().error_class == ErrorClass::clock && !clock_was_refused_) {
            clock_was_refused_ = true; // once more, dated by the server's clock
            return begin(now_ms);
        }
        return failure(role_, issued.error(), "AssumeRole");
    }

  private:
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
            with_limits({.url = sts_.url.origin() + "/",
                         .headers = {{"content-type", kFormType}},
                         .body = encode_assume_role_with_web_identity(identity_.role, token.value())});
        OPENSSL_cleanse(token.value().data(), token.value().size());
        return request;
    }

    NextStep on(StepResult reply, std::int64_t now_ms) override {
        if (const auto* lost = std::get_if<TransportError>(&reply))
            return unreachable(identity_.role, sts_, *lost);
        auto issued = issued_by(std::get<HttpAnswer>(reply), skew_, now_ms);
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
