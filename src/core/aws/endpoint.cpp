#include "core/aws/endpoint.h"

#include "core/text.h"

#include <array>

namespace sqs_ingest {
namespace {

struct Partition {
    std::string_view region_prefix;
    std::string_view suffix;
    std::string_view dual_stack_suffix;
    bool plain_is_fips = false; // GovCloud's ordinary endpoints are its FIPS endpoints
};

// https://github.com/boto/botocore/blob/develop/botocore/data/partitions.json; the last one takes all others.
constexpr std::array<Partition, 8> kPartitions{{
    {"cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"},
    {"us-isob-", "sc2s.sgov.gov", "api.aws.scloud"},
    {"us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"},
    {"us-iso-", "c2s.ic.gov", "api.aws.ic.gov"},
    {"eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"},
    {"eusc-", "amazonaws.eu", "api.amazonwebservices.eu"},
    {"us-gov-", "amazonaws.com", "api.aws", true},
    {"", "amazonaws.com", "api.aws"},
}};

const Partition& partition_of(std::string_view region) {
    for (const Partition& partition : kPartitions)
        if (region.starts_with(partition.region_prefix))
            return partition;
    return kPartitions.back();
}

// us-east-1, us-gov-west-1, mx-central-1: one label, with dashes.
std::optional<std::string> region_label(std::string_view label) {
    if (!is_region(label) || label.find('-') == std::string_view::npos)
        return std::nullopt;
    return std::string(label);
}

// Of a host's labels before a partition's dual-stack suffix.
std::optional<std::string> dual_stack_region_in(std::string_view name) {
    if (remove_prefix(name, "sqs.") || remove_prefix(name, "sqs-fips."))
        return region_label(name);
    return std::nullopt;
}

// The same before the other suffix: there are older forms too.
std::optional<std::string> region_in(std::string_view name) {
    if (remove_suffix(name, ".queue"))
        return region_label(name);
    if (remove_suffix(name, ".vpce")) {
        const std::size_t service = name.find(".sqs.");
        if (!name.starts_with("vpce-") || service == std::string_view::npos)
            return std::nullopt;
        return region_label(name.substr(service + std::string_view(".sqs.").size()));
    }
    return dual_stack_region_in(name);
}

bool remove_domain(std::string_view& host, std::string_view domain) {
    return remove_suffix(host, domain) && remove_suffix(host, ".");
}

} // namespace

std::optional<std::string> region_of_host(std::string_view host) {
    const std::string lower_case = ascii_lower(host);
    if (lower_case == "queue.amazonaws.com")
        return "us-east-1";
    for (const Partition& partition : kPartitions) {
        if (std::string_view name = lower_case; remove_domain(name, partition.dual_stack_suffix))
            return dual_stack_region_in(name);
        if (std::string_view name = lower_case; remove_domain(name, partition.suffix))
            return region_in(name);
    }
    return std::nullopt;
}

Url aws_endpoint(std::string_view service, std::string_view region, EndpointVariant variant) {
    const Partition& partition = partition_of(region);
    std::string host(service);
    const bool fips_host = variant.fips && (variant.dual_stack || !partition.plain_is_fips);
    host.append(fips_host ? "-fips." : ".").append(region).append(".");
    host.append(variant.dual_stack ? partition.dual_stack_suffix : partition.suffix);
    return {.scheme = "https", .host = std::move(host), .port = 0, .path = ""};
}

bool is_standard_sqs_host(const Url& url) {
    return url.scheme == "https" && url.port == 0 && region_of_host(url.host).has_value() &&
           !url.host.starts_with("vpce-");
}

Url sqs_endpoint(const Url& queue, const std::optional<Url>& configured, EndpointVariant variant) {
    if (configured)
        return *configured;
    if ((!variant.fips && !variant.dual_stack) || !is_standard_sqs_host(queue))
        return queue;
    variant.fips |= queue.host.starts_with("sqs-fips.");
    variant.dual_stack |= queue.host.find(".api.") != std::string::npos;
    return aws_endpoint("sqs", *region_of_host(queue.host), variant);
}

} // namespace sqs_ingest
