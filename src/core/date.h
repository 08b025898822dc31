// Calendar dates and times without a clock and without a time zone data base.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

// YYYY-MM-DD of an ISO 8601 date ("2026-11-21") or date and time ("2026-11-21T10:00:00Z", "…+02:00",
// fractions allowed): a date and time with an offset is converted to UTC first; without one it is taken as
// UTC. Years 0001 to 9999, proleptic Gregorian. Empty for anything else.
std::optional<std::string> iso_date(std::string_view text);

// The same as a time in UTC, "2026-11-21T10:00:00.123456Z": microseconds, further digits cut off, no fraction
// when it is zero; midnight for a date alone. 24:00 is none; a leap second is the last microsecond before it.
std::optional<std::string> iso_time(std::string_view text);

// Such a time of microseconds since 1970; empty outside the years 0001 to 9999.
std::optional<std::string> time_of_epoch_us(std::int64_t epoch_us);

// The UTC date of milliseconds since 1970, as YYYY-MM-DD; empty outside the years 0001 to 9999.
std::optional<std::string> date_of_epoch_ms(std::int64_t epoch_ms);

// Milliseconds since 1970 of such a date or date and time, finer digits cut off.
std::optional<std::int64_t> parse_timestamp(std::string_view text);

// "2026-11-21T10:30:00Z" of milliseconds since 1970; "" outside the years 0001 to 9999.
std::string format_timestamp(std::int64_t epoch_ms);

} // namespace sqs_ingest
