#include "core/aws/sts.h"

#include "core/date.h"
#include "core/sqs/uri_encode.h"
#include "core/sqs/xml_answer.h"

namespace sqs_ingest {
namespace {

constexpr std::size_t kLongestSessionName = 64;

bool is_letter_or_digit(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

std::string encode(std::string_view action, const RoleToAssume& role) {
    std::string form;
    add_field(form, "Action", action);
    add_field(form, "Version", "2011-06-15");
    add_field(form, "RoleArn", role.role_arn);
    add_field(form, "RoleSessionName", role.session_name);
    if (role.duration_seconds)
        add_field(form, "DurationSeconds", std::to_string(*role.duration_seconds));
    return form;
}

ApiError not_understood(int http_status, const char* what) {
    return {ErrorClass::transient, http_status, "BadAnswer", what};
}

} // namespace

std::string role_session_name(std::string_view text) {
    std::string name(text.substr(0, kLongestSessionName));
    for (char& c : name)
        if (!is_letter_or_digit(c) && std::string_view("_=,.@+-").find(c) == std::string_view::npos)
            c = '-';
    while (name.size() < 2)
        name += '-';
    return name;
}

std::string encode_assume_role(const RoleToAssume& role) {
    std::string form = encode("AssumeRole", role);
    if (!role.external_id.empty())
        add_field(form, "ExternalId", role.external_id);
    return form;
}

std::string encode_assume_role_with_web_identity(const RoleToAssume& role, std::string_view token) {
    std::string form = encode("AssumeRoleWithWebIdentity", role);
    add_field(form, "WebIdentityToken", token);
    return form;
}

Result<IssuedCredentials, ApiError> decode_assumed_role(int http_status, std::string_view body) {
    if (http_status / 100 != 2)
        return decode_error(http_status, "", body);
    const std::optional<XmlAnswer> answer = parse_xml_answer(body);
    if (!answer || answer->broken)
        return not_understood(http_status, "STS answered something that is no XML");
    // <AssumeRoleResponse><AssumeRoleResult><Credentials>…
    pugi::xml_node found;
    for (const pugi::xml_node& result : answer->root().children())
        if (const pugi::xml_node child = xml_child(result, "Credentials"))
            found = child;
    const auto text = [&](std::string_view name) { return xml_text(xml_child(found, name)).text; };
    IssuedCredentials issued{{text("AccessKeyId"), text("SecretAccessKey"), text("SessionToken")},
                             parse_timestamp(text("Expiration"))};
    if (issued.keys.access_key_id.empty() || issued.keys.secret_access_key.empty() ||
        issued.keys.session_token.empty() || !issued.expires_at_ms)
        return not_understood(http_status, "STS answered without complete credentials");
    if (!fit_in_headers(issued.keys))
        return not_understood(http_status, "STS answered credentials that no HTTP header can hold");
    return issued;
}

} // namespace sqs_ingest
