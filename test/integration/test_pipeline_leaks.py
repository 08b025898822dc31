"""No plain value of a masked column is anywhere, wherever in the message it came from: attributes, message groups, whole bodies,
elements, and what the database refused."""
import json

import pytest
from harness import Cluster, Database
from leaks import TALKATIVE, files_of, found_in
from pipelines import Pipelines, make_proxy_fixture  # noqa: F401

# Values that occur nowhere by chance.
ATTRIBUTE, GROUP, ELEMENT, PART, OTHER_PART = "attribute-plain-41c7", "group-plain-9d02", "element-plain-77ab", "part-plain-5e31", "part-plain-c0de"
ADDRESS, REFUSED, BAD_ENUM, DEFAULTED = "203.0.113.217", "refused-plain-1b2c", "enum-plain-3d4e", "discarded-plain-8f9a"
RANGE, ARRAY, DOMAIN, CONFLICT = "range-plain-6a7b", "array-plain-2c3d", "domain-plain-4e5f", "conflict-plain-0a1b"
PLAIN = [ATTRIBUTE, GROUP, ELEMENT, PART, OTHER_PART, ADDRESS, REFUSED, BAD_ENUM, DEFAULTED, RANGE, ARRAY, DOMAIN, CONFLICT]

QUIET = {"log_statement": "none", "log_min_duration_statement": -1, "log_duration": "off", "auto_explain.log_min_duration": -1}
MASK = {"steps": ["mask"]}
TABLES = """
CREATE TYPE mood AS ENUM ('calm');
CREATE DOMAIN plain_word AS text CONSTRAINT plain_word_check CHECK (VALUE NOT LIKE 'domain%');
CREATE TABLE t (id integer, masked_attr text, masked_group text, masked_ip text, doc jsonb, mood mood, span int4range, tags integer[], word plain_word,
    CHECK (id <> 66));
CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'not this: %', NEW USING DETAIL = NEW::text, HINT = NEW::text; END $$;
CREATE TRIGGER complain BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 77) EXECUTE FUNCTION complain();
CREATE TABLE lines (id integer, masked_name text, qty integer CHECK (qty > 0), UNIQUE (id));
CREATE TABLE discarded (id integer CHECK (id > 0), masked_name text);
"""
MAPPING = [
    {"column": "id", "from": "/id", "required": True},
    {"column": "masked_attr", "from": "@attribute:who", **MASK},
    {"column": "masked_group", "from": "@group_id", **MASK},
    {"column": "masked_ip", "from": ["/none", "/ip"], "steps": ["trim", "ip", "mask"]},
    {"column": "doc", "from": "@body", "mask_parts": ["/person", "/ip", "/secret", "/mood", "/span", "/tags", "/word"]},
    {"column": "mood", "from": "/mood"},
    {"column": "span", "from": "/span"},
    {"column": "tags", "from": "/tags"},
    {"column": "word", "from": "/word"},
]
LINES = [
    {"column": "id", "from": "@each/id", "required": True},
    {"column": "masked_name", "from": ["@each/name", "/name"], **MASK},
    {"column": "qty", "from": "@each/qty"},
]


def body(number, **more):
    return {"id": number, "ip": f" {ADDRESS} ", "person": {"names": [PART, {"x": OTHER_PART}]}, "secret": PART, **more}


class Ingested:
    """Everything went through three pipelines; some messages were ingested, some refused, some discarded, some redriven in vain."""

    def __init__(self, moto, make_proxy):
        self.cluster = Cluster(TALKATIVE, preload="auto_explain,sqs_ingest").start()
        self.db = Database(self.cluster, self.cluster.create_database())
        self.pipelines = Pipelines(self.db, moto, make_proxy(moto))
        self.db.sql(TABLES)
        self.main = self._ingest_main()
        self.lines = self.pipelines("lines", LINES, each="/items", on_conflict="nothing")
        self._ingest(self.lines, [
            {"items": [{"id": 1, "name": ELEMENT, "qty": 1}, {"id": 1, "name": CONFLICT, "qty": 1}]},
            {"items": [{"id": 2, "name": ELEMENT, "qty": 1}, {"id": 3, "name": REFUSED, "qty": 0}]},
            {"items": [{"id": 4, "name": ELEMENT, "qty": REFUSED}]}, {"items": [{"name": ELEMENT}], "name": CONFLICT},
            {"items": REFUSED},
        ])  # fmt: skip
        discarding = self.pipelines("discarded", [LINES[0] | {"from": "/id"}, {"column": "masked_name", "from": "/name", **MASK}], on_invalid="discard")
        self._ingest(discarding, [{"id": 1, "name": DEFAULTED}, {"id": 0, "name": DEFAULTED}, {"id": DEFAULTED}, {"name": DEFAULTED}, DEFAULTED])
        assert discarding.stat()["discarded"] == 4

    def _ingest_main(self):
        main = self.pipelines("t", MAPPING, queue=self.pipelines.queue(FifoQueue=True, ContentBasedDeduplication=True))
        bodies = [body(1, mood="calm"), body(2), body(66), body(77), body(3, mood=BAD_ENUM), body(4, span=RANGE), body(5, tags=[ARRAY]),
                  body(6, tags=f"{{{ARRAY}}}"), body(7, word=DOMAIN), {"ip": ADDRESS, "secret": REFUSED}, json.dumps(body(8))[:-1],
                  body(9, tags=[[1], [2, 3]], secret=REFUSED), body(REFUSED), body(10)]  # fmt: skip
        main.queue.send(bodies, MessageGroupId=lambda i: f"{GROUP}{i}", MessageAttributes={"who": {"DataType": "String", "StringValue": ATTRIBUTE}})
        main.start()
        main.wait_until_ingested(len(bodies), timeout=120)
        main.stop()
        self.db.sql("SELECT sqs_ingest_redrive(%s)", [main.name])
        return main

    def _ingest(self, pipeline, bodies):
        pipeline.queue.send(bodies)
        pipeline.drain()

    def close(self):
        self.pipelines.stop()
        self.db.close()
        self.cluster.destroy()


