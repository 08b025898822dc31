// A mapping made from a table: its columns matched with a body's fields by name.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

struct TableMapping {
    std::string columns;  // the mapping's JSON
    std::string left_out; // columns that the database fills itself, for people; empty: none
};

// Column "a" from "/a", required where it is NOT NULL; "masked_a" from "/a", masked, an address ("masked_ip",
// "masked_ip_address") in canonical form first. Columns with a default, which can be their domain's,
// identity and generated ones are left out. Needs an SPI connection. Throws PgError when no column is left.
TableMapping mapping_of_table(Oid table);

} // namespace sqs_ingest::pg
