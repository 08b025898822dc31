#include "core/transform/rejection.h"

namespace sqs_ingest {

const char* to_string(Reason reason) {
    switch (reason) {
    case Reason::not_json:
        return "not_json";
    case Reason::not_object:
        return "not_object";
    case Reason::invalid_utf8:
        return "invalid_utf8";
    case Reason::too_deep:
        return "too_deep";
    case Reason::duplicate_key:
        return "duplicate_key";
    case Reason::missing_field:
        return "missing_field";
    case Reason::empty_field:
        return "empty_field";
    case Reason::wrong_type:
        return "wrong_type";
    case Reason::nul_character:
        return "nul_character";
    case Reason::number_out_of_range:
        return "number_out_of_range";
    case Reason::bad_version:
        return "bad_version";
    case Reason::bad_date:
        return "bad_date";
    case Reason::bad_value:
        return "bad_value";
    case Reason::too_many_receives:
        return "too_many_receives";
    case Reason::too_long:
        return "too_long";
    case Reason::bad_envelope:
        return "bad_envelope";
    case Reason::bad_encoding:
        return "bad_encoding";
    case Reason::too_large:
        return "too_large";
    case Reason::row_error:
        return "row_error";
    }
    return "unknown";
}

} // namespace sqs_ingest
