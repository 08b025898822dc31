#include "pg/role_changes.h"

#include "pg/commit_effects.h"
#include "pg/enabled.h"
#include "pg/extension.h"
#include "pg/spi.h"

extern "C" {
#include "commands/user.h"
#include "nodes/parsenodes.h"
}

namespace sqs_ingest::pg {

namespace {

ProcessUtility_hook_type previous_utility_hook = nullptr;

std::string oid_array(const List* roles) {
    std::string array;
    for (int i = 0; i < list_length(roles); ++i)
        array += (array.empty() ? "{" : ",") + std::to_string(list_nth_oid(roles, i));
    return array + "}";
}

// Before any table: in the order of start() and stop().
void lock_if_installed() {
    if (find_extension())
        lock_enabled_pipelines();
}

void drop_pipelines_of(List* roles) {
    const auto extension = find_extension();
    if (!extension)
        return;
    SpiConnection spi;
    std::vector<TextRow> dropped;
    {
        AsExtensionOwner as_owner(*extension);
        dropped = query("DELETE FROM " + extension->table("sqs_ingest_pipeline") +
                            " WHERE owner::oid = ANY ($1::oid[]) RETURNING name",
                        {oid_array(roles)});
        // The next pipeline of that name may be somebody else's.
        for (const auto& row : dropped)
            for (const char* table : {"sqs_ingest_dead_letter", "sqs_ingest_ledger"})
                query("DELETE FROM " + extension->table(table) + " WHERE pipeline = $1", {row[0]});
    }
    if (dropped.empty())
        return;
    auto enabled = lock_enabled_pipelines();
    for (const auto& row : dropped) {
        const std::string& name = *row[0];
        call_pg([&] { ereport(NOTICE, (errmsg("dropped pipeline \"%s\" of sqs_ingest", name.c_str()))); });
        if (enabled.erase(name))
            hold_pipeline(name.c_str());
    }
    set_enabled_pipelines(enabled);
    look_again_at_commit();
}

void hand_over_pipelines_of(List* roles, Oid new_owner) {
    const auto extension = find_extension();
    if (!extension)
        return;
    SpiConnection spi;
    AsExtensionOwner as_owner(*extension);
    query("UPDATE " + extension->table("sqs_ingest_pipeline") +
              " SET owner = $2::oid::regrole WHERE owner::oid = ANY ($1::oid[])",
          {oid_array(roles), std::to_string(new_owner)});
}

extern "C" {
static void on_utility(PlannedStmt* planned, const char* query_string, bool read_only_tree,
                       ProcessUtilityContext context, ParamListInfo parameters, QueryEnvironment* environment,
                       DestReceiver* destination, QueryCompletion* completion) {
    auto* run = previous_utility_hook ? previous_utility_hook : standard_ProcessUtility;
    Node* statement = planned->utilityStmt;
    const bool drops = IsA(statement, DropOwnedStmt), reassigns = IsA(statement, ReassignOwnedStmt);
    // First the statement itself, which checks what the caller may do. It may be a ROLLBACK that frees its
    // own tree: that is looked at again only where we know better.
    if (drops || reassigns)
        pg_entry([] { lock_if_installed(); });
    run(planned, query_string, read_only_tree, context, parameters, environment, destination, completion);

    if (drops) {
        List* roles = roleSpecsToIds(castNode(DropOwnedStmt, statement)->roles);
        pg_entry([&] { drop_pipelines_of(roles); });
    } else if (reassigns) {
        auto* reassign = castNode(ReassignOwnedStmt, statement);
        List* roles = roleSpecsToIds(reassign->roles);
        const Oid new_owner = get_rolespec_oid(reassign->newrole, false);
        pg_entry([&] { hand_over_pipelines_of(roles, new_owner); });
    }
}
}

} // namespace

void register_role_changes() {
    previous_utility_hook = ProcessUtility_hook;
    ProcessUtility_hook = on_utility;
}

} // namespace sqs_ingest::pg
