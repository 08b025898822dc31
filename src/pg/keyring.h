// The keyring of this process: read once, and again when the configuration is reloaded.
#pragma once

#include "core/transform/keyring_file.h"
#include "core/transform/mask.h"
#include "pg/extension.h"
#include "pg/spi.h"

namespace sqs_ingest::pg {

// The ring of the file. A file that became bad keeps the ring that was read before it, with a warning in the
// log. Throws PgError when there is none.
const Keyring& current_keyring();

// Another number whenever the ring is another one.
std::uint64_t keyring_serial();

// The ring of the file, after it was held against the keys that this database was used with: throws PgError
// when there is another key under a known id. Looks once per ring. Needs an extension, a snapshot and no SPI.
const Keyring& verified_keyring();

// The keys that this database was used with, by id. Needs an SPI connection.
struct RecordedKey {
    std::int64_t id;
    std::string fingerprint;
    TimestampTz recorded_at;
};
std::vector<RecordedKey> recorded_keys(const Extension& extension, Effect effect = Effect::writes);

// verified_keyring(), for who writes with it in this transaction: keys that are new here are recorded. Until
// the transaction ends, whoever records the same keys waits for it: workers, too. So what takes long is done
// before. Needs an SPI connection.
const Keyring& record_keyring(const Extension& extension);

// The file as a new process will find it, whatever ring this one holds: throws what that one would throw.
// Needs an SPI connection.
Keyring verified_keyring_file(const Extension& extension);

// Makes the file at keyring_path(); throws PgError when there is one, or when this database was used with
// other keys. Returns the path; warns when it lies inside the data directory, whose base backups then carry
// the key. Needs an SPI connection.
std::string create_keyring(const Extension& extension);

bool keyring_is_missing();                 // no file at keyring_path()
bool keyring_lies_inside_data_directory(); // which base backups copy

// What unmask() and mask_rewrap() say of a token that they cannot open.
PgError unmask_error(const UnmaskError& error);

} // namespace sqs_ingest::pg
