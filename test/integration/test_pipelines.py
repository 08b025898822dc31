"""Pipelines are made, changed and dropped by SQL, while they run too; what a mapping can take from a message; and the options."""
import json
import threading

import psycopg
import psycopg.rows
import pytest
from harness import Database, wait_until
from pipeline import assert_counters_add_up, other_db_fixture, stop_soon  # noqa: F401
from pipelines import Pipelines, make_proxy_fixture, pipelines_fixture  # noqa: F401
from proxy import error, short_polls
from redelivery import Handouts

MAPPING = [{"column": "id", "from": "/id", "required": True}, {"column": "note", "from": "/note"}]


def events(numbers, **more):
    return [{"id": i, "note": f"note {i}", **more} for i in numbers]


def ids(pipeline, table="t"):
    return [row[0] for row in pipeline.db.sql(f"SELECT id FROM {table} ORDER BY 1")]


@pytest.fixture
def t(pipelines):
    """The pipeline `events` into the table t (id integer, note text), not started."""
    pipelines.db.sql("CREATE TABLE t (id integer, note text)")
    return pipelines("t", MAPPING)


def options_of(pipeline):
    return pipeline.db.value("SELECT to_jsonb(p) FROM sqs_ingest_pipeline p WHERE name = %s", [pipeline.name])


# -- create -----------------------------------------------------------------------------------------------------------


def test_create_alone_ingests_nothing_and_start_does(t):
    t.queue.send(events([1]))
    assert t.stat()["state"] == "stopped"
    assert t.start() is True
    t.wait_until_ingested(1)
    assert ids(t) == [1]
    assert t.start() is False


def test_create_returns_the_mapping_and_stores_the_defaults(pipelines):
    db, queue = pipelines.db, pipelines.queue()
    db.sql("CREATE SCHEMA s; CREATE TABLE s.t (id integer, note text)")
    db.sql("SELECT sqs_ingest_create_keyring()") if not (db.cluster.data / "sqs_ingest.keyring").exists() else None
    assert db.value("SELECT sqs_ingest_create_pipeline('p', %s, 's.t', %s)", [queue.url, json.dumps(MAPPING)]) == MAPPING
    row = db.value("SELECT to_jsonb(p) FROM sqs_ingest_pipeline p")
    assert {name: row[name] for name in ("owner", "target", "mask_method", "workers", "batch_size", "wait_time", "max_receivers", "on_invalid",
                                         "on_conflict", "ledger", "envelope", "body_encoding", "each", "visibility_timeout")} == {
        "owner": "postgres", "target": "s.t", "mask_method": "hmac", "workers": 1, "batch_size": 500, "wait_time": 20, "max_receivers": 8,
        "on_invalid": "dead_letter", "on_conflict": "dead_letter", "ledger": True, "envelope": "none", "body_encoding": "plain", "each": None,
        "visibility_timeout": None}  # fmt: skip


def test_a_pipeline_from_a_table_in_one_call(pipelines):
    db = pipelines.db
    db.sql("""CREATE TABLE visits (number bigint GENERATED ALWAYS AS IDENTITY, user_id uuid NOT NULL, masked_ip text NOT NULL, masked_phone text,
                                   "a/b~c" integer, tags text[], extra jsonb, at timestamptz DEFAULT now(), twice integer GENERATED ALWAYS AS ("a/b~c" * 2) STORED)""")  # fmt: skip
    pipeline = pipelines("visits")
    user = "424cdd21-063a-43a7-b91b-7ca1a833afae"
    pipeline.queue.send([{"user_id": user, "ip": "::FFFF:10.0.0.1", "phone": "+49 30", "a/b~c": 4, "tags": ["x"], "extra": {"y": 1}},
                         {"user_id": user}])  # fmt: skip
    pipeline.drain()
    assert db.sql("SELECT number, user_id::text, masked_ip, masked_phone, \"a/b~c\", tags, extra, twice FROM visits") == [
        (1, user, db.value("SELECT mask('10.0.0.1')"), db.value("SELECT mask('+49 30')"), 4, ["x"], {"y": 1}, 8)]
    assert [letter["reason"] for letter in pipeline.dead_letters()] == ["missing_field"]
    assert db.value("SELECT sqs_ingest_forget(%s, %s)", [user, pipeline.name]) == {"rows": 1, "dead_letters": 1, "not_opened": 0}


def test_a_pipeline_from_a_table_leaves_the_defaults_of_domains_to_the_database(pipelines):
    db = pipelines.db
    db.sql("""CREATE DOMAIN state AS text DEFAULT 'new'; CREATE DOMAIN inner_state AS state NOT NULL; CREATE DOMAIN plain AS text; CREATE DOMAIN bare AS state;
              ALTER DOMAIN bare DROP DEFAULT; CREATE TABLE t (id integer, a state NOT NULL, b state, c inner_state, d plain, e bare)""")  # fmt: skip
    said = []
    db.connection.add_notice_handler(lambda diag: said.append(diag.message_primary))
    pipeline = pipelines("t")
    assert "columns left to the database, which fills them: a, b, c" in said
    pipeline.queue.send([{"id": 1, "a": "x", "d": "d", "e": "e"}, {"id": 2}])
    pipeline.drain()
    assert db.sql("SELECT * FROM t ORDER BY id") == [(1, "new", "new", "new", "d", "e"), (2, "new", "new", "new", None, None)]
    assert pipeline.dead_letters() == []


def test_a_table_without_a_column_to_fill_is_refused(pipelines):
    pipelines.db.sql("CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT now())")
    with pytest.raises(psycopg.errors.InvalidTableDefinition, match="no column"):
        pipelines("t")


def column(name="id", **rule):
    return [{"column": name, **rule}]


TABLE = """CREATE TABLE t (id integer, note text, short varchar(10), at timestamptz, gen integer GENERATED ALWAYS AS (1) STORED,
    ident integer GENERATED ALWAYS AS IDENTITY, u uuid, b boolean, ip inet, n numeric, arr integer[], j jsonb, d date, big bigint)"""


