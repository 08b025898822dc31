// gzip (RFC 1952), unpacked with suspicion.
#pragma once

#include "core/result.h"

#include <cstddef>
#include <string>
#include <string_view>

namespace sqs_ingest {

enum class GunzipError {
    not_gzip,  // damaged, cut off, something behind the last member, or nothing at all
    too_large, // unpacked it is longer than allowed; no more than that was unpacked
};

// One or more gzip members, one after the other. Throws std::bad_alloc, and nothing on data.
Result<std::string, GunzipError> gunzip(std::string_view bytes, std::size_t max_bytes);

} // namespace sqs_ingest
