// The write stage: a batch of deliveries becomes ledger entries, rows and dead letters in one transaction.
//
// First everything is tried at once. If that fails, the batch is written again with care: a statement with no
// rows tells whether the pipeline or a row is at fault, and bisecting in subtransactions finds the bad rows,
// which become dead letters while the others are inserted.
#pragma once

#include "core/policy/delivery.h"
#include "core/transform/keyring.h"
#include "pg/pipeline.h"
#include "pg/transaction.h"

namespace sqs_ingest::pg {

enum class Fate { inserted, duplicate, dead_letter, discarded };
inline constexpr int kFates = 4;

struct Written {
    std::vector<Fate> fates; // one per delivery
    XLogRecPtr commit_end = 0;
    // Messages among the inserted whose row was there already. Known with OnConflict::nothing, one row a
    // message, and no row trigger or rule that could have left the row out; else 0.
    std::int64_t conflicts = 0;
};

// A message's place in the batch, and why the table refused it.
struct Refused {
    std::size_t position;
    ErrorReport report;
    Rejection rejection; // row_error, or bad_value with the field whose value its column does not take
};

// Why a batch was not written. Nothing was stored.
struct WriteFault {
    ErrorReport report;
    // Every row failed, with this one SQLSTATE, though a statement without rows does not: perhaps the table's
    // fault.
    bool every_row = false;
    // Not empty: these are at fault, and are to be left in the queue; the others can be written without them.
    std::vector<Refused> refused = {};
};

class Sink {
  public:
    Sink(const Pipeline& pipeline, const Extension& extension, Host host);
    ~Sink();
    Sink(const Sink&) = delete;
    Sink& operator=(const Sink&) = delete;

    // Reads the target's columns, inserts no rows into it, and records the keys that are new. Empty: the
    // pipeline can write.
    std::optional<WriteFault> probe();

    // The same, but for the keys, in the transaction that is open. Throws PgError.
    void rehearse();

    // How bodies become rows of this target. Valid after a probe() or rehearse() that succeeded.
    const Transform& transform() const { return transform_; }

    // Writes the batch. `blame_rows`: if every row fails, they become dead letters all the same. After a
    // success the commit is not yet known to be durable.
    Result<Written, WriteFault> write(const std::vector<Delivery>& batch, const Keyring& keyring,
                                      bool blame_rows);

    // Inserts the rows of a batch in the transaction that is open, without ledger and dead letters; returns
    // those that the table refused. Deferred constraints are tried, and stay deferred. Throws PgError when
    // the pipeline is at fault. After rehearse().
    std::vector<Refused> insert(const std::vector<Delivery>& batch);

    // Removes at most kPruneStep ledger entries of messages sent before `sent_before`; returns how many.
    static constexpr int kPruneStep = 5000;
    std::int64_t prune_ledger(TimestampTz sent_before);

    // Removes at most kPruneStep dead letters that are older than the pipeline's retention. Returns when the
    // next one will be; empty: there is none.
    std::optional<std::chrono::seconds> purge_dead_letters();

    // What a session was refused for: the pipeline was dropped, or is another role's.
    bool pipeline_is_gone() const { return pipeline_is_gone_; }

  private:
    using Positions = std::vector<std::size_t>;

    Written write_at_once(const std::vector<Delivery>& batch, const Keyring& keyring);
    Result<Written, WriteFault> write_with_care(const std::vector<Delivery>& batch, const Keyring& keyring,
                                                bool blame_rows);

    Positions enter_into_ledger(const std::vector<Delivery>& batch, std::vector<Fate>& fates);
    std::optional<std::set<std::string>> record_ids(const std::vector<Delivery>& batch,
                                                    const Positions& order);
    static void sort_by_fate(std::size_t position, Fate fate, Positions& rows, Positions& rejected);
    // Both return how many rows were there already, as far as Written::conflicts counts them.
    std::int64_t insert_rows(const std::vector<Delivery>& batch, const std::size_t* positions, std::size_t n);
    enum class Deferred {
        settle,  // checked for good
        try_only // checked, and again at the commit, which is not ours
    };
    std::int64_t insert_bisecting(const std::vector<Delivery>& batch, const std::size_t* positions,
                                  std::size_t n, Deferred deferred, std::vector<Refused>& refused);
    Refused blame(const Delivery& delivery, std::size_t position, const ErrorReport& report);
    void insert_dead_letters(const std::vector<Delivery>& batch, const Positions& rejected,
                             const std::vector<Refused>& refused, const Keyring& keyring);
    PipelineRow require_own_row(RowLock lock); // that is there, and the owner's for whom the sink was made
    void require_same_pipeline(RowLock lock);
    void lock_pipelines();
    void prepare();
    void prepare_dead_letters();
    void lock_prepared_target();
    void forget_plans();
    void remember_shape();
    bool has_its_shape() const;
    std::set<Oid> read_key_indexes() const; // that say which rows have one key, for ON CONFLICT

    const Pipeline& pipeline_;
    Extension extension_;
    Host host_;
    bool pipeline_is_gone_ = false;
    Transform transform_;
    std::vector<TargetColumns::Declared> declared_; // one per column
    TupleDesc shape_ = nullptr;                     // of the target when its columns were read
    std::set<Oid> key_indexes_;                     // that it had then
    Oid target_ = InvalidOid;                       // that the plans and the column types are for
    SPIPlanPtr insert_ = nullptr;
    SPIPlanPtr ledger_ = nullptr;
    SPIPlanPtr dead_letter_ = nullptr;
    bool metadata_is_kept_ = false; // by that plan
};

// The SQLSTATE with which the database refuses the text for a column of that type; 0: it takes it. In a
// transaction; runs in a subtransaction.
int refusal_of(const std::string& value, const TargetColumns::Declared& column);

// bad_value; row_error where a constraint of the type refused it, as for a domain's.
Reason reason_of_refusal(int sqlstate);

// SET CONSTRAINTS ALL IMMEDIATE in the transaction that is open; throws PgError when one is violated.
void check_deferred_constraints();
void try_deferred_constraints(); // and leaves them as they were

} // namespace sqs_ingest::pg
