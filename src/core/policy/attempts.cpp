#include "core/policy/attempts.h"

#include <utility>

namespace sqs_ingest {

std::optional<Attempts::Attempt> Attempts::take(Instant now) {
    while (!unanswered_.empty()) {
        auto attempt = std::move(unanswered_.front());
        unanswered_.pop_front();
        if (now - attempt.first_sent < kRepeatWithin)
            return attempt;
    }
    return std::nullopt;
}

} // namespace sqs_ingest
