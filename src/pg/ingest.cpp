#include "pg/ingest.h"

#include "core/base64url.h"
#include "core/policy/fault.h"
#include "core/sqs/advice.h"
#include "pg/durability.h"
#include "pg/epoch.h"
#include "pg/keyring.h"

#include <array>
#include <numeric>

extern "C" {
#include "common/pg_prng.h"
}

namespace sqs_ingest::pg {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxHeld = 2000; // messages received and not deleted, far below SQS's 120,000 in flight
constexpr std::size_t kMaxHeldBytes = 32u << 20; // of bodies in hand: above it nothing more is received
constexpr std::size_t kMaxBatchBytes = 16u << 20;
constexpr std::size_t kMaxDeletes = 8; // delete requests at once
constexpr auto kLinger = 10ms;         // under load a batch waits this long for more
constexpr auto kStopTime = 10s;        // for what remains to be done after stop()
constexpr auto kReceiveGrace = 1500ms; // for a receive to end by itself after stop(),
constexpr auto kBusyGrace = 5s;        // while messages keep coming: no answer then means a slow server
constexpr auto kAttributesAge = 15min; // the queue's attributes are read again
constexpr auto kSayAgain = 1min;       // before the log repeats that the same trouble has begun
constexpr auto kPruneEvery = 1min;
constexpr auto kRetentionMargin = 24h; // beyond the queue's retention before a ledger entry goes
constexpr auto kPurgeAgain = 24h;      // at the latest, while there are dead letters that will be too old
constexpr auto kPurgeFailed = 10min;   // until it is tried again
constexpr auto kAbandonTime = 2s;      // for the queue to take back what a failed session had in hand
constexpr auto kQuiet = 1s;            // without a message: idle
constexpr int kRoundsOfEveryRow = 8;   // before a batch whose every row fails is blamed on its rows ...
constexpr std::int64_t kRefusedInSession = 10; // rows in a row that a session blames
constexpr int kLoneFaults = 3;     // of a message that the database breaks at, while others are written
constexpr int kRoundsOfOneRow = 3; // ... and a batch of one
constexpr BackoffRange kDatabaseBackoff{1s, 20s};
constexpr BackoffRange kSessionDatabaseBackoff{100ms, 500ms}; // somebody waits

double random_fraction() {
    return pg_prng_double(&pg_global_prng_state);
}

// 128 bits, which no other receive has; empty should there be no randomness.
std::string random_id() {
    std::array<char, 16> bytes;
    if (!pg_strong_random(bytes.data(), bytes.size()))
        return {};
    return base64url({bytes.data(), bytes.size()});
}

Trouble trouble_of(const ApiError& error, const Pipeline& pipeline) {
    const std::string what =
        error.code == "QueueDoesNotExist"
            ? "queue \"" + pipeline.queue_url + "\" does not exist"
            : "queue \"" + pipeline.queue_url + "\": " + (error.message.empty() ? error.code : error.message);
    return make_trouble(error.code.c_str(), what, advice(error), GetCurrentTimestamp());
}

// A row's error names no value: only its class and the constraint. A pipeline's error names tables and
// rights.
Trouble trouble_of(const WriteFault& fault, const Pipeline& pipeline) {
    const auto& report = fault.report;
    const std::string state = unpack_sql_state(report.sqlstate);
    if (fault.every_row)
        return make_trouble(
            state.c_str(),
            "every row of a batch is refused by table " + pipeline.row.target + " with SQLSTATE " + state +
                (report.constraint[0] ? std::string(", constraint ") + report.constraint : ""),
            "If the table is at fault (a sequence, a partition, a new column), mend it. Otherwise the "
            "messages become dead letters after some more tries.",
            GetCurrentTimestamp());
    return make_trouble(state.c_str(), report.message,
                        report.hint[0]
                            ? report.hint
                            : "Nothing is lost: the messages are kept, and ingestion goes on by itself "
                              "when table " +
                                  pipeline.row.target + " can be written again.",
                        GetCurrentTimestamp());
}

std::int64_t now_ms() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

std::vector<std::string_view> views(const std::vector<std::string>& texts) {
    return {texts.begin(), texts.end()};
}

} // namespace

Ingest::Ingest(const Pipeline& pipeline, const Extension& extension, PipelineEntry& entry, WorkerSlot& slot,
               Host host, std::optional<DrainLimits> limits)
    : pipeline_(pipeline), host_(host), limits_(limits), entry_(entry), slot_(slot),
      sink_(pipeline, extension, host), client_(client_options(pipeline)),
      gate_(pipeline.row.max_receivers, kMaxHeld), batch_limit_(max_batch()) {
    visibility_.write_time = 2 * kTransactionTimeout; // at once, and again with care
    if (pipeline.row.dead_letter_retention)
        next_purge_ = Instant::min(); // to find out when
}

