#include "pg/keyring.h"

#include "pg/epoch.h"
#include "pg/settings.h"

#include <openssl/crypto.h>

#include <sys/stat.h>

namespace sqs_ingest::pg {

namespace {

struct CachedKeyring {
    std::optional<Keyring> ring;
    TimestampTz read_at_reload = 0; // PgReloadTime when the file was last read, well or badly
    std::uint64_t serial = 0;       // of the ring
    std::uint64_t verified = 0;     // the serial that was held against this database's keys
};

// Leaked: key memory is cleansed by the process's end, and a static destructor could run after OpenSSL's own.
CachedKeyring& cache() {
    static auto* cached = new CachedKeyring;
    return *cached;
}

// Two rings of the longest file, while one replaces the other.
constexpr std::size_t kSecureMemory = 262144;

// Key memory is locked and kept out of core dumps, in each process that holds keys.
void prepare_secure_memory() {
    static const bool done = [] {
        if (!CRYPTO_secure_malloc_initialized())
            CRYPTO_secure_malloc_init(kSecureMemory, 16);
        return true;
    }();
    (void)done;
}

PgError keyring_error(const KeyringFileError& error) {
    const bool missing = error.kind == KeyringFileError::Kind::missing;
    return make_error(missing ? ERRCODE_UNDEFINED_FILE : ERRCODE_CONFIG_FILE_ERROR, error.message,
                      error.hint);
}

void warn_about(const KeyringFileError& error) {
    call_pg([&] {
        ereport(LOG, (errmsg("sqs_ingest keeps the masking keys read before: %s", error.message.c_str()),
                      error.hint.empty() ? 0 : errhint("%s", error.hint.c_str())));
    });
}

PgError other_key(std::int64_t id) {
    return make_error(
        ERRCODE_CONFIG_FILE_ERROR,
        "key " + std::to_string(id) + " of keyring file \"" + keyring_path() +
            "\" is not the key that this database was used with",
        "Put back the keyring file from its backup, and reload. mask_keys() shows which keys differ. A "
        "new key needs an id of its own, higher than all others.",
        "With another key equal values would no longer have equal masks.");
}

PgError lost_key(std::int64_t id, std::int64_t primary) {
    return make_error(
        ERRCODE_CONFIG_FILE_ERROR,
        "key " + std::to_string(id) + ", which this database was used with, is not in keyring file \"" +
            keyring_path() + "\", whose newest key is " + std::to_string(primary),
        "Put back the newest keyring file, and reload. To give that key up for good, delete its row of "
        "sqs_ingest_key.",
        "With an older key equal values would no longer have equal masks.");
}

void compare(const Keyring& ring, const std::vector<RecordedKey>& recorded) {
    for (const auto& known : recorded) {
        const MaskKey* key = ring.find(static_cast<std::uint32_t>(known.id));
        if (key && key->fingerprint != known.fingerprint)
            throw other_key(known.id);
    }
    // Old keys may go. Without the newest one the primary would be an older one again, without a word.
    if (!recorded.empty() && recorded.back().id > ring.primary().id)
        throw lost_key(recorded.back().id, ring.primary().id);
}

} // namespace

const Keyring& current_keyring() {
    auto& cached = cache();
    if (cached.ring && cached.read_at_reload == PgReloadTime)
        return *cached.ring;

    prepare_secure_memory();
    auto ring = read_keyring_file(keyring_path());
    if (ring.ok()) {
        cached.ring.emplace(std::move(ring).value());
        ++cached.serial;
    } else if (cached.ring) {
        warn_about(ring.error());
    } else {
        throw keyring_error(ring.error());
    }
    cached.read_at_reload = PgReloadTime;
    return *cached.ring;
}

std::uint64_t keyring_serial() {
    return cache().serial;
}

const Keyring& verified_keyring() {
    const Keyring& ring = current_keyring();
    auto& cached = cache();
    if (cached.verified != cached.serial) {
        SpiConnection spi;
        compare(ring, recorded_keys(require_extension(), Effect::reads));
        cached.verified = cached.serial;
    }
    return ring;
}

Keyring verified_keyring_file(const Extension& extension) {
    prepare_secure_memory();
    auto ring = read_keyring_file(keyring_path());
    if (!ring.ok())
        throw keyring_error(ring.error());
    compare(ring.value(), recorded_keys(extension, Effect::reads));
    return std::move(ring).value();
}

std::vector<RecordedKey> recorded_keys(const Extension& extension, Effect effect) {
    AsExtensionOwner as_owner(extension);
    std::vector<RecordedKey> keys;
    for (const auto& row : query("SELECT id::pg_catalog.text, fingerprint, (extract(epoch FROM recorded_at) "
                                 "* 1000000)::pg_catalog.int8::pg_catalog.text FROM " +
                                     extension.table("sqs_ingest_key") + " ORDER BY id",
                                 {}, effect))
        keys.push_back({std::stoll(*row[0]), *row[1], timestamp_of_us(std::stoll(*row[2]))});
    return keys;
}

const Keyring& record_keyring(const Extension& extension) {
    const Keyring& ring = current_keyring();
    const auto recorded = recorded_keys(extension);
    compare(ring, recorded);
    bool news = false;
    for (const auto& key : ring.keys()) {
        const bool known = std::any_of(recorded.begin(), recorded.end(),
                                       [&](const RecordedKey& one) { return one.id == key.id; });
        if (known)
            continue;
        AsExtensionOwner as_owner(extension);
        query("INSERT INTO " + extension.table("sqs_ingest_key") +
                  " (id, fingerprint) VALUES ($1::pg_catalog.int8, $2) ON CONFLICT DO NOTHING",
              {std::to_string(key.id), key.fingerprint});
        news = true;
    }
    if (news) // somebody else may have been first, with another key
        compare(ring, recorded_keys(extension));
    return ring;
}

std::string create_keyring(const Extension& extension) {
    if (keyring_is_missing() && !recorded_keys(extension).empty())
        throw make_error(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "this database was used with masking keys that a new keyring would not have",
            "Put back the keyring file from its backup. To begin anew, with masks that match none made "
            "before, delete the rows of sqs_ingest_key first.");
    prepare_secure_memory();
    const std::string path = keyring_path();
    const auto ring = create_keyring_file(path);
    if (!ring.ok())
        throw keyring_error(ring.error());
    call_pg([&] {
        ereport(NOTICE,
                (errmsg("created the masking keyring \"%s\"", path.c_str()),
                 errhint("Back it up apart from the database: without it, masks cannot be computed again and "
                         "dead letters cannot be opened.")));
        if (keyring_lies_inside_data_directory())
            ereport(WARNING,
                    (errmsg("the masking keyring \"%s\" lies inside the data directory", path.c_str()),
                     errdetail("Base backups of this server carry the key."),
                     errhint("Set sqs_ingest.mask_keyring to a file elsewhere and move it there.")));
    });
    return path;
}

bool keyring_is_missing() {
    struct stat status;
    return lstat(keyring_path().c_str(), &status) != 0 && errno == ENOENT;
}

bool keyring_lies_inside_data_directory() {
    const std::string data = std::string(DataDir) + "/";
    return keyring_path().starts_with(data);
}

PgError unmask_error(const UnmaskError& error) {
    const bool unknown = error.kind == UnmaskError::Kind::unknown_key;
    return make_error(unknown ? ERRCODE_UNDEFINED_OBJECT : ERRCODE_INVALID_PARAMETER_VALUE, error.message,
                      error.hint);
}

} // namespace sqs_ingest::pg