@pytest.mark.parametrize("columns, names, why", [
    (column("gone", **{"from": "/x"}), "gone", "no column"),
    (column("gen", **{"from": "/x"}), "gen", "generated"),
    (column("ident", **{"from": "/x"}), "ident", "identity"),
    (column("id", **{"from": "/x", "steps": ["mask"]}), "id", "masked"),
    (column("short", **{"from": "/x", "steps": ["mask"]}), "short", "68 characters"),
    (column("short", **{"from": "/x", "steps": ["mask:md5"]}), "short", "32 characters"),
    (column("id", **{"from": "/x", "steps": ["ip"]}), "id", "IP address"),
    (column("b", **{"from": "/x", "steps": ["version"]}), "b", "number"),
    (column("id", **{"from": "/x", "steps": ["date"]}), "id", "date"),
    (column("u", **{"from": "/x", "steps": ["epoch_millis"]}), "u", "time"),
    (column("id", **{"from": "@message_id"}), "id", "message id"),
    (column("id", **{"from": "@queue"}), "id", "queue URL"),
    (column("id", **{"from": "@sent_at"}), "id", "bigint"),
    (column("b", **{"from": "@receive_count"}), "b", "number"),
    (column("big", **{"from": "@sequence_number"}), "big", "20 digits"),
    (column("id", **{"from": "@body", "mask_parts": []}), "id", "JSON"),
    (column("short", **{"from": "@body", "mask_parts": []}), "short", "JSON"),
    (column("id", **{"constant": "x"}), "id", "constant"),
    (column("id", **{"from": "/x", "default": 2.5}), "id", "default"),
    (column("short", **{"constant": "far too long a text"}), "short", "too_long"),
    (column("ip", **{"constant": "10.0.0.256"}), "ip", "constant"),
    (column("u", **{"constant": "x"}), "u", "constant"),
    (column("note", **{"constant": {}}), "note", "constant"),
    (column("id", **{"constant": "two", "steps": ["version"]}), "id", "constant"),
    (column("id", **{"from": "x"}), "id", "JSON Pointer"),
    (column("id", **{"from": "/x", "steps": ["upper"]}), "id", "unknown step"),
    (column("id", **{"from": "/x", "upper": 1}), "id", "unknown key"),
    (column("id"), "id", '"from" is missing'),
    (column("id", **{"from": "@each"}), "id", "option each"),
    (column("id", **{"from": "/x"}) * 2, "id", "twice"),
    (column("j", **{"from": "@body"}), "j", "mask_parts"),
])  # fmt: skip
def test_a_mapping_that_cannot_work_is_refused_with_column_and_reason(pipelines, columns, names, why):
    pipelines.db.sql(TABLE)
    with pytest.raises(psycopg.Error) as refused:
        pipelines("t", columns)
    said = " ".join(filter(None, [refused.value.diag.message_primary, refused.value.diag.message_detail]))
    assert f'"{names}"' in said and why in said, said
    assert refused.value.diag.message_hint
    assert pipelines.db.sql("SELECT 1 FROM sqs_ingest_pipeline") == []


def test_a_needed_column_that_is_not_mapped_is_named(pipelines):
    pipelines.db.sql("CREATE TABLE t (id integer, must integer NOT NULL)")
    with pytest.raises(psycopg.errors.NotNullViolation, match='"must".* not mapped'):
        pipelines("t", column(**{"from": "/id"}))


@pytest.mark.parametrize("options, message", [
    ({"workers": 0}, "workers"), ({"workers": 17}, "workers"), ({"batch_size": 0}, "batch_size"), ({"batch_size": 2001}, "batch_size"),
    ({"wait_time": 21}, "wait_time"), ({"max_receivers": 33}, "max_receivers"), ({"visibility_timeout": 29}, "visibility_timeout"),
    ({"visibility_timeout": 43201}, "visibility_timeout"), ({"on_invalid": "drop"}, "on_invalid"), ({"max_receive_count": 0}, "max_receive_count"),
    ({"dead_letter_retention": "-1 day"}, "dead_letter_retention"), ({"protocol": "xml"}, "protocol"), ({"envelope": "kafka"}, "envelope"),
    ({"body_encoding": "rot13"}, "body_encoding"), ({"mask_method": "rot13"}, "rot13"), ({"each": "items"}, "each"),
    ({"envelope": "eventbridge", "body_encoding": "base64"}, "do not go together"), ({"name": ""}, "name"), ({"name": "x" * 64}, "name"),
    ({"endpoint_url": "ftp://x"}, "endpoint"), ({"region": "x.example.org/"}, "region"),
])  # fmt: skip
def test_an_option_that_cannot_work_is_refused_by_name(pipelines, options, message):
    pipelines.db.sql("CREATE TABLE t (id integer, note text)")
    with pytest.raises(psycopg.Error) as refused:
        pipelines("t", MAPPING, **options)
    assert message in refused.value.diag.message_primary
    assert refused.value.diag.message_hint


def test_a_target_that_is_no_table_is_refused(t):
    """A regclass can be any number."""
    for call in ("sqs_ingest_create_pipeline('x', 'http://127.0.0.1:1/q', '999999'::regclass)",
                 f"sqs_ingest_alter_pipeline('{t.name}', target => '999999'::regclass)"):
        with pytest.raises(psycopg.errors.UndefinedTable) as refused:
            t.db.sql("SELECT " + call)
        assert "999999" in refused.value.diag.message_primary and refused.value.diag.message_hint


def test_the_same_name_twice_is_refused(t, pipelines):
    with pytest.raises(psycopg.errors.DuplicateObject) as refused:
        pipelines("t", MAPPING, name=t.name)
    assert "sqs_ingest_alter_pipeline" in refused.value.diag.message_hint


def test_create_rolls_back(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text)")
    with db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_create_pipeline('p', 'http://127.0.0.1:1/q', 't')")
        session.execute("SELECT sqs_ingest_start('p')")
        session.rollback()
    assert db.sql("SELECT 1 FROM sqs_ingest_pipeline") == []
    assert db.value("SELECT sqs_ingest_status()") == {}


# -- where values come from -------------------------------------------------------------------------------------------


