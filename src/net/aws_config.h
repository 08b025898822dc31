// What AWS's environment variables and shared files say, under AWS's names.
// https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
#pragma once

#include "core/aws/endpoint.h"
#include "core/result.h"
#include "net/profile_file.h"
#include "net/watched_file.h"

#include <optional>
#include <string>
#include <vector>

namespace sqs_ingest {

// Overrides from settings; empty: AWS's environment variable, else AWS's default.
struct CredentialsOptions {
    std::string profile = {};          // else AWS_PROFILE, else "default"
    std::string config_file = {};      // else AWS_CONFIG_FILE, else ~/.aws/config
    std::string credentials_file = {}; // else AWS_SHARED_CREDENTIALS_FILE, else ~/.aws/credentials

    // A role to assume with whatever credentials the chain finds; empty: none.
    std::string role_arn = {};
    std::string external_id = {};  // empty: none
    std::string session_name = {}; // of that role, and of roles that name none; empty: "sqs_ingest"

    // The region of STS; empty: AWS_REGION, AWS_DEFAULT_REGION, the profile's, else the instance's.
    std::string region = {};

    bool operator==(const CredentialsOptions&) const = default;
};

// An empty variable counts as unset, as for AWS's own tools.
std::string environment(const char* name);

// One shared file, as profiles, read again when it has changed (watched_file.h).
class SharedFile {
  public:
    // `prefix` is what the file's section names have before a profile's name, except for "default".
    SharedFile(std::string path, std::string prefix) : file_(std::move(path)), prefix_(std::move(prefix)) {}
    ~SharedFile() { cleanse(); }

    void update(Moment now);
    void forget() { file_.forget(); }

    const std::string& path() const { return file_.path(); }
    const std::string& error() const { return file_.error(); } // why it could not be read, else empty

    const Profile* profile(const std::string& name) const;
    const Profile* section(const std::string& name) const;

  private:
    void cleanse();

    WatchedFile file_;
    std::string prefix_;
    ProfileFile sections_;
};

class AwsConfig {
  public:
    explicit AwsConfig(const CredentialsOptions& options);

    // Looks whether the files have changed. Everything below speaks of how they were then.
    void update(Moment now);
    // The next update() reads them again, whatever their time says.
    void forget();

    const std::string& profile_name() const { return profile_; }
    bool profile_is_named() const { return profile_is_named_; } // by the options or AWS_PROFILE
    bool uses_environment() const { return uses_environment_; } // for credentials: no profile in the options

    const SharedFile& credentials_file() const { return credentials_file_; }
    const SharedFile& config_file() const { return config_file_; }
    bool has_profile(const std::string& name) const;
    // A key of a profile, the credentials file before the config file; empty: it has none.
    std::string profile_value(const std::string& profile, const std::string& key) const;

    // The variable if it is set, else the profile's key.
    std::string setting(const char* variable, const std::string& key) const;
    // "true" in any case.
    bool flag(const char* variable, const std::string& key) const;
    static bool flag(const char* variable); // that no profile has a key for

    std::string region() const;    // AWS_REGION, AWS_DEFAULT_REGION, region
    std::string ca_bundle() const; // AWS_CA_BUNDLE, ca_bundle
    EndpointVariant endpoint_variant() const;

    struct EndpointSetting {
        std::string url;
        std::string where; // "AWS_ENDPOINT_URL_SQS", "endpoint_url of profile \"x\""
    };
    // Of a service ("sqs", "sts"): AWS_ENDPOINT_URL_<SERVICE>, AWS_ENDPOINT_URL, the profile's `services`
    // section, its endpoint_url; nothing when AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is true.
    // https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    std::optional<EndpointSetting> endpoint_setting(const std::string& service) const;
    // The same, parsed. The error is a sentence for people.
    Result<std::optional<Url>, std::string> endpoint_url(const std::string& service) const;

  private:
    bool uses_environment_;
    bool profile_is_named_;
    std::string profile_;
    SharedFile credentials_file_;
    SharedFile config_file_;
};

std::string quoted_profile(const std::string& name); // profile "x"

} // namespace sqs_ingest
