"""What a column of any type makes of any JSON value: the stored text, or why the message is rejected. The preview says the
same as what the pipeline then does.

One table has a column for each type, all nullable; each message fills one of them. Everything goes through one drain.
"""
import json

import pytest
from harness import Database
from pipeline import create_pipeline

SECRET_FREE = {"TimeZone": "UTC", "DateStyle": "ISO, YMD", "IntervalStyle": "postgres", "extra_float_digits": 1}

PREPARE = """
CREATE TYPE mood AS ENUM ('calm', 'Über', 'it''s');
CREATE TYPE pair AS (a integer, b text);
CREATE DOMAIN even AS integer CONSTRAINT even_only CHECK (VALUE % 2 = 0);
CREATE DOMAIN code AS varchar(4);
CREATE DOMAIN evens AS even[];
CREATE EXTENSION citext;
"""


class Refused(str):
    """Why a message is rejected, "reason" or "reason sqlstate"."""


def bad(reason):
    return Refused(reason)


# Type: JSON value as it stands in the body -> its text in the column.
TYPES = {
    "text": {
        '"é€𝄞"': "é€𝄞", '""': "", '" x "': " x ", "7": "7", "2.50": "2.5", "1e3": "1000.0", "true": "true", "null": None,
        "12345678901234567890123456789": "12345678901234567890123456789", "0.1234567890123456789": "0.1234567890123456789",
        '"a\\\\b\\"c"': 'a\\b"c', '"{}"': "{}", '"NULL"': "NULL", "[]": bad("wrong_type"), '{"a": 1}': bad("wrong_type"),
        '"a\\u0000b"': bad("nul_character"), r'"\n\t"': "\n\t",
    },
    "varchar(3)": {'"abc"': "abc", '"é€𝄞"': "é€𝄞", '"abcd"': bad("too_long"), '"abc "': bad("too_long"), "1234": bad("too_long")},
    "char(3)": {'"ab"': "ab", '"abcd"': bad("too_long")},
    "citext": {'"AbC"': "AbC", "7": "7"},
    "code": {'"abcd"': "abcd", '"abcde"': bad("too_long")},
    "smallint": {"32767": "32767", "32768": bad("number_out_of_range"), "-32768": "-32768", '"12"': "12", "1.5": bad("wrong_type")},
    "integer": {
        "7": "7", "-7": "-7", '"-7"': "-7", "7.0": "7", "1e3": "1000", "true": bad("wrong_type"), '""': bad("wrong_type"),
        '"7.0"': bad("wrong_type"), '" 7"': bad("wrong_type"), "2147483648": bad("number_out_of_range"), "[7]": bad("wrong_type"),
        "7.000000000000000000": "7", "null": None,
    },
    "bigint": {
        "9223372036854775807": "9223372036854775807", "-9223372036854775808": "-9223372036854775808",
        "9223372036854775808": bad("number_out_of_range"), '"9223372036854775807"': "9223372036854775807",
        "123456789012345678901234567890": bad("number_out_of_range"),
    },
    "even": {"2": "2", "3": bad("row_error 23514"), '"4"': "4", '"x"': bad("wrong_type"), "null": None},
    "numeric": {
        "1.5": "1.5", "12345678901234567890.123456789012345678901": "12345678901234567890.123456789012345678901",
        "0.1": "0.1", "1e3": "1000.0", '"+7"': "7", '"007.50"': "7.50", '"1e-3"': "0.001", '"1e400"': "1" + "0" * 400,
        '"1,5"': bad("bad_value"), '"NaN"': bad("bad_value"), '"Infinity"': bad("bad_value"), '""': bad("bad_value"),
        '" 1"': bad("bad_value"), "true": bad("wrong_type"), '"1e999999"': bad("bad_value"), "[1]": bad("wrong_type"),
        "{}": bad("wrong_type"), "-0.0": "0.0",
    },
    "numeric(6,2)": {"1234.567": "1234.57", "-9999.99": "-9999.99", "12345": bad("bad_value"), '"0.001"': "0.00"},
    "real": {"0.1": "0.1", '"1e38"': "1e+38", '"1e39"': bad("bad_value"), '"-0"': "-0"},
    "double precision": {"0.1": "0.1", "1e308": "1e+308", '"1e309"': bad("bad_value"), "0.30000000000000004": "0.30000000000000004"},
    "money": {'"12.50"': "$12.50", "12.5": "$12.50", '"much"': bad("bad_value")},
    "boolean": {
        "true": "true", "false": "false", "1": "true", "0": "false", '"YES"': "true", '"off"': "false", '"t"': "true", '"n"': "false",
        "2": bad("wrong_type"), '"maybe"': bad("bad_value"), '""': bad("bad_value"), "[true]": bad("wrong_type"), "null": None,
    },
    "date": {
        '"2026-11-21"': "2026-11-21", '"2026-11-21T23:30:00-01:00"': "2026-11-22", '"0001-01-01"': "0001-01-01",
        '"2026-02-29"': bad("bad_date"), '"today"': bad("bad_date"), '"infinity"': bad("bad_date"), '""': bad("bad_date"),
        '"21.11.2026"': bad("bad_date"), "20261121": bad("wrong_type"), "true": bad("wrong_type"),
    },
    "timestamp": {
        '"2026-11-21T10:00:00.123456789Z"': "2026-11-21 10:00:00.123456", '"2026-11-21T10:00:00+02:00"': "2026-11-21 08:00:00",
        '"2026-11-21"': "2026-11-21 00:00:00", '"2026-11-21 10:00"': "2026-11-21 10:00:00", '"now"': bad("bad_date"), "1": bad("wrong_type"),
    },
    "timestamptz": {
        '"2026-11-21T10:00:00Z"': "2026-11-21 10:00:00+00", '"2026-11-21T10:00:00-05:30"': "2026-11-21 15:30:00+00",
        '"2026-11-21T10:00:00"': "2026-11-21 10:00:00+00", '"2016-12-31T23:59:60Z"': "2016-12-31 23:59:59.999999+00",
        '"2026-11-21T24:00:00Z"': bad("bad_date"), '"tomorrow"': bad("bad_date"), '""': bad("bad_date"), "1700000000": bad("wrong_type"),
    },
    "timestamptz(0)": {'"2026-11-21T10:00:00.7Z"': "2026-11-21 10:00:01+00"},
    "time": {'"10:00"': "10:00:00", '"25:00"': bad("bad_value")},
    "timetz": {'"10:00+02"': "10:00:00+02"},
    "interval": {'"1 day 2 hours"': "1 day 02:00:00", '"P1Y"': "1 year", '"a while"': bad("bad_value")},
    "uuid": {
        '"424CDD21-063a-43a7-b91b-7ca1a833afae"': "424cdd21-063a-43a7-b91b-7ca1a833afae",
        '"424cdd21063a43a7b91b7ca1a833afae"': "424cdd21-063a-43a7-b91b-7ca1a833afae", '"424cdd21"': bad("bad_value"),
        '"{424cdd21-063a-43a7-b91b-7ca1a833afae}"': bad("bad_value"), "1": bad("wrong_type"), '""': bad("bad_value"),
    },
    "inet": {
        '"10.0.0.1"': "10.0.0.1/32", '"10.0.0.0/8"': "10.0.0.0/8", '"2001:DB8::1"': "2001:db8::1/128", '"10.0.0.256"': bad("bad_value"),
        '""': bad("bad_value"), "true": bad("bad_value"), "[]": bad("wrong_type"),
    },
    "cidr": {'"10.0.0.0/8"': "10.0.0.0/8", '"10.0.0.1/8"': bad("bad_value")},
    "macaddr": {'"08-00-2b-01-02-03"': "08:00:2b:01:02:03", '"08"': bad("bad_value")},
    "json": {
        '{"b": [1, {"c": null}], "a": "x"}': {"b": [1, {"c": None}], "a": "x"}, "[1, 2.50]": [1, 2.5], '"text"': "text", "7": 7,
        "true": True, '"a\\u0000b"': bad("nul_character"), '{"a\\u0000": 1}': bad("nul_character"),
    },
    "jsonb": {
        '{"b": [1, {"c": null}], "a": "é"}': {"b": [1, {"c": None}], "a": "é"}, "[]": [], "{}": {}, "null": None,
        '{"n": 0}': {"n": 0}, '["\\u0000"]': bad("nul_character"),
    },
    "integer[]": {
        "[1, 2, null]": "{1,2,NULL}", "[]": "{}", "[[1, 2], [3, 4]]": "{{1,2},{3,4}}", '["1"]': "{1}", "[1.5]": bad("wrong_type"),
        "[1, [2]]": bad("bad_value"), '[{"a": 1}]': bad("wrong_type"), '"{1,2}"': "{1,2}", "[2147483648]": bad("number_out_of_range"),
        "[[[[[[[1]]]]]]]": bad("bad_value"), "7": bad("bad_value"), "{}": bad("wrong_type"), '["NULL"]': bad("wrong_type"),
    },
    "text[]": {
        '["a", "b,c", "d\\"e", "f\\\\g", "", " ", "NULL", null, "{x}"]': '{a,"b,c","d\\"e","f\\\\g",""," ","NULL",NULL,"{x}"}',
        '[1, true, 2.5]': "{1,true,2.5}", '["\\u0000"]': bad("nul_character"), '[{}]': bad("wrong_type"),
    },
    "varchar(3)[]": {'["abc", "é€𝄞"]': "{abc,é€𝄞}", '["abcd"]': bad("too_long")},
    "timestamptz[]": {'["2026-11-21T10:00:00Z"]': '{"2026-11-21 10:00:00+00"}', '["now"]': bad("bad_date")},
    "numeric[]": {"[12345678901234567890.5, 1]": "{12345678901234567890.5,1}", '["x"]': bad("bad_value")},
    "boolean[]": {"[true, 0]": "{t,f}"},
    "uuid[]": {'["424cdd21063a43a7b91b7ca1a833afae"]': "{424cdd21-063a-43a7-b91b-7ca1a833afae}"},
    "inet[]": {'["10.0.0.1", "::1"]': "{10.0.0.1,::1}", '["ten"]': bad("bad_value")},
    "jsonb[]": {'[{"a": 1}, [2, 3], "x", null]': '{"{\\"a\\": 1}","[2, 3]","\\"x\\"",NULL}'},
    "mood[]": {'["calm", "it\'s"]': "{calm,it's}", '["CALM"]': bad("bad_value")},
    "evens": {"[2, 4]": "{2,4}", "[2, 3]": bad("row_error 23514")},
    "box[]": {'"{(1,1),(0,0);(2,2),(1,1)}"': "{(1,1),(0,0);(2,2),(1,1)}", '["(1,1),(0,0)"]': bad("wrong_type")},  # its delimiter is ;
    "mood": {'"calm"': "calm", '"Über"': "Über", '"it\'s"': "it's", '"Calm"': bad("bad_value"), '""': bad("bad_value"), "1": bad("bad_value")},
    "pair": {'"(1,x)"': "(1,x)", '"(x,1)"': bad("bad_value"), '{"a": 1}': bad("wrong_type")},
    "bytea": {'"\\\\xDEADbeef"': "\\xdeadbeef", '"abc"': "\\x616263", '"\\\\xfg"': bad("bad_value")},
    "point": {'"(1,2)"': "(1,2)", '"1,2"': "(1,2)", '"nowhere"': bad("bad_value"), "[1, 2]": bad("wrong_type")},
    "int4range": {'"[1,5)"': "[1,5)", '"[1,5]"': "[1,6)", '"(5,1)"': bad("bad_value"), '"empty"': "empty"},
    "tstzrange": {'"[2026-11-21 10:00+00,)"': '["2026-11-21 10:00:00+00",)'},
    "tsvector": {'"a b"': "'a' 'b'"},
    "tsquery": {'"a & b"': "'a' & 'b'", '"a &"': bad("bad_value")},
    "jsonpath": {'"$.a"': '$."a"', '"$["': bad("bad_value")},
    "bit(3)": {'"101"': "101", '"1011"': bad("bad_value"), '"102"': bad("bad_value")},
    "varbit(3)": {'"10"': "10", '"1011"': bad("bad_value")},
    "oid": {"7": "7", '"x"': bad("bad_value")},
    "regclass": {'"pg_class"': "pg_class", '"no_such_table"': bad("bad_value")},
    "pg_lsn": {'"0/10"': "0/10"},
}  # fmt: skip
CASES = [(kind, value) for kind, values in TYPES.items() for value in values]


