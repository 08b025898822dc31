// When credentials that expire are fetched again.
#pragma once

#include <cstdint>

namespace sqs_ingest {

// All in milliseconds since 1970, by this machine's clock.
struct RefreshTimes {
    std::int64_t refresh_at;   // from here on newer ones are fetched, and the old ones used meanwhile
    std::int64_t usable_until; // from here on requests wait for newer ones
};

// AWS's SDKs begin 15 minutes before the end, and so does this; of credentials that last less than an hour,
// in the last quarter of their time. `random`, uniform in [0, 1), brings that forward by up to a third, so
// that workers that started together do not all ask at once. Usable they are until 10 s before the end: a
// request needs time to arrive. (SDKs make requests wait in the last 10 minutes already; here credentials
// that AWS still accepts are used, and an issuer's outage of ten minutes costs nothing.)
RefreshTimes refresh_times(std::int64_t issued_at, std::int64_t expires_at, double random);

} // namespace sqs_ingest
