#include "pg/sink.h"

#include "core/policy/fault.h"
#include "core/transform/seal.h"
#include "pg/arrays.h"
#include "pg/durability.h"
#include "pg/epoch.h"
#include "pg/keyring.h"
#include "pg/spi.h"

#include <algorithm>
#include <unordered_map>

namespace sqs_ingest::pg {

namespace {

const char* sql_cast(ColumnType::Kind kind) {
    switch (kind) {
    case ColumnType::Kind::text:
        return ""; // assigned as it is, so that varchar(n) refuses what is too long instead of cutting it
    case ColumnType::Kind::int2:
        return "::pg_catalog.int2";
    case ColumnType::Kind::int4:
        return "::pg_catalog.int4";
    case ColumnType::Kind::int8:
        return "::pg_catalog.int8";
    case ColumnType::Kind::date:
        return "::pg_catalog.date";
    }
    return "";
}

// INSERT INTO target (a, b) SELECT u.c1, u.c2::int4 FROM ROWS FROM (unnest($1), unnest($2)) AS u(c1, c2)
std::string insert_statement(Oid target, const Mapping& mapping, const std::vector<ColumnType>& types) {
    std::string columns, values, arrays, names;
    for (std::size_t i = 0; i < types.size(); ++i) {
        const std::string comma = i ? ", " : "", number = std::to_string(i + 1);
        columns += comma + quote_identifier(mapping.columns[i].column.c_str());
        values += comma + "u.c" + number + sql_cast(types[i].kind);
        arrays += comma + "pg_catalog.unnest($" + number + ")";
        names += comma + "c" + number;
    }
    return "INSERT INTO " + qualified_name_of(target) + " (" + columns + ") SELECT " + values +
           " FROM ROWS FROM (" + arrays + ") AS u(" + names + ")";
}

SPIPlanPtr prepare_plan(const std::string& sql, const std::vector<Oid>& types) {
    return ask_pg([&] {
        SPIPlanPtr plan =
            SPI_prepare(sql.c_str(), static_cast<int>(types.size()), const_cast<Oid*>(types.data()));
        if (!plan)
            elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
        SPI_keepplan(plan);
        return plan;
    });
}

void forget_plan(SPIPlanPtr& plan) {
    if (plan)
        SPI_freeplan(plan);
    plan = nullptr;
}

// Runs a prepared statement; parameters are never NULL. Inside call_pg.
void execute_plan(SPIPlanPtr plan, Datum* parameters) {
    const int code = SPI_execute_plan(plan, parameters, nullptr, false, 0);
    if (code < 0)
        elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(code));
}

const char* sqlstate_text(int sqlstate) {
    return unpack_sql_state(sqlstate);
}

bool is_pipeline_fault(const ErrorReport& report) {
    return sqs_ingest::is_pipeline_fault(sqlstate_text(report.sqlstate));
}

// A message without SentTimestamp gets a fixed substitute, so that its redelivery meets the same ledger
// entry. At the far end, so that it is never pruned.
TimestampTz ledger_time(const Message& message) {
    if (!message.sent_at_ms)
        return DT_NOEND;
    return timestamp_of_ms(*message.sent_at_ms);
}

} // namespace

Sink::Sink(const Pipeline& pipeline, const Extension& extension, Host host)
    : pipeline_(pipeline), extension_(extension),
      host_(host), transform_{pipeline.mapping, {}, pipeline.mask_method} {}

Sink::~Sink() {
    forget_plans();
}

void Sink::forget_plans() {
    forget_plan(insert_);
    forget_plan(ledger_);
    forget_plan(dead_letter_);
}

void Sink::prepare() {
    forget_plans();
    extension_ = require_extension(); // its schema can be renamed, its owner can change
    target_ = lock_target(pipeline_);
    transform_.types = read_columns(pipeline_, target_);
    insert_ = prepare_plan(insert_statement(target_, pipeline_.mapping, transform_.types),
                           std::vector<Oid>(transform_.types.size(), TEXTARRAYOID));

    AsExtensionOwner as_owner(extension_);
    ledger_ = prepare_plan("INSERT INTO " + extension_.table("sqs_ingest_ledger") +
                               " (pipeline, sent_at, message_id) SELECT $1, u.s, u.m"
                               " FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS u(s, m)"
                               " ON CONFLICT DO NOTHING RETURNING message_id",
                           {TEXTOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID});
    dead_letter_ = prepare_plan(
        "INSERT INTO " + extension_.table("sqs_ingest_dead_letter") +
            " (pipeline, message_id, sent_at, receive_count, reason, field, sqlstate, constraint_name, "
            "redacted, sealed)"
            " SELECT $1, u.m, NULLIF(u.s, 'infinity'::pg_catalog.timestamptz), u.n, u.r, u.f, u.e, u.c, "
            "u.j::pg_catalog.jsonb, u.b"
            " FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),"
            " pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8),"
            " pg_catalog.unnest($9), pg_catalog.unnest($10)) AS u(m, s, n, r, f, e, c, j, b)",
        {TEXTOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
         TEXTARRAYOID, TEXTARRAYOID, BYTEAARRAYOID});
}

