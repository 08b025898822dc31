// The built-in pipeline user_logins, which the first start() makes where it is missing.
#pragma once

#include "pg/pipeline.h"

namespace sqs_ingest::pg {

inline constexpr const char* kBuiltInPipeline = "user_logins";

// The table user_logins that the caller's search_path finds, temporary ones aside: its qualified name. Needs
// an SPI connection.
std::optional<std::string> find_user_logins();

// What create_built_in_pipeline() would insert for the caller, with that target.
PipelineRow built_in_row(const std::string& target);

// Makes the pipeline, owned by the caller, and its target table if it is missing.
void create_built_in_pipeline(const Extension& extension);

} // namespace sqs_ingest::pg
