// What start(), stop() and changes of pipelines do outside the catalogs, tied to their transaction: the
// launcher looks again at commit; the holds of stop() are lifted at its end, whichever it is.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

// For _PG_init: the transaction callbacks, and the object access hook that notices DROP EXTENSION.
void register_commit_effects();

// At commit the launcher reads the catalogs again. PREPARE TRANSACTION is refused from here on.
void look_again_at_commit();

// At commit what the shared state says of a pipeline of this database is forgotten: another one begins, or
// may, under its name.
void forget_at_commit(const char* name);

// Keeps a pipeline of this database from running until this transaction (or the subtransaction that we are
// in, if it is rolled back) ends: its workers finish now. Needs the shared state.
void hold_pipeline(const char* name);
void lift_hold(const char* name); // start() after stop() in one transaction

} // namespace sqs_ingest::pg