void Ingest::turn(Instant now) {
    // An answer that was there when a long turn ended may have come at its begin: its messages' windows are
    // that old.
    constexpr auto kAtOnce = 50ms;
    answers_came_ = now - turn_ended_ < kAtOnce ? last_turn_ : now;
    last_turn_ = now;
    // Another ring is held against the database's keys before anything is written with it.
    if (sink_ready_ && keyring_serial() != keyring_)
        sink_ready_ = false;
    for (auto& event : client_.advance()) {
        if (auto* received = std::get_if<ReceiveResult>(&event.result)) {
            const auto receive = receives_.extract(event.id).mapped();
            on_received(std::move(*received), receive, now);
        } else if (auto* attributes = std::get_if<AttributesResult>(&event.result)) {
            attributes_request_.reset();
            on_attributes(*attributes, now);
        } else {
            const auto& batch = std::get<BatchResult>(event.result);
            if (deletes_under_way_.count(event.id))
                on_deleted(event.id, batch, now);
            else
                on_visibility_changed(event.id, batch, now);
        }
    }
    if (refusal_) // after what else has arrived was taken
        throw PgError(*std::exchange(refusal_, std::nullopt));
    if (stop_deadline_)
        cancel_old_receives(now);
    confirm_commits(now);
    make_ready(now);
    ask_for_attributes(now);
    keep_visible(now);
    write_when_due(now);
    prune_ledger(now);
    purge_dead_letters(now);
    send_deletes(now);
    start_receives(now);
    report(now);
    turn_ended_ = std::chrono::steady_clock::now();
}

// --- obstructions

void Ingest::obstruct(Obstruction& obstruction, Trouble trouble, BackoffRange range, Instant now) {
    // A line when it begins and when it changes, but not at each turn of one that comes and goes; the status
    // shows the rest.
    const bool same = strcmp(obstruction.trouble.code, trouble.code) == 0;
    const bool goes_on = obstruction.active && same;
    const bool said_lately = same && now - obstruction.said_at < kSayAgain;
    if (!goes_on && !said_lately) {
        call_pg([&] {
            ereport(LOG, (errmsg("sqs_ingest pipeline \"%s\" backs off: %s", NameStr(entry_.name),
                                 trouble.message),
                          trouble.hint[0] ? errhint("%s", trouble.hint) : 0));
        });
        obstruction.said_at = now;
        obstruction.said = true;
    }
    if (!obstruction.active)
        obstruction.began = now;
    obstruction.active = true;
    obstruction.trouble = trouble;
    obstruction.since = now;
    // From the fault on, not from the turn's begin: a write can have taken many seconds.
    obstruction.retry_at =
        std::chrono::steady_clock::now() + obstruction.backoff.next(range.base, range.cap, random_fraction());
    StateLock lock;
    entry_.last_error = trouble;
}

// In a session, what no retry mends ends the call at once, and so does its own cancel. Credentials that are
// refused are fetched anew: what was `started` before that, several receives perhaps, is refused for the old
// ones, and only what comes later ends the call.
void Ingest::obstruct_queue(const ApiError& error, Instant started, Instant now) {
    const auto trouble = trouble_of(error, pipeline_);
    const bool credentials = error.error_class == ErrorClass::credentials;
    const bool refused = credentials && error.http_status != 0; // 0: there are none
    if (refused && !credentials_refused_)
        credentials_refused_ = now;
    const bool may_be_old = refused && started < *credentials_refused_;
    if (may_be_old)
        queue_.backoff.reset();
    const bool hopeless = error.error_class == ErrorClass::configuration || (credentials && !may_be_old);
    if (host_ == Host::session && hopeless && !stop_deadline_)
        refusal_ = make_error(ERRCODE_CONNECTION_EXCEPTION, trouble.message, trouble.hint);
    obstruct(queue_, trouble, backoff_range(error.error_class), now);
}

void Ingest::obstruct_database(const WriteFault& fault, Instant now) {
    const auto& report = fault.report;
    const bool mends_itself = fault.every_row || is_pipeline_fault(unpack_sql_state(report.sqlstate));
    const auto trouble = trouble_of(fault, pipeline_);
    if (host_ == Host::session && (!mends_itself || report.sqlstate == ERRCODE_QUERY_CANCELED))
        throw make_error(report.sqlstate, report.message, trouble.hint);
    obstruct(database_, trouble, database_backoff(), now);
}

BackoffRange Ingest::database_backoff() const {
    return host_ == Host::session ? kSessionDatabaseBackoff : kDatabaseBackoff;
}

void Ingest::clear(Obstruction& obstruction, const char* what) {
    obstruction.backoff.reset();
    if (!obstruction.active)
        return;
    obstruction.active = false;
    if (!std::exchange(obstruction.said, false))
        return;
    call_pg([&] {
        ereport(LOG, (errmsg("sqs_ingest pipeline \"%s\" goes on: %s", NameStr(entry_.name), what)));
    });
}

void Ingest::queue_answers() {
    credentials_refused_.reset();
    clear(queue_, "the queue answers");
}

// --- the queue's attributes

void Ingest::ask_for_attributes(Instant now) {
    const bool due = !attributes_read_ || now - *attributes_read_ > kAttributesAge;
    if (due && !attributes_request_ && !stop_deadline_ && !waits(queue_, now)) {
        attributes_request_ = client_.start_get_queue_attributes();
        attributes_asked_ = now;
    }
}

void Ingest::on_attributes(const AttributesResult& result, Instant now) {
    if (!result.outcome.ok()) {
        const auto& error = result.outcome.error();
        // Known once, they are good enough until the queue answers again.
        if (attributes_read_)
            attributes_read_ = now;
        else
            obstruct_queue(error, attributes_asked_, now);
        return;
    }
    const auto& attributes = result.outcome.value();
    fifo_ = attributes.fifo;
    if (attributes.visibility_timeout_seconds)
        visibility_.queue_timeout = std::chrono::seconds(*attributes.visibility_timeout_seconds);
    if (attributes.retention_seconds)
        retention_ = std::chrono::seconds(*attributes.retention_seconds);
    attributes_read_ = now;
    queue_answers();
}

// --- receive

