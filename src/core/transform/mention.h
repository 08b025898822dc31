// Whether a body is about somebody: for erasing what could not become a row.
#pragma once

#include "core/transform/transform.h"

#include <functional>
#include <string_view>

namespace sqs_ingest {

// True when the message is about the one whose id, in `rule`'s column, is `id` (UTF-8, not empty,
// normalised()): with several rows in it, when one of them is.
//
// Where a mapped field is there, it decides, row by row. Where none is, or it is empty or damaged, the body
// may have the id under another key, since a misspelt key makes a typical dead letter: then any value equal
// to the id, as it is or normalised(), counts outside of the elements that are decided, if its key has the
// letters and digits of the mapped one ("userId" for "user_id"), or if the id is too long to be there by
// chance (8 bytes). Text that is no JSON is searched for string literals and bare words in the same way. A
// part of a value never counts: "jane@x" is not "mary-jane@x".
//
// `same`, if there is one, knows more of what equals the id than its text: 7 is 007 in a column of integers.
using SameAsId = std::function<bool(const std::string& value)>;
bool mentions(const Transform& transform, const Message& message, const ColumnRule& rule, std::string_view id,
              const SameAsId& same = {});

} // namespace sqs_ingest