def test_every_source(pipelines):
    db = pipelines.db
    db.sql("""CREATE TABLE t (pointer text, tried text, attr text, num numeric, bin text, mid uuid, sent timestamptz, sent_ms bigint, sent_date date,
                              received timestamptz, n integer, q text, body jsonb, const jsonb, def text)""")  # fmt: skip
    pipeline = pipelines("t", [
        {"column": "pointer", "from": "/a~1b/0/m~0n"},
        {"column": "tried", "from": ["/no", "@attribute:none", "/null", "/yes", "/later"]},
        {"column": "attr", "from": "@attribute:trace.id", "steps": ["trim", "lower"]},
        {"column": "num", "from": "@attribute:num"},
        {"column": "bin", "from": "@attribute:bin"},
        {"column": "mid", "from": "@message_id"},
        {"column": "sent", "from": "@sent_at"},
        {"column": "sent_ms", "from": "@sent_at"},
        {"column": "sent_date", "from": "@sent_at"},
        {"column": "received", "from": "@received_at"},
        {"column": "n", "from": "@receive_count"},
        {"column": "q", "from": "@queue"},
        {"column": "body", "from": "@body", "mask_parts": ["/secret", "/a~1b/0"]},
        {"column": "const", "constant": {"k": [1, None]}},
        {"column": "def", "from": "/no", "default": "fallback"},
    ])  # fmt: skip
    body = {"a/b": [{"m~n": "deep"}], "null": None, "yes": "this", "later": "not", "secret": {"x": ["s1", 7, True, None]}}
    attributes = {"trace.id": {"DataType": "String", "StringValue": " ABC "}, "num": {"DataType": "Number", "StringValue": "1.50"},
                  "bin": {"DataType": "Binary", "BinaryValue": b"text"}}  # fmt: skip
    before = db.value("SELECT date_trunc('milliseconds', clock_timestamp())")
    (message_id,) = pipeline.queue.send([body], MessageAttributes=attributes)
    pipeline.drain()
    assert pipeline.dead_letters() == []
    with db.connect(row_factory=psycopg.rows.dict_row) as session:
        row = session.execute("SELECT * FROM t").fetchone()
    mask = lambda text: db.value("SELECT mask(%s)", [text])  # noqa: E731
    assert (row["pointer"], row["tried"], row["attr"], str(row["num"]), row["bin"]) == ("deep", "this", "abc", "1.50", "text")
    assert str(row["mid"]) == message_id
    assert before <= row["sent"] <= row["received"] <= db.value("SELECT clock_timestamp()")
    assert row["sent_ms"] == round(row["sent"].timestamp() * 1000)
    assert row["sent_date"].isoformat() == db.value("SELECT (sent AT TIME ZONE 'UTC')::date::text FROM t")
    assert (row["n"], row["q"], row["const"], row["def"]) == (1, pipeline.queue.url, {"k": [1, None]}, "fallback")
    masked = {"x": [mask("s1"), mask("7"), mask("true"), None]}
    assert row["body"] == {**body, "secret": masked, "a/b": [{"m~n": mask("deep")}]}


def test_every_step(pipelines):
    db = pipelines.db
    db.sql("""CREATE TABLE t (id integer, ip inet, digits integer, major integer, ordinal integer, lower text, trim text, secs timestamptz,
                              millis timestamp, day date, hmac text, siv text, sha varchar(12), md5 varchar(32))""")  # fmt: skip
    pipeline = pipelines("t", [
        {"column": "id", "from": "/id"},
        {"column": "ip", "from": "/ip", "steps": ["trim", "ip"]},
        {"column": "digits", "from": "/v", "steps": ["version"]},
        {"column": "major", "from": "/v", "steps": ["version:major"]},
        {"column": "ordinal", "from": "/v", "steps": ["version:ordinal"]},
        {"column": "lower", "from": "/text", "steps": ["lower"]},
        {"column": "trim", "from": "/text", "steps": ["trim"]},
        {"column": "secs", "from": "/secs", "steps": ["epoch_seconds"]},
        {"column": "millis", "from": "/millis", "steps": ["epoch_millis"]},
        {"column": "day", "from": "/millis", "steps": ["epoch_millis", "date"]},
        {"column": "hmac", "from": "/text", "steps": ["trim", "lower", "mask"]},
        {"column": "siv", "from": "/text", "steps": ["mask:siv"]},
        {"column": "sha", "from": "/text", "steps": ["mask:sha256:12"]},
        {"column": "md5", "from": "/text", "steps": ["mask:md5"]},
    ])  # fmt: skip
    body = {"id": 1, "ip": " ::FFFF:10.0.0.1\n", "v": "2.13.4", "text": " ÄB\t", "secs": 1700000000.25, "millis": "1700000000250"}
    shown = pipeline.preview(body)
    pipeline.queue.send([body, {"id": 2}])
    pipeline.drain()
    assert pipeline.dead_letters() == []
    first, second = db.sql("SELECT id, host(ip), digits, major, ordinal, lower, trim, secs::text, millis::text, day::text, hmac, siv, sha, md5 FROM t ORDER BY id")
    assert first == (1, "10.0.0.1", 2134, 2, 2013004, " Äb\t", "ÄB", "2023-11-14 22:13:20.25+00", "2023-11-14 22:13:20.25", "2023-11-14",
                     *db.one("SELECT mask('Äb'), mask(%s, 'siv'), mask(%s, 'sha256:12'), mask(%s, 'md5')", [" ÄB\t"] * 3))  # fmt: skip
    assert second == (2, *[None] * 13)
    assert (shown["row"]["hmac"], shown["row"]["ordinal"]) == (first[10], 2013004)
    assert db.value("SELECT unmask(siv, 'test') FROM t WHERE id = 1") == " ÄB\t"


@pytest.mark.parametrize("steps, value, reason", [
    (["epoch_seconds"], True, "wrong_type"), (["epoch_seconds"], "1e300", "bad_date"), (["epoch_millis"], "soon", "bad_date"),
    (["epoch_seconds"], {}, "wrong_type"), (["epoch_seconds"], "", "bad_date"), (["epoch_seconds"], "nan", "bad_date"),
    (["epoch_seconds"], "inf", "bad_date"), (["epoch_seconds"], -62135596801, "bad_date"),
])  # fmt: skip
def test_a_step_that_fails_rejects_and_preview_says_so(pipelines, steps, value, reason):
    pipelines.db.sql("CREATE TABLE t (at timestamptz)")
    pipeline = pipelines("t", [{"column": "at", "from": "/at", "steps": steps}])
    assert pipeline.preview({"at": value})["rejected"]["reason"] == reason
    pipeline.queue.send([{"at": value}])
    pipeline.drain()
    assert [(letter["reason"], letter["field"]) for letter in pipeline.dead_letters()] == [(reason, "at")]


def test_fifo_metadata(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, grp text, seq numeric)")
    queue = pipelines.queue(FifoQueue=True, ContentBasedDeduplication=True)
    pipeline = pipelines("t", [{"column": "id", "from": "/id"}, {"column": "grp", "from": "@group_id"}, {"column": "seq", "from": "@sequence_number"}],
                         queue=queue)  # fmt: skip
    queue.send(events([1, 2]), MessageGroupId="g", MessageDeduplicationId=str)
    pipeline.drain()
    assert db.sql("SELECT id, grp FROM t ORDER BY id") == [(1, "g"), (2, "g")]
    assert db.value("SELECT count(seq) = 2 AND max(seq) > 10::numeric ^ 10 FROM t")


@pytest.mark.parametrize("kind", ["json", "jsonb"])
def test_preview_shows_every_digit_of_a_number_in_json(pipelines, kind):
    number = "12345678901234567890.1234567890123456789"
    pipelines.db.sql(f"CREATE TABLE t (doc {kind})")
    pipeline = pipelines("t", [{"column": "doc", "from": "/doc"}])
    body = f'{{"doc": {{"é": [{number}, 7, 1.5]}}}}'
    pipeline.queue.send([body])
    pipeline.drain()
    stored = pipelines.db.value("SELECT doc::jsonb::text FROM t")
    assert stored == f'{{"é": [{number}, 7, 1.5]}}'
    assert pipelines.db.value("SELECT (sqs_ingest_preview(%s, %s) -> 'row' -> 'doc')::text", [pipeline.name, body]) == stored
    assert pipelines.db.value("SELECT (sqs_ingest_preview(%s, %s) #> '{columns,doc,value}')::text", [pipeline.name, body]) == stored


