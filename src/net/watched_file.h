// A small file that somebody else rewrites: read again when its identity, size or time has changed. One that
// changed within the last second may be in the middle of being written: what was read of it at rest counts
// until it rests again.
#pragma once

#include "net/moment.h"

#include <optional>
#include <string>
#include <sys/stat.h>
#include <utility>

namespace sqs_ingest {

class WatchedFile {
  public:
    explicit WatchedFile(std::string path) : path_(std::move(path)) {}

    const std::string& path() const { return path_; }

    // Looks at the file; true: take_text() and error() are new. The first call is always true.
    bool update(Moment now);

    // The next update() reads the file even if it looks the same (a rewrite within the clock's grain does),
    // or does not rest.
    void forget() { seen_.reset(); }

    // Once for each update(): nothing is kept of what may be secret.
    std::string take_text() { return std::move(text_); }
    // Why there is no text ("No such file or directory"), else empty.
    const std::string& error() const { return error_; }

  private:
    // What tells one content from another without reading it.
    struct Identity {
        dev_t device = 0;
        ino_t inode = 0;
        off_t size = 0;
        long long modified_ns = 0;
        int error = 0; // errno: there is no such file, or it may not be looked at

        bool operator==(const Identity&) const = default;
    };

    static Identity identity(int result, const struct stat& status);
    static bool rests(const Identity& file, Moment now);
    void read();

    std::string path_;
    std::optional<Identity> seen_;
    bool seen_at_rest_ = false;
    std::string text_;
    std::string error_;
};

} // namespace sqs_ingest
