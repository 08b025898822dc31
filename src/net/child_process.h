// A command of /bin/sh whose standard output is read without ever waiting for it.
//
// It runs in a process group of its own, with default signals, standard input and error on /dev/null, and no
// other descriptor of ours. SIGCHLD is left as it is: the child is asked after by its pid alone. Whatever
// happens (too much output, too long, the owner goes), the group is killed, and all of it reaped here (the
// process adopts orphans of its children); and when the process exits without destroying its objects, at
// exit.
#pragma once

#include "core/result.h"

#include <chrono>
#include <optional>
#include <string>
#include <sys/types.h>

namespace sqs_ingest {

class ChildProcess {
  public:
    using Instant = std::chrono::steady_clock::time_point;

    struct Limits {
        std::size_t output_bytes = 64u << 10;
        std::chrono::seconds time{60};
    };
    struct End {
        std::string output;  // all of it, after success
        std::string failure; // "ended with exit status 2", "was killed by signal 9", …; empty: exit status 0
    };

    // Does not throw on a failure to start: poll() tells.
    ChildProcess(const std::string& command, Limits limits, Instant now);
    ~ChildProcess();
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;

    // Readable when poll() has something to read; -1: nothing to watch (any more).
    int descriptor() const { return output_; }

    // Reads what is there; its end, when it came. Call it again when descriptor() is readable, and at the
    // latest at next_look().
    std::optional<End> poll(Instant now);
    Instant next_look() const { return next_look_; }

  private:
    void start(const std::string& command);
    bool read_output(); // false: the limit was passed
    void close_output();
    void kill_and_reap();
    End failed(std::string why);

    Limits limits_;
    Instant deadline_;
    Instant next_look_;
    int output_ = -1;
    pid_t pid_ = -1; // -1: not started, or reaped
    std::string text_;
    std::string could_not_start_;
};

} // namespace sqs_ingest
