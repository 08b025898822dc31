// The settings sqs_ingest.*: declared, checked, and read as plain values. None is a secret, none can be set
// by an ordinary user.
#pragma once

#include "core/transform/mask.h"
#include "net/credentials.h"
#include "net/http.h"

#include <string>

namespace sqs_ingest::pg {

inline constexpr const char* kRegionHint =
    "A region has lower-case letters, digits and hyphens only, like \"us-east-1\".";

// Declares all settings. `preloading`: in the postmaster, where sqs_ingest.max_workers can still be declared.
void define_settings(bool preloading);

// The values in force in this process.
struct Settings {
    bool enabled;
    std::string queue_url;    // empty: not set
    std::string endpoint_url; // empty: the queue URL's own origin
    std::string region;       // empty: derived
    MaskMethod mask_method;
    CredentialsOptions credentials;
    HttpOptions http;
};
Settings current_settings();

int max_workers();     // worker slots in the cluster
bool ingest_enabled(); // sqs_ingest.enabled

// The keyring's path: sqs_ingest.mask_keyring, else sqs_ingest.keyring beside postgresql.conf.
std::string keyring_path();

} // namespace sqs_ingest::pg
