// DROP OWNED and REASSIGN OWNED treat a role's pipelines as they treat its other objects in the database.
// (DROP ROLE alone is refused while the role owns one: see the grants in control_functions.cpp.)
#pragma once

namespace sqs_ingest::pg {

void register_role_changes(); // for _PG_init, while preloading

} // namespace sqs_ingest::pg
