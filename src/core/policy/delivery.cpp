#include "core/policy/delivery.h"

namespace sqs_ingest {

std::size_t bytes_of(const Delivery& delivery) {
    std::size_t bytes = delivery.message.body.size();
    if (const auto* rows = std::get_if<Rows>(&delivery.content))
        for (const auto& row : *rows)
            bytes += memory_of(row);
    return bytes;
}

} // namespace sqs_ingest
