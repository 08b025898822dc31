// A message's body to a row: pure, total, and the last place that sees plain personal data.
#pragma once

#include "core/result.h"
#include "core/sqs/message.h"
#include "core/transform/mapping.h"
#include "core/transform/mask.h"
#include "core/transform/rejection.h"

#include <optional>
#include <string>
#include <vector>

namespace sqs_ingest {

// What the target column can hold, as the catalog says. Rows carry text; the database casts integers and
// dates.
struct ColumnType {
    enum class Kind { text, int2, int4, int8, date };
    Kind kind = Kind::text;
    std::optional<int> max_characters; // varchar(n)
};

// One value per column of the mapping, in its order; empty: NULL. Integers are written in decimal, dates as
// YYYY-MM-DD: what reaches the database always casts.
struct Row {
    std::vector<std::optional<std::string>> values;
};

struct Transform {
    Mapping mapping;
    std::vector<ColumnType> types; // one per column of the mapping
    MaskMethod mask_method;
};

// Takes a body to a row. `keyring` may be null where the method needs none.
//
// A value is a JSON string, number or boolean. A text column takes strings (numbers and booleans by their
// JSON spelling); an integer column takes integral numbers and strings of digits with an optional minus; a
// date column takes strings that iso_date() understands. "version" takes strings and non-negative numbers by
// their JSON spelling (2.3 is "2.3"). "mask" takes strings and numbers. A masked column's value never appears
// in the Rejection. An integer that parsing rounded (beyond 64 bits) is number_out_of_range as text too:
// equal masks must mean equal values. Objects and arrays are wrong_type. U+0000 is nul_character (before
// masking too). Lengths are in code points.
Result<Row, Rejection> transform(const Transform& transform, const Keyring* keyring, const Message& message);

// What a dead letter may show of a body: JSON text in ASCII, without plain values. Takes any body. Per mapped
// body field that is there: its type, and for strings the length in characters and a mask token (hmac where
// there is a keyring, else the pipeline's method; left out when that needs a key); how many other top-level
// keys the body has (never their names). For a body that is no JSON object, or longer than kRedactBound
// bytes: its length only.
//   {"bytes": 120, "fields": {"/ip": {"type": "string", "length": 15, "token": "hm1.…"}}, "other_keys": 2}
inline constexpr std::size_t kRedactBound = 65536;
std::string redact(const Transform& transform, const Keyring* keyring, const Message& message);

} // namespace sqs_ingest