def test_preview_takes_attributes_and_group(pipelines):
    pipelines.db.sql("CREATE TABLE t (trace text, grp text)")
    pipeline = pipelines("t", [{"column": "trace", "from": "@attribute:trace", "required": True}, {"column": "grp", "from": "@group_id"}])
    sent_at = "2026-11-21"
    assert pipeline.preview({})["rejected"] == {"reason": "missing_field", "field": "@attribute:trace", "redacted": {"bytes": 2, "fields": {}, "other_keys": 0}}
    shown = pipeline.preview({}, sent_at=sent_at, attributes='{"trace": "x"}', group_id="g")
    assert shown["row"] == {"trace": "x", "grp": "g"}
    assert shown["columns"]["trace"] == {"from": "@attribute:trace", "value": "x"}


def test_redrive_knows_attributes_and_group_still(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer CHECK (id > 0), trace text, grp text)")
    queue = pipelines.queue(FifoQueue=True, ContentBasedDeduplication=True)
    pipeline = pipelines("t", [{"column": "id", "from": "/id"}, {"column": "trace", "from": "@attribute:trace"}, {"column": "grp", "from": "@group_id"}],
                         queue=queue)  # fmt: skip
    queue.send([{"id": 0}], MessageGroupId="g", MessageAttributes={"trace": {"DataType": "String", "StringValue": "abc"}})
    pipeline.drain()
    assert [letter["sqlstate"] for letter in pipeline.dead_letters()] == ["23514"]
    db.sql("ALTER TABLE t DROP CONSTRAINT t_id_check")
    assert db.value("SELECT sqs_ingest_redrive(%s)", [pipeline.name]) == 1
    assert db.sql("SELECT * FROM t") == [(0, "abc", "g")]


# -- options ----------------------------------------------------------------------------------------------------------


def test_on_invalid_discard_counts_and_keeps_nothing(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer CHECK (id <> 3), note text)")
    pipeline = pipelines("t", MAPPING, on_invalid="discard")
    since = db.cluster.log_position()
    pipeline.queue.send([*events([1, 2, 3]), {"note": "plain-4711"}, "plain-4711 no json", {"id": "plain-4711"}])
    pipeline.drain()
    assert ids(pipeline) == [1, 2]
    stat = pipeline.stat()
    assert (stat["inserted"], stat["discarded"], stat["dead_letters"], stat["deleted"]) == (2, 4, 0, 6)
    assert pipeline.dead_letters() == [] and pipeline.queue.is_empty()
    assert "plain-4711" not in db.cluster.log(since)


def test_on_invalid_leave_gives_the_message_back(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer CHECK (id <> 3), note text)")
    dead = pipelines.queue()
    arn = dead.attributes("QueueArn")["QueueArn"]
    queue = pipelines.queue(VisibilityTimeout=1, RedrivePolicy=json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2}))
    pipeline = pipelines("t", MAPPING, on_invalid="leave", queue=queue)
    queue.send([*events([1, 2, 3]), "no json"])
    pipeline.start()
    wait_until(lambda: dead.counts()[0] == 2, 120, what="both bad messages in the queue's own dead-letter queue")
    pipeline.wait_for(state="idle", inserted=2, in_hand=0)
    assert ids(pipeline) == [1, 2]
    assert pipeline.dead_letters() == []
    assert_counters_add_up(pipeline.stat())


@pytest.mark.parametrize("on_invalid", ["leave", "discard"])
def test_what_is_received_too_often_is_kept_whatever_on_invalid_says(pipelines, on_invalid):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text)")
    queue = pipelines.queue(VisibilityTimeout=0)
    pipeline = pipelines("t", MAPPING, on_invalid=on_invalid, max_receive_count=2, queue=queue)
    queue.send(events([1, 2]))
    for _ in range(3):
        queue.receive(VisibilityTimeout=0)
    queue.send(events([3]))
    pipeline.drain()
    assert ids(pipeline) == [3]
    assert [(letter["reason"], letter["receive_count"]) for letter in pipeline.dead_letters()] == [("too_many_receives", 4)] * 2
    assert db.value("SELECT sqs_ingest_redrive(%s)", [pipeline.name]) == 2
    assert ids(pipeline) == [1, 2, 3]


def test_batch_size_bounds_a_transaction(t):
    t.alter(batch_size=3)
    t.queue.send(events(range(20)))
    t.drain()
    assert t.db.value("SELECT max(n) FROM (SELECT count(*) n FROM t GROUP BY xmin) x") <= 3
    assert t.stat()["inserted"] == 20


def test_options_reach_the_queue(pipelines):
    pipelines.db.sql("CREATE TABLE t (id integer, note text)")
    pipeline = pipelines("t", MAPPING, wait_time=3, visibility_timeout=77)
    pipeline.start()
    pipeline.wait_for(state="idle")
    asked = pipelines.proxy.asked("ReceiveMessage")
    wait_until(lambda: {r.json["WaitTimeSeconds"] for r in pipelines.proxy.asked("ReceiveMessage")} >= {3}, what="long polls")
    assert {request.json["VisibilityTimeout"] for request in asked} == {77}


# -- several at once --------------------------------------------------------------------------------------------------


def test_pipelines_side_by_side_in_one_database(pipelines):
    db, made = pipelines.db, []
    for i in range(4):
        db.sql(f"CREATE TABLE t{i} (id integer, note text)")
        made.append(pipelines(f"t{i}", MAPPING, name=f"p{i}", workers=1 + i % 2))
        made[-1].queue.send(events(range(100 * i, 100 * i + 60)))
        made[-1].start()
    for i, pipeline in enumerate(made):
        pipeline.wait_until_ingested(60)
        assert ids(pipeline, f"t{i}") == list(range(100 * i, 100 * i + 60))
        assert_counters_add_up(pipeline.stat())
    assert set(db.value("SELECT sqs_ingest_status()")) == {"p0", "p1", "p2", "p3"}


def test_the_same_name_in_two_databases(other_db, t, moto, make_proxy):
    others = Pipelines(other_db, moto, make_proxy(moto))
    try:
        other_db.sql("CREATE TABLE t (id integer, note text)")
        other = others("t", MAPPING, name=t.name)
        for pipeline, numbers in ((t, range(30)), (other, range(100, 130))):
            pipeline.queue.send(events(numbers))
            pipeline.start()
        for pipeline, numbers in ((t, range(30)), (other, range(100, 130))):
            pipeline.wait_until_ingested(30)
            assert ids(pipeline) == list(numbers)
        stop_soon(t)
        other.queue.send(events([200]))
        other.wait_until_ingested(31)
    finally:
        others.stop()


