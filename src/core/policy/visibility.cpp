#include "core/policy/visibility.h"

#include <algorithm>

namespace sqs_ingest {

namespace {

// Between a message's delivery and its write.
constexpr std::chrono::seconds kAir{2};

} // namespace

std::chrono::seconds VisibilityPolicy::extension() const {
    const auto room = std::chrono::ceil<std::chrono::seconds>(write_time + kDeleteTime) * 2;
    return std::min(std::max(queue_timeout, room), kMaxTimeout);
}

std::chrono::seconds VisibilityPolicy::of_receive() const {
    return queue_timeout >= write_time + kDeleteTime + kAir ? std::chrono::seconds(0) : extension();
}

Instant VisibilityPolicy::due_at(const Delivery& delivery) const {
    return delivery.visible_until - std::chrono::milliseconds(std::min(queue_timeout, extension())) / 2;
}

bool VisibilityPolicy::outlasts_write(const Delivery& delivery, Instant now) const {
    return delivery.visible_until - now >= write_time + kDeleteTime;
}

} // namespace sqs_ingest
