#include "net/clock_skew.h"

#include <cstdlib>
#include <curl/curl.h>

namespace sqs_ingest {
namespace {

// AWS accepts 5 minutes. Below this the machine's own clock is taken: a Date header is a second coarse.
constexpr std::int64_t kTolerableSkewMs = 4 * 60'000;
constexpr std::int64_t kLastSecond = 253'402'300'799; // of the year 9999

} // namespace

void ClockSkew::learn(const std::string& date, std::int64_t now_ms) {
    const std::int64_t server_s = date.empty() ? -1 : curl_getdate(date.c_str(), nullptr);
    if (server_s >= 0 && server_s <= kLastSecond)
        ms_ = server_s * 1000 - now_ms;
}

std::int64_t ClockSkew::far_off_ms() const {
    return std::abs(ms_) > kTolerableSkewMs ? ms_ : 0;
}

std::int64_t ClockSkew::signing_ms(std::int64_t now_ms, bool refused) const {
    return now_ms + (refused ? ms_ : far_off_ms());
}

} // namespace sqs_ingest