def test_two_pipelines_into_one_table(t, pipelines):
    second = pipelines("t", [{"column": "id", "from": "/nr"}])
    t.queue.send(events(range(20)))
    second.queue.send([{"nr": i} for i in range(20, 40)])
    t.start(), second.start()
    t.wait_until_ingested(20), second.wait_until_ingested(20)
    assert ids(t) == list(range(40))


def test_a_second_pipeline_on_the_same_queue_is_refused_when_it_starts(t, pipelines):
    second = pipelines("t", MAPPING, queue=t.queue)
    t.start()
    t.wait_for(state="idle")
    with pytest.raises(psycopg.errors.ObjectInUse, match="already feeds pipeline"):
        second.start()


def test_one_pipelines_trouble_is_none_of_the_others(t, pipelines):
    pipelines.db.sql("CREATE TABLE other (id integer, note text)")
    other = pipelines("other", MAPPING)
    t.start(), other.start()
    other.wait_for(state="idle")
    pipelines.db.sql("DROP TABLE t")
    t.queue.send(events([1]))
    t.wait_for(state="backing_off")
    other.queue.send(events([1]))
    other.wait_until_ingested(1)
    pipelines.db.sql("CREATE TABLE t (id integer, note text)")
    t.wait_until_ingested(1)


# -- alter ------------------------------------------------------------------------------------------------------------


class Sender:
    """Sends to a queue in the background until it is stopped; `sent` are the ids."""

    def __init__(self, queue, start=0):
        self.queue, self.sent, self._start, self._done = queue, [], start, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._done.is_set() and len(self.sent) < 3000:
            numbers = range(self._start + len(self.sent), self._start + len(self.sent) + 10)
            self.queue.send(events(numbers))
            self.sent += numbers

    def stop(self):
        self._done.set()
        self._thread.join()
        return self.sent


@pytest.mark.parametrize("changes", [
    [{"batch_size": 7}, {"workers": 3}, {"max_receivers": 2}, {"workers": 1}],
    [{"columns": [MAPPING[0], {"column": "note", "constant": f"v{i}"}]} for i in range(4)],
    [{"mask_method": "siv"}, {"on_invalid": "discard"}, {"ledger": True, "wait_time": 2}],
], ids=["workers", "columns", "others"])  # fmt: skip
def test_alter_while_messages_are_in_hand_loses_and_doubles_nothing(t, changes):
    t.start()
    sender = Sender(t.queue)
    try:
        for i, change in enumerate(changes):
            wait_until(lambda: len(ids(t)) >= 100 * (i + 1), what=lambda: f"more rows: {t.stat()}", timeout=60)
            t.alter(**change)
    finally:
        sent = sender.stop()
    wait_until(lambda: len(ids(t)) >= len(sent), what=lambda: f"{len(sent)} rows: {t.stat()}", timeout=60)
    t.wait_for(in_hand=0, state="idle", timeout=60)
    assert ids(t) == sent
    assert t.dead_letters() == []
    assert t.queue.is_empty()
    assert t.db.value("SELECT count(*) FROM sqs_ingest_ledger WHERE pipeline = %s", [t.name]) == len(sent)
    assert_counters_add_up(t.stat())


def test_columns_change_live(t):
    t.start()
    t.queue.send(events([1]))
    t.wait_until_ingested(1)
    t.alter(columns=[MAPPING[0], {"column": "note", "from": "/note", "steps": ["mask"]}])
    wait_until(lambda: [t.queue.send(events([2])), t.db.sql("SELECT 1 FROM t WHERE id = 2 AND note = mask('note 2')")][1], what="masked")
    t.queue.send(events([3]))
    wait_until(lambda: 3 in ids(t), what="the last row")
    assert t.db.sql("SELECT note = mask('note 3') FROM t WHERE id = 3") == [(True,)]


def test_the_target_changes_live(t):
    t.db.sql("CREATE TABLE u (LIKE t)")
    t.start()
    t.queue.send(events([1]))
    t.wait_until_ingested(1)
    t.alter(target="u")
    assert t.stat()["target"] == "public.u"
    t.wait_for(state="idle", workers=lambda workers: workers)
    t.queue.send(events([2]))
    wait_until(lambda: len(ids(t)) + len(ids(t, "u")) == 2, what="the second row")
    wait_until(lambda: [t.queue.send(events([3])), 3 in ids(t, "u")][1], what="rows in the new table")
    assert set(ids(t)) <= {1, 2, 3}


def test_the_queue_changes_live(t, pipelines):
    old, new = t.queue, pipelines.queue()
    t.start()
    sender = Sender(old)
    try:
        wait_until(lambda: len(ids(t)) >= 50, what="rows")
        t.alter(queue_url=new.url)
        new.send(events(range(10000, 10020)))
        wait_until(lambda: ids(t)[-20:] == list(range(10000, 10020)), what="the new queue's messages")
    finally:
        sent = sender.stop()
    wait_until(lambda: old.counts()[1] == 0, what="nothing in flight of the old queue")
    left = old.counts()[0]
    assert left > 0
    assert len(ids(t)) == len(set(ids(t))) == len(sent) - left + 20
    t.alter(queue_url=old.url)
    wait_until(lambda: len(ids(t)) >= len(sent) + 20, what="what was left")
    t.wait_for(in_hand=0)
    assert ids(t) == sent + list(range(10000, 10020))


def test_alter_to_a_queue_that_is_taken_is_refused(t, pipelines):
    second = pipelines("t", MAPPING)
    t.start(), second.start()
    second.wait_for(state="idle")
    with pytest.raises(psycopg.errors.ObjectInUse, match="already feeds pipeline"):
        second.alter(queue_url=t.queue.url)
    assert options_of(second)["queue_url"] == second.queue.url


def test_alter_that_cannot_work_changes_nothing(t):
    t.start()
    before = options_of(t)
    for changes in ({"columns": [{"column": "gone", "from": "/x"}]}, {"workers": 99}, {"mask_method": "x"}, {"on_conflict": "update"},
                    {"reset": ["columns"]}, {"reset": ["nonsense"]}, {"reset": ["region"], "region": "x"}, {}, {"each": "x"}):  # fmt: skip
        with pytest.raises(psycopg.Error) as refused:
            t.alter(**changes)
        assert refused.value.diag.message_hint, changes
    assert options_of(t) == before
    t.queue.send(events([1]))
    t.wait_until_ingested(1)


def test_alter_leaves_the_rest_and_reset_gives_the_default(t):
    t.alter(workers=3, batch_size=9, on_conflict=None)
    assert [options_of(t)[name] for name in ("workers", "batch_size", "wait_time")] == [3, 9, 1]
    t.alter(reset=["workers", "wait_time", "region", "visibility_timeout"], batch_size=10)
    assert [options_of(t)[name] for name in ("workers", "batch_size", "wait_time", "region")] == [1, 10, 20, None]


