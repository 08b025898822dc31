#include "pg/spi.h"

namespace sqs_ingest::pg {

namespace {

constexpr int kMaxParameters = 8;

// The result's cells as C strings in SPI's memory, row by row; null pointers for NULL.
struct Cells {
    char** texts;
    uint64 rows;
    int columns;
};

Cells run(const char* sql, int n, const Datum* values, const char* nulls, bool read_only) {
    Oid types[kMaxParameters];
    std::fill(types, types + n, TEXTOID);
    const int code = SPI_execute_with_args(sql, n, types, const_cast<Datum*>(values), nulls, read_only, 0);
    if (code < 0)
        elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(code));
    Cells cells{};
    if (!SPI_tuptable)
        return cells;
    cells.rows = SPI_processed;
    cells.columns = SPI_tuptable->tupdesc->natts;
    cells.texts =
        static_cast<char**>(palloc0(sizeof(char*) * std::max<uint64>(1, cells.rows * cells.columns)));
    for (uint64 row = 0; row < cells.rows; ++row)
        for (int column = 0; column < cells.columns; ++column)
            cells.texts[row * cells.columns + column] =
                SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column + 1);
    SPI_freetuptable(SPI_tuptable);
    return cells;
}

// What one query leaves behind, gone when its rows were copied.
class Scratch {
  public:
    Scratch()
        : context_(ask_pg([] {
              return AllocSetContextCreate(CurrentMemoryContext, "sqs_ingest query", ALLOCSET_SMALL_SIZES);
          })) {}
    ~Scratch() { MemoryContextDelete(context_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    MemoryContext context() const { return context_; }

  private:
    MemoryContext context_;
};

} // namespace

std::vector<TextRow> query(const std::string& sql, const std::vector<std::optional<std::string>>& parameters,
                           Effect effect) {
    if (parameters.size() > kMaxParameters)
        throw std::logic_error("too many parameters");
    const Scratch scratch;
    const Cells cells = ask_pg([&] {
        MemoryContext outside = MemoryContextSwitchTo(scratch.context());
        Datum values[kMaxParameters];
        char nulls[kMaxParameters];
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            nulls[i] = parameters[i] ? ' ' : 'n';
            values[i] = parameters[i] ? CStringGetTextDatum(parameters[i]->c_str()) : Datum(0);
        }
        const Cells result =
            run(sql.c_str(), static_cast<int>(parameters.size()), values, nulls, effect == Effect::reads);
        MemoryContextSwitchTo(outside);
        return result;
    });
    std::vector<TextRow> rows(cells.rows);
    for (uint64 row = 0; row < cells.rows; ++row)
        for (int column = 0; column < cells.columns; ++column) {
            const char* text = cells.texts[row * cells.columns + column];
            rows[row].push_back(text ? std::optional<std::string>(text) : std::nullopt);
        }
    return rows;
}

std::string quoted(const std::string& name) {
    return ask_pg([&] { return quote_identifier(name.c_str()); });
}

} // namespace sqs_ingest::pg
