// The chain over time: what is held, what is being fetched, what failed and when it is tried again.
#include "core/digest.h"
#include "core/policy/backoff.h"
#include "core/policy/refresh.h"
#include "net/credentials.h"
#include "net/credentials/conversation.h"
#include "net/credentials/errand.h"

#include <algorithm>
#include <array>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;
using Instant = std::chrono::steady_clock::time_point;

constexpr BackoffRange kFetchBackoff{1s, 60s};
constexpr auto kRegionPause = 60s; // after instance metadata did not name the region
constexpr auto kFirstRefusalPause = 1s, kLongestRefusalPause = 60s;
constexpr std::int64_t kStableMs = 5 * 60'000; // SDKs: 5 to 10 minutes

double random_fraction() {
    std::array<std::uint8_t, 4> bytes;
    random_bytes(bytes);
    std::uint32_t number = 0;
    for (const auto byte : bytes)
        number = number << 8 | byte;
    return static_cast<double>(number) / 4294967296.0;
}

bool needs_sts(const CredentialsPlan& plan, std::size_t stage) {
    return stage > 0 || std::holds_alternative<WebIdentity>(plan.place);
}

// "role C, assumed with role B, assumed with profile \"x\""
std::string source_of(const CredentialsPlan& plan, const std::string& note) {
    std::string source = plan.source + (note.empty() ? "" : ", " + note);
    for (const RoleToAssume& role : plan.roles)
        source = "role " + role.role_arn + ", assumed with " + source;
    return source;
}

} // namespace

class CredentialsChain::Impl {
  public:
    Impl(CredentialsOptions options, HttpLoop& http)
        : options_(std::move(options)), config_(options_), http_(http) {}

    std::variant<Credentials, BeingFetched, NoCredentials> get(Moment now);
    std::variant<std::string, BeingFetched, NoRegion> region(Moment now);
    bool take(Completed& completed, Moment now);
    void advance(Moment now);
    std::optional<Instant> next_look() const;
    void refused(const std::string& access_key_id, Moment now);
    std::string source() const;
    std::optional<std::int64_t> expires_at_ms() const { return held_ ? held_->expires_at_ms : std::nullopt; }
    std::optional<NoCredentials> trouble() const { return failure_; }
    const AwsConfig& config() const { return config_; }

  private:
    // What is in use.
    struct Held {
        Credentials keys;
        std::string source;
        std::optional<std::int64_t> expires_at_ms; // empty: never
        std::int64_t refresh_at_ms = 0;
        std::int64_t usable_until_ms = 0;
        bool refused = false;
    };
    // What is being fetched: the place, then role after role.
    struct Fetch {
        std::size_t stage = 0; // 0: the place; n: the n-th role
        Credentials keys;      // of the stage before
        std::optional<std::int64_t> expires_at_ms;
        std::string note;
        std::unique_ptr<Errand> errand; // empty: the region is being waited for
    };

    void follow(CredentialsPlan plan, Moment now);
    bool usable(const Held& held, Moment now) const;
    bool outlives_its_end() const;
    void fetch_when_due(Moment now);
    void go_on(Moment now);
    std::unique_ptr<Conversation> conversation(StsEndpoint sts);
    std::variant<StsEndpoint, BeingFetched, NoCredentials> sts_endpoint(Moment now);
    void fetched(Moment now);
    void failed(NoCredentials why, bool is_outage, Moment now);

    CredentialsOptions options_;
    AwsConfig config_;
    HttpLoop& http_;
    ClockSkew skew_; // of STS

    std::optional<CredentialsPlan> plan_; // what all of the following is about
    std::optional<Held> held_;
    std::optional<Fetch> fetch_;
    std::optional<NoCredentials> failure_; // of the last fetch
    bool outage_ = false;                  // it was one
    Backoff backoff_;
    Instant retry_at_{};
    bool succeeded_ = false; // once

    Instant refusal_counts_at_{};
    std::chrono::steady_clock::duration refusal_pause_ = kFirstRefusalPause;

    std::string instance_region_;
    std::unique_ptr<Errand> region_errand_;
    std::string region_failure_;
    Instant region_retry_at_{};
};

std::variant<Credentials, BeingFetched, NoCredentials> CredentialsChain::Impl::get(Moment now) {
    config_.update(now);
    auto plan = plan_credentials(options_, config_);
    if (!plan.ok())
        return std::move(plan).error();
    if (plan_ != plan.value())
        follow(std::move(plan).value(), now);
    fetch_when_due(now);
    if (held_ && (usable(*held_, now) || outlives_its_end()))
        return held_->keys;
    if (fetch_)
        return BeingFetched{};
    return *failure_;
}

// Other credentials are configured than were before.
void CredentialsChain::Impl::follow(CredentialsPlan plan, Moment now) {
    plan_ = std::move(plan);
    fetch_.reset();
    held_.reset();
    failure_.reset();
    backoff_.reset();
    succeeded_ = false;
    retry_at_ = now.steady;
}

