// Roles through STS: what is sent, checked with the secrets, and what each answer becomes.
#include "core/date.h"
#include "net/credentials.h"

#include "aws_environment.h"
#include "chain_under_test.h"
#include "local_server.h"

#include <atomic>
#include <gtest/gtest.h>
#include <set>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;
using test::CannedAnswer;
using test::ChainUnderTest;
using test::LocalServer;
using test::ReceivedRequest;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != text.npos;
}

std::string keys(const std::string& id, const std::string& secret) {
    return "aws_access_key_id = " + id + "\naws_secret_access_key = " + secret + "\n";
}

std::string form_decoded(const std::string& text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i)
        if (text[i] == '%') {
            out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
            i += 2;
        } else {
            out += text[i];
        }
    return out;
}

std::map<std::string, std::string> form_of(const ReceivedRequest& request) {
    std::map<std::string, std::string> form;
    std::string rest = request.body;
    while (!rest.empty()) {
        const std::string part = rest.substr(0, rest.find('&'));
        rest.erase(0, part.size() + 1);
        form[part.substr(0, part.find('='))] = form_decoded(part.substr(part.find('=') + 1));
    }
    return form;
}

// The n-th role session has the keys SESSION<n>, secret<n>, token<n>.
CannedAnswer session(int n, std::int64_t expires_at_ms, const std::string& action = "AssumeRole") {
    const std::string number = std::to_string(n);
    return {.body = "<" + action + "Response><" + action + "Result><Credentials><AccessKeyId>SESSION" +
                    number + "</AccessKeyId><SecretAccessKey>secret" + number +
                    "</SecretAccessKey><SessionToken>token" + number + "</SessionToken><Expiration>" +
                    format_timestamp(expires_at_ms) + "</Expiration></Credentials></" + action + "Result></" +
                    action + "Response>"};
}

CannedAnswer refusal(const std::string& code, const std::string& message, int status = 403) {
    return {.status = status,
            .body = "<ErrorResponse><Error><Type>Sender</Type><Code>" + code + "</Code><Message>" + message +
                    "</Message></Error></ErrorResponse>"};
}

class RoleCredentialsTest : public test::AwsEnvironment {
  protected:
    void SetUp() override {
        AwsEnvironment::SetUp();
        set("AWS_ENDPOINT_URL_STS", sts_.url());
        set("AWS_REGION", "eu-west-3");
    }

    CannedAnswer answer(const ReceivedRequest& request) {
        const int n = ++asked_;
        if (refusal_)
            return *refusal_;
        return session(n, Moment::now().unix_ms + life_ms_, form_of(request)["Action"]);
    }

    // The signature of a request, computed again with the secret that should have made it.
    void expect_signed(const ReceivedRequest& request, const Credentials& by) {
        Headers headers;
        for (const char* name : {"content-type", "host", "x-amz-date"})
            headers.emplace_back(name, request.headers.at(name));
        if (!by.session_token.empty())
            headers.emplace_back("x-amz-security-token", request.headers.at("x-amz-security-token"));
        EXPECT_EQ(
            request.headers.at("authorization"),
            authorization_header(
                {"POST", "/", "", headers, request.body}, by,
                {.region = "eu-west-3", .service = "sts", .amz_date = request.headers.at("x-amz-date")}));
        if (!by.session_token.empty()) {
            EXPECT_EQ(request.headers.at("x-amz-security-token"), by.session_token);
        }
    }

    ReceivedRequest request(std::size_t i) { return sts_.requests().at(i); }

    std::int64_t life_ms_ = 3'600'000;
    std::optional<CannedAnswer> refusal_;
    std::atomic<int> asked_ = 0;
    LocalServer sts_{[this](const ReceivedRequest& request) { return answer(request); }};
};

CredentialsOptions profile(const std::string& name) {
    return {.profile = name};
}

