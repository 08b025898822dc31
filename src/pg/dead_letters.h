// Dead letters, read back: chosen by the conditions of the SQL functions, a bounded batch at a time, and
// opened.
#pragma once

#include "core/sqs/message.h"
#include "core/transform/keyring.h"
#include "core/transform/rejection.h"
#include "pg/extension.h"

namespace sqs_ingest::pg {

// All of them hold; an empty one holds always.
struct DeadLetterFilter {
    std::string pipeline;
    std::optional<std::string> reason;
    std::optional<std::string> ids;                    // an array of bigint, as SQL writes it
    std::optional<std::string> older_than, newer_than; // intervals

    bool chooses() const { return reason || ids || older_than || newer_than; }
};

struct DeadLetter {
    std::int64_t id;
    Message message;    // without a receipt handle; no body if it could not be opened
    std::string closed; // why it could not be opened; empty: it was
};

enum class Lock {
    none,
    skip, // locked until the transaction ends; those that others have locked are left out
};

// The next ones by id after `after`, at most 100 or 8 MiB. Empty: there are no more. Needs an SPI connection.
std::vector<DeadLetter> next_dead_letters(const Extension& extension, const DeadLetterFilter& filter,
                                          const Keyring& keyring, std::int64_t after, Lock lock,
                                          std::int64_t at_most = 100);

// Refuses a pipeline's name to all but a superuser while dead letters of an earlier one stand under it: its
// next owner could open them. Needs an SPI connection.
void require_no_orphans(const Extension& extension, const std::string& pipeline, const std::string& hint);

// Whether the table has a place for sealed metadata: not in version 1.0 of the extension.
bool keeps_metadata(const Extension& extension);

// The message's metadata as that place has it; empty: it has none.
std::string sealed_metadata(const Keyring& keyring, const Message& message, Reason reason);

// Waits for those that others have locked.
void delete_dead_letters(const Extension& extension, const std::vector<std::int64_t>& ids);
std::int64_t delete_dead_letters(const Extension& extension, const DeadLetterFilter& filter); // how many

} // namespace sqs_ingest::pg
