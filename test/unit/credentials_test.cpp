// The credentials chain against files and an environment of the test's own.
#include "net/credentials.h"

#include "aws_environment.h"
#include "chain_under_test.h"

#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sqs_ingest {
namespace {

namespace fs = std::filesystem;
using test::ChainUnderTest;

class CredentialsTest : public test::AwsEnvironment {};

CredentialsOptions profile(const std::string& name) {
    return {.profile = name, .config_file = "", .credentials_file = ""};
}

std::string keys(const std::string& id, const std::string& secret = "s3cret") {
    return "aws_access_key_id = " + id + "\naws_secret_access_key = " + secret + "\n";
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != text.npos;
}

TEST_F(CredentialsTest, the_environment_comes_first) {
    write(credentials(), "[default]\n" + keys("FILE"));
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    setenv("AWS_SESSION_TOKEN", "token", 1);
    ChainUnderTest chain({});
    EXPECT_EQ(chain.found().access_key_id, "ENV");
    EXPECT_EQ(chain.found().secret_access_key, "secret");
    EXPECT_EQ(chain.found().session_token, "token");
}

TEST_F(CredentialsTest, an_empty_variable_counts_as_unset) {
    write(credentials(), "[default]\n" + keys("FILE"));
    setenv("AWS_ACCESS_KEY_ID", "", 1);
    setenv("AWS_PROFILE", "", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "", 1);
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "FILE");
}

TEST_F(CredentialsTest, a_key_without_its_secret_in_the_environment_is_an_error) {
    write(credentials(), "[default]\n" + keys("FILE"));
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    ChainUnderTest chain({});
    EXPECT_EQ(chain.refusal().message, "AWS_ACCESS_KEY_ID is set but AWS_SECRET_ACCESS_KEY is not");
}

TEST_F(CredentialsTest, keys_that_no_header_can_hold_are_refused_unquoted) {
    setenv("AWS_ACCESS_KEY_ID", "ENV\r\nhost: other", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    ChainUnderTest chain({});
    EXPECT_EQ(chain.refusal().message,
              "AWS_ACCESS_KEY_ID or AWS_SESSION_TOKEN has characters that no HTTP header can hold");
    unsetenv("AWS_ACCESS_KEY_ID");
    write(credentials(), "[default]\n" + keys("ID") + "aws_session_token = t\xC3\xB6ken\n");
    EXPECT_EQ(chain.refusal().message, "profile \"default\" has characters in its aws_access_key_id or "
                                       "aws_session_token that no HTTP header can hold");
}

TEST_F(CredentialsTest, a_profile_in_the_options_silences_the_environment) {
    write(credentials(), "[ops]\n" + keys("OPS"));
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    setenv("AWS_PROFILE", "other", 1);
    ChainUnderTest chain(profile("ops"));
    EXPECT_EQ(chain.key_id(), "OPS");
}

TEST_F(CredentialsTest, aws_profile_names_the_profile_but_keys_in_the_environment_win) {
    write(credentials(), "[default]\n" + keys("DEFAULT") + "[ops]\n" + keys("OPS"));
    setenv("AWS_PROFILE", "ops", 1);
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "OPS");
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    EXPECT_EQ(chain.key_id(), "ENV");
}

TEST_F(CredentialsTest, the_credentials_file_wins_over_the_config_file) {
    write(config(), "[profile ops]\n" + keys("CONFIG"));
    write(credentials(), "[ops]\n" + keys("CREDENTIALS"));
    ChainUnderTest chain(profile("ops"));
    EXPECT_EQ(chain.key_id(), "CREDENTIALS");
}

TEST_F(CredentialsTest, the_config_file_serves_when_the_credentials_file_has_no_keys) {
    write(config(), "[profile ops]\n" + keys("CONFIG") + "aws_session_token = token\n");
    write(credentials(), "[ops]\nregion = eu-west-1\n");
    ChainUnderTest chain(profile("ops"));
    EXPECT_EQ(chain.key_id(), "CONFIG");
    EXPECT_EQ(chain.found().session_token, "token");
}

