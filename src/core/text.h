// Small things about texts that several files need.
#pragma once

#include <string_view>

namespace sqs_ingest {

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
