// JSON of our own making, on its way into the database.
#pragma once

#include "core/transform/body.h"
#include "pg/pg.h"

namespace sqs_ingest::pg {

// ASCII, which is right in every encoding; as it stands in SQL_ASCII, where no escape can be converted.
inline std::string json_text(const nlohmann::json& json) {
    const bool ascii = GetDatabaseEncoding() != PG_SQL_ASCII;
    return sqs_ingest::json_text(json, ascii ? Escape::all_but_ascii : Escape::as_needed);
}

} // namespace sqs_ingest::pg
