// A message to rows: pure, total, and the last place that sees plain personal data.
#pragma once

#include "core/result.h"
#include "core/sqs/message.h"
#include "core/transform/column_type.h"
#include "core/transform/envelope.h"
#include "core/transform/mapping.h"
#include "core/transform/mask.h"
#include "core/transform/rejection.h"

#include <optional>
#include <string>
#include <vector>

namespace sqs_ingest {

// One value per column of the mapping, in its order; empty: NULL. As to_column() writes them.
struct Row {
    std::vector<std::optional<std::string>> values;
};

// The bytes that it takes, about.
std::size_t memory_of(const Row& row);

// What one message becomes: one row, or as many as its array has elements, possibly none.
using Rows = std::vector<Row>;

struct Transform {
    Mapping mapping;
    std::vector<ColumnType> types; // one per column of the mapping
    MaskMethod mask_method;
    std::string queue_url = {}; // what "@queue" is
    Envelope envelope = Envelope::none;
    BodyEncoding encoding = BodyEncoding::plain;
};

// What a mapping calls the body: the message's payload, out of its envelope and encoding. Rejections: those
// of parse_payload(), and invalid_utf8 for a damaged one.
Result<nlohmann::json, Rejection> body_of(const Transform& transform, const Message& message);

// Of one message, since a small one can have many elements, and a row copies what it takes from the body.
// Beyond them a message is too_large.
inline constexpr std::size_t kMaxRows = 10'000;
inline constexpr std::size_t kMaxRowBytes = 32u << 20; // memory_of() all of them

// Takes a message to rows, all of them or none. `keyring` may be null where no method needs one.
//
// A value is a JSON string, number or boolean; objects and arrays go into columns of JSON and arrays only,
// and there without steps: else wrong_type. "version" takes strings and non-negative numbers by their JSON
// spelling (2.3 is "2.3"). "mask" takes strings and numbers. "lower", "trim" and "ip" leave what is no string
// as it is. A masked column's value never appears in the Rejection. U+0000 is nul_character (before masking
// too). Lengths are in code points.
Result<Rows, Rejection> transform(const Transform& transform, const Keyring* keyring, const Message& message);

// A text as the rule's steps before masking leave it: trimmed, in lower case, an address in canonical form.
// For comparing with what is stored.
std::string normalised(const ColumnRule& rule, std::string text);

// A value through the rule's steps into its column; the rule does not mask.
Result<std::string, Reason> through_steps(const ColumnRule& rule, const ColumnType& type,
                                          nlohmann::json value);

// The same as transform(), told column by column.
struct ColumnOutcome {
    std::string source;               // which one the value came from, as the mapping writes it; empty: none
    std::optional<Reason> rejected;   // else:
    std::optional<std::string> value; // as it would be stored
};
struct Explanation {
    std::optional<Rejection> rejected;            // of the message as a whole
    std::vector<std::vector<ColumnOutcome>> rows; // a column per rule
};
Explanation explain(const Transform& transform, const Keyring* keyring, const Message& message);

// What a dead letter may show of a body, without plain values. Takes any body. Per mapped
// body field that is there: its type, and for strings the length in characters and a mask token (hmac where
// there is a keyring, else the pipeline's method; left out when that needs a key); how many other top-level
// keys the body has (never their names). For a body that is no JSON object, or longer than kRedactBound
// bytes: its length only.
//   {"bytes": 120, "fields": {"/ip": {"type": "string", "length": 15, "token": "hm1.…"}}, "other_keys": 2}
inline constexpr std::size_t kRedactBound = 65536;
nlohmann::json redact(const Transform& transform, const Keyring* keyring, const Message& message);

} // namespace sqs_ingest
