#include "core/base64url.h"

#include <cstdint>

namespace sqs_ingest {

namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

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
        const auto digit = kAlphabet.find(c);
        if (digit == std::string_view::npos)
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
    if (text.size() % 4 != 0)
        return std::nullopt;
    for (int padding = 0; padding < 2 && text.ends_with('='); ++padding)
        text.remove_suffix(1);
    if (text.find_first_of("-_") != std::string_view::npos)
        return std::nullopt;
    std::string url(text);
    for (char& c : url)
        c = c == '+' ? '-' : c == '/' ? '_' : c;
    return from_base64url(url);
}

} // namespace sqs_ingest
