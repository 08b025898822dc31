// A scout: a short-lived process that looks at the pipelines of one database for the launcher, which has no
// database itself. It writes what it finds into the shared state: who owns each enabled pipeline, how many
// workers it wants, what it reads, or why it cannot run.
#include "pg/background.h"
#include "pg/enabled.h"
#include "pg/pipeline.h"
#include "pg/shared_state.h"
#include "pg/transaction.h"
#include "pg/worker.h"

namespace sqs_ingest::pg {

namespace {

struct Finding {
    std::optional<Pipeline> pipeline;
    std::optional<Obstacle> obstacle;
};

Finding look_at(const Extension& extension, const std::string& name) {
    const auto row = read_pipeline(extension, name);
    if (!row)
        return {std::nullopt, Obstacle{"pipeline \"" + name + "\" does not exist in sqs_ingest_pipeline",
                                       "Run sqs_ingest_stop() for it, or insert its row again."}};
    auto pipeline = resolve(*row, current_settings());
    if (!pipeline.ok())
        return {std::nullopt, pipeline.error()};
    return {std::move(pipeline).value(), owner_obstacle(row->owner)};
}

void note(const std::string& name, const Finding& finding) {
    StateLock lock;
    auto* entry = find_pipeline(MyDatabaseId, name.c_str());
    if (!entry)
        return;
    entry->scouted = true;
    const bool obstacle_gone = entry->obstacle.message[0] && !finding.obstacle;
    entry->obstacle = {};
    if (finding.pipeline) {
        const auto& pipeline = *finding.pipeline;
        const auto version = pipeline.version();
        if (entry->version != version || obstacle_gone) {
            entry->failures = 0;
            entry->not_before = 0;
        }
        entry->version = version;
        entry->owner = pipeline.row.owner;
        entry->workers = pipeline.row.workers;
        strlcpy(entry->queue_url, pipeline.queue_url.c_str(), sizeof entry->queue_url);
    }
    if (finding.obstacle)
        entry->obstacle = make_trouble("CannotStart", finding.obstacle->message, finding.obstacle->hint,
                                       GetCurrentTimestamp());
}

void look_around() {
    Transaction transaction(Host::worker, "sqs_ingest: reading the pipelines");
    const auto names = enabled_pipelines();
    const auto extension = find_extension();
    for (const auto& name : names) {
        if (extension)
            note(name, look_at(*extension, name));
        else
            note(name, {std::nullopt, Obstacle{"extension \"sqs_ingest\" does not exist in the database",
                                               "Run CREATE EXTENSION sqs_ingest and sqs_ingest_start()."}});
    }
    transaction.commit();
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" PGDLLEXPORT void sqs_ingest_scout_main(Datum database) {
    using namespace sqs_ingest::pg;

    install_signal_handlers();
    BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
    ErrorReport report;
    bool failed = false;
    try {
        look_around();
    } catch (...) {
        describe_current_exception(report);
        failed = true;
    }
    if (failed)
        ereport(LOG, (errmsg("sqs_ingest could not read the pipelines of database %u: %s",
                             DatumGetObjectId(database), report.message)));
    proc_exit(0);
}
