#include "core/date.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace sqs_ingest {

namespace {

using namespace std::chrono;

// Takes what it is asked for from the front of a text; a part that is not there leaves the text as it was.
class Scanner {
  public:
    explicit Scanner(std::string_view text) : rest_(text) {}

    bool done() const { return rest_.empty(); }

    bool take_any_of(std::string_view characters) {
        if (rest_.empty() || characters.find(rest_.front()) == std::string_view::npos)
            return false;
        rest_.remove_prefix(1);
        return true;
    }

    // A number of exactly `digits` digits, not above `max`.
    std::optional<int> take_number(std::size_t digits, int max) {
        if (rest_.size() < digits)
            return std::nullopt;
        int number = 0;
        for (const char c : rest_.substr(0, digits)) {
            if (c < '0' || c > '9')
                return std::nullopt;
            number = number * 10 + (c - '0');
        }
        if (number > max)
            return std::nullopt;
        rest_.remove_prefix(digits);
        return number;
    }

    // A fraction's digits as microseconds; further digits are cut off.
    std::optional<microseconds> take_fraction() {
        std::size_t digits = 0;
        int us = 0;
        for (; !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9'; rest_.remove_prefix(1))
            if (++digits <= 6)
                us = us * 10 + (rest_.front() - '0');
        if (digits == 0)
            return std::nullopt;
        for (; digits < 6; ++digits)
            us *= 10;
        return microseconds{us};
    }

  private:
    std::string_view rest_;
};

std::optional<sys_days> take_date(Scanner& text) {
    const auto y = text.take_number(4, 9999);
    if (!y || !text.take_any_of("-"))
        return std::nullopt;
    const auto m = text.take_number(2, 12);
    if (!m || !text.take_any_of("-"))
        return std::nullopt;
    const auto d = text.take_number(2, 31);
    if (!d)
        return std::nullopt;
    const year_month_day date{year{*y}, month(static_cast<unsigned>(*m)), day(static_cast<unsigned>(*d))};
    if (!date.ok())
        return std::nullopt;
    return sys_days{date};
}

// HH:MM, HH:MM:SS or HH:MM:SS.fff since midnight. A leap second is the end of the one before: it never
// changes the date.
std::optional<microseconds> take_time(Scanner& text) {
    const auto hour = text.take_number(2, 23);
    if (!hour || !text.take_any_of(":"))
        return std::nullopt;
    const auto minute = text.take_number(2, 59);
    if (!minute)
        return std::nullopt;
    const microseconds start = hours{*hour} + minutes{*minute};
    if (!text.take_any_of(":"))
        return start;
    const auto second = text.take_number(2, 60);
    if (!second)
        return std::nullopt;
    auto fraction = std::optional(microseconds{0});
    if (text.take_any_of(".,") && !(fraction = text.take_fraction()))
        return std::nullopt;
    return start + std::min<microseconds>(seconds{*second} + *fraction, minutes{1} - microseconds{1});
}

// "", "Z", "+02:00", "+0200" or "+02": what local time is ahead of UTC.
std::optional<minutes> take_offset(Scanner& text) {
    if (text.done() || text.take_any_of("Zz"))
        return minutes{0};
    const bool west = text.take_any_of("-");
    if (!west && !text.take_any_of("+"))
        return std::nullopt;
    const auto hour = text.take_number(2, 23);
    if (!hour)
        return std::nullopt;
    const bool colon = text.take_any_of(":");
    const auto minute = colon || !text.done() ? text.take_number(2, 59) : 0;
    if (!minute)
        return std::nullopt;
    const minutes offset = hours{*hour} + minutes{*minute};
    return west ? -offset : offset;
}

std::optional<std::string> write(sys_days date) {
    if (date < sys_days{year{1} / January / 1} || date > sys_days{year{9999} / December / 31})
        return std::nullopt;
    const year_month_day ymd{date};
    char text[16];
    std::snprintf(text, sizeof text, "%04d-%02u-%02u", static_cast<int>(ymd.year()),
                  static_cast<unsigned>(ymd.month()), static_cast<unsigned>(ymd.day()));
    return text;
}

// A date, or a date and time, in UTC.
std::optional<sys_time<microseconds>> parse(std::string_view text) {
    Scanner scanner(text);
    const auto date = take_date(scanner);
    if (!date || scanner.done())
        return date;
    if (!scanner.take_any_of("Tt ")) // RFC 3339, section 5.6 allows all three
        return std::nullopt;
    const auto time = take_time(scanner);
    if (!time)
        return std::nullopt;
    const auto offset = take_offset(scanner);
    if (!offset || !scanner.done())
        return std::nullopt;
    return *date + *time - *offset;
}

std::optional<std::string> write(sys_time<microseconds> time) {
    const auto date = write(floor<days>(time));
    if (!date)
        return std::nullopt;
    const hh_mm_ss clock{time - floor<days>(time)};
    char text[32];
    std::snprintf(text, sizeof text, "T%02d:%02d:%02d", static_cast<int>(clock.hours().count()),
                  static_cast<int>(clock.minutes().count()), static_cast<int>(clock.seconds().count()));
    std::string out = *date + text;
    if (const auto us = clock.subseconds().count()) {
        std::snprintf(text, sizeof text, ".%06d", static_cast<int>(us));
        out += text;
    }
    return out + "Z";
}

} // namespace

std::optional<std::string> iso_date(std::string_view text) {
    const auto time = parse(text);
    return time ? write(floor<days>(*time)) : std::nullopt;
}

std::optional<std::string> iso_time(std::string_view text) {
    const auto time = parse(text);
    return time ? write(*time) : std::nullopt;
}

std::optional<std::string> time_of_epoch_us(std::int64_t epoch_us) {
    return write(sys_time<microseconds>(microseconds{epoch_us}));
}

std::optional<std::string> date_of_epoch_ms(std::int64_t epoch_ms) {
    return write(floor<days>(sys_time<milliseconds>(milliseconds{epoch_ms})));
}

std::optional<std::int64_t> parse_timestamp(std::string_view text) {
    const auto time = parse(text);
    if (!time)
        return std::nullopt;
    return floor<milliseconds>(time->time_since_epoch()).count();
}

std::string format_timestamp(std::int64_t epoch_ms) {
    return write(floor<seconds>(sys_time<milliseconds>(milliseconds{epoch_ms}))).value_or("");
}

} // namespace sqs_ingest
