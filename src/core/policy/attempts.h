// The ids of receives from a FIFO queue (ReceiveRequestAttemptId). A receive that got no answer may have
// taken messages all the same, and their groups would stand still until their visibility timeout is over.
// Repeated with its id, within 5 minutes, it gets the same messages again.
// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-receiverequestattemptid-request-parameter.html
#pragma once

#include "core/policy/delivery.h"

#include <deque>
#include <optional>
#include <string>

namespace sqs_ingest {

class Attempts {
  public:
    static constexpr std::chrono::minutes kRepeatWithin{5}; // since it was first sent

    struct Attempt {
        std::string id;
        Instant first_sent;
    };

    // A receive that nobody knows the outcome of: to be repeated.
    void unanswered(Attempt attempt) { unanswered_.push_back(std::move(attempt)); }

    // The one that has waited longest and can still be repeated.
    std::optional<Attempt> take(Instant now);

  private:
    std::deque<Attempt> unanswered_;
};

} // namespace sqs_ingest
