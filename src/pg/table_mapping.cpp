#include "pg/table_mapping.h"

#include "pg/encoding.h"
#include "pg/json_text.h"
#include "pg/pipeline.h"
#include "pg/spi.h"

namespace sqs_ingest::pg {

namespace {

using nlohmann::json;

constexpr std::string_view kMasked = "masked_";

// As a JSON Pointer's token (RFC 6901, section 3).
std::string pointer_to(std::string_view field) {
    std::string pointer = "/";
    for (const char c : field)
        pointer += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
    return pointer;
}

bool is_address(std::string_view field) {
    return field == "ip" || field == "ip_address" || field.ends_with("_ip") || field.ends_with("_ip_address");
}

json rule_of(const std::string& column, bool not_null) { // in UTF-8
    json rule{{"column", column}, {"from", pointer_to(column)}};
    if (column.starts_with(kMasked) && column.size() > kMasked.size()) {
        const auto field = std::string_view(column).substr(kMasked.size());
        rule["from"] = pointer_to(field);
        rule["steps"] = is_address(field) ? json{"ip", "mask"} : json{"mask"};
    }
    if (not_null)
        rule["required"] = true;
    if (column == "user_id")
        rule["user"] = true;
    return rule;
}

} // namespace

TableMapping mapping_of_table(Oid table) {
    // A domain over a domain has a copy of its default.
    const auto columns =
        query("SELECT a.attname, a.attnotnull::pg_catalog.text, (a.atthasdef OR t.typdefault IS NOT NULL"
              " OR a.attidentity OPERATOR(pg_catalog.<>) '')::pg_catalog.text"
              " FROM pg_catalog.pg_attribute a"
              " LEFT JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid"
              " WHERE a.attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.oid"
              " AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped ORDER BY a.attnum",
              {std::to_string(table)}, Effect::reads);
    TableMapping mapping;
    json rules = json::array();
    for (const auto& column : columns) {
        if (*column[2] == "true")
            mapping.left_out += (mapping.left_out.empty() ? "" : ", ") + *column[0];
        else
            rules.push_back(rule_of(utf8_of(*column[0]), *column[1] == "true"));
    }
    if (rules.empty())
        throw make_error(
            ERRCODE_INVALID_TABLE_DEFINITION,
            "table " + qualified_name_of(table) + " has no column that a message could fill",
            "Columns with a default, identity and generated columns are left to the database: name what "
            "is to be filled in columns.");
    mapping.columns = json_text(rules);
    return mapping;
}

} // namespace sqs_ingest::pg
