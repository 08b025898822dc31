// The order of a FIFO queue's messages while they are in hand.
//
// A queue hands out nothing more of a message group while one of its messages is in flight, but one receive
// can bring several of them, in their order. What is in hand of a group is therefore a run without gaps, and
// it must stay one: when a message goes back to the queue, everything behind it goes too. Else what stood
// behind would be written before it comes again.
//
// All of these keep the order of what stays and of what goes. A delivery without a group is a group of its
// own.
#pragma once

#include "core/policy/delivery.h"
#include "core/sqs/protocol.h"

#include <chrono>
#include <functional>
#include <string_view>
#include <vector>

namespace sqs_ingest {

// Takes out of `in_hand` what `leaves`, and what stands behind it in its group.
struct Parted {
    std::vector<Delivery> gone;   // `leaves` was true for it
    std::vector<Delivery> behind; // still ours, and to be released
};
Parted part(std::vector<Delivery>& in_hand, const std::function<bool(const Delivery&)>& leaves);

// What is in hand of the arrived message's group from earlier receives, when the queue can only have handed
// it out because that is not ours any more: its sequence number is not behind theirs. Takes it out; usually
// nothing. Sequence numbers are decimal; a message without one is taken for the next.
std::vector<Delivery> take_superseded(std::vector<Delivery>& in_hand, const Delivery& arrived);

// Takes out of a FIFO queue's answer what stands behind a damaged delivery of its group: that one comes back,
// and would be written after it. Behind one whose group is unknown, everything.
std::vector<Message> take_behind_damaged(Received& received);

// The first in hand lets all others go before it, and those of its group follow it.
void move_first_group_to_the_end(std::vector<Delivery>& in_hand);

// Whether nothing of its group is in hand.
bool is_first_of_its_group(const std::vector<Delivery>& in_hand, const Delivery& delivery);

// Whether all that is in hand is one message, or stands behind one.
bool is_one_group(const std::vector<Delivery>& in_hand);

// How long a message that is left to the queue stays invisible there: 2 s after its first delivery, twice as
// long after each further one, at most 15 minutes. `receive_count`: ApproximateReceiveCount, 0 when unknown.
std::chrono::seconds leave_time(int receive_count);

} // namespace sqs_ingest
