// Waiting after errors.
#pragma once

#include "core/sqs/error.h"

#include <chrono>

namespace sqs_ingest {

// Full jitter: random * min(cap, base * 2^(n-1)) for the n-th error in a row.
// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
class Backoff {
  public:
    // The wait after one more error. `random` is uniform in [0, 1).
    std::chrono::milliseconds next(std::chrono::milliseconds base, std::chrono::milliseconds cap,
                                   double random);
    void reset() { errors_ = 0; }
    int errors() const { return errors_; }

  private:
    int errors_ = 0;
};

struct BackoffRange {
    std::chrono::milliseconds base;
    std::chrono::milliseconds cap;
};

// Throttling starts at 1 s, what is transient at 50 ms, both up to 20 s; what a person has to mend is tried
// again ever more slowly, up to once a minute.
BackoffRange backoff_range(ErrorClass error_class);

} // namespace sqs_ingest
