// How many receives may be in flight: one long poll while the queue is empty, more only while answers come
// back full.
#pragma once

#include <cstddef>

namespace sqs_ingest {

class ReceiveGate {
  public:
    static constexpr int kMaxMessages = 10; // of one receive
    static constexpr int kLongPollSeconds = 20;
    static constexpr int kShortPollSeconds =
        1; // of the receives beside the first: they end soon when it is quiet

    // max_receives >= 1; max_held: messages that may be held at once (in hand or expected), at least 10.
    ReceiveGate(int max_receives, std::size_t max_held) : max_receives_(max_receives), max_held_(max_held) {}

    // Whether one more may start, with `in_flight` receives under way and `held` messages not deleted yet.
    bool may_start(int in_flight, std::size_t held) const;

    // After each answer with its number of messages: full doubles the receives, empty goes back to one.
    void answered(int messages);
    void failed();

    int target() const { return target_; }

    // Whether the last answer brought messages: the next one then comes at once.
    bool busy() const { return busy_; }

  private:
    int max_receives_;
    std::size_t max_held_;
    int target_ = 1;
    bool busy_ = false;
};

} // namespace sqs_ingest
