// ClockSkew: which Date headers count, and what requests are dated with.
#include "net/clock_skew.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

constexpr std::int64_t kNow = 1'795'257'000'000; // 2026-11-21 10:30:00 UTC

std::int64_t learnt(const char* date) {
    ClockSkew skew;
    skew.learn(date, kNow);
    return skew.ms();
}

TEST(ClockSkewTest, a_date_header_tells_the_skew) {
    EXPECT_EQ(learnt("Sat, 21 Nov 2026 10:30:00 GMT"), 0);
    EXPECT_EQ(learnt("Sat, 21 Nov 2026 10:32:00 GMT"), 120'000);
    EXPECT_EQ(learnt("Sat, 21 Nov 2026 10:28:00 GMT"), -120'000);
    EXPECT_EQ(learnt("Thu, 01 Jan 1970 00:00:00 GMT"), -kNow);
    EXPECT_EQ(learnt("Fri, 31 Dec 9999 23:59:59 GMT"), 253'402'300'799'000 - kNow);
}

TEST(ClockSkewTest, a_date_that_no_clock_can_show_changes_nothing) {
    for (const char* date : {"", "half past nine", "Wed, 31 Dec 1969 23:59:58 GMT",
                             "Sat, 01 Jan 10000 00:00:00 GMT", "Sun, 06 Nov 2147483647 08:49:37 GMT"})
        EXPECT_EQ(learnt(date), 0) << date;
}

TEST(ClockSkewTest, a_small_skew_counts_only_when_it_was_refused) {
    ClockSkew skew;
    skew.learn("Sat, 21 Nov 2026 10:34:00 GMT", kNow);
    EXPECT_EQ(skew.far_off_ms(), 0);
    EXPECT_EQ(skew.signing_ms(kNow, false), kNow);
    EXPECT_EQ(skew.signing_ms(kNow, true), kNow + 240'000);
}

TEST(ClockSkewTest, a_large_skew_counts_in_both_directions) {
    for (const auto& [date, ms] :
         {std::pair("Sat, 21 Nov 2026 10:34:01 GMT", 241'000), {"Sat, 21 Nov 2026 10:25:59 GMT", -241'000}}) {
        ClockSkew skew;
        skew.learn(date, kNow);
        EXPECT_EQ(skew.far_off_ms(), ms);
        EXPECT_EQ(skew.signing_ms(kNow, false), kNow + ms);
    }
}

} // namespace
} // namespace sqs_ingest
