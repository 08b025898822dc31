// AWS credentials and region from where AWS's own tools look for them, without ever waiting.
// https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
//
//   get() ── plan.h: which place, without asking ──▶ static keys: at once
//                                                 └▶ errand.h: a conversation with STS, instance metadata,
//                                                    a container endpoint or a process ──▶ kept until they
//                                                    expire, fetched again ahead of that
//                                                    (core/policy/refresh.h)
//
// The order: environment (unless a profile is named in the options), web identity of the environment, the
// profile (role_arn with source_profile, credential_source or web_identity_token_file; keys of the
// credentials file, of the config file; credential_process), container endpoint, instance metadata. The first
// that is configured counts, and its failure is the chain's. SSO is not supported.
#pragma once

#include "core/sqs/sigv4.h"
#include "net/aws_config.h"
#include "net/credentials/plan.h"
#include "net/http.h"
#include "net/moment.h"

#include <memory>
#include <optional>
#include <string>
#include <variant>

namespace sqs_ingest {

struct BeingFetched {};
struct NoRegion {
    std::string message; // "no AWS region is configured", and what instance metadata had to say
};

class CredentialsChain {
  public:
    // The loop outlives the chain, and its owner hands it what ended: take() and advance() after each
    // HttpLoop::advance().
    CredentialsChain(CredentialsOptions options, HttpLoop& http);
    ~CredentialsChain();

    // Credentials that are good now. Otherwise they are being fetched from now on, or there are none: then
    // the reason, and after a failure nothing is asked again before a pause (1 s to 60 s, with jitter) is
    // over. Shared files are read again when their identity, size or time changes, and they have
    // rested since; a change of what is configured discards what was fetched.
    //
    // Credentials of instance metadata are used beyond their end when newer ones cannot be had because the
    // service is down ("static stability"): EC2 extends them then.
    std::variant<Credentials, BeingFetched, NoCredentials> get(Moment now);

    // The options' region, AWS_REGION, AWS_DEFAULT_REGION, the profile's, else the instance's own.
    std::variant<std::string, BeingFetched, NoRegion> region(Moment now);

    // True: the transfer was the chain's.
    bool take(Completed& completed, Moment now);
    void advance(Moment now);
    // When advance() is due even if no transfer ends.
    std::optional<std::chrono::steady_clock::time_point> next_look() const;

    // AWS refused a request signed with this key: newer credentials are fetched at the next get(), and files
    // read again whatever their time says. Not at once when that has just been done: refusals in a row are
    // up to a minute apart.
    void refused(const std::string& access_key_id, Moment now);

    // Where the credentials in use come from, for people: "environment", "profile \"x\"", "instance metadata,
    // role y", "role arn:…, assumed with …"; and why they could not be renewed, while that is so. Empty:
    // there are none yet.
    std::string source() const;
    // Milliseconds since 1970, by this machine's clock; empty: they do not expire, or there are none.
    std::optional<std::int64_t> expires_at_ms() const;
    // Why credentials could not be fetched the last time they were; also while older ones are still good.
    std::optional<NoCredentials> trouble() const;

    const AwsConfig& config() const;

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace sqs_ingest
