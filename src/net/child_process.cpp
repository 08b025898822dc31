#include "net/child_process.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;

constexpr auto kExitGrace = 20ms; // between two looks whether a child that closed its output has ended
constexpr auto kReapTime = 100ms; // a killed child is gone at once, unless the kernel itself is stuck

// --- children that live, for an exit that destroys nothing (a session that is terminated)

constexpr std::size_t kMostChildren = 8;
std::array<std::atomic<pid_t>, kMostChildren> living{};

// SIGKILL ends what runs, the child's own children too, and all of them are reaped here. Only what the kernel
// holds (a dead network file system) stays, and what has left the group.
void end_group(pid_t group) {
    kill(-group, SIGKILL);
    const auto give_up = std::chrono::steady_clock::now() + kReapTime;
    for (;;) {
        const pid_t ended = waitpid(-group, nullptr, WNOHANG);
        if (ended < 0 || std::chrono::steady_clock::now() >= give_up)
            return;
        if (ended == 0)
            std::this_thread::sleep_for(1ms);
    }
}

extern "C" {
static void end_the_living() {
    for (auto& pid : living)
        if (const pid_t group = pid.load(); group > 0)
            end_group(group);
}
}

// Orphans of the child come to us, not to the process with the number 1: in a container that is the
// postmaster, which takes the violent end of a process that it does not know for the crash of a backend.
void adopt_orphans() {
#ifdef __linux__
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
#endif
}

void note_birth(pid_t pid) {
    static const int registered = std::atexit(end_the_living);
    (void)registered;
    for (auto& slot : living)
        if (pid_t none = 0; slot.compare_exchange_strong(none, pid))
            return;
}

void note_death(pid_t pid) {
    for (auto& slot : living)
        if (pid_t other = pid; slot.compare_exchange_strong(other, 0))
            return;
}

std::string reason(int error) {
    return std::generic_category().message(error);
}

// How the child is started: the objects that posix_spawn() wants, freed again.
class SpawnOptions {
  public:
    SpawnOptions() {
        posix_spawn_file_actions_init(&actions_);
        posix_spawnattr_init(&attributes_);
    }
    ~SpawnOptions() {
        posix_spawn_file_actions_destroy(&actions_);
        posix_spawnattr_destroy(&attributes_);
    }
    SpawnOptions(const SpawnOptions&) = delete;
    SpawnOptions& operator=(const SpawnOptions&) = delete;

    // 0 or errno.
    int set(int output) {
        sigset_t none, all;
        sigemptyset(&none);
        sigfillset(&all);
        for (const int error :
             {posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0),
              posix_spawn_file_actions_adddup2(&actions_, output, STDOUT_FILENO),
              posix_spawn_file_actions_addopen(&actions_, STDERR_FILENO, "/dev/null", O_WRONLY, 0),
              posix_spawn_file_actions_addclosefrom_np(&actions_, STDERR_FILENO + 1),
              posix_spawnattr_setpgroup(&attributes_, 0), posix_spawnattr_setsigmask(&attributes_, &none),
              posix_spawnattr_setsigdefault(&attributes_, &all),
              posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                                         POSIX_SPAWN_SETSIGDEF)})
            if (error != 0)
                return error;
        return 0;
    }

    int spawn(pid_t& pid, const std::string& command) {
        std::string shell = "sh", option = "-c", text = command;
        char* arguments[] = {shell.data(), option.data(), text.data(), nullptr};
        return posix_spawn(&pid, "/bin/sh", &actions_, &attributes_, arguments, environ);
    }

  private:
    posix_spawn_file_actions_t actions_;
    posix_spawnattr_t attributes_;
};

std::string described(const siginfo_t& how) {
    if (how.si_code != CLD_EXITED)
        return "was killed by signal " + std::to_string(how.si_status);
    return how.si_status == 0 ? "" : "ended with exit status " + std::to_string(how.si_status);
}

} // namespace

ChildProcess::ChildProcess(const std::string& command, Limits limits, Instant now)
    : limits_(limits), deadline_(now + limits.time), next_look_(deadline_) {
    start(command);
    if (pid_ < 0)
        next_look_ = now;
}

ChildProcess::~ChildProcess() {
    kill_and_reap();
    close_output();
    OPENSSL_cleanse(text_.data(), text_.size());
}

void ChildProcess::start(const std::string& command) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        could_not_start_ = reason(errno);
        return;
    }
    adopt_orphans();
    SpawnOptions options;
    int error = options.set(ends[1]);
    if (error == 0)
        error = options.spawn(pid_, command);
    close(ends[1]);
    output_ = ends[0];
    fcntl(output_, F_SETFL, O_NONBLOCK);
    if (error != 0) {
        pid_ = -1;
        close_output();
        could_not_start_ = reason(error);
        return;
    }
    note_birth(pid_);
}

std::optional<ChildProcess::End> ChildProcess::poll(Instant now) {
    if (!could_not_start_.empty())
        return failed("could not be started: " + could_not_start_);
    if (!read_output())
        return failed("was killed: it printed more than " + std::to_string(limits_.output_bytes) + " bytes");
    if (output_ < 0) { // it said all it has to say
        siginfo_t how{};
        // It is reaped with its group: until then nobody else can have the group's number.
        if (waitid(P_PID, static_cast<id_t>(pid_), &how, WEXITED | WNOHANG | WNOWAIT) != 0) {
            note_death(
                std::exchange(pid_, -1)); // reaped where SIGCHLD is ignored: the number may be another's
            return End{std::move(text_), ""};
        }
        if (how.si_pid == pid_) {
            kill_and_reap();
            std::string failure = described(how);
            if (!failure.empty())
                return failed(std::move(failure));
            return End{std::move(text_), ""};
        }
    }
    if (now >= deadline_)
        return failed("was killed: it had not ended after " + std::to_string(limits_.time.count()) + " s");
    next_look_ = output_ < 0 ? std::min(deadline_, now + kExitGrace) : deadline_;
    return std::nullopt;
}

bool ChildProcess::read_output() {
    std::array<char, 4096> bytes;
    bool within = true;
    while (output_ >= 0 && within) {
        const ssize_t count = read(output_, bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (count <= 0)
            close_output();
        else
            text_.append(bytes.data(), static_cast<std::size_t>(count));
        within = text_.size() <= limits_.output_bytes;
    }
    OPENSSL_cleanse(bytes.data(), bytes.size());
    return within;
}

void ChildProcess::close_output() {
    if (output_ >= 0)
        close(std::exchange(output_, -1));
}

ChildProcess::End ChildProcess::failed(std::string why) {
    kill_and_reap();
    return {"", std::move(why)};
}

void ChildProcess::kill_and_reap() {
    if (pid_ < 0)
        return;
    end_group(pid_);
    note_death(std::exchange(pid_, -1));
}

} // namespace sqs_ingest
