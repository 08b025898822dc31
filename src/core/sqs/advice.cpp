#include "core/sqs/advice.h"

#include <array>
#include <string_view>

namespace sqs_ingest {

namespace {

// Where credentials were looked for decides what can be done.
std::string advice_on_credentials(std::string_view code) {
    struct Advice {
        std::string_view code, text;
    };
    static constexpr std::array<Advice, 10> kAdvice = {{
        {"AssumeRole", "The role's trust policy has to allow sts:AssumeRole to the identity in use (and name "
                       "the same external id), and that identity's own policy has to allow it on the role."},
        {"WebIdentity", "The role's trust policy has to name the token's issuer (its OIDC provider in IAM), "
                        "audience and subject, and the token must not have expired."},
        {"WebIdentityTokenFile", "Check AWS_WEB_IDENTITY_TOKEN_FILE, or the profile's "
                                 "web_identity_token_file, and that the server's user may read that file; it "
                                 "is read again by itself."},
        {"StsUnreachable", "Check that STS can be reached from this machine: the region, "
                           "AWS_ENDPOINT_URL_STS, network, proxy, CA certificates; it is tried again by "
                           "itself."},
        {"CredentialProcess", "Run the profile's credential_process by hand as the server's user, with its "
                              "environment: it has to print a JSON document of Version 1 within 60 s."},
        {"ContainerCredentials", "Check the AWS_CONTAINER_… variables and the token file that they name, and "
                                 "that the ECS or EKS Pod Identity agent runs."},
        {"InstanceMetadata",
         "Check that the instance has a role and that its metadata service is on (version "
         "2; in a container, with a hop limit of 2), or set AWS_EC2_METADATA_DISABLED and "
         "provide other credentials."},
        {"CredentialsProfile", "Correct the profile in the AWS config or credentials file; changed files are "
                               "read again by themselves."},
        {"SsoNotSupported", "Use a role, or let the AWS CLI do it: a profile with credential_process = aws "
                            "configure export-credentials --profile NAME --format process."},
        {"ExpiredCredentials", "Check this machine's clock, and what issues the credentials."},
    }};
    for (const Advice& advice : kAdvice)
        if (advice.code == code)
            return std::string(advice.text);
    if (code == "BadEndpointUrl")
        return "Correct AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL or the profile's endpoint_url.";
    if (code == "NoRegion")
        return "Set the pipeline's region or sqs_ingest.region, like 'us-east-1', or AWS_REGION in the "
               "server's environment.";
    return "Provide AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the server's environment, a shared "
           "credentials file (sqs_ingest.aws_credentials_file, sqs_ingest.aws_profile), or a role of the "
           "instance or container. Changed files are read again by themselves.";
}

} // namespace

std::string advice(const ApiError& error) {
    switch (error.error_class) {
    case ErrorClass::throttle:
        return "AWS limits the request rate; ingestion slows down by itself.";
    case ErrorClass::over_limit:
        return "Too many messages of the queue are in flight; ingestion waits until some are deleted.";
    case ErrorClass::receipt:
        return "The message went back to the queue and will be received again.";
    case ErrorClass::clock:
        return "Check the AWS secret access key, the region (sqs_ingest.region) and this machine's clock.";
    case ErrorClass::credentials:
        return advice_on_credentials(error.code);
    case ErrorClass::configuration:
        if (error.code == "QueueDoesNotExist" || error.code == "InvalidAddress")
            return "Check queue_url, endpoint_url and region of the pipeline, or sqs_ingest.queue_url, "
                   "sqs_ingest.endpoint_url and sqs_ingest.region, or create the queue.";
        if (error.code == "ProtocolMismatch")
            return "Set the pipeline's protocol to 'auto', which finds out what the server knows: some "
                   "emulators "
                   "of SQS know only one of its two protocols.";
        if (error.code == "NoRegion")
            return "Set the pipeline's region or sqs_ingest.region, like 'us-east-1', or AWS_REGION in the "
                   "server's "
                   "environment.";
        if (error.code.rfind("AccessDenied", 0) == 0)
            return "Allow sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility and "
                   "sqs:GetQueueAttributes on this queue to the identity that the server uses.";
        if (error.code.rfind("Kms", 0) == 0)
            return "Allow kms:Decrypt on the queue's key, and check that the key is enabled.";
        if (error.code == "BadEndpointUrl")
            return "Correct AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_SQS or endpoint_url of the profile.";
        return "Check queue_url and endpoint_url of the pipeline, or sqs_ingest.queue_url and "
               "sqs_ingest.endpoint_url.";
    case ErrorClass::transient:
        break;
    }
    if (error.http_status == 0)
        return "Check that the endpoint can be reached from this machine (sqs_ingest.endpoint_url, "
               "sqs_ingest.queue_url, network, proxy); it is tried again by itself.";
    return "The server could not answer; it is tried again by itself.";
}

} // namespace sqs_ingest
