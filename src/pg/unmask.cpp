// unmask(): the value of a reversible token, for whom it was granted to, and never in silence. The server log
// is written before the value is returned, because a rollback takes the audit row away.
#include "pg/arrays.h"
#include "pg/keyring.h"
#include "pg/mask_errors.h"

#include <openssl/crypto.h>

namespace sqs_ingest::pg {

namespace {

void record(const Extension& extension, const std::string& token, const std::string& reason) {
    const std::string role = role_name(GetUserId()), session_role = role_name(GetSessionUserId());
    AsExtensionOwner as_owner(extension);
    query("INSERT INTO " + extension.table("sqs_ingest_unmask_audit") +
              " (role_name, session_role_name, client_addr, token, reason)"
              " VALUES ($1, $2, pg_catalog.inet_client_addr(), $3, $4)",
          {role, session_role, token, reason});
    call_pg([&] {
        ereport(LOG_SERVER_ONLY, (errmsg("sqs_ingest: role \"%s\" (session role \"%s\") unmasks %s: %s",
                                         role.c_str(), session_role.c_str(), token.c_str(), reason.c_str()),
                                  errhidestmt(true)));
    });
}

Datum unmask_datum(const std::string& token, const std::string& reason) {
    if (reason.find_first_not_of(" \t\r\n") == std::string::npos)
        throw make_error(ERRCODE_INVALID_PARAMETER_VALUE, "unmask() needs a reason",
                         "Say why, as the second argument: it is kept in the server log and in "
                         "sqs_ingest_unmask_audit.");
    auto value = unmask(verified_keyring(), token);
    if (!value.ok())
        throw unmask_error(value.error());
    struct Cleansed {
        std::string& text;
        ~Cleansed() { OPENSSL_cleanse(text.data(), text.size()); }
    } cleansed{value.value()};
    {
        SpiConnection spi;
        record(require_extension(), token, reason);
    }
    return ask_pg([&] { return text_datum(Text(value.value())); });
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
