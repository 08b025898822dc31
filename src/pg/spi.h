// SQL through SPI for what is no hot path: text in, text out. Needs an SPI connection.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

using TextRow = std::vector<std::optional<std::string>>;

// Runs one statement with text parameters ($1…); returns its rows. Throws PgError.
std::vector<TextRow> query(const std::string& sql, const std::vector<std::string>& parameters = {});

// An SPI connection in a session's own transaction, closed when it goes unless an error is on its way: then
// the transaction's abort closes it.
class SpiConnection {
  public:
    SpiConnection() : exceptions_(std::uncaught_exceptions()) {
        call_pg([] { SPI_connect(); });
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
