// A server's clock, by which requests to it are dated when ours is wrong.
#pragma once

#include <cstdint>
#include <string>

namespace sqs_ingest {

// The server's clock minus ours, learnt from Date headers. Times are milliseconds since 1970 by our clock.
class ClockSkew {
  public:
    // `date`: a Date header, or nothing. One that is none, or not of the years 1970 to 9999, changes nothing.
    void learn(const std::string& date, std::int64_t now_ms);

    std::int64_t ms() const { return ms_; }
    // 0 unless it is so large that AWS minds.
    std::int64_t far_off_ms() const;
    // What to date a request with; `refused`: the server minds even a small skew.
    std::int64_t signing_ms(std::int64_t now_ms, bool refused) const;

  private:
    std::int64_t ms_ = 0;
};

} // namespace sqs_ingest
