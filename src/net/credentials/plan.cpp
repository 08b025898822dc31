#include "net/credentials/plan.h"

#include <algorithm>
#include <charconv>
#include <set>

namespace sqs_ingest {
namespace {

using Planned = Result<CredentialsPlan, NoCredentials>;
// What one place has to say; empty: it is not configured, the next place is asked.
using Finding = std::optional<Planned>;

NoCredentials mistake(std::string message, std::string detail = "", std::string code = "CredentialsProfile") {
    return {std::move(message), std::move(detail), std::move(code)};
}

std::string default_session_name(const CredentialsOptions& options) {
    return role_session_name(options.session_name.empty() ? "sqs_ingest" : options.session_name);
}

// --- environment

Finding environment_keys() {
    Credentials found{environment("AWS_ACCESS_KEY_ID"), environment("AWS_SECRET_ACCESS_KEY"),
                      environment("AWS_SESSION_TOKEN")};
    if (found.access_key_id.empty())
        return std::nullopt;
    if (found.secret_access_key.empty())
        return NoCredentials{"AWS_ACCESS_KEY_ID is set but AWS_SECRET_ACCESS_KEY is not", "the environment"};
    if (!fit_in_headers(found))
        return mistake("AWS_ACCESS_KEY_ID or AWS_SESSION_TOKEN has characters that no HTTP header can hold",
                       "the environment");
    return CredentialsPlan{StaticKeys{found}, "environment", {}};
}

Finding environment_web_identity(const CredentialsOptions& options) {
    const std::string file = environment("AWS_WEB_IDENTITY_TOKEN_FILE");
    const std::string role = environment("AWS_ROLE_ARN");
    if (file.empty())
        return std::nullopt;
    if (role.empty())
        return mistake("AWS_WEB_IDENTITY_TOKEN_FILE is set but AWS_ROLE_ARN is not", "the environment");
    const std::string name = environment("AWS_ROLE_SESSION_NAME");
    return CredentialsPlan{
        WebIdentity{{role, name.empty() ? default_session_name(options) : role_session_name(name)}, file},
        "role " + role + " with the web identity token in " + file,
        {}};
}

// --- container endpoint

constexpr std::string_view kEcsHost = "http://169.254.170.2";

// A token must not travel in the clear but to this machine and to the container agents of ECS and EKS.
bool may_be_plain(const std::string& host) {
    return host == "localhost" || host == "169.254.170.2" || host == "169.254.170.23" ||
           host == "[fd00:ec2::23]" || host == "[::1]" ||
           (host.starts_with("127.") && host.find_first_not_of("0123456789.") == host.npos);
}

// A query, which parse_url() refuses, has a place in these URLs.
Result<Url, std::string> parse_container_url(const std::string& url) {
    return parse_url(url.substr(0, url.find('?')));
}

Finding container_endpoint() {
    const std::string relative = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const std::string full = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if (relative.empty() && full.empty())
        return std::nullopt;
    const char* const variable =
        relative.empty() ? "AWS_CONTAINER_CREDENTIALS_FULL_URI" : "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
    const std::string url = relative.empty() ? full : std::string(kEcsHost) + relative;
    if (!relative.empty() && !relative.starts_with('/'))
        return mistake(std::string(variable) + " does not begin with a slash", "the environment",
                       "ContainerCredentials");
    const auto parsed = parse_container_url(url);
    if (!parsed.ok())
        return mistake(std::string(variable) + " " + parsed.error(), "the environment",
                       "ContainerCredentials");
    if (parsed.value().scheme != "https" && !may_be_plain(parsed.value().host))
        return mistake(std::string(variable) +
                           " is neither https nor a loopback or container agent's address (169.254.170.2, "
                           "169.254.170.23, [fd00:ec2::23])",
                       "the environment", "ContainerCredentials");
    return CredentialsPlan{ContainerEndpoint{url, environment("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
                                             environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")},
                           "container endpoint " + parsed.value().origin(),
                           {}};
}

// --- instance metadata

Finding instance_metadata_place(const AwsConfig& config) {
    auto metadata = instance_metadata(config);
    if (!metadata.ok())
        return std::move(metadata).error();
    if (!metadata.value())
        return std::nullopt;
    return CredentialsPlan{*metadata.value(), "instance metadata", {}};
}

// --- profiles

class ProfilePlanner {
  public:
    ProfilePlanner(const CredentialsOptions& options, const AwsConfig& config)
        : options_(options), config_(config) {}

    Finding plan(const std::string& profile) {
        visited_.insert(profile);
        const std::string role = value(profile, "role_arn");
        if (!role.empty() && !value(profile, "web_identity_token_file").empty())
            return web_identity(profile, role);
        if (!role.empty())
            return assumed_role(profile, role);
        return without_role(profile);
    }

  private:
    std::string value(const std::string& profile, const char* key) const {
        return config_.profile_value(profile, key);
    }

    // Keys of one file, never an id of one and the secret of the other; half a pair is a mistake.
    static Finding keys_of(const SharedFile& file, const std::string& name) {
        const Profile* profile = file.profile(name);
        Credentials found{value_of(profile, "aws_access_key_id"), value_of(profile, "aws_secret_access_key"),
                          value_of(profile, "aws_session_token")};
        if (found.access_key_id.empty() && found.secret_access_key.empty())
            return std::nullopt;
        if (found.access_key_id.empty() || found.secret_access_key.empty())
            return NoCredentials{
                quoted_profile(name) + " has no " +
                    (found.access_key_id.empty() ? "aws_access_key_id" : "aws_secret_access_key"),
                file.path()};
        if (!fit_in_headers(found))
            return mistake(quoted_profile(name) + " has characters in its aws_access_key_id or "
                                                  "aws_session_token that no HTTP header can hold",
                           file.path());
        return CredentialsPlan{StaticKeys{found}, quoted_profile(name), {}};
    }

    Finding static_keys(const std::string& profile) const {
        for (const SharedFile* file : {&config_.credentials_file(), &config_.config_file()})
            if (Finding found = keys_of(*file, profile))
                return found;
        return std::nullopt;
    }

    Finding without_role(const std::string& profile) const {
        for (const char* key : {"sso_session", "sso_start_url", "login_session"})
            if (!value(profile, key).empty())
                return mistake(quoted_profile(profile) + " uses " + key + ", which is not supported", "",
                               "SsoNotSupported");
        if (Finding found = static_keys(profile))
            return found;
        if (std::string command = value(profile, "credential_process"); !command.empty())
            return CredentialsPlan{CredentialProcess{std::move(command)},
                                   "credential_process of " + quoted_profile(profile),
                                   {}};
        return std::nullopt;
    }

    Result<RoleToAssume, NoCredentials> role_of(const std::string& profile, const std::string& role) const {
        const std::string name = value(profile, "role_session_name");
        RoleToAssume found{role, name.empty() ? default_session_name(options_) : role_session_name(name),
                           value(profile, "external_id")};
        const std::string duration = value(profile, "duration_seconds");
        if (duration.empty())
            return found;
        int seconds = 0;
        const char* end = duration.data() + duration.size();
        const auto [parsed_to, error] = std::from_chars(duration.data(), end, seconds);
        if (error != std::errc{} || parsed_to != end || seconds < 900 || seconds > 43200)
            return mistake(quoted_profile(profile) +
                           " has a duration_seconds that is no number from 900 to 43200");
        found.duration_seconds = seconds;
        return found;
    }

    Finding web_identity(const std::string& profile, const std::string& role) const {
        auto found = role_of(profile, role);
        if (!found.ok())
            return std::move(found).error();
        return CredentialsPlan{
            WebIdentity{std::move(found).value(), value(profile, "web_identity_token_file")},
            "role " + role + " with the web identity token of " + quoted_profile(profile),
            {}};
    }

    Finding assumed_role(const std::string& profile, const std::string& role) {
        const std::string source_profile = value(profile, "source_profile");
        const std::string source = value(profile, "credential_source");
        if (!value(profile, "mfa_serial").empty())
            return mistake(quoted_profile(profile) + " has an mfa_serial: nobody is there to type its code");
        if (source_profile.empty() == source.empty())
            return mistake(quoted_profile(profile) + (source.empty()
                                                          ? " has a role_arn, but neither source_profile nor "
                                                            "credential_source nor web_identity_token_file"
                                                          : " has both source_profile and "
                                                            "credential_source"));
        auto assumed = role_of(profile, role);
        if (!assumed.ok())
            return std::move(assumed).error();
        Planned plan = source.empty() ? of_source_profile(profile, source_profile)
                                      : of_credential_source(profile, source);
        if (plan.ok())
            plan.value().roles.push_back(std::move(assumed).value());
        return plan;
    }

    // A profile may name itself: its own keys then assume its role. Keys end a chain of profiles.
    Planned of_source_profile(const std::string& profile, const std::string& source) {
        const std::string of = "source_profile of " + quoted_profile(profile);
        if (!config_.has_profile(source))
            return mistake(quoted_profile(source) + ", " + of + ", does not exist",
                           config_.credentials_file().path() + "\n" + config_.config_file().path());
        if (Finding keys = static_keys(source))
            return *std::move(keys);
        if (visited_.contains(source))
            return mistake(quoted_profile(source) + " is reached again as " + of +
                           ", and has no keys of its own");
        if (Finding found = plan(source))
            return *std::move(found);
        return mistake(quoted_profile(source) + ", " + of + ", has no credentials");
    }

    Planned of_credential_source(const std::string& profile, const std::string& source) const {
        const std::string of = "credential_source " + source + " of " + quoted_profile(profile);
        Finding found;
        if (source == "Environment")
            found = environment_keys();
        else if (source == "EcsContainer")
            found = container_endpoint();
        else if (source == "Ec2InstanceMetadata")
            found = instance_metadata_place(config_);
        else
            return mistake(quoted_profile(profile) +
                           " has a credential_source that is none of Environment, EcsContainer, "
                           "Ec2InstanceMetadata");
        if (found)
            return *std::move(found);
        if (source == "Environment")
            return mistake(of + ": AWS_ACCESS_KEY_ID is not set", "the environment");
        if (source == "EcsContainer")
            return mistake(of + ": neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor _FULL_URI is set",
                           "the environment");
        return mistake(of + ": AWS_EC2_METADATA_DISABLED is set", "the environment");
    }

    const CredentialsOptions& options_;
    const AwsConfig& config_;
    std::set<std::string> visited_;
};

// --- when nothing was found

std::string looked_at(const SharedFile& file, const std::string& profile) {
    const std::string line = file.path() + ": ";
    if (!file.error().empty())
        return line + file.error();
    if (file.profile(profile) == nullptr)
        return line + "has no " + quoted_profile(profile);
    return line + quoted_profile(profile) + " has no aws_access_key_id";
}

std::string files_looked_at(const AwsConfig& config) {
    return looked_at(config.credentials_file(), config.profile_name()) + "\n" +
           looked_at(config.config_file(), config.profile_name());
}

std::string places_looked_at(const AwsConfig& config) {
    std::string places;
    if (config.uses_environment())
        places = "the environment: neither AWS_ACCESS_KEY_ID nor AWS_WEB_IDENTITY_TOKEN_FILE is set\n";
    return places + files_looked_at(config) +
           "\nthe environment: neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor _FULL_URI is set";
}

NoCredentials nothing_found(const AwsConfig& config, const std::string& places) {
    const std::string& profile = config.profile_name();
    NoCredentials none{"no AWS credentials were found"};
    if (config.has_profile(profile))
        none.message = quoted_profile(profile) + " has no aws_access_key_id";
    else if (profile != "default")
        none.message = quoted_profile(profile) + " is in neither " + config.credentials_file().path() +
                       " nor " + config.config_file().path();
    none.detail = places;
    return none;
}

Finding first_place(const CredentialsOptions& options, const AwsConfig& config) {
    if (config.uses_environment()) {
        if (Finding found = environment_keys())
            return found;
        if (Finding found = environment_web_identity(options))
            return found;
    }
    if (Finding found = ProfilePlanner(options, config).plan(config.profile_name()))
        return found;
    if (config.profile_is_named() && !config.has_profile(config.profile_name()))
        return nothing_found(config, files_looked_at(config)); // a name with a typing error
    if (Finding found = container_endpoint())
        return found;
    Finding found = instance_metadata_place(config);
    if (found && found->ok())
        found->value().last_resort = true;
    return found;
}

} // namespace

NoCredentials no_place_has_credentials(const AwsConfig& config, const std::string& metadata) {
    return nothing_found(config, places_looked_at(config) + "\n" + metadata);
}

Result<CredentialsPlan, NoCredentials> plan_credentials(const CredentialsOptions& options,
                                                        const AwsConfig& config) {
    Finding found = first_place(options, config);
    if (!found)
        return no_place_has_credentials(
            config, "instance metadata: not asked, AWS_EC2_METADATA_DISABLED is \"true\"");
    Planned plan = *std::move(found);
    if (plan.ok() && !options.role_arn.empty())
        plan.value().roles.push_back({options.role_arn, default_session_name(options), options.external_id});
    return plan;
}

Result<std::optional<InstanceMetadata>, NoCredentials> instance_metadata(const AwsConfig& config) {
    const auto wrong = [](const std::string& what) {
        return mistake(what, "instance metadata", "InstanceMetadata");
    };
    if (AwsConfig::flag("AWS_EC2_METADATA_DISABLED"))
        return std::optional<InstanceMetadata>();
    std::string endpoint =
        config.setting("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ec2_metadata_service_endpoint");
    if (!endpoint.empty()) {
        if (const auto url = parse_url(endpoint); !url.ok())
            return wrong("AWS_EC2_METADATA_SERVICE_ENDPOINT " + url.error());
        while (endpoint.ends_with('/'))
            endpoint.pop_back();
        return std::optional(InstanceMetadata{endpoint});
    }
    const std::string mode =
        config.setting("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ec2_metadata_service_endpoint_mode");
    if (mode == "IPv6" || mode == "ipv6")
        return std::optional(InstanceMetadata{"http://[fd00:ec2::254]"});
    if (!mode.empty() && mode != "IPv4" && mode != "ipv4")
        return wrong("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE is neither IPv4 nor IPv6");
    return std::optional(InstanceMetadata{"http://169.254.169.254"});
}

} // namespace sqs_ingest
