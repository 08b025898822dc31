#include "pg/enabled.h"

#include <nlohmann/json.hpp>

#include "pg/guard.h"

namespace sqs_ingest::pg {

namespace {

// Short enough to stay in its row: the launcher, without a database, cannot read a TOAST table.
constexpr std::size_t kMaxLabel = 1800;

ObjectAddress this_database() {
    return ObjectAddress{DatabaseRelationId, MyDatabaseId, 0};
}

// Object ids repeat from cluster to cluster; this number does not.
std::string this_system() {
    return std::to_string(GetSystemIdentifier());
}

// A label that is not ours to understand means nothing is enabled: starting on a guess could eat a queue.
PipelineNames parse_label(const char* label, Oid database) {
    if (!label)
        return {};
    const auto json = nlohmann::json::parse(label, nullptr, false);
    const auto says = [&](const char* key, const nlohmann::json& value) {
        return json.contains(key) && json[key] == value;
    };
    if (!json.is_object() || !says("system", this_system()) || !says("database", database) ||
        !json.contains("pipelines"))
        return {};
    PipelineNames names;
    for (const auto& name : json["pipelines"])
        if (name.is_string())
            names.insert(name.get<std::string>());
    return names;
}

std::string format_label(const PipelineNames& names, Oid database) {
    return nlohmann::json{{"system", this_system()}, {"database", database}, {"pipelines", names}}.dump();
}

extern "C" {
// SECURITY LABEL by hand, or from pg_dumpall's output: a superuser may set it, and it counts only where it
// names the database.
static void check_label(const ObjectAddress* object, const char* label) {
    if (!superuser())
        ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                        errmsg("only superusers can set a security label of provider \"%s\"", kLabelProvider),
                        errhint("Use sqs_ingest_start() and sqs_ingest_stop().")));
    if (object->classId != DatabaseRelationId)
        ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                        errmsg("security labels of provider \"%s\" are for databases only", kLabelProvider),
                        errhint("Use sqs_ingest_start() and sqs_ingest_stop().")));
    if (label && strlen(label) > kMaxLabel)
        ereport(ERROR, (errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
                        errmsg("the security label is longer than %zu bytes", kMaxLabel),
                        errhint("Use sqs_ingest_start() and sqs_ingest_stop().")));
}
}

} // namespace

void register_label() {
    register_label_provider(kLabelProvider, check_label);
}

PipelineNames enabled_pipelines() {
    const ObjectAddress database = this_database();
    const char* label = ask_pg([&] { return GetSecurityLabel(&database, kLabelProvider); });
    return parse_label(label, MyDatabaseId);
}

PipelineNames lock_enabled_pipelines() {
    // Conflicts with itself and with nothing that connecting to the database takes.
    call_pg([] { LockSharedObject(DatabaseRelationId, MyDatabaseId, 0, ShareUpdateExclusiveLock); });
    return enabled_pipelines();
}

void set_enabled_pipelines(const PipelineNames& names) {
    const ObjectAddress database = this_database();
    const std::string label = format_label(names, MyDatabaseId);
    if (label.size() > kMaxLabel)
        throw make_error(ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many pipelines are enabled in this database",
                         "Stop some, or give them shorter names: together they take at most " +
                             std::to_string(kMaxLabel) + " bytes.");
    const char* text = names.empty() ? nullptr : label.c_str();
    call_pg([&] {
        SetSecurityLabel(&database, kLabelProvider, text);
        CommandCounterIncrement();
    });
}

std::map<Oid, PipelineNames> enabled_pipelines_everywhere() {
    struct Label {
        Oid database;
        char* text;
    };
    List* labels = ask_pg([] {
        List* found = NIL;
        Relation relation = table_open(SharedSecLabelRelationId, AccessShareLock);
        SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, nullptr, 0, nullptr);
        while (HeapTuple tuple = systable_getnext(scan)) {
            auto* form = reinterpret_cast<Form_pg_shseclabel>(GETSTRUCT(tuple));
            bool no_provider, no_label;
            Datum provider =
                heap_getattr(tuple, Anum_pg_shseclabel_provider, RelationGetDescr(relation), &no_provider);
            Datum label =
                heap_getattr(tuple, Anum_pg_shseclabel_label, RelationGetDescr(relation), &no_label);
            if (form->classoid != DatabaseRelationId || no_provider || no_label ||
                VARATT_IS_EXTERNAL(DatumGetPointer(label)) ||
                strcmp(TextDatumGetCString(provider), kLabelProvider) != 0)
                continue;
            auto* entry = static_cast<Label*>(palloc(sizeof(Label)));
            entry->database = form->objoid;
            entry->text = TextDatumGetCString(label);
            found = lappend(found, entry);
        }
        systable_endscan(scan);
        table_close(relation, AccessShareLock);
        return found;
    });

    std::map<Oid, PipelineNames> everywhere;
    for (int i = 0; i < list_length(labels); ++i) {
        const auto* label = static_cast<const Label*>(list_nth(labels, i));
        auto names = parse_label(label->text, label->database);
        if (!names.empty())
            everywhere[label->database] = std::move(names);
    }
    return everywhere;
}

} // namespace sqs_ingest::pg
