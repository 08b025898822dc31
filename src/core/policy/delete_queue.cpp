#include "core/policy/delete_queue.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

namespace sqs_ingest {

namespace {

bool is_retry(const DeleteQueue::Entry& entry) {
    return entry.backoff.errors() > 0;
}

} // namespace

void DeleteQueue::add(Receipt receipt, Instant now) {
    grouped_ += !receipt.group.empty();
    waiting_.push_back({std::move(receipt), {}, now + kLinger, added_++});
}

std::vector<DeleteQueue::Entry> DeleteQueue::take(Instant now, bool flush) {
    give_up_expired(now);
    std::vector<std::list<Entry>::iterator> chosen;
    std::unordered_set<std::string_view> barred; // groups with an earlier one that is not due yet
    bool wanted = flush;
    for (auto entry = waiting_.begin(); entry != waiting_.end() && chosen.size() < kBatch; ++entry) {
        const auto& group = entry->receipt.group;
        if (!group.empty() && (groups_.count(group) || barred.count(group)))
            continue;
        if (is_retry(*entry) && entry->due > now) {
            barred.insert(group);
            continue;
        }
        wanted |= entry->due <= now;
        chosen.push_back(entry);
    }
    std::vector<Entry> batch;
    if (!wanted && chosen.size() < kBatch)
        return batch;
    for (const auto entry : chosen) {
        batch.push_back(leave_list(entry));
    }
    for (const auto& entry : batch)
        if (!entry.receipt.group.empty())
            ++groups_[entry.receipt.group].under_way;
    return batch;
}

void DeleteQueue::deleted(const Entry& entry) {
    settle(entry);
}

bool DeleteQueue::retry(Entry entry, Instant now, double random) {
    const auto range = backoff_range(ErrorClass::transient);
    entry.due = now + entry.backoff.next(range.base, kRetryCap, random);
    if (entry.due >= entry.receipt.visible_until) {
        lost(entry);
        return false;
    }
    const auto group = groups_.find(entry.receipt.group);
    if (group != groups_.end() && group->second.given_up) {
        settle(entry);
        given_up_.receipts.push_back(std::move(entry.receipt));
        return false;
    }
    settle(entry);
    const auto behind =
        std::find_if(waiting_.begin(), waiting_.end(), [&](const Entry& e) { return e.place > entry.place; });
    ++retries_;
    grouped_ += !entry.receipt.group.empty();
    waiting_.insert(behind, std::move(entry));
    return true;
}

void DeleteQueue::lost(const Entry& entry) {
    if (!entry.receipt.group.empty())
        give_up(entry.receipt.group);
    settle(entry);
}

DeleteQueue::GivenUp DeleteQueue::take_given_up() {
    return std::exchange(given_up_, {});
}

std::optional<Instant> DeleteQueue::next_due() const {
    std::optional<Instant> next;
    std::unordered_set<std::string_view> barred;
    std::size_t retries_ahead = retries_;
    bool found_fresh = false; // the others that are fresh are due later
    for (auto entry = waiting_.begin(); entry != waiting_.end() && !(found_fresh && retries_ahead == 0);
         ++entry) {
        retries_ahead -= is_retry(*entry);
        const auto& group = entry->receipt.group;
        if (!group.empty() && (groups_.count(group) || barred.count(group)))
            continue;
        if (is_retry(*entry))
            barred.insert(group);
        else
            found_fresh = true;
        next = std::min(next.value_or(entry->due), entry->due);
    }
    return next;
}

DeleteQueue::Entry DeleteQueue::leave_list(std::list<Entry>::iterator entry) {
    Entry left = std::move(*entry);
    waiting_.erase(entry);
    retries_ -= is_retry(left);
    grouped_ -= !left.receipt.group.empty();
    return left;
}

// An entry that was under way is so no more.
void DeleteQueue::settle(const Entry& entry) {
    const auto group = groups_.find(entry.receipt.group);
    if (group != groups_.end() && --group->second.under_way == 0)
        groups_.erase(group);
}

// Whatever of a group is not deleted: all of it stood behind the one that was lost.
void DeleteQueue::give_up(const std::string& group) {
    if (std::find(given_up_.groups.begin(), given_up_.groups.end(), group) == given_up_.groups.end())
        given_up_.groups.push_back(group);
    const auto under_way = groups_.find(group);
    if (under_way != groups_.end())
        under_way->second.given_up = true;
    for (auto entry = waiting_.begin(); entry != waiting_.end();) {
        const auto here = entry++;
        if (here->receipt.group == group)
            given_up_.receipts.push_back(leave_list(here).receipt);
    }
}

// Of a group only: of a standard queue, an attempt beyond the window can succeed.
void DeleteQueue::give_up_expired(Instant now) {
    if (grouped_ == 0)
        return;
    std::vector<std::string> groups;
    for (const auto& entry : waiting_)
        if (!entry.receipt.group.empty() && entry.receipt.visible_until <= now)
            groups.push_back(entry.receipt.group);
    for (const auto& group : groups)
        give_up(group);
}

} // namespace sqs_ingest
