#include "pg/commit_effects.h"

#include "pg/enabled.h"
#include "pg/shared_state.h"

namespace sqs_ingest::pg {

namespace {

struct Hold {
    NameData name;
    SubTransactionId subtransaction; // that it was taken in
    SubTransactionId lifted;         // that lifted it, which can be rolled back; invalid: it is in force

    bool in_force() const { return lifted == InvalidSubTransactionId; }
};

// Of the current transaction. In callbacks that must not raise, so in plain storage.
constexpr int kMaxHolds = kMaxPipelines;
Hold holds[kMaxHolds];
int holds_count = 0;
struct Forgotten {
    NameData name;
    SubTransactionId subtransaction; // that wants it forgotten
};
Forgotten forgotten[kMaxPipelines];
int forgotten_count = 0;
bool look_again = false;
object_access_hook_type previous_access_hook = nullptr;

// A pipeline's own workers finish while it is held.
void change_hold(const char* name, int by) {
    StateLock lock;
    auto* entry = by > 0 ? find_or_create_pipeline(MyDatabaseId, name) : find_pipeline(MyDatabaseId, name);
    if (!entry)
        return;
    entry->holds = std::max(0, entry->holds + by);
    if (entry->holds > 0)
        for (int i = 0; i < shared_state()->slots_count; ++i)
            if (shared_state()->slots[i].pipeline == index_of(*entry))
                ask_to_stop(shared_state()->slots[i]);
}

// A stop() that was committed is true at once, before the launcher has read the catalogs: another database
// may start with the same queue.
void note_disabled(const char* name) {
    StateLock lock;
    if (auto* entry = find_pipeline(MyDatabaseId, name))
        entry->enabled = false;
}

void forget(const char* name) {
    StateLock lock;
    if (auto* entry = find_pipeline(MyDatabaseId, name))
        forget_all_but_use(*entry);
}

void drop_hold(int i) {
    if (holds[i].in_force())
        change_hold(NameStr(holds[i].name), -1);
    holds[i] = holds[--holds_count];
}

// What a subtransaction did to a hold is its parent's, or has not happened. True: a worker may be wanted
// again.
bool end_subtransaction(int i, bool committed, SubTransactionId mine, SubTransactionId parent) {
    Hold& hold = holds[i];
    if (committed) {
        if (hold.subtransaction == mine)
            hold.subtransaction = parent;
        if (hold.lifted == mine)
            hold.lifted = parent;
        return false;
    }
    if (hold.subtransaction == mine) {
        drop_hold(i);
        return true;
    }
    if (hold.lifted == mine) {
        hold.lifted = InvalidSubTransactionId;
        change_hold(NameStr(hold.name), +1);
    }
    return false;
}

extern "C" {
static void at_transaction_end(XactEvent event, void*) {
    const bool pending = holds_count > 0 || forgotten_count > 0 || look_again;
    if (!pending)
        return;
    switch (event) {
    case XACT_EVENT_PRE_PREPARE:
        ereport(ERROR,
                (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                 errmsg("cannot PREPARE a transaction that has started, stopped or changed a pipeline of "
                        "sqs_ingest"),
                 errhint("Use COMMIT.")));
        break;
    case XACT_EVENT_COMMIT:
    case XACT_EVENT_ABORT: {
        while (holds_count > 0) {
            if (event == XACT_EVENT_COMMIT && holds[0].in_force())
                note_disabled(NameStr(holds[0].name));
            drop_hold(0);
        }
        for (int i = 0; event == XACT_EVENT_COMMIT && i < forgotten_count; ++i)
            forget(NameStr(forgotten[i].name));
        forgotten_count = 0;
        // After an abort too: the hold may have ended workers that are wanted again.
        wake_launcher(event == XACT_EVENT_COMMIT);
        look_again = false;
        break;
    }
    default:
        break;
    }
}

static void at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void*) {
    if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
        return;
    const bool committed = event == SUBXACT_EVENT_COMMIT_SUB;
    for (int i = forgotten_count - 1; i >= 0; --i) {
        if (forgotten[i].subtransaction != mine)
            continue;
        if (committed)
            forgotten[i].subtransaction = parent;
        else
            forgotten[i] = forgotten[--forgotten_count];
    }
    bool wanted_again = false;
    for (int i = holds_count - 1; i >= 0; --i)
        wanted_again |= end_subtransaction(i, committed, mine, parent);
    if (wanted_again)
        wake_launcher(false);
}

// DROP EXTENSION: an idle worker runs no SQL that could tell.
static void on_object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id,
                             void* argument) {
    if (previous_access_hook)
        previous_access_hook(access, class_id, object_id, sub_id, argument);
    if (access != OAT_DROP || class_id != ExtensionRelationId || !shared_state())
        return;
    if (object_id != get_extension_oid("sqs_ingest", true))
        return;
    pg_entry([] {
        lock_enabled_pipelines();
        for (const auto& name : enabled_pipelines())
            hold_pipeline(name.c_str());
        set_enabled_pipelines({});
        look_again_at_commit();
    });
}
}

} // namespace

void register_commit_effects() {
    RegisterXactCallback(at_transaction_end, nullptr);
    RegisterSubXactCallback(at_subtransaction_end, nullptr);
    previous_access_hook = object_access_hook;
    object_access_hook = on_object_access;
}

void look_again_at_commit() {
    look_again = true;
}

void forget_at_commit(const char* name) {
    {
        StateLock lock(LW_SHARED);
        if (!shared_state() || !find_pipeline(MyDatabaseId, name))
            return;
    }
    for (int i = 0; i < forgotten_count; ++i)
        if (strcmp(NameStr(forgotten[i].name), name) == 0)
            return;
    if (forgotten_count == kMaxPipelines)
        throw make_error(ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                         "too many pipelines are made or dropped in one transaction",
                         "Do it in several transactions.");
    namestrcpy(&forgotten[forgotten_count].name, name);
    forgotten[forgotten_count++].subtransaction = GetCurrentSubTransactionId();
}

void hold_pipeline(const char* name) {
    for (int i = 0; i < holds_count; ++i)
        if (holds[i].in_force() && strcmp(NameStr(holds[i].name), name) == 0)
            return;
    if (holds_count == kMaxHolds)
        throw make_error(ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many pipelines are stopped in one transaction",
                         "Stop them in several transactions.");
    namestrcpy(&holds[holds_count].name, name);
    holds[holds_count].subtransaction = GetCurrentSubTransactionId();
    holds[holds_count].lifted = InvalidSubTransactionId;
    ++holds_count;
    change_hold(name, +1);
}

void lift_hold(const char* name) {
    const auto current = GetCurrentSubTransactionId();
    for (int i = holds_count - 1; i >= 0; --i) {
        Hold& hold = holds[i];
        if (!hold.in_force() || strcmp(NameStr(hold.name), name) != 0)
            continue;
        if (hold.subtransaction == current) {
            drop_hold(i);
        } else {
            hold.lifted = current;
            change_hold(name, -1);
        }
    }
}

} // namespace sqs_ingest::pg
