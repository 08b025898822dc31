// SQL through SPI for what is no hot path: text in, text out. Needs an SPI connection.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

using TextRow = std::vector<std::optional<std::string>>;

enum class Effect {
    writes,
    reads
}; // what only reads sees what the calling query sees, and may run in parallel mode

// Runs one statement with text parameters ($1…); returns its rows. Throws PgError.
std::vector<TextRow> query(const std::string& sql,
                           const std::vector<std::optional<std::string>>& parameters = {},
                           Effect effect = Effect::writes);

// A name as SQL text has it, in quotes where it needs them.
std::string quoted(const std::string& name);

// An SPI connection in a session's own transaction, closed when it goes unless an error is on its way: then
// the transaction's abort closes it.
class SpiConnection {
  public:
    // SPI_OPT_NONATOMIC: may commit, in a procedure that was not called inside a transaction.
    explicit SpiConnection(int options = 0) : exceptions_(std::uncaught_exceptions()) {
        call_pg([&] { SPI_connect_ext(options); });
    }
    ~SpiConnection() {
        if (std::uncaught_exceptions() == exceptions_)
            SPI_finish();
    }
    SpiConnection(const SpiConnection&) = delete;
    SpiConnection& operator=(const SpiConnection&) = delete;

  private:
    int exceptions_;
};

} // namespace sqs_ingest::pg
