// A credentials chain with a loop of its own and a clock that can be put forward.
#pragma once

#include "net/credentials.h"

#include <chrono>
#include <poll.h>
#include <stdexcept>

namespace sqs_ingest::test {

using CredentialsAnswer = std::variant<Credentials, BeingFetched, NoCredentials>;

class ChainUnderTest {
  public:
    explicit ChainUnderTest(CredentialsOptions options, HttpOptions http = {})
        : http_(std::move(http)), chain_(std::move(options), http_) {}

    Moment now() const {
        Moment moment = Moment::now();
        moment.steady += later_;
        moment.unix_ms += std::chrono::duration_cast<std::chrono::milliseconds>(later_).count();
        return moment;
    }
    // Both clocks go forward, at once.
    void pass(std::chrono::seconds time) { later_ += time; }

    CredentialsAnswer ask() { return chain_.get(now()); }

    // One turn of an event loop.
    void turn() {
        int wait = static_cast<int>(http_.timeout().value_or(std::chrono::milliseconds(20)).count());
        pollfd entry{http_.descriptor(), POLLIN, 0};
        poll(&entry, 1, std::min(wait, 20));
        for (Completed& completed : http_.advance())
            chain_.take(completed, now());
        chain_.advance(now());
    }

  private:
    static constexpr std::chrono::seconds kPatience{10};

    template<class Ask>
    auto until_known(Ask ask) {
        auto answer = ask();
        for (const auto end = Moment::now().steady + kPatience;
             std::holds_alternative<BeingFetched>(answer) && Moment::now().steady < end; answer = ask())
            turn();
        if (std::holds_alternative<BeingFetched>(answer))
            throw std::runtime_error("it is still being fetched");
        return answer;
    }

  public:
    // Turns until there is an answer.
    CredentialsAnswer get() {
        return until_known([&] { return ask(); });
    }
    std::variant<std::string, BeingFetched, NoRegion> region() {
        return until_known([&] { return chain_.region(now()); });
    }
    // Turns until nothing is under way.
    void settle() {
        for (const auto end = Moment::now().steady + kPatience; Moment::now().steady < end;) {
            turn();
            if (http_.in_flight() == 0 && !chain_.next_look())
                return;
        }
        throw std::runtime_error("the chain does not come to rest");
    }

    Credentials found() {
        const auto answer = get();
        if (const auto* none = std::get_if<NoCredentials>(&answer))
            return {"ERROR " + none->message, none->detail, none->code};
        return std::get<Credentials>(answer);
    }
    std::string key_id() { return found().access_key_id; }
    NoCredentials refusal() {
        const auto answer = get();
        const auto* none = std::get_if<NoCredentials>(&answer);
        return none ? *none : NoCredentials{"there were some"};
    }

    HttpLoop& http() { return http_; }
    CredentialsChain* operator->() { return &chain_; }

  private:
    std::chrono::steady_clock::duration later_{};
    HttpLoop http_;
    CredentialsChain chain_;
};

} // namespace sqs_ingest::test
