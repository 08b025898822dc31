#include "core/policy/backoff.h"

#include <algorithm>

namespace sqs_ingest {

using namespace std::chrono_literals;

std::chrono::milliseconds Backoff::next(std::chrono::milliseconds base, std::chrono::milliseconds cap,
                                        double random) {
    constexpr int kMaxDoublings = 20; // base * 2^20 is above every cap, and far from overflow
    const auto ceiling = std::min(cap, base * (1 << std::min(errors_, kMaxDoublings)));
    ++errors_;
    return std::chrono::milliseconds(static_cast<std::chrono::milliseconds::rep>(random * ceiling.count()));
}

BackoffRange backoff_range(ErrorClass error_class) {
    switch (error_class) {
    case ErrorClass::throttle:
    case ErrorClass::over_limit:
        return {1s, 20s};
    case ErrorClass::transient:
    case ErrorClass::receipt:
        return {50ms, 20s};
    case ErrorClass::credentials:
    case ErrorClass::clock:
    case ErrorClass::configuration:
        return {1s, 60s};
    }
    return {1s, 60s};
}

} // namespace sqs_ingest
