#include "core/aws/issued_credentials.h"

#include "core/date.h"
#include "core/sqs/answer.h"

namespace sqs_ingest {
namespace {

// Empty: it is not there, or no text.
std::string text_of(const nlohmann::json& document, const char* key) {
    const auto found = document.find(key);
    return found != document.end() && found->is_string() ? found->get<std::string>() : "";
}

Result<IssuedCredentials, DocumentError> credentials_of(const nlohmann::json& document, const char* token) {
    IssuedCredentials issued{
        {text_of(document, "AccessKeyId"), text_of(document, "SecretAccessKey"), text_of(document, token)}};
    if (issued.keys.access_key_id.empty())
        return DocumentError("has no AccessKeyId");
    if (issued.keys.secret_access_key.empty())
        return DocumentError("has no SecretAccessKey");
    if (!fit_in_headers(issued.keys))
        return DocumentError(std::string("has characters in its AccessKeyId or ") + token +
                             " that no HTTP header can hold");
    const auto expiration = document.find("Expiration");
    if (expiration == document.end() || expiration->is_null())
        return issued;
    issued.expires_at_ms = parse_timestamp(text_of(document, "Expiration"));
    if (!issued.expires_at_ms)
        return DocumentError("has an Expiration that is no ISO 8601 timestamp");
    return issued;
}

} // namespace

Result<IssuedCredentials, DocumentError> parse_metadata_document(std::string_view text) {
    const auto answer = parse_answer(text);
    if (!answer)
        return DocumentError("is no JSON object");
    const auto code = answer->json.find("Code");
    if (code != answer->json.end() && *code != "Success")
        return DocumentError("has another Code than \"Success\"");
    return credentials_of(answer->json, "Token");
}

Result<IssuedCredentials, DocumentError> parse_process_document(std::string_view text) {
    const auto answer = parse_answer(text);
    if (!answer)
        return DocumentError("is no JSON object");
    const auto version = answer->json.find("Version");
    if (version == answer->json.end() || *version != 1)
        return DocumentError("has another Version than 1");
    return credentials_of(answer->json, "SessionToken");
}

} // namespace sqs_ingest
