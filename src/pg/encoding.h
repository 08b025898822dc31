// Texts between the database's encoding and UTF-8, which core speaks; in the current memory context, or the
// argument itself where nothing changes. They raise plain Postgres errors. In a transaction.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

inline char* to_utf8(const char* text) {
    return pg_server_to_any(text, static_cast<int>(strlen(text)), PG_UTF8);
}

// Fails for characters that the database's encoding does not have.
inline char* to_server(const char* text) {
    return pg_any_to_server(text, static_cast<int>(strlen(text)), PG_UTF8);
}

// The same outside of call_pg, throwing PgError. In SQL_ASCII, which says nothing about its bytes, they stay
// as they are.
inline std::string utf8_of(const std::string& server_text) {
    if (GetDatabaseEncoding() == PG_SQL_ASCII)
        return server_text;
    return ask_pg([&] { return to_utf8(server_text.c_str()); });
}

inline std::string server_text_of(const std::string& utf8) {
    if (GetDatabaseEncoding() == PG_SQL_ASCII)
        return utf8;
    return ask_pg([&] { return to_server(utf8.c_str()); });
}

} // namespace sqs_ingest::pg