@pytest.fixture(scope="module")
def ingested(moto):
    from proxy import Proxy

    proxies = []
    ingested = Ingested(moto, lambda server: proxies.append(Proxy(server)) or proxies[-1])
    yield ingested
    ingested.close()
    for proxy in proxies:
        proxy.close()


def test_all_went_where_it_belongs(ingested):
    """The rest of this file looks for something in places that were really used."""
    main, lines = ingested.main, ingested.lines
    assert ingested.db.sql("SELECT id FROM t ORDER BY 1") == [(1,), (2,), (10,)]
    assert sorted(((letter["reason"], letter["field"], letter["sqlstate"]) for letter in main.dead_letters()), key=str) == sorted([
        ("row_error", None, "23514"), ("row_error", None, "P0001"), ("bad_value", "mood", "22P02"), ("bad_value", "span", "22P02"),
        ("wrong_type", "tags", None), ("bad_value", "tags", "22P02"), ("row_error", "word", "23514"), ("missing_field", "id", None),
        ("not_json", None, None), ("bad_value", "tags", "22P02"), ("wrong_type", "id", None)], key=str)  # fmt: skip
    assert {letter["redrives"] for letter in main.dead_letters()} == {1}
    assert ingested.db.sql("SELECT id FROM lines") == [(1,)]
    assert sorted(letter["reason"] for letter in lines.dead_letters()) == ["missing_field", "row_error", "wrong_type", "wrong_type"]
    assert ingested.db.sql("SELECT id FROM discarded") == [(1,)]


@pytest.fixture
def quiet(ingested):
    """A session that is not logged: what these tests say to the server is no leak of its."""
    with ingested.db.connect() as session:
        for setting, value in QUIET.items():
            session.execute(f"SET {setting} = {value}")
        yield session


def test_rows_hold_masks(ingested, quiet):
    def mask(text):
        return quiet.execute("SELECT mask(%s)", [text]).fetchone()[0]

    row = ingested.db.one("SELECT masked_attr, masked_group, masked_ip, doc #>> '{person,names,0}', doc #>> '{person,names,1,x}' FROM t WHERE id = 1")
    assert row == tuple(map(mask, (ATTRIBUTE, GROUP + "0", ADDRESS, PART, OTHER_PART)))
    assert ingested.db.one("SELECT masked_name FROM lines") == (mask(ELEMENT),)
    assert ingested.db.one("SELECT masked_name FROM discarded") == (mask(DEFAULTED),)


def test_log_has_no_plain_value(ingested):
    log = ingested.cluster.log()
    assert "sqs_ingest worker" in log
    assert found_in(log.encode(), PLAIN) == []


def test_no_file_of_the_data_directory_has_a_plain_value(ingested):
    leaks = {str(path.relative_to(ingested.cluster.data)): found for path, data in files_of(ingested.cluster) if (found := found_in(data, PLAIN))}
    assert leaks == {}


def test_dead_letters_show_no_plain_value(ingested):
    letters = ingested.main.dead_letters() + ingested.lines.dead_letters()
    assert len(letters) == 15
    for letter in letters:
        assert found_in(repr({**letter, "sealed": None, "sealed_metadata": None}).encode(), PLAIN) == []
        assert found_in(bytes(letter["sealed"]) + bytes(letter["sealed_metadata"] or b""), PLAIN) == []


def test_status_has_no_plain_value(ingested):
    assert found_in(ingested.db.value("SELECT sqs_ingest_status()::text").encode(), PLAIN) == []
