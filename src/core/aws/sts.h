// The two actions of AWS's Security Token Service that give credentials: AssumeRole and
// AssumeRoleWithWebIdentity, as forms (the Query protocol) and answers (XML).
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
#pragma once

#include "core/aws/issued_credentials.h"
#include "core/sqs/error.h"

#include <optional>
#include <string>
#include <string_view>

namespace sqs_ingest {

struct RoleToAssume {
    std::string role_arn;
    std::string session_name;
    std::string external_id = {};             // empty: none
    std::optional<int> duration_seconds = {}; // empty: AWS's default, an hour
    bool operator==(const RoleToAssume&) const = default;
};

// A name that AWS accepts as RoleSessionName: 2 to 64 of [A-Za-z0-9_=,.@+-]; others become '-', too short
// ones get more of it.
std::string role_session_name(std::string_view text);

// Bodies of a POST, application/x-www-form-urlencoded. The second needs no signature: the token is the proof.
std::string encode_assume_role(const RoleToAssume& role);
std::string encode_assume_role_with_web_identity(const RoleToAssume& role, std::string_view token);

// The Credentials of either answer.
Result<IssuedCredentials, ApiError> decode_assumed_role(int http_status, std::string_view body);

} // namespace sqs_ingest
