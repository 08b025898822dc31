#include "net/credentials/token_file.h"

#include "net/watched_file.h"

#include <algorithm>

namespace sqs_ingest {

Result<std::string, TokenFileError> read_token_file(const std::string& path) {
    WatchedFile file(path);
    file.update(Moment::now());
    if (!file.error().empty())
        return TokenFileError{file.error()};
    std::string token = file.take_text();
    constexpr const char* kSpace = " \t\r\n";
    token.erase(0, token.find_first_not_of(kSpace));
    token.erase(token.find_last_not_of(kSpace) + 1);
    if (token.empty())
        return TokenFileError{"is empty"};
    if (std::any_of(token.begin(), token.end(), [](char c) { return c < ' ' || c > '~'; }))
        return TokenFileError{"holds something that is no token"};
    return token;
}

} // namespace sqs_ingest
