// What a person can do about an SQS error, in a sentence.
#pragma once

#include "core/sqs/error.h"

#include <string>

namespace sqs_ingest {

// A hint that names the settings to look at; never empty. Of class credentials it knows AWS's codes and those
// of the places that credentials come from: AssumeRole, WebIdentity, WebIdentityTokenFile, StsUnreachable,
// CredentialProcess, ContainerCredentials, InstanceMetadata, CredentialsProfile, SsoNotSupported,
// ExpiredCredentials, NoRegion, BadEndpointUrl, NoCredentials.
std::string advice(const ApiError& error);

} // namespace sqs_ingest
