// What unmask() and mask_rewrap() say of a token that they cannot open.
#pragma once

#include "core/transform/mask.h"
#include "pg/guard.h"

namespace sqs_ingest::pg {

inline PgError unmask_error(const UnmaskError& error) {
    const bool unknown = error.kind == UnmaskError::Kind::unknown_key;
    return make_error(unknown ? ERRCODE_UNDEFINED_OBJECT : ERRCODE_INVALID_PARAMETER_VALUE, error.message,
                      error.hint);
}

} // namespace sqs_ingest::pg