TEST_F(RoleCredentialsTest, a_profiles_role_is_assumed_with_its_source_profile) {
    write(credentials(), "[base]\n" + keys("BASE", "base-secret"));
    write(config(), "[profile ops]\nrole_arn = arn:aws:iam::1:role/ops\nsource_profile = base\n"
                    "external_id = ext&id\nrole_session_name = night shift\nduration_seconds = 1200\n");
    ChainUnderTest chain(profile("ops"));
    EXPECT_EQ(chain.found(), (Credentials{"SESSION1", "secret1", "token1"}));
    EXPECT_EQ(form_of(request(0)), (std::map<std::string, std::string>{{"Action", "AssumeRole"},
                                                                       {"Version", "2011-06-15"},
                                                                       {"RoleArn", "arn:aws:iam::1:role/ops"},
                                                                       {"RoleSessionName", "night-shift"},
                                                                       {"ExternalId", "ext&id"},
                                                                       {"DurationSeconds", "1200"}}));
    EXPECT_EQ(request(0).line, "POST / HTTP/1.1");
    expect_signed(request(0), {"BASE", "base-secret", ""});
    EXPECT_EQ(chain->source(), "role arn:aws:iam::1:role/ops, assumed with profile \"base\"");
}

TEST_F(RoleCredentialsTest, an_options_role_is_assumed_with_what_the_chain_finds) {
    set("AWS_ACCESS_KEY_ID", "ENV");
    set("AWS_SECRET_ACCESS_KEY", "env-secret");
    set("AWS_SESSION_TOKEN", "env-token");
    ChainUnderTest chain(
        {.role_arn = "arn:aws:iam::2:role/cross", .external_id = "x1", .session_name = "sqs_ingest-logins"});
    EXPECT_EQ(chain.key_id(), "SESSION1");
    EXPECT_EQ(form_of(request(0))["RoleArn"], "arn:aws:iam::2:role/cross");
    EXPECT_EQ(form_of(request(0))["ExternalId"], "x1");
    EXPECT_EQ(form_of(request(0))["RoleSessionName"], "sqs_ingest-logins");
    expect_signed(request(0), {"ENV", "env-secret", "env-token"});
    EXPECT_EQ(chain->source(), "role arn:aws:iam::2:role/cross, assumed with environment");
}

TEST_F(RoleCredentialsTest, each_role_of_a_chain_is_assumed_with_the_one_before) {
    write(credentials(), "[base]\n" + keys("BASE", "base-secret"));
    write(config(), "[profile inner]\nrole_arn = r:inner\nsource_profile = base\n"
                    "[profile outer]\nrole_arn = r:outer\nsource_profile = inner\n");
    CredentialsOptions options = profile("outer");
    options.role_arn = "r:last";
    ChainUnderTest chain(options);
    EXPECT_EQ(chain.key_id(), "SESSION3");
    EXPECT_EQ(form_of(request(0))["RoleArn"], "r:inner");
    EXPECT_EQ(form_of(request(1))["RoleArn"], "r:outer");
    EXPECT_EQ(form_of(request(2))["RoleArn"], "r:last");
    expect_signed(request(1), {"SESSION1", "secret1", "token1"});
    expect_signed(request(2), {"SESSION2", "secret2", "token2"});
    EXPECT_EQ(
        chain->source(),
        "role r:last, assumed with role r:outer, assumed with role r:inner, assumed with profile \"base\"");
}

TEST_F(RoleCredentialsTest, a_profile_may_be_its_own_source) {
    write(credentials(),
          "[self]\n" + keys("SELF", "self-secret") + "role_arn = r:self\nsource_profile = self\n");
    ChainUnderTest chain(profile("self"));
    EXPECT_EQ(chain.key_id(), "SESSION1");
    expect_signed(request(0), {"SELF", "self-secret", ""});
}

TEST_F(RoleCredentialsTest, keys_end_a_chain_of_profiles) {
    write(credentials(), "[a]\nrole_arn = r:a\nsource_profile = b\n[b]\n" + keys("B", "b-secret") +
                             "role_arn = r:b\nsource_profile = a\n");
    ChainUnderTest chain(profile("a"));
    EXPECT_EQ(chain.key_id(), "SESSION1");
    EXPECT_EQ(sts_.requests().size(), 1u);
    expect_signed(request(0), {"B", "b-secret", ""});
}

