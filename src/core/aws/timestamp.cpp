#include "core/aws/timestamp.h"

#include <chrono>
#include <cstdio>

namespace sqs_ingest {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// Takes exactly `digits` digits off the text; -1: they are not there.
int take_number(std::string_view& text, std::size_t digits) {
    if (text.size() < digits)
        return -1;
    int number = 0;
    for (const char c : text.substr(0, digits)) {
        if (!is_digit(c))
            return -1;
        number = number * 10 + (c - '0');
    }
    text.remove_prefix(digits);
    return number;
}

bool take_one_of(std::string_view& text, std::string_view characters) {
    if (text.empty() || characters.find(text.front()) == characters.npos)
        return false;
    text.remove_prefix(1);
    return true;
}

// The fraction of a second, in whole milliseconds; finer digits are dropped.
int take_fraction(std::string_view& text) {
    int ms = 0, weight = 100;
    for (; !text.empty() && is_digit(text.front()); text.remove_prefix(1)) {
        ms += weight * (text.front() - '0');
        weight /= 10;
    }
    return ms;
}

// Minutes east of UTC; empty: what is left is no zone.
std::optional<int> zone(std::string_view text) {
    if (text.empty() || text == "Z" || text == "z")
        return 0;
    const int sign = text.front() == '-' ? -1 : 1;
    if (!take_one_of(text, "+-"))
        return std::nullopt;
    const int hours = take_number(text, 2);
    take_one_of(text, ":");
    const int minutes = text.empty() ? 0 : take_number(text, 2);
    if (!text.empty() || hours < 0 || hours > 23 || minutes < 0 || minutes > 59)
        return std::nullopt;
    return sign * (hours * 60 + minutes);
}

} // namespace

std::optional<std::int64_t> parse_timestamp(std::string_view text) {
    using namespace std::chrono;
    const int year_number = take_number(text, 4);
    const bool dash = take_one_of(text, "-");
    const int month_number = take_number(text, 2);
    const bool second_dash = take_one_of(text, "-");
    const int day_number = take_number(text, 2);
    if (!dash || !second_dash || year_number < 1970 || month_number < 1 || day_number < 1 ||
        !take_one_of(text, "Tt "))
        return std::nullopt;
    const year_month_day date{year(year_number), month(static_cast<unsigned>(month_number)),
                              day(static_cast<unsigned>(day_number))};
    const int hour = take_number(text, 2);
    const bool colon = take_one_of(text, ":");
    const int minute = take_number(text, 2);
    const bool second_colon = take_one_of(text, ":");
    const int second = take_number(text, 2);
    if (!date.ok() || !colon || !second_colon || hour < 0 || hour > 23 || minute < 0 || minute > 59 ||
        second < 0 || second > 60) // 60: a leap second
        return std::nullopt;
    const int ms = take_one_of(text, ".") ? take_fraction(text) : 0;
    const auto east = zone(text);
    if (!east)
        return std::nullopt;
    const auto time =
        sys_days(date) + hours(hour) + minutes(minute - *east) + seconds(second) + milliseconds(ms);
    return duration_cast<milliseconds>(time.time_since_epoch()).count();
}

std::string format_timestamp(std::int64_t epoch_ms) {
    using namespace std::chrono;
    const auto time = floor<seconds>(sys_time<milliseconds>(milliseconds(epoch_ms)));
    const auto day = floor<days>(time);
    const year_month_day date{day};
    const hh_mm_ss clock{time - day};
    char text[64];
    std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02dZ", static_cast<int>(date.year()),
                  static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                  static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                  static_cast<int>(clock.seconds().count()));
    return text;
}

} // namespace sqs_ingest
