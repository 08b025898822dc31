// A mapping is data: which column comes from which part of a message, and what happens to the value on its
// way.
#pragma once

#include "core/result.h"
#include "core/transform/mask.h"
#include "core/transform/version.h"

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sqs_ingest {

// Where a value comes from. Sources are tried in order; the first that is there and not null is used.
struct BodyField {
    std::string pointer;             // JSON Pointer (RFC 6901) as written: "/user_id"
    std::vector<std::string> tokens; // its reference tokens, decoded: {"user_id"}
};
struct ElementField {                // of the element that the row is made of: "@each", "@each/sku"
    std::string pointer;             // as written, "@each" included
    std::vector<std::string> tokens; // empty: the element itself
};
struct ElementIndex {}; // its position, from 0: "@index"
struct WholeBody {};    // "@body": the body as JSON, the parts named in mask_parts masked
struct Attribute {      // a message attribute: "@attribute:trace_id"
    std::string name;
};
enum class MessageField { // of the message
    message_id,           // "@message_id"
    sent_at,     // "@sent_at": SentTimestamp; a number of milliseconds, or a date or time where one is wanted
    received_at, // "@received_at": this machine's clock at the receive, in the same forms
    receive_count,   // "@receive_count": ApproximateReceiveCount
    group_id,        // "@group_id", FIFO
    sequence_number, // "@sequence_number", FIFO
    queue,           // "@queue": the queue URL
};
struct Constant { // "constant": …, or the default
    nlohmann::json value;
};
using Source =
    std::variant<BodyField, ElementField, ElementIndex, WholeBody, Attribute, MessageField, Constant>;

// What happens to it, in order.
struct CanonicalIp {}; // "ip": a valid address in canonical form, anything else as it stands
struct VersionNumber { // "version", "version:digits", "version:major", "version:ordinal"
    VersionKind kind = VersionKind::digits;
};
struct IsoDate {}; // "date": iso_date() of a string
struct Lower {};   // "lower": A to Z of a string to a to z; other letters stay, so that no locale decides
struct Trim {};    // "trim": a string without the ASCII white space around it
struct EpochTime { // "epoch_seconds" (with a fraction), "epoch_millis": a number as a time in UTC
    bool millis = false;
};
struct Mask { // "mask": the pipeline's masking method; "mask:siv" and so on: another
    std::optional<MaskMethod> method;
};
using Step = std::variant<CanonicalIp, VersionNumber, IsoDate, Lower, Trim, EpochTime, Mask>;

struct ColumnRule {
    std::string column;
    std::vector<Source> sources;
    std::vector<Step> steps;
    bool required = false; // missing, null or empty is a rejection; else a missing or null value is NULL
    bool user = false;     // it holds whom the row is about: sqs_ingest_forget() finds the person by it
    std::vector<BodyField> mask_parts; // of WholeBody

    const Mask* mask() const; // its Mask step; nullptr: it has none
    // What a rejection and a preview call the column's field: its first source, without a leading slash.
    std::string field() const;
};

struct Mapping {
    std::vector<ColumnRule> columns; // at least one; each column once
    std::optional<BodyField> each;   // an array in the body: a row for each element

    bool has_column(std::string_view name) const;
    std::vector<std::string> attributes() const; // names of the message attributes that are used, sorted
};

// Reads the JSON form, an array so that the order is the writer's:
//   [{"column": "masked_ip", "from": "/ip", "steps": ["ip", "mask"], "required": true}, …]
// "from" is a source or an array of sources; instead of it, or as the last resort, "default": any JSON value
// but null, or "constant": the same without a source. "mask" is the last step. "@body" needs "mask_parts":
// JSON Pointers, possibly none. "user": true marks the column that sqs_ingest_forget() goes by. Unknown keys
// are errors. `each` is a JSON Pointer, or empty: then "@each" and "@index" are errors. The error says which
// column and what is wrong.
Result<Mapping, std::string> parse_mapping(std::string_view json, std::string_view each = {});

// The JSON form of the built-in pipeline user_logins.
std::string_view user_logins_mapping();

} // namespace sqs_ingest
