// mask(), mask_candidates(), mask_rewrap(), mask_keys() and sqs_ingest_create_keyring(). The same masking
// code as the worker's. unmask() has a file of its own.
#include "core/transform/ip.h"
#include "core/transform/mask.h"
#include "pg/arrays.h"
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

// What cannot be a method's name is not quoted: it may be the value, with the arguments swapped.
bool could_be_a_method(std::string_view name) {
    return name.size() <= 16 &&
           std::all_of(name.begin(), name.end(),
                       [](char c) {
                           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == ':' || c == '-' ||
                                  c == '_';
                       }) &&
           !name.empty() && name[0] >= 'a';
}

MaskMethod named_method(std::string_view name) {
    const auto method = parse_mask_method(name);
    if (!method)
        throw make_error(
            ERRCODE_INVALID_PARAMETER_VALUE,
            could_be_a_method(name) ? "unknown masking method \"" + std::string(name) + "\""
                                    : std::string("unknown masking method"),
            "Valid methods are \"hmac\", \"siv\", \"sha256\", \"sha256:N\" with N from 1 to 64, and "
            "\"md5\"; the value comes first, the method second.");
    return *method;
}

const Keyring* keyring_for(const MaskMethod& method) {
    return method.needs_key() ? &verified_keyring() : nullptr;
}

// Tokens are ASCII: no conversion. The result is Postgres memory, for the caller to return after the C++
// frames are gone.
Datum token_datum(const std::string& token) {
    return ask_pg([&] { return server_text_datum(Text(token)); });
}

Datum mask_datum(const MaskMethod& method, std::string_view value) {
    return token_datum(mask(method, keyring_for(method), value));
}

Datum candidates_datum(const MaskMethod& method, std::string_view value) {
    const auto tokens = mask_candidates(method, keyring_for(method), value);
    return ask_pg([&] { return text_array(tokens.size(), [&](std::size_t i) { return Text(tokens[i]); }); });
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

// The address without its prefix length.
const char* address_argument(Datum address) {
    return text_to_cstring(DatumGetTextPP(DirectFunctionCall1(network_host, address)));
}

// As the worker masks it.
std::string canonical(const char* address) {
    return canonical_ip(address).value_or(address);
}

Datum rewrap_datum(std::string_view token) {
    const auto rewrapped = rewrap(verified_keyring(), token);
    if (!rewrapped.ok())
        throw unmask_error(rewrapped.error());
    return token_datum(rewrapped.value());
}

// A key of the ring, of the database, or of both.
struct KeyState {
    std::int64_t id;
    bool is_primary;
    const char* state;
    std::string fingerprint;
    TimestampTz recorded_at; // 0: not recorded
};

std::vector<KeyState> key_states() {
    SpiConnection spi;
    const Keyring& ring = current_keyring(); // not verified: this shows what would be refused
    std::map<std::int64_t, KeyState> states;
    for (const auto& key : ring.keys())
        states[key.id] = {key.id, key.id == ring.primary().id, "new", key.fingerprint, 0};
    for (const auto& known : recorded_keys(require_extension(), Effect::reads)) {
        auto [found, only_here] =
            states.try_emplace(known.id, KeyState{known.id, false, "missing", known.fingerprint, 0});
        if (!only_here)
            found->second.state = found->second.fingerprint == known.fingerprint ? "ok" : "different";
        found->second.recorded_at = known.recorded_at;
    }
    std::vector<KeyState> list;
    for (auto& [id, state] : states)
        list.push_back(std::move(state));
    return list;
}

void put_keys(ReturnSetInfo* result) {
    for (const auto& key : key_states())
        call_pg([&] {
            Datum values[] = {Int64GetDatum(key.id), BoolGetDatum(key.is_primary),
                              CStringGetTextDatum(key.state), server_text_datum(Text(key.fingerprint)),
                              TimestampTzGetDatum(key.recorded_at)};
            bool nulls[] = {false, false, false, false, key.recorded_at == 0};
            tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
        });
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" {

PG_FUNCTION_INFO_V1(sqs_ingest_mask);
Datum sqs_ingest_mask(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const std::string_view value = utf8_argument(PG_GETARG_TEXT_PP(0));
    return pg_entry([&] { return mask_datum(default_method(), value); });
}

PG_FUNCTION_INFO_V1(sqs_ingest_mask_with_method);
Datum sqs_ingest_mask_with_method(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const std::string_view value = utf8_argument(PG_GETARG_TEXT_PP(0));
    const std::string_view name = bytes_of(PG_GETARG_TEXT_PP(1));
    return pg_entry([&] { return mask_datum(named_method(name), value); });
}

PG_FUNCTION_INFO_V1(sqs_ingest_mask_inet);
Datum sqs_ingest_mask_inet(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const char* address = address_argument(PG_GETARG_DATUM(0));
    return pg_entry([&] { return mask_datum(default_method(), canonical(address)); });
}

PG_FUNCTION_INFO_V1(sqs_ingest_mask_candidates);
Datum sqs_ingest_mask_candidates(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const std::string_view value = utf8_argument(PG_GETARG_TEXT_PP(0));
    return pg_entry([&] { return candidates_datum(default_method(), value); });
}

PG_FUNCTION_INFO_V1(sqs_ingest_mask_candidates_with_method);
Datum sqs_ingest_mask_candidates_with_method(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const std::string_view value = utf8_argument(PG_GETARG_TEXT_PP(0));
    const std::string_view name = bytes_of(PG_GETARG_TEXT_PP(1));
    return pg_entry([&] { return candidates_datum(named_method(name), value); });
}

PG_FUNCTION_INFO_V1(sqs_ingest_mask_candidates_inet);
Datum sqs_ingest_mask_candidates_inet(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const char* address = address_argument(PG_GETARG_DATUM(0));
    return pg_entry([&] { return candidates_datum(default_method(), canonical(address)); });
}

PG_FUNCTION_INFO_V1(sqs_ingest_mask_rewrap);
Datum sqs_ingest_mask_rewrap(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    const std::string_view token = bytes_of(PG_GETARG_TEXT_PP(0));
    return pg_entry([&] { return rewrap_datum(token); });
}

PG_FUNCTION_INFO_V1(sqs_ingest_mask_keys);
Datum sqs_ingest_mask_keys(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    pg_entry([&] { put_keys(result); });
    return Datum(0);
}

PG_FUNCTION_INFO_V1(sqs_ingest_create_keyring);
Datum sqs_ingest_create_keyring(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    (void)fcinfo;
    if (!superuser())
        ereport(ERROR,
                (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must be superuser to create the keyring"),
                 errhint("Let a superuser call it once: the keys are for the whole cluster.")));
    PreventCommandIfReadOnly("sqs_ingest_create_keyring()");
    char path[MAXPGPATH];
    pg_entry([&] {
        SpiConnection spi;
        const auto extension = require_extension();
        strlcpy(path, create_keyring(extension).c_str(), sizeof path);
        record_keyring(extension);
    });
    PG_RETURN_TEXT_P(cstring_to_text(path));
}
}
