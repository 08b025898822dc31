// Where credentials will come from, found out without asking anybody: AWS's order of places, over the
// environment and the shared files.
// https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
#pragma once

#include "core/aws/sts.h"
#include "net/aws_config.h"

#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace sqs_ingest {

struct NoCredentials {
    std::string message;     // "no AWS credentials were found", "profile \"x\" has no …"; never a
                             // secret
    std::string detail = {}; // the places looked at, one a line
    std::string code = "NoCredentials"; // for core/sqs/advice.h, which lists the others
};

// The places that credentials can begin at. All compare equal when they would ask the same.

struct StaticKeys { // environment, shared files
    Credentials keys;
    bool operator==(const StaticKeys&) const = default;
};

struct WebIdentity { // AssumeRoleWithWebIdentity; the file is read for each call
    RoleToAssume role;
    std::string token_file;
    bool operator==(const WebIdentity&) const = default;
};

struct CredentialProcess {
    std::string command; // for /bin/sh -c
    bool operator==(const CredentialProcess&) const = default;
};

// Amazon ECS, EKS Pod Identity.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
struct ContainerEndpoint {
    std::string url;
    std::string token;      // of the Authorization header; empty: none
    std::string token_file; // the same, in a file that is read for each call; empty: none
    bool operator==(const ContainerEndpoint&) const = default;
};

// IMDSv2. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
struct InstanceMetadata {
    std::string endpoint; // "http://169.254.169.254", without a slash at its end
    bool operator==(const InstanceMetadata&) const = default;
};

using CredentialsPlace =
    std::variant<StaticKeys, WebIdentity, CredentialProcess, ContainerEndpoint, InstanceMetadata>;

struct CredentialsPlan {
    CredentialsPlace place;
    std::string source;              // for people: "environment", "profile \"x\"", "instance metadata"
    std::vector<RoleToAssume> roles; // assumed one with the other, in this order
    bool last_resort = false;        // nothing is configured anywhere

    bool operator==(const CredentialsPlan&) const = default;
};

// The first place that is configured. One that is configured wrongly is an error, not an invitation to look
// elsewhere. Reads the environment; `config` is as of its last update().
Result<CredentialsPlan, NoCredentials> plan_credentials(const CredentialsOptions& options,
                                                        const AwsConfig& config);

// What to say when no place has credentials, instance metadata neither: `metadata` says why.
NoCredentials no_place_has_credentials(const AwsConfig& config, const std::string& metadata);

// Where instance metadata is asked; empty: AWS_EC2_METADATA_DISABLED is "true". The error is a wrong
// AWS_EC2_METADATA_SERVICE_ENDPOINT or _MODE.
Result<std::optional<InstanceMetadata>, NoCredentials> instance_metadata(const AwsConfig& config);

} // namespace sqs_ingest
