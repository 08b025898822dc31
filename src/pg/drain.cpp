// sqs_ingest_drain(): a pipeline's ingestion in somebody's session, until the queue is empty: for cron jobs
// and tests. It needs no worker and no preloading.
//
// A procedure that commits: each batch is a transaction of its own, and no snapshot, lock or transaction id
// is held while it waits for the queue.
#include "pg/background.h"
#include "pg/ingest.h"
#include "pg/preconditions.h"
#include "pg/spi.h"

extern "C" {
#include "nodes/parsenodes.h"
}

namespace sqs_ingest::pg {

namespace {

using namespace std::chrono_literals;

constexpr auto kLongestWait = 1s; // in one transaction, which transaction_timeout (17+) bounds
constexpr auto kPatience = 5s;    // with a queue or a table that refuses, before the caller is told

struct Configured {
    Extension extension;
    Pipeline pipeline;
};

Configured configure(const std::string& name) {
    const auto extension = require_extension();
    const auto row = require_pipeline(extension, name);
    require_being_owner(row, "sqs_ingest_drain()");
    auto pipeline = require_resolved(row);
    if (!ingest_enabled())
        refuse(Obstacle{"sqs_ingest.enabled is off", "Set it on in postgresql.conf and reload."});
    const auto enabled = enabled_pipelines();
    if (shared_state() && enabled.count(name))
        throw make_error(ERRCODE_OBJECT_IN_USE, "pipeline \"" + name + "\" is enabled: its workers ingest",
                         "Run sqs_ingest_stop() first, or leave the work to them.");
    require_free_queue(pipeline, enabled);
    return {extension, std::move(pipeline)};
}

// The counters of one drain: shown here, and added to the pipeline's as it goes on.
class Tally {
  public:
    explicit Tally(const std::string& name) {
        initialise_entry(turn_, MyDatabaseId, name.c_str());
        initialise_entry(total_, MyDatabaseId, name.c_str());
    }
    ~Tally() { hand_over(); } // whatever ended it
    Tally(const Tally&) = delete;
    Tally& operator=(const Tally&) = delete;

    PipelineEntry& entry() { return turn_; }

    // The pipeline of that name is not the one that was drained.
    void keep_to_itself() { shared_ = false; }

    // True: something was counted since the last time. What was received counts when it is known what became
    // of it, so that the counters add up at any moment.
    bool hand_over() {
        const auto received = counted(turn_, Counter::received);
        const auto settled = counted(turn_, Counter::inserted) + counted(turn_, Counter::duplicates) +
                             counted(turn_, Counter::dead_letters) + counted(turn_, Counter::discarded) +
                             counted(turn_, Counter::released);
        set(Counter::received, settled);
        if (shared_)
            add_to_shared_entry(turn_);
        bool news = false;
        for (int i = 0; i < kCounters; ++i) {
            const auto n = counted(turn_, static_cast<Counter>(i));
            count(total_, static_cast<Counter>(i), n);
            set(static_cast<Counter>(i), 0);
            news |= n > 0;
        }
        set(Counter::received, received - settled);
        return news;
    }

    std::string so_far() const {
        const auto number = [&](Counter counter) { return std::to_string(counted(total_, counter)); };
        return number(Counter::received) + " messages received, " + number(Counter::inserted) +
               " inserted, " + number(Counter::duplicates) + " duplicates, " + number(Counter::dead_letters) +
               " dead letters" +
               (counted(total_, Counter::discarded) ? ", " + number(Counter::discarded) + " discarded" : "");
    }

  private:
    void set(Counter counter, std::int64_t n) {
        pg_atomic_write_u64(&turn_.counters[static_cast<int>(counter)], static_cast<uint64>(n));
    }