TEST_F(RoleCredentialsTest, profiles_that_go_round_in_circles_are_an_error) {
    write(config(), "[profile a]\nrole_arn = r:a\nsource_profile = b\n"
                    "[profile b]\nrole_arn = r:b\nsource_profile = c\n"
                    "[profile c]\nrole_arn = r:c\nsource_profile = a\n"
                    "[profile self]\nrole_arn = r:s\nsource_profile = self\n");
    ChainUnderTest circle(profile("a"));
    EXPECT_EQ(circle.refusal().message, "profile \"a\" is reached again as source_profile of profile \"c\", "
                                        "and has no keys of its own");
    ChainUnderTest self(profile("self"));
    EXPECT_TRUE(contains(self.refusal().message, "reached again"));
    EXPECT_TRUE(sts_.requests().empty());
}

TEST_F(RoleCredentialsTest, a_profile_with_a_mistake_says_which) {
    const auto said = [&](const std::string& text) {
        write(config(), "[profile p]\n" + text);
        ChainUnderTest chain(profile("p"));
        return chain.refusal().message;
    };
    EXPECT_EQ(said("role_arn = r\nsource_profile = gone\n"),
              "profile \"gone\", source_profile of profile \"p\", does not exist");
    EXPECT_EQ(said("role_arn = r\nsource_profile = empty\n[profile empty]\nregion = x\n"),
              "profile \"empty\", source_profile of profile \"p\", has no credentials");
    EXPECT_TRUE(contains(said("role_arn = r\n"), "neither source_profile nor credential_source"));
    EXPECT_TRUE(contains(said("role_arn = r\nsource_profile = p\ncredential_source = Environment\n"),
                         "both source_profile and credential_source"));
    EXPECT_TRUE(contains(said("role_arn = r\ncredential_source = Moon\n"), "none of Environment"));
    EXPECT_TRUE(
        contains(said("role_arn = r\ncredential_source = Environment\n"), "AWS_ACCESS_KEY_ID is not set"));
    EXPECT_TRUE(contains(said("role_arn = r\ncredential_source = Ec2InstanceMetadata\n"),
                         "AWS_EC2_METADATA_DISABLED"));
    EXPECT_TRUE(contains(said("role_arn = r\nsource_profile = p\nmfa_serial = m\n"), "mfa_serial"));
    for (const char* duration : {"soon", "899", "43201", "900s", "-1"})
        EXPECT_TRUE(contains(said("role_arn = r\nsource_profile = p\nduration_seconds = " +
                                  std::string(duration) + "\n" + keys("A", "B")),
                             "no number from 900 to 43200"))
            << duration;
}

TEST_F(RoleCredentialsTest, single_sign_on_is_said_to_be_unsupported) {
    for (const char* key : {"sso_session", "sso_start_url", "login_session"}) {
        write(config(), "[profile p]\n" + std::string(key) + " = x\n");
        ChainUnderTest chain(profile("p"));
        const NoCredentials none = chain.refusal();
        EXPECT_EQ(none.code, "SsoNotSupported");
        EXPECT_EQ(none.message, std::string("profile \"p\" uses ") + key + ", which is not supported");
    }
}

TEST_F(RoleCredentialsTest, a_credential_source_may_be_the_environment_although_a_profile_is_named) {
    write(config(), "[profile p]\nrole_arn = r:p\ncredential_source = Environment\n");
    set("AWS_ACCESS_KEY_ID", "ENV");
    set("AWS_SECRET_ACCESS_KEY", "env-secret");
    ChainUnderTest chain(profile("p"));
    EXPECT_EQ(chain.key_id(), "SESSION1");
    expect_signed(request(0), {"ENV", "env-secret", ""});
}

class AssumedRoleTest : public RoleCredentialsTest {
  protected:
    void SetUp() override {
        RoleCredentialsTest::SetUp();
        set("AWS_ACCESS_KEY_ID", "ENV");
        set("AWS_SECRET_ACCESS_KEY", "env-secret");
        chain_.emplace(CredentialsOptions{.role_arn = "r:x"});
    }
    std::optional<ChainUnderTest> chain_;
};

TEST_F(AssumedRoleTest, a_session_is_used_until_it_is_nearly_over) {
    for (const auto time : {0s, 600s, 1700s}) {
        chain_->pass(time);
        EXPECT_EQ(chain_->key_id(), "SESSION1");
    }
    EXPECT_EQ(asked_, 1);
}

