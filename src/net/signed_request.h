// A call to an AWS service as the HTTP request that carries it.
#pragma once

#include "core/sqs/protocol.h"
#include "core/sqs/sigv4.h"
#include "core/sqs/url.h"
#include "net/http.h"

namespace sqs_ingest {

// A POST, dated and signed (Signature Version 4). Its timeouts are HttpRequest's defaults.
HttpRequest signed_request(ApiCall call, const Url& endpoint, const Credentials& credentials,
                           const SigningScope& scope);

} // namespace sqs_ingest
