// An environment of the test's own: no AWS variable, no proxy, and a home directory that goes with the test.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <vector>

extern char** environ;

namespace sqs_ingest::test {

class AwsEnvironment : public testing::Test {
  protected:
    void SetUp() override {
        clear();
        std::string name = testing::TempDir() + "aws-XXXXXX";
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        home_ = name;
        std::filesystem::create_directory(home_ / ".aws");
        if (const char* home = getenv("HOME"))
            home_before_ = home;
        set("HOME", home_.string());
        set("AWS_EC2_METADATA_DISABLED", "true"); // the machine may have it
    }

    void TearDown() override {
        clear();
        set("HOME", home_before_);
        set("no_proxy", "*"); // for the tests that follow
        std::filesystem::remove_all(home_);
    }

    static void set(const char* name, const std::string& value) { setenv(name, value.c_str(), 1); }

    std::filesystem::path config() const { return home_ / ".aws/config"; }
    std::filesystem::path credentials() const { return home_ / ".aws/credentials"; }

    static void write(const std::filesystem::path& file, const std::string& text) {
        std::ofstream(file) << text;
    }

    std::filesystem::path home_;

  private:
    static void clear() {
        std::vector<std::string> names;
        for (char** entry = environ; *entry != nullptr; ++entry) {
            const std::string name(*entry, std::string(*entry).find('='));
            const std::string lower = name.size() > 6 ? name.substr(name.size() - 6) : "";
            if (name.starts_with("AWS_") || lower == "_proxy" || lower == "_PROXY")
                names.push_back(name);
        }
        for (const std::string& name : names)
            unsetenv(name.c_str());
    }

    std::string home_before_;
};

} // namespace sqs_ingest::test