// In every write: the plan names the table, and a stranger could have put another one in its place since.
void Sink::lock_prepared_target() {
    if (lock_target(pipeline_) != target_)
        throw make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                         "target table " + pipeline_.row.target + " is another table than before",
                         "Its columns are read again.");
}

std::optional<WriteFault> Sink::probe() {
    try {
        Transaction transaction(host_, "sqs_ingest: checking the target table");
        rehearse();
        record_keyring(extension_);
        transaction.commit();
        return std::nullopt;
    } catch (const PgError& error) {
        return WriteFault{error.report()};
    }
}

void Sink::rehearse() {
    prepare();
    insert_rows({}, nullptr, 0);
}

Result<Written, WriteFault> Sink::write(const std::vector<Delivery>& batch, const Keyring& keyring,
                                        bool blame_rows) {
    try {
        return write_at_once(batch, keyring);
    } catch (const PgError& error) {
        if (is_pipeline_fault(error.report()))
            return WriteFault{error.report()};
    }
    try {
        return write_with_care(batch, keyring, blame_rows);
    } catch (const PgError& error) {
        return WriteFault{error.report()};
    }
}

Written Sink::write_at_once(const std::vector<Delivery>& batch, const Keyring& keyring) {
    Transaction transaction(host_, "sqs_ingest: writing a batch");
    lock_prepared_target();
    Written written{std::vector<Fate>(batch.size(), Fate::duplicate), 0};
    Positions rows, rejected;
    for (const auto position : enter_into_ledger(batch, written.fates))
        (written.fates[position] == Fate::inserted ? rows : rejected).push_back(position);
    if (!rows.empty())
        insert_rows(batch, rows.data(), rows.size());
    insert_dead_letters(batch, rejected, {}, keyring);
    transaction.commit();
    written.commit_end = last_commit_end();
    return written;
}

Result<Written, WriteFault> Sink::write_with_care(const std::vector<Delivery>& batch, const Keyring& keyring,
                                                  bool blame_rows) {
    Transaction transaction(host_, "sqs_ingest: writing a batch, looking for bad rows");
    lock_prepared_target();
    insert_rows({}, nullptr, 0); // fails: the pipeline's fault

    Written written{std::vector<Fate>(batch.size(), Fate::duplicate), 0};
    Positions rows, rejected;
    for (const auto position : enter_into_ledger(batch, written.fates))
        (written.fates[position] == Fate::inserted ? rows : rejected).push_back(position);

    std::vector<Refused> refused;
    insert_bisecting(batch, rows.data(), rows.size(), Deferred::settle, refused);
    const bool every_row = !refused.empty() && refused.size() == rows.size() &&
                           std::all_of(refused.begin(), refused.end(), [&](const Refused& one) {
                               return one.report.sqlstate == refused.front().report.sqlstate;
                           });
    if (every_row && !blame_rows)
        return WriteFault{refused.front().report, true};

    for (const auto& one : refused)
        written.fates[one.position] = Fate::dead_letter;
    insert_dead_letters(batch, rejected, refused, keyring);
    transaction.commit();
    written.commit_end = last_commit_end();
    return written;
}