def column_of(kind):
    return f"c{list(TYPES).index(kind)}"


def body_of(number, kind, value):
    return f'{{"n": {number}, "v": {{"{column_of(kind)}": {value}}}}}'


class Outcome:
    def __init__(self, stored, letter, preview):
        self.stored, self.letter, self.preview = stored, letter, preview


@pytest.fixture(scope="module")
def outcomes(cluster, moto):
    """By type and value: what became of the message, and what the preview had said of it."""
    db, queue = Database(cluster, cluster.create_database()), moto.queue()
    db.sql("CREATE EXTENSION sqs_ingest")
    for statement in PREPARE.strip().splitlines():
        db.sql(statement)
    for name, value in SECRET_FREE.items():
        db.sql(f"SET {name} = '{value}'")
    columns = ", ".join(f"{column_of(kind)} {kind}" for kind in TYPES)
    db.sql(f"CREATE TABLE everything (n integer, {columns})")
    mapping = [{"column": "n", "from": "/n"}] + [{"column": column_of(kind), "from": f"/v/{column_of(kind)}"} for kind in TYPES]
    pipeline = create_pipeline(db, queue, "everything", mapping)
    bodies = [body_of(i, kind, value) for i, (kind, value) in enumerate(CASES)]
    previews = [db.value("SELECT sqs_ingest_preview(%s, %s)", [pipeline.name, body]) for body in bodies]
    ids = queue.send(bodies)
    pipeline.drain()
    letters = {letter["message_id"]: letter for letter in pipeline.dead_letters()}
    found = {}
    for i, (kind, value) in enumerate(CASES):
        rows = db.sql(f"SELECT {column_of(kind)}::text FROM everything WHERE n = %s", [i])
        found[kind, value] = Outcome(rows, letters.get(ids[i]), previews[i])
    found["database"] = db
    assert queue.is_empty()
    yield found
    db.close()
    cluster.drop_database(db.name)
    queue.delete()


