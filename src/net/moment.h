// Now, as an argument, so that tests own the clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace sqs_ingest {

// On both clocks: deadlines are kept by the steady one, expirations by the one on the wall.
struct Moment {
    std::chrono::steady_clock::time_point steady;
    std::int64_t unix_ms; // since 1970

    static Moment now() {
        using namespace std::chrono;
        return {steady_clock::now(),
                duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count()};
    }
};

} // namespace sqs_ingest