// Records the batch's message ids. Returns the positions of those that were not known, sets their fates, and
// leaves the others duplicates; a message that is in the batch twice counts once.
Sink::Positions Sink::enter_into_ledger(const std::vector<Delivery>& batch, std::vector<Fate>& fates) {
    // Sorted: two workers that insert the same keys in different orders deadlock.
    Positions order(batch.size());
    for (std::size_t i = 0; i < order.size(); ++i)
        order[i] = i;
    const auto key = [&](std::size_t i) {
        return std::pair(ledger_time(batch[i].message), std::string_view(batch[i].message.message_id));
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
    order.erase(std::unique(order.begin(), order.end(),
                            [&](std::size_t a, std::size_t b) { return key(a) == key(b); }),
                order.end());

    struct Known {
        uint64 inserted;
        char** ids; // only when some were known
    };
    AsExtensionOwner as_owner(extension_);
    const Known known = ask_pg([&] {
        // An own transaction id, so that a batch of nothing but duplicates has a commit record too: durable
        // once that is, whoever committed the first delivery.
        GetTopTransactionId();
        Datum parameters[] = {
            server_text_datum(pipeline_.row.name),
            timestamp_array(order.size(),
                            [&](std::size_t i) { return ledger_time(batch[order[i]].message); }),
            text_array(order.size(), [&](std::size_t i) { return Text(batch[order[i]].message.message_id); }),
        };
        execute_plan(ledger_, parameters);
        Known result{SPI_processed, nullptr};
        if (SPI_processed < order.size()) {
            result.ids = static_cast<char**>(palloc0(sizeof(char*) * (SPI_processed + 1)));
            for (uint64 i = 0; i < SPI_processed; ++i)
                result.ids[i] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
        }
        SPI_freetuptable(SPI_tuptable);
        return result;
    });

    std::unordered_set<std::string_view> fresh_ids;
    if (known.ids)
        fresh_ids.insert(known.ids, known.ids + known.inserted);
    Positions fresh;
    for (const auto position : order) {
        if (known.ids && !fresh_ids.count(batch[position].message.message_id))
            continue;
        fates[position] =
            std::holds_alternative<Row>(batch[position].content) ? Fate::inserted : Fate::dead_letter;
        fresh.push_back(position);
    }
    // Rows go in as they were received.
    std::sort(fresh.begin(), fresh.end());
    return fresh;
}

void Sink::insert_rows(const std::vector<Delivery>& batch, const std::size_t* positions, std::size_t n) {
    call_pg([&] {
        const std::size_t columns = transform_.types.size();
        auto* parameters = static_cast<Datum*>(palloc(sizeof(Datum) * columns));
        for (std::size_t column = 0; column < columns; ++column)
            parameters[column] = text_array(n, [&](std::size_t i) {
                const auto& value = std::get_if<Row>(&batch[positions[i]].content)->values[column];
                return value ? Text(*value) : Text();
            });
        execute_plan(insert_, parameters);
    });
}

void Sink::insert_bisecting(const std::vector<Delivery>& batch, const std::size_t* positions, std::size_t n,
                            Deferred deferred, std::vector<Refused>& refused) {
    if (n == 0)
        return;
    try {
        Subtransaction subtransaction;
        if (host_ == Host::worker)
            call_pg([] { restore_settings(); }); // after the triggers of the part before
        insert_rows(batch, positions, n);
        // Deferred constraints would fail at commit, for the whole batch.
        if (deferred == Deferred::settle)
            check_deferred_constraints();
        else
            try_deferred_constraints();
        subtransaction.release();
        return;
    } catch (const PgError& error) {
        if (is_pipeline_fault(error.report()))
            throw;
        if (n == 1) {
            refused.push_back({*positions, error.report()});
            return;
        }
    }
    insert_bisecting(batch, positions, n / 2, deferred, refused);
    insert_bisecting(batch, positions + n / 2, n - n / 2, deferred, refused);
}

void check_deferred_constraints() {
    call_pg([] { SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0); });
}

void try_deferred_constraints() {
    Subtransaction rolled_back;
    check_deferred_constraints();
}

std::vector<Sink::Refused> Sink::insert(const std::vector<Delivery>& batch) {
    Positions rows;
    for (std::size_t i = 0; i < batch.size(); ++i)
        if (std::holds_alternative<Row>(batch[i].content))
            rows.push_back(i);
    std::vector<Refused> refused;
    insert_bisecting(batch, rows.data(), rows.size(), Deferred::try_only, refused);
    return refused;
}