    PipelineEntry turn_, total_;
    bool shared_ = true;
};

// The SQLSTATE of a trouble with the table; a trouble with the queue has the queue's own code.
int sqlstate_of(const Trouble& trouble) {
    const char* code = trouble.code;
    const bool is_sqlstate = strlen(code) == 5 && strspn(code, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5;
    return is_sqlstate ? MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4])
                       : ERRCODE_CONNECTION_EXCEPTION;
}

// What was received and not written goes back to the queue. No database, no interrupts.
void give_back(Ingest& ingest) {
    HOLD_INTERRUPTS();
    try {
        ingest.abandon(std::chrono::steady_clock::now());
        while (!ingest.stopped()) {
            ingest.turn(std::chrono::steady_clock::now());
            if (!ingest.stopped())
                wait_for(ingest.descriptor(), 100, PG_WAIT_EXTENSION);
        }
    } catch (...) {
        // It comes back by itself when its visibility timeout is over.
    }
    RESUME_INTERRUPTS();
}

// A session that is terminated unwinds nothing: the process ends where it stands, and calls this.
Ingest* under_way = nullptr;

void give_back_at_exit(int, Datum) {
    if (Ingest* ingest = std::exchange(under_way, nullptr))
        give_back(*ingest);
}

class GivesBackAtExit {
  public:
    explicit GivesBackAtExit(Ingest& ingest) {
        static bool registered = false; // for good: others may register theirs after it
        if (!registered)
            before_shmem_exit(give_back_at_exit, 0);
        registered = true;
        under_way = &ingest;
    }
    ~GivesBackAtExit() { under_way = nullptr; }
    GivesBackAtExit(const GivesBackAtExit&) = delete;
    GivesBackAtExit& operator=(const GivesBackAtExit&) = delete;
};

void run(Ingest& ingest, Tally& tally, const std::string& name) {
    const uint32 event = wait_event("SqsIngestDrain");
    TurnMemory memory;
    bool said = false;
    while (!ingest.finished()) {
        memory.begin_turn();
        call_pg([] {
            CHECK_FOR_INTERRUPTS();
            SPI_commit(); // an empty one: a session is always in some transaction
        });
        const auto now = std::chrono::steady_clock::now();
        ingest.turn(now);
        if (tally.hand_over() || !said) {
            const std::string activity = "sqs_ingest_drain of \"" + name + "\": " + tally.so_far();
            pgstat_report_activity(STATE_RUNNING, activity.c_str());
            said = true;
        }
        const auto stuck = ingest.stuck();
        if (stuck && now - stuck->since >= kPatience)
            throw make_error(sqlstate_of(stuck->trouble), stuck->trouble.message, stuck->trouble.hint);
        if (ingest.finished())
            break;
        auto timeout = std::min<std::chrono::milliseconds>(
            ingest.timeout(std::chrono::steady_clock::now()).value_or(kLongestWait), kLongestWait);
        if (stuck)
            timeout = std::min(timeout,
                               std::chrono::ceil<std::chrono::milliseconds>(stuck->since + kPatience - now));
        wait_for(ingest.descriptor(), static_cast<long>(timeout.count()), event);
    }
}

void drain(const std::string& name, std::optional<std::int64_t> max_messages) {
    SpiConnection spi(SPI_OPT_NONATOMIC);
    const Configured configured = configure(name);
    call_pg([] { SPI_commit(); }); // nothing is held while the queue is asked

    Tally tally(name);
    WorkerSlot slot{};
    slot.pipeline = -1;
    Ingest ingest(configured.pipeline, configured.extension, tally.entry(), slot, Host::session,
                  DrainLimits{max_messages});
    const GivesBackAtExit gives_back(ingest);
    ErrorReport failure;
    bool failed = false;
    try {
        run(ingest, tally, name);
    } catch (...) {
        describe_current_exception(failure);
        failed = true;
    }
    if (failed) {
        call_pg([] { SPI_rollback(); });
        give_back(ingest);
        if (ingest.pipeline_is_gone())
            tally.keep_to_itself();
        tally.hand_over();
        if (!failure.detail[0])
            strlcpy(failure.detail, ("Before it stopped: " + tally.so_far() + ".").c_str(),
                    sizeof failure.detail);
        throw PgError(failure);
    }
    tally.hand_over();
    const std::string done = tally.so_far();
    call_pg([&] { ereport(NOTICE, (errmsg("drained \"%s\": %s", name.c_str(), done.c_str()))); });
}

bool may_commit(FunctionCallInfo fcinfo) {
    return fcinfo->context && IsA(fcinfo->context, CallContext) &&
           !castNode(CallContext, fcinfo->context)->atomic;
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" {

PG_FUNCTION_INFO_V1(sqs_ingest_drain);
Datum sqs_ingest_drain(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    if (!may_commit(fcinfo))
        ereport(ERROR,
                (errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
                 errmsg("sqs_ingest_drain() cannot run inside a transaction block or a function"),
                 errdetail("It commits after each batch, before it deletes the messages from the queue."),
                 errhint("CALL it on its own, outside BEGIN and COMMIT.")));
    if (PG_ARGISNULL(0))
        ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("pipeline must not be null"),
                        errhint("Name the pipeline, or leave the argument out for \"user_logins\".")));
    const char* name = text_to_cstring(PG_GETARG_TEXT_PP(0));
    std::optional<int64> limit;
    if (!PG_ARGISNULL(1))
        limit = PG_GETARG_INT64(1);
    if (limit && *limit < 0)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("max_messages must not be negative"),
                        errhint("Leave it out to ingest until the queue is empty.")));
    PreventCommandIfReadOnly("sqs_ingest_drain()");
    PreventCommandDuringRecovery("sqs_ingest_drain()");
    pg_entry([&] { drain(name, limit); });
    return Datum(0);
}
}
