// What a target column can hold, and a value's way into it.
#pragma once

#include "core/result.h"
#include "core/transform/mapping.h"
#include "core/transform/rejection.h"

#include <nlohmann/json.hpp>

#include <optional>
#include <string>

namespace sqs_ingest {

// As the catalog says. Rows carry text, which the database casts.
struct ColumnType {
    enum class Kind {
        text,
        int2,
        int4,
        int8,
        date,
        boolean,
        numeric,
        float4,
        float8,
        timestamp,
        timestamptz,
        uuid,
        json, // jsonb too
        array,
        other, // whatever else the database reads from text: its cast decides
    };
    Kind kind = Kind::text;
    std::optional<int> max_characters = {}; // varchar(n); of an array: each element's
    Kind element = Kind::other;             // of an array
};

const char* to_string(ColumnType::Kind kind); // for people: "integer"

// A value as the text that the database reads. By kind:
//   text         strings; numbers and booleans by their JSON spelling; not longer than max_characters
//   int2/4/8     integral numbers, strings of digits with an optional minus
//   date         strings that iso_date() understands
//   timestamp/tz strings that iso_time() understands, written in UTC
//   boolean      true and false; 0 and 1; the strings true, t, yes, y, on, 1 and their opposites, in any case
//   numeric,     numbers with every digit that the body has; strings that are written like JSON numbers, or
//   float4/8     with a plus
//   uuid         strings of 32 hex digits, hyphens after 8, 12, 16 and 20 of them or none
//   json         any value
//   array        arrays of what its elements take, nulls, and arrays of those; else as other
//   other        strings as they are, numbers and booleans by their JSON spelling
// Rejections: wrong_type (the JSON type), bad_value (the text is none of the type's), bad_date,
// number_out_of_range, too_long, nul_character.
Result<std::string, Reason> to_column(const nlohmann::json& value, const ColumnType& type);

// Why no value of the rule can ever enter such a column ("its values are masked, and …"); empty: some can.
// `pipeline_method` is what a Mask step without a method uses.
std::optional<std::string> misfit(const ColumnRule& rule, const ColumnType& type,
                                  const MaskMethod& pipeline_method);

} // namespace sqs_ingest