void Ingest::start_receives(Instant now) {
    // While something is wrong nothing more is received. One exception: a lone message that the table refuses
    // gets company, which tells whether it is the message or the table. What stands behind it in its group is
    // none: it cannot be written first.
    const bool lone_suspect =
        is_one_group(in_hand_) &&
        (rounds_of_every_row_ > 0 || (!in_hand_.empty() && in_hand_.front().lone_faults > 0));
    if (stop_deadline_ || !attributes_read_ || !sink_ready_ || waits(queue_, now) ||
        (database_.active && !lone_suspect) || !unconfirmed_.receipts.empty() ||
        bytes_in_hand() > kMaxHeldBytes)
        return;
    while (gate_.may_start(static_cast<int>(receives_.size()), held())) {
        const int messages = messages_to_ask_for();
        if (messages == 0)
            return;
        // One long poll; the first receive after an error is short too, to see soon that it is over.
        const bool long_poll = receives_.empty() && !queue_.active && !limits_;
        auto attempt = next_attempt(now);
        const auto id = client_.start_receive(
            {.max_messages = messages,
             .wait_seconds = long_poll ? pipeline_.row.wait_time : ReceiveGate::kShortPollSeconds,
             .visibility_timeout_seconds = static_cast<int>(receive_visibility().count()),
             .attempt_id = attempt.id,
             .message_attributes = pipeline_.mapping.attributes()});
        receives_.emplace(id, Receive{now, messages, held() == 0, std::move(attempt)});
    }
}

// Of a standard queue, none.
Attempts::Attempt Ingest::next_attempt(Instant now) {
    if (!fifo_)
        return {};
    if (auto unanswered = attempts_.take(now))
        return std::move(*unanswered);
    return {random_id(), now};
}

int Ingest::messages_to_ask_for() const {
    if (!limits_)
        return ReceiveGate::kMaxMessages;
    if (queue_is_empty_)
        return 0;
    auto left = limits_->max_messages.value_or(std::numeric_limits<std::int64_t>::max()) - received_;
    for (const auto& [id, receive] : receives_)
        left -= receive.asked_for;
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, ReceiveGate::kMaxMessages));
}

void Ingest::on_received(ReceiveResult result, const Receive& receive, Instant now) {
    count(Counter::bytes, static_cast<std::int64_t>(result.answer_bytes));
    if (!result.outcome.ok()) {
        count(Counter::receive_errors);
        gate_.failed();
        const auto& error = result.outcome.error();
        // Nobody knows what it has taken; after an answer that says no, nothing.
        if (!receive.attempt.id.empty() && error.error_class == ErrorClass::transient)
            attempts_.unanswered(receive.attempt);
        obstruct_queue(error, receive.started, now);
        queue_is_empty_ = false; // else no other one starts, and tells that the queue answers
        return;
    }
    // One that was under way when another one failed tells nothing about now.
    if (receive.started >= queue_.since)
        queue_answers();
    auto& received = result.outcome.value();
    const int n = static_cast<int>(received.messages.size());
    gate_.answered(n);
    if (n > 0)
        last_message_ = now;
    received_ += n;
    queue_is_empty_ =
        n == 0 && received.damaged.empty() && receive.nothing_held && held() == 0 && !queue_.active;
    std::optional<Trouble> damaged;
    if (!received.damaged.empty())
        damaged = make_trouble("DamagedMessage", received.damaged.front().why,
                               "The message was not taken; it returns to the queue by itself.",
                               GetCurrentTimestamp());
    const std::string credentials = client_.credentials().source();
    {
        StateLock lock;
        entry_.last_poll = GetCurrentTimestamp();
        copy_ascii(entry_.credentials, credentials.c_str());
        strlcpy(entry_.protocol, to_string(client_.protocol()), sizeof entry_.protocol);
        if (n == 0)
            entry_.lag_ms = 0;
        if (damaged)
            entry_.last_error = *damaged;
    }
    count(Counter::received, n);
    ++receives_answered_;
    if (fifo_)
        release(take_behind_damaged(received));
    std::size_t bytes = bytes_in_hand();
    for (auto& message : received.messages) {
        take(std::move(message), bytes, now);
        bytes += bytes_of(in_hand_.back());
    }
    leave_rejected();
    count_in_hand();
    if (stop_deadline_)
        release(std::exchange(in_hand_, {}));
}

// What each receive asks for; 0: the queue's own time.
std::chrono::seconds Ingest::receive_visibility() const {
    if (pipeline_.row.visibility_timeout)
        return std::chrono::seconds(*pipeline_.row.visibility_timeout);
    return visibility_.of_receive();
}

// `bytes`: what is in hand before it. Of a FIFO queue, a message is received along with each one before it
// that goes back: only the first of a group is counted against.
Content Ingest::content_now(const Delivery& delivery, std::size_t bytes) const {
    const auto& message = delivery.message;
    if (pipeline_.row.max_receive_count && message.receive_count > *pipeline_.row.max_receive_count &&
        is_first_of_its_group(in_hand_, delivery))
        return Rejection{Reason::too_many_receives, {}};
    if (bytes > kMaxHeldBytes)
        return Unread{};
    return content_of(sink_.transform(), current_keyring(), message);
}

void Ingest::take(Message message, std::size_t bytes, Instant now) {
    latest_sent_ms_ = std::max(latest_sent_ms_, message.sent_at_ms.value_or(0));
    message.received_at_ms = now_ms();
    const auto asked_for = receive_visibility();
    Delivery delivery{
        std::move(message), {}, answers_came_ + (asked_for > 0s ? asked_for : visibility_.queue_timeout)};
    if (fifo_)
        delivery.group = delivery.message.group_id;
    delivery.receive = receives_answered_;
    const auto superseded = take_superseded(in_hand_, delivery);
    count(Counter::released, static_cast<std::int64_t>(superseded.size()));
    delivery.content = content_now(delivery, bytes);
    if (in_hand_.empty())
        oldest_in_hand_ = now;
    in_hand_.push_back(std::move(delivery));
}

