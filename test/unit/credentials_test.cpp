// The credentials chain against files and an environment of the test's own.
#include "net/credentials.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sqs_ingest {
namespace {

namespace fs = std::filesystem;

class CredentialsTest : public testing::Test {
  protected:
    void SetUp() override {
        for (const char* name :
             {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
              "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_REGION", "AWS_DEFAULT_REGION"})
            unsetenv(name);
        std::string name = testing::TempDir() + "credentials-XXXXXX";
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        home_ = name;
        fs::create_directory(home_ / ".aws");
        if (const char* home = getenv("HOME"))
            home_before_ = home;
        setenv("HOME", home_.c_str(), 1);
    }

    void TearDown() override {
        setenv("HOME", home_before_.c_str(), 1);
        fs::remove_all(home_);
    }

    fs::path config() const { return home_ / ".aws/config"; }
    fs::path credentials() const { return home_ / ".aws/credentials"; }

    static void write(const fs::path& file, const std::string& text) { std::ofstream(file) << text; }

    static Credentials found(CredentialsChain& chain) {
        auto result = chain.get();
        return result.ok() ? result.value()
                           : Credentials{"ERROR", result.error().message, result.error().detail};
    }

    static NoCredentials refused(CredentialsChain& chain) {
        auto result = chain.get();
        return result.ok() ? NoCredentials{"there were some", ""} : result.error();
    }

    static std::string key_id(CredentialsChain& chain) { return found(chain).access_key_id; }

    fs::path home_;
    std::string home_before_;
};

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
    CredentialsChain chain({});
    EXPECT_EQ(found(chain).access_key_id, "ENV");
    EXPECT_EQ(found(chain).secret_access_key, "secret");
    EXPECT_EQ(found(chain).session_token, "token");
}

TEST_F(CredentialsTest, an_empty_variable_counts_as_unset) {
    write(credentials(), "[default]\n" + keys("FILE"));
    setenv("AWS_ACCESS_KEY_ID", "", 1);
    setenv("AWS_PROFILE", "", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "", 1);
    CredentialsChain chain({});
    EXPECT_EQ(key_id(chain), "FILE");
}

TEST_F(CredentialsTest, a_key_without_its_secret_in_the_environment_is_an_error) {
    write(credentials(), "[default]\n" + keys("FILE"));
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    CredentialsChain chain({});
    EXPECT_EQ(refused(chain).message, "AWS_ACCESS_KEY_ID is set but AWS_SECRET_ACCESS_KEY is not");
}

TEST_F(CredentialsTest, a_profile_in_the_options_silences_the_environment) {
    write(credentials(), "[ops]\n" + keys("OPS"));
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    setenv("AWS_PROFILE", "other", 1);
    CredentialsChain chain(profile("ops"));
    EXPECT_EQ(key_id(chain), "OPS");
}

TEST_F(CredentialsTest, aws_profile_names_the_profile_but_keys_in_the_environment_win) {
    write(credentials(), "[default]\n" + keys("DEFAULT") + "[ops]\n" + keys("OPS"));
    setenv("AWS_PROFILE", "ops", 1);
    CredentialsChain chain({});
    EXPECT_EQ(key_id(chain), "OPS");
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    EXPECT_EQ(key_id(chain), "ENV");
}

TEST_F(CredentialsTest, the_credentials_file_wins_over_the_config_file) {
    write(config(), "[profile ops]\n" + keys("CONFIG"));
    write(credentials(), "[ops]\n" + keys("CREDENTIALS"));
    CredentialsChain chain(profile("ops"));
    EXPECT_EQ(key_id(chain), "CREDENTIALS");
}

TEST_F(CredentialsTest, the_config_file_serves_when_the_credentials_file_has_no_keys) {
    write(config(), "[profile ops]\n" + keys("CONFIG") + "aws_session_token = token\n");
    write(credentials(), "[ops]\nregion = eu-west-1\n");
    CredentialsChain chain(profile("ops"));
    EXPECT_EQ(key_id(chain), "CONFIG");
    EXPECT_EQ(found(chain).session_token, "token");
}

