// The order within a FIFO queue's message groups: in hand, and on the way out.
#include "core/policy/attempts.h"
#include "core/policy/delete_queue.h"
#include "core/policy/groups.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;

const Instant kStart = Instant(1000s);

// "a1": of group a, with sequence number 1. "-1": without a group.
Delivery delivery(const std::string& name) {
    Delivery made{{}, Rows{Row{}}, kStart + 30s};
    made.message.receipt_handle = name;
    made.message.sequence_number = name.substr(1);
    if (name[0] != '-')
        made.group = name.substr(0, 1);
    return made;
}

// By a later receive than those.
Delivery arriving(const std::string& name) {
    Delivery made = delivery(name);
    made.receive = 1;
    return made;
}

std::vector<Delivery> deliveries(std::initializer_list<const char*> names) {
    std::vector<Delivery> made;
    for (const auto* name : names)
        made.push_back(delivery(name));
    return made;
}

using Names = std::vector<std::string>;

Names names(const std::vector<Delivery>& deliveries) {
    Names found;
    for (const auto& one : deliveries)
        found.push_back(one.message.receipt_handle);
    return found;
}

auto is(std::initializer_list<std::string> names) {
    return [names = Names(names)](const Delivery& one) {
        return std::find(names.begin(), names.end(), one.message.receipt_handle) != names.end();
    };
}

TEST(Groups, what_leaves_takes_along_what_stands_behind_it_in_its_group) {
    auto in_hand = deliveries({"a1", "b1", "-1", "a2", "b2", "a3", "-2", "b3"});
    const auto parted = part(in_hand, is({"a2", "-1"}));
    EXPECT_EQ(names(parted.gone), (Names{"-1", "a2"}));
    EXPECT_EQ(names(parted.behind), (Names{"a3"}));
    EXPECT_EQ(names(in_hand), (Names{"a1", "b1", "b2", "-2", "b3"}));
}

TEST(Groups, what_leaves_itself_is_not_behind) {
    auto in_hand = deliveries({"a1", "a2", "a3"});
    const auto parted = part(in_hand, is({"a1", "a3"}));
    EXPECT_EQ(names(parted.gone), (Names{"a1", "a3"}));
    EXPECT_EQ(names(parted.behind), (Names{"a2"}));
    EXPECT_TRUE(in_hand.empty());
}

TEST(Groups, nothing_leaves_when_nothing_does) {
    auto in_hand = deliveries({"a1", "-1"});
    const auto parted = part(in_hand, is({}));
    EXPECT_TRUE(parted.gone.empty() && parted.behind.empty());
    EXPECT_EQ(names(in_hand), (Names{"a1", "-1"}));
}

TEST(Groups, a_message_that_is_handed_out_again_supersedes_what_is_in_hand_from_it_on) {
    auto in_hand = deliveries({"a8", "b1", "a9", "a10", "-9"});
    EXPECT_EQ(names(take_superseded(in_hand, arriving("a9"))), (Names{"a9", "a10"}));
    EXPECT_EQ(names(in_hand), (Names{"a8", "b1", "-9"}));
}

TEST(Groups, what_one_receive_brings_supersedes_nothing_of_itself) {
    auto in_hand = deliveries({"a5", "b5"}); // some servers make their sequence numbers by the dice
    EXPECT_TRUE(take_superseded(in_hand, delivery("a2")).empty());
    EXPECT_EQ(names(take_superseded(in_hand, arriving("a2"))), (Names{"a5"}));
}

TEST(Groups, the_next_message_supersedes_nothing) {
    auto in_hand = deliveries({"a9", "b11", "-12"});
    EXPECT_TRUE(take_superseded(in_hand, arriving("a10")).empty());
    EXPECT_TRUE(take_superseded(in_hand, arriving("-1")).empty());
    EXPECT_TRUE(take_superseded(in_hand, arriving("a")).empty()); // the server says no number
    EXPECT_TRUE(take_superseded(in_hand, arriving("a00000000000000000010")).empty());
    EXPECT_EQ(in_hand.size(), 3u);
    EXPECT_EQ(names(take_superseded(in_hand, arriving("a0009"))), (Names{"a9"}));
}