def test_alter_of_none_is_refused(t):
    with pytest.raises(psycopg.errors.UndefinedObject, match='pipeline "none" does not exist'):
        t.db.sql("SELECT sqs_ingest_alter_pipeline('none', workers => 2)")


def test_alter_rolls_back(t):
    with t.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_alter_pipeline(%s, workers => 5)", [t.name])
        session.rollback()
    assert options_of(t)["workers"] == 1


def test_messages_that_the_old_mapping_rejected_are_redriven_by_the_new(t):
    t.queue.send([{"id": "x1", "note": "a"}])
    t.drain()
    assert [letter["reason"] for letter in t.dead_letters()] == ["wrong_type"]
    t.db.sql("ALTER TABLE t ALTER id TYPE text")
    assert t.db.value("SELECT sqs_ingest_redrive(%s)", [t.name]) == 1
    assert ids(t) == ["x1"]


# -- drop -------------------------------------------------------------------------------------------------------------


def test_drop_while_it_runs(t):
    t.start()
    sender = Sender(t.queue)
    try:
        wait_until(lambda: len(ids(t)) >= 100, what="rows")
        t.db.sql("SELECT sqs_ingest_drop_pipeline(%s)", [t.name])
    finally:
        sent = sender.stop()
    assert t.cluster.pids("sqs_ingest worker", t.db.name) == []
    rows = ids(t)
    assert len(rows) == len(set(rows))
    wait_until(lambda: t.queue.counts() == (len(sent) - len(rows), 0), what=lambda: f"the rest given back: {t.queue.counts()}, {len(sent)}, {len(rows)}")
    assert t.db.value("SELECT sqs_ingest_status()") == {}
    assert t.db.sql("SELECT 1 FROM sqs_ingest_ledger") == []


def test_drop_then_create_again(t, pipelines):
    t.start()
    t.queue.send(events([1]))
    t.wait_until_ingested(1)
    t.db.sql("SELECT sqs_ingest_drop_pipeline(%s)", [t.name])
    again = pipelines("t", MAPPING, name=t.name, queue=t.queue)
    assert again.stat()["state"] == "stopped"
    assert (again.stat()["inserted"], again.stat()["received"]) == (0, 0)
    again.start()
    again.queue.send(events([2]))
    again.wait_until_ingested(1)
    assert ids(again) == [1, 2]


def test_drop_with_dead_letters_is_refused_unless_they_may_go(t):
    t.queue.send(["no json", *events([1])])
    t.drain()
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="1 dead letter") as refused:
        t.db.sql("SELECT sqs_ingest_drop_pipeline(%s)", [t.name])
    assert "cascade" in refused.value.diag.message_hint
    assert len(t.dead_letters()) == 1
    t.db.sql("SELECT sqs_ingest_drop_pipeline(%s, cascade => true)", [t.name])
    assert t.dead_letters() == []
    assert ids(t) == [1]


def test_drop_that_is_refused_leaves_it_running(t):
    t.start()
    t.queue.send(["no json"])
    t.wait_for(deleted=1)
    workers = t.cluster.pids("sqs_ingest worker", t.db.name)
    assert workers
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        t.db.sql("SELECT sqs_ingest_drop_pipeline(%s)", [t.name])
    assert t.cluster.pids("sqs_ingest worker", t.db.name) == workers
    t.queue.send(events([1]))
    t.wait_until_ingested(2)


def test_drop_rolls_back(t):
    t.start()
    t.wait_for(state="idle")
    with t.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_drop_pipeline(%s)", [t.name])
        session.rollback()
    t.queue.send(events([1]))
    t.wait_until_ingested(1)


def test_drop_of_none_is_refused(t):
    with pytest.raises(psycopg.errors.UndefinedObject, match='pipeline "none" does not exist'):
        t.db.sql("SELECT sqs_ingest_drop_pipeline('none')")


def test_the_table_can_go_with_its_pipeline_in_one_transaction(t):
    t.start()
    t.wait_for(state="idle")
    with t.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_drop_pipeline(%s)", [t.name])
        session.execute("DROP TABLE t")
        session.commit()
    assert t.db.value("SELECT sqs_ingest_status()") == {}


def test_after_a_drop_nothing_of_it_is_shown_to_the_next_owner_of_its_name(t, pipelines):
    db = t.db
    t.start()
    t.queue.send(events([1]))
    t.wait_until_ingested(1)
    pipelines.proxy.pass_on("ReceiveMessage")
    pipelines.proxy.on("ReceiveMessage", error("AccessDenied"), times=1).on("ReceiveMessage", short_polls)
    t.queue.send(events([2]))
    before = t.wait_for(last_error=lambda said: said, protocol="json", credentials=lambda said: said)
    assert t.queue.url in before["queue_url"] and t.queue.url in before["last_error"]
    db.sql("SELECT sqs_ingest_drop_pipeline(%s)", [t.name])
    owner = pipelines.owner()
    db.sql(f"CREATE TABLE theirs (id integer, note text); ALTER TABLE theirs OWNER TO {owner}")
    again = pipelines("theirs", MAPPING, name=t.name, user=owner)
    after = again.stat()
    assert after["queue_url"] == again.queue.url
    assert [after[name] for name in ("protocol", "credentials", "last_error", "last_error_at", "last_poll_at", "messages_per_second")] == [
        None, None, None, None, None, 0]
    assert after["stats_since"] > before["stats_since"]
    assert not after["lag_seconds"] and after["received"] == after["deleted"] == after["bytes"] == 0
    db.sql(f"UPDATE sqs_ingest_pipeline SET queue_url = NULL WHERE name = '{t.name}'")
    assert again.stat()["queue_url"] is None


def test_a_drop_that_is_rolled_back_leaves_the_statistics(t):
    t.start()
    t.queue.send(events([1, 2]))
    before = t.wait_until_ingested(2)
    with t.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_drop_pipeline(%s)", [t.name])
        session.rollback()
        session.execute("SAVEPOINT s")
        session.execute("SELECT sqs_ingest_drop_pipeline(%s)", [t.name])
        session.execute("ROLLBACK TO s")
        session.commit()
    after = t.stat()
    assert {name: after[name] for name in ("received", "inserted", "deleted", "stats_since", "queue_url", "protocol", "credentials")} == {
        name: before[name] for name in ("received", "inserted", "deleted", "stats_since", "queue_url", "protocol", "credentials")}
    t.queue.send(events([3]))
    t.wait_until_ingested(3)


def test_a_stopped_pipeline_shows_the_queue_that_it_was_altered_to(t, pipelines):
    t.start()
    t.wait_for(state="idle")
    t.stop()
    other = pipelines.queue()
    t.alter(queue_url=other.url)
    assert t.stat()["queue_url"] == other.url


