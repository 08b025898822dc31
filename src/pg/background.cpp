#include "pg/background.h"

#include <csignal>

namespace sqs_ingest::pg {

namespace {

volatile sig_atomic_t terminate_flag = false;

extern "C" {
static void on_sigterm(SIGNAL_ARGS) {
    (void)postgres_signal_arg;
    const int saved_errno = errno;
    terminate_flag = true;
    QueryCancelPending = true;
    InterruptPending = true;
    SetLatch(MyLatch);
    errno = saved_errno;
}
}

} // namespace

void install_signal_handlers() {
    pqsignal(SIGTERM, on_sigterm);
    pqsignal(SIGHUP, SignalHandlerForConfigReload);
    BackgroundWorkerUnblockSignals();
}

bool terminate_requested() {
    return terminate_flag;
}

void handle_interrupts() {
    call_pg([] {
        QueryCancelPending = false;
        CHECK_FOR_INTERRUPTS();
    });
}

BackgroundWorker describe_process(const char* kind, const char* function, Datum argument) {
    BackgroundWorker process{};
    process.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
    process.bgw_start_time = BgWorkerStart_RecoveryFinished;
    process.bgw_restart_time = BGW_NEVER_RESTART;
    strlcpy(process.bgw_library_name, "sqs_ingest", sizeof process.bgw_library_name);
    strlcpy(process.bgw_function_name, function, sizeof process.bgw_function_name);
    strlcpy(process.bgw_type, kind, sizeof process.bgw_type);
    strlcpy(process.bgw_name, kind, sizeof process.bgw_name);
    process.bgw_main_arg = argument;
    return process;
}

TurnMemory::TurnMemory()
    : outside_(CurrentMemoryContext), context_(ask_pg([] {
          return AllocSetContextCreate(TopMemoryContext, "sqs_ingest turn", ALLOCSET_DEFAULT_SIZES);
      })) {}

TurnMemory::~TurnMemory() {
    MemoryContextSwitchTo(outside_);
    MemoryContextDelete(context_);
}

void TurnMemory::begin_turn() {
    MemoryContextReset(context_);
    MemoryContextSwitchTo(context_);
}

void wait_for(int descriptor, long timeout_ms, uint32 wait_event) {
    call_pg([&] {
        int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
        if (descriptor >= 0)
            events |= WL_SOCKET_READABLE;
        if (timeout_ms >= 0)
            events |= WL_TIMEOUT;
        if (descriptor >= 0)
            WaitLatchOrSocket(MyLatch, events, descriptor, timeout_ms, wait_event);
        else
            WaitLatch(MyLatch, events, timeout_ms, wait_event);
        ResetLatch(MyLatch);
    });
}

} // namespace sqs_ingest::pg