bool CredentialsChain::Impl::usable(const Held& held, Moment now) const {
    return !held.refused && (!held.expires_at_ms || now.unix_ms < held.usable_until_ms);
}

bool CredentialsChain::Impl::outlives_its_end() const {
    return !held_->refused && failure_ && outage_ && plan_->roles.empty() &&
           std::holds_alternative<InstanceMetadata>(plan_->place);
}

void CredentialsChain::Impl::fetch_when_due(Moment now) {
    const bool due =
        !held_ || held_->refused || (held_->expires_at_ms && now.unix_ms >= held_->refresh_at_ms);
    if (!due || fetch_ || (failure_ && now.steady < retry_at_))
        return;
    fetch_.emplace();
    go_on(now);
}

// As far as it goes without waiting.
void CredentialsChain::Impl::go_on(Moment now) {
    while (fetch_) {
        if (fetch_->errand && !fetch_->errand->ended())
            return;
        if (fetch_->errand) {
            ErrandEnd end = fetch_->errand->take_end();
            fetch_->errand.reset();
            if (auto* failure = std::get_if<FetchFailure>(&end))
                return failed({failure->message, "", failure->code}, failure->is_outage, now);
            auto& found = std::get<FoundCredentials>(end);
            fetch_->keys = std::move(found.issued.keys);
            fetch_->expires_at_ms = found.issued.expires_at_ms;
            if (!found.note.empty())
                fetch_->note = found.note;
            ++fetch_->stage;
        } else if (const auto* keys = std::get_if<StaticKeys>(&plan_->place); keys && fetch_->stage == 0) {
            fetch_->keys = keys->keys;
            ++fetch_->stage;
        }
        if (fetch_->stage > plan_->roles.size())
            return fetched(now);
        StsEndpoint sts;
        if (needs_sts(*plan_, fetch_->stage)) {
            auto endpoint = sts_endpoint(now);
            if (std::holds_alternative<BeingFetched>(endpoint))
                return;
            if (auto* none = std::get_if<NoCredentials>(&endpoint))
                return failed(std::move(*none), true, now);
            sts = std::get<StsEndpoint>(std::move(endpoint));
        }
        fetch_->errand = std::make_unique<Errand>(http_, conversation(std::move(sts)), now);
    }
}

std::unique_ptr<Conversation> CredentialsChain::Impl::conversation(StsEndpoint sts) {
    if (fetch_->stage > 0)
        return assume_role(plan_->roles[fetch_->stage - 1], fetch_->keys, std::move(sts), skew_);
    if (const auto* identity = std::get_if<WebIdentity>(&plan_->place))
        return assume_role_with_web_identity(*identity, std::move(sts), skew_);
    if (const auto* process = std::get_if<CredentialProcess>(&plan_->place))
        return run_credential_process(*process);
    if (const auto* container = std::get_if<ContainerEndpoint>(&plan_->place))
        return ask_container_endpoint(*container);
    return ask_instance_metadata(std::get<InstanceMetadata>(plan_->place));
}

std::variant<StsEndpoint, BeingFetched, NoCredentials> CredentialsChain::Impl::sts_endpoint(Moment now) {
    auto configured = config_.endpoint_url("sts");
    if (!configured.ok())
        return NoCredentials{"the endpoint of STS: " + configured.error(), "", "BadEndpointUrl"};
    auto found = region(now);
    if (std::holds_alternative<BeingFetched>(found))
        return BeingFetched{};
    if (const auto* none = std::get_if<NoRegion>(&found))
        return NoCredentials{"assuming a role needs a region: " + none->message, "", "NoRegion"};
    const auto& name = std::get<std::string>(found);
    return StsEndpoint{configured.value().value_or(aws_endpoint("sts", name, config_.endpoint_variant())),
                       name};
}

void CredentialsChain::Impl::fetched(Moment now) {
    Held held{std::move(fetch_->keys), source_of(*plan_, fetch_->note), fetch_->expires_at_ms};
    const bool from_metadata = plan_->roles.empty() && std::holds_alternative<InstanceMetadata>(plan_->place);
    if (held.expires_at_ms) {
        if (needs_sts(*plan_, plan_->roles.size()))
            *held.expires_at_ms -= skew_.far_off_ms();
        const auto times = refresh_times(now.unix_ms, *held.expires_at_ms, random_fraction());
        held.refresh_at_ms = times.refresh_at;
        held.usable_until_ms = times.usable_until;
        const bool expired = now.unix_ms >= times.usable_until;
        if (expired && !from_metadata)
            return failed({"the credentials of " + held.source + " had expired already when they came (" +
                               "check this machine's clock)",
                           "", "ExpiredCredentials"},
                          true, now);
        if (expired) { // the service itself has an outage, and hands out what it has
            held.source += " (expired, and still handed out)";
            held.usable_until_ms = held.refresh_at_ms =
                now.unix_ms + kStableMs + static_cast<std::int64_t>(random_fraction() * kStableMs);
        }
    }
    held_ = std::move(held);
    fetch_.reset();
    failure_.reset();
    backoff_.reset();
    succeeded_ = true;
}

