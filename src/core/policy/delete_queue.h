// Committed messages on their way out of the SQS queue: batched by ten, failed entries retried with backoff,
// given up when their visibility window is over (they come back, are recognised as duplicates, and are
// deleted then).
#pragma once

#include "core/policy/backoff.h"
#include "core/policy/delivery.h"

#include <deque>
#include <optional>
#include <vector>

namespace sqs_ingest {

class DeleteQueue {
  public:
    static constexpr std::size_t kBatch = 10;               // DeleteMessageBatch's limit
    static constexpr std::chrono::milliseconds kLinger{50}; // how long an incomplete batch waits for company
    static constexpr std::chrono::milliseconds kRetryCap{5000};

    struct Entry {
        Receipt receipt;
        Backoff backoff;
        Instant due;
    };

    void add(Receipt receipt, Instant now);

    // Up to ten entries that are due: a full batch at once, an incomplete one when its oldest entry has
    // waited for kLinger or `flush` is set. Empty: nothing to send now.
    std::vector<Entry> take(Instant now, bool flush);

    // Puts an entry back after a failure; `random` is uniform in [0, 1). False: its window is over, it is
    // dropped.
    bool retry(Entry entry, Instant now, double random);

    std::size_t size() const { return fresh_.size() + retries_.size(); }
    bool empty() const { return size() == 0; }
    // When take() may have something; empty when there is nothing at all.
    std::optional<Instant> next_due() const;

  private:
    std::deque<Entry> fresh_;    // due in the order they came
    std::vector<Entry> retries_; // few
};

} // namespace sqs_ingest
