// C++ values as one-dimensional Postgres arrays, in the current memory context. Inside call_pg: the element
// functions must be free of destructors, they only look.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

// A text to be copied, UTF-8 (or bytes, for bytea), or NULL.
struct Text {
    const char* data = nullptr;
    std::size_t size = 0;
    Text() = default;
    Text(std::string_view text) : data(text.data() ? text.data() : ""), size(text.size()) {}
    Text(const std::string& text) : Text(std::string_view(text)) {}
};

// Into the database's encoding; fails for characters that it does not have.
inline Datum text_datum(Text text) {
    char* converted = pg_any_to_server(text.data, static_cast<int>(text.size), PG_UTF8);
    if (converted == text.data)
        return PointerGetDatum(cstring_to_text_with_len(text.data, static_cast<int>(text.size)));
    return CStringGetTextDatum(converted);
}

// A text that is in the database's encoding already, because it came from there.
inline Datum server_text_datum(Text text) {
    return PointerGetDatum(cstring_to_text_with_len(text.data, static_cast<int>(text.size)));
}

inline Datum make_array(std::size_t n, Datum* values, bool* nulls, Oid type, int length, bool by_value,
                        char align) {
    if (n == 0)
        return PointerGetDatum(construct_empty_array(type));
    int dimensions = static_cast<int>(n), lower_bound = 1;
    return PointerGetDatum(
        construct_md_array(values, nulls, 1, &dimensions, &lower_bound, type, length, by_value, align));
}

template<class ElementOf> // Datum of position, or NULL by setting is_null
Datum array_of(std::size_t n, Oid type, int length, bool by_value, char align, ElementOf element) {
    auto* values = static_cast<Datum*>(palloc(sizeof(Datum) * (n + 1)));
    auto* nulls = static_cast<bool*>(palloc0(sizeof(bool) * (n + 1)));
    for (std::size_t i = 0; i < n; ++i)
        values[i] = element(i, nulls[i]);
    return make_array(n, values, nulls, type, length, by_value, align);
}

template<class TextOf>
Datum text_array(std::size_t n, TextOf text_of, Datum (*datum_of)(Text) = text_datum) {
    return array_of(n, TEXTOID, -1, false, TYPALIGN_INT, [&](std::size_t i, bool& is_null) {
        const Text text = text_of(i);
        is_null = !text.data;
        return is_null ? Datum(0) : datum_of(text);
    });
}

template<class BytesOf>
Datum bytea_array(std::size_t n, BytesOf bytes_of) {
    return array_of(n, BYTEAOID, -1, false, TYPALIGN_INT, [&](std::size_t i, bool& is_null) {
        const Text bytes = bytes_of(i);
        is_null = !bytes.data;
        return is_null ? Datum(0)
                       : PointerGetDatum(cstring_to_text_with_len(bytes.data, static_cast<int>(bytes.size)));
    });
}

template<class TimeOf>
Datum timestamp_array(std::size_t n, TimeOf time_of) {
    return array_of(n, TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
                    [&](std::size_t i, bool&) { return TimestampTzGetDatum(time_of(i)); });
}

template<class NumberOf>
Datum int4_array(std::size_t n, NumberOf number_of) {
    return array_of(n, INT4OID, sizeof(int32), true, TYPALIGN_INT,
                    [&](std::size_t i, bool&) { return Int32GetDatum(number_of(i)); });
}

} // namespace sqs_ingest::pg
