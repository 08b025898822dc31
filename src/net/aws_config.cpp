#include "net/aws_config.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <openssl/crypto.h>
#include <pwd.h>
#include <unistd.h>

namespace sqs_ingest {
namespace {

std::string first_of(std::string a, std::string b, std::string c = "") {
    if (!a.empty())
        return a;
    return b.empty() ? c : b;
}

std::string home_directory() {
    if (std::string home = environment("HOME"); !home.empty())
        return home;
    std::array<char, 4096> buffer;
    passwd entry{};
    passwd* found = nullptr;
    if (getpwuid_r(geteuid(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr)
        return "";
    return found->pw_dir;
}

std::string with_home(const std::string& path) {
    return path.starts_with("~/") ? home_directory() + path.substr(1) : path;
}

char upper(char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

std::string upper(std::string text) {
    for (char& c : text)
        c = upper(c);
    return text;
}

} // namespace

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

std::string quoted_profile(const std::string& name) {
    return "profile \"" + name + "\"";
}

void SharedFile::update(Moment now) {
    if (!file_.update(now))
        return;
    cleanse();
    std::string text = file_.take_text();
    sections_ = parse_profile_file(text);
    OPENSSL_cleanse(text.data(), text.size());
}

void SharedFile::cleanse() {
    for (auto& [section, profile] : sections_)
        for (auto& [key, value] : profile)
            OPENSSL_cleanse(value.data(), value.size());
}

const Profile* SharedFile::profile(const std::string& name) const {
    const Profile* found = section(prefix_ + name);
    return found == nullptr && name == "default" ? section(name) : found;
}

const Profile* SharedFile::section(const std::string& name) const {
    const auto found = sections_.find(name);
    return found == sections_.end() ? nullptr : &found->second;
}

AwsConfig::AwsConfig(const CredentialsOptions& options)
    : uses_environment_(options.profile.empty()),
      profile_is_named_(!options.profile.empty() || !environment("AWS_PROFILE").empty()),
      profile_(first_of(options.profile, environment("AWS_PROFILE"), "default")),
      credentials_file_(with_home(first_of(options.credentials_file,
                                           environment("AWS_SHARED_CREDENTIALS_FILE"), "~/.aws/credentials")),
                        ""),
      config_file_(with_home(first_of(options.config_file, environment("AWS_CONFIG_FILE"), "~/.aws/config")),
                   "profile ") {}

void AwsConfig::update(Moment now) {
    credentials_file_.update(now);
    config_file_.update(now);
}

void AwsConfig::forget() {
    credentials_file_.forget();
    config_file_.forget();
}

bool AwsConfig::has_profile(const std::string& name) const {
    return credentials_file_.profile(name) != nullptr || config_file_.profile(name) != nullptr;
}

std::string AwsConfig::profile_value(const std::string& profile, const std::string& key) const {
    return first_of(value_of(credentials_file_.profile(profile), key),
                    value_of(config_file_.profile(profile), key));
}

std::string AwsConfig::setting(const char* variable, const std::string& key) const {
    return first_of(environment(variable), profile_value(profile_, key));
}

bool AwsConfig::flag(const char* variable, const std::string& key) const {
    return upper(setting(variable, key)) == "TRUE";
}

bool AwsConfig::flag(const char* variable) {
    return upper(environment(variable)) == "TRUE";
}

std::string AwsConfig::region() const {
    return first_of(environment("AWS_REGION"), environment("AWS_DEFAULT_REGION"),
                    profile_value(profile_, "region"));
}

std::string AwsConfig::ca_bundle() const {
    return with_home(setting("AWS_CA_BUNDLE", "ca_bundle"));
}

EndpointVariant AwsConfig::endpoint_variant() const {
    return {.fips = flag("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint"),
            .dual_stack = flag("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint")};
}

std::optional<AwsConfig::EndpointSetting> AwsConfig::endpoint_setting(const std::string& service) const {
    if (flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls"))
        return std::nullopt;
    for (const std::string& variable :
         {"AWS_ENDPOINT_URL_" + upper(service), std::string("AWS_ENDPOINT_URL")})
        if (std::string url = environment(variable.c_str()); !url.empty())
            return EndpointSetting{std::move(url), variable};
    if (const std::string services = profile_value(profile_, "services"); !services.empty())
        if (std::string url =
                value_of(config_file_.section("services " + services), service + ".endpoint_url");
            !url.empty())
            return EndpointSetting{std::move(url), "endpoint_url of services \"" + services + "\""};
    if (std::string url = profile_value(profile_, "endpoint_url"); !url.empty())
        return EndpointSetting{std::move(url), "endpoint_url of " + quoted_profile(profile_)};
    return std::nullopt;
}

Result<std::optional<Url>, std::string> AwsConfig::endpoint_url(const std::string& service) const {
    const auto setting = endpoint_setting(service);
    if (!setting)
        return std::optional<Url>();
    auto url = parse_url(setting->url);
    if (!url.ok())
        return setting->where + " " + url.error();
    return std::optional<Url>(std::move(url).value());
}

} // namespace sqs_ingest
