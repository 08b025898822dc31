// A mapping is data: which column comes from which field, and what happens to the value on its way.
#pragma once

#include "core/result.h"
#include "core/transform/mask.h"
#include "core/transform/version.h"

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
struct SentAt {}; // the message's SentTimestamp, written "@sent_at"
using Source = std::variant<BodyField, SentAt>;

// What happens to it, in order.
struct CanonicalIp {}; // "ip": a valid address in canonical form, anything else as it stands
struct VersionNumber { // "version", "version:digits", "version:major", "version:ordinal"
    VersionKind kind = VersionKind::digits;
};
struct IsoDate {}; // "date": iso_date() of a string
struct Mask {};    // "mask": the pipeline's masking method
using Step = std::variant<CanonicalIp, VersionNumber, IsoDate, Mask>;

struct ColumnRule {
    std::string column;
    std::vector<Source> sources;
    std::vector<Step> steps;
    bool required = false; // missing, null or empty is a rejection; else a missing or null value is NULL

    bool masked() const; // has a Mask step
};

struct Mapping {
    std::vector<ColumnRule> columns; // at least one; each column once
};

// Reads the JSON form, an array so that the order is the writer's:
//   [{"column": "masked_ip", "from": "/ip", "steps": ["ip", "mask"], "required": true}, …]
// "from" is a string or an array of strings; "steps" and "required" may be left out; "mask" is the last
// step; unknown keys are errors. The error says which column and what is wrong.
Result<Mapping, std::string> parse_mapping(std::string_view json);

// The JSON form of the built-in pipeline user_logins.
std::string_view user_logins_mapping();

} // namespace sqs_ingest
