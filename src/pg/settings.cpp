#include "pg/settings.h"

#include "core/sqs/url.h"
#include "pg/guard.h"

namespace sqs_ingest::pg {

namespace {

bool enabled = true;
char* queue_url = nullptr;
char* endpoint_url = nullptr;
char* region = nullptr;
char* aws_profile = nullptr;
char* aws_config_file = nullptr;
char* aws_credentials_file = nullptr;
char* ca_file = nullptr;
char* mask_method = nullptr;
char* mask_keyring = nullptr;
int worker_slots = 8;

// Check hooks run in the postmaster too, and inside guc.c's C frames: nothing may be thrown through them.
bool accept(char** value, std::string (*objection)(std::string_view)) {
    char why[256] = "";
    try {
        if (**value)
            strlcpy(why, objection(*value).c_str(), sizeof why);
    } catch (...) {
        strlcpy(why, "it could not be checked: out of memory", sizeof why);
    }
    if (!why[0])
        return true;
    GUC_check_errdetail("%s", why);
    return false;
}

std::string url_objection(std::string_view text) {
    auto url = parse_url(text);
    return url.ok() ? std::string() : "The URL " + url.error() + ".";
}

std::string method_objection(std::string_view text) {
    return parse_mask_method(text) ? ""
                                   : "Valid methods are \"hmac\", \"siv\", \"sha256\", \"sha256:N\" with N "
                                     "from 1 to 64, and \"md5\".";
}

std::string region_objection(std::string_view text) {
    return is_region(text) ? "" : kRegionHint;
}

extern "C" {
static bool check_url(char** value, void**, GucSource) {
    return accept(value, url_objection);
}
static bool check_method(char** value, void**, GucSource) {
    if (!**value) {
        GUC_check_errdetail("The masking method must not be empty.");
        GUC_check_errhint("Valid methods are \"hmac\", \"siv\", \"sha256\", \"sha256:N\" and \"md5\".");
        return false;
    }
    return accept(value, method_objection);
}
static bool check_region(char** value, void**, GucSource) {
    return accept(value, region_objection);
}
}

void define_string(const char* name, char** variable, const char* value, const char* summary,
                   const char* detail, GucStringCheckHook check, int flags = 0) {
    DefineCustomStringVariable(name, summary, detail, variable, value, PGC_SIGHUP, flags, check, nullptr,
                               nullptr);
}

std::string text_of(const char* value) {
    return value ? value : "";
}

} // namespace

void define_settings(bool preloading) {
    DefineCustomBoolVariable("sqs_ingest.enabled", "Whether pipelines run at all in this cluster.",
                             "Off stops every worker at once; nothing is forgotten.", &enabled, true,
                             PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
    define_string("sqs_ingest.queue_url", &queue_url, "", "URL of the SQS queue of pipelines that name none.",
                  nullptr, check_url);
    define_string("sqs_ingest.endpoint_url", &endpoint_url, "", "Where SQS requests go.",
                  "Empty means AWS_ENDPOINT_URL_SQS, AWS_ENDPOINT_URL, the profile's, or the queue URL's own "
                  "host, in this order.",
                  check_url);
    define_string("sqs_ingest.region", &region, "", "AWS region that requests are signed for.",
                  "Empty means the queue URL's host, AWS_REGION, AWS_DEFAULT_REGION, the profile, or the "
                  "instance, in this "
                  "order.",
                  check_region);
    define_string("sqs_ingest.aws_profile", &aws_profile, "", "Profile in the AWS shared files.",
                  "Empty means AWS_PROFILE, else \"default\".", nullptr);
    define_string("sqs_ingest.aws_config_file", &aws_config_file, "", "Path of the AWS config file.",
                  "Empty means AWS_CONFIG_FILE, else ~/.aws/config of the server's user.", nullptr,
                  GUC_SUPERUSER_ONLY);
    define_string("sqs_ingest.aws_credentials_file", &aws_credentials_file, "",
                  "Path of the AWS credentials file.",
                  "Empty means AWS_SHARED_CREDENTIALS_FILE, else ~/.aws/credentials of the server's user.",
                  nullptr, GUC_SUPERUSER_ONLY);
    define_string("sqs_ingest.ca_file", &ca_file, "",
                  "Path of the CA certificates that TLS servers are checked with.",
                  "Empty means AWS_CA_BUNDLE, the profile's ca_bundle, or the system's, in this order.",
                  nullptr, GUC_SUPERUSER_ONLY);
    define_string("sqs_ingest.mask_method", &mask_method, "hmac",
                  "Masking method of mask() and of new pipelines.",
                  "One of hmac, siv, sha256, sha256:N, md5.", check_method);
    define_string("sqs_ingest.mask_keyring", &mask_keyring, "", "Path of the file with the masking keys.",
                  "Empty means sqs_ingest.keyring beside postgresql.conf.", nullptr, GUC_SUPERUSER_ONLY);
    // Sizes shared memory, so only the postmaster can declare it.
    if (preloading)
        DefineCustomIntVariable("sqs_ingest.max_workers",
                                "Ingestion workers that can run at once in this cluster.",
                                "Each takes one of max_worker_processes.", &worker_slots, 8, 1, 64,
                                PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);
    // Without preloading sqs_ingest.max_workers is unknown here, and reserving the prefix would warn about
    // it.
    if (preloading)
        MarkGUCPrefixReserved("sqs_ingest");
}

Settings current_settings() {
    Settings settings;
    settings.enabled = enabled;
    settings.queue_url = text_of(queue_url);
    settings.endpoint_url = text_of(endpoint_url);
    settings.region = text_of(region);
    settings.mask_method = parse_mask_method(text_of(mask_method)).value_or(MaskMethod{});
    settings.credentials = {text_of(aws_profile), text_of(aws_config_file), text_of(aws_credentials_file)};
    settings.http.ca_file = text_of(ca_file);
    return settings;
}

int max_workers() {
    return worker_slots;
}
bool ingest_enabled() {
    return enabled;
}

std::string keyring_path() {
    if (mask_keyring && *mask_keyring)
        return mask_keyring;
    const std::string config = text_of(ConfigFileName);
    const auto slash = config.rfind('/');
    return (slash == std::string::npos ? std::string(".") : config.substr(0, slash)) + "/sqs_ingest.keyring";
}

} // namespace sqs_ingest::pg
