"""A pipeline fills any kind of table: partitions, triggers, foreign keys, views, inheritance, columns that the database fills
itself; rows that are there already; several rows from one message."""
import psycopg
import pytest
from harness import wait_until
from pipelines import make_proxy_fixture, pipelines_fixture  # noqa: F401

ID = {"column": "id", "from": "/id", "required": True}
NOTE = {"column": "note", "from": "/note"}
MAPPING = [ID, NOTE]


def content(pipelines, table, columns="id, note"):
    return pipelines.db.sql(f"SELECT {columns} FROM {table} ORDER BY 1, 2")


def reasons(pipeline):
    return [(letter["reason"], letter["field"], letter["sqlstate"], letter["constraint_name"]) for letter in pipeline.dead_letters()]


def ingest(pipeline, *bodies):
    pipeline.queue.send(bodies)
    pipeline.drain()
    assert pipeline.queue.is_empty()


def events(numbers, **more):
    return [{"id": i, "note": f"note {i}", **more} for i in numbers]


# -- kinds of tables --------------------------------------------------------------------------------------------------


def test_partitioned_table(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer NOT NULL, note text) PARTITION BY RANGE (id)")
    db.sql("CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (10)")
    db.sql("CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (10) TO (20)")
    pipeline = pipelines("t", MAPPING)
    ingest(pipeline, *events([1, 15, 30, 2]))
    assert [row[0] for row in content(pipelines, "t_low")] == [1, 2]
    assert [row[0] for row in content(pipelines, "t_high")] == [15]
    assert reasons(pipeline) == [("row_error", None, "23514", None)]
    db.sql("CREATE TABLE t_higher PARTITION OF t FOR VALUES FROM (20) TO (40)")
    assert db.value("SELECT sqs_ingest_redrive(%s)", [pipeline.name]) == 1
    assert content(pipelines, "t_higher") == [(30, "note 30")]


def test_one_partition_as_the_target(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text) PARTITION BY LIST (id)")
    db.sql("CREATE TABLE t_one PARTITION OF t FOR VALUES IN (1)")
    pipeline = pipelines("t_one", MAPPING)
    ingest(pipeline, *events([1, 2]))
    assert content(pipelines, "t") == [(1, "note 1")]
    assert [letter[2] for letter in reasons(pipeline)] == ["23514"]


def test_before_and_after_triggers_run_for_each_row(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text); CREATE TABLE seen (id integer, note text)")
    db.sql("""CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN IF NEW.id = 3 THEN RETURN NULL; END IF; NEW.note := upper(NEW.note); RETURN NEW; END $$""")
    db.sql("""CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN INSERT INTO public.seen VALUES (NEW.id, NEW.note); RETURN NULL; END $$""")
    db.sql("CREATE TRIGGER shout BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION shout()")
    db.sql("CREATE TRIGGER remember AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION remember()")
    pipeline = pipelines("t", MAPPING)
    ingest(pipeline, *events([1, 2, 3]))
    assert content(pipelines, "t") == content(pipelines, "seen") == [(1, "NOTE 1"), (2, "NOTE 2")]
    assert pipeline.dead_letters() == []


def test_a_row_that_a_trigger_refuses_costs_only_itself(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text)")
    db.sql("""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN RAISE EXCEPTION 'not %', NEW.id USING ERRCODE = 'P0042'; END $$""")
    db.sql("CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id % 4 = 0) EXECUTE FUNCTION refuse()")
    pipeline = pipelines("t", MAPPING)
    ingest(pipeline, *events(range(1, 13)))
    assert [row[0] for row in content(pipelines, "t")] == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    assert reasons(pipeline) == [("row_error", None, "P0042", None)] * 3


@pytest.mark.parametrize("deferred", ["", " DEFERRABLE INITIALLY DEFERRED"])
def test_a_foreign_key_refuses_only_its_own_rows(pipelines, deferred):
    db = pipelines.db
    db.sql("CREATE TABLE parent (id integer PRIMARY KEY); INSERT INTO parent VALUES (1), (2)")
    db.sql(f"CREATE TABLE t (id integer CONSTRAINT known REFERENCES parent{deferred}, note text)")
    pipeline = pipelines("t", MAPPING)
    ingest(pipeline, *events([1, 3, 2, 4]))
    assert [row[0] for row in content(pipelines, "t")] == [1, 2]
    assert reasons(pipeline) == [("row_error", None, "23503", "known")] * 2
    db.sql("INSERT INTO parent VALUES (3)")
    assert db.value("SELECT sqs_ingest_redrive(%s)", [pipeline.name]) == 1
    assert [row[0] for row in content(pipelines, "t")] == [1, 2, 3]


