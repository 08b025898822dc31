// Committed messages on their way out of the SQS queue: batched by ten, failed entries retried with backoff,
// given up when their visibility window is over (they come back, are recognised as duplicates, and are
// deleted then).
//
// Of a FIFO queue, a message is not deleted before the earlier ones of its group are: while those are under
// way or wait for a retry it waits, and when one of them is given up it is given up too. Otherwise the
// earlier one would come back alone, behind what it stood in front of.
#pragma once

#include "core/policy/backoff.h"
#include "core/policy/delivery.h"

#include <list>
#include <optional>
#include <string>
#include <unordered_map>
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
        std::uint64_t place;     // in the order of add()
        bool unanswered = false; // before, by an answer that left it out
    };

    // Receipts of one group are added in the order of their messages.
    void add(Receipt receipt, Instant now);

    // Up to ten entries that are due: a full batch at once, an incomplete one when its oldest entry has
    // waited for kLinger, one of them is a retry, or `flush` is set. Empty: nothing to send now. Each of them
    // ends in deleted(), retry() or lost(), those of one batch in its order.
    std::vector<Entry> take(Instant now, bool flush);

    void deleted(const Entry& entry);

    // Puts an entry back after a failure; `random` is uniform in [0, 1). False: its window is over, it is
    // lost; or its group was given up meanwhile, and take_given_up() has it.
    bool retry(Entry entry, Instant now, double random);

    // Its delivery is not ours any more, or never was.
    void lost(const Entry& entry);

    // What was given up because an earlier message of its group was lost: still ours, and to be released.
    // Since the last call.
    struct GivenUp {
        std::vector<std::string> groups; // each once
        std::vector<Receipt> receipts;
    };
    GivenUp take_given_up();

    std::size_t size() const { return waiting_.size(); }
    bool empty() const { return waiting_.empty(); }
    // When take() may have something, unless an answer comes before; empty when only answers are waited for,
    // or nothing.
    std::optional<Instant> next_due() const;

  private:
    struct Group {
        int under_way = 0;
        bool given_up = false; // what is under way still, too
    };

    Entry leave_list(std::list<Entry>::iterator entry);
    void settle(const Entry& entry);
    void give_up(const std::string& group);
    void give_up_expired(Instant now);

    std::list<Entry> waiting_; // by place
    std::uint64_t added_ = 0;
    std::size_t retries_ = 0;                       // among the waiting
    std::size_t grouped_ = 0;                       // among the waiting
    std::unordered_map<std::string, Group> groups_; // that have entries under way
    GivenUp given_up_;
};

} // namespace sqs_ingest
