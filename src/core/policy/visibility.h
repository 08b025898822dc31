// Keeping messages ours while they are in hand.
#pragma once

#include "core/policy/delivery.h"

namespace sqs_ingest {

// A queue's visibility timeout, and what follows from it.
struct VisibilityPolicy {
    std::chrono::seconds queue_timeout{30}; // the queue's own, which every delivery starts with
    std::chrono::milliseconds write_time{}; // the longest that a write takes; deletes need some time after it

    static constexpr std::chrono::seconds kDeleteTime{8};
    static constexpr std::chrono::seconds kMaxTimeout{43200};

    // What a receive asks for: nothing (0: the queue's own time) if that outlasts a write, else an extension
    // at once.
    std::chrono::seconds of_receive() const;

    // What an extension asks for: room for a write, and again as much to repeat it. At least the queue's own.
    std::chrono::seconds extension() const;

    // A delivery that is in hand is extended when less than half of an extension, or of the queue's own time
    // if that is shorter, is left.
    Instant due_at(const Delivery& delivery) const;
    bool due(const Delivery& delivery, Instant now) const { return due_at(delivery) <= now; }

    // Whether a write may start with this delivery in it: its window outlasts the write and the delete.
    bool outlasts_write(const Delivery& delivery, Instant now) const;
};

} // namespace sqs_ingest