// --- visibility

void Ingest::keep_visible(Instant now) {
    // What expired belongs to the queue again: it comes back.
    let_go(part(in_hand_, [&](const Delivery& delivery) { return delivery.visible_until <= now; }));
    if (now < next_visibility_change_)
        return;

    const bool will_write = !waits(database_, now);
    std::vector<Delivery*> to_extend;
    for (auto& delivery : in_hand_)
        if (!delivery.extending &&
            (visibility_.due(delivery, now) || (will_write && !visibility_.outlasts_write(delivery, now))))
            to_extend.push_back(&delivery);
    for (std::size_t i = 0; i < to_extend.size(); i += DeleteQueue::kBatch) {
        VisibilityChange change;
        for (std::size_t k = i; k < std::min(to_extend.size(), i + DeleteQueue::kBatch); ++k) {
            to_extend[k]->extending = true;
            change.receipt_handles.push_back(to_extend[k]->message.receipt_handle);
        }
        change.visible_until = now + visibility_.extension();
        const auto id = client_.start_change_visibility(views(change.receipt_handles),
                                                        static_cast<int>(visibility_.extension().count()));
        visibility_changes_.emplace(id, std::move(change));
    }
}

void Ingest::on_visibility_changed(TransferId id, const BatchResult& result, Instant now) {
    const auto found = visibility_changes_.find(id);
    if (found == visibility_changes_.end())
        return;
    const auto change = std::move(found->second);
    visibility_changes_.erase(found);
    if (change.release)
        return;

    enum class End { extended, lost, again };
    std::map<std::string_view, End> ends;
    for (const auto& handle : change.receipt_handles)
        ends[handle] = result.outcome.ok() ? End::extended : End::again;
    if (result.outcome.ok())
        for (const auto& failed : result.outcome.value()) {
            auto& end = ends[change.receipt_handles[failed.position]];
            const auto what = failed.error.error_class;
            if (what == ErrorClass::receipt || what == ErrorClass::configuration)
                end = End::lost;
            else if (failed.error.code != kNotAnswered || visibility_backoff_.errors() == 0)
                end = End::again; // else a server that names no entries: it has said yes twice
        }

    if (!result.outcome.ok()) {
        const auto trouble = trouble_of(result.outcome.error(), pipeline_);
        StateLock lock;
        entry_.last_error = trouble;
    }

    bool again = false;
    for (auto& delivery : in_hand_) {
        const auto end = ends.find(delivery.message.receipt_handle);
        if (end == ends.end())
            continue;
        delivery.extending = false;
        if (end->second == End::extended)
            delivery.visible_until = change.visible_until;
        again |= end->second == End::again;
    }
    let_go(part(in_hand_, [&](const Delivery& delivery) {
        const auto end = ends.find(delivery.message.receipt_handle);
        return end != ends.end() && end->second == End::lost;
    }));
    if (again) {
        const auto range = backoff_range(ErrorClass::transient);
        next_visibility_change_ = now + visibility_backoff_.next(range.base, 1s, random_fraction());
    } else {
        visibility_backoff_.reset();
    }
}

// What is not ours any more, and what must follow it back to the queue.
void Ingest::let_go(Parted parted) {
    if (parted.gone.empty())
        return;
    count(Counter::released, static_cast<std::int64_t>(parted.gone.size()));
    release(std::move(parted.behind));
}

void Ingest::release(std::vector<Delivery> deliveries) {
    std::vector<Message> messages;
    for (auto& delivery : deliveries)
        messages.push_back(std::move(delivery.message));
    release(std::move(messages));
    count_in_hand();
}

void Ingest::release(std::vector<Message> messages) {
    count(Counter::released, static_cast<std::int64_t>(messages.size()));
    std::vector<std::string> handles;
    for (auto& message : messages)
        handles.push_back(std::move(message.receipt_handle));
    return_handles(std::move(handles), 0s);
}

// What was not released comes back when its window is over.
void Ingest::return_handles(std::vector<std::string> receipt_handles, std::chrono::seconds invisible_for) {
    for (std::size_t i = 0; i < receipt_handles.size(); i += DeleteQueue::kBatch) {
        VisibilityChange change;
        change.release = true;
        for (std::size_t k = i; k < std::min(receipt_handles.size(), i + DeleteQueue::kBatch); ++k)
            change.receipt_handles.push_back(std::move(receipt_handles[k]));
        const auto id = client_.start_change_visibility(views(change.receipt_handles),
                                                        static_cast<int>(invisible_for.count()));
        visibility_changes_.emplace(id, std::move(change));
    }
}

