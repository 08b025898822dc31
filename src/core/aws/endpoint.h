// The hosts of AWS's services: standard, FIPS and dual-stack, in every partition.
// https://docs.aws.amazon.com/general/latest/gr/sqs-service.html
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-endpoints.html
#pragma once

#include "core/sqs/url.h"

#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

// AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT, or the profile's keys.
struct EndpointVariant {
    bool fips = false;
    bool dual_stack = false;
};

// https://sqs.<region>.amazonaws.com, sqs-fips.<region>.amazonaws.com, sqs.<region>.api.aws,
// sqs-fips.<region>.api.aws; of a Chinese region amazonaws.com.cn and api.amazonwebservices.com.cn; and of
// the isolated partitions their own suffixes. `service` is the host's first label: "sqs", "sts".
Url aws_endpoint(std::string_view service, std::string_view region, EndpointVariant variant = {});

// The region inside an AWS SQS host name, of any partition: sqs.<region>.amazonaws.com, the legacy
// <region>.queue.amazonaws.com, sqs-fips.<region>.amazonaws.com, sqs.<region>.api.aws, and VPC endpoints
// vpce-….sqs.<region>.vpce.amazonaws.com; queue.amazonaws.com is us-east-1. Empty for any other host.
std::optional<std::string> region_of_host(std::string_view host);

// A queue's own host, of which another variant can stand in: sqs.<region>.amazonaws.com[.cn], its FIPS and
// dual-stack variants and the legacy names, all https. Not VPC endpoints, nor what is not AWS's.
bool is_standard_sqs_host(const Url& url);

// Where SQS requests go: `configured` (a setting, AWS_ENDPOINT_URL_SQS, …) if there is one, else the variant
// of the queue's own host, which keeps what that host says itself, else that host.
Url sqs_endpoint(const Url& queue, const std::optional<Url>& configured, EndpointVariant variant);

} // namespace sqs_ingest
