// The timestamps of AWS's credential services.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

// Milliseconds since 1970 of an ISO 8601 timestamp as RFC 3339 profiles it: "2026-11-21T10:30:00Z",
// "2026-11-21T10:30:00.123456Z", "2026-11-21T12:30:00+02:00"; a blank may stand for the T, and a timestamp
// without a zone is UTC. Years 1970 to 9999. Empty: it is none.
std::optional<std::int64_t> parse_timestamp(std::string_view text);

// "2026-11-21T10:30:00Z" of milliseconds since 1970.
std::string format_timestamp(std::int64_t epoch_ms);

} // namespace sqs_ingest
