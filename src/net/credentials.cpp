// The chain: which place is asked first, and what is said when none has an answer.
// https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
#include "net/credentials.h"

#include "net/watched_file.h"

#include <array>
#include <cstdlib>
#include <pwd.h>
#include <unistd.h>

namespace sqs_ingest {
namespace {

using Profile = ProfileFile::mapped_type;

// An empty variable counts as unset, as for AWS's own tools.
std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

std::string first_of(std::string a, std::string b, std::string c) {
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

std::string value_of(const Profile& profile, const std::string& key) {
    const auto found = profile.find(key);
    return found == profile.end() ? "" : found->second;
}

std::string quoted(const std::string& profile) {
    return "profile \"" + profile + "\"";
}

// Ways to get credentials that AWS's tools know and this chain does not: said, not silently passed over.
std::string unsupported_key(const Profile& profile) {
    for (const char* key : {"role_arn", "credential_process", "sso_session", "sso_start_url"})
        if (profile.contains(key))
            return key;
    return "";
}

// One shared file, as profiles.
class ProfileSource {
  public:
    // `prefix` is what the file's section names have before a profile's name, except for "default".
    ProfileSource(std::string path, std::string prefix)
        : file_(std::move(path)), prefix_(std::move(prefix)) {}

    void update() {
        if (file_.update())
            profiles_ = parse_profile_file(file_.take_text());
    }
    void forget() { file_.forget(); }

    const std::string& path() const { return file_.path(); }
    const std::string& error() const { return file_.error(); }

    const Profile* find(const std::string& name) const {
        auto found = profiles_.find(prefix_ + name);
        if (found == profiles_.end() && name == "default")
            found = profiles_.find(name);
        return found == profiles_.end() ? nullptr : &found->second;
    }

  private:
    WatchedFile file_;
    std::string prefix_;
    ProfileFile profiles_;
};

// What one place has to say; empty: it has no credentials, the next place is asked.
using Finding = std::optional<Result<Credentials, NoCredentials>>;

Finding ask_environment() {
    Credentials found{environment("AWS_ACCESS_KEY_ID"), environment("AWS_SECRET_ACCESS_KEY"),
                      environment("AWS_SESSION_TOKEN")};
    if (found.access_key_id.empty())
        return std::nullopt;
    if (found.secret_access_key.empty())
        return NoCredentials{"AWS_ACCESS_KEY_ID is set but AWS_SECRET_ACCESS_KEY is not", "the environment"};
    return found;
}

// A profile with half of a key pair is a mistake, not an invitation to look elsewhere.
Finding ask_profile(const ProfileSource& source, const std::string& name) {
    const Profile* profile = source.find(name);
    if (profile == nullptr)
        return std::nullopt;
    Credentials found{value_of(*profile, "aws_access_key_id"), value_of(*profile, "aws_secret_access_key"),
                      value_of(*profile, "aws_session_token")};
    if (found.access_key_id.empty() && found.secret_access_key.empty())
        return std::nullopt;
    if (found.access_key_id.empty() || found.secret_access_key.empty())
        return NoCredentials{
            quoted(name) + " has no " +
                (found.access_key_id.empty() ? "aws_access_key_id" : "aws_secret_access_key"),
            source.path()};
    return found;
}

} // namespace

class CredentialsChain::Impl {
  public:
    explicit Impl(const CredentialsOptions& options)
        : uses_environment_(options.profile.empty()),
          profile_(first_of(options.profile, environment("AWS_PROFILE"), "default")),
          credentials_file_(
              with_home(first_of(options.credentials_file, environment("AWS_SHARED_CREDENTIALS_FILE"),
                                 "~/.aws/credentials")),
              ""),
          config_file_(
              with_home(first_of(options.config_file, environment("AWS_CONFIG_FILE"), "~/.aws/config")),
              "profile ") {}

    Result<Credentials, NoCredentials> get();
    void refresh();
    std::optional<std::string> region();

  private:
    void update();
    NoCredentials nothing_found() const;
    std::string looked_at(const ProfileSource& source) const;

    bool uses_environment_;
    std::string profile_;
    ProfileSource credentials_file_;
    ProfileSource config_file_;
};

Result<Credentials, NoCredentials> CredentialsChain::Impl::get() {
    if (uses_environment_)
        if (Finding finding = ask_environment())
            return *std::move(finding);
    update();
    for (const ProfileSource* source : {&credentials_file_, &config_file_})
        if (Finding finding = ask_profile(*source, profile_))
            return *std::move(finding);
    return nothing_found();
}

void CredentialsChain::Impl::refresh() {
    credentials_file_.forget();
    config_file_.forget();
}

std::optional<std::string> CredentialsChain::Impl::region() {
    if (auto region = first_of(environment("AWS_REGION"), environment("AWS_DEFAULT_REGION"), "");
        !region.empty())
        return region;
    update();
    for (const ProfileSource* source : {&credentials_file_, &config_file_})
        if (const Profile* profile = source->find(profile_))
            if (auto region = value_of(*profile, "region"); !region.empty())
                return region;
    return std::nullopt;
}

void CredentialsChain::Impl::update() {
    credentials_file_.update();
    config_file_.update();
}

NoCredentials CredentialsChain::Impl::nothing_found() const {
    NoCredentials none{"no AWS credentials were found", ""};
    if (credentials_file_.find(profile_) != nullptr || config_file_.find(profile_) != nullptr)
        none.message = quoted(profile_) + " has no aws_access_key_id";
    else if (profile_ != "default")
        none.message =
            quoted(profile_) + " is in neither " + credentials_file_.path() + " nor " + config_file_.path();
    if (uses_environment_)
        none.detail = "the environment: AWS_ACCESS_KEY_ID is not set\n";
    none.detail += looked_at(credentials_file_) + "\n" + looked_at(config_file_);
    return none;
}

std::string CredentialsChain::Impl::looked_at(const ProfileSource& source) const {
    const std::string line = source.path() + ": ";
    if (!source.error().empty())
        return line + source.error();
    const Profile* profile = source.find(profile_);
    if (profile == nullptr)
        return line + "has no " + quoted(profile_);
    if (const std::string key = unsupported_key(*profile); !key.empty())
        return line + quoted(profile_) + " uses " + key + ", which is not supported";
    return line + quoted(profile_) + " has no aws_access_key_id";
}

CredentialsChain::CredentialsChain(CredentialsOptions options) : impl_(std::make_unique<Impl>(options)) {}
CredentialsChain::~CredentialsChain() = default;

Result<Credentials, NoCredentials> CredentialsChain::get() {
    return impl_->get();
}

void CredentialsChain::refresh() {
    impl_->refresh();
}

std::optional<std::string> CredentialsChain::region() {
    return impl_->region();
}

} // namespace sqs_ingest
