#include "pg/keyring.h"

#include "pg/settings.h"

#include <openssl/crypto.h>

#include <sys/stat.h>

namespace sqs_ingest::pg {

namespace {

struct CachedKeyring {
    std::optional<Keyring> ring;
    TimestampTz read_at_reload = 0; // PgReloadTime when the file was last read, well or badly
};

// Leaked: key memory is cleansed by the process's end, and a static destructor could run after OpenSSL's own.
CachedKeyring& cache() {
    static auto* cached = new CachedKeyring;
    return *cached;
}

// Key memory is locked and kept out of core dumps, in each process that holds keys.
void prepare_secure_memory() {
    static const bool done = [] {
        if (!CRYPTO_secure_malloc_initialized())
            CRYPTO_secure_malloc_init(65536, 16);
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

bool lies_inside_data_directory(const std::string& path) {
    const std::string data = std::string(DataDir) + "/";
    return path.compare(0, data.size(), data) == 0;
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
    } else if (cached.ring) {
        warn_about(ring.error());
    } else {
        throw keyring_error(ring.error());
    }
    cached.read_at_reload = PgReloadTime;
    return *cached.ring;
}

std::string create_keyring() {
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
        if (lies_inside_data_directory(path))
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

} // namespace sqs_ingest::pg
