#include "core/base64url.h"

#include <array>
#include <cstdint>

namespace sqs_ingest {

namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

// The six bits of each character; -1: it has none.
constexpr auto kDigits = [] {
    std::array<std::int8_t, 256> digits{};
    digits.fill(-1);
    for (std::size_t i = 0; i < kAlphabet.size(); ++i)
        digits[static_cast<std::uint8_t>(kAlphabet[i])] = static_cast<std::int8_t>(i);
    return digits;
}();

} // namespace

std::string base64url(std::string_view bytes) {
    std::string text;
    text.reserve((bytes.size() * 4 + 2) / 3);
    std::uint32_t bits = 0;
    int pending = 0; // bits not yet written
    for (const char c : bytes) {
        bits = bits << 8 | static_cast<std::uint8_t>(c);
        for (pending += 8; pending >= 6; pending -= 6)
            text += kAlphabet[bits >> (pending - 6) & 63];
    }
    if (pending > 0)
        text += kAlphabet[bits << (6 - pending) & 63];
    return text;
}

std::optional<std::string> from_base64url(std::string_view text) {
    if (text.size() % 4 == 1)
        return std::nullopt;
    std::string bytes;
    bytes.reserve(text.size() * 3 / 4);
    std::uint32_t bits = 0;
    int pending = 0; // bits not yet read
    for (const char c : text) {
        const int digit = kDigits[static_cast<std::uint8_t>(c)];
        if (digit < 0)
            return std::nullopt;
        bits = bits << 6 | static_cast<std::uint32_t>(digit);
        pending += 6;
        if (pending >= 8) {
            pending -= 8;
            bytes += static_cast<char>(bits >> pending & 0xFF);
        }
    }
    const bool unused_bits_are_zero = (bits & ((1u << pending) - 1)) == 0;
    if (!unused_bits_are_zero)
        return std::nullopt;
    return bytes;
}

std::optional<std::string> from_base64(std::string_view text) {
    if (text.size() % 4 != 0 || text.find_first_of("-_ \t\r\n") != std::string_view::npos)
        return std::nullopt;
    return from_any_base64(text);
}

std::optional<std::string> from_any_base64(std::string_view text) {
    constexpr std::string_view kSpace = " \t\r\n";
    std::string digits(text);
    std::erase_if(digits, [&](char c) { return kSpace.find(c) != std::string_view::npos; });
    const std::size_t unpadded = digits.find_last_not_of('=') + 1; // npos + 1 is 0
    const std::size_t padding = digits.size() - unpadded;
    if (padding > 2 || (padding > 0 && digits.size() % 4 != 0))
        return std::nullopt;
    digits.resize(unpadded);
    if (digits.find_first_of("-_") == std::string::npos)
        for (char& c : digits)
            c = c == '+' ? '-' : c == '/' ? '_' : c;
    return from_base64url(digits);
}

} // namespace sqs_ingest
