#include "core/policy/delete_queue.h"

#include <algorithm>

namespace sqs_ingest {

void DeleteQueue::add(Receipt receipt, Instant now) {
    fresh_.push_back({std::move(receipt), {}, now + kLinger});
}

std::vector<DeleteQueue::Entry> DeleteQueue::take(Instant now, bool flush) {
    std::vector<Entry> batch;
    const auto due =
        std::partition(retries_.begin(), retries_.end(), [&](const Entry& e) { return e.due > now; });
    while (std::size_t(due - retries_.begin()) < retries_.size() && batch.size() < kBatch) {
        batch.push_back(std::move(retries_.back()));
        retries_.pop_back();
    }
    const bool complete = batch.size() + fresh_.size() >= kBatch;
    const bool lingered = !fresh_.empty() && fresh_.front().due <= now;
    if (complete || lingered || flush || !batch.empty()) {
        while (!fresh_.empty() && batch.size() < kBatch) {
            batch.push_back(std::move(fresh_.front()));
            fresh_.pop_front();
        }
    }
    return batch;
}

bool DeleteQueue::retry(Entry entry, Instant now, double random) {
    const auto range = backoff_range(ErrorClass::transient);
    entry.due = now + entry.backoff.next(range.base, kRetryCap, random);
    if (entry.due >= entry.receipt.visible_until)
        return false;
    retries_.push_back(std::move(entry));
    return true;
}

std::optional<Instant> DeleteQueue::next_due() const {
    std::optional<Instant> next;
    if (!fresh_.empty())
        next = fresh_.front().due;
    for (const auto& entry : retries_)
        next = std::min(next.value_or(entry.due), entry.due);
    return next;
}

} // namespace sqs_ingest
