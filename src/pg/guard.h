// The bridge between two error worlds: Postgres's longjmp and C++'s exceptions.
//
//   call_pg(f)    C++ calls Postgres. An ereport(ERROR) inside f becomes a PgError. No frame between here and
//   the
//                 ereport may hold an object with a destructor: longjmp would skip it. The caller's
//                 transaction (or subtransaction) is then aborted before anything else happens.
//   pg_entry(f)   Postgres calls C++. Whatever leaves f, even what is no std::exception, becomes an
//   ereport(ERROR),
//                 raised only after the catch block was left. Nothing with a destructor may live in the
//                 calling frame.
#pragma once

#include "pg/pg.h"

namespace sqs_ingest::pg {

// An error's fields in plain memory: it crosses catch blocks and longjmps, and is copied without allocating.
struct ErrorReport {
    int sqlstate = 0;
    char message[512] = "";
    char detail[512] = "";
    char hint[512] = "";
    char context[512] = "";
    char schema[NAMEDATALEN] = "";
    char table[NAMEDATALEN] = "";
    char column[NAMEDATALEN] = "";
    char constraint[NAMEDATALEN] = "";
};

class PgError : public std::exception {
  public:
    explicit PgError(const ErrorReport& report) : report_(report) {}
    const ErrorReport& report() const { return report_; }
    const char* what() const noexcept override { return report_.message; }

  private:
    ErrorReport report_;
};

// A PgError of our own making, for what is wrong on the C++ side.
PgError make_error(int sqlstate, const std::string& message, const std::string& hint = {},
                   const std::string& detail = {});

// Runs call(argument) under PG_TRY. False: it raised an ERROR, which is now in `report`, and the error state
// is clean.
bool run_guarded(void (*call)(void*), void* argument, ErrorReport& report) noexcept;

template<class F>
void call_pg(F&& f) {
    ErrorReport report;
    if (!run_guarded([](void* argument) { (*static_cast<std::remove_reference_t<F>*>(argument))(); }, &f,
                     report))
        throw PgError(report);
}

// call_pg for a trivially copyable result.
template<class F>
auto ask_pg(F&& f) {
    using T = decltype(f());
    static_assert(std::is_trivially_copyable_v<T>);
    T result{};
    call_pg([&] { result = f(); });
    return result;
}

// Fills `report` from the exception being handled. For catch (...) blocks only.
void describe_current_exception(ErrorReport& report) noexcept;

[[noreturn]] void raise(const ErrorReport& report);

template<class F>
auto pg_entry(F&& f) -> decltype(f()) {
    ErrorReport report;
    try {
        return f();
    } catch (...) {
        describe_current_exception(report);
    }
    raise(report);
}

} // namespace sqs_ingest::pg
