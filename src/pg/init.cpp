// The library's entry point. In the postmaster it declares things and initialises no library: OpenSSL,
// libcurl and threads belong to the processes that use them.
#include "pg/background.h"
#include "pg/commit_effects.h"
#include "pg/enabled.h"
#include "pg/role_changes.h"
#include "pg/settings.h"
#include "pg/shared_state.h"

extern "C" {
PG_MODULE_MAGIC;
}

namespace sqs_ingest::pg {

namespace {

constexpr int kLauncherRestartSeconds = 5;

void register_launcher() {
    auto launcher = describe_process("sqs_ingest launcher", "sqs_ingest_launcher_main", Datum(0));
    launcher.bgw_restart_time = kLauncherRestartSeconds;
    RegisterBackgroundWorker(&launcher);
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" PGDLLEXPORT void _PG_init();

extern "C" void _PG_init() {
    using namespace sqs_ingest::pg;

    define_settings(process_shared_preload_libraries_in_progress);
    if (!process_shared_preload_libraries_in_progress)
        return; // mask() works; start() says what is missing
    register_label();
    register_commit_effects();
    register_role_changes();
    request_shared_state();
    if (!IsBinaryUpgrade) // nothing runs in pg_upgrade
        register_launcher();
}