// on_invalid = leave: the queue has it again, after a while, and its redrive policy decides. Of a FIFO queue,
// what is behind it goes along, and the group stands still until then.
void Ingest::leave_rejected() {
    if (pipeline_.on_invalid != OnInvalid::leave)
        return;
    auto parted = part(in_hand_, [&](const Delivery& delivery) {
        const auto* rejection = std::get_if<Rejection>(&delivery.content);
        return rejection && fate_of(pipeline_, *rejection) == OnInvalid::leave;
    });
    if (parted.gone.empty())
        return;
    count(Counter::released, static_cast<std::int64_t>(parted.gone.size() + parted.behind.size()));
    const auto& first = parted.gone.front();
    const auto& why = std::get<Rejection>(first.content);
    const auto trouble = make_trouble(
        to_string(why.reason), "message " + first.message.message_id + " was left in the queue",
        "It cannot become a row (sqs_ingest_preview() says more), and on_invalid is leave. The queue's "
        "redrive policy or max_receive_count ends it.",
        GetCurrentTimestamp());

    std::map<std::string, std::chrono::seconds> of_groups; // as long as the first one that was left
    std::map<std::chrono::seconds, std::vector<std::string>> handles;
    const auto leave = [&](Delivery& delivery) {
        auto invisible_for = leave_time(delivery.message.receive_count);
        if (!delivery.group.empty())
            invisible_for = of_groups.try_emplace(delivery.group, invisible_for).first->second;
        handles[invisible_for].push_back(std::move(delivery.message.receipt_handle));
    };
    std::for_each(parted.gone.begin(), parted.gone.end(), leave);
    std::for_each(parted.behind.begin(), parted.behind.end(), leave);
    for (auto& [invisible_for, of_this_time] : handles)
        return_handles(std::move(of_this_time), invisible_for);
    count_in_hand();
    StateLock lock;
    entry_.last_error = trouble;
}

// A committed message of a group could not be deleted in time and comes back. What was received behind it
// comes back behind it, written or not.
void Ingest::release_given_up() {
    auto given_up = deletes_.take_given_up();
    if (given_up.groups.empty())
        return;
    const auto concerns = [&](const std::string& group) {
        return !group.empty() &&
               std::find(given_up.groups.begin(), given_up.groups.end(), group) != given_up.groups.end();
    };
    std::vector<std::string> handles;
    for (auto& receipt : given_up.receipts)
        handles.push_back(std::move(receipt.receipt_handle));
    std::erase_if(unconfirmed_.receipts, [&](Receipt& receipt) {
        if (!concerns(receipt.group))
            return false;
        handles.push_back(std::move(receipt.receipt_handle));
        return true;
    });
    return_handles(std::move(handles), 0s);
    release(part(in_hand_, [&](const Delivery& delivery) { return concerns(delivery.group); }).gone);
}

// --- write

// Finds out whether there is a keyring and a table to write to: before the first receive, and after a fault.
void Ingest::make_ready(Instant now) {
    if (stop_deadline_ || waits(database_, now))
        return;
    if (sink_ready_) {
        // What could not be written went back to the queue meanwhile: nothing is left that could tell.
        if (database_.active && in_hand_.empty() && unconfirmed_.receipts.empty()) {
            rounds_of_every_row_ = 0;
            clear(database_, "nothing is in hand any more");
        }
        return;
    }
    if (const auto fault = sink_.probe()) {
        obstruct_database(*fault, now);
        return;
    }
    sink_ready_ = true;
    keyring_ = keyring_serial();
    // What is in hand tells whether rows can be written too: until then nothing more is received.
    if (in_hand_.empty() && unconfirmed_.receipts.empty())
        clear(database_, "the target table can be written");
    // The table may have changed, and with it what is a valid row.
    std::size_t bytes = 0;
    for (auto& delivery : std::exchange(in_hand_, {})) {
        delivery.content = content_now(delivery, bytes);
        bytes += bytes_of(delivery);
        in_hand_.push_back(std::move(delivery));
    }
    leave_rejected();
}

bool Ingest::batch_is_due(Instant now) const {
    if (in_hand_.empty() || !sink_ready_ || !unconfirmed_.receipts.empty() || waits(database_, now))
        return false;
    const bool more_is_coming = gate_.target() > 1 && !receives_.empty() && !stop_deadline_;
    return !more_is_coming || in_hand_.size() >= batch_limit_ || now - oldest_in_hand_ >= kLinger;
}

void Ingest::write_when_due(Instant now) {
    if (!batch_is_due(now))
        return;
    // If the window cannot be extended, the write goes ahead: the ledger makes a redelivery harmless. Without
    // it, another worker may have written a FIFO queue's messages by then, and what is behind them.
    const bool extension_failed = visibility_backoff_.errors() > 0 && (pipeline_.row.ledger || !fifo_);
    const bool ready = std::all_of(in_hand_.begin(), in_hand_.end(), [&](const Delivery& delivery) {
        return !delivery.extending && (visibility_.outlasts_write(delivery, now) || extension_failed);
    });
    if (ready)
        write(now);
}

// How many the next batch has, all of them read. 0: none is left in hand.
std::size_t Ingest::next_batch() {
    std::size_t n = 0, bytes = 0;
    bool was_unread = false;
    while (n < in_hand_.size() && n < batch_limit_ && (n == 0 || bytes < kMaxBatchBytes)) {
        auto& delivery = in_hand_[n++];
        if (std::holds_alternative<Unread>(delivery.content)) {
            delivery.content = content_of(sink_.transform(), current_keyring(), delivery.message);
            was_unread = true;
        }
        bytes += bytes_of(delivery);
    }
    if (!was_unread)
        return n;
    leave_rejected();
    return next_batch();
}