# -- forget and check, for every pipeline -----------------------------------------------------------------------------


UUID = "424cdd21063a43a7b91b7ca1a833afae"


@pytest.mark.parametrize("kind, steps, stored, asked", [
    ("text", [], "u-1", "u-1"), ("text", ["trim", "lower"], " U-1", "u-1 "), ("text", ["mask"], "u-1", "u-1"), ("text", ["mask:siv"], "u-1", "u-1"),
    ("text", ["ip", "mask"], "::ffff:10.0.0.1", "10.0.0.1"), ("integer", [], 7, "7"), ("bigint", [], "007", "7"), ("numeric", [], 7.50, "7.5"),
    ("uuid", [], "424CDD21-063a-43a7-b91b-7ca1a833afae", UUID), ("inet", [], "10.0.0.1", "10.0.0.1"),
    ("inet", [], "2001:DB8::1", "2001:db8:0::1"), ("varchar(9)", [], "u-1", "u-1"), ("char(9)", [], "u-1", "u-1"), ("citext", [], "U-1", "u-1"),
])  # fmt: skip
def test_forget_finds_the_person_by_the_marked_column(pipelines, kind, steps, stored, asked):
    db = pipelines.db
    db.sql(f"CREATE EXTENSION citext; CREATE TABLE t (who {kind}, id integer)")
    pipeline = pipelines("t", [{"column": "who", "from": "/person/id", "steps": steps, "user": True}, {"column": "id", "from": "/id", "required": True}])
    other = {"integer": 8, "bigint": 8, "numeric": 8, "uuid": "00000000-0000-0000-0000-000000000000", "inet": "10.0.0.2"}.get(kind, "u-2")
    pipeline.queue.send([{"person": {"id": stored}, "id": 1}, {"person": {"id": other}, "id": 2}])
    pipeline.drain()
    assert ids(pipeline) == [1, 2]
    assert db.value("SELECT sqs_ingest_forget(%s, %s)", [asked, pipeline.name]) == {"rows": 1, "dead_letters": 0, "not_opened": 0}
    assert ids(pipeline) == [2]


@pytest.mark.parametrize("kind, steps, sent, asked", [
    ("text", ["trim", "lower"], " U-1", "u-1 "), ("text", ["ip", "mask"], "::ffff:10.0.0.1", "10.0.0.1"), ("integer", [], 7, "7"),
    ("inet", [], "10.0.0.1", "10.0.0.1"), ("bigint", [], "007", "7"), ("uuid", [], "424CDD21-063a-43a7-b91b-7ca1a833afae", UUID),
    ("inet", ["ip"], "2001:DB8::1", "2001:db8:0::1"), ("citext", ["lower"], "U-1", "u-1"), ("numeric", [], 7.50, "7.5"),
])  # fmt: skip
def test_forget_finds_the_person_in_dead_letters_however_it_is_spelt(pipelines, kind, steps, sent, asked):
    db = pipelines.db
    db.sql(f"CREATE EXTENSION citext; CREATE TABLE t (who {kind}, id integer)")
    pipeline = pipelines("t", [{"column": "who", "from": "/person/id", "steps": steps, "user": True}, {"column": "id", "from": "/id", "required": True}])
    pipeline.queue.send([{"person": {"id": sent}}, {"person": {"id": "8"}}])
    pipeline.drain()
    assert db.value("SELECT sqs_ingest_forget(%s, %s)", [asked, pipeline.name]) == {"rows": 0, "dead_letters": 1, "not_opened": 0}
    assert len(pipeline.dead_letters()) == 1


@pytest.mark.parametrize("kind", ["text COLLATE ci", "ci_text", "varchar(9) COLLATE ci"])
def test_forget_finds_the_person_as_the_columns_collation_compares(pipelines, kind):
    db = pipelines.db
    db.sql("CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE DOMAIN ci_text AS text COLLATE ci")
    db.sql(f"CREATE TABLE t (who {kind}, id integer)")
    pipeline = pipelines("t", [{"column": "who", "from": "/who", "user": True}, {"column": "id", "from": "/id", "required": True}])
    pipeline.queue.send([{"who": "ALICE", "id": 1}, {"who": "ALICE"}, {"who": "BOB"}])
    pipeline.drain()
    assert db.value("SELECT sqs_ingest_forget('alice', %s)", [pipeline.name]) == {"rows": 1, "dead_letters": 1, "not_opened": 0}
    assert len(pipeline.dead_letters()) == 1


def test_forget_without_a_marked_column_says_how_to_mark_one(t):
    with pytest.raises(psycopg.errors.UndefinedColumn) as refused:
        t.db.sql("SELECT sqs_ingest_forget('x', %s)", [t.name])
    assert '"user": true' in refused.value.diag.message_hint


def test_forget_finds_elements(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (who text, id integer)")
    pipeline = pipelines("t", [{"column": "who", "from": "@each/who", "user": True}, {"column": "id", "from": "@each/id"}], each="/people")
    pipeline.queue.send([{"people": [{"who": "a", "id": 1}, {"who": "b", "id": 2}]}, {"people": [{"who": "a", "id": 3}, {"who": "b", "id": "x"}]}])
    pipeline.drain()
    assert len(pipeline.dead_letters()) == 1
    assert db.value("SELECT sqs_ingest_forget('a', %s)", [pipeline.name]) == {"rows": 1, "dead_letters": 1, "not_opened": 0}
    assert ids(pipeline) == [2]


def test_check_is_in_order_and_names_what_is_not(t):
    def found():
        return {item: (ok, detail, hint) for item, ok, detail, hint in t.db.sql("SELECT * FROM sqs_ingest_check(%s)", [t.name])}

    assert all(ok is not False for item, (ok, _, _) in found().items() if item != "durability"), found()
    t.db.sql("ALTER TABLE t DROP note")
    wrong = [(detail, hint) for ok, detail, hint in found().values() if ok is False and "note" in detail]
    assert wrong and wrong[0][1]


# -- the ledger -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ledger, on_conflict, rows, inserted", [
    (True, None, [1], 1), (False, None, [1, 1], 2), (False, "update", [1], 2), (False, "nothing", [1], 1)])  # fmt: skip