TEST(Groups, what_stands_behind_a_damaged_one_of_its_group_is_held_back) {
    const auto messages = [](std::initializer_list<const char*> names) {
        std::vector<Message> made;
        for (const auto& one : deliveries(names)) {
            made.push_back(one.message);
            made.back().group_id = one.group;
        }
        return made;
    };
    const auto handles = [](const std::vector<Message>& messages) {
        Names found;
        for (const auto& one : messages)
            found.push_back(one.receipt_handle);
        return found;
    };
    Received received{messages({"a1", "b1", "a3", "b2"}), {{"a2 is damaged", "a", 2}}};
    EXPECT_EQ(handles(take_behind_damaged(received)), (Names{"a3"}));
    EXPECT_EQ(handles(received.messages), (Names{"a1", "b1", "b2"}));

    Received of_unknown_group{messages({"a1", "b1", "c1"}), {{"what it is nobody knows", "", 1}}};
    EXPECT_EQ(handles(take_behind_damaged(of_unknown_group)), (Names{"b1", "c1"}));

    Received whole{messages({"a1", "a2"}), {}};
    EXPECT_TRUE(take_behind_damaged(whole).empty());
    EXPECT_EQ(handles(whole.messages), (Names{"a1", "a2"}));
}

TEST(Groups, the_first_one_lets_the_other_groups_go_before_it) {
    auto in_hand = deliveries({"a1", "b1", "a2", "-1", "b2"});
    move_first_group_to_the_end(in_hand);
    EXPECT_EQ(names(in_hand), (Names{"b1", "-1", "b2", "a1", "a2"}));
    auto standard = deliveries({"-1", "-2", "-3"});
    move_first_group_to_the_end(standard);
    EXPECT_EQ(names(standard), (Names{"-2", "-3", "-1"}));
    std::vector<Delivery> nothing;
    move_first_group_to_the_end(nothing);
}

TEST(Groups, one_message_or_one_group_is_alone) {
    EXPECT_TRUE(is_one_group({}));
    EXPECT_TRUE(is_one_group(deliveries({"-1"})));
    EXPECT_TRUE(is_one_group(deliveries({"a1", "a2"})));
    EXPECT_FALSE(is_one_group(deliveries({"a1", "b1"})));
    EXPECT_FALSE(is_one_group(deliveries({"-1", "-2"})));
}

