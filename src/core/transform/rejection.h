// Why a message could not become a row. The codes are part of the SQL surface
// (sqs_ingest_dead_letter.reason) and never change their meaning.
#pragma once

#include <string>

namespace sqs_ingest {

enum class Reason {
    not_json,            // the body is no JSON text (RFC 8259)
    not_object,          // it is JSON, but not an object
    invalid_utf8,        // bytes that are no UTF-8, or a lone surrogate
    too_deep,            // nested deeper than kMaxNesting
    duplicate_key,       // the same key twice in one object
    missing_field,       // a required field is not there or null
    empty_field,         // a required field is the empty string
    wrong_type,          // the field's JSON type cannot become the column's type
    nul_character,       // U+0000, which Postgres text cannot store
    number_out_of_range, // does not fit the column's type
    bad_version,         // no version number
    bad_date,            // no calendar date, no time
    bad_value,           // not a value of the column's type
    too_long,            // longer than the column (characters); never truncated
    bad_envelope,        // the body is not in the pipeline's envelope: no SNS notification, no event
    bad_encoding,        // the payload is not encoded as the pipeline says: no base64, no gzip
    too_large,           // unpacked, the payload is longer than kMaxPayload; or more rows than kMaxRows
    too_many_receives,   // received more often than the pipeline's max_receive_count
    row_error,           // the target table refused the row (a constraint, a trigger): see sqlstate
};

const char* to_string(Reason reason);

struct Rejection {
    Reason reason;
    std::string field; // the JSON field's name as the mapping names it, or the envelope's; empty when it is
                       // the body as a whole
    std::string sqlstate = {}; // of a row_error
};

} // namespace sqs_ingest
