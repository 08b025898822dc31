// Between receive and delete: a message's delivery with its time limits, and then only its receipt.
#pragma once

#include "core/sqs/message.h"
#include "core/transform/rejection.h"
#include "core/transform/transform.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <variant>

namespace sqs_ingest {

using Instant = std::chrono::steady_clock::time_point;

// What a message becomes: rows, or the reason why not; or nobody has looked yet, since there was no room for
// its rows beside what is in hand.
struct Unread {};
using Content = std::variant<Rows, Rejection, Unread>;

// A message in hand: ours until visible_until, when the queue may hand it to somebody else.
struct Delivery {
    Message message;
    Content content; // what it will be in the database
    Instant visible_until;
    bool extending = false; // a request to extend it is under way
    // The message group within which a FIFO queue's order is kept; empty: a standard queue, whose
    // MessageGroupIds mean no order.
    std::string group = {};
    std::uint64_t receive = 0; // which one brought it: within one, a group's messages are in order

    // Writes of it alone that the database broke off, counted when others succeeded in between.
    int lone_faults = 0;
    std::uint64_t writes_at_fault = 0; // how many had succeeded at the last one
    std::string sqlstate = {};         // of the last one
};

// The memory that it takes, about: an unpacked payload makes rows larger than its message.
std::size_t bytes_of(const Delivery& delivery);

// What is left of it once it is committed.
struct Receipt {
    std::string receipt_handle;
    Instant visible_until;
    std::string group = {}; // as the delivery's
};

inline Content content_of(const Transform& how, const Keyring& keyring, const Message& message) {
    auto outcome = transform(how, &keyring, message);
    if (outcome.ok())
        return std::move(outcome).value();
    return std::move(outcome).error();
}

} // namespace sqs_ingest
