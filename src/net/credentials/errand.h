// Carries one conversation through: its requests over the HttpLoop, its processes as children.
#pragma once

#include "net/child_process.h"
#include "net/credentials/conversation.h"
#include "net/http.h"
#include "net/moment.h"

#include <chrono>
#include <memory>
#include <optional>
#include <variant>

namespace sqs_ingest {

using ErrandEnd = std::variant<FoundCredentials, FoundRegion, FetchFailure>;

class Errand {
  public:
    Errand(HttpLoop& http, std::unique_ptr<Conversation> conversation, Moment now);
    ~Errand(); // whatever is under way is cancelled
    Errand(const Errand&) = delete;
    Errand& operator=(const Errand&) = delete;

    // True: the transfer was this errand's.
    bool take(Completed& completed, Moment now);
    // Looks after the child process, if there is one.
    void advance(Moment now);
    std::optional<std::chrono::steady_clock::time_point> next_look() const;

    bool ended() const { return end_.has_value(); }
    ErrandEnd take_end() { return *std::exchange(end_, std::nullopt); }

  private:
    void go(NextStep step, Moment now);
    void end_process();

    HttpLoop& http_;
    std::unique_ptr<Conversation> conversation_;
    std::optional<TransferId> transfer_;
    std::unique_ptr<ChildProcess> process_;
    int watched_ = -1; // the child's output
    std::optional<ErrandEnd> end_;
};

} // namespace sqs_ingest
