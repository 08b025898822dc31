#include "net/credentials/errand.h"

#include <utility>

namespace sqs_ingest {

Errand::Errand(HttpLoop& http, std::unique_ptr<Conversation> conversation, Moment now)
    : http_(http), conversation_(std::move(conversation)) {
    go(conversation_->begin(now.unix_ms), now);
}

Errand::~Errand() {
    if (transfer_)
        http_.cancel(*transfer_);
    end_process();
}

bool Errand::take(Completed& completed, Moment now) {
    if (transfer_ != completed.id)
        return false;
    transfer_.reset();
    go(std::visit([&](auto& result) { return conversation_->on(std::move(result), now.unix_ms); },
                  completed.result),
       now);
    return true;
}

void Errand::advance(Moment now) {
    if (!process_)
        return;
    auto end = process_->poll(now.steady);
    if (process_->descriptor() < 0 && watched_ >= 0)
        http_.forget(std::exchange(watched_, -1)); // closed; its number may soon be another's
    if (!end)
        return;
    end_process();
    go(conversation_->on(ProcessEnd{std::move(end->output), std::move(end->failure)}, now.unix_ms), now);
}

std::optional<std::chrono::steady_clock::time_point> Errand::next_look() const {
    return process_ ? std::optional(process_->next_look()) : std::nullopt;
}

void Errand::go(NextStep step, Moment now) {
    if (auto* request = std::get_if<HttpRequest>(&step)) {
        transfer_ = http_.start(std::move(*request));
    } else if (auto* process = std::get_if<ProcessRequest>(&step)) {
        process_ = std::make_unique<ChildProcess>(process->command, ChildProcess::Limits{}, now.steady);
        watched_ = process_->descriptor();
        if (watched_ >= 0)
            http_.watch(watched_);
    } else if (auto* found = std::get_if<FoundCredentials>(&step)) {
        end_ = std::move(*found);
    } else if (auto* region = std::get_if<FoundRegion>(&step)) {
        end_ = std::move(*region);
    } else {
        end_ = std::get<FetchFailure>(std::move(step));
    }
}

void Errand::end_process() {
    if (watched_ >= 0)
        http_.forget(watched_);
    watched_ = -1;
    process_.reset();
}

} // namespace sqs_ingest
