// credential_process: real children of /bin/sh, that behave and misbehave.
#include "net/child_process.h"
#include "net/credentials.h"

#include "aws_environment.h"
#include "chain_under_test.h"

#include <csignal>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <thread>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;
using test::ChainUnderTest;

bool has_children() {
    siginfo_t info{};
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

// Not so when it is a zombie that its new parent has not asked after yet.
bool runs(pid_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string number, name, state;
    return file >> number >> name >> state && state != "Z" && state != "X";
}

class CredentialProcessTest : public test::AwsEnvironment {
  protected:
    void TearDown() override {
        EXPECT_FALSE(has_children()) << "a child was left behind, or a zombie";
        AwsEnvironment::TearDown();
    }

    // The script's own path is the command.
    CredentialsOptions script(const std::string& text) {
        const auto path = home_ / "script";
        write(path, "#!/bin/sh\n" + text);
        std::filesystem::permissions(path, std::filesystem::perms::owner_all);
        write(config(), "[profile p]\ncredential_process = " + path.string() + " --with 'an argument'\n");
        return {.profile = "p"};
    }
    std::string refused(const std::string& text) { return ChainUnderTest(script(text)).refusal().message; }
};

constexpr const char* kPrint =
    R"(echo '{"Version":1,"AccessKeyId":"PROC","SecretAccessKey":"s","SessionToken":"t"}')";

TEST_F(CredentialProcessTest, what_it_prints_are_the_credentials) {
    ChainUnderTest chain(script(kPrint));
    EXPECT_EQ(chain.found(), (Credentials{"PROC", "s", "t"}));
    EXPECT_EQ(chain->source(), "credential_process of profile \"p\"");
    EXPECT_FALSE(chain->expires_at_ms());
}

TEST_F(CredentialProcessTest, it_is_run_by_a_shell_with_its_arguments) {
    ChainUnderTest chain(
        script(R"(echo "{\"Version\":1,\"AccessKeyId\":\"$1-$#\",\"SecretAccessKey\":\"s\"}")"));
    EXPECT_EQ(chain.key_id(), "--with-2");
}

TEST_F(CredentialProcessTest, it_runs_once_while_nothing_expires_and_again_after_a_refusal) {
    ChainUnderTest chain(script("echo x >> " + (home_ / "runs").string() + "\n" + kPrint));
    const auto runs = [&] {
        std::ifstream file(home_ / "runs");
        return std::count(std::istreambuf_iterator<char>(file), {}, 'x');
    };
    for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(chain.key_id(), "PROC");
        chain.pass(24h);
    }
    EXPECT_EQ(runs(), 1);
    chain->refused("PROC", chain.now());
    EXPECT_EQ(chain.key_id(), "PROC");
    EXPECT_EQ(runs(), 2);
}

TEST_F(CredentialProcessTest, an_expiration_has_it_run_again_ahead_of_time) {
    const std::string path = (home_ / "n").string();
    ChainUnderTest chain(script("echo x >> " + path + "; n=$(wc -l < " + path + R"()
echo "{\"Version\":1,\"AccessKeyId\":\"PROC$n\",\"SecretAccessKey\":\"s\",\"Expiration\":\"$(date -u -d '+1 hour' +%FT%TZ)\"}")"));
    EXPECT_EQ(chain.key_id(), "PROC1");
    chain.pass(50min);
    EXPECT_EQ(std::get<Credentials>(chain.ask()).access_key_id, "PROC1");
    chain.settle();
    EXPECT_EQ(chain.key_id(), "PROC2");
}

TEST_F(CredentialProcessTest, failures_are_told_without_what_it_said) {
    EXPECT_EQ(refused("echo S3CRET >&2; echo S3CRET; exit 3"), "credential_process ended with exit status 3");
    EXPECT_EQ(refused("kill -SEGV $$"), "credential_process ended with exit status 139");
    EXPECT_EQ(refused("echo S3CRET"), "what credential_process printed is no JSON object");
    EXPECT_EQ(refused("exit 0"), "what credential_process printed is no JSON object");
    EXPECT_EQ(refused(R"(echo '{"Version":3,"SecretAccessKey":"S3CRET"}')"),
              "what credential_process printed has another Version than 1");
    EXPECT_EQ(refused("while :; do echo S3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRET; done"),
              "credential_process was killed: it printed more than 65536 bytes");
}

TEST_F(CredentialProcessTest, a_command_that_is_not_there_is_said) {
    write(config(), "[profile p]\ncredential_process = /no/such/program\n");
    EXPECT_EQ(ChainUnderTest({.profile = "p"}).refusal().message,
              "credential_process ended with exit status 127");
}

TEST_F(CredentialProcessTest, one_that_hangs_holds_nobody_up_and_ends_with_the_chain) {
    const std::string pid_file = (home_ / "pid").string();
    auto chain = std::make_unique<ChainUnderTest>(script("echo $$ > " + pid_file + ".new; mv " + pid_file +
                                                         ".new " + pid_file + "; sleep 1000 & sleep 1000"));
    for (const auto end = Moment::now().steady + 5s;
         !std::filesystem::exists(pid_file) && Moment::now().steady < end;) {
        EXPECT_TRUE(std::holds_alternative<BeingFetched>(chain->ask()));
        chain->turn();
    }
    pid_t pid = 0;
    std::ifstream(pid_file) >> pid;
    ASSERT_GT(pid, 0);
    ASSERT_EQ(kill(pid, 0), 0);
    EXPECT_NE(getpgid(pid), getpgid(0)) << "a group of its own";
    chain.reset();
    for (const auto end = Moment::now().steady + 5s; runs(pid) && Moment::now().steady < end;)
        std::this_thread::sleep_for(5ms);
    EXPECT_FALSE(runs(pid)) << "the shell's own children too";
}

TEST_F(CredentialProcessTest, one_that_hangs_is_killed_in_the_end) {
    ChainUnderTest chain(script("sleep 1000"));
    chain.ask();
    chain.pass(61s);
    EXPECT_EQ(chain.refusal().message, "credential_process was killed: it had not ended after 60 s");
}

TEST_F(CredentialProcessTest, one_that_closes_its_output_and_goes_on_is_waited_for) {
    ChainUnderTest chain(script(std::string(kPrint) + "\nexec >&-; sleep 0.2; exit 4"));
    EXPECT_EQ(chain.refusal().message, "credential_process ended with exit status 4");
}

// --- the child itself

class ChildProcessTest : public testing::Test {
  protected:
    static ChildProcess::End run(const std::string& command) {
        ChildProcess child(command, {}, std::chrono::steady_clock::now());
        for (const auto end = Moment::now().steady + 10s; Moment::now().steady < end;) {
            if (auto ended = child.poll(std::chrono::steady_clock::now()))
                return *ended;
            pollfd entry{child.descriptor(), POLLIN, 0};
            ::poll(&entry, 1, 10);
        }
        return {"", "it did not end"};
    }
    void TearDown() override { EXPECT_FALSE(has_children()); }
};

TEST_F(ChildProcessTest, it_has_no_descriptor_of_ours) {
    int leaked[2];
    ASSERT_EQ(pipe(leaked), 0); // without O_CLOEXEC
    const auto end = run("ls /proc/self/fd");
    EXPECT_EQ(end.output, "0\n1\n2\n3\n") << "the last is the directory that ls reads";
    close(leaked[0]);
    close(leaked[1]);
}

TEST_F(ChildProcessTest, its_signals_are_as_if_nobody_had_touched_them) {
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    const auto pipe_before = signal(SIGPIPE, SIG_IGN);
    const auto blocked_there = run("grep SigBlk /proc/self/status | cut -f2").output;
    const auto ignored_there = run("grep SigIgn /proc/self/status | cut -f2").output;
    signal(SIGPIPE, pipe_before);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    EXPECT_EQ(blocked_there, "0000000000000000\n");
    constexpr unsigned long kOfTheLibrary = 3ul << 31; // 32 and 33, which no program sets
    EXPECT_EQ(std::stoul(ignored_there, nullptr, 16) & ~kOfTheLibrary, 0u);
}

TEST_F(ChildProcessTest, its_end_is_told) {
    EXPECT_EQ(run("exit 7").failure, "ended with exit status 7");
    EXPECT_EQ(run("kill -SEGV $$").failure, "was killed by signal 11");
}

// In a container the postmaster has the number 1, and takes the violent end of a process that it does not
// know for the crash of a backend.
TEST_F(ChildProcessTest, what_it_has_started_is_ended_and_reaped_with_it) {
    const auto gone = [](const std::string& pid) { return kill(std::stoi(pid), 0) != 0 && errno == ESRCH; };
    const auto left = run("sleep 60 >/dev/null & echo $!");
    EXPECT_EQ(left.failure, "");
    EXPECT_TRUE(gone(left.output));

    const auto killed = run("sleep 60 >/dev/null & echo $! >child.pid; while :; do echo too much; done");
    EXPECT_NE(killed.failure.find("printed more than"), std::string::npos);
    std::ifstream file("child.pid");
    std::string pid;
    std::getline(file, pid);
    EXPECT_TRUE(gone(pid));
    std::remove("child.pid");
}

TEST_F(ChildProcessTest, its_input_is_empty) {
    EXPECT_EQ(run("cat; echo done").output, "done\n");
}

TEST_F(ChildProcessTest, where_children_are_reaped_by_themselves_its_output_counts) {
    const auto before = signal(SIGCHLD, SIG_IGN);
    const auto end = run("echo fine");
    signal(SIGCHLD, before);
    EXPECT_EQ(end.output, "fine\n");
    EXPECT_EQ(end.failure, "");
}

} // namespace
} // namespace sqs_ingest