TEST_F(AssumedRoleTest, ahead_of_its_end_another_is_fetched_and_the_old_one_used_meanwhile) {
    EXPECT_EQ(chain_->key_id(), "SESSION1");
    chain_->pass(46min);
    EXPECT_EQ(std::get<Credentials>(chain_->ask()).access_key_id, "SESSION1") << "at once";
    chain_->settle();
    EXPECT_EQ(std::get<Credentials>(chain_->ask()).access_key_id, "SESSION2");
    EXPECT_EQ(asked_, 2);
}

TEST_F(AssumedRoleTest, after_its_end_requests_wait_for_the_next) {
    EXPECT_EQ(chain_->key_id(), "SESSION1");
    chain_->pass(61min);
    life_ms_ += 61 * 60'000; // by the clock that was put forward
    EXPECT_TRUE(std::holds_alternative<BeingFetched>(chain_->ask()));
    EXPECT_EQ(chain_->key_id(), "SESSION2");
}

TEST_F(AssumedRoleTest, many_that_ask_at_once_cost_one_request) {
    for (int i = 0; i < 20; ++i)
        EXPECT_TRUE(std::holds_alternative<BeingFetched>(chain_->ask()));
    EXPECT_EQ(chain_->key_id(), "SESSION1");
    EXPECT_EQ(asked_, 1);
}

TEST_F(AssumedRoleTest, an_outage_of_sts_does_not_cost_a_session_that_is_still_good) {
    EXPECT_EQ(chain_->key_id(), "SESSION1");
    refusal_ = refusal("InternalFailure", "sorry", 500);
    chain_->pass(50min);
    chain_->ask();
    chain_->settle();
    EXPECT_EQ(chain_->key_id(), "SESSION1");
    ASSERT_TRUE(chain_->operator->()->trouble());
    EXPECT_EQ(chain_->operator->()->trouble()->message,
              "role r:x could not be assumed: InternalFailure: sorry");
    chain_->pass(10min);
    chain_->ask();
    chain_->settle();
    EXPECT_EQ(chain_->refusal().code, "AssumeRole") << "and then it is over";
}

TEST_F(AssumedRoleTest, a_failure_is_told_and_not_tried_again_at_once) {
    refusal_ = refusal("AccessDenied", "User x is not authorized to perform: sts:AssumeRole");
    const NoCredentials none = chain_->refusal();
    EXPECT_EQ(none.code, "AssumeRole");
    EXPECT_EQ(none.message, "role r:x could not be assumed: AccessDenied: User x is not authorized to "
                            "perform: sts:AssumeRole");
    for (int i = 0; i < 50; ++i) {
        chain_->pass(1s);
        chain_->refusal();
    }
    EXPECT_LE(asked_, 15) << "in 50 s, with a pause that doubles from at most 1 s";
    EXPECT_GE(asked_, 2);
    refusal_.reset();
    chain_->pass(60s);
    EXPECT_TRUE(chain_->key_id().starts_with("SESSION"));
    EXPECT_FALSE(chain_->operator->()->trouble());
}

TEST_F(AssumedRoleTest, a_session_that_the_queue_refused_is_replaced_once_and_then_ever_more_slowly) {
    EXPECT_EQ(chain_->key_id(), "SESSION1");
    chain_->operator->()->refused("SESSION1", chain_->now());
    EXPECT_EQ(chain_->key_id(), "SESSION2");
    chain_->operator->()->refused("SESSION1", chain_->now());
    EXPECT_EQ(chain_->key_id(), "SESSION2") << "one that was sent before";
    chain_->operator->()->refused("SESSION2", chain_->now());
    EXPECT_EQ(chain_->key_id(), "SESSION2") << "not at once again";
    for (int second = 0; second < 60; ++second) {
        chain_->pass(1s);
        chain_->operator->()->refused(chain_->key_id(), chain_->now());
        chain_->key_id();
    }
    EXPECT_LE(asked_, 10);
    EXPECT_GE(asked_, 4);
}

TEST_F(AssumedRoleTest, garbage_is_no_session) {
    for (const std::string& body : {std::string(), std::string("<html>hello</html>"), std::string("{}"),
                                    std::string("<a><b><Credentials/></b></a>"), std::string(1000, '<')}) {
        refusal_ = CannedAnswer{.body = body};
        ChainUnderTest chain({.role_arn = "r:x"});
        EXPECT_TRUE(contains(chain.refusal().message, "role r:x could not be assumed: BadAnswer")) << body;
    }
}

