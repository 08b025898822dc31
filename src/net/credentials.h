// AWS credentials and region from where AWS's own tools look for them.
// https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
#pragma once

#include "core/result.h"
#include "core/sqs/sigv4.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace sqs_ingest {

// Overrides from settings; empty: AWS's environment variable, else AWS's default.
struct CredentialsOptions {
    std::string profile;          // else AWS_PROFILE, else "default"
    std::string config_file;      // else AWS_CONFIG_FILE, else ~/.aws/config
    std::string credentials_file; // else AWS_SHARED_CREDENTIALS_FILE, else ~/.aws/credentials
};

struct NoCredentials {
    std::string message; // "no AWS credentials were found", "profile \"x\" has no aws_secret_access_key";
                         // never a secret
    std::string detail;  // the places looked at, one a line
};

// The chain: environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), unless a profile is
// named in the options; then the shared credentials file, then the config file ([profile x], [default]).
// Files are read again when their identity, size or time changes.
class CredentialsChain {
  public:
    explicit CredentialsChain(CredentialsOptions options);
    ~CredentialsChain();

    Result<Credentials, NoCredentials> get();

    // Reads the files again at the next get(), whatever their time says: after the server refused the
    // credentials.
    void refresh();

    // AWS_REGION, AWS_DEFAULT_REGION, or the profile's region.
    std::optional<std::string> region();

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

// An AWS shared file: sections of `key = value` lines, `#` and `;` comments, nested blocks skipped.
// Section names as written without the brackets: "default", "profile x".
using ProfileFile = std::map<std::string, std::map<std::string, std::string>>;
ProfileFile parse_profile_file(std::string_view text);

} // namespace sqs_ingest
