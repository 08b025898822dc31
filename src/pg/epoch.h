// Times since 1970, as queues have them, and since 2000, as Postgres has them.
#pragma once

#include "pg/pg.h"

namespace sqs_ingest::pg {

inline constexpr std::int64_t kEpochsApart = // microseconds
    static_cast<std::int64_t>(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

inline TimestampTz timestamp_of_us(std::int64_t epoch_us) {
    return epoch_us - kEpochsApart;
}
inline TimestampTz timestamp_of_ms(std::int64_t epoch_ms) {
    return timestamp_of_us(epoch_ms * 1000);
}
inline std::int64_t ms_of_timestamp(TimestampTz time) {
    return (time + kEpochsApart) / 1000;
}

} // namespace sqs_ingest::pg
