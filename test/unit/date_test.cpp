// Calendar dates and times, in UTC.
#include "core/date.h"

#include <gtest/gtest.h>
#include <limits>

namespace sqs_ingest {
namespace {

std::string date(std::string_view text) {
    return iso_date(text).value_or("none");
}
std::string epoch_date(std::int64_t ms) {
    return date_of_epoch_ms(ms).value_or("none");
}

TEST(Date, a_date_stays_as_it_is) {
    for (const auto* text : {"2026-11-21", "0001-01-01", "9999-12-31", "2024-02-29", "2000-02-29"})
        EXPECT_EQ(date(text), text);
}

TEST(Date, days_that_no_calendar_has_are_none) {
    for (const auto* text : {"2026-02-29", "1900-02-29", "2026-04-31", "2026-13-01", "2026-00-10",
                             "2026-01-00", "2026-01-32", "0000-01-01"})
        EXPECT_EQ(date(text), "none") << text;
}

TEST(Date, the_date_is_taken_from_a_date_and_time) {
    for (const auto* text : {"2026-11-21T10:00:00Z", "2026-11-21T10:00:00", "2026-11-21T10:00",
                             "2026-11-21 10:00:00", "2026-11-21t10:00:00z", "2026-11-21T10:00:00.123456789Z",
                             "2026-11-21T10:00:00,5Z", "2026-11-21T00:00:00Z", "2026-11-21T23:59:59Z"})
        EXPECT_EQ(date(text), "2026-11-21") << text;
}

TEST(Date, an_offset_is_converted_to_utc) {
    EXPECT_EQ(date("2026-11-21T01:00:00+02:00"), "2026-11-20");
    EXPECT_EQ(date("2026-11-21T23:00:00-02:00"), "2026-11-22");
    EXPECT_EQ(date("2026-11-21T02:00:00+02:00"), "2026-11-21");
    EXPECT_EQ(date("2026-11-21T01:00+0530"), "2026-11-20");
    EXPECT_EQ(date("2026-11-21T22:00-03"), "2026-11-22");
    EXPECT_EQ(date("2027-01-01T00:30:00+01:00"), "2026-12-31");
    EXPECT_EQ(date("2024-03-01T00:30:00+01:00"), "2024-02-29");
}

TEST(Date, a_leap_second_belongs_to_the_day_it_ends) {
    EXPECT_EQ(date("2016-12-31T23:59:60Z"), "2016-12-31");
    EXPECT_EQ(date("2016-12-31T18:59:60-05:00"), "2016-12-31");
}

TEST(Date, an_offset_cannot_lead_out_of_the_calendar) {
    EXPECT_EQ(date("0001-01-01T00:00:00+01:00"), "none");
    EXPECT_EQ(date("9999-12-31T23:59:59-01:00"), "none");
}

TEST(Date, anything_else_is_none) {
    for (const auto* text : {"",
                             "2026",
                             "2026-11",
                             "20261121",
                             "2026-1-2",
                             "26-11-21",
                             "21.11.2026",
                             "11/21/2026",
                             "2026-11-21T",
                             "2026-11-21 ",
                             " 2026-11-21",
                             "2026-11-21Z",
                             "2026-11-21T10",
                             "2026-11-21T10:",
                             "2026-11-21T24:00",
                             "2026-11-21T10:60",
                             "2026-11-21T10:00:61",
                             "2026-11-21T10:00:00.",
                             "2026-11-21T10:00.5",
                             "2026-11-21T10:00:00+",
                             "2026-11-21T10:00:00+2",
                             "2026-11-21T10:00:00+24:00",
                             "2026-11-21T10:00:00+02:60",
                             "2026-11-21T10:00:00+02:",
                             "2026-11-21T10:00:00 UTC",
                             "2026-11-21T10:00:00Zx",
                             "+2026-11-21",
                             "-2026-11-21",
                             "12026-11-21",
                             "today",
                             "1700000000"})
        EXPECT_EQ(date(text), "none") << text;
}

TEST(Date, milliseconds_since_1970_have_a_utc_date) {
    EXPECT_EQ(epoch_date(0), "1970-01-01");
    EXPECT_EQ(epoch_date(-1), "1969-12-31");
    EXPECT_EQ(epoch_date(86'399'999), "1970-01-01");
    EXPECT_EQ(epoch_date(86'400'000), "1970-01-02");
    EXPECT_EQ(epoch_date(1'709'164'800'000), "2024-02-29");
}

TEST(Date, milliseconds_outside_the_calendar_have_none) {
    EXPECT_EQ(epoch_date(253'402'300'799'999), "9999-12-31");
    EXPECT_EQ(epoch_date(253'402'300'800'000), "none");
    EXPECT_EQ(epoch_date(-62'135'596'800'000), "0001-01-01");
    EXPECT_EQ(epoch_date(-62'135'596'800'001), "none");
    EXPECT_EQ(epoch_date(std::numeric_limits<std::int64_t>::max()), "none");
    EXPECT_EQ(epoch_date(std::numeric_limits<std::int64_t>::min()), "none");
}

TEST(Timestamp, iso_8601_is_read_in_its_usual_spellings) {
    constexpr std::int64_t kTime = 1'795'257'000'000; // 2026-11-21 10:30:00 UTC
    EXPECT_EQ(parse_timestamp("2026-11-21T10:30:00Z"), kTime);
    EXPECT_EQ(parse_timestamp("2026-11-21T10:30:00"), kTime);
    EXPECT_EQ(parse_timestamp("2026-11-21 10:30:00Z"), kTime);
    EXPECT_EQ(parse_timestamp("2026-11-21T10:30:00.25Z"), kTime + 250);
    EXPECT_EQ(parse_timestamp("2026-11-21T10:30:00.123456789+00:00"), kTime + 123);
    EXPECT_EQ(parse_timestamp("2026-11-21T12:30:00+02:00"), kTime);
    EXPECT_EQ(parse_timestamp("2026-11-21T05:00:00-0530"), kTime);
}

TEST(Timestamp, the_edges_are_those_of_dates) {
    EXPECT_EQ(parse_timestamp("1970-01-02"), 86'400'000);
    EXPECT_EQ(parse_timestamp("1970-01-01T00:00:60Z"), 59'999);
    EXPECT_EQ(parse_timestamp("1969-12-31T23:59:59.9999Z"), -1);
}

TEST(Timestamp, what_is_no_timestamp_is_refused) {
    for (const char* text : {"", "soon", "2026-13-21T10:30:00Z", "2026-02-30T10:30:00Z",
                             "2026-11-21T24:30:00Z", "2026-11-21T10:30:00Q", "2026-11-21T10:30:00+2",
                             "1764585000", "2026-11-21T10:30:00Z and more", "-026-11-21T10:30:00Z"})
        EXPECT_EQ(parse_timestamp(text), std::nullopt) << text;
}

TEST(Timestamp, a_timestamp_is_written_as_it_is_read) {
    EXPECT_EQ(format_timestamp(*parse_timestamp("2028-02-29T23:59:59.9Z")), "2028-02-29T23:59:59Z");
}

} // namespace
} // namespace sqs_ingest
