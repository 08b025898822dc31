// Small things about texts that several files need.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace sqs_ingest {

// A to Z as a to z, whatever the locale of the process.
inline char ascii_lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

inline std::string ascii_lower(std::string_view text) {
    std::string out(text);
    for (char& c : out)
        c = ascii_lower(c);
    return out;
}

// Whether it is ASCII without space and control characters; an empty text is.
inline bool is_printable(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

// True: the text began with `prefix`, which is gone now.
inline bool remove_prefix(std::string_view& text, std::string_view prefix) {
    if (!text.starts_with(prefix))
        return false;
    text.remove_prefix(prefix.size());
    return true;
}

// True: the text ended with `suffix`, which is gone now.
inline bool remove_suffix(std::string_view& text, std::string_view suffix) {
    if (!text.ends_with(suffix))
        return false;
    text.remove_suffix(suffix.size());
    return true;
}

} // namespace sqs_ingest
