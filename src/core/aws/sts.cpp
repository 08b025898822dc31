#include "core/aws/sts.h"

#include "core/aws/timestamp.h"

#include <pugixml.hpp>

namespace sqs_ingest {
namespace {

constexpr std::size_t kLongestSessionName = 64;

bool is_letter_or_digit(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool is_one_of(char c, std::string_view characters) {
    return characters.find(c) != characters.npos;
}

std::string form_encoded(std::string_view text) {
    static constexpr char digits[] = "0123456789ABCDEF";
    std::string out;
    for (const char c : text) {
        if (is_letter_or_digit(c) || is_one_of(c, "-_.~")) {
            out += c;
            continue;
        }
        const auto byte = static_cast<unsigned char>(c);
        out.append("%").append(1, digits[byte >> 4]).append(1, digits[byte & 0x0F]);
    }
    return out;
}

void append(std::string& form, std::string_view name, std::string_view value) {
    form.append("&").append(name).append("=").append(form_encoded(value));
}

std::string encode(std::string_view action, const RoleToAssume& role) {
    std::string form = "Action=" + std::string(action) + "&Version=2011-06-15";
    append(form, "RoleArn", role.role_arn);
    append(form, "RoleSessionName", role.session_name);
    if (role.duration_seconds)
        append(form, "DurationSeconds", std::to_string(*role.duration_seconds));
    return form;
}

ApiError not_understood(int http_status, const char* what) {
    return {ErrorClass::transient, http_status, "BadAnswer", what};
}

} // namespace

std::string role_session_name(std::string_view text) {
    std::string name(text.substr(0, kLongestSessionName));
    for (char& c : name)
        if (!is_letter_or_digit(c) && !is_one_of(c, "_=,.@+-"))
            c = '-';
    while (name.size() < 2)
        name += '-';
    return name;
}

std::string encode_assume_role(const RoleToAssume& role) {
    std::string form = encode("AssumeRole", role);
    if (!role.external_id.empty())
        append(form, "ExternalId", role.external_id);
    return form;
}

std::string encode_assume_role_with_web_identity(const RoleToAssume& role, std::string_view token) {
    std::string form = encode("AssumeRoleWithWebIdentity", role);
    append(form, "WebIdentityToken", token);
    return form;
}

Result<IssuedCredentials, ApiError> decode_assumed_role(int http_status, std::string_view body) {
    if (http_status / 100 != 2)
        return decode_error(http_status, "", body);
    pugi::xml_document document;
    if (!document.load_buffer(body.data(), body.size()))
        return not_understood(http_status, "STS answered something that is no XML");
    // <AssumeRoleResponse><AssumeRoleResult><Credentials>…
    pugi::xml_node found;
    for (const pugi::xml_node result : document.document_element().children())
        if (const pugi::xml_node child = result.child("Credentials"))
            found = child;
    IssuedCredentials issued{{found.child_value("AccessKeyId"), found.child_value("SecretAccessKey"),
                              found.child_value("SessionToken")},
                             parse_timestamp(found.child_value("Expiration"))};
    if (issued.keys.access_key_id.empty() || issued.keys.secret_access_key.empty() ||
        issued.keys.session_token.empty() || !issued.expires_at_ms)
        return not_understood(http_status, "STS answered without complete credentials");
    if (!fit_in_headers(issued.keys))
        return not_understood(http_status, "STS answered credentials that no HTTP header can hold");
    return issued;
}

} // namespace sqs_ingest