TEST_F(CredentialsTest, in_the_config_file_only_the_default_profile_goes_without_its_prefix) {
    write(config(), "[default]\n" + keys("DEFAULT") + "[ops]\n" + keys("BARE"));
    ChainUnderTest plain({});
    EXPECT_EQ(plain.key_id(), "DEFAULT");
    ChainUnderTest named(profile("ops"));
    EXPECT_TRUE(contains(named.refusal().message, "is in neither"));

    write(config(), "[default]\n" + keys("DEFAULT") + "[profile default]\n" + keys("PREFIXED"));
    EXPECT_EQ(plain.key_id(), "PREFIXED");
}

TEST_F(CredentialsTest, files_can_be_named_by_options_or_variables) {
    write(home_ / "from_option", "[default]\n" + keys("OPTION"));
    write(home_ / "from_variable", "[default]\n" + keys("VARIABLE"));
    setenv("AWS_SHARED_CREDENTIALS_FILE", "~/from_variable", 1);
    ChainUnderTest by_variable({});
    EXPECT_EQ(by_variable.key_id(), "VARIABLE");
    ChainUnderTest by_option({.profile = "", .config_file = "", .credentials_file = home_ / "from_option"});
    EXPECT_EQ(by_option.key_id(), "OPTION");
}

TEST_F(CredentialsTest, without_home_the_home_directory_of_the_user_is_taken) {
    unsetenv("HOME");
    ChainUnderTest chain(profile("no-such-profile"));
    EXPECT_TRUE(contains(chain.refusal().detail, "/.aws/credentials"));
}

TEST_F(CredentialsTest, nothing_found_names_every_place) {
    ChainUnderTest chain({});
    const NoCredentials none = chain.refusal();
    EXPECT_EQ(none.message, "no AWS credentials were found");
    EXPECT_EQ(none.code, "NoCredentials");
    EXPECT_EQ(none.detail,
              "the environment: neither AWS_ACCESS_KEY_ID nor AWS_WEB_IDENTITY_TOKEN_FILE is set\n" +
                  credentials().string() + ": No such file or directory\n" + config().string() +
                  ": No such file or directory\n"
                  "the environment: neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor _FULL_URI is set\n"
                  "instance metadata: not asked, AWS_EC2_METADATA_DISABLED is \"true\"");
}

TEST_F(CredentialsTest, a_profile_that_is_not_there_is_named_with_the_files) {
    write(credentials(), "[default]\n" + keys("DEFAULT"));
    ChainUnderTest chain(profile("opz"));
    EXPECT_EQ(chain.refusal().message,
              "profile \"opz\" is in neither " + credentials().string() + " nor " + config().string());
    EXPECT_TRUE(contains(chain.refusal().detail, credentials().string() + ": has no profile \"opz\""));
}

TEST_F(CredentialsTest, half_a_key_pair_is_an_error) {
    write(config(), "[default]\n" + keys("CONFIG"));
    write(credentials(), "[default]\naws_access_key_id = HALF\n");
    ChainUnderTest chain({});
    EXPECT_EQ(chain.refusal().message, "profile \"default\" has no aws_secret_access_key");
    EXPECT_EQ(chain.refusal().detail, credentials().string());

    write(credentials(), "[default]\naws_secret_access_key = hidden\naws_access_key_id =\n");
    EXPECT_EQ(chain.refusal().message, "profile \"default\" has no aws_access_key_id");
    EXPECT_FALSE(contains(chain.refusal().detail, "hidden"));
}

TEST_F(CredentialsTest, a_rewritten_file_is_read_again) {
    ChainUnderTest chain({});
    EXPECT_EQ(chain.refusal().message, "no AWS credentials were found");
    write(credentials(), "[default]\n" + keys("FIRST"));
    EXPECT_EQ(chain.key_id(), "FIRST");
    write(credentials(), "[default]\n" + keys("SECOND"));
    EXPECT_EQ(chain.key_id(), "SECOND");
    fs::remove(credentials());
    EXPECT_EQ(chain.refusal().message, "no AWS credentials were found");
}

