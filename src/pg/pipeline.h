// A pipeline as its row in sqs_ingest_pipeline says, with what the settings add.
#pragma once

#include "core/sqs/url.h"
#include "core/transform/transform.h"
#include "pg/extension.h"
#include "pg/settings.h"

namespace sqs_ingest::pg {

// The row, as it stands.
struct PipelineRow {
    std::string name;
    Oid owner;
    std::optional<std::string> queue_url; // empty: the setting's
    std::string target;                   // schema-qualified and quoted where needed
    std::string columns;                  // the mapping's JSON
    std::string mask_method;
    int workers;
    std::optional<std::string> dead_letter_retention; // an interval; empty: for ever
};

// Needs an SPI connection. Empty: there is no such pipeline.
std::optional<PipelineRow> read_pipeline(const Extension& extension, const std::string& name);
PipelineRow require_pipeline(const Extension& extension, const std::string& name); // throws PgError

// The row with the settings applied and everything parsed.
struct Pipeline {
    PipelineRow row;
    std::string queue_url;
    Url endpoint;
    std::string region; // empty: neither setting nor the queue's host says; environment or profile may
    Mapping mapping;
    MaskMethod mask_method;
    CredentialsOptions credentials;
    HttpOptions http;

    // Changes whenever something changes that a worker is configured by.
    std::uint64_t version() const;
};

// The error is what keeps the pipeline from running, and what to do.
struct Obstacle {
    std::string message;
    std::string hint;
};
enum class NeedsQueue { yes, no }; // no: what is about the queue may be missing, and is left out
Result<Pipeline, Obstacle> resolve(const PipelineRow& row, const Settings& settings,
                                   NeedsQueue needs_queue = NeedsQueue::yes);

// Whether the owner can be connected as: it exists, may log in (before 17), and may connect to this database.
// Needs a transaction.
std::optional<Obstacle> owner_obstacle(Oid owner);

// The target table by its name, so that a table that is dropped and made anew is found again; locked against
// changes of its owner and its triggers until the transaction ends. Throws PgError when it is missing, or
// when its owner is a stranger to the pipeline's: its triggers would run with the pipeline owner's rights.
Oid lock_target(const Pipeline& pipeline);

// The table's name for SQL text.
std::string qualified_name_of(Oid table);

// The table's columns for the mapping, as the catalog has them. Throws PgError when a column is missing or
// has a type that rows cannot be written to.
std::vector<ColumnType> read_columns(const Pipeline& pipeline, Oid table);

} // namespace sqs_ingest::pg
