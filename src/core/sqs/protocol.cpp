#include "core/sqs/protocol.h"

#include "core/sqs/json_protocol.h"
#include "core/sqs/query_protocol.h"

namespace sqs_ingest {

const char* to_string(Protocol protocol) {
    return protocol == Protocol::json ? "json" : "query";
}

const Codec& codec(Protocol protocol) {
    static constexpr Codec kJson = {json_protocol::encode, json_protocol::decode_receive,
                                    json_protocol::decode_batch, json_protocol::decode_queue_attributes};
    static constexpr Codec kQuery = {query_protocol::encode, query_protocol::decode_receive,
                                     query_protocol::decode_batch, query_protocol::decode_queue_attributes};
    return protocol == Protocol::json ? kJson : kQuery;
}

} // namespace sqs_ingest
