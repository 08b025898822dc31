// Stopping a pipeline, for stop() and for what removes one.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

// Disables the pipeline, asks its workers to finish and waits for them, 30 s at most. False: some are still
// finishing. Needs an SPI connection.
bool stop_pipeline(const std::string& name);

} // namespace sqs_ingest::pg