TEST_F(CredentialsTest, in_the_config_file_only_the_default_profile_goes_without_its_prefix) {
    write(config(), "[default]\n" + keys("DEFAULT") + "[ops]\n" + keys("BARE"));
    CredentialsChain plain({});
    EXPECT_EQ(key_id(plain), "DEFAULT");
    CredentialsChain named(profile("ops"));
    EXPECT_FALSE(named.get().ok());

    write(config(), "[default]\n" + keys("DEFAULT") + "[profile default]\n" + keys("PREFIXED"));
    plain.refresh();
    EXPECT_EQ(key_id(plain), "PREFIXED");
}

TEST_F(CredentialsTest, files_can_be_named_by_options_or_variables) {
    write(home_ / "from_option", "[default]\n" + keys("OPTION"));
    write(home_ / "from_variable", "[default]\n" + keys("VARIABLE"));
    setenv("AWS_SHARED_CREDENTIALS_FILE", "~/from_variable", 1);
    CredentialsChain by_variable({});
    EXPECT_EQ(key_id(by_variable), "VARIABLE");
    CredentialsChain by_option({.profile = "", .config_file = "", .credentials_file = home_ / "from_option"});
    EXPECT_EQ(key_id(by_option), "OPTION");
}

TEST_F(CredentialsTest, without_home_the_home_directory_of_the_user_is_taken) {
    unsetenv("HOME");
    CredentialsChain chain(profile("no-such-profile"));
    EXPECT_TRUE(contains(refused(chain).detail, "/.aws/credentials"));
}

TEST_F(CredentialsTest, nothing_found_names_every_place) {
    CredentialsChain chain({});
    const NoCredentials none = refused(chain);
    EXPECT_EQ(none.message, "no AWS credentials were found");
    EXPECT_EQ(none.detail, "the environment: AWS_ACCESS_KEY_ID is not set\n" + credentials().string() +
                               ": No such file or directory\n" + config().string() +
                               ": No such file or directory");
}

TEST_F(CredentialsTest, a_profile_that_is_not_there_is_named_with_the_files) {
    write(credentials(), "[default]\n" + keys("DEFAULT"));
    CredentialsChain chain(profile("opz"));
    EXPECT_EQ(refused(chain).message,
              "profile \"opz\" is in neither " + credentials().string() + " nor " + config().string());
    EXPECT_TRUE(contains(refused(chain).detail, credentials().string() + ": has no profile \"opz\""));
}

TEST_F(CredentialsTest, half_a_key_pair_is_an_error) {
    write(config(), "[default]\n" + keys("CONFIG"));
    write(credentials(), "[default]\naws_access_key_id = HALF\n");
    CredentialsChain chain({});
    EXPECT_EQ(refused(chain).message, "profile \"default\" has no aws_secret_access_key");
    EXPECT_EQ(refused(chain).detail, credentials().string());

    write(credentials(), "[default]\naws_secret_access_key = hidden\naws_access_key_id =\n");
    chain.refresh();
    EXPECT_EQ(refused(chain).message, "profile \"default\" has no aws_access_key_id");
    EXPECT_FALSE(contains(refused(chain).detail, "hidden"));
}

TEST_F(CredentialsTest, a_profile_of_an_unsupported_kind_is_said_to_be_one) {
    write(config(), "[profile ops]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n");
    CredentialsChain chain(profile("ops"));
    EXPECT_EQ(refused(chain).message, "profile \"ops\" has no aws_access_key_id");
    EXPECT_TRUE(contains(refused(chain).detail, "uses role_arn, which is not supported"));
}

TEST_F(CredentialsTest, a_rewritten_file_is_read_again) {
    CredentialsChain chain({});
    EXPECT_FALSE(chain.get().ok());
    write(credentials(), "[default]\n" + keys("FIRST"));
    EXPECT_EQ(key_id(chain), "FIRST");
    write(credentials(), "[default]\n" + keys("SECOND"));
    EXPECT_EQ(key_id(chain), "SECOND");
    fs::remove(credentials());
    EXPECT_FALSE(chain.get().ok());
}

TEST_F(CredentialsTest, a_file_replaced_by_another_of_the_same_size_and_time_is_read_again) {
    write(credentials(), "[default]\n" + keys("AAAA"));
    CredentialsChain chain({});
    EXPECT_EQ(key_id(chain), "AAAA");
    write(home_ / "new", "[default]\n" + keys("BBBB"));
    fs::last_write_time(home_ / "new", fs::last_write_time(credentials()));
    fs::rename(home_ / "new", credentials());
    EXPECT_EQ(key_id(chain), "BBBB");
}