def reason_of(letter):
    return " ".join(filter(None, [letter["reason"], letter["sqlstate"] if letter["reason"] == "row_error" else None]))


@pytest.mark.parametrize("kind, value", CASES)
def test_value_is_stored_or_rejected(outcomes, kind, value):
    expected, outcome = TYPES[kind][value], outcomes[kind, value]
    if isinstance(expected, Refused):
        assert outcome.stored == []
        assert reason_of(outcome.letter) == expected
    else:
        assert outcome.letter is None, reason_of(outcome.letter)
        ((stored,),) = outcome.stored
        if kind in ("json", "jsonb") and stored is not None:
            stored = json.loads(stored)
        assert stored == expected


@pytest.mark.parametrize("kind, value", CASES)
def test_preview_says_what_happens(outcomes, kind, value):
    expected, outcome = TYPES[kind][value], outcomes[kind, value]
    told = outcome.preview["columns"].get(column_of(kind)) if "columns" in outcome.preview else None
    if isinstance(expected, Refused):
        assert outcome.preview["rejected"]["reason"] == expected.split()[0]
        assert "row" not in outcome.preview
    else:
        shown = outcome.preview["row"][column_of(kind)]
        assert shown == told["value"]
        if kind in ("json", "jsonb"):
            assert shown == expected
        else:
            text = None if shown is None else str(shown).lower() if isinstance(shown, bool) else str(shown)
            assert outcomes["database"].value(f"SELECT %s::{kind}::text", [text]) == expected


@pytest.mark.parametrize("kind, value", [case for case in CASES if isinstance(TYPES[case[0]][case[1]], Refused)])
def test_dead_letter_names_the_field(outcomes, kind, value):
    letter = outcomes[kind, value].letter
    assert letter["field"] == f"v/{column_of(kind)}"


def test_every_message_went_one_way(outcomes):
    stored = sum(len(outcomes[case].stored) for case in CASES)
    letters = sum(outcomes[case].letter is not None for case in CASES)
    assert stored + letters == len(CASES)
    assert letters == sum(isinstance(expected, Refused) for values in TYPES.values() for expected in values.values())
