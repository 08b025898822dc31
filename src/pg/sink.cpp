#include "pg/sink.h"

#include "core/policy/fault.h"
#include "core/transform/seal.h"
#include "pg/arrays.h"
#include "pg/dead_letters.h"
#include "pg/durability.h"
#include "pg/encoding.h"
#include "pg/epoch.h"
#include "pg/json_text.h"
#include "pg/keyring.h"
#include "pg/spi.h"

#include <algorithm>

extern "C" {
#include "access/relation.h"
#include "access/tupdesc.h"
#include "catalog/pg_collation.h"
#include "nodes/plannodes.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/plancache.h"
}

namespace sqs_ingest::pg {

namespace {

// SELECT u.c1, u.c2::int4 FROM ROWS FROM (unnest($1), unnest($2)) WITH ORDINALITY AS u(c1, c2, n)
std::string rows_of_arrays(const TargetColumns& columns) {
    std::string values, arrays, names;
    for (std::size_t i = 0; i < columns.types.size(); ++i) {
        const std::string comma = i ? ", " : "", number = std::to_string(i + 1);
        values += comma + "u.c" + number + columns.casts[i];
        arrays += comma + "pg_catalog.unnest($" + number + ")";
        names += comma + "c" + number;
    }
    return "SELECT " + values + " FROM ROWS FROM (" + arrays + ") WITH ORDINALITY AS u(" + names + ", n)";
}

std::string column_list(const std::vector<std::string>& columns) {
    std::string list;
    for (const auto& column : columns)
        list += (list.empty() ? "" : ", ") + quoted(column);
    return list;
}

std::string on_conflict_clause(const Pipeline& pipeline) {
    if (pipeline.on_conflict == OnConflict::dead_letter)
        return "";
    const auto& keys = pipeline.conflict_columns;
    const std::string target = keys.empty() ? "" : " (" + column_list(keys) + ")";
    std::string updates;
    if (pipeline.on_conflict == OnConflict::update)
        for (const auto& rule : pipeline.mapping.columns)
            if (std::find(keys.begin(), keys.end(), rule.column) == keys.end()) {
                const std::string column = quoted(rule.column);
                updates += (updates.empty() ? "" : ", ") + column + " = EXCLUDED." + column;
            }
    if (updates.empty())
        return " ON CONFLICT" + target + " DO NOTHING";
    return " ON CONFLICT" + target + " DO UPDATE SET " + updates;
}

std::string insert_statement(Oid target, const Pipeline& pipeline, const std::string& rows) {
    std::vector<std::string> names;
    for (const auto& rule : pipeline.mapping.columns)
        names.push_back(rule.column);
    return "INSERT INTO " + qualified_name_of(target) + " (" + column_list(names) + ") " + rows +
           on_conflict_clause(pipeline);
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

// What the planner found out about an INSERT.
struct Insert {
    bool is_nothing;      // a rule DO INSTEAD NOTHING leaves that of it
    Oid table;            // that its rows go into, behind a view too
    const List* arbiters; // the unique indexes that ON CONFLICT looks into
};

// Inside call_pg.
Insert planned_insert(SPIPlanPtr plan) {
    CachedPlan* cached = SPI_plan_get_cached_plan(plan);
    if (!cached)
        elog(ERROR, "the INSERT is not one plan");
    Insert insert{cached->stmt_list == NIL, InvalidOid, NIL};
    for (int i = 0; i < list_length(cached->stmt_list) && !OidIsValid(insert.table); ++i) {
        const auto* statement = list_nth_node(PlannedStmt, cached->stmt_list, i);
        if (!statement->planTree || !IsA(statement->planTree, ModifyTable))
            continue;
        const int table = linitial_int(statement->resultRelations);
        insert.table = rt_fetch(table, statement->rtable)->relid;
        insert.arbiters = list_copy(castNode(ModifyTable, statement->planTree)->arbiterIndexes);
    }
    ReleaseCachedPlan(cached, CurrentResourceOwner);
    return insert;
}

// Whether something of the table's own can leave rows out, or change them on their way in.
bool may_change_rows(Oid table) {
    if (!OidIsValid(table) || has_row_trigger(table))
        return true;
    Relation relation = relation_open(table, NoLock);
    const bool rules = relation->rd_rules != nullptr;
    relation_close(relation, NoLock);
    return rules;
}

// How the unique indexes compare keys that ON CONFLICT looks into.
struct KeyEquality {
    bool nulls_are_equal;
    Oid* collations; // one per column of the key
};

// The column's place in the mapping.
std::size_t place_of(const Pipeline& pipeline, const std::string& column) {
    const auto& rules = pipeline.mapping.columns;
    return static_cast<std::size_t>(
        std::find_if(rules.begin(), rules.end(),
                     [&](const ColumnRule& rule) { return rule.column == column; }) -
        rules.begin());
}

bool is_deterministic(Oid collation) {
    return !OidIsValid(collation) || get_collation_isdeterministic(collation);
}

// The column of the table behind views that an INSERT into the view's goes into; a table's own stays. Inside
// call_pg; of a view that Postgres updates by itself, and whose INSERT has been planned: it is locked, and so
// is what it is made of.
AttrNumber column_behind_views(Oid table, AttrNumber column) {
    while (get_rel_relkind(table) == RELKIND_VIEW) {
        Relation view = relation_open(table, NoLock);
        const Query* query = get_view_query(view);
        const auto* behind = castNode(Var, get_tle_by_resno(query->targetList, column)->expr);
        table = rt_fetch(behind->varno, query->rtable)->relid;
        column = behind->varattno;
        relation_close(view, NoLock);
    }
    return column;
}

// Where several indexes are looked into, keys are equal that one of them takes for equal.
KeyEquality equality_of_keys(SPIPlanPtr plan, const Pipeline& pipeline, const TargetColumns& columns,
                             Oid target) {
    const std::size_t n = pipeline.conflict_columns.size();
    auto* collations = ask_pg([&] { return static_cast<Oid*>(palloc(sizeof(Oid) * n)); });
    for (std::size_t i = 0; i < n; ++i)
        collations[i] = columns.declared[place_of(pipeline, pipeline.conflict_columns[i])].collation;
    return ask_pg([&] {
        KeyEquality equality{false, collations};
        const Insert insert = planned_insert(plan);
        for (int arbiter = 0; arbiter < list_length(insert.arbiters); ++arbiter) {
            Relation index = index_open(list_nth_oid(insert.arbiters, arbiter), AccessShareLock);
            equality.nulls_are_equal |= index->rd_index->indnullsnotdistinct;
            // An index can have another collation than its column.
            for (std::size_t i = 0; i < n; ++i) {
                const auto column = get_attnum(target, pipeline.conflict_columns[i].c_str());
                const auto attribute = column_behind_views(target, column);
                for (int key = 0; key < index->rd_index->indnkeyatts; ++key)
                    if (index->rd_index->indkey.values[key] == attribute &&
                        (arbiter == 0 || !is_deterministic(index->rd_indcollation[key])))
                        collations[i] = index->rd_indcollation[key];
            }
            index_close(index, AccessShareLock);
        }
        // A trigger can give a key to each of the rows that have none.
        if (equality.nulls_are_equal)
            equality.nulls_are_equal = !has_row_trigger(insert.table);
        return equality;
    });
}

std::string collate_clause(Oid collation) {
    if (!OidIsValid(collation) || collation == DEFAULT_COLLATION_OID) // which a parameter has, too
        return "";
    const char* name = ask_pg([&] {
        HeapTuple tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
        if (!HeapTupleIsValid(tuple))
            elog(ERROR, "collation %u does not exist", collation);
        const auto* form = reinterpret_cast<Form_pg_collation>(GETSTRUCT(tuple));
        const char* result = quote_qualified_identifier(get_namespace_name(form->collnamespace),
                                                        pstrdup(NameStr(form->collname)));
        ReleaseSysCache(tuple);
        return result;
    });
    return std::string(" COLLATE ") + name;
}

// Of rows with one key in one statement the last one counts: it could not update a row twice. What is one key
// is for the unique index to say.
std::string last_of_each_key(const Pipeline& pipeline, const TargetColumns& columns,
                             const KeyEquality& equality) {
    std::string keys, nulls;
    for (std::size_t i = 0; i < pipeline.conflict_columns.size(); ++i) {
        const std::size_t place = place_of(pipeline, pipeline.conflict_columns[i]);
        const std::string cell = "u.c" + std::to_string(place + 1);
        keys += (i ? ", " : "") + cell + columns.keys[place] + collate_clause(equality.collations[i]);
        nulls += (i ? " OR " : "") + cell + " IS NULL";
    }
    if (!equality.nulls_are_equal)
        keys += ", CASE WHEN " + nulls + " THEN u.n END";
    std::string rows = rows_of_arrays(columns);
    return rows.insert(strlen("SELECT "), "DISTINCT ON (" + keys + ") ") + " ORDER BY " + keys + ", u.n DESC";
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
    : pipeline_(pipeline), extension_(extension), host_(host), transform_(transform_for(pipeline, {})) {}

Sink::~Sink() {
    forget_plans();
}

void Sink::forget_plans() {
    forget_plan(insert_);
    forget_plan(ledger_);
    forget_plan(dead_letter_);
    if (shape_)
        FreeTupleDesc(std::exchange(shape_, nullptr));
}

// An INSERT that a rule made nothing of would take every message for stored; and its plan does not notice
// that the rule is gone.
std::set<Oid> Sink::read_key_indexes() const {
    const auto insert = ask_pg([&] { return planned_insert(insert_); });
    if (insert.is_nothing)
        throw make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                         "a rule leaves nothing of what is inserted into target table " +
                             pipeline_.row.target,
                         "Drop the rule, or name another table: no message would be stored.");
    std::set<Oid> indexes;
    for (int i = 0; i < list_length(insert.arbiters); ++i)
        indexes.insert(list_nth_oid(insert.arbiters, i));
    return indexes;
}

// Columns, types, constraints: what rows were made for.
void Sink::remember_shape() {
    shape_ = ask_pg([&] {
        MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
        Relation relation = relation_open(target_, NoLock);
        TupleDesc shape = CreateTupleDescCopyConstr(RelationGetDescr(relation));
        relation_close(relation, NoLock);
        MemoryContextSwitchTo(before);
        return shape;
    });
}

bool Sink::has_its_shape() const {
    if (!shape_) // a prepare() has failed
        return false;
    return ask_pg([&] {
        Relation relation = relation_open(target_, NoLock);
        const bool same = equalTupleDescs(shape_, RelationGetDescr(relation));
        relation_close(relation, NoLock);
        return same;
    });
}

void Sink::prepare() {
    forget_plans();
    extension_ = require_extension(); // its schema can be renamed, its owner can change
    target_ = lock_target(pipeline_);
    const auto columns = read_columns(pipeline_, target_);
    const std::vector<Oid> arrays(columns.types.size(), TEXTARRAYOID);
    insert_ = prepare_plan(insert_statement(target_, pipeline_, rows_of_arrays(columns)), arrays);
    key_indexes_ = read_key_indexes();
    if (pipeline_.on_conflict == OnConflict::update) {
        const auto equality = equality_of_keys(insert_, pipeline_, columns, target_);
        forget_plan(insert_);
        insert_ = prepare_plan(
            insert_statement(target_, pipeline_, last_of_each_key(pipeline_, columns, equality)), arrays);
    }
    declared_ = columns.declared;
    remember_shape();
    transform_ = transform_for(pipeline_, columns.types);

    AsExtensionOwner as_owner(extension_);
    ledger_ = prepare_plan("INSERT INTO " + extension_.table("sqs_ingest_ledger") +
                               " (pipeline, sent_at, message_id) SELECT $1, u.s, u.m"
                               " FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS u(s, m)"
                               " ON CONFLICT DO NOTHING RETURNING message_id",
                           {TEXTOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID});
    prepare_dead_letters();
}

// As the extension's owner.
void Sink::prepare_dead_letters() {
    forget_plan(dead_letter_);
    metadata_is_kept_ = keeps_metadata(extension_);
    const std::string metadata = metadata_is_kept_ ? ", sealed_metadata" : "";
    dead_letter_ = prepare_plan(
        "INSERT INTO " + extension_.table("sqs_ingest_dead_letter") +
            " (pipeline, message_id, sent_at, receive_count, reason, field, sqlstate, constraint_name, "
            "redacted, sealed" +
            metadata +
            ")"
            " SELECT $1, u.m, NULLIF(u.s, 'infinity'::pg_catalog.timestamptz), u.n, u.r, u.f, u.e, u.c, "
            "u.j::pg_catalog.jsonb, u.b" +
            (metadata.empty() ? "" : ", u.d") +
            " FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),"
            " pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8),"
            " pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11))"
            " AS u(m, s, n, r, f, e, c, j, b, d)",
        {TEXTOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
         TEXTARRAYOID, TEXTARRAYOID, BYTEAARRAYOID, BYTEAARRAYOID});
}

PipelineRow Sink::require_own_row(RowLock lock) {
    const auto& mine = pipeline_.row;
    auto row = read_pipeline(extension_, mine.name, lock);
    pipeline_is_gone_ = !row || row->owner != mine.owner;
    if (pipeline_is_gone_)
        throw make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                         "pipeline \"" + mine.name + "\" was dropped, or has another owner",
                         "What was not written goes back to the queue.");
    return std::move(*row);
}

// A worker is replaced, and waited for by a drop. A session is neither: it looks in every transaction, before
// it takes another lock. Where something is written under the name, the row stays as long; a lock makes a
// commit of what would be none.
void Sink::require_same_pipeline(RowLock lock) {
    if (host_ == Host::worker)
        return;
    const auto& mine = pipeline_.row;
    const auto row = require_own_row(lock);
    if (row.everything != mine.everything)
        throw make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                         "pipeline \"" + mine.name + "\" was altered",
                         "What was not written goes back to the queue: CALL sqs_ingest_drain() again.");
}

// In every write: the plan names the table, and a stranger could have put another one in its place since.
void Sink::lock_prepared_target() {
    if (lock_target(pipeline_) != target_)
        throw make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                         "target table " + pipeline_.row.target + " is another table than before",
                         "Its columns are read again.");
    if (has_its_shape()) {
        if (read_key_indexes() != key_indexes_)
            prepare(); // the rows in hand are right all the same
        return;
    }
    read_columns(pipeline_, target_); // says what is wrong with them now, if anything is
    throw make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                     "target table " + pipeline_.row.target + " has changed", "Its columns are read again.");
}

