// mask() and sqs_ingest_create_keyring(). The same masking code as the worker's.
#include "core/transform/ip.h"
#include "core/transform/mask.h"
#include "pg/keyring.h"
#include "pg/settings.h"

namespace sqs_ingest::pg {

namespace {

// The setting, parsed once per value: settings change at reloads only.
const MaskMethod& default_method() {
    static MaskMethod method;
    static TimestampTz parsed_at_reload = -1;
    if (parsed_at_reload != PgReloadTime) {
        method = current_settings().mask_method;
        parsed_at_reload = PgReloadTime;
    }
    return method;
}

MaskMethod named_method(std::string_view name) {
    const auto method = parse_mask_method(name);
    if (!method)
        throw make_error(
            ERRCODE_INVALID_PARAMETER_VALUE, "unknown masking method \"" + std::string(name) + "\"",
            "Valid methods are \"hmac\", \"sha256\", \"sha256:N\" with N from 1 to 64, and \"md5\".");
    return *method;
}

// The token into `token`, for the caller to return after the C++ frames are gone. Tokens are ASCII.
constexpr std::size_t kMaxToken = 128;
void write_token(const MaskMethod& method, std::string_view value, char (&token)[kMaxToken]) {
    const Keyring* keyring = method.needs_key() ? &current_keyring() : nullptr;
    strlcpy(token, mask(method, keyring, value).c_str(), sizeof token);
}

// The argument's UTF-8 bytes. Raises plain Postgres errors.
std::string_view utf8_argument(text* value) {
    char* bytes = VARDATA_ANY(value);
    const int size = VARSIZE_ANY_EXHDR(value);
    char* converted = pg_server_to_any(bytes, size, PG_UTF8);
    return {converted, converted == bytes ? static_cast<std::size_t>(size) : strlen(converted)};
}

std::string_view bytes_of(text* value) {
    return {VARDATA_ANY(value), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(value))};
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" {

PG_FUNCTION_INFO_V1(sqs_ingest_mask);
Datum sqs_ingest_mask(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const std::string_view value = utf8_argument(PG_GETARG_TEXT_PP(0));
    char token[kMaxToken];
    pg_entry([&] { write_token(default_method(), value, token); });
    PG_RETURN_TEXT_P(cstring_to_text(token));
}

PG_FUNCTION_INFO_V1(sqs_ingest_mask_with_method);
Datum sqs_ingest_mask_with_method(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const std::string_view value = utf8_argument(PG_GETARG_TEXT_PP(0));
    const std::string_view name = bytes_of(PG_GETARG_TEXT_PP(1));
    char token[kMaxToken];
    pg_entry([&] { write_token(named_method(name), value, token); });
    PG_RETURN_TEXT_P(cstring_to_text(token));
}

// The address without its prefix length, as the worker masks it.
PG_FUNCTION_INFO_V1(sqs_ingest_mask_inet);
Datum sqs_ingest_mask_inet(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    char* address = text_to_cstring(DatumGetTextPP(DirectFunctionCall1(network_host, PG_GETARG_DATUM(0))));
    char token[kMaxToken];
    pg_entry(
        [&] { write_token(default_method(), sqs_ingest::canonical_ip(address).value_or(address), token); });
    PG_RETURN_TEXT_P(cstring_to_text(token));
}

PG_FUNCTION_INFO_V1(sqs_ingest_create_keyring);
Datum sqs_ingest_create_keyring(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    (void)fcinfo;
    if (!superuser())
        ereport(ERROR,
                (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must be superuser to create the keyring")));
    char path[MAXPGPATH];
    pg_entry([&] { strlcpy(path, create_keyring().c_str(), sizeof path); });
    PG_RETURN_TEXT_P(cstring_to_text(path));
}
}