void CredentialsChain::Impl::failed(NoCredentials why, bool is_outage, Moment now) {
    if (plan_->last_resort && !succeeded_ && fetch_->stage == 0)
        why = no_place_has_credentials(config_, why.message);
    else
        why.detail = source_of(*plan_, "");
    fetch_.reset();
    failure_ = std::move(why);
    outage_ = is_outage;
    retry_at_ = now.steady + backoff_.next(kFetchBackoff.base, kFetchBackoff.cap, random_fraction());
}

std::variant<std::string, BeingFetched, NoRegion> CredentialsChain::Impl::region(Moment now) {
    config_.update(now);
    if (std::string configured = options_.region.empty() ? config_.region() : options_.region;
        !configured.empty()) {
        if (!is_region(configured))
            return NoRegion{"the configured AWS region is none: it has other characters than lower-case "
                            "letters, digits and hyphens"};
        return configured;
    }
    if (!instance_region_.empty())
        return instance_region_;
    if (region_errand_)
        return BeingFetched{};
    const auto metadata = instance_metadata(config_);
    const NoRegion none{"no AWS region is configured" +
                        (region_failure_.empty() ? "" : "; " + region_failure_)};
    if (!metadata.ok() || !metadata.value() || now.steady < region_retry_at_)
        return none;
    region_errand_ = std::make_unique<Errand>(http_, ask_instance_region(*metadata.value()), now);
    return BeingFetched{};
}

bool CredentialsChain::Impl::take(Completed& completed, Moment now) {
    return (region_errand_ && region_errand_->take(completed, now)) ||
           (fetch_ && fetch_->errand && fetch_->errand->take(completed, now));
}

void CredentialsChain::Impl::advance(Moment now) {
    if (region_errand_ && region_errand_->ended()) {
        ErrandEnd end = region_errand_->take_end();
        region_errand_.reset();
        if (const auto* found = std::get_if<FoundRegion>(&end))
            instance_region_ = found->region;
        else if (const auto* failure = std::get_if<FetchFailure>(&end)) {
            region_failure_ = failure->message;
            region_retry_at_ = now.steady + kRegionPause;
        }
    }
    if (fetch_ && fetch_->errand)
        fetch_->errand->advance(now);
    go_on(now);
}

std::optional<Instant> CredentialsChain::Impl::next_look() const {
    return fetch_ && fetch_->errand ? fetch_->errand->next_look() : std::nullopt;
}

std::string CredentialsChain::Impl::source() const {
    if (!held_)
        return "";
    return held_->source + (failure_ ? " (not renewed: " + failure_->message + ")" : "");
}

void CredentialsChain::Impl::refused(const std::string& access_key_id, Moment now) {
    if (!held_ || held_->keys.access_key_id != access_key_id || now.steady < refusal_counts_at_)
        return; // a newer key is in use, or these are the newest there are
    held_->refused = true;
    config_.forget();
    const bool long_ago = now.steady - refusal_counts_at_ > kLongestRefusalPause;
    refusal_pause_ =
        long_ago ? kFirstRefusalPause
                 : std::min<std::chrono::steady_clock::duration>(2 * refusal_pause_, kLongestRefusalPause);
    refusal_counts_at_ = now.steady + refusal_pause_;
}

CredentialsChain::CredentialsChain(CredentialsOptions options, HttpLoop& http)
    : impl_(std::make_unique<Impl>(std::move(options), http)) {}
CredentialsChain::~CredentialsChain() = default;

std::variant<Credentials, BeingFetched, NoCredentials> CredentialsChain::get(Moment now) {
    return impl_->get(now);
}

std::variant<std::string, BeingFetched, NoRegion> CredentialsChain::region(Moment now) {
    return impl_->region(now);
}

bool CredentialsChain::take(Completed& completed, Moment now) {
    return impl_->take(completed, now);
}

void CredentialsChain::advance(Moment now) {
    impl_->advance(now);
}

std::optional<Instant> CredentialsChain::next_look() const {
    return impl_->next_look();
}

void CredentialsChain::refused(const std::string& access_key_id, Moment now) {
    impl_->refused(access_key_id, now);
}

std::string CredentialsChain::source() const {
    return impl_->source();
}

std::optional<std::int64_t> CredentialsChain::expires_at_ms() const {
    return impl_->expires_at_ms();
}

std::optional<NoCredentials> CredentialsChain::trouble() const {
    return impl_->trouble();
}

const AwsConfig& CredentialsChain::config() const {
    return impl_->config();
}

} // namespace sqs_ingest
