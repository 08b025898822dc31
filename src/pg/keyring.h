// The keyring of this process: read once, and again when the configuration is reloaded.
#pragma once

#include "core/transform/keyring_file.h"
#include "pg/guard.h"

namespace sqs_ingest::pg {

// The ring in force. A file that became bad keeps the ring that was read before it, with a warning in the
// log. Throws PgError when there is none.
const Keyring& current_keyring();

// Makes the file at keyring_path(); throws PgError when there is one. Returns the path; warns when it lies
// inside the data directory, whose base backups then carry the key.
std::string create_keyring();

bool keyring_is_missing(); // no file at keyring_path()

} // namespace sqs_ingest::pg