def test_a_redelivery(pipelines, ledger, on_conflict, rows, inserted):
    db = pipelines.db
    db.sql(f"CREATE TABLE t (id integer {'PRIMARY KEY' if on_conflict else ''}, note text)")
    options = {"on_conflict": on_conflict, "conflict_columns": ["id"]} if on_conflict else {}
    pipeline = pipelines("t", MAPPING, ledger=ledger, **options)
    pipelines.proxy.pass_on("ReceiveMessage")
    handouts = Handouts(pipelines.proxy, pipeline.queue, keep_deleted=True)
    pipeline.queue.send(events([1]))
    pipeline.start()
    pipeline.wait_for(received=1, deleted=1)
    handouts.keep_deleted = False
    handouts.come_back()
    stat = pipeline.wait_for(received=2, deleted=2)
    assert ids(pipeline) == rows
    assert (stat["inserted"], stat["duplicates"], stat["dead_letters"]) == (inserted, 2 - inserted, 0)
    assert db.value("SELECT count(*) FROM sqs_ingest_ledger") == (1 if ledger else 0)
    assert pipeline.queue.is_empty()


# -- exactly as it was said -------------------------------------------------------------------------------------------


def stored_columns(pipeline):
    return pipeline.db.value("SELECT columns::text FROM sqs_ingest_pipeline WHERE name = %s", [pipeline.name])


@pytest.mark.parametrize("number", ["0.12345678901234567890", "12345678901234567890123"])
def test_a_mapping_keeps_every_digit_of_its_numbers(pipelines, number):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, fixed numeric, otherwise numeric)")
    mapping = f"""[{{"column": "id", "from": "/id"}}, {{"column": "fixed", "constant": {number}}},
                   {{"column": "otherwise", "from": "/gone", "default": {number}}}]"""
    pipeline = pipelines("t", mapping)
    stored = db.value("SELECT %s::jsonb::text", [mapping])
    assert stored.count(number) == 2
    assert stored_columns(pipeline) == stored
    pipeline.alter(columns=json.dumps(MAPPING[:1]))
    pipeline.alter(columns=mapping)
    assert stored_columns(pipeline) == stored
    answer = "SELECT sqs_ingest_create_pipeline('again', %s, 't', %s, region => 'us-east-1')::text"
    assert db.value(answer, [pipeline.queue.url, mapping]) == stored
    pipeline.queue.send([{"id": 1}])
    pipeline.drain()
    assert db.sql("SELECT fixed::text, otherwise::text FROM t") == [(number, number)]


def test_a_mapping_with_a_number_that_no_double_holds_is_refused(pipelines):
    pipelines.db.sql("CREATE TABLE t (fixed numeric)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="number_out_of_range") as refused:
        pipelines("t", '[{"column": "fixed", "constant": 1e400}]')
    assert refused.value.diag.message_hint


@pytest.fixture
def encoding():
    return "LATIN1"


@pytest.fixture
def latin1(cluster, moto, make_proxy, encoding):
    """Pipelines in a database whose encoding is LATIN1; its session speaks UTF-8."""
    cluster.ensure_running()
    db = Database(cluster, cluster.create_database(template="template0", encoding=encoding, locale="C"))
    db.sql("SET client_encoding = 'UTF8'")
    pipelines = Pipelines(db, moto, make_proxy(moto))
    yield pipelines
    cluster.ensure_running()
    pipelines.stop()
    cluster.drop_database(db.name)


@pytest.mark.parametrize("columns", [
    [{"column": "größe", "from": "/größe", "required": True}, {"column": "masked_straße", "from": "/straße", "steps": ["mask"]},
     {"column": "Fuß", "constant": "süß"}],
    None])  # fmt: skip
def test_a_latin1_database_has_its_own_letters_in_names_and_values(latin1, columns):
    db = latin1.db
    db.sql('CREATE TABLE "größe" ("größe" text NOT NULL, "masked_straße" text, "Fuß" text)')
    pipeline = latin1("größe", columns, on_conflict=None)
    fuss = "süß" if columns else "Füße"
    assert options_of(pipeline)["target"] == 'public."größe"'
    pipeline.alter(target="größe", **({"columns": columns} if columns else {}))
    sent = {"größe": "Zoë", "straße": "Weg", "Fuß": "Füße"}
    assert pipeline.preview(sent)["row"] == {"größe": "Zoë", "masked_straße": db.value("SELECT mask('Weg')"), "Fuß": fuss}
    pipeline.queue.send([sent, {"straße": "ohne"}])
    pipeline.drain()
    pipeline.start()
    pipeline.queue.send([{**sent, "größe": "Bär"}])
    pipeline.wait_until_ingested(3)
    assert db.sql('SELECT "größe", octet_length("größe"), "Fuß" FROM "größe" ORDER BY 1') == [("Bär", 3, fuss), ("Zoë", 3, fuss)]
    assert [(letter["reason"], letter["field"]) for letter in pipeline.dead_letters()] == [("missing_field", "größe")]
    assert pipeline.db.value("SELECT sqs_ingest_redrive(%s)", [pipeline.name]) == 0
    assert [letter["field"] for letter in pipeline.dead_letters()] == ["größe"]


def test_a_latin1_database_names_the_conflicting_column_and_what_is_wrong(latin1):
    db = latin1.db
    db.sql('CREATE TABLE t ("größe" integer PRIMARY KEY, note text)')
    mapping = [{"column": "größe", "from": "/größe"}, {"column": "note", "from": "/note"}]
    pipeline = latin1("t", mapping, on_conflict="update", conflict_columns=["größe"])
    pipeline.queue.send([{"größe": 1, "note": "ä"}])
    pipeline.drain()
    pipeline.queue.send([{"größe": 1, "note": "ö"}])
    pipeline.drain()
    assert db.sql("SELECT * FROM t") == [(1, "ö")]
    with pytest.raises(psycopg.errors.UndefinedColumn, match='has no column "Maß"'):
        pipeline.alter(columns=[*mapping, {"column": "Maß", "from": "/x"}])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match='column "Maß": unknown step "süß"'):
        pipeline.alter(columns=[{"column": "Maß", "from": "/x", "steps": ["süß"]}])


@pytest.mark.parametrize("encoding", ["SQL_ASCII"])
def test_a_database_without_encoding_keeps_dead_letters_about_fields_with_letters_of_its_own(latin1):
    latin1.db.sql('CREATE TABLE t ("größe" integer, note text)')
    pipeline = latin1("t", None)
    pipeline.start()
    pipeline.queue.send([{"größe": 1, "note": "a"}, {"größe": "none", "note": "ä"}])
    pipeline.wait_until_ingested(2)
    (letter,) = pipeline.dead_letters()
    assert letter["redacted"]["fields"]["/größe"]["type"] == "string"
    assert latin1.db.value("SELECT sqs_ingest_redrive(%s)", [pipeline.name]) == 0
    assert pipeline.dead_letters()[0]["redacted"] == letter["redacted"]


def test_a_latin1_database_wants_names_of_pipelines_in_ascii(latin1):
    latin1.db.sql("CREATE TABLE t (id integer)")
    with pytest.raises(psycopg.errors.InvalidName, match="ASCII") as refused:
        latin1("t", MAPPING[:1], name="größe")
    assert refused.value.diag.message_hint
    latin1.made.clear()
