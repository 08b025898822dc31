// Whether a body is about somebody: for erasing what could not become a row.
#pragma once

#include "core/transform/mapping.h"

#include <string_view>

namespace sqs_ingest {

// True when `body` is about the one whose id, in `rule`'s column, is `id` (UTF-8, not empty).
//
// Where a mapped field is there, it decides. Where it is not, the body may have it under another key, since a
// misspelt key makes a typical dead letter: then any value equal to the id counts, if its key has the letters
// and digits of the mapped one ("userId" for "user_id"), or if the id is too long to be there by chance (8
// bytes). Text that is no JSON is searched for string literals and bare words in the same way. A part of a
// value never counts: "jane@x" is not "mary-jane@x".
bool mentions(std::string_view body, const ColumnRule& rule, std::string_view id);

} // namespace sqs_ingest
