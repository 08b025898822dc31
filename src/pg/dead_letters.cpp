#include "pg/dead_letters.h"

#include "core/hex_digit.h"
#include "core/transform/metadata.h"
#include "core/transform/seal.h"
#include "pg/encoding.h"
#include "pg/spi.h"

namespace sqs_ingest::pg {

namespace {

// What is opened at once.
constexpr std::int64_t kBatch = 100;
constexpr std::int64_t kBatchBytes = 8 << 20;

const char* kConditions = " WHERE pipeline = $1 AND ($2 IS NULL OR reason = $2)"
                          " AND ($3 IS NULL OR id = ANY ($3::int8[]))"
                          " AND ($4 IS NULL OR created_at < now() - $4::interval)"
                          " AND ($5 IS NULL OR created_at >= now() - $5::interval)";

std::vector<std::optional<std::string>> parameters_of(const DeadLetterFilter& filter) {
    return {filter.pipeline, filter.reason, filter.ids, filter.older_than, filter.newer_than};
}

std::string from_hex(const std::string& digits) {
    std::string bytes(digits.size() / 2, '\0');
    for (std::size_t i = 0; i < bytes.size(); ++i)
        bytes[i] =
            static_cast<char>(hex_digit(digits[2 * i]).value() << 4 | hex_digit(digits[2 * i + 1]).value());
    return bytes;
}

// Apart from the body's, so that the one is not taken for the other.
std::string metadata_id(const Message& message) {
    return message.message_id + "/metadata";
}

DeadLetter open(const TextRow& row, const Keyring& keyring) {
    DeadLetter letter;
    letter.id = std::stoll(*row[0]);
    letter.message.message_id = ask_pg([&] { return to_utf8(row[1]->c_str()); });
    if (row[2])
        letter.message.sent_at_ms = std::stoll(*row[2]);
    letter.message.receive_count = std::stoi(*row[3]);
    letter.message.received_at_ms = std::stoll(*row[7]); // when it became one: soon after
    // What was damaged on its way was sealed with its damage repaired: it does not become right by that.
    // Version 1.0 did not keep whether it was, and had no other reason for this one.
    letter.message.body_damaged = *row[5] == to_string(Reason::invalid_utf8);
    auto body = unseal(keyring, letter.message.message_id, from_hex(*row[4]));
    if (body.ok())
        letter.message.body = std::move(body).value();
    else
        letter.closed = body.error().message;
    if (row[6] && letter.closed.empty()) {
        const auto metadata = unseal(keyring, metadata_id(letter.message), from_hex(*row[6]));
        if (metadata.ok())
            decode_metadata(metadata.value(), letter.message);
        else
            letter.closed = metadata.error().message;
    }
    return letter;
}

} // namespace

void require_no_orphans(const Extension& extension, const std::string& pipeline, const std::string& hint) {
    if (ask_pg([] { return superuser(); }))
        return;
    AsExtensionOwner as_owner(extension);
    if (!query("SELECT FROM " + extension.table("sqs_ingest_dead_letter") + " WHERE pipeline = $1 LIMIT 1",
               {pipeline})
             .empty())
        throw make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                         "an earlier pipeline \"" + pipeline +
                             "\" has left dead letters, which its next owner could open",
                         hint);
}

bool keeps_metadata(const Extension& extension) {
    const std::string table = extension.table("sqs_ingest_dead_letter");
    return ask_pg([&] {
        RangeVar* name = makeRangeVarFromNameList(qualified_name(table.c_str()));
        const Oid relation = RangeVarGetRelid(name, NoLock, true);
        return OidIsValid(relation) && get_attnum(relation, "sealed_metadata") != InvalidAttrNumber;
    });
}

std::string sealed_metadata(const Keyring& keyring, const Message& message, Reason reason) {
    const std::string metadata = encode_metadata(message, reason);
    return metadata.empty() ? std::string() : seal(keyring, metadata_id(message), metadata);
}

std::vector<DeadLetter> next_dead_letters(const Extension& extension, const DeadLetterFilter& filter,
                                          const Keyring& keyring, std::int64_t after, Lock lock,
                                          std::int64_t at_most) {
    auto parameters = parameters_of(filter);
    parameters.push_back(std::to_string(after));
    const std::string metadata = keeps_metadata(extension) ? "encode(l.sealed_metadata, 'hex')" : "NULL";
    std::vector<TextRow> rows;
    {
        AsExtensionOwner as_owner(extension);
        const std::string letters = extension.table("sqs_ingest_dead_letter");
        rows = query(
            "WITH chosen AS (SELECT id, octet_length(sealed) AS size FROM " + letters + kConditions +
                " AND id > $6::int8 ORDER BY id LIMIT " +
                std::to_string(std::clamp<std::int64_t>(at_most, 0, kBatch)) +
                (lock == Lock::skip ? " FOR UPDATE SKIP LOCKED)," : "),") +
                " summed AS (SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM chosen)"
                " SELECT l.id::text, l.message_id, (extract(epoch FROM l.sent_at) * 1000)::int8::text,"
                " l.receive_count::text, encode(l.sealed, 'hex'), l.reason, " +
                metadata + ", (extract(epoch FROM l.created_at) * 1000)::int8::text FROM summed s JOIN " +
                letters + " l ON l.id = s.id WHERE s.before < " + std::to_string(kBatchBytes) +
                " ORDER BY l.id",
            parameters);
    }
    std::vector<DeadLetter> opened;
    for (const auto& row : rows)
        opened.push_back(open(row, keyring));
    return opened;
}

void delete_dead_letters(const Extension& extension, const std::vector<std::int64_t>& ids) {
    if (ids.empty())
        return;
    std::string list;
    for (const auto id : ids)
        list += (list.empty() ? "{" : ",") + std::to_string(id);
    AsExtensionOwner as_owner(extension);
    query("DELETE FROM " + extension.table("sqs_ingest_dead_letter") + " WHERE id = ANY ($1::int8[])",
          {list + "}"});
}

std::int64_t delete_dead_letters(const Extension& extension, const DeadLetterFilter& filter) {
    AsExtensionOwner as_owner(extension);
    const auto rows = query("WITH gone AS (DELETE FROM " + extension.table("sqs_ingest_dead_letter") +
                                kConditions + " RETURNING 1) SELECT count(*)::text FROM gone",
                            parameters_of(filter));
    return std::stoll(*rows.front()[0]);
}

} // namespace sqs_ingest::pg
