// What differs between the supported Postgres versions (15 to 18), in one place. Included by pg.h only.
#pragma once

#if PG_VERSION_NUM < 150000
#error "sqs_ingest needs PostgreSQL 15 or later"
#endif

#if PG_VERSION_NUM >= 170000
extern "C" {
#include "utils/wait_event.h"
}
// A role without LOGIN can own a pipeline from 17 on.
#define SQS_WORKER_CONNECT_FLAGS BGWORKER_BYPASS_ROLELOGINCHECK
#define SQS_OWNER_NEEDS_LOGIN 0
#else
#define SQS_WORKER_CONNECT_FLAGS 0
#define SQS_OWNER_NEEDS_LOGIN 1
#endif

namespace sqs_ingest::pg {

// The wait event shown in pg_stat_activity; custom names exist from 17 on.
inline uint32 wait_event(const char* name) {
#if PG_VERSION_NUM >= 170000
    return WaitEventExtensionNew(name);
#else
    (void)name;
    return PG_WAIT_EXTENSION;
#endif
}

// transaction_timeout, which 17 brought, ends a background process by FATAL: our transactions have their own
// bound.
inline void disarm_transaction_timeout() {
#if PG_VERSION_NUM >= 170000
    SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_SESSION);
#endif
}

// The parts of a name as written in SQL. Raises plain Postgres errors.
inline List* qualified_name(const char* text) {
#if PG_VERSION_NUM >= 160000
    return stringToQualifiedNameList(text, nullptr);
#else
    return stringToQualifiedNameList(text);
#endif
}

// Whether a role has CONNECT on the current database.
inline bool may_connect_here(Oid role) {
#if PG_VERSION_NUM >= 160000
    return object_aclcheck(DatabaseRelationId, MyDatabaseId, role, ACL_CONNECT) == ACLCHECK_OK;
#else
    return pg_database_aclcheck(MyDatabaseId, role, ACL_CONNECT) == ACLCHECK_OK;
#endif
}

} // namespace sqs_ingest::pg
