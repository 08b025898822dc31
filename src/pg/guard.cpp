#include "pg/guard.h"

namespace sqs_ingest::pg {

namespace {

template<std::size_t N>
void copy_text(char (&to)[N], const char* from) {
    if (!from)
        return;
    // Never through a character: the text reaches clients.
    const int kept = pg_mbcliplen(from, static_cast<int>(strlen(from)), N - 1);
    std::memcpy(to, from, static_cast<std::size_t>(kept));
    to[kept] = 0;
}

void fill(ErrorReport& report, int sqlstate, const char* message) {
    report.sqlstate = sqlstate;
    copy_text(report.message, message);
}

} // namespace

PgError make_error(int sqlstate, const std::string& message, const std::string& hint,
                   const std::string& detail) {
    ErrorReport report;
    fill(report, sqlstate, message.c_str());
    copy_text(report.hint, hint.c_str());
    copy_text(report.detail, detail.c_str());
    return PgError(report);
}

bool run_guarded(void (*call)(void*), void* argument, ErrorReport& report) noexcept {
    MemoryContext context = CurrentMemoryContext;
    volatile bool raised = false;

    PG_TRY();
    { call(argument); }
    PG_CATCH();
    {
        MemoryContextSwitchTo(context);
        ErrorData* error = CopyErrorData();
        FlushErrorState();
        fill(report, error->sqlerrcode, error->message);
        copy_text(report.detail, error->detail);
        copy_text(report.hint, error->hint);
        copy_text(report.context, error->context);
        copy_text(report.schema, error->schema_name);
        copy_text(report.table, error->table_name);
        copy_text(report.column, error->column_name);
        copy_text(report.constraint, error->constraint_name);
        FreeErrorData(error);
        raised = true;
    }
    PG_END_TRY();
    return !raised;
}

void describe_current_exception(ErrorReport& report) noexcept {
    try {
        throw;
    } catch (const PgError& error) {
        report = error.report();
    } catch (const std::bad_alloc&) {
        fill(report, ERRCODE_OUT_OF_MEMORY, "out of memory");
    } catch (const std::exception& error) {
        fill(report, ERRCODE_INTERNAL_ERROR, error.what());
    } catch (...) {
        fill(report, ERRCODE_INTERNAL_ERROR, "unknown C++ exception");
    }
}

namespace {

int name_if_known(int field, const char* name) {
    return name[0] ? err_generic_string(field, name) : 0;
}

} // namespace

void raise(const ErrorReport& report) {
    ereport(ERROR, (errcode(report.sqlstate), errmsg_internal("%s", report.message),
                    report.detail[0] ? errdetail_internal("%s", report.detail) : 0,
                    report.hint[0] ? errhint("%s", report.hint) : 0,
                    report.context[0] ? errcontext("%s", report.context) : 0,
                    name_if_known(PG_DIAG_SCHEMA_NAME, report.schema),
                    name_if_known(PG_DIAG_TABLE_NAME, report.table),
                    name_if_known(PG_DIAG_COLUMN_NAME, report.column),
                    name_if_known(PG_DIAG_CONSTRAINT_NAME, report.constraint)));
    pg_unreachable();
}

} // namespace sqs_ingest::pg