void Ingest::write(Instant now) {
    const std::size_t n = next_batch();
    if (n == 0)
        return;
    // A dead letter, whatever on_invalid says: it could be the database after all.
    if (n == 1 && in_hand_.front().lone_faults >= kLoneFaults)
        in_hand_.front().content = Rejection{Reason::row_error, {}, in_hand_.front().sqlstate};
    std::vector<Delivery> batch(std::make_move_iterator(in_hand_.begin()),
                                std::make_move_iterator(in_hand_.begin() + static_cast<std::ptrdiff_t>(n)));
    in_hand_.erase(in_hand_.begin(), in_hand_.begin() + static_cast<std::ptrdiff_t>(n));

    {
        StateLock lock; // a write can take a while, and the last turn may have said "idle"
        if (slot_.state == PipelineState::idle)
            slot_.state = PipelineState::running;
    }
    const int rounds = n == 1 ? kRoundsOfOneRow : kRoundsOfEveryRow;
    auto result =
        sink_.write(batch, current_keyring(), rounds_of_every_row_ >= rounds && few_are_at_stake(n));
    if (result.ok()) {
        on_written(std::move(batch), result.value(), now);
    } else {
        in_hand_.insert(in_hand_.begin(), std::make_move_iterator(batch.begin()),
                        std::make_move_iterator(batch.end()));
        if (n == 1)
            note_lone_fault(result.error());
        on_write_fault(result.error(), n, now);
    }
    count_in_hand();
}

// A lone message, in front, that the database would not take for reasons that usually are no row's: time,
// resources, internal errors. The others get their turn; and if those are written while this one keeps
// failing, it is the message after all.
void Ingest::note_lone_fault(const WriteFault& fault) {
    const std::string state = unpack_sql_state(fault.report.sqlstate);
    const bool could_be_a_rows =
        state == "57014" || state.starts_with("53") || state.starts_with("58") || state.starts_with("XX");
    if (!could_be_a_rows)
        return;
    auto& delivery = in_hand_.front();
    if (delivery.lone_faults == 0 || delivery.writes_at_fault < writes_)
        ++delivery.lone_faults;
    delivery.writes_at_fault = writes_;
    delivery.sqlstate = state;
    move_first_group_to_the_end(in_hand_);
}

// A session cannot wait until somebody has mended the table: it makes dead letters of a few rows, not of a
// queue.
bool Ingest::few_are_at_stake(std::size_t n) const {
    return host_ == Host::worker || refused_in_a_row_ + static_cast<std::int64_t>(n) <= kRefusedInSession;
}

void Ingest::on_written(std::vector<Delivery> batch, const Written& written, Instant now) {
    std::int64_t fates[kFates] = {};
    for (const auto fate : written.fates)
        ++fates[static_cast<int>(fate)];
    count(Counter::inserted, fates[static_cast<int>(Fate::inserted)] - written.conflicts);
    count(Counter::duplicates, fates[static_cast<int>(Fate::duplicate)] + written.conflicts);
    count(Counter::discarded, fates[static_cast<int>(Fate::discarded)]);
    count(Counter::dead_letters, fates[static_cast<int>(Fate::dead_letter)]);
    count(Counter::transactions);
    ++writes_;
    bool inserted = false; // a message without rows proves nothing
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const auto* rows = std::get_if<Rows>(&batch[i].content);
        inserted |= written.fates[i] == Fate::inserted && rows && !rows->empty();
    }
    refused_in_a_row_ = inserted ? 0
                                 : refused_in_a_row_ + fates[static_cast<int>(Fate::dead_letter)] +
                                       fates[static_cast<int>(Fate::discarded)];
    if (fates[static_cast<int>(Fate::dead_letter)] > 0 && pipeline_.row.dead_letter_retention && !next_purge_)
        next_purge_ = now; // to find out when

    std::int64_t oldest_ms = 0;
    for (const auto& delivery : batch)
        if (delivery.message.sent_at_ms && (oldest_ms == 0 || *delivery.message.sent_at_ms < oldest_ms))
            oldest_ms = *delivery.message.sent_at_ms;
    {
        StateLock lock;
        entry_.rate.add(GetCurrentTimestamp(), static_cast<int64>(batch.size()));
        if (oldest_ms > 0)
            entry_.lag_ms = std::max<std::int64_t>(0, now_ms() + client_.clock_skew_ms() - oldest_ms);
    }

    rounds_of_every_row_ = 0;
    batch_limit_ = std::min(batch_limit_ * 2, max_batch());
    oldest_in_hand_ = now;
    clear(database_, "the target table can be written");

    unconfirmed_.end = written.commit_end;
    unconfirmed_.waited = fates[static_cast<int>(Fate::duplicate)] < static_cast<std::int64_t>(batch.size());
    for (auto& delivery : batch)
        unconfirmed_.receipts.push_back(
            {std::move(delivery.message.receipt_handle), delivery.visible_until, std::move(delivery.group)});
    confirm_commits(now);
}

void Ingest::on_write_fault(const WriteFault& fault, std::size_t n, Instant now) {
    // Rows that the table refused, and that are to be left: without them, the others can be written at once.
    if (!fault.refused.empty()) {
        for (const auto& refused : fault.refused)
            in_hand_[refused.position].content = refused.rejection;
        rounds_of_every_row_ = 0;
        leave_rejected();
        return;
    }
    // A batch that takes too long, or in which something breaks, is written in smaller pieces.
    const int category = ERRCODE_TO_CATEGORY(fault.report.sqlstate);
    if (fault.report.sqlstate == ERRCODE_QUERY_CANCELED || category == ERRCODE_INSUFFICIENT_RESOURCES ||
        category == ERRCODE_SYSTEM_ERROR || category == ERRCODE_INTERNAL_ERROR)
        batch_limit_ = std::max<std::size_t>(1, n / 2);
    rounds_of_every_row_ = fault.every_row ? rounds_of_every_row_ + 1 : 0;
    sink_ready_ = fault.every_row; // else probed before the next try
    if (host_ == Host::session && rounds_of_every_row_ > kRoundsOfEveryRow) {
        const auto trouble = trouble_of(fault, pipeline_);
        throw make_error(fault.report.sqlstate, trouble.message, trouble.hint);
    }
    obstruct_database(fault, now);
    if (stop_deadline_)
        release(std::exchange(in_hand_, {}));
}