TEST_F(CredentialsTest, a_file_replaced_by_another_of_the_same_size_and_time_is_read_again) {
    write(credentials(), "[default]\n" + keys("AAAA"));
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "AAAA");
    write(home_ / "new", "[default]\n" + keys("BBBB"));
    fs::last_write_time(home_ / "new", fs::last_write_time(credentials()));
    fs::rename(home_ / "new", credentials());
    EXPECT_EQ(chain.key_id(), "BBBB");
}

constexpr auto kRest = std::chrono::seconds(2);

void write_long_ago(const fs::path& file, const std::string& text) {
    std::ofstream(file) << text;
    fs::last_write_time(file, fs::file_time_type::clock::now() - kRest);
}

TEST_F(CredentialsTest, a_file_in_the_middle_of_a_write_is_not_read) {
    const std::string whole = "[default]\n" + keys("OLD") + "aws_session_token = token\n";
    write_long_ago(credentials(), whole);
    write_long_ago(config(), "[default]\nregion = eu-west-1\nendpoint_url = http://localhost:4566\n");
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "OLD");
    for (const std::size_t written : {std::size_t{0}, whole.size() - 30, whole.find("aws_session_token")}) {
        write(credentials(), whole.substr(0, written));
        EXPECT_EQ(chain.found(), (Credentials{"OLD", "s3cret", "token"})) << written;
    }
    write(config(), "");
    EXPECT_EQ(std::get<std::string>(chain.region()), "eu-west-1");
    EXPECT_EQ(chain->config().endpoint_url("sqs").value()->origin(), "http://localhost:4566");

    write(credentials(), "[default]\n" + keys("NEW"));
    EXPECT_EQ(chain.key_id(), "OLD");
    chain.pass(kRest);
    EXPECT_EQ(chain.key_id(), "NEW");
    EXPECT_TRUE(std::holds_alternative<NoRegion>(chain.region()));
}

TEST_F(CredentialsTest, what_was_read_of_a_file_that_did_not_rest_gives_way_at_once) {
    write(credentials(), "[default]\n" + keys("FIRST").substr(0, 30));
    ChainUnderTest chain({});
    EXPECT_EQ(chain.refusal().message, "profile \"default\" has no aws_secret_access_key");
    write(credentials(), "[default]\n" + keys("SECOND"));
    EXPECT_EQ(chain.key_id(), "SECOND");
}

TEST_F(CredentialsTest, a_file_that_comes_or_goes_counts_at_once) {
    write_long_ago(credentials(), "[default]\n" + keys("KEY"));
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "KEY");
    fs::remove(credentials());
    EXPECT_EQ(chain.refusal().message, "no AWS credentials were found");
    write(credentials(), "[default]\n" + keys("OTHER"));
    EXPECT_EQ(chain.key_id(), "OTHER");
}

TEST_F(CredentialsTest, after_a_refusal_a_file_that_does_not_rest_is_read) {
    write_long_ago(credentials(), "[default]\n" + keys("OLD"));
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "OLD");
    write(credentials(), "[default]\n" + keys("NEW"));
    EXPECT_EQ(chain.key_id(), "OLD");
    chain->refused("OLD", chain.now());
    EXPECT_EQ(chain.key_id(), "NEW");
}

TEST_F(CredentialsTest, the_time_of_another_clock_keeps_nothing_waiting) {
    write_long_ago(credentials(), "[default]\n" + keys("AAAA"));
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "AAAA");
    write(credentials(), "[default]\n" + keys("BBBB"));
    fs::last_write_time(credentials(), fs::file_time_type::clock::now() + std::chrono::hours(1));
    EXPECT_EQ(chain.key_id(), "BBBB");
}

