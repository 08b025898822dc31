#include "core/policy/receive_gate.h"

#include <algorithm>

namespace sqs_ingest {

bool ReceiveGate::may_start(int in_flight, std::size_t held) const {
    const std::size_t expected = held + static_cast<std::size_t>(in_flight + 1) * kMaxMessages;
    return in_flight < target_ && expected <= max_held_;
}

void ReceiveGate::answered(int messages) {
    busy_ = messages > 0;
    if (messages >= kMaxMessages)
        target_ = std::min(target_ * 2, max_receives_);
    else if (messages == 0)
        target_ = 1;
}

void ReceiveGate::failed() {
    target_ = 1;
    busy_ = false;
}

} // namespace sqs_ingest
