// A pipeline as its row in sqs_ingest_pipeline says, with what the settings add.
#pragma once

#include "core/sqs/url.h"
#include "core/transform/transform.h"
#include "net/sqs_client.h"
#include "pg/extension.h"
#include "pg/settings.h"

namespace sqs_ingest::pg {

// The row, as it stands. What an older version of the extension has no column for has its default.
struct PipelineRow {
    std::string name;
    Oid owner;
    std::optional<std::string> queue_url; // empty: the setting's
    std::string target;                   // schema-qualified and quoted where needed
    std::string columns;                  // the mapping's JSON
    std::string mask_method;
    int workers = 1;
    std::optional<std::string> dead_letter_retention; // an interval; empty: for ever

    // Empty: the settings', AWS's own, or none.
    std::optional<std::string> endpoint_url, region, profile, role_arn, external_id;
    std::string protocol = "auto";
    int max_receivers = 8;
    int batch_size = 500;                  // messages
    int wait_time = 20;                    // seconds
    std::optional<int> visibility_timeout; // seconds; empty: the queue's
    std::string envelope = "none";
    std::string body_encoding = "plain";
    std::optional<std::string> each; // a JSON Pointer
    std::string on_invalid = "dead_letter";
    std::optional<int> max_receive_count;
    std::string on_conflict = "dead_letter";
    std::optional<std::string> conflict_columns; // a JSON array
    bool ledger = true;

    std::string everything; // of the row, as text: changes with any of it
};

enum class RowLock {
    none,
    stays,   // until the transaction ends nobody can delete the row; it can be changed
    changes, // nobody else can change or delete it; who wants it to stay is no obstacle
    goes     // it waits for those who want it to stay, and keeps others away
};

// Needs an SPI connection. Empty: there is no such pipeline. With a lock: the row as it is after the wait.
std::optional<PipelineRow> read_pipeline(const Extension& extension, const std::string& name,
                                         RowLock lock = RowLock::none);
PipelineRow require_pipeline(const Extension& extension, const std::string& name,
                             RowLock lock = RowLock::none); // throws PgError

// As it was committed last, or changed by this transaction, whatever its snapshot shows. Throws PgError.
PipelineRow require_latest_pipeline(const Extension& extension, const std::string& name);

// What becomes of a message that cannot become a row.
enum class OnInvalid {
    dead_letter, // it is kept in sqs_ingest_dead_letter
    discard,     // it is deleted and counted
    leave,       // it goes back to the queue, whose redrive policy decides
};

// What becomes of a row that violates a unique constraint.
enum class OnConflict {
    dead_letter, // it is refused, as by any other constraint
    nothing,     // the row that is there stays
    update,      // the row that is there takes its values
};

// The row with the settings applied and everything parsed.
struct Pipeline {
    PipelineRow row;
    std::string queue_url;
    std::optional<Url> endpoint; // empty: what AWS's variables and files say, else the queue URL's host
    std::string region; // empty: neither setting nor the queue's host says; environment or profile may
    Mapping mapping;    // its columns' names in the database's encoding, all else in UTF-8
    MaskMethod mask_method;
    Envelope envelope = Envelope::none;
    BodyEncoding encoding = BodyEncoding::plain;
    OnInvalid on_invalid = OnInvalid::dead_letter;
    OnConflict on_conflict = OnConflict::dead_letter;
    std::vector<std::string> conflict_columns;
    CredentialsOptions credentials;
    HttpOptions http;

    // Changes whenever something changes that a worker is configured by.
    std::uint64_t version() const;
};

// How its queue is asked.
SqsClientOptions client_options(const Pipeline& pipeline);

// What becomes of a message that was rejected: what on_invalid says, but what is given up is kept.
OnInvalid fate_of(const Pipeline& pipeline, const Rejection& rejection);

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

// The target's columns for the mapping, as the catalog has them; one per column of the mapping.
struct TargetColumns {
    std::vector<ColumnType> types;
    std::vector<std::string> casts; // SQL that takes the text to the column's type, "::pg_catalog.int4"
    std::vector<std::string> keys;  // the same, to what a unique index compares, "::numeric(6,2)"
    struct Declared {
        Oid type; // a domain as such
        int32 modifier;
        Oid collation;
    };
    std::vector<Declared> declared;
};

// Throws PgError when a column is missing or generated, when no value of its rule can enter it, or when a
// column that must have a value is not mapped: names the column and the reason.
TargetColumns read_columns(const Pipeline& pipeline, Oid table);

// Whether a row trigger, BEFORE or INSTEAD OF, sees what is inserted into the table or a partition of it: it
// can fill columns, and leave rows out. Raises plain Postgres errors.
bool has_row_trigger(Oid table);

// How messages become rows of that target.
Transform transform_for(const Pipeline& pipeline, std::vector<ColumnType> types);

} // namespace sqs_ingest::pg