// --- commit to delete

void Ingest::confirm_commits(Instant now) {
    if (unconfirmed_.receipts.empty() || waits(database_, now))
        return;
    bool durable = false;
    try {
        // While stopping, the standbys are asked but not waited for.
        const bool waited_in_vain = host_ == Host::session && unconfirmed_.waited;
        durable = durable_barrier(unconfirmed_.end, !stop_deadline_ && !waited_in_vain);
    } catch (const PgError& error) {
        obstruct_database(WriteFault{error.report()}, now);
        return;
    }
    if (!durable && stop_deadline_) {
        unconfirmed_ = {}; // not deleted: they come back, and are recognised
        return;
    }
    if (!durable && host_ == Host::session) // the wait was cancelled, and the cancel forgotten
        throw make_error(ERRCODE_QUERY_CANCELED,
                         "the synchronous standbys have not confirmed the last commit",
                         "Its rows are stored; its messages come back and are recognised.");
    if (!durable) {
        obstruct(database_,
                 make_trouble("NotConfirmed", "the synchronous standbys have not confirmed the last commit",
                              "The messages are deleted when they have. Check the standbys and "
                              "synchronous_standby_names.",
                              GetCurrentTimestamp()),
                 database_backoff(), now);
        return;
    }
    if (strcmp(database_.trouble.code, "NotConfirmed") == 0)
        clear(database_, "the synchronous standbys have confirmed");
    for (auto& receipt : unconfirmed_.receipts)
        deletes_.add(std::move(receipt), now);
    unconfirmed_ = {};
}

void Ingest::send_deletes(Instant now) {
    const bool flush = stop_deadline_ || receives_.empty() || gate_.target() == 1;
    while (deletes_under_way_.size() < kMaxDeletes) {
        auto batch = deletes_.take(now, flush);
        if (batch.empty())
            break;
        std::vector<std::string_view> handles;
        for (const auto& entry : batch)
            handles.push_back(entry.receipt.receipt_handle);
        const auto id = client_.start_delete(handles);
        deletes_under_way_.emplace(id, std::move(batch));
    }
    release_given_up();
}

void Ingest::on_deleted(TransferId id, const BatchResult& result, Instant now) {
    auto entries = std::move(deletes_under_way_[id]);
    deletes_under_way_.erase(id);

    std::vector<const ApiError*> errors(entries.size(), nullptr);
    if (result.outcome.ok()) {
        for (const auto& failed : result.outcome.value())
            errors[failed.position] = &failed.error;
    } else {
        std::fill(errors.begin(), errors.end(), &result.outcome.error());
    }
    for (std::size_t i = 0; i < entries.size(); ++i) {
        // A server that names no entries would be asked for ever: what it has let pass twice is deleted.
        const bool unanswered = errors[i] && errors[i]->code == kNotAnswered;
        if (!errors[i] || (unanswered && std::exchange(entries[i].unanswered, true))) {
            count(Counter::deleted);
            deletes_.deleted(entries[i]);
            continue;
        }
        count(Counter::delete_failures);
        // A stale handle stays stale: the message comes back with a new one. Unless an earlier request, which
        // seemed to fail, has deleted it.
        if (errors[i]->error_class != ErrorClass::receipt)
            deletes_.retry(std::move(entries[i]), now, random_fraction());
        else if (entries[i].backoff.errors() > 0)
            deletes_.deleted(entries[i]);
        else
            deletes_.lost(entries[i]);
        const auto trouble = trouble_of(*errors[i], pipeline_);
        StateLock lock;
        entry_.last_error = trouble;
    }
    release_given_up();
}

// Ledger entries of messages that the queue cannot deliver any more, by the queue's clock, in small steps and
// only when something was written: an idle pipeline runs no SQL.
void Ingest::prune_ledger(Instant now) {
    if (!retention_ || latest_sent_ms_ == 0 || now < next_prune_ || !sink_ready_ || database_.active ||
        unconfirmed_.end != 0 || stop_deadline_)
        return;
    next_prune_ = now + kPruneEvery;
    const auto age = std::chrono::milliseconds(*retention_) + std::chrono::milliseconds(kRetentionMargin);
    try {
        // By the queue's clock: its newest message, or its Date header should a SentTimestamp be nonsense.
        const auto queue_now = std::min(latest_sent_ms_, now_ms() + client_.clock_skew_ms());
        const auto removed = sink_.prune_ledger(timestamp_of_ms(queue_now - age.count()));
        if (removed == Sink::kPruneStep)
            next_prune_ = now + 1s;
        else
            latest_sent_ms_ = 0; // nothing to do before the next message
    } catch (const PgError& error) {
        obstruct_database(WriteFault{error.report()}, now);
        sink_ready_ = false;
    }
}