// Before the ledger, where dead letters are to come, for which the row is locked: DROP EXTENSION takes the
// tables in the order in which they were made.
void Sink::lock_pipelines() {
    if (host_ == Host::session) // has read its row
        return;
    AsExtensionOwner as_owner(extension_);
    query("LOCK TABLE ONLY " + extension_.table("sqs_ingest_pipeline") + " IN ROW SHARE MODE");
}

std::optional<WriteFault> Sink::probe() {
    try {
        Transaction transaction(host_, "sqs_ingest: checking the target table");
        extension_ = require_extension(); // its schema can be renamed, its owner can change
        require_same_pipeline(RowLock::none);
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
    require_same_pipeline(RowLock::stays);
    lock_prepared_target();
    if (std::any_of(batch.begin(), batch.end(), [](const Delivery& delivery) {
            return std::holds_alternative<Rejection>(delivery.content);
        }))
        lock_pipelines();
    Written written{std::vector<Fate>(batch.size(), Fate::duplicate)};
    Positions rows, rejected;
    for (const auto position : enter_into_ledger(batch, written.fates))
        sort_by_fate(position, written.fates[position], rows, rejected);
    if (!rows.empty())
        written.conflicts = insert_rows(batch, rows.data(), rows.size());
    insert_dead_letters(batch, rejected, {}, keyring);
    transaction.commit();
    written.commit_end = last_commit_end();
    return written;
}

// A message whose array is empty has none, and tells nothing about the table.
static std::size_t messages_with_rows(const std::vector<Delivery>& batch,
                                      const std::vector<std::size_t>& positions) {
    return static_cast<std::size_t>(
        std::count_if(positions.begin(), positions.end(), [&](std::size_t position) {
            return !std::get<Rows>(batch[position].content).empty();
        }));
}

Result<Written, WriteFault> Sink::write_with_care(const std::vector<Delivery>& batch, const Keyring& keyring,
                                                  bool blame_rows) {
    Transaction transaction(host_, "sqs_ingest: writing a batch, looking for bad rows");
    require_same_pipeline(RowLock::stays);
    lock_prepared_target();
    lock_pipelines();
    insert_rows({}, nullptr, 0); // fails: the pipeline's fault

    Written written{std::vector<Fate>(batch.size(), Fate::duplicate)};
    Positions rows, rejected;
    for (const auto position : enter_into_ledger(batch, written.fates))
        sort_by_fate(position, written.fates[position], rows, rejected);

    std::vector<Refused> refused;
    written.conflicts = insert_bisecting(batch, rows.data(), rows.size(), Deferred::settle, refused);
    const bool every_row =
        !refused.empty() && refused.size() == messages_with_rows(batch, rows) &&
        std::all_of(refused.begin(), refused.end(), [&](const Refused& one) {
            return one.rejection.reason == Reason::row_error && // not the value's own fault
                   one.report.sqlstate == refused.front().report.sqlstate;
        });
    if (every_row && !blame_rows)
        return WriteFault{refused.front().report, true};

    if (!refused.empty() && pipeline_.on_invalid == OnInvalid::leave)
        return WriteFault{refused.front().report, false, std::move(refused)};
    // A whole batch that is refused may be the table's doing after all: that is kept.
    const bool discard = pipeline_.on_invalid == OnInvalid::discard && !every_row;
    for (const auto& one : refused)
        written.fates[one.position] = discard ? Fate::discarded : Fate::dead_letter;
    insert_dead_letters(batch, rejected, discard ? std::vector<Refused>{} : refused, keyring);
    transaction.commit();
    written.commit_end = last_commit_end();
    return written;
}

void Sink::sort_by_fate(std::size_t position, Fate fate, Positions& rows, Positions& rejected) {
    if (fate == Fate::inserted)
        rows.push_back(position);
    else if (fate == Fate::dead_letter)
        rejected.push_back(position);
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

    const auto fresh_ids = record_ids(batch, order);
    Positions fresh;
    for (const auto position : order) {
        if (fresh_ids && !fresh_ids->count(batch[position].message.message_id))
            continue;
        const auto* rejection = std::get_if<Rejection>(&batch[position].content);
        fates[position] = !rejection                                             ? Fate::inserted
                          : fate_of(pipeline_, *rejection) == OnInvalid::discard ? Fate::discarded
                                                                                 : Fate::dead_letter;
        fresh.push_back(position);
    }
    // Rows go in as they were received.
    std::sort(fresh.begin(), fresh.end());
    return fresh;
}

// Of the ids, in that order, those that were not known; empty: none was.
std::optional<std::set<std::string>> Sink::record_ids(const std::vector<Delivery>& batch,
                                                      const Positions& order) {
    // An own transaction id, so that a batch of nothing but duplicates has a commit record too: durable once
    // that is, whoever committed the first delivery.
    call_pg([] { GetTopTransactionId(); });
    if (!pipeline_.row.ledger)
        return std::nullopt;
    struct Known {
        uint64 inserted;
        char** ids; // only when some were known
    };
    AsExtensionOwner as_owner(extension_);
    const Known known = ask_pg([&] {
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
    if (!known.ids)
        return std::nullopt;
    return std::set<std::string>(known.ids, known.ids + known.inserted);
}

std::int64_t Sink::insert_rows(const std::vector<Delivery>& batch, const std::size_t* positions,
                               std::size_t n) {
    std::vector<const Row*> rows;
    for (std::size_t i = 0; i < n; ++i)
        for (const auto& row : std::get<Rows>(batch[positions[i]].content))
            rows.push_back(&row);
    const auto inserted = ask_pg([&] {
        const std::size_t columns = transform_.types.size();
        auto* parameters = static_cast<Datum*>(palloc(sizeof(Datum) * columns));
        for (std::size_t column = 0; column < columns; ++column)
            parameters[column] = text_array(rows.size(), [&](std::size_t i) {
                const auto& value = rows[i]->values[column];
                return value ? Text(*value) : Text();
            });
        execute_plan(insert_, parameters);
        return static_cast<std::int64_t>(SPI_processed);
    });
    const auto left_out = static_cast<std::int64_t>(rows.size()) - inserted;
    if (left_out == 0 || pipeline_.on_conflict != OnConflict::nothing || pipeline_.mapping.each)
        return 0;
    // A trigger that returns NULL leaves rows out, too: with one, nobody knows which were conflicts.
    return ask_pg([&] { return may_change_rows(planned_insert(insert_).table); }) ? 0 : left_out;
}

std::int64_t Sink::insert_bisecting(const std::vector<Delivery>& batch, const std::size_t* positions,
                                    std::size_t n, Deferred deferred, std::vector<Refused>& refused) {
    if (n == 0)
        return 0;
    try {
        Subtransaction subtransaction;
        if (host_ == Host::worker)
            call_pg([] { restore_settings(); }); // after the triggers of the part before
        const auto conflicts = insert_rows(batch, positions, n);
        // Deferred constraints would fail at commit, for the whole batch.
        if (deferred == Deferred::settle)
            check_deferred_constraints();
        else
            try_deferred_constraints();
        subtransaction.release();
        return conflicts;
    } catch (const PgError& error) {
        if (is_pipeline_fault(error.report()))
            throw;
        if (n == 1) {
            refused.push_back(blame(batch[*positions], *positions, error.report()));
            return 0;
        }
    }
    const auto first = insert_bisecting(batch, positions, n / 2, deferred, refused);
    return first + insert_bisecting(batch, positions + n / 2, n - n / 2, deferred, refused);
}

// Where the column's own type does not take a value, its field is named: the database's error does not say.
Refused Sink::blame(const Delivery& delivery, std::size_t position, const ErrorReport& report) {
    Refused refused{
        position, report, {Reason::row_error, utf8_of(report.column), sqlstate_text(report.sqlstate)}};
    for (const auto& row : std::get<Rows>(delivery.content))
        for (std::size_t i = 0; i < declared_.size(); ++i) {
            const int refusal = row.values[i] ? refusal_of(*row.values[i], declared_[i]) : 0;
            if (refusal == 0)
                continue;
            refused.rejection.reason = reason_of_refusal(refusal);
            refused.rejection.field = pipeline_.mapping.columns[i].field();
            return refused;
        }
    return refused;
}

int refusal_of(const std::string& value, const TargetColumns::Declared& column) {
    try {
        Subtransaction rolled_back;
        call_pg([&] {
            Oid input, parameter;
            getTypeInputInfo(column.type, &input, &parameter);
            OidInputFunctionCall(input, to_server(value.c_str()), parameter, column.modifier);
        });
        return 0;
    } catch (const PgError& error) {
        if (is_pipeline_fault(error.report()))
            throw;
        return error.report().sqlstate;
    }
}

Reason reason_of_refusal(int sqlstate) {
    return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ? Reason::row_error
                                                                                   : Reason::bad_value;
}

void check_deferred_constraints() {
    call_pg([] { SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0); });
}

void try_deferred_constraints() {
    Subtransaction rolled_back;
    check_deferred_constraints();
}

std::vector<Refused> Sink::insert(const std::vector<Delivery>& batch) {
    Positions rows;
    for (std::size_t i = 0; i < batch.size(); ++i)
        if (std::holds_alternative<Rows>(batch[i].content))
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
        std::string field;
        std::string_view sqlstate, constraint;
        std::string redacted, sealed, metadata;
    };
    std::vector<DeadLetter> letters;
    const auto add = [&](const Message& message, Reason reason) -> DeadLetter& {
        letters.push_back({&message,
                           to_string(reason),
                           {},
                           {},
                           {},
                           json_text(redact(transform_, &keyring, message)),
                           seal(keyring, message.message_id, message.body),
                           sealed_metadata(keyring, message, reason)});
        return letters.back();
    };
    for (const auto position : rejected) {
        const auto& rejection = std::get<Rejection>(batch[position].content);
        auto& letter = add(batch[position].message, rejection.reason);
        letter.field = server_text_of(rejection.field);
        letter.sqlstate = rejection.sqlstate;
    }
    for (const auto& one : refused) {
        auto& letter = add(batch[one.position].message, one.rejection.reason);
        letter.sqlstate = one.rejection.sqlstate;
        letter.field = server_text_of(one.rejection.field);
        letter.constraint = one.report.constraint;
    }
    if (letters.empty())
        return;
    // DROP OWNED and DELETE do not wait for a worker: the name may be somebody else's by now, and so would
    // the letters be.
    if (host_ == Host::worker)
        require_own_row(RowLock::stays);

    AsExtensionOwner as_owner(extension_);
    if (keeps_metadata(extension_) != metadata_is_kept_) // the extension was updated
        prepare_dead_letters();
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
            texts([](const DeadLetter& letter) { return std::string_view(letter.field); }, server_text_datum),
            texts([](const DeadLetter& letter) { return letter.sqlstate; }),
            texts([](const DeadLetter& letter) { return letter.constraint; }, server_text_datum),
            texts([](const DeadLetter& letter) { return std::string_view(letter.redacted); }),
            bytea_array(letters.size(), [&](std::size_t i) { return Text(letters[i].sealed); }),
            bytea_array(letters.size(),
                        [&](std::size_t i) {
                            const auto& metadata = letters[i].metadata;
                            return metadata.empty() ? Text() : Text(metadata);
                        }),
        };
        execute_plan(dead_letter_, parameters);
    });
}

std::int64_t Sink::prune_ledger(TimestampTz sent_before) {
    Transaction transaction(host_, "sqs_ingest: removing old ledger entries");
    require_same_pipeline(RowLock::stays);
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
    require_same_pipeline(RowLock::stays);
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