TEST_F(CredentialsTest, after_a_refusal_a_file_that_looks_unchanged_is_read_again) {
    write(credentials(), "[default]\n" + keys("AAAA"));
    ChainUnderTest chain({});
    EXPECT_EQ(chain.key_id(), "AAAA");
    const auto time = fs::last_write_time(credentials());
    write(credentials(), "[default]\n" + keys("BBBB"));
    fs::last_write_time(credentials(), time);
    EXPECT_EQ(chain.key_id(), "AAAA");
    chain->refused("AAAA", chain.now());
    EXPECT_EQ(chain.key_id(), "BBBB");
}

TEST_F(CredentialsTest, what_is_no_ordinary_file_is_not_read) {
    ASSERT_EQ(mkfifo(credentials().c_str(), 0600), 0); // reading it would block for ever
    fs::create_directory(config());
    ChainUnderTest chain({});
    const std::string detail = chain.refusal().detail;
    EXPECT_TRUE(contains(detail, credentials().string() + ": is not a regular file"));
    EXPECT_TRUE(contains(detail, config().string() + ": is not a regular file"));
}

TEST_F(CredentialsTest, a_file_too_large_to_be_profiles_is_not_read) {
    write(credentials(), "[default]\n" + keys("KEY") + std::string(2 << 20, '#'));
    ChainUnderTest chain({});
    EXPECT_TRUE(contains(chain.refusal().detail, "is larger than 1 MiB"));
}

TEST_F(CredentialsTest, an_unreadable_file_is_named_with_the_reason) {
    write(credentials(), "[default]\n" + keys("KEY"));
    fs::permissions(credentials(), fs::perms::none);
    ChainUnderTest chain({});
    // Root reads everything: it looks as nobody, for as long as that takes.
    const bool root = geteuid() == 0;
    constexpr uid_t kNobody = 65534;
    if (root) {
        for (const auto& directory : {home_, home_ / ".aws"})
            fs::permissions(directory, fs::perms::all);
        ASSERT_EQ(seteuid(kNobody), 0);
    }
    const auto refusal = chain.refusal();
    if (root) {
        ASSERT_EQ(seteuid(0), 0);
    }
    EXPECT_TRUE(contains(refusal.detail, credentials().string() + ": Permission denied")) << refusal.detail;
}

TEST_F(CredentialsTest, a_region_that_is_none_goes_nowhere) {
    for (const char* region : {"x.evil.org/", "us-east-1\r\nhost: x"}) {
        CredentialsOptions options;
        options.region = region;
        ChainUnderTest configured(options);
        EXPECT_TRUE(contains(std::get<NoRegion>(configured.region()).message, "is none")) << region;
        setenv("AWS_REGION", region, 1);
        ChainUnderTest in_environment({});
        EXPECT_TRUE(std::holds_alternative<NoRegion>(in_environment.region())) << region;
        unsetenv("AWS_REGION");
    }
}

TEST_F(CredentialsTest, the_region_comes_from_the_environment_before_the_profile) {
    write(config(), "[default]\nregion = eu-west-1\n[profile ops]\nregion = eu-west-2\n");
    ChainUnderTest plain({});
    ChainUnderTest named(profile("ops"));
    EXPECT_EQ(std::get<std::string>(plain.region()), "eu-west-1");
    EXPECT_EQ(std::get<std::string>(named.region()), "eu-west-2");
    setenv("AWS_DEFAULT_REGION", "us-east-2", 1);
    EXPECT_EQ(std::get<std::string>(named.region()), "us-east-2");
    setenv("AWS_REGION", "us-east-1", 1);
    EXPECT_EQ(std::get<std::string>(named.region()), "us-east-1");
}

TEST_F(CredentialsTest, without_any_region_there_is_none) {
    ChainUnderTest chain({});
    EXPECT_EQ(std::get<NoRegion>(chain.region()).message, "no AWS region is configured");
}

TEST(ProfileFileTest, sections_keys_and_values_are_trimmed) {
    const ProfileFile file =
        parse_profile_file("[default]\nregion=eu-west-1\n  \n"
                           "[ profile \t ops ]\r\n Region \t=  us-east-1 \r\nempty =\r\n");
    EXPECT_EQ(file, (ProfileFile{{"default", {{"region", "eu-west-1"}}},
                                 {"profile ops", {{"region", "us-east-1"}, {"empty", ""}}}}));
}

