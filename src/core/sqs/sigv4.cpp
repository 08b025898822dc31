#include "core/sqs/sigv4.h"

#include "core/digest.h"
#include "core/hex_digit.h"
#include "core/sqs/uri_encode.h"
#include "core/text.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>

namespace sqs_ingest {

namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";

std::string percent_decode(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool escape = text[i] == '%' && i + 2 < text.size();
        const auto high = escape ? hex_digit(text[i + 1]) : std::nullopt;
        const auto low = escape ? hex_digit(text[i + 2]) : std::nullopt;
        if (high && low) {
            out += static_cast<char>(*high << 4 | *low);
            i += 2;
        } else {
            out += text[i];
        }
    }
    return out;
}

// Takes the text before the first `separator` off `rest`, and the separator with it.
std::string_view next_part(std::string_view& rest, char separator) {
    const std::string_view part = rest.substr(0, rest.find(separator));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    return part;
}

// RFC 3986, 5.2.4, and repeated slashes become one.
std::string normalized(std::string_view path) {
    std::vector<std::string_view> segments;
    bool directory = true; // the path ends as one: in '/', "/." or "/.."
    while (!path.empty()) {
        directory = path.ends_with('/');
        const std::string_view segment = next_part(path, '/');
        const bool dots = segment == "." || segment == "..";
        directory = directory || dots;
        if (segment == ".." && !segments.empty())
            segments.pop_back();
        if (!segment.empty() && !dots)
            segments.push_back(segment);
    }
    std::string out;
    for (const std::string_view segment : segments)
        out.append("/").append(segment);
    if (out.empty() || directory)
        out += '/';
    return out;
}

// The path as sent is encoded once more, as every service but S3 wants it.
std::string canonical_path(std::string_view path, bool normalize) {
    const std::string sent = normalize ? normalized(path) : std::string(path.empty() ? "/" : path);
    return uri_encode(sent, "/");
}

// Sorted by encoded name, then by encoded value.
std::string canonical_query(std::string_view query) {
    std::vector<std::pair<std::string, std::string>> parameters;
    while (!query.empty()) {
        std::string_view parameter = next_part(query, '&');
        if (parameter.empty())
            continue;
        const std::string_view name = next_part(parameter, '=');
        parameters.emplace_back(uri_encode(percent_decode(name)), uri_encode(percent_decode(parameter)));
    }
    std::sort(parameters.begin(), parameters.end());
    std::string out;
    for (const auto& [name, value] : parameters) {
        out += out.empty() ? "" : "&";
        out.append(name).append("=").append(value);
    }
    return out;
}

// Without space around it, and with one space for each run of spaces or line folding within.
std::string canonical_value(std::string_view value) {
    std::string out;
    bool gap = false;
    for (const char c : value) {
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
            gap = !out.empty();
            continue;
        }
        if (gap)
            out += ' ';
        gap = false;
        out += c;
    }
    return out;
}

// Lower-case name to value, in the order of signing; the values of a repeated header are joined as they were
// sent.
std::map<std::string, std::string> canonical_headers(const Headers& headers) {
    std::map<std::string, std::string> canonical;
    for (const auto& [name, value] : headers) {
        const auto [entry, first] = canonical.try_emplace(ascii_lower(name), canonical_value(value));
        if (!first)
            entry->second.append(",").append(canonical_value(value));
    }
    return canonical;
}

std::string signed_headers(const std::map<std::string, std::string>& canonical) {
    std::string names;
    for (const auto& [name, value] : canonical) {
        names += names.empty() ? "" : ";";
        names += name;
    }
    return names;
}

std::string_view date_of(const SigningScope& scope) {
    return scope.amz_date.substr(0, scope.amz_date.find('T'));
}

std::string credential_scope(const SigningScope& scope) {
    std::string out;
    for (const std::string_view part : {date_of(scope), scope.region, scope.service})
        out.append(part).append("/");
    return out + "aws4_request";
}

} // namespace

bool fit_in_headers(const Credentials& credentials) {
    return is_printable(credentials.access_key_id) && is_printable(credentials.session_token);
}

std::string canonical_request(const RequestToSign& request, const SigningScope& scope) {
    const auto headers = canonical_headers(request.headers);
    std::string out(request.method);
    out.append("\n").append(canonical_path(request.path, scope.normalize_path));
    out.append("\n").append(canonical_query(request.query)).append("\n");
    for (const auto& [name, value] : headers)
        out.append(name).append(":").append(value).append("\n");
    out.append("\n").append(signed_headers(headers));
    out.append("\n").append(hex(sha256(request.body)));
    return out;
}

std::string string_to_sign(std::string_view canonical_request, const SigningScope& scope) {
    std::string out(kAlgorithm);
    out.append("\n").append(scope.amz_date);
    out.append("\n").append(credential_scope(scope));
    out.append("\n").append(hex(sha256(canonical_request)));
    return out;
}

std::string signature(std::string_view string_to_sign, const Credentials& credentials,
                      const SigningScope& scope) {
    const std::string secret = "AWS4" + credentials.secret_access_key;
    Sha256Digest key = hmac_sha256(as_bytes(secret), date_of(scope));
    for (const std::string_view part : {scope.region, scope.service, std::string_view("aws4_request")})
        key = hmac_sha256(key, part);
    return hex(hmac_sha256(key, string_to_sign));
}

std::string authorization_header(const RequestToSign& request, const Credentials& credentials,
                                 const SigningScope& scope) {
    const std::string to_sign = string_to_sign(canonical_request(request, scope), scope);
    std::string out(kAlgorithm);
    out.append(" Credential=").append(credentials.access_key_id).append("/").append(credential_scope(scope));
    out.append(", SignedHeaders=").append(signed_headers(canonical_headers(request.headers)));
    out.append(", Signature=").append(signature(to_sign, credentials, scope));
    return out;
}

std::string format_amz_date(long long epoch_seconds) {
    using namespace std::chrono;
    const sys_seconds time{seconds{epoch_seconds}};
    const auto day = floor<days>(time);
    const year_month_day date{day};
    const hh_mm_ss clock{time - day};
    char text[64]; // room for any year
    std::snprintf(text, sizeof text, "%04d%02u%02uT%02d%02d%02dZ", static_cast<int>(date.year()),
                  static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                  static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                  static_cast<int>(clock.seconds().count()));
    return text;
}

} // namespace sqs_ingest
