// What the background processes have in common: registration, signals, waiting.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

// Handlers for SIGTERM and SIGHUP, then signals are let in.
//
// SIGTERM is acted upon at safe points: terminate_requested(). A statement or a wait for standbys that is
// under way is cancelled, so that a shutdown or DROP DATABASE WITH (FORCE) does not wait for a lock with us.
void install_signal_handlers();
bool terminate_requested();

// CHECK_FOR_INTERRUPTS() between two transactions: barriers are absorbed; a cancel has nothing to cancel.
void handle_interrupts();

// Fills in what all our background workers have in common. `kind` becomes bgw_type, as in "sqs_ingest
// worker".
BackgroundWorker describe_process(const char* kind, const char* function, Datum argument);

// The memory of one turn of a main loop: whatever Postgres allocates between two transactions goes at the
// next turn.
class TurnMemory {
  public:
    TurnMemory();
    ~TurnMemory();
    TurnMemory(const TurnMemory&) = delete;
    TurnMemory& operator=(const TurnMemory&) = delete;
    void begin_turn(); // frees the last turn's, and makes it the current context

  private:
    MemoryContext outside_;
    MemoryContext context_;
};

// Waits for the latch, for `descriptor` to become readable if it is not negative, or for `timeout_ms`
// (negative: for ever). Ends the process when the postmaster is gone. Resets the latch.
void wait_for(int descriptor, long timeout_ms, uint32 wait_event);

} // namespace sqs_ingest::pg
