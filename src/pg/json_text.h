// JSON of our own making, on its way into the database.
#pragma once

#include "pg/pg.h"

#include <nlohmann/json.hpp>

namespace sqs_ingest::pg {

// ASCII, which is right in every encoding; as it stands in SQL_ASCII, where no escape can be converted.
inline std::string json_text(const nlohmann::json& json) {
    const bool ascii = GetDatabaseEncoding() != PG_SQL_ASCII;
    return json.dump(-1, ' ', ascii, nlohmann::json::error_handler_t::replace);
}

} // namespace sqs_ingest::pg