void Sink::insert_dead_letters(const std::vector<Delivery>& batch, const Positions& rejected,
                               const std::vector<Refused>& refused, const Keyring& keyring) {
    struct DeadLetter {
        const Message* message;
        const char* reason;
        std::string_view field, sqlstate, constraint;
        std::string redacted, sealed;
    };
    std::vector<DeadLetter> letters;
    const auto add = [&](const Message& message, const char* reason) -> DeadLetter& {
        letters.push_back({&message,
                           reason,
                           {},
                           {},
                           {},
                           redact(transform_, &keyring, message),
                           seal(keyring, message.message_id, message.body)});
        return letters.back();
    };
    for (const auto position : rejected) {
        const auto& rejection = std::get<Rejection>(batch[position].content);
        auto& letter = add(batch[position].message, to_string(rejection.reason));
        letter.field = rejection.field;
        letter.sqlstate = rejection.sqlstate;
    }
    std::vector<std::string> states;
    states.reserve(refused.size()); // the views below point into it
    for (const auto& one : refused) {
        auto& letter = add(batch[one.position].message, to_string(Reason::row_error));
        letter.sqlstate = states.emplace_back(sqlstate_text(one.report.sqlstate));
        letter.field = one.report.column;
        letter.constraint = one.report.constraint;
    }
    if (letters.empty())
        return;

    AsExtensionOwner as_owner(extension_);
    // No text of a dead letter is ever empty: empty means NULL.
    const auto texts = [&](auto member, Datum (*datum_of)(Text) = text_datum) {
        return text_array(
            letters.size(),
            [&](std::size_t i) {
                const std::string_view text = member(letters[i]);
                return text.empty() ? Text() : Text(text);
            },
            datum_of);
    };
    call_pg([&] {
        Datum parameters[] = {
            server_text_datum(pipeline_.row.name),
            texts([](const DeadLetter& letter) { return std::string_view(letter.message->message_id); }),
            timestamp_array(letters.size(), [&](std::size_t i) { return ledger_time(*letters[i].message); }),
            int4_array(letters.size(), [&](std::size_t i) { return letters[i].message->receive_count; }),
            texts([](const DeadLetter& letter) { return std::string_view(letter.reason); }),
            texts([](const DeadLetter& letter) { return letter.field; }, server_text_datum),
            texts([](const DeadLetter& letter) { return letter.sqlstate; }),
            texts([](const DeadLetter& letter) { return letter.constraint; }, server_text_datum),
            texts([](const DeadLetter& letter) { return std::string_view(letter.redacted); }),
            bytea_array(letters.size(), [&](std::size_t i) { return Text(letters[i].sealed); }),
        };
        execute_plan(dead_letter_, parameters);
    });
}

std::int64_t Sink::prune_ledger(TimestampTz sent_before) {
    Transaction transaction(host_, "sqs_ingest: removing old ledger entries");
    std::int64_t removed = 0;
    {
        AsExtensionOwner as_owner(extension_);
        const std::string ledger = extension_.table("sqs_ingest_ledger");
        const std::string sql = "DELETE FROM " + ledger +
                                " WHERE (pipeline, sent_at, message_id) OPERATOR(pg_catalog.=) ANY (SELECT"
                                " pipeline, sent_at, message_id FROM " +
                                ledger + " WHERE pipeline = $1 AND sent_at < $2 ORDER BY sent_at LIMIT " +
                                std::to_string(kPruneStep) + ")";
        removed = ask_pg([&] {
            Oid types[] = {TEXTOID, TIMESTAMPTZOID};
            Datum values[] = {server_text_datum(pipeline_.row.name), TimestampTzGetDatum(sent_before)};
            const int code = SPI_execute_with_args(sql.c_str(), 2, types, values, nullptr, false, 0);
            if (code < 0)
                elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(code));
            return static_cast<std::int64_t>(SPI_processed);
        });
    }
    transaction.commit();
    return removed;
}

std::optional<std::chrono::seconds> Sink::purge_dead_letters() {
    Transaction transaction(host_, "sqs_ingest: removing old dead letters");
    std::optional<std::chrono::seconds> next;
    {
        AsExtensionOwner as_owner(extension_);
        const std::string letters = extension_.table("sqs_ingest_dead_letter");
        const std::vector<std::optional<std::string>> parameters{pipeline_.row.name,
                                                                 pipeline_.row.dead_letter_retention};
        query("DELETE FROM " + letters + " WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT id FROM " +
                  letters +
                  " WHERE pipeline = $1 AND created_at < now() - $2::interval ORDER BY created_at LIMIT " +
                  std::to_string(kPruneStep) + "))",
              parameters);
        const auto rows = query("SELECT greatest(0, ceil(extract(epoch FROM min(created_at) + $2::interval - "
                                "now())))::text FROM " +
                                    letters + " WHERE pipeline = $1",
                                parameters);
        if (rows.front()[0])
            next = std::chrono::seconds(std::stoll(*rows.front()[0]));
    }
    transaction.commit();
    return next;
}

} // namespace sqs_ingest::pg
