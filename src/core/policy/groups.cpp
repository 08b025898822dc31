#include "core/policy/groups.h"

#include <algorithm>
#include <unordered_set>

namespace sqs_ingest {

namespace {

// Whether a decimal number is greater than another one. AWS's have 20 digits, others count from 0.
bool is_greater(std::string_view a, std::string_view b) {
    a.remove_prefix(std::min(a.find_first_not_of('0'), a.size()));
    b.remove_prefix(std::min(b.find_first_not_of('0'), b.size()));
    return a.size() != b.size() ? a.size() > b.size() : a > b;
}

bool same_group(const Delivery& a, const Delivery& b) {
    return !a.group.empty() && a.group == b.group;
}

} // namespace

Parted part(std::vector<Delivery>& in_hand, const std::function<bool(const Delivery&)>& leaves) {
    Parted parted;
    std::vector<Delivery> staying;
    std::unordered_set<std::string> stopped;
    const auto first = std::find_if(in_hand.begin(), in_hand.end(), leaves);
    for (auto delivery = first; delivery != in_hand.end(); ++delivery) {
        if (leaves(*delivery)) {
            if (!delivery->group.empty())
                stopped.insert(delivery->group);
            parted.gone.push_back(std::move(*delivery));
        } else if (stopped.count(delivery->group)) {
            parted.behind.push_back(std::move(*delivery));
        } else {
            staying.push_back(std::move(*delivery));
        }
    }
    in_hand.erase(first, in_hand.end());
    std::move(staying.begin(), staying.end(), std::back_inserter(in_hand));
    return parted;
}

std::vector<Delivery> take_superseded(std::vector<Delivery>& in_hand, const Delivery& arrived) {
    const auto& number = arrived.message.sequence_number;
    const auto superseded = [&](const Delivery& held) {
        return same_group(held, arrived) && held.receive != arrived.receive && !number.empty() &&
               !held.message.sequence_number.empty() && !is_greater(number, held.message.sequence_number);
    };
    if (arrived.group.empty() || std::none_of(in_hand.begin(), in_hand.end(), superseded))
        return {};
    auto parted = part(in_hand, superseded);
    std::move(parted.behind.begin(), parted.behind.end(), std::back_inserter(parted.gone));
    return std::move(parted.gone);
}

std::vector<Message> take_behind_damaged(Received& received) {
    std::vector<Message> behind, staying;
    for (std::size_t i = 0; i < received.messages.size(); ++i) {
        auto& message = received.messages[i];
        const bool held_back =
            std::any_of(received.damaged.begin(), received.damaged.end(), [&](const Damaged& damaged) {
                return damaged.before <= i &&
                       (damaged.group_id.empty() || damaged.group_id == message.group_id);
            });
        (held_back ? behind : staying).push_back(std::move(message));
    }
    received.messages = std::move(staying);
    return behind;
}

void move_first_group_to_the_end(std::vector<Delivery>& in_hand) {
    if (in_hand.empty())
        return;
    const auto group = in_hand.front().group;
    if (group.empty())
        std::rotate(in_hand.begin(), in_hand.begin() + 1, in_hand.end());
    else
        std::stable_partition(in_hand.begin(), in_hand.end(),
                              [&](const Delivery& delivery) { return delivery.group != group; });
}

bool is_first_of_its_group(const std::vector<Delivery>& in_hand, const Delivery& delivery) {
    return std::none_of(in_hand.begin(), in_hand.end(),
                        [&](const Delivery& held) { return same_group(held, delivery); });
}

bool is_one_group(const std::vector<Delivery>& in_hand) {
    return in_hand.size() < 2 || std::all_of(in_hand.begin() + 1, in_hand.end(), [&](const Delivery& other) {
               return same_group(in_hand.front(), other);
           });
}

std::chrono::seconds leave_time(int receive_count) {
    constexpr std::chrono::seconds kFirst{2}, kLongest{900};
    const int doublings = std::clamp(receive_count - 1, 0, 10);
    return std::min(kFirst * (1 << doublings), kLongest);
}

} // namespace sqs_ingest
