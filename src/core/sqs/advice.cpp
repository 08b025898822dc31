#include "core/sqs/advice.h"

namespace sqs_ingest {

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
        return "Provide AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the server's environment, or a shared "
               "credentials file (sqs_ingest.aws_credentials_file, sqs_ingest.aws_profile). Changed files "
               "are read "
               "again by themselves.";
    case ErrorClass::configuration:
        if (error.code == "QueueDoesNotExist" || error.code == "InvalidAddress")
            return "Check sqs_ingest.queue_url, sqs_ingest.endpoint_url and the region, or create the queue.";
        if (error.code == "NoRegion")
            return "Set sqs_ingest.region, like sqs_ingest.region = 'us-east-1', or AWS_REGION in the "
                   "server's "
                   "environment.";
        if (error.code.rfind("AccessDenied", 0) == 0)
            return "Allow sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility and "
                   "sqs:GetQueueAttributes on this queue to the identity that the server uses.";
        if (error.code.rfind("Kms", 0) == 0)
            return "Allow kms:Decrypt on the queue's key, and check that the key is enabled.";
        return "Check sqs_ingest.queue_url and sqs_ingest.endpoint_url.";
    case ErrorClass::transient:
        break;
    }
    if (error.http_status == 0)
        return "Check that the endpoint can be reached from this machine (sqs_ingest.endpoint_url, "
               "sqs_ingest.queue_url, network, proxy); it is tried again by itself.";
    return "The server could not answer; it is tried again by itself.";
}

} // namespace sqs_ingest
