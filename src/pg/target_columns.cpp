// The target's columns, held against the mapping: what can never work is said at once, with the column's
// name.
#include "pg/as_pipeline_owner.h"
#include "pg/pipeline.h"
#include "pg/sink.h"

extern "C" {
#include "access/relation.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_trigger.h"
}

namespace sqs_ingest::pg {

namespace {

using Kind = ColumnType::Kind;

Kind kind_of(Oid type) {
    switch (type) {
    case TEXTOID:
    case VARCHAROID:
    case BPCHAROID:
        return Kind::text;
    case INT2OID:
        return Kind::int2;
    case INT4OID:
        return Kind::int4;
    case INT8OID:
        return Kind::int8;
    case DATEOID:
        return Kind::date;
    case BOOLOID:
        return Kind::boolean;
    case NUMERICOID:
        return Kind::numeric;
    case FLOAT4OID:
        return Kind::float4;
    case FLOAT8OID:
        return Kind::float8;
    case TIMESTAMPOID:
        return Kind::timestamp;
    case TIMESTAMPTZOID:
        return Kind::timestamptz;
    case UUIDOID:
        return Kind::uuid;
    case JSONOID:
    case JSONBOID:
        return Kind::json;
    default:
        return Kind::other;
    }
}

// What the catalog says of a column. Plain data: it is filled inside call_pg.
struct Column {
    bool exists, generated, always_identity;
    TargetColumns::Declared declared;
    Oid type;         // of a domain: what it is over
    int32 modifier;   // of that
    Oid element;      // of an array, the same way; else invalid
    bool text_like;   // a string type that takes any text, such as citext
    const char* cast; // quoted and qualified, so that no modifier cuts a value
    const char* key;  // the same with the modifier, where that rounds
};

// Whether a cast to the type with a modifier cuts what the column refuses: strings and bit strings, and
// arrays of them.
bool cuts(Oid type) {
    const Oid element = get_base_element_type(type);
    char category;
    bool preferred;
    get_type_category_preferred(getBaseType(OidIsValid(element) ? element : type), &category, &preferred);
    return category == TYPCATEGORY_STRING || category == TYPCATEGORY_BITSTRING;
}

const char* sql_of_type(Oid type, int32 modifier) {
    return format_type_extended(type, modifier, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

Column look_up(Oid table, const char* name) {
    Column column{};
    HeapTuple tuple = SearchSysCacheAttName(table, name);
    if (!HeapTupleIsValid(tuple))
        return column;
    const auto* attribute = reinterpret_cast<Form_pg_attribute>(GETSTRUCT(tuple));
    column.exists = attribute->attnum > 0;
    column.generated = attribute->attgenerated != '\0';
    column.always_identity = attribute->attidentity == ATTRIBUTE_IDENTITY_ALWAYS;
    column.modifier = attribute->atttypmod;
    column.declared = {attribute->atttypid, attribute->atttypmod, attribute->attcollation};
    column.type = getBaseTypeAndTypmod(attribute->atttypid, &column.modifier);
    ReleaseSysCache(tuple);
    column.element = get_base_element_type(column.type);
    if (OidIsValid(column.element)) {
        int16 length;
        bool by_value;
        char alignment, delimiter;
        Oid parameter, output;
        get_type_io_data(column.element, IOFunc_output, &length, &by_value, &alignment, &delimiter,
                         &parameter, &output);
        column.element = delimiter == ',' ? getBaseType(column.element) : InvalidOid; // box has ';'
    }
    char category;
    bool preferred;
    get_type_category_preferred(column.type, &category, &preferred);
    column.text_like = category == TYPCATEGORY_STRING;
    column.cast = sql_of_type(column.type, -1);
    column.key = sql_of_type(column.type, cuts(column.type) ? -1 : column.modifier);
    return column;
}

// varchar without a length has modifier -1
std::optional<int> max_characters(Oid type, int32 modifier) {
    if ((type == VARCHAROID || type == BPCHAROID) && modifier >= VARHDRSZ)
        return modifier - VARHDRSZ;
    return std::nullopt;
}

ColumnType type_of(const Column& column) {
    ColumnType type{kind_of(column.type)};
    type.max_characters = max_characters(column.type, column.modifier);
    if (OidIsValid(column.element)) {
        type.kind = Kind::array;
        type.element = kind_of(column.element);
        type.max_characters = max_characters(column.element, column.modifier);
    } else if (type.kind == Kind::other && column.text_like) {
        type.kind = Kind::text;
    }
    return type;
}

bool has_row_trigger_itself(Relation triggers, Oid table) {
    ScanKeyData key;
    ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(table));
    SysScanDesc scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, nullptr, 1, &key);
    bool found = false;
    while (HeapTuple tuple = found ? nullptr : systable_getnext(scan)) {
        const auto type = reinterpret_cast<Form_pg_trigger>(GETSTRUCT(tuple))->tgtype;
        found = TRIGGER_FOR_ROW(type) && TRIGGER_FOR_INSERT(type) && !TRIGGER_FOR_AFTER(type);
    }
    systable_endscan(scan);
    return found;
}

// The columns that must have a value which nothing but a message gives: NOT NULL, no default, no identity.
// None if a row trigger could give it.
struct NeededColumns {
    const char** names;
    int n;
};

NeededColumns needed_columns(Oid table) {
    Relation relation = relation_open(table, NoLock);
    const int columns = relation->rd_att->natts;
    NeededColumns needed{static_cast<const char**>(palloc(sizeof(char*) * (columns + 1))), 0};
    const bool filled = has_row_trigger(table);
    for (int i = 0; i < columns && !filled; ++i) {
        const auto* attribute = TupleDescAttr(relation->rd_att, i);
        if (attribute->attnotnull && !attribute->atthasdef && !attribute->attidentity &&
            !attribute->attisdropped && !get_typdefault(attribute->atttypid)) // as of a domain
            needed.names[needed.n++] = pstrdup(NameStr(attribute->attname));
    }
    relation_close(relation, NoLock);
    return needed;
}

[[noreturn]] void refuse_column(int sqlstate, const Pipeline& pipeline, const std::string& column,
                                const std::string& what, const std::string& hint) {
    throw make_error(sqlstate,
                     "column \"" + column + "\" of target table " + pipeline.row.target + " " + what, hint);
}

// A constant or default that the column's type does not take: where core cannot tell, the database can.
void refuse_constant(const Pipeline& pipeline, const ColumnRule& rule, const ColumnType& type,
                     const TargetColumns::Declared& declared) {
    if (rule.mask())
        return;
    for (const auto& source : rule.sources) {
        const auto* constant = std::get_if<Constant>(&source);
        const auto text = constant ? through_steps(rule, type, constant->value)
                                   : Result<std::string, Reason>(std::string());
        if (!constant || !text)
            continue;
        const AsPipelineOwner as_owner(pipeline.row.owner); // checks of domains are functions of somebody's
        if (refusal_of(text.value(), declared) != 0)
            refuse_column(ERRCODE_DATATYPE_MISMATCH, pipeline, rule.column,
                          "cannot be filled: its type does not take the constant or default of its rule",
                          "Change the column's type, or its rule in the pipeline's columns.");
    }
}

} // namespace

bool has_row_trigger(Oid table) {
    List* tables = get_rel_relkind(table) == RELKIND_PARTITIONED_TABLE
                       ? find_all_inheritors(table, NoLock, nullptr)
                       : list_make1_oid(table);
    Relation triggers = table_open(TriggerRelationId, AccessShareLock);
    bool found = false;
    for (int i = 0; i < list_length(tables) && !found; ++i)
        found = has_row_trigger_itself(triggers, list_nth_oid(tables, i));
    table_close(triggers, AccessShareLock);
    return found;
}

TargetColumns read_columns(const Pipeline& pipeline, Oid table) {
    TargetColumns columns;
    std::set<std::string> mapped;
    for (const auto& rule : pipeline.mapping.columns) {
        const Column column = ask_pg([&] { return look_up(table, rule.column.c_str()); });
        if (!column.exists)
            throw make_error(ERRCODE_UNDEFINED_COLUMN,
                             "target table " + pipeline.row.target + " has no column \"" + rule.column + "\"",
                             "Add the column, or take it out of the pipeline's columns.");
        if (column.generated)
            refuse_column(ERRCODE_GENERATED_ALWAYS, pipeline, rule.column, "is generated",
                          "Take it out of the pipeline's columns: the database fills it.");
        if (column.always_identity)
            refuse_column(ERRCODE_GENERATED_ALWAYS, pipeline, rule.column,
                          "is an identity column GENERATED ALWAYS",
                          "Take it out of the pipeline's columns: the database fills it.");
        if (column.type == NAMEOID || column.type == CHAROID)
            refuse_column(ERRCODE_DATATYPE_MISMATCH, pipeline, rule.column,
                          "cannot be filled: its type cuts off what is too long", "Make it text.");
        const auto type = type_of(column);
        if (const auto wrong = misfit(rule, type, pipeline.mask_method))
            refuse_column(ERRCODE_DATATYPE_MISMATCH, pipeline, rule.column, "cannot be filled: " + *wrong,
                          "Change the column's type, or its rule in the pipeline's columns.");
        columns.types.push_back(type);
        columns.declared.push_back(column.declared);
        refuse_constant(pipeline, rule, columns.types.back(), columns.declared.back());
        // Text is assigned as it is, so that varchar(n) refuses what is too long instead of cutting it.
        columns.casts.push_back(type.kind == Kind::text ? "" : std::string("::") + column.cast);
        columns.keys.push_back(std::string("::") + column.key);
        mapped.insert(rule.column);
    }
    const auto needed = ask_pg([&] { return needed_columns(table); });
    for (int i = 0; i < needed.n; ++i)
        if (mapped.count(needed.names[i]) == 0)
            refuse_column(ERRCODE_NOT_NULL_VIOLATION, pipeline, needed.names[i],
                          "is NOT NULL, has no default and is not mapped", "Map it, or give it a default.");
    return columns;
}

Transform transform_for(const Pipeline& pipeline, std::vector<ColumnType> types) {
    return {pipeline.mapping,   std::move(types),  pipeline.mask_method,
            pipeline.queue_url, pipeline.envelope, pipeline.encoding};
}

} // namespace sqs_ingest::pg
