#include "core/policy/refresh.h"

#include <algorithm>

namespace sqs_ingest {

RefreshTimes refresh_times(std::int64_t issued_at, std::int64_t expires_at, double random) {
    constexpr std::int64_t kAhead = 15 * 60'000;
    constexpr std::int64_t kMargin = 10'000;
    const std::int64_t life = std::max<std::int64_t>(0, expires_at - issued_at);
    const auto ahead =
        static_cast<std::int64_t>(static_cast<double>(std::min(kAhead, life / 4)) * (1.0 + random / 3.0));
    // Of credentials that live for seconds (in a test, or just before a role's end) the margin is a part.
    return {expires_at - ahead, expires_at - std::min(kMargin, life / 8)};
}

} // namespace sqs_ingest
