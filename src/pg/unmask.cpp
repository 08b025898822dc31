// unmask(): the value of a reversible token, for whom it was granted to, and never in silence. The server log
// is written before the value is returned, because a rollback takes the audit row away.
#include "core/cleansed.h"
#include "pg/arrays.h"
#include "pg/keyring.h"

namespace sqs_ingest::pg {

namespace {

constexpr std::size_t kLongestReason = 1000;
constexpr int kTokenInLog = 100; // bytes; the audit table keeps all of it

struct Caller {
    std::string role = role_name(GetUserId()), session_role = role_name(GetSessionUserId());
};

// A line that a rollback does not take away.
void log_line(const Caller& caller, const char* what, const std::string& token, const std::string& reason) {
    call_pg([&] {
        ereport(LOG_SERVER_ONLY,
                (errmsg("sqs_ingest: role \"%s\" (session role \"%s\") %s %.*s: %s", caller.role.c_str(),
                        caller.session_role.c_str(), what, kTokenInLog, token.c_str(), reason.c_str()),
                 errhidestmt(true)));
    });
}

void require_a_log() {
    if (!ask_pg([] { return message_level_is_interesting(LOG_SERVER_ONLY); }))
        throw make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                         "unmask() needs the server log, which log_min_messages suppresses",
                         "Set log_min_messages to \"log\" or lower.");
}

void require_reason(const std::string& reason) {
    if (reason.find_first_not_of(" \t\r\n") == std::string::npos)
        throw make_error(ERRCODE_INVALID_PARAMETER_VALUE, "unmask() needs a reason",
                         "Say why, as the second argument: it is kept in the server log and in "
                         "sqs_ingest_unmask_audit.");
    if (reason.size() > kLongestReason)
        throw make_error(ERRCODE_INVALID_PARAMETER_VALUE,
                         "the reason is longer than " + std::to_string(kLongestReason) + " bytes",
                         "Name a ticket instead of quoting it.");
}

void record(const Extension& extension, const Caller& caller, const std::string& token,
            const std::string& reason) {
    AsExtensionOwner as_owner(extension);
    query("INSERT INTO " + extension.table("sqs_ingest_unmask_audit") +
              " (role_name, session_role_name, client_addr, token, reason)"
              " VALUES ($1, $2, pg_catalog.inet_client_addr(), $3, $4)",
          {caller.role, caller.session_role, token, reason});
}

// Postgres's own error would show the character.
Datum value_datum(const std::string& value) {
    try {
        return ask_pg([&] { return text_datum(Text(value)); });
    } catch (const PgError& error) {
        if (error.report().sqlstate != ERRCODE_UNTRANSLATABLE_CHARACTER)
            throw;
        throw make_error(ERRCODE_UNTRANSLATABLE_CHARACTER,
                         std::string("the value has a character with no equivalent in encoding \"") +
                             GetDatabaseEncodingName() + "\"",
                         "A database in UTF8 can show it.");
    }
}

Datum unmask_datum(const std::string& token, const std::string& reason) {
    require_reason(reason);
    require_a_log();
    const Caller caller;
    auto value = unmask(verified_keyring(), token);
    if (!value.ok()) {
        if (value.error().kind != UnmaskError::Kind::not_a_token)
            log_line(caller, "tries in vain to unmask", token, reason);
        throw unmask_error(value.error());
    }
    const Cleansed cleansed(value.value());
    {
        SpiConnection spi;
        record(require_extension(), caller, token, reason);
    }
    log_line(caller, "unmasks", token, reason);
    return value_datum(value.value());
}

} // namespace

} // namespace sqs_ingest::pg

extern "C" {

PG_FUNCTION_INFO_V1(sqs_ingest_unmask);
Datum sqs_ingest_unmask(PG_FUNCTION_ARGS) {
    using namespace sqs_ingest::pg;
    if (PG_ARGISNULL(0))
        PG_RETURN_NULL();
    const char* token = text_to_cstring(PG_GETARG_TEXT_PP(0));
    const char* reason = PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1));
    PreventCommandIfReadOnly("unmask()");
    PreventCommandDuringRecovery("unmask()");
    return pg_entry([&] { return unmask_datum(token, reason); });
}
}