TEST_F(AssumedRoleTest, an_answer_without_end_is_cut_off) {
    refusal_ = CannedAnswer{.body = std::string(65 << 10, 'x')};
    EXPECT_TRUE(contains(chain_->refusal().message, "larger than 65536 bytes"));
}

TEST_F(AssumedRoleTest, an_sts_that_is_not_there_is_named) {
    set("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:" + std::to_string(LocalServer::unused_port()));
    EXPECT_EQ(chain_->refusal().code, "StsUnreachable");
    EXPECT_TRUE(contains(chain_->refusal().message, "STS at http://127.0.0.1:"));
}

TEST_F(AssumedRoleTest, without_a_region_nothing_can_be_assumed) {
    unsetenv("AWS_REGION");
    EXPECT_EQ(chain_->refusal().code, "NoRegion");
}

TEST_F(AssumedRoleTest, a_wrong_endpoint_variable_is_named) {
    set("AWS_ENDPOINT_URL_STS", "sts.example.com");
    EXPECT_EQ(chain_->refusal().message,
              "the endpoint of STS: AWS_ENDPOINT_URL_STS has no scheme (http or https)");
}

TEST_F(AssumedRoleTest, a_clock_that_sts_refuses_is_corrected_by_its_date) {
    refusal_ = refusal("SignatureDoesNotMatch", "Signature expired");
    refusal_->headers = {{"Date", "Tue, 01 Jan 2030 12:00:00 GMT"}};
    chain_->refusal();
    ASSERT_EQ(sts_.requests().size(), 2u) << "once more, not again and again";
    EXPECT_FALSE(request(0).headers.at("x-amz-date").starts_with("2030"));
    EXPECT_TRUE(request(1).headers.at("x-amz-date").starts_with("20300101T1200"));
    expect_signed(request(1), {"ENV", "env-secret", ""});
}

TEST_F(AssumedRoleTest, an_expiration_is_understood_by_the_clock_that_made_it) {
    const auto three_hours = 3 * 3'600'000ll;
    refusal_ = session(7, Moment::now().unix_ms - three_hours + 3'600'000);
    std::time_t behind = std::time(nullptr) - three_hours / 1000;
    char date[64];
    std::tm utc{};
    gmtime_r(&behind, &utc);
    std::strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    refusal_->headers = {{"Date", date}};
    EXPECT_EQ(chain_->key_id(), "SESSION7") << "this clock is ahead by three hours";
}

TEST_F(AssumedRoleTest, a_session_that_is_over_when_it_comes_is_a_failure) {
    life_ms_ = -1000;
    EXPECT_EQ(chain_->refusal().code, "ExpiredCredentials");
}

TEST_F(AssumedRoleTest, other_keys_in_the_environment_begin_another_session) {
    EXPECT_EQ(chain_->key_id(), "SESSION1");
    set("AWS_ACCESS_KEY_ID", "OTHER");
    EXPECT_EQ(chain_->key_id(), "SESSION2");
    expect_signed(request(1), {"OTHER", "env-secret", ""});
}

TEST_F(AssumedRoleTest, the_end_of_the_chain_ends_what_is_under_way) {
    refusal_ = CannedAnswer{.delay = 20s};
    chain_->ask();
    for (const auto end = Moment::now().steady + 5s; sts_.requests().empty() && Moment::now().steady < end;)
        chain_->turn();
    chain_.reset();
    for (const auto end = Moment::now().steady + 5s; sts_.abandoned() == 0 && Moment::now().steady < end;)
        std::this_thread::sleep_for(5ms);
    EXPECT_EQ(sts_.abandoned(), 1);
}

// --- web identity

class WebIdentityTest : public RoleCredentialsTest {
  protected:
    void SetUp() override {
        RoleCredentialsTest::SetUp();
        set("AWS_WEB_IDENTITY_TOKEN_FILE", token_file());
        set("AWS_ROLE_ARN", "arn:aws:iam::3:role/pod");
        write(token_file(), "token-one\n");
    }
    std::string token_file() const { return (home_ / "token").string(); }
};