TEST(ProfileFileTest, a_quoted_name_is_what_stands_between_the_quotes) {
    const ProfileFile file = parse_profile_file("[profile 'my dev']\nx = 1\n[ profile  \"my  ops\" ]\nx = 2\n"
                                                "[services \"a\"]\n[profile it's]\n[profile \"]\n['b']\n");
    EXPECT_EQ(file, (ProfileFile{{"profile my dev", {{"x", "1"}}},
                                 {"profile my  ops", {{"x", "2"}}},
                                 {"services a", {}},
                                 {"profile it's", {}},
                                 {"profile \"", {}},
                                 {"'b'", {}}}));
}

TEST(ProfileFileTest, comments_are_skipped) {
    const ProfileFile file =
        parse_profile_file("# one\n; two\n[a] ; three\nx = 1 # four\n  # five\ny = 2\t; six\n"
                           "z = a#b;c\nempty = # seven\n");
    EXPECT_EQ(file, (ProfileFile{{"a", {{"x", "1"}, {"y", "2"}, {"z", "a#b;c"}, {"empty", ""}}}}));
}

TEST(ProfileFileTest, keys_of_a_nested_block_have_its_name_before_them) {
    const ProfileFile file = parse_profile_file("[services x]\nsqs =\n  endpoint_url = http://a\n"
                                                "  Other = 1 # one\nregion = outer\n");
    EXPECT_EQ(
        file,
        (ProfileFile{
            {"services x",
             {{"sqs", ""}, {"sqs.endpoint_url", "http://a"}, {"sqs.other", "1"}, {"region", "outer"}}}}));
}

TEST(ProfileFileTest, a_values_further_lines_are_skipped) {
    const ProfileFile file = parse_profile_file("[a]\nx = 1\n  y = 2\n  three\nz = 3\n");
    EXPECT_EQ(file, (ProfileFile{{"a", {{"x", "1"}, {"z", "3"}}}}));
}

TEST(ProfileFileTest, keys_may_all_be_indented) {
    const ProfileFile file = parse_profile_file("[a]\n    x = 1\n    y = 2\n[b]\n  x = 3\n");
    EXPECT_EQ(file, (ProfileFile{{"a", {{"x", "1"}, {"y", "2"}}}, {"b", {{"x", "3"}}}}));
}

TEST(ProfileFileTest, a_repeated_section_adds_and_a_repeated_key_replaces) {
    const ProfileFile file = parse_profile_file("[a]\nx = 1\n[b]\n[a]\nx = 2\ny = 3\n");
    EXPECT_EQ(file, (ProfileFile{{"a", {{"x", "2"}, {"y", "3"}}}, {"b", {}}}));
}

TEST(ProfileFileTest, what_nobody_understands_is_skipped) {
    const ProfileFile file = parse_profile_file("x = before any section\n[a]\nno equals sign\nx = 1\n"
                                                "[broken\nx = 2\n[b]\nx = 3");
    EXPECT_EQ(file, (ProfileFile{{"a", {{"x", "1"}}}, {"b", {{"x", "3"}}}}));
}

TEST(ProfileFileTest, a_byte_order_mark_is_skipped) {
    EXPECT_EQ(parse_profile_file("\xEF\xBB\xBF[a]\nx = 1"), (ProfileFile{{"a", {{"x", "1"}}}}));
}

TEST(ProfileFileTest, a_value_may_hold_an_equals_sign) {
    EXPECT_EQ(parse_profile_file("[a]\nx = ab/c+d=="), (ProfileFile{{"a", {{"x", "ab/c+d=="}}}}));
}

TEST(ProfileFileTest, nothing_is_no_profile) {
    EXPECT_TRUE(parse_profile_file("").empty());
    EXPECT_TRUE(parse_profile_file("\n\n").empty());
    EXPECT_TRUE(parse_profile_file(std::string_view("\0\0\0", 3)).empty());
}

} // namespace
} // namespace sqs_ingest