// Whenever one is due, and at no other time: an idle pipeline runs no SQL.
void Ingest::purge_dead_letters(Instant now) {
    if (!next_purge_ || now < *next_purge_ || !sink_ready_ || database_.active || stop_deadline_)
        return;
    try {
        const auto next = sink_.purge_dead_letters();
        next_purge_.reset();
        if (next)
            next_purge_ = now + std::clamp<std::chrono::seconds>(*next, 1s, kPurgeAgain);
    } catch (const PgError& error) {
        if (host_ == Host::session)
            throw;
        // Ingestion goes on all the same.
        call_pg([&] {
            ereport(LOG, (errmsg("sqs_ingest pipeline \"%s\" could not remove old dead letters: %s",
                                 NameStr(entry_.name), error.what())));
        });
        next_purge_ = now + kPurgeFailed;
    }
}

// --- stop, wait, report

void Ingest::stop(Instant now) {
    if (stop_deadline_)
        return;
    stop_deadline_ = now + kStopTime;
    if (attributes_request_)
        client_.cancel(*attributes_request_);
    attributes_request_.reset();
    if (database_.active || !sink_ready_)
        release(std::exchange(in_hand_, {}));
}

// A receive that has just started may have messages on their way already, which would be in flight with
// nobody: it gets some time, and what it brings is released. A long poll that has been waiting is ended.
Instant Ingest::grace_of(const Receive& receive) const {
    return receive.started + (gate_.busy() ? kBusyGrace : kReceiveGrace);
}

void Ingest::cancel_old_receives(Instant now) {
    std::erase_if(receives_, [&](const auto& receive) {
        const bool old = now >= grace_of(receive.second);
        if (old)
            client_.cancel(receive.first);
        return old;
    });
}

bool Ingest::nothing_is_left() const {
    return receives_.empty() && in_hand_.empty() && unconfirmed_.receipts.empty() && deletes_.empty() &&
           deletes_under_way_.empty() && visibility_changes_.empty();
}

bool Ingest::stopped() const {
    return stop_deadline_ && (nothing_is_left() || std::chrono::steady_clock::now() >= *stop_deadline_);
}

bool Ingest::finished() const {
    return limits_ && attributes_read_ && sink_ready_ && !queue_.active && !database_.active &&
           messages_to_ask_for() == 0 && nothing_is_left();
}

std::optional<Ingest::Stuck> Ingest::stuck() const {
    std::optional<Stuck> worst;
    const auto consider = [&](const Obstruction& obstruction) {
        if (obstruction.active && (!worst || obstruction.began < worst->since))
            worst = Stuck{obstruction.began, obstruction.trouble};
    };
    consider(queue_);
    if (rounds_of_every_row_ == 0) // else it is about to be decided
        consider(database_);
    return worst;
}

void Ingest::abandon(Instant now) {
    stop(now);
    stop_deadline_ = now + kAbandonTime;
    sink_ready_ = false;
    release(std::exchange(in_hand_, {}));
    unconfirmed_ = {}; // not deleted: they come back, and are recognised
}

std::size_t Ingest::held() const {
    return in_hand_.size() + unconfirmed_.receipts.size() + deletes_.size() +
           deletes_under_way_.size() * DeleteQueue::kBatch;
}

std::size_t Ingest::bytes_in_hand() const {
    return std::accumulate(
        in_hand_.begin(), in_hand_.end(), std::size_t{0},
        [](std::size_t sum, const Delivery& delivery) { return sum + bytes_of(delivery); });
}

std::optional<std::chrono::milliseconds> Ingest::timeout(Instant now) const {
    std::optional<Instant> next;
    const auto at = [&](Instant when) { next = std::min(next.value_or(when), when); };
    if (const auto network = client_.timeout())
        at(now + *network);
    // What lay ahead at the last turn, as that turn saw it. What was over then has been acted upon, or is
    // barred by something else: counted here, it would make the loop spin.
    if (waits(queue_, last_turn_) && receives_.empty())
        at(queue_.retry_at);
    if (waits(database_, last_turn_))
        at(database_.retry_at);
    if (!in_hand_.empty()) {
        if (!waits(database_, last_turn_))
            at(std::max({last_turn_ + kLinger, oldest_in_hand_ + kLinger, next_visibility_change_}));
        for (const auto& delivery : in_hand_)
            at(delivery.extending ? delivery.visible_until
                                  : std::max(next_visibility_change_, visibility_.due_at(delivery)));
    }
    if (deletes_under_way_.size() < kMaxDeletes)
        if (const auto due = deletes_.next_due())
            at(*due);
    if (next_purge_ && *next_purge_ > last_turn_)
        at(*next_purge_);
    if (stop_deadline_) {
        at(*stop_deadline_);
        for (const auto& [id, receive] : receives_)
            at(grace_of(receive));
    }
    if (last_turn_ < last_message_ + kQuiet) // for the status to say so
        at(last_message_ + kQuiet);
    if (!next)
        return std::nullopt;
    return std::max(0ms, std::chrono::ceil<std::chrono::milliseconds>(*next - now));
}

void Ingest::count_in_hand() {
    StateLock lock;
    slot_.in_hand = static_cast<int32>(in_hand_.size());
}

void Ingest::report(Instant now) {
    const Obstruction* obstruction = queue_.active ? &queue_ : database_.active ? &database_ : nullptr;
    PipelineState state = PipelineState::running;
    if (stop_deadline_)
        state = PipelineState::stopping;
    else if (obstruction)
        state = PipelineState::backing_off;
    else if (!attributes_read_ || !sink_ready_)
        state = PipelineState::starting;
    else if (held() == 0 && now >= last_message_ + kQuiet)
        state = PipelineState::idle;

    StateLock lock;
    slot_.state = state;
    if (state == PipelineState::idle)
        entry_.lag_ms = 0;
    slot_.trouble = obstruction ? obstruction->trouble : Trouble{};
}

} // namespace sqs_ingest::pg