def test_a_view_with_an_instead_of_trigger(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE base (id integer PRIMARY KEY, note text); CREATE TABLE names (id integer, name text)")
    db.sql("CREATE VIEW v AS SELECT id, note, NULL::integer AS half FROM base JOIN names USING (id)")
    db.sql("""CREATE FUNCTION spread() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN INSERT INTO public.base VALUES (NEW.id, NEW.note); INSERT INTO public.names VALUES (NEW.half, NEW.note);
                 RETURN NEW; END $$""")
    db.sql("CREATE TRIGGER spread INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION spread()")
    pipeline = pipelines("v", [*MAPPING, {"column": "half", "from": "/half"}])
    ingest(pipeline, {"id": 1, "note": "a", "half": 7}, {"id": 1, "note": "twice"}, {"id": 2, "note": "b"})
    assert content(pipelines, "base") == [(1, "a"), (2, "b")]
    assert content(pipelines, "names", "id, name") == [(7, "a"), (None, "b")]
    assert [letter[2:] for letter in reasons(pipeline)] == [("23505", "base_pkey")]


def test_a_view_that_postgres_updates_itself(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE base (id integer, note text); CREATE VIEW v AS SELECT * FROM base WHERE id > 0 WITH CHECK OPTION")
    pipeline = pipelines("v", MAPPING)
    ingest(pipeline, *events([1, -1]))
    assert content(pipelines, "base") == [(1, "note 1")]
    assert [letter[2] for letter in reasons(pipeline)] == ["44000"]


def test_views_on_views_have_an_end(pipelines):
    """Two views can be each other's: Postgres notices when they are used, and so must who follows them."""
    db = pipelines.db
    db.sql("CREATE VIEW a AS SELECT 1 AS id, ''::text AS note; CREATE VIEW b AS SELECT * FROM a; CREATE OR REPLACE VIEW a AS SELECT * FROM b")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="too many views") as refused:
        pipelines("a", MAPPING)
    assert refused.value.diag.message_hint
    db.sql("CREATE TABLE t (id integer, note text); CREATE VIEW v0 AS SELECT * FROM t")
    for i in range(1, 10):
        db.sql(f"CREATE VIEW v{i} AS SELECT * FROM v{i - 1}")
    ingest(pipelines("v9", MAPPING), *events([1]))
    assert content(pipelines, "t") == [(1, "note 1")]


def test_a_stranger_behind_a_view_is_refused(pipelines):
    db, role, stranger = pipelines.db, pipelines.owner(), pipelines.owner()
    db.sql(f"CREATE TABLE t (id integer, note text); ALTER TABLE t OWNER TO {stranger}; GRANT ALL ON t TO {role}")
    db.sql(f"CREATE VIEW v AS SELECT * FROM t; ALTER VIEW v OWNER TO {role}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f'behind target table public.v belongs to role "{stranger}"'):
        pipelines("v", MAPPING, user=role)


def test_a_view_that_takes_no_rows_is_refused(pipelines):
    pipelines.db.sql("CREATE VIEW v AS SELECT count(*)::integer AS id, ''::text AS note FROM pg_class")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cannot insert into view"):
        pipelines("v", MAPPING)


@pytest.mark.parametrize("kind", ["name", '"char"'])
def test_a_type_that_cuts_what_is_too_long_is_refused(pipelines, kind):
    pipelines.db.sql(f"CREATE TABLE t (id integer, note {kind})")
    with pytest.raises(psycopg.errors.DatatypeMismatch, match='column "note".* cuts off') as refused:
        pipelines("t", MAPPING)
    assert refused.value.diag.message_hint


@pytest.mark.parametrize("target, message", [
    ("CREATE MATERIALIZED VIEW t AS SELECT 1 AS id, ''::text AS note", "cannot change materialized view"),
    ("CREATE SEQUENCE t", "t"), ("CREATE TABLE u (id integer PRIMARY KEY); ALTER INDEX u_pkey RENAME TO t", "t"),
])  # fmt: skip
def test_what_is_no_table_is_refused(pipelines, target, message):
    pipelines.db.sql(target)
    with pytest.raises(psycopg.Error, match=message):
        pipelines("t", MAPPING)
    assert pipelines.db.sql("SELECT 1 FROM sqs_ingest_pipeline") == []


def test_inherited_tables(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE parent (id integer, note text); CREATE TABLE child (extra integer DEFAULT 7) INHERITS (parent)")
    pipeline = pipelines("child", MAPPING)
    ingest(pipeline, *events([1]))
    assert db.sql("SELECT * FROM child") == [(1, "note 1", 7)]
    assert content(pipelines, "parent") == [(1, "note 1")]
    assert content(pipelines, "ONLY parent") == []


def test_an_unlogged_table_and_odd_names(pipelines):
    db = pipelines.db
    db.sql('CREATE SCHEMA "Odd ""schema"; CREATE UNLOGGED TABLE "Odd ""schema"."select" ("from ""here" integer, "ünï 1" text)')
    pipeline = pipelines('"Odd ""schema"."select"', [{"column": 'from "here', "from": "/id"}, {"column": "ünï 1", "from": "/a~1b/0"}])
    ingest(pipeline, {"id": 1, "a/b": ["x"]})
    assert db.sql('SELECT * FROM "Odd ""schema"."select"') == [(1, "x")]


def test_columns_that_the_database_fills_are_left_alone(pipelines):
    db = pipelines.db
    db.sql("""CREATE TABLE t (id integer, note text, number bigint GENERATED ALWAYS AS IDENTITY, other bigint GENERATED BY DEFAULT AS IDENTITY,
                              doubled integer GENERATED ALWAYS AS (id * 2) STORED, at timestamptz DEFAULT 'epoch', s serial)""")  # fmt: skip
    pipeline = pipelines("t", MAPPING)
    ingest(pipeline, *events([5, 6]))
    assert [(row[0], row[4]) for row in db.sql("SELECT * FROM t ORDER BY id")] == [(5, 10), (6, 12)]
    assert db.value("SELECT count(DISTINCT (number, other, s)) FROM t WHERE at = 'epoch' AND s IS NOT NULL") == 2


def test_the_default_of_a_domain_fills_a_column(pipelines):
    pipelines.db.sql("CREATE DOMAIN state AS text DEFAULT 'new' NOT NULL; CREATE TABLE t (id integer, note text, state state NOT NULL)")
    pipeline = pipelines("t", MAPPING)
    ingest(pipeline, *events([5]))
    assert content(pipelines, "t", "id, state") == [(5, "new")]


def test_a_trigger_of_a_partition_fills_a_column(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text, at date NOT NULL) PARTITION BY RANGE (id)")
    db.sql("CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (10) TO (20)")
    with pytest.raises(psycopg.errors.NotNullViolation, match='"at".* not mapped'):
        pipelines("t", MAPPING)
    db.sql("CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := 'epoch'; RETURN NEW; END $$")
    db.sql("CREATE TRIGGER fill BEFORE INSERT ON t_low FOR EACH ROW EXECUTE FUNCTION fill()")
    pipeline = pipelines("t", MAPPING)
    ingest(pipeline, *events([5, 15]))
    assert db.sql("SELECT id, at::text FROM t") == [(5, "1970-01-01")]
    assert [letter[::2] for letter in reasons(pipeline)] == [("row_error", "23502")]


def test_an_identity_by_default_can_be_mapped(pipelines):
    pipelines.db.sql("CREATE TABLE t (id integer GENERATED BY DEFAULT AS IDENTITY, note text)")
    ingest(pipelines("t", MAPPING), *events([500]))
    assert content(pipelines, "t") == [(500, "note 500")]


def test_row_level_security_of_the_target_holds(pipelines):
    db, role = pipelines.db, pipelines.owner()
    db.sql("CREATE TABLE t (id integer, note text); ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY")
    db.sql(f"CREATE POLICY small ON t USING (true) WITH CHECK (id < 10); ALTER TABLE t OWNER TO {role}")
    pipeline = pipelines("t", MAPPING, user=role)
    pipeline.queue.send(events([1, 11, 2]))
    with db.connect(role) as session:
        session.execute("CALL sqs_ingest_drain(%s)", [pipeline.name])
    assert content(pipelines, "t") == [(1, "note 1"), (2, "note 2")]
    assert [letter[2] for letter in reasons(pipeline)] == ["42501"]


# -- what only the database can judge ---------------------------------------------------------------------------------


@pytest.mark.parametrize("column, good, wrong, reason", [
    ("numeric(4,1)", 999.9, 9999, ("bad_value", "22003")),
    ("integer CHECK (v > 0)", 1, 0, ("row_error", "23514")),
    ("integer NOT NULL", 1, None, ("row_error", "23502")),
    ("integer UNIQUE", 2, 1, ("row_error", "23505")),
    ("int4range", "[1,2)", "[2,1)", ("bad_value", "22000")),
    ("inet", "::1", "::g", ("bad_value", "22P02")),
    ("point", "(1,2)", "(1)", ("bad_value", "22P02")),
])  # fmt: skip
def test_what_the_database_refuses_costs_only_itself(pipelines, column, good, wrong, reason):
    pipelines.db.sql(f"CREATE TABLE t (id integer, v {column})")
    pipeline = pipelines("t", [ID, {"column": "v", "from": "/deep/v"}])
    ingest(pipeline, {"id": 0, "deep": {"v": 1 if "UNIQUE" in column else good}}, {"id": 1, "deep": {"v": wrong}},
           *({"id": i, "deep": {"v": good if "UNIQUE" not in column else i}} for i in (2, 3)))  # fmt: skip
    assert [row[0] for row in content(pipelines, "t", "id, v::text")] == [0, 2, 3]
    (letter,) = pipeline.dead_letters()
    assert (letter["reason"], letter["sqlstate"]) == reason
    if reason[0] == "bad_value":
        assert letter["field"] == "deep/v"
    elif reason[1] == "23502":
        assert letter["field"] == "v"


# -- several rows from one message ------------------------------------------------------------------------------------

EACH = [
    {"column": "order_id", "from": "/order"},
    {"column": "line", "from": "@index"},
    {"column": "sku", "from": "@each/sku", "required": True},
    {"column": "qty", "from": ["@each/qty", "/qty"], "default": 1},
]


@pytest.fixture
def lines(pipelines):
    pipelines.db.sql("CREATE TABLE lines (order_id text, line integer, sku text, qty integer CHECK (qty < 100), UNIQUE (order_id, sku))")
    return pipelines("lines", EACH, each="/items")


def line_rows(pipeline):
    return pipeline.db.sql("SELECT * FROM lines ORDER BY 1, 2")


def test_each_element_becomes_a_row(lines):
    ingest(lines, {"order": "A", "items": [{"sku": "x", "qty": 2}, {"sku": "y"}], "qty": 5}, {"order": "B", "items": [{"sku": "x"}]})
    assert line_rows(lines) == [("A", 0, "x", 2), ("A", 1, "y", 5), ("B", 0, "x", 1)]


@pytest.mark.parametrize("bad, reason, field", [
    ({"sku": None}, "missing_field", "@each/sku"), ({"sku": "z", "qty": "many"}, "wrong_type", "@each/qty"),
    ({"sku": "z", "qty": 100}, "row_error", None), ({"sku": "x"}, "row_error", None), ("z", "missing_field", "@each/sku"),
])  # fmt: skip
def test_one_bad_element_rejects_the_whole_message_and_no_other(lines, bad, reason, field):
    ingest(lines, {"order": "A", "items": [{"sku": "x"}, {"sku": "y"}, bad, {"sku": "w"}]}, {"order": "B", "items": [{"sku": "x"}]})
    assert line_rows(lines) == [("B", 0, "x", 1)]
    assert [letter[:2] for letter in reasons(lines)] == [(reason, field)]


def test_an_empty_array_becomes_no_row_and_no_dead_letter(lines):
    ingest(lines, {"order": "A", "items": []})
    assert (line_rows(lines), lines.dead_letters()) == ([], [])


def test_a_message_of_nothing_but_empty_arrays_is_ingested_once(lines):
    ingest(lines, *[{"order": "A", "items": []}] * 25)
    assert lines.stat()["inserted"] == 25 and line_rows(lines) == []


def test_a_message_without_elements_does_not_vouch_for_the_table(lines):
    """When every row is refused, the table is suspected first; a message that has no rows is none that went in."""
    lines.db.sql("ALTER TABLE lines ADD CONSTRAINT nothing CHECK (false) NOT VALID")
    for body in ({"order": "A", "items": []}, *({"order": "B", "items": [{"sku": str(i)}]} for i in range(3))):
        lines.queue.send([body])
    lines.start()
    wait_until(lambda: "23514" in (lines.stat()["why"] or ""), what="the table is suspected")
    lines.db.sql("ALTER TABLE lines DROP CONSTRAINT nothing")
    wait_until(lambda: len(line_rows(lines)) == 3, what="the rows are in")
    assert lines.dead_letters() == []


@pytest.mark.parametrize("body, reason", [
    ({"order": "A"}, "missing_field"), ({"order": "A", "items": None}, "missing_field"), ({"order": "A", "items": {"sku": "x"}}, "wrong_type"),
    ({"order": "A", "items": "x"}, "wrong_type"),
])  # fmt: skip
def test_a_body_without_the_array_is_rejected(lines, body, reason):
    ingest(lines, body)
    assert reasons(lines)[0][:2] == (reason, "items")


def test_many_elements_in_one_message(lines):
    ingest(lines, {"order": "A", "items": [{"sku": str(i)} for i in range(5000)]})
    assert lines.db.one("SELECT count(*), max(line), count(DISTINCT sku) FROM lines") == (5000, 4999, 5000)


def test_redriven_elements_land_together(lines):
    ingest(lines, {"order": "A", "items": [{"sku": "x", "qty": 200}, {"sku": "y"}]})
    lines.db.sql("ALTER TABLE lines DROP CONSTRAINT lines_qty_check")
    assert lines.db.value("SELECT sqs_ingest_redrive(%s)", [lines.name]) == 1
    assert line_rows(lines) == [("A", 0, "x", 200), ("A", 1, "y", 1)]


def test_preview_shows_each_row_and_column(lines):
    shown = lines.preview({"order": "A", "items": [{"sku": "x"}, {"sku": "y", "qty": 3}]})
    assert shown["rows"] == [{"order_id": "A", "line": 0, "sku": "x", "qty": 1}, {"order_id": "A", "line": 1, "sku": "y", "qty": 3}]
    assert [row["qty"]["from"] for row in shown["columns"]] == ["default", "@each/qty"]
    shown = lines.preview({"order": "A", "items": [{"sku": "x"}, {}, {"sku": "y", "qty": "many"}]})
    assert shown["rejected"]["reason"], shown["rejected"]["field"] == ("missing_field", "@each/sku")
    assert "rows" not in shown
    assert [row["sku"].get("rejected") for row in shown["columns"]] == [None, "missing_field", None]
    assert shown["columns"][2]["qty"]["rejected"] == "wrong_type"


# -- rows that are there already --------------------------------------------------------------------------------------


@pytest.fixture
def keyed(pipelines):
    """keyed(on_conflict, ...): a pipeline into t, whose key is id, with row 1 already there."""
    pipelines.db.sql("CREATE TABLE t (id integer UNIQUE, note text, kept text DEFAULT 'kept')")
    pipelines.db.sql("INSERT INTO t VALUES (1, 'old', 'of old')")
    return lambda on_conflict, **more: pipelines("t", [{"column": "id", "from": "/id"}, NOTE], on_conflict=on_conflict, **more)


def all_of(pipeline):
    return pipeline.db.sql("SELECT id, note, kept FROM t ORDER BY id NULLS LAST, note")


def test_a_conflict_makes_a_dead_letter_by_default(keyed):
    pipeline = keyed(None)
    ingest(pipeline, *events([1, 2, 2]))
    assert [row[:2] for row in all_of(pipeline)] == [(1, "old"), (2, "note 2")]
    assert [letter[2:] for letter in reasons(pipeline)] == [("23505", "t_id_key")] * 2


@pytest.mark.parametrize("columns", [None, ["id"]])
def test_on_conflict_nothing_keeps_the_row_that_is_there(keyed, columns):
    pipeline = keyed("nothing", conflict_columns=columns)
    ingest(pipeline, {"id": 1, "note": "new"}, {"id": 2, "note": "first"}, {"id": 2, "note": "second"}, {"note": "a"}, {"note": "b"})
    assert all_of(pipeline) == [(1, "old", "of old"), (2, "first", "kept"), (None, "a", "kept"), (None, "b", "kept")]
    stat = pipeline.stat()
    assert (stat["inserted"], stat["duplicates"], stat["dead_letters"]) == (3, 2, 0)


SWALLOW = "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN NEW.id < 3 THEN NULL ELSE NEW END; END $$"


@pytest.mark.parametrize("table, target, trigger", [
    ("t (id integer UNIQUE, note text)", "t", "BEFORE INSERT ON t"),
    ("t (id integer UNIQUE, note text) PARTITION BY RANGE (id); CREATE TABLE p PARTITION OF t DEFAULT", "t", "BEFORE INSERT ON p"),
    ("t (id integer UNIQUE, note text); CREATE VIEW v AS SELECT * FROM t", "v", "BEFORE INSERT ON t"),
    ("t (id integer UNIQUE, note text)", "t", None),
], ids=["table", "partition", "view", "rule"])  # fmt: skip
def test_rows_that_a_trigger_or_rule_leaves_out_are_no_duplicates(pipelines, table, target, trigger):
    pipelines.db.sql(f"CREATE TABLE {table}")
    pipelines.db.sql(SWALLOW)
    pipeline = pipelines(target, MAPPING, on_conflict="nothing")
    ingest(pipeline, *events([5, 5]))
    assert [pipeline.stat()[n] for n in ("inserted", "duplicates")] == [1, 1]
    pipelines.db.sql(f"CREATE TRIGGER swallow {trigger} FOR EACH ROW EXECUTE FUNCTION swallow()" if trigger else
                     "CREATE RULE swallow AS ON INSERT TO t WHERE NEW.id < 3 DO INSTEAD NOTHING")  # fmt: skip
    ingest(pipeline, *events([1, 2, 3, 4]))
    assert pipelines.db.sql("SELECT id FROM t ORDER BY 1") == [(3,), (4,), (5,)]
    assert [pipeline.stat()[n] for n in ("inserted", "duplicates")] == [5, 1]


def test_on_conflict_update_overwrites_what_is_mapped(keyed):
    pipeline = keyed("update", conflict_columns=["id"])
    ingest(pipeline, {"id": 1, "note": "new"}, {"id": 2, "note": "first"}, {"id": 2, "note": "second"}, {"id": 2, "note": "third"},
           {"note": "a"}, {"note": "b"}, {"id": 1})  # fmt: skip
    assert all_of(pipeline) == [(1, None, "of old"), (2, "third", "kept"), (None, "a", "kept"), (None, "b", "kept")]
    assert pipeline.stat()["inserted"] == 7
    assert pipeline.dead_letters() == []


def test_on_conflict_update_with_a_bad_row_among_them(keyed):
    pipeline = keyed("update", conflict_columns=["id"])
    pipeline.db.sql("ALTER TABLE t ADD CHECK (note <> 'bad')")
    ingest(pipeline, {"id": 1, "note": "new"}, {"id": 3, "note": "bad"}, {"id": 1, "note": "newer"}, {"id": 4, "note": "x"})
    assert [row[:2] for row in all_of(pipeline)] == [(1, "newer"), (4, "x")]
    assert [letter[2] for letter in reasons(pipeline)] == ["23514"]


def test_on_conflict_update_of_nothing_but_the_key(keyed, pipelines):
    pipelines.db.sql("CREATE TABLE ids (id integer PRIMARY KEY)")
    pipeline = pipelines("ids", [ID], on_conflict="update", conflict_columns=["id"])
    ingest(pipeline, *events([1, 1, 2]))
    assert pipelines.db.sql("SELECT id FROM ids ORDER BY 1") == [(1,), (2,)]


def test_keys_that_the_table_takes_for_equal_meet_each_other(pipelines):
    """Different texts, one key: citext, trailing spaces, rounding."""
    db = pipelines.db
    db.sql("CREATE EXTENSION citext; CREATE TABLE t (id citext, at timestamptz(0), note text, UNIQUE (id, at))")
    mapping = [{"column": "id", "from": "/id"}, {"column": "at", "from": "/at"}, NOTE]
    pipeline = pipelines("t", mapping, on_conflict="update", conflict_columns=["id", "at"])
    at = "2026-11-21T10:00:00"
    ingest(pipeline, {"id": "a", "at": at, "note": "1"}, {"id": "A", "at": at, "note": "2"}, {"id": "a", "at": f"{at}.2Z", "note": "3"},
           {"id": "b", "at": at, "note": "4"})  # fmt: skip
    assert db.sql("SELECT id::text, note FROM t ORDER BY lower(id)") == [("a", "3"), ("b", "4")]
    assert pipeline.dead_letters() == []


ROUNDED = "2026-11-21T10:00:00."
EQUAL_KEYS = {  # to the table's unique index, whatever their texts say
    "citext": ("id citext UNIQUE", "A", "a"),
    "char": ("id char(3) UNIQUE", "a", "a "),
    "collation": ("id text COLLATE ci UNIQUE", "A", "a"),
    "collation of a domain": ("id ci_text UNIQUE", "A", "a"),
    "collation of an array": ("id text[] COLLATE ci UNIQUE", ["A"], ["a"]),
    "collation of the index": ("id text); CREATE UNIQUE INDEX ON t (id COLLATE ci", "A", "a"),
    "collation of one of two indexes": ("id text UNIQUE); CREATE UNIQUE INDEX ON t (id COLLATE ci", "A", "a"),
    "timestamptz(0)": ("id timestamptz(0) UNIQUE", f"{ROUNDED}1Z", f"{ROUNDED}2Z"),
    "timestamptz(3)": ("id timestamptz(3) UNIQUE", f"{ROUNDED}1234Z", f"{ROUNDED}12341Z"),
    "numeric": ("id numeric(6,2) UNIQUE", 1.001, 1.002),
    "numeric of a domain": ("id cents UNIQUE", 1.001, 1.002),
    "numerics": ("id numeric(6,2)[] UNIQUE", [1.001, 2], [1.002, 2]),
    "null": ("id integer UNIQUE NULLS NOT DISTINCT", None, None),
    "null of one of two indexes": ("id integer UNIQUE, UNIQUE NULLS NOT DISTINCT (id)", None, None),
}  # fmt: skip
DIFFERENT_KEYS = {
    "collation of the index": ('id text COLLATE ci); CREATE UNIQUE INDEX ON t (id COLLATE "C"', "A", "a"),
    "null": ("id integer UNIQUE", None, None),
    "numeric": ("id numeric(6,2) UNIQUE", 1.01, 1.02),
    "text": ("id text UNIQUE", "a", "a "),
}


def keyed_by(pipelines, column, view=False, **more):
    db = pipelines.db
    db.sql("CREATE EXTENSION citext; CREATE DOMAIN cents AS numeric(6,2)")
    db.sql("CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    db.sql("CREATE DOMAIN ci_text AS text COLLATE ci")
    db.sql(f"CREATE TABLE t (note text, {column})")
    db.sql("CREATE VIEW inner_v AS SELECT id, note FROM t; CREATE VIEW v AS SELECT note, id FROM inner_v")
    of_element = [{"column": "id", "from": "@each/id"}, {"column": "note", "from": "@each/note"}]
    mapping = of_element if "each" in more else [{"column": "id", "from": "/id"}, NOTE]
    return pipelines("v" if view else "t", mapping, on_conflict="update", conflict_columns=["id"], **more)


def notes(pipeline):
    return [note for (note,) in pipeline.db.sql("SELECT note FROM t ORDER BY 1")]


@pytest.mark.parametrize("view", [False, True], ids=["table", "view"])
@pytest.mark.parametrize("column, first, second", EQUAL_KEYS.values(), ids=EQUAL_KEYS)
def test_keys_that_the_index_takes_for_equal_meet_in_one_message(pipelines, column, first, second, view):
    pipeline = keyed_by(pipelines, column, view, each="/rows")
    ingest(pipeline, {"rows": [{"id": first, "note": "first"}, {"id": second, "note": "second"}]})
    assert (notes(pipeline), reasons(pipeline)) == (["second"], [])


@pytest.mark.parametrize("column, first, second", EQUAL_KEYS.values(), ids=EQUAL_KEYS)
def test_keys_that_the_index_takes_for_equal_meet_in_one_batch_at_once(pipelines, column, first, second):
    """A sequence counts the rows that are tried, those of a statement that failed too."""
    pipeline = keyed_by(pipelines, column)
    pipeline.db.sql("CREATE SEQUENCE tried; ALTER TABLE t ADD n integer; ALTER TABLE t ALTER n SET DEFAULT nextval('tried')")
    ingest(pipeline, {"id": first, "note": "first"}, {"id": second, "note": "second"})
    assert (notes(pipeline), reasons(pipeline)) == (["second"], [])
    assert pipeline.db.one("SELECT last_value, is_called FROM tried") == (1, True)


@pytest.mark.parametrize("view", [False, True], ids=["table", "view"])
@pytest.mark.parametrize("column, first, second", DIFFERENT_KEYS.values(), ids=DIFFERENT_KEYS)
def test_keys_that_the_index_keeps_apart_are_kept_apart(pipelines, column, first, second, view):
    pipeline = keyed_by(pipelines, column, view, each="/rows")
    ingest(pipeline, {"rows": [{"id": first, "note": "first"}, {"id": second, "note": "second"}]})
    assert (notes(pipeline), reasons(pipeline)) == (["first", "second"], [])


def test_keys_that_a_trigger_gives_are_not_taken_for_one(pipelines):
    pipeline = keyed_by(pipelines, "id integer UNIQUE NULLS NOT DISTINCT")
    pipeline.db.sql("CREATE SEQUENCE s")
    pipeline.db.sql("CREATE FUNCTION number() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := nextval('public.s'); RETURN NEW; END $$")
    pipeline.db.sql("CREATE TRIGGER number BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id IS NULL) EXECUTE FUNCTION number()")
    ingest(pipeline, {"note": "first"}, {"note": "second"})
    assert content(pipelines, "t") == [(1, "first"), (2, "second")]
    assert pipeline.dead_letters() == []


@pytest.mark.parametrize("before, after, first, second", [
    ("id integer, CONSTRAINT u UNIQUE NULLS NOT DISTINCT (id)", "ALTER TABLE t DROP CONSTRAINT u, ADD CONSTRAINT u UNIQUE (id)", None, None),
    ("id text COLLATE ci); CREATE UNIQUE INDEX u ON t (id", 'CREATE UNIQUE INDEX n ON t (id COLLATE "C"); DROP INDEX u', "A", "a"),
], ids=["nulls", "collation"])  # fmt: skip
def test_a_key_that_is_told_in_another_way_is_noticed(pipelines, before, after, first, second):
    pipeline = keyed_by(pipelines, before, each="/rows")
    message = {"rows": [{"id": first, "note": "first"}, {"id": second, "note": "second"}]}
    pipeline.start()
    pipeline.queue.send([message])
    pipeline.wait_until_ingested(1)
    assert notes(pipeline) == ["second"]
    pipeline.db.sql(f"DELETE FROM t; {after}")
    pipeline.queue.send([message])
    pipeline.wait_until_ingested(2)
    assert (notes(pipeline), reasons(pipeline)) == (["first", "second"], [])


@pytest.mark.parametrize("on_conflict", ["nothing", "update"])
def test_an_index_that_is_built_anew_is_no_trouble(pipelines, on_conflict):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer CONSTRAINT k PRIMARY KEY, note text)")
    pipeline = pipelines("t", MAPPING, on_conflict=on_conflict, conflict_columns=["id"])
    pipeline.start()
    pipeline.queue.send(events([1, 2]))
    pipeline.wait_until_ingested(2)
    db.sql("REINDEX INDEX CONCURRENTLY k")
    pipeline.queue.send([{"id": 2, "note": "new"}, *events([3, 3])])
    pipeline.wait_for(deleted=5)
    assert content(pipelines, "t") == [(1, "note 1"), (2, "new" if on_conflict == "update" else "note 2"), (3, "note 3")]
    assert (pipeline.stat()["last_error"], pipeline.dead_letters()) == (None, [])


@pytest.mark.parametrize("options", [{}, {"on_conflict": "nothing"}, {"on_conflict": "update", "conflict_columns": ["id"]}],
                         ids=["dead_letter", "nothing", "update"])  # fmt: skip
@pytest.mark.parametrize("target, at", [("t", "t"), ("v", "v"), ("v", "t")], ids=["table", "view", "table behind a view"])
def test_a_rule_that_leaves_nothing_of_an_insert_is_told_and_loses_nothing(pipelines, target, at, options):
    """Such a statement has no plan at all, and says that it inserted everything."""
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer PRIMARY KEY, note text); CREATE VIEW v AS SELECT * FROM t")
    pipeline = pipelines(target, MAPPING, **options)
    pipeline.start()
    pipeline.queue.send(events([1]))
    pipeline.wait_until_ingested(1)
    worker = worker_pids(pipeline)
    db.sql(f"CREATE RULE nothing AS ON INSERT TO {at} DO INSTEAD NOTHING")
    pipeline.queue.send(events([2, 3]))
    assert pipeline.wait_for(state="backing_off", why=lambda told: "a rule leaves nothing" in told)["hint"]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="a rule leaves nothing"):
        pipelines(target, MAPPING, **options)
    db.sql(f"DROP RULE nothing ON {at}")
    pipeline.wait_until_ingested(3)
    assert content(pipelines, "t") == [(i, f"note {i}") for i in (1, 2, 3)] and worker_pids(pipeline) == worker
    assert [pipeline.stat()[n] for n in ("inserted", "duplicates", "dead_letters")] == [3, 0, 0]


@pytest.mark.parametrize("column", ["bit(3)", "varbit(3)"])
def test_a_key_that_is_too_long_does_not_meet_what_it_would_be_cut_to(pipelines, column):
    pipeline = keyed_by(pipelines, f"id {column} UNIQUE")
    ingest(pipeline, {"id": "1011", "note": "too long"}, {"id": "101", "note": "right"})
    assert (notes(pipeline), reasons(pipeline)[0][:2]) == (["right"], ("bad_value", "id"))


def test_on_conflict_in_a_partitioned_table(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text, PRIMARY KEY (id)) PARTITION BY RANGE (id)")
    db.sql("CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (10) TO (20)")
    pipeline = pipelines("t", MAPPING, on_conflict="update", conflict_columns=["id"])
    ingest(pipeline, *events([1, 11]), *events([1, 11, 30], note="new"))
    assert content(pipelines, "t") == [(1, "new"), (11, "new")]
    assert len(pipeline.dead_letters()) == 1


def test_on_conflict_of_each_element(pipelines):
    pipelines.db.sql("CREATE TABLE t (id integer PRIMARY KEY, note text)")
    mapping = [{"column": "id", "from": "@each/id"}, {"column": "note", "from": "@each/note"}]
    pipeline = pipelines("t", mapping, each="/rows", on_conflict="update", conflict_columns=["id"])
    ingest(pipeline, {"rows": events([1, 2])}, {"rows": events([2, 3, 3], note="last")})
    assert content(pipelines, "t") == [(1, "note 1"), (2, "last"), (3, "last")]


@pytest.mark.parametrize("options, error, message", [
    ({"on_conflict": "update"}, psycopg.errors.InvalidParameterValue, "conflict_columns"),
    ({"on_conflict": "update", "conflict_columns": []}, psycopg.errors.InvalidParameterValue, "conflict_columns"),
    ({"on_conflict": "update", "conflict_columns": ["note"]}, psycopg.errors.InvalidColumnReference, "no unique or exclusion constraint"),
    ({"on_conflict": "update", "conflict_columns": ["gone"]}, psycopg.errors.ObjectNotInPrerequisiteState, "gone"),
    ({"on_conflict": "update", "conflict_columns": ["kept"]}, psycopg.errors.ObjectNotInPrerequisiteState, "not mapped"),
    ({"on_conflict": "nothing", "conflict_columns": ["note"]}, psycopg.errors.InvalidColumnReference, "no unique or exclusion constraint"),
    ({"on_conflict": "nothing", "conflict_columns": ["gone"]}, psycopg.errors.UndefinedColumn, "gone"),
    ({"conflict_columns": ["id"]}, psycopg.errors.InvalidParameterValue, "conflict_columns"),
    ({"on_conflict": "replace"}, psycopg.errors.InvalidParameterValue, "on_conflict"),
])  # fmt: skip
def test_conflict_options_that_cannot_work_are_refused(keyed, options, error, message):
    with pytest.raises(error, match=message):
        keyed(options.pop("on_conflict", None), **options)


def test_a_view_cannot_have_conflicts(pipelines):
    pipelines.db.sql("CREATE VIEW v AS SELECT 1 AS id, ''::text AS note")
    pipelines.db.sql("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
    pipelines.db.sql("CREATE TRIGGER f INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION f()")
    with pytest.raises(psycopg.Error, match="constraint"):
        pipelines("v", MAPPING, on_conflict="update", conflict_columns=["id"])


def test_workers_that_update_the_same_rows_do_not_deadlock(pipelines):
    """Four workers, few keys, each message a run of them in another order."""
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer PRIMARY KEY, note text, writes integer DEFAULT 1)")
    db.sql("""CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN NEW.writes := OLD.writes + 1; RETURN NEW; END $$""")
    db.sql("CREATE TRIGGER count_writes BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION count_writes()")
    mapping = [{"column": "id", "from": "@each/id"}, {"column": "note", "from": "@each/note"}]
    queue = pipelines.queue()
    pipeline = pipelines("t", mapping, each="/rows", on_conflict="update", conflict_columns=["id"], workers=4, batch_size=5, queue=queue,
                         endpoint_url=queue.endpoint)  # fmt: skip
    sent = [{"rows": [{"id": (i * 7 + j * step) % 20, "note": f"{i}/{j}"} for j in range(20)]} for i in range(100) for step in (1, 3, 7)]
    pipeline.queue.send(sent)
    since = db.cluster.log_position()
    pipeline.start()
    pipeline.wait_until_ingested(len(sent), timeout=90)
    assert db.value("SELECT count(*) FROM t") == 20
    assert db.value("SELECT max(writes) FROM t") > 20
    assert "deadlock detected" not in db.cluster.log(since)
    assert pipeline.dead_letters() == []


# -- the table changes while the worker runs --------------------------------------------------------------------------


@pytest.fixture
def running(pipelines):
    """A pipeline into t (id integer, note text), running; its first message is there."""
    pipelines.db.sql("CREATE TABLE t (id integer, note text)")
    pipeline = pipelines("t", MAPPING)
    pipeline.start()
    pipeline.queue.send(events([1]))
    pipeline.wait_for(deleted=1)
    return pipeline


def worker_pids(pipeline):
    return pipeline.cluster.pids("sqs_ingest worker", pipeline.db.name)


def test_a_type_that_changes_is_noticed(running, pipelines):
    running.db.sql("ALTER TABLE t ALTER note TYPE varchar(5) USING left(note, 5)")
    running.queue.send([{"id": 2, "note": "short"}, {"id": 3, "note": "far too long"}])
    running.wait_until_ingested(3)
    assert content(pipelines, "t") == [(1, "note "), (2, "short")]
    running.db.sql("ALTER TABLE t ALTER id TYPE text")
    running.queue.send([{"id": "four", "note": "x"}, {"id": 5, "note": "y"}])
    running.wait_until_ingested(5)
    assert [row[0] for row in content(pipelines, "t")] == ["1", "2", "5", "four"]
    assert [letter["field"] for letter in running.dead_letters()] == ["note"]


@pytest.mark.parametrize("change, mend, why", [
    ("ALTER TABLE t DROP note", "ALTER TABLE t ADD note text", 'has no column "note"'),
    ("ALTER TABLE t RENAME note TO remark", "ALTER TABLE t RENAME remark TO note", 'has no column "note"'),
    ("ALTER TABLE t RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO t", 'relation "public.t" does not exist'),
    ("ALTER TABLE t ADD must integer NOT NULL DEFAULT 1; ALTER TABLE t ALTER must DROP DEFAULT", "ALTER TABLE t ALTER must SET DEFAULT 2",
     'column "must"'),
    ("ALTER TABLE t DROP id; ALTER TABLE t ADD id integer GENERATED ALWAYS AS (1) STORED",
     "ALTER TABLE t ALTER id DROP EXPRESSION", 'column "id" of target table public.t is generated'),
    ("ALTER TABLE t ALTER note TYPE point USING NULL", "ALTER TABLE t ALTER note TYPE text USING ''", None),
    ("ALTER TABLE t DISABLE TRIGGER ALL; DROP TABLE t", "CREATE TABLE t (id integer, note text)", 'relation "public.t" does not exist'),
])  # fmt: skip
def test_a_table_that_no_longer_fits_is_told_and_work_resumes_by_itself(running, change, mend, why):
    running.db.sql(change)
    running.queue.send(events(range(2, 6)))
    if why:
        stat = running.wait_for(state="backing_off", why=lambda told: why in told)
        assert stat["hint"]
        assert running.dead_letters() == []
        worker = worker_pids(running)
        running.db.sql(mend)
        running.wait_until_ingested(5)
        assert worker_pids(running) == worker
        assert running.db.value("SELECT count(*) FROM t WHERE id IS NOT NULL") >= 4
        assert running.dead_letters() == []
    else:  # it fits, and takes none of the values
        running.wait_until_ingested(5)
        assert [letter[:2] for letter in reasons(running)] == [("bad_value", "note")] * 4
        running.db.sql(mend)
        assert running.db.value("SELECT sqs_ingest_redrive(%s)", [running.name]) == 4
        assert running.db.value("SELECT count(*) FROM t WHERE note LIKE 'note %'") == 4


def test_a_table_that_is_changed_without_end_loses_nothing(running):
    """Types that go to and fro while messages come in."""
    types = ["bigint", "numeric", "text", "integer"]
    for round_ in range(8):
        running.queue.send(events(range(100 + 20 * round_, 120 + 20 * round_)))
        kind = types[round_ % 4]
        running.db.sql(f"ALTER TABLE t ALTER id TYPE {kind} USING id::text::{kind}")
    running.wait_until_ingested(161)
    assert running.db.one("SELECT count(*), count(DISTINCT id) FROM t") == (161, 161)
    assert running.dead_letters() == []