TEST(Groups, a_message_is_left_for_longer_each_time) {
    EXPECT_EQ(leave_time(0), 2s);
    EXPECT_EQ(leave_time(1), 2s);
    EXPECT_EQ(leave_time(2), 4s);
    EXPECT_EQ(leave_time(9), 512s);
    EXPECT_EQ(leave_time(10), 900s);
    EXPECT_EQ(leave_time(2'000'000'000), 900s);
}

TEST(Attempts, an_unanswered_one_is_repeated_within_five_minutes) {
    Attempts attempts;
    EXPECT_FALSE(attempts.take(kStart));
    attempts.unanswered({"old", kStart});
    attempts.unanswered({"first", kStart + 1min});
    attempts.unanswered({"second", kStart + 2min});
    const auto again = attempts.take(kStart + 5min);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->id, "first");
    EXPECT_EQ(attempts.take(kStart + 5min)->id, "second");
    EXPECT_FALSE(attempts.take(kStart + 5min));
}

// --- the delete queue

class GroupDeletes : public testing::Test {
  protected:
    void add(std::initializer_list<const char*> names, Instant visible_until = kStart + 30s) {
        for (const std::string name : names)
            queue.add({name, visible_until, name[0] == '-' ? "" : name.substr(0, 1)}, kStart);
    }

    std::vector<DeleteQueue::Entry> take(Instant now = kStart) { return queue.take(now, true); }

    static Names names(const std::vector<DeleteQueue::Entry>& entries) {
        Names found;
        for (const auto& entry : entries)
            found.push_back(entry.receipt.receipt_handle);
        return found;
    }

    Names given_up() {
        Names found;
        for (const auto& receipt : queue.take_given_up().receipts)
            found.push_back(receipt.receipt_handle);
        return found;
    }

    DeleteQueue queue;
};

TEST_F(GroupDeletes, a_group_goes_into_one_request_in_its_order) {
    add({"a1", "b1", "a2", "-1", "a3"});
    EXPECT_EQ(names(take()), (Names{"a1", "b1", "a2", "-1", "a3"}));
}

TEST_F(GroupDeletes, what_is_behind_one_under_way_waits) {
    add({"a1", "a2", "b1"});
    auto first = take();
    ASSERT_EQ(first.size(), 3u);
    add({"a3", "b2", "c1", "-1"});
    EXPECT_EQ(names(take()), (Names{"c1", "-1"}));
    EXPECT_FALSE(queue.next_due()); // until an answer comes
    queue.deleted(first[0]);
    EXPECT_TRUE(take().empty());
    queue.deleted(first[1]);
    EXPECT_EQ(names(take()), (Names{"a3"}));
    queue.deleted(first[2]);
    EXPECT_EQ(names(take()), (Names{"b2"}));
}

TEST_F(GroupDeletes, what_is_behind_a_retry_waits_and_others_do_not) {
    add({"a1", "b1"});
    auto first = take();
    ASSERT_TRUE(queue.retry(first[0], kStart, 1.0));
    queue.deleted(first[1]);
    add({"a2", "b2", "-1"});
    EXPECT_EQ(names(take()), (Names{"b2", "-1"}));
    EXPECT_EQ(queue.next_due(), kStart + 50ms);
    EXPECT_EQ(names(take(kStart + 50ms)), (Names{"a1", "a2"}));
}

TEST_F(GroupDeletes, failed_entries_of_one_group_go_again_in_order) {
    add({"a1", "a2", "a3"});
    auto first = take();
    queue.deleted(first[0]);
    ASSERT_TRUE(queue.retry(first[1], kStart, 1.0)); // due later than the next one
    ASSERT_TRUE(queue.retry(first[2], kStart, 0.0));
    EXPECT_TRUE(take().empty());
    EXPECT_EQ(queue.next_due(), kStart + 50ms);
    EXPECT_EQ(names(take(kStart + 50ms)), (Names{"a2", "a3"}));
}

TEST_F(GroupDeletes, a_full_request_is_made_of_what_may_go) {
    add({"a1"});
    auto first = take();
    add({"a2", "-1", "-2", "-3", "-4", "-5", "-6", "-7", "-8", "-9", "b1", "-10"});
    EXPECT_EQ(names(queue.take(kStart, false)),
              (Names{"-1", "-2", "-3", "-4", "-5", "-6", "-7", "-8", "-9", "b1"}));
    EXPECT_TRUE(queue.take(kStart, false).empty());
    EXPECT_EQ(queue.size(), 2u);
}

TEST_F(GroupDeletes, what_is_behind_a_lost_one_is_given_up) {
    add({"a1", "a2", "b1"});
    auto first = take();
    add({"a3", "b2"});
    queue.lost(first[0]);
    EXPECT_FALSE(queue.retry(first[1], kStart, 0.0));
    queue.deleted(first[2]);
    const auto gone = queue.take_given_up();
    EXPECT_EQ(gone.groups, (Names{"a"}));
    ASSERT_EQ(gone.receipts.size(), 2u);
    EXPECT_EQ(gone.receipts[0].receipt_handle, "a3");
    EXPECT_EQ(gone.receipts[1].receipt_handle, "a2");
    EXPECT_TRUE(queue.take_given_up().groups.empty());
    EXPECT_EQ(names(take()), (Names{"b2"}));
    EXPECT_TRUE(queue.empty());
}

TEST_F(GroupDeletes, a_group_that_was_given_up_can_come_again) {
    add({"a1"});
    auto first = take();
    queue.lost(first[0]);
    queue.take_given_up();
    add({"a1", "a2"});
    EXPECT_EQ(names(take()), (Names{"a1", "a2"}));
}

TEST_F(GroupDeletes, one_whose_window_is_over_while_it_waits_is_given_up_with_its_group) {
    add({"a1"}, kStart + 60s);
    auto first = take();
    add({"a2"}, kStart + 10s);
    add({"a3", "-1"}, kStart + 60s);
    EXPECT_EQ(names(take(kStart + 10s)), (Names{"-1"}));
    EXPECT_EQ(given_up(), (Names{"a2", "a3"}));
}

TEST_F(GroupDeletes, a_retry_beyond_the_window_gives_up_the_rest) {
    add({"a1", "a2"}, kStart + 40ms);
    add({"b1"});
    auto first = take();
    EXPECT_FALSE(queue.retry(first[0], kStart, 1.0));
    queue.deleted(first[1]);
    ASSERT_TRUE(queue.retry(first[2], kStart, 0.0));
    EXPECT_TRUE(given_up().empty());
    EXPECT_EQ(names(take()), (Names{"b1"}));
}

} // namespace
} // namespace sqs_ingest
