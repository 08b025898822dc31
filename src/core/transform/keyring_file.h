// The keyring as a file: read with the checks that a private key deserves, made once.
#pragma once

#include "core/result.h"
#include "core/transform/keyring.h"

#include <string>

namespace sqs_ingest {

struct KeyringFileError {
    enum class Kind {
        missing,    // there is no such file
        unsafe,     // not a regular file, not owned by the effective user, or accessible to group or others
        unreadable, // the system refused: it cannot be opened, read or, by create, written
        malformed,  // longer than 64 KiB, or Keyring::parse refused it
        exists,     // create: a file is already there
    };
    Kind kind;
    std::string message; // for people, with the path: "keyring file \"/…\" has mode 0644"
    std::string hint;    // what to do, a sentence; may be empty
};

// Opens without following a final symbolic link and checks the opened file itself (fstat): a regular file,
// owned by the effective user, mode 0600 or stricter, at most 64 KiB. The buffer it was read into is
// cleansed.
Result<Keyring, KeyringFileError> read_keyring_file(const std::string& path);

// Makes a keyring with one random key, id 1: O_EXCL, mode 0600, fsync of the file and of its directory. An
// incomplete file is removed again. Returns the key's ring, as read back.
Result<Keyring, KeyringFileError> create_keyring_file(const std::string& path);

} // namespace sqs_ingest
