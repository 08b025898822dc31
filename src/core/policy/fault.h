// Whose fault is a database error: the pipeline's, or a row's?
#pragma once

#include <string_view>

namespace sqs_ingest {

// True for SQLSTATEs that say nothing about a row: classes 08 (connection), 25 (transaction state), 40
// (rollback), 53 (resources), 57 (operator), 58 (system), XX (internal), and 55P03 (lock not available). Any
// other state is a row's only if the same statement succeeds with no rows.
bool is_pipeline_fault(std::string_view sqlstate);

} // namespace sqs_ingest
