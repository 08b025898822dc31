#include "core/transform/keyring_file.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace sqs_ingest {

namespace {

using Kind = KeyringFileError::Kind;

constexpr std::size_t kMaxFileBytes = 65536;
constexpr std::size_t kMasterBytes = 32;

constexpr std::string_view kHeader =
    "# Masking keys of sqs_ingest, one a line: <id> <64 hexadecimal digits>. Whoever "
    "can read this file can test\n"
    "# guesses against masked values and open sealed messages.\n"
    "# Back it up, apart from the database: without it, values masked before and "
    "after no longer match, and sealed\n"
    "# messages stay closed.\n"
    "# To rotate, add a line with a higher id and reload; keep the old lines as long "
    "as values masked with them.\n";

KeyringFileError file_error(Kind kind, const std::string& path, const std::string& what,
                            std::string hint = {}) {
    return {kind, "keyring file \"" + path + "\" " + what, std::move(hint)};
}

KeyringFileError system_error(Kind kind, const std::string& path, const char* what, int error,
                              std::string hint = {}) {
    return file_error(kind, path, what + (": " + std::generic_category().message(error)), std::move(hint));
}

class File {
  public:
    File(const char* path, int flags, mode_t mode = 0) : descriptor_(::open(path, flags | O_CLOEXEC, mode)) {}
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ~File() {
        if (is_open())
            ::close(descriptor_);
    }

    bool is_open() const { return descriptor_ >= 0; }
    int descriptor() const { return descriptor_; }

  private:
    int descriptor_;
};

// Text of a keyring in memory that is cleansed when it goes. It never grows: that would leave copies behind.
class KeyText {
  public:
    explicit KeyText(std::size_t size) : text_(size) {}
    KeyText(const KeyText&) = delete;
    KeyText& operator=(const KeyText&) = delete;
    ~KeyText() { OPENSSL_cleanse(text_.data(), text_.size()); }

    char* data() { return text_.data(); }
    std::size_t size() const { return text_.size(); }

  private:
    std::vector<char> text_;
};

// Removes the file again unless it turned out well.
class Unfinished {
  public:
    explicit Unfinished(const std::string& path) : path_(path) {}
    Unfinished(const Unfinished&) = delete;
    Unfinished& operator=(const Unfinished&) = delete;
    ~Unfinished() {
        if (!finished_)
            ::unlink(path_.c_str());
    }

    void finished() { finished_ = true; }

  private:
    const std::string& path_;
    bool finished_ = false;
};

KeyringFileError open_error(const std::string& path, int error) {
    if (error == ENOENT)
        return file_error(Kind::missing, path, "does not exist",
                          "Restore it from the backup, or create one where no value has been masked yet.");
    if (error == ELOOP) // O_NOFOLLOW
        return file_error(Kind::unsafe, path, "is a symbolic link", "Name the file itself.");
    return system_error(Kind::unreadable, path, "cannot be opened", error,
                        "The database server's user must be able to read it.");
}

// Looks at the file that was opened, not at its name: that can change hands between two looks.
std::optional<KeyringFileError> unsafe(const std::string& path, const File& file) {
    struct stat status;
    if (::fstat(file.descriptor(), &status) != 0)
        return system_error(Kind::unreadable, path, "cannot be examined", errno);
    if (!S_ISREG(status.st_mode))
        return file_error(Kind::unsafe, path, "is not a regular file", "Name a regular file.");
    if (status.st_uid != ::geteuid())
        return file_error(Kind::unsafe, path, "belongs to another user",
                          "Give it to the database server's user.");
    if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        char what[32];
        std::snprintf(what, sizeof what, "has mode %04o", static_cast<unsigned>(status.st_mode & 07777));
        return file_error(Kind::unsafe, path, what, "Allow its owner alone: chmod 0600.");
    }
    return std::nullopt;
}

// Reads until the end or until `text` is full; how much, or empty with errno set.
std::optional<std::size_t> read_all(const File& file, KeyText& text) {
    std::size_t size = 0;
    while (size < text.size()) {
        const ssize_t got = ::read(file.descriptor(), text.data() + size, text.size() - size);
        if (got == 0)
            break;
        if (got > 0)
            size += static_cast<std::size_t>(got);
        else if (errno != EINTR)
            return std::nullopt;
    }
    return size;
}

bool write_all(const File& file, std::string_view text) {
    while (!text.empty()) {
        const ssize_t put = ::write(file.descriptor(), text.data(), text.size());
        if (put < 0 && errno != EINTR)
            return false;
        if (put > 0)
            text.remove_prefix(static_cast<std::size_t>(put));
    }
    return true;
}

bool write_new_key(const File& file) {
    SecretBytes master(kMasterBytes);
    random_bytes(master.writable());
    std::string digits = hex(master.bytes());
    const bool written =
        write_all(file, kHeader) && write_all(file, "1 ") && write_all(file, digits) && write_all(file, "\n");
    OPENSSL_cleanse(digits.data(), digits.size());
    return written;
}

// Makes the new name durable. Some file systems cannot sync a directory: they say so, and there is nothing to
// do.
bool sync_directory_of(const std::string& path) {
    const auto slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const File file(directory.c_str(), O_RDONLY | O_DIRECTORY);
    return file.is_open() && (::fsync(file.descriptor()) == 0 || errno == EINVAL || errno == EBADF);
}

} // namespace

Result<Keyring, KeyringFileError> read_keyring_file(const std::string& path) {
    const File file(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK); // O_NONBLOCK: a FIFO must not hang us
    if (!file.is_open())
        return open_error(path, errno);
    if (auto error = unsafe(path, file))
        return std::move(*error);

    KeyText text(kMaxFileBytes + 1);
    const auto size = read_all(file, text);
    if (!size)
        return system_error(Kind::unreadable, path, "cannot be read", errno);
    if (*size > kMaxFileBytes)
        return file_error(Kind::malformed, path, "is longer than 64 kB", "A keyring has one key a line.");

    auto ring = Keyring::parse({text.data(), *size});
    if (!ring)
        return file_error(Kind::malformed, path, "is malformed: " + ring.error(),
                          "Write one key a line: <id> <64 hexadecimal digits>.");
    return std::move(ring).value();
}

Result<Keyring, KeyringFileError> create_keyring_file(const std::string& path) {
    const File file(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    if (!file.is_open() && errno == EEXIST)
        return file_error(Kind::exists, path, "exists already", "A keyring is never overwritten.");
    if (!file.is_open())
        return system_error(Kind::unreadable, path, "cannot be created", errno,
                            "The database server's user must be able to write to its directory.");
    Unfinished unfinished(path);
    if (!write_new_key(file) || ::fsync(file.descriptor()) != 0 || !sync_directory_of(path))
        return system_error(Kind::unreadable, path, "cannot be written", errno);
    auto ring = read_keyring_file(path);
    if (ring)
        unfinished.finished();
    return ring;
}

} // namespace sqs_ingest
