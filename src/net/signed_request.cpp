#include "net/signed_request.h"

#include <utility>

namespace sqs_ingest {

// Host is signed as libcurl will send it.
HttpRequest signed_request(ApiCall call, const Url& endpoint, const Credentials& credentials,
                           const SigningScope& scope) {
    Headers headers = {{"content-type", std::move(call.content_type)},
                       {"x-amz-date", std::string(scope.amz_date)}};
    if (!call.target.empty())
        headers.emplace_back("x-amz-target", std::move(call.target));
    if (!credentials.session_token.empty())
        headers.emplace_back("x-amz-security-token", credentials.session_token);

    RequestToSign to_sign{"POST", call.path, "", headers, call.body};
    to_sign.headers.emplace_back("host", endpoint.host_header());
    headers.emplace_back("Authorization", authorization_header(to_sign, credentials, scope));
    return {
        .url = endpoint.origin() + call.path, .headers = std::move(headers), .body = std::move(call.body)};
}

} // namespace sqs_ingest
