// The entry points of the background processes, looked up by name in the library.
#pragma once

#include "pg/guard.h"

extern "C" {
PGDLLEXPORT void sqs_ingest_launcher_main(Datum);
PGDLLEXPORT void sqs_ingest_scout_main(Datum database);
PGDLLEXPORT void sqs_ingest_worker_main(Datum slot);
}