TEST_F(WebIdentityTest, a_token_is_exchanged_without_a_signature) {
    set("AWS_ROLE_SESSION_NAME", "the pod");
    ChainUnderTest chain({});
    EXPECT_EQ(chain.found(), (Credentials{"SESSION1", "secret1", "token1"}));
    EXPECT_EQ(form_of(request(0)),
              (std::map<std::string, std::string>{{"Action", "AssumeRoleWithWebIdentity"},
                                                  {"Version", "2011-06-15"},
                                                  {"RoleArn", "arn:aws:iam::3:role/pod"},
                                                  {"RoleSessionName", "the-pod"},
                                                  {"WebIdentityToken", "token-one"}}));
    EXPECT_FALSE(request(0).headers.contains("authorization"));
    EXPECT_EQ(chain->source(), "role arn:aws:iam::3:role/pod with the web identity token in " + token_file());
}

TEST_F(WebIdentityTest, the_token_file_is_read_for_each_exchange) {
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "SESSION1");
    write(token_file(), "token-two");
    chain.pass(50min);
    chain.ask();
    chain.settle();
    EXPECT_EQ(chain.key_id(), "SESSION2");
    EXPECT_EQ(form_of(request(1))["WebIdentityToken"], "token-two");
}

TEST_F(WebIdentityTest, a_token_file_that_is_missing_or_empty_is_named_and_looked_at_again) {
    std::filesystem::remove(token_file());
    ChainUnderTest chain({});
    EXPECT_EQ(chain.refusal().message,
              "web identity token file " + token_file() + ": No such file or directory");
    EXPECT_EQ(chain.refusal().code, "WebIdentityTokenFile");
    write(token_file(), " \n");
    chain.pass(60s);
    EXPECT_EQ(chain.refusal().message, "web identity token file " + token_file() + ": is empty");
    write(token_file(), "token\x01");
    chain.pass(60s);
    EXPECT_TRUE(contains(chain.refusal().message, "is no token"));
    write(token_file(), "token-one");
    chain.pass(60s);
    EXPECT_EQ(chain.key_id(), "SESSION1");
}

TEST_F(WebIdentityTest, a_refusal_does_not_show_the_token) {
    refusal_ = refusal("InvalidIdentityToken", "Incorrect token audience", 400);
    ChainUnderTest chain({});
    const NoCredentials none = chain.refusal();
    EXPECT_EQ(none.code, "WebIdentity");
    EXPECT_TRUE(contains(none.message, "InvalidIdentityToken: Incorrect token audience"));
    EXPECT_FALSE(contains(none.message + none.detail, "token-one"));
}

TEST_F(WebIdentityTest, keys_in_the_environment_come_before_it_and_files_after) {
    write(credentials(), "[default]\n" + keys("FILE", "s"));
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "SESSION1");
    set("AWS_ACCESS_KEY_ID", "ENV");
    set("AWS_SECRET_ACCESS_KEY", "s");
    EXPECT_EQ(chain.key_id(), "ENV");
}

TEST_F(WebIdentityTest, a_token_file_without_a_role_is_an_error) {
    unsetenv("AWS_ROLE_ARN");
    ChainUnderTest chain({});
    EXPECT_EQ(chain.refusal().message, "AWS_WEB_IDENTITY_TOKEN_FILE is set but AWS_ROLE_ARN is not");
}

TEST_F(WebIdentityTest, a_profile_can_have_a_token_file_and_other_roles_on_top) {
    unsetenv("AWS_WEB_IDENTITY_TOKEN_FILE");
    write(config(), "[profile pod]\nrole_arn = r:pod\nweb_identity_token_file = " + token_file() +
                        "\nrole_session_name = me\n[profile top]\nrole_arn = r:top\nsource_profile = pod\n");
    ChainUnderTest chain(profile("top"));
    EXPECT_EQ(chain.key_id(), "SESSION2");
    EXPECT_EQ(form_of(request(0))["WebIdentityToken"], "token-one");
    EXPECT_EQ(form_of(request(0))["RoleSessionName"], "me");
    expect_signed(request(1), {"SESSION1", "secret1", "token1"});
}

} // namespace
} // namespace sqs_ingest
