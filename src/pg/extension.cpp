#include "pg/extension.h"

namespace sqs_ingest::pg {

std::optional<Extension> find_extension() {
    struct Found {
        Oid oid, owner;
        const char* schema;
    };
    const Found found = ask_pg([] {
        Found result{};
        result.oid = get_extension_oid("sqs_ingest", true);
        if (!OidIsValid(result.oid))
            return result;
        Relation relation = table_open(ExtensionRelationId, AccessShareLock);
        ScanKeyData key;
        ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
                    ObjectIdGetDatum(result.oid));
        SysScanDesc scan = systable_beginscan(relation, ExtensionOidIndexId, true, nullptr, 1, &key);
        if (HeapTuple tuple = systable_getnext(scan)) {
            auto* form = reinterpret_cast<Form_pg_extension>(GETSTRUCT(tuple));
            result.owner = form->extowner;
            if (char* schema = get_namespace_name(form->extnamespace))
                result.schema = quote_identifier(schema);
        }
        systable_endscan(scan);
        table_close(relation, AccessShareLock);
        return result;
    });
    if (!found.schema)
        return std::nullopt;
    return Extension{found.oid, found.owner, found.schema};
}

Extension require_extension() {
    auto extension = find_extension();
    if (!extension)
        throw make_error(ERRCODE_UNDEFINED_OBJECT, "extension \"sqs_ingest\" does not exist in this database",
                         "Run CREATE EXTENSION sqs_ingest.");
    return *extension;
}

Extension lock_extension() {
    const auto extension = require_extension();
    call_pg([&] { LockDatabaseObject(ExtensionRelationId, extension.oid, 0, AccessShareLock); });
    return require_extension(); // it may have gone while we waited
}

AsExtensionOwner::AsExtensionOwner(const Extension& extension) {
    GetUserIdAndSecContext(&user_, &security_context_);
    guc_level_ = NewGUCNestLevel();
    call_pg([] {
        set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
                          true, 0, false);
    });
    SetUserIdAndSecContext(extension.owner, security_context_ | SECURITY_LOCAL_USERID_CHANGE);
}

AsExtensionOwner::~AsExtensionOwner() {
    SetUserIdAndSecContext(user_, security_context_);
    AtEOXact_GUC(true, guc_level_);
}

std::string role_name(Oid role) {
    const char* name = ask_pg([&] { return GetUserNameFromId(role, true); });
    return name ? name : std::to_string(role);
}

} // namespace sqs_ingest::pg
