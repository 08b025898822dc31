// Texts between the database's encoding and UTF-8, which core speaks; in the current memory context, or the
// argument itself where nothing changes. They raise plain Postgres errors.
#pragma once

namespace sqs_ingest::pg {

inline char* to_utf8(const char* text) {
    return pg_server_to_any(text, static_cast<int>(strlen(text)), PG_UTF8);
}

// Fails for characters that the database's encoding does not have.
inline char* to_server(const char* text) {
    return pg_any_to_server(text, static_cast<int>(strlen(text)), PG_UTF8);
}

} // namespace sqs_ingest::pg
