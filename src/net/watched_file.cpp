#include "net/watched_file.h"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

namespace sqs_ingest {
namespace {

constexpr off_t kMaxBytes = 1 << 20;    // nobody's profiles are larger
constexpr std::int64_t kRestMs = 1'000; // since it was written

class Descriptor {
  public:
    explicit Descriptor(int fd) : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0)
            close(fd_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

std::string reason(int error) {
    return std::generic_category().message(error);
}

// Returns 0 or errno. A file that shrinks meanwhile simply ends earlier.
int read_whole(int fd, std::string& text) {
    std::size_t done = 0;
    while (done < text.size()) {
        const ssize_t count = ::read(fd, text.data() + done, text.size() - done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno;
        if (count == 0)
            break;
        done += static_cast<std::size_t>(count);
    }
    text.resize(done);
    return 0;
}

} // namespace

WatchedFile::Identity WatchedFile::identity(int result, const struct stat& status) {
    if (result != 0)
        return {.error = errno};
    return {.device = status.st_dev,
            .inode = status.st_ino,
            .size = status.st_size,
            .modified_ns = status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec};
}

// A time in the future is of a clock other than ours, and tells nothing.
bool WatchedFile::rests(const Identity& file, Moment now) {
    return !file.error && std::abs(now.unix_ms - file.modified_ns / 1'000'000) >= kRestMs;
}

bool WatchedFile::update(Moment now) {
    struct stat status {};
    const Identity current = identity(stat(path_.c_str(), &status), status);
    if (seen_ == current) {
        seen_at_rest_ |= rests(current, now);
        return false;
    }
    if (seen_ && seen_at_rest_ && !current.error && !rests(current, now))
        return false;
    seen_ = current;
    text_.clear();
    error_ = current.error ? reason(current.error) : "";
    if (!current.error)
        read();
    seen_at_rest_ = rests(*seen_, now);
    return true;
}

// Keeps the identity of what was opened: that may not be the file that was looked at before.
void WatchedFile::read() {
    const Descriptor file(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)); // a FIFO must not block
    if (file.get() < 0) {
        error_ = reason(errno);
        return;
    }
    struct stat status {};
    seen_ = identity(fstat(file.get(), &status), status);
    if (!S_ISREG(status.st_mode) || status.st_size > kMaxBytes) {
        error_ = S_ISREG(status.st_mode) ? "is larger than 1 MiB" : "is not a regular file";
        return;
    }
    text_.resize(static_cast<std::size_t>(status.st_size));
    if (const int error = read_whole(file.get(), text_); error != 0) {
        text_.clear();
        error_ = reason(error);
    }
}

} // namespace sqs_ingest