TEST_F(CredentialsTest, refresh_reads_a_file_that_looks_unchanged) {
    write(credentials(), "[default]\n" + keys("AAAA"));
    CredentialsChain chain({});
    EXPECT_EQ(key_id(chain), "AAAA");
    const auto time = fs::last_write_time(credentials());
    write(credentials(), "[default]\n" + keys("BBBB"));
    fs::last_write_time(credentials(), time);
    EXPECT_EQ(key_id(chain), "AAAA");
    chain.refresh();
    EXPECT_EQ(key_id(chain), "BBBB");
}

TEST_F(CredentialsTest, what_is_no_ordinary_file_is_not_read) {
    ASSERT_EQ(mkfifo(credentials().c_str(), 0600), 0); // reading it would block for ever
    fs::create_directory(config());
    CredentialsChain chain({});
    const std::string detail = refused(chain).detail;
    EXPECT_TRUE(contains(detail, credentials().string() + ": is not a regular file"));
    EXPECT_TRUE(contains(detail, config().string() + ": is not a regular file"));
}

TEST_F(CredentialsTest, a_file_too_large_to_be_profiles_is_not_read) {
    write(credentials(), "[default]\n" + keys("KEY") + std::string(2 << 20, '#'));
    CredentialsChain chain({});
    EXPECT_TRUE(contains(refused(chain).detail, "is larger than 1 MiB"));
}

TEST_F(CredentialsTest, an_unreadable_file_is_named_with_the_reason) {
    write(credentials(), "[default]\n" + keys("KEY"));
    fs::permissions(credentials(), fs::perms::none);
    CredentialsChain chain({});
    // Root reads everything: it looks as nobody, for as long as that takes.
    const bool root = geteuid() == 0;
    constexpr uid_t kNobody = 65534;
    if (root) {
        for (const auto& directory : {home_, home_ / ".aws"})
            fs::permissions(directory, fs::perms::all);
        ASSERT_EQ(seteuid(kNobody), 0);
    }
    const auto refusal = refused(chain);
    if (root) {
        ASSERT_EQ(seteuid(0), 0);
    }
    EXPECT_TRUE(contains(refusal.detail, credentials().string() + ": Permission denied")) << refusal.detail;
}

TEST_F(CredentialsTest, the_region_comes_from_the_environment_before_the_profile) {
    write(config(), "[default]\nregion = eu-west-1\n[profile ops]\nregion = eu-west-2\n");
    CredentialsChain plain({});
    CredentialsChain named(profile("ops"));
    EXPECT_EQ(plain.region(), "eu-west-1");
    EXPECT_EQ(named.region(), "eu-west-2");
    setenv("AWS_DEFAULT_REGION", "us-east-2", 1);
    EXPECT_EQ(named.region(), "us-east-2");
    setenv("AWS_REGION", "us-east-1", 1);
    EXPECT_EQ(named.region(), "us-east-1");
}

TEST_F(CredentialsTest, without_any_region_there_is_none) {
    CredentialsChain chain({});
    EXPECT_EQ(chain.region(), std::nullopt);
}

TEST(ProfileFileTest, sections_keys_and_values_are_trimmed) {
    const ProfileFile file =
        parse_profile_file("[default]\nregion=eu-west-1\n  \n"
                           "[ profile \t ops ]\r\n Region \t=  us-east-1 \r\nempty =\r\n");
    EXPECT_EQ(file, (ProfileFile{{"default", {{"region", "eu-west-1"}}},
                                 {"profile ops", {{"region", "us-east-1"}, {"empty", ""}}}}));
}

TEST(ProfileFileTest, comments_are_skipped) {
    const ProfileFile file =
        parse_profile_file("# one\n; two\n[a] ; three\nx = 1 # four\n  # five\ny = 2\t; six\n"
                           "z = a#b;c\nempty = # seven\n");
    EXPECT_EQ(file, (ProfileFile{{"a", {{"x", "1"}, {"y", "2"}, {"z", "a#b;c"}, {"empty", ""}}}}));
}

TEST(ProfileFileTest, nested_blocks_are_skipped) {
    const ProfileFile file = parse_profile_file("[default]\ns3 =\n  region = nested\n  max_queue_size = 1\n"
                                                "region = outer\n");
    EXPECT_EQ(file, (ProfileFile{{"default", {{"s3", ""}, {"region", "outer"}}}}));
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
