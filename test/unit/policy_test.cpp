// The decisions of ingestion, with time and chance as arguments.
#include "core/policy/backoff.h"
#include "core/policy/delete_queue.h"
#include "core/policy/fault.h"
#include "core/policy/receive_gate.h"
#include "core/policy/visibility.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;

const Instant kStart = Instant(1000s);

Receipt receipt(const std::string& handle, Instant visible_until = kStart + 30s) {
    return {handle, visible_until};
}

void add(DeleteQueue& queue, int n, Instant now = kStart) {
    for (int i = 0; i < n; ++i)
        queue.add(receipt(std::to_string(i)), now);
}

TEST(Backoff, doubles_up_to_the_cap_and_takes_a_random_part_of_it) {
    Backoff backoff;
    EXPECT_EQ(backoff.next(1s, 20s, 1.0), 1s);
    EXPECT_EQ(backoff.next(1s, 20s, 1.0), 2s);
    EXPECT_EQ(backoff.next(1s, 20s, 0.5), 2s);
    EXPECT_EQ(backoff.next(1s, 20s, 0.0), 0s);
    EXPECT_EQ(backoff.next(1s, 20s, 1.0), 16s);
    EXPECT_EQ(backoff.next(1s, 20s, 1.0), 20s);
}

TEST(Backoff, starts_again_after_a_success) {
    Backoff backoff;
    backoff.next(1s, 20s, 1.0);
    backoff.next(1s, 20s, 1.0);
    backoff.reset();
    EXPECT_EQ(backoff.next(1s, 20s, 1.0), 1s);
}

TEST(Backoff, does_not_overflow_after_very_many_errors) {
    Backoff backoff;
    for (int i = 0; i < 100000; ++i)
        ASSERT_LE(backoff.next(50ms, 60s, 1.0), 60s);
    EXPECT_EQ(backoff.next(50ms, 60s, 1.0), 60s);
}

TEST(Backoff, is_slowest_for_what_a_person_has_to_mend) {
    EXPECT_EQ(backoff_range(ErrorClass::throttle).base, 1s);
    EXPECT_EQ(backoff_range(ErrorClass::transient).base, 50ms);
    EXPECT_EQ(backoff_range(ErrorClass::transient).cap, 20s);
    EXPECT_EQ(backoff_range(ErrorClass::configuration).cap, 60s);
    EXPECT_EQ(backoff_range(ErrorClass::credentials).cap, 60s);
}

TEST(DeleteQueue, sends_ten_at_once) {
    DeleteQueue queue;
    add(queue, 25);
    EXPECT_EQ(queue.take(kStart, false).size(), 10u);
    EXPECT_EQ(queue.take(kStart, false).size(), 10u);
    EXPECT_EQ(queue.take(kStart, false).size(), 0u);
    EXPECT_EQ(queue.size(), 5u);
}

TEST(DeleteQueue, an_incomplete_batch_waits_for_company_but_not_long) {
    DeleteQueue queue;
    add(queue, 3);
    EXPECT_TRUE(queue.take(kStart, false).empty());
    ASSERT_TRUE(queue.next_due());
    EXPECT_EQ(*queue.next_due(), kStart + DeleteQueue::kLinger);
    EXPECT_EQ(queue.take(kStart + DeleteQueue::kLinger, false).size(), 3u);
    EXPECT_FALSE(queue.next_due());
}

TEST(DeleteQueue, a_flush_sends_what_there_is) {
    DeleteQueue queue;
    add(queue, 3);
    EXPECT_EQ(queue.take(kStart, true).size(), 3u);
    EXPECT_TRUE(queue.empty());
}

TEST(DeleteQueue, a_failed_entry_is_sent_again_after_its_backoff) {
    DeleteQueue queue;
    queue.add(receipt("a"), kStart);
    auto batch = queue.take(kStart, true);
    ASSERT_TRUE(queue.retry(std::move(batch[0]), kStart, 1.0));
    EXPECT_TRUE(queue.take(kStart, true).empty());
    EXPECT_EQ(*queue.next_due(), kStart + 50ms);
    batch = queue.take(kStart + 50ms, false);
    ASSERT_EQ(batch.size(), 1u);
    EXPECT_EQ(batch[0].receipt.receipt_handle, "a");
    EXPECT_EQ(batch[0].backoff.errors(), 1);
}

TEST(DeleteQueue, an_entry_whose_window_is_over_is_dropped) {
    DeleteQueue queue;
    queue.add(receipt("a", kStart + 40ms), kStart);
    auto batch = queue.take(kStart, true);
    EXPECT_FALSE(queue.retry(std::move(batch[0]), kStart, 1.0));
    EXPECT_TRUE(queue.empty());
}

