#include "core/utf8.h"

namespace sqs_ingest {

namespace {

// What a lead byte promises: how long its sequence is, and the range of the second byte, which is where
// overlong forms, surrogates and code points above U+10FFFF are excluded (Unicode Standard, table 3-7).
struct Sequence {
    std::size_t length;
    unsigned char second_min;
    unsigned char second_max;
};

Sequence promised_by(unsigned char lead) {
    if (lead < 0x80)
        return {1, 0, 0};
    if (lead < 0xC2)
        return {0, 0, 0};
    if (lead < 0xE0)
        return {2, 0x80, 0xBF};
    if (lead == 0xE0)
        return {3, 0xA0, 0xBF};
    if (lead == 0xED)
        return {3, 0x80, 0x9F};
    if (lead < 0xF0)
        return {3, 0x80, 0xBF};
    if (lead == 0xF0)
        return {4, 0x90, 0xBF};
    if (lead < 0xF4)
        return {4, 0x80, 0xBF};
    if (lead == 0xF4)
        return {4, 0x80, 0x8F};
    return {0, 0, 0};
}

// The length of the well-formed sequence that `text` begins with; 0 if it begins with none.
std::size_t leading_sequence(std::string_view text) {
    const Sequence sequence = promised_by(static_cast<unsigned char>(text[0]));
    if (sequence.length > text.size())
        return 0;
    for (std::size_t i = 1; i < sequence.length; ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const unsigned char min = i == 1 ? sequence.second_min : 0x80;
        const unsigned char max = i == 1 ? sequence.second_max : 0xBF;
        if (byte < min || byte > max)
            return 0;
    }
    return sequence.length;
}

bool is_continuation(char c) {
    return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

} // namespace

std::string replace_ill_formed_utf8(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const std::size_t length = leading_sequence(text);
        out += length == 0 ? kReplacementCharacter : text.substr(0, length);
        text.remove_prefix(length == 0 ? 1 : length);
    }
    return out;
}

bool is_valid_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t length = leading_sequence(text);
        if (length == 0)
            return false;
        text.remove_prefix(length);
    }
    return true;
}

std::size_t utf8_length(std::string_view text) {
    std::size_t characters = 0;
    for (const char c : text)
        characters += is_continuation(c) ? 0 : 1;
    return characters;
}

void truncate_utf8(std::string& text, std::size_t max_bytes) {
    if (text.size() <= max_bytes)
        return;
    std::size_t end = max_bytes;
    while (end > 0 && is_continuation(text[end]))
        --end;
    text.resize(end);
}

} // namespace sqs_ingest