TEST(DeleteQueue, more_retries_than_a_batch_holds_lose_nothing) {
    DeleteQueue queue;
    add(queue, 30);
    std::vector<DeleteQueue::Entry> taken;
    for (int i = 0; i < 3; ++i)
        for (auto& entry : queue.take(kStart, false))
            taken.push_back(std::move(entry));
    for (auto& entry : taken)
        ASSERT_TRUE(queue.retry(std::move(entry), kStart, 0.0));
    std::size_t sent = 0;
    for (int i = 0; i < 3; ++i)
        sent += queue.take(kStart, false).size();
    EXPECT_EQ(sent, 30u);
    EXPECT_TRUE(queue.empty());
}

TEST(ReceiveGate, holds_one_long_poll_until_answers_come_back_full) {
    ReceiveGate gate(8, 1000);
    EXPECT_TRUE(gate.may_start(0, 0));
    EXPECT_FALSE(gate.may_start(1, 0));
    gate.answered(3);
    EXPECT_FALSE(gate.may_start(1, 0));
    gate.answered(10);
    EXPECT_TRUE(gate.may_start(1, 0));
    EXPECT_FALSE(gate.may_start(2, 0));
    for (int i = 0; i < 10; ++i)
        gate.answered(10);
    EXPECT_EQ(gate.target(), 8);
}

TEST(ReceiveGate, goes_back_to_one_when_the_queue_is_empty_or_fails) {
    ReceiveGate gate(8, 1000);
    gate.answered(10);
    gate.answered(0);
    EXPECT_EQ(gate.target(), 1);
    gate.answered(10);
    gate.failed();
    EXPECT_EQ(gate.target(), 1);
}

TEST(ReceiveGate, is_busy_while_answers_bring_messages) {
    ReceiveGate gate(1, 1000);
    EXPECT_FALSE(gate.busy());
    gate.answered(1);
    EXPECT_TRUE(gate.busy());
    gate.answered(0);
    EXPECT_FALSE(gate.busy());
    gate.answered(10);
    gate.failed();
    EXPECT_FALSE(gate.busy());
}

TEST(ReceiveGate, never_expects_more_than_may_be_held) {
    ReceiveGate gate(8, 40);
    gate.answered(10);
    gate.answered(10);
    EXPECT_TRUE(gate.may_start(0, 30));
    EXPECT_FALSE(gate.may_start(1, 30));
    EXPECT_FALSE(gate.may_start(0, 31));
}

Delivery visible_until(Instant when) {
    Delivery delivery;
    delivery.visible_until = when;
    return delivery;
}

TEST(Visibility, an_extension_outlasts_a_write_and_its_deletes) {
    VisibilityPolicy policy{2s, 10s};
    EXPECT_EQ(policy.extension(), 36s);
    EXPECT_TRUE(policy.outlasts_write(visible_until(kStart + policy.extension()), kStart));
    policy.queue_timeout = 300s;
    EXPECT_EQ(policy.extension(), 300s);
    policy.queue_timeout = 50000s;
    EXPECT_EQ(policy.extension(), VisibilityPolicy::kMaxTimeout);
}

TEST(Visibility, a_short_window_is_extended_before_a_write) {
    const VisibilityPolicy policy{5s, 10s};
    EXPECT_FALSE(policy.outlasts_write(visible_until(kStart + 5s), kStart));
    EXPECT_TRUE(policy.outlasts_write(visible_until(kStart + 20s), kStart));
}

TEST(Visibility, what_stays_in_hand_is_extended_at_half_its_time) {
    const VisibilityPolicy policy{30s, 10s};
    const auto delivery = visible_until(kStart + 30s);
    EXPECT_FALSE(policy.due(delivery, kStart));
    EXPECT_FALSE(policy.due(delivery, kStart + 14s));
    EXPECT_TRUE(policy.due(delivery, kStart + 15s));
    EXPECT_EQ(policy.due_at(delivery), kStart + 15s);
}

TEST(Fault, errors_of_the_server_are_the_pipelines) {
    for (const auto* state : {"08006", "25006", "40001", "40P01", "53100", "53200", "57014", "57P01", "58030",
                              "XX000", "XX001", "55P03"})
        EXPECT_TRUE(is_pipeline_fault(state)) << state;
}

TEST(Fault, errors_of_values_and_triggers_may_be_a_rows) {
    for (const auto* state :
         {"22001", "23502", "23503", "23505", "23514", "42501", "42P01", "54000", "55000", "P0001", "ZZ123"})
        EXPECT_FALSE(is_pipeline_fault(state)) << state;
}

} // namespace
} // namespace sqs_ingest
