"""What an operator does with a pipeline beside starting it: check, preview, redrive, purge, forget, reset the counters."""
import json
import threading
import time

import psycopg
import psycopg.rows
import pytest
from harness import Database, login_message, login_messages, unique, wait_until
from keys import K1, K2, hmac_token, keyring_fixture, unseal  # noqa: F401
from pipeline import prepare, user_ids, users_of
from pipeline import (Pipeline, assert_counters_add_up, make_owner, make_pipeline_fixture, other_db_fixture,  # noqa: F401
                      pipeline_fixture)  # fmt: skip
from proxy import altered_messages, answer, make_proxy_fixture, proxied_fixture, proxy_fixture, short_polls  # noqa: F401

CLUSTER_SETTINGS = {"autovacuum": False, "fsync": True}  # statements are counted; check() is content with nothing less


@pytest.fixture
def stopped(keyring, pipeline):
    return prepare(pipeline)


FUNCTIONS = ["check", "preview", "drain", "redrive", "purge", "forget", "stat_reset"]


def grant_all(db, role):
    for name in FUNCTIONS:
        for (function,) in db.sql("SELECT oid::regprocedure::text FROM pg_proc WHERE proname = %s", [f"sqs_ingest_{name}"]):
            db.sql(f"GRANT EXECUTE ON ROUTINE {function} TO {role}")


@pytest.fixture
def owner(keyring, pipeline):
    """An ordinary role that owns the pipeline and may call everything; the pipeline is not enabled."""
    role = make_owner(pipeline)
    prepare(pipeline, role)
    grant_all(pipeline.db, role)
    return role


def ingest(pipeline, bodies):
    """Sends the bodies and drains them; returns their message ids."""
    ids = pipeline.queue.send(bodies)
    pipeline.db.sql("CALL sqs_ingest_drain(%s, %s)", [pipeline.name, len(bodies)])
    return ids


def without_device(i, **changes):
    return login_message(i, device_id=..., **changes)


def let_devices_be_missing(db):
    db.sql("""UPDATE sqs_ingest_pipeline SET columns = (SELECT jsonb_agg(CASE WHEN c ->> 'column' = 'masked_device_id'
              THEN c - 'required' ELSE c END) FROM jsonb_array_elements(columns) c)""")


def traces(db):
    """What a function that touches nothing leaves as it was."""
    tables = ["user_logins", "sqs_ingest_pipeline", "sqs_ingest_ledger", "sqs_ingest_dead_letter", "sqs_ingest_key",
              "pg_shseclabel"]  # fmt: skip
    return [db.sql(f"SELECT t::text, xmin::text, ctid::text FROM {table} t ORDER BY 1") for table in tables] + [
        db.sql("SELECT last_value, is_called FROM sqs_ingest_dead_letter_id_seq")]  # fmt: skip


def assert_leaves_no_trace(db, query, parameters=None):
    """Runs it in a transaction of its own, which takes no transaction id and writes no WAL; returns its rows."""
    before = traces(db)
    with db.connect(autocommit=False) as session:
        session.execute(query, parameters)  # what is read once in a session
        session.rollback()
        wal = session.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        rows = session.execute(query, parameters).fetchall()
        assert session.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() == (None,)
        session.commit()
        assert session.execute("SELECT pg_current_wal_insert_lsn()").fetchone() == wal
    assert traces(db) == before
    return rows


# -- check ------------------------------------------------------------------------------------------------------------

ITEMS = ["preloaded", "sqs_ingest.enabled", "launcher", "worker slots", "keyring", "configuration", "owner", "target",
         "insert", "queue URL", "queue is free", "credentials", "region", "queue", "durability"]  # fmt: skip


def check(pipeline, session=None):
    """The rows of sqs_ingest_check(), by item."""
    with (session or pipeline.db.connection).cursor(row_factory=psycopg.rows.dict_row) as cursor:
        rows = cursor.execute("SELECT * FROM sqs_ingest_check(%s)", [pipeline.name]).fetchall()
    assert len({row["item"] for row in rows}) == len(rows)
    return {row["item"]: row for row in rows}


def not_ok(items):
    return {item for item, row in items.items() if row["ok"] is False}


def test_check_of_a_healthy_pipeline_is_all_ok(stopped):
    stopped.queue.send(login_messages(3))
    items = check(stopped)
    assert list(items) == ITEMS
    assert {row["ok"] for row in items.values()} == {True}, items
    assert all(row["detail"] for row in items.values())
    assert "data directory" in items["keyring"]["hint"]
    assert items["queue URL"]["detail"] == stopped.queue.url
    assert "standard queue, visibility timeout 30 s" in items["queue"]["detail"]
    assert "about 3 messages" in items["queue"]["detail"]


def test_check_of_a_running_pipeline_is_all_ok(stopped):
    stopped.start()
    stopped.wait_for(state="idle")
    assert {row["ok"] for row in check(stopped).values()} == {True}


def test_check_before_the_first_start_says_what_start_will_make(keyring, pipeline):
    items = check(pipeline)
    assert {row["ok"] for row in items.values()} == {True}, items
    assert "will make" in items["target"]["detail"]
    assert pipeline.db.value("SELECT to_regclass('user_logins')") is None
    assert pipeline.db.value("SELECT count(*) FROM sqs_ingest_pipeline") == 0


def other_queue(pipeline, **_):
    pipeline.configure({"sqs_ingest.queue_url": pipeline.queue.url + "-not"})


def stranger_owns_it(pipeline, owner, **_):
    pipeline.db.sql(f"CREATE ROLE {owner}_not; ALTER TABLE user_logins OWNER TO {owner}_not")


def refusing_statement(pipeline, **_):
    pipeline.db.sql("""CREATE FUNCTION closed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'closed today'; END $$;
                       CREATE TRIGGER closed BEFORE INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION closed()""")


def sql(text):
    return lambda pipeline, owner, **_: pipeline.db.sql(text.format(owner=owner, database=pipeline.db.name))


def setting(name, value):
    return lambda pipeline, **_: pipeline.configure({name: value})


def keyring_mode(pipeline, keyring, **_):
    keyring.path.chmod(0o644)


def keyring_gone(pipeline, keyring, **_):
    keyring.remove()


def keyring_of_another(pipeline, keyring, **_):
    keyring.keys({1: K2})


# what is broken: by what, the item that says so, words of its detail and of its hint
BROKEN = {
    "enabled off": (setting("sqs_ingest.enabled", False), "sqs_ingest.enabled", "off", "reload"),
    "unknown queue": (other_queue, "queue", "NonExistentQueue|QueueDoesNotExist", "sqs_ingest.queue_url"),
    "no queue": (setting("sqs_ingest.queue_url", None), "queue URL", "no queue URL", "sqs_ingest.queue_url"),
    "queue that is no URL": (
        sql("UPDATE sqs_ingest_pipeline SET queue_url = 'login-queue'"), "queue URL", "login-queue", "Copy the queue's URL"),
    "nobody there": (setting("sqs_ingest.endpoint_url", "http://127.0.0.1:1"), "queue", "127.0.0.1", "sqs_ingest.endpoint_url"),
    "other region": (setting("sqs_ingest.region", "eu-west-3"), "queue", "", "region"),
    "no region": (setting("sqs_ingest.region", None), "region", "none", "sqs_ingest.region"),
    "missing column": (sql("ALTER TABLE user_logins DROP COLUMN locale"), "target", 'no column "locale"', "Add the column"),
    "column of another type": (
        sql("ALTER TABLE user_logins DROP app_version, ADD app_version boolean"), "target", 'column "app_version"', "type"),
    "missing table": (sql("DROP TABLE user_logins"), "target", '"public.user_logins" does not exist', None),
    "table of a stranger": (stranger_owns_it, "target", "does not trust", "owner"),
    "insert revoked": (sql("REVOKE INSERT ON user_logins FROM {owner}"), "insert", "permission denied", None),
    "trigger that refuses": (refusing_statement, "insert", "closed today", None),
    "owner without LOGIN": (sql("ALTER ROLE {owner} NOLOGIN"), "owner", "log in", "ALTER ROLE"),
    "owner without CONNECT": (sql("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"), "owner", "CONNECT", "GRANT"),
    "keyring that others can read": (keyring_mode, "keyring", "0644|permissions|mode", "chmod|0600"),
    "keyring that is gone": (keyring_gone, "keyring", "sqs_ingest.keyring", "backup|sqs_ingest_create_keyring"),
    "keyring with another key": (keyring_of_another, "keyring", "not the key", "backup"),
    "columns that are none": (
        sql("UPDATE sqs_ingest_pipeline SET columns = '[{{\"column\": \"user_id\", \"from\": \"user\"}}]'"),
        "configuration", "JSON Pointer", "columns"),
    "unknown method": (sql("UPDATE sqs_ingest_pipeline SET mask_method = 'rot13'"), "configuration", "rot13", "hmac"),
    "fsync off": (setting("fsync", False), "durability", "fsync", "fsync"),
}  # fmt: skip


def assert_says(row, detail, hint):
    assert row["ok"] is False
    assert any(word in row["detail"] for word in detail.split("|")), row
    if hint:
        assert row["hint"] and any(word in row["hint"] for word in hint.split("|")), row


@pytest.mark.parametrize("break_it, item, detail, hint", BROKEN.values(), ids=BROKEN)
def test_check_names_the_one_thing_that_is_broken(pipeline, owner, keyring, break_it, item, detail, hint):
    break_it(pipeline, owner=owner, keyring=keyring)
    with pipeline.db.connect() as session:
        items = check(pipeline, session)
    if detail == "log in" and pipeline.cluster.value("SHOW server_version_num") >= "170000":
        assert not_ok(items) == set()  # a worker needs no LOGIN there
        return
    assert not_ok(items) == {item}
    assert_says(items[item], detail, hint)
    if item != "configuration":
        assert list(items) == ITEMS[: len(items)] or item == "queue URL"


@pytest.mark.parametrize("case", ["keyring that others can read", "keyring that is gone", "keyring with another key"])
def test_check_looks_at_the_keyring_of_today_in_a_session_that_knows_that_of_yesterday(stopped, keyring, case):
    break_it, item, detail, hint = BROKEN[case]
    assert not_ok(check(stopped)) == set()
    break_it(stopped, keyring=keyring)
    stopped.cluster.reload()
    items = wait_until(lambda: not_ok(items := check(stopped)) and items, 5, "what is broken is seen")
    assert_says(items[item], detail, hint)


def test_check_names_missing_credentials(make_cluster, queue):
    cluster = make_cluster({**queue.settings, "fsync": True}, dict.fromkeys(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]))
    pipeline = Pipeline(Database(cluster, cluster.create_database()), queue)
    pipeline.db.sql("CREATE EXTENSION sqs_ingest")
    items = check(prepare(pipeline))
    assert not_ok(items) == {"credentials"}
    assert items["credentials"]["detail"] and "AWS_ACCESS_KEY_ID" in items["credentials"]["hint"]
    assert items["queue"]["ok"] is None
    pipeline.db.close()


def test_check_without_preloading_says_so_and_looks_at_the_rest(make_cluster, queue):
    cluster = make_cluster({**queue.settings, "fsync": True})
    pipeline = Pipeline(Database(cluster, cluster.create_database()), queue)
    pipeline.db.sql("CREATE EXTENSION sqs_ingest")
    prepare(pipeline)
    cluster.set(shared_preload_libraries=None).restart()
    items = check(pipeline)
    assert not_ok(items) == {"preloaded"}
    assert "shared_preload_libraries = 'sqs_ingest'" in items["preloaded"]["hint"]
    assert items["queue"]["ok"] and items["insert"]["ok"]
    pipeline.db.close()


def test_check_names_the_pipeline_that_has_the_queue(other_db, stopped, make_pipeline):
    other = make_pipeline(stopped.queue, database=other_db)
    other.start()
    other.wait_for(state="idle")
    items = check(stopped)
    assert not_ok(items) == {"queue is free"}
    assert_says(items["queue is free"], "already feeds pipeline", "Stop that pipeline")


def test_check_touches_nothing(stopped):
    """Not even where a statement trigger of the target writes."""
    ingest(stopped, [*login_messages(2), "no json"])
    stopped.db.sql("""CREATE TABLE log (at timestamptz);
                      CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                        IF (SELECT count(*) FROM inserted) > 0 THEN INSERT INTO log VALUES (now()); END IF; RETURN NULL; END $$;
                      CREATE TRIGGER log AFTER INSERT ON user_logins REFERENCING NEW TABLE AS inserted
                        FOR EACH STATEMENT EXECUTE FUNCTION log()""")
    stopped.queue.send(login_messages(4))
    assert_leaves_no_trace(stopped.db, "SELECT * FROM sqs_ingest_check()")
    assert stopped.db.value("SELECT count(*) FROM log") == 0
    assert stopped.queue.counts() == (4, 0)
    assert {m["Attributes"]["ApproximateReceiveCount"] for m in stopped.queue.receive()} == {"1"}


def test_check_rolls_back_what_a_statement_trigger_writes(stopped):
    stopped.db.sql("""CREATE TABLE log (at timestamptz);
                      CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                        INSERT INTO log VALUES (now()); RETURN NULL; END $$;
                      CREATE TRIGGER log BEFORE INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION log()""")
    assert not_ok(check(stopped)) == set()
    assert stopped.db.value("SELECT count(*) FROM log") == 0


def test_check_works_in_a_read_only_transaction_but_for_the_insert(stopped):
    with stopped.db.connect() as session:
        session.execute("SET default_transaction_read_only = on")
        items = check(stopped, session)
    assert not_ok(items) <= {"insert"}
    if not items["insert"]["ok"]:
        assert "read-only" in items["insert"]["detail"]


def test_check_on_a_standby_says_that_it_is_one(make_cluster, queue):
    primary = make_cluster({**queue.settings, "fsync": True})
    pipeline = Pipeline(Database(primary, primary.create_database()), queue)
    pipeline.db.sql("CREATE EXTENSION sqs_ingest")
    prepare(pipeline)
    standby = make_cluster.adopt(primary.standby())
    standby.start()
    with standby.connect(pipeline.db.name) as session:
        items = check(pipeline, session)
        assert "standby" in items["launcher"]["hint"]
        assert items["queue"]["ok"] and items["keyring"]["ok"] and items["configuration"]["ok"]
        for item in not_ok(items) - {"launcher"}:
            assert item in ("target", "insert")
            assert any(word in items[item]["detail"] for word in ("recovery", "standby", "read-only")), items[item]
    pipeline.db.close()


# -- preview ----------------------------------------------------------------------------------------------------------

GOOD = [
    login_message(1),
    login_message(2, locale=None, device_type=..., app_version=...),
    login_message(3, ip="2001:DB8:0:0:0:0:0:1"),
    login_message(4, ip="::ffff:192.0.2.7", app_version=2.3),
    login_message(5, app_version=7, create_date="2024-02-29"),
    login_message(6, create_date="2023-11-21T23:30:00-01:00"),
    login_message(7, user_id="'; DROP TABLE user_logins; --", locale='"{a,NULL}\\'),
    login_message(8, user_id="😀 ünï", locale="日本語"),
    login_message(9, user_id="u" * 128, device_type="d" * 32),
    login_message(10, user_id=4711, device_id=1234567890123456789),
    login_message(11, more={"deep": [1, 2, {"x": None}]}),
    login_message(12, ip="not an address", device_id=" \t\n"),
    login_message(13, app_version="2147483647"),
]
BAD = {
    "not_json": "no json",
    "not_object": "[1, 2]",
    "duplicate_key": '{"user_id": "a", "user_id": "b"}',
    "too_deep": '{"user_id": ' + "[" * 100 + "]" * 100 + "}",
    "missing_field": json.dumps(login_message(20, ip=None)),
    "empty_field": json.dumps(login_message(21, user_id="")),
    "wrong_type": json.dumps(login_message(22, device_type={"a": 1})),
    "nul_character": json.dumps(login_message(23, locale="a\0b")),
    "number_out_of_range": json.dumps(login_message(24)).replace("}", ', "size": 1e999}'),
    "bad_version": json.dumps(login_message(25, app_version="two")),
    "bad_date": json.dumps(login_message(26, create_date="2023-02-29")),
    "too_long": json.dumps(login_message(27, device_type="d" * 33)),
    "invalid_utf8": '{"user_id": "\\ud800"}',
}
OLD_BAD_ONES = {"empty body": " ", "too_long after masking": json.dumps(login_message(28, user_id="ä" * 129))}


def preview(session, body, name="user_logins"):
    """The row or the rejection; the other is None."""
    (value,) = session.execute("SELECT sqs_ingest_preview(%s, %s)", [name, body]).fetchone()
    columns = value.pop("columns", {})  # a body that cannot be parsed has none
    assert set(value) in ({"row"}, {"rejected"})
    if "row" in value:
        assert value["row"] == {column: told["value"] for column, told in columns.items()}
    elif columns:
        assert value["rejected"]["reason"] in [told.get("rejected") for told in columns.values()]
    return value.get("row"), value.get("rejected")


def test_preview_is_the_row_or_the_rejection_that_the_worker_then_makes(stopped):
    bodies = [*map(json.dumps, GOOD), *BAD.values(), *OLD_BAD_ONES.values()]
    session = stopped.db.connection
    previews = [preview(session, body) for body in bodies]
    ids = stopped.queue.send(bodies)
    stopped.start()
    stopped.wait_until_ingested(len(bodies))

    stored = {row["user_id"]: {**row, "create_date": str(row["create_date"])} for row in stopped.rows()}
    shown = {row["user_id"]: row for row, _ in previews if row}
    for row in (*shown.values(), *stored.values()):
        if row["user_id"] not in (GOOD[4]["user_id"], GOOD[5]["user_id"]):
            row.pop("create_date")  # of today: another test shows which
    assert shown == stored
    assert len(shown) == len(GOOD)

    letters = {letter["message_id"]: letter for letter in stopped.dead_letters()}
    assert [rejected["reason"] for _, rejected in previews if rejected] == [*BAD, "not_json", "too_long"]
    for message_id, (_, rejected) in zip(ids, previews, strict=True):
        if rejected:
            letter = letters.pop(message_id)
            assert (rejected["reason"], rejected.get("field")) == (letter["reason"], letter["field"])
            assert rejected["redacted"] == letter["redacted"]
    assert letters == {}


def test_preview_takes_the_date_from_the_given_sent_timestamp(stopped):
    query = "SELECT sqs_ingest_preview('user_logins', %s, %s) -> 'row' ->> 'create_date'"
    with stopped.db.connect() as session:
        session.execute("SET TimeZone = 'Pacific/Kiritimati'")
        body = json.dumps(login_message(1))
        assert session.execute(query, [body, "2024-02-29 23:59:59.999+00"]).fetchone() == ("2024-02-29",)
        assert session.execute(query, [body, None]).fetchone() == (None,)


def test_preview_follows_the_mapping_and_the_table_of_now(stopped):
    session = stopped.db.connection
    body = json.dumps(without_device(1))
    assert preview(session, body)[1]["reason"] == "missing_field"
    let_devices_be_missing(stopped.db)
    row, _ = preview(session, body)
    assert row["masked_device_id"] is None
    stopped.db.sql("ALTER TABLE user_logins ALTER user_id TYPE varchar(8)")
    assert preview(session, body)[1] == {**preview(session, body)[1], "reason": "too_long", "field": "user_id"}


def test_preview_shows_no_plain_value(stopped):
    for body in [json.dumps(login_message(1)), json.dumps(login_message(1, user_id=...)), json.dumps(login_message(1)) + "}"]:
        text = stopped.db.value("SELECT sqs_ingest_preview('user_logins', %s)::text", [body])
        assert "10.0.0.1" not in text and login_message(1)["device_id"] not in text


def test_preview_touches_nothing(stopped):
    ingest(stopped, [*login_messages(2), "no json"])
    stopped.db.sql("INSERT INTO sqs_ingest_dead_letter (pipeline, message_id, receive_count, reason, redacted, sealed)"
                   " SELECT pipeline, 'x', receive_count, reason, redacted, sealed FROM sqs_ingest_dead_letter")  # fmt: skip
    for body in (json.dumps(login_message(1)), "no json"):
        assert_leaves_no_trace(stopped.db, "SELECT sqs_ingest_preview('user_logins', %s)", [body])


def test_preview_works_in_a_read_only_transaction_and_on_a_standby(make_cluster, queue):
    primary = make_cluster(queue.settings)
    pipeline = Pipeline(Database(primary, primary.create_database()), queue)
    pipeline.db.sql("CREATE EXTENSION sqs_ingest")
    prepare(pipeline)
    expected = preview(pipeline.db.connection, json.dumps(login_message(1)))
    with pipeline.db.connect() as session:
        session.execute("SET default_transaction_read_only = on")
        assert preview(session, json.dumps(login_message(1))) == expected
    standby = make_cluster.adopt(primary.standby())
    (standby.data / "sqs_ingest.keyring").write_bytes((primary.data / "sqs_ingest.keyring").read_bytes())
    standby.start()
    with standby.connect(pipeline.db.name) as session:
        assert preview(session, json.dumps(login_message(1))) == expected
    pipeline.db.close()


# -- which dead letters ------------------------------------------------------------------------------------------------

# Four letters, by age in days and reason; all become rows once the mapping and the table are mended.
LETTERS = {"A": (10, "row_error"), "B": (2, "row_error"), "C": (10, "missing_field"), "D": (0, "missing_field")}

CHOICES = {
    "all": ({}, "ABCD"),
    "reason": ({"reason": "row_error"}, "AB"),
    "unknown reason": ({"reason": "no such reason"}, ""),
    "ids": ({"ids": "AD"}, "AD"),
    "no ids": ({"ids": ""}, ""),
    "older": ({"older_than": "5 days"}, "AC"),
    "newer": ({"newer_than": "5 days"}, "BD"),
    "between": ({"older_than": "1 day", "newer_than": "5 days"}, "B"),
    "reason and age": ({"reason": "missing_field", "older_than": "5 days"}, "C"),
    "reason and ids": ({"reason": "missing_field", "ids": "ABD"}, "D"),
    "all at once": ({"reason": "row_error", "ids": "ABC", "older_than": "1 day", "newer_than": "5 days"}, "B"),
    "everything that is older than nothing": ({"older_than": "0"}, "ABCD"),
}


@pytest.fixture
def letters(stopped):
    """The ids of LETTERS by name, and of another pipeline's letter as "other"."""
    db = stopped.db
    db.sql("ALTER TABLE user_logins ADD CONSTRAINT no_web CHECK (device_type <> 'web')")
    bodies = [login_message(i, user_id=name, **({"device_type": "web"} if reason == "row_error" else {"device_id": None}))
              for i, (name, (_, reason)) in enumerate(LETTERS.items())]  # fmt: skip
    message_ids = ingest(stopped, [*bodies, login_message(9)])
    found = {letter["message_id"]: letter["id"] for letter in stopped.dead_letters()}
    ids = {name: found[message_id] for name, message_id in zip(LETTERS, message_ids)}
    for name, (days, _) in LETTERS.items():
        db.sql("UPDATE sqs_ingest_dead_letter SET created_at = now() - %s * interval '1 day' WHERE id = %s", [days, ids[name]])
    ids["other"] = db.value(
        """INSERT INTO sqs_ingest_dead_letter (pipeline, message_id, receive_count, reason, redacted, sealed, created_at)
           SELECT 'another', message_id, 1, reason, redacted, sealed, created_at FROM sqs_ingest_dead_letter
           WHERE id = %s RETURNING id""", [ids["A"]])  # fmt: skip
    return ids


def conditions(choice, ids):
    """SQL and parameters of named arguments."""
    given = {**choice, **({"ids": [ids[name] for name in choice["ids"]]} if "ids" in choice else {})}
    types = {"ids": "::bigint[]", "older_than": "::interval", "newer_than": "::interval"}
    return ", ".join(f"{name} => %s{types.get(name, '')}" for name in given), [*given.values()]


def names_left(session, ids):
    left = {row[0] for row in session.execute("SELECT id FROM sqs_ingest_dead_letter")}
    return "".join(name for name in LETTERS if ids[name] in left), ids["other"] in left


def others_than(names):
    return "".join(name for name in LETTERS if name not in names)


def test_redrive_takes_the_letters_that_meet_all_conditions(stopped, letters):
    stopped.db.sql("ALTER TABLE user_logins DROP CONSTRAINT no_web")
    let_devices_be_missing(stopped.db)
    with stopped.db.connect(autocommit=False) as session:
        for case, (choice, chosen) in CHOICES.items():
            text, parameters = conditions(choice, letters)
            assert session.execute(f"SELECT sqs_ingest_redrive({text})", parameters).fetchone() == (len(chosen),), case
            assert names_left(session, letters) == (others_than(chosen), True), case
            users = {row[0] for row in session.execute("SELECT user_id FROM user_logins")}
            assert users == {*chosen, login_message(9)["user_id"]}, case
            session.rollback()


def test_purge_removes_the_letters_that_meet_all_conditions(stopped, letters):
    with stopped.db.connect(autocommit=False) as session:
        for case, (choice, chosen) in CHOICES.items():
            if choice:
                text, parameters = conditions(choice, letters)
                assert session.execute(f"SELECT sqs_ingest_purge({text})", parameters).fetchone() == (len(chosen),), case
                assert names_left(session, letters) == (others_than(chosen), True), case
                session.rollback()
    assert user_ids(stopped) == [login_message(9)["user_id"]]


# -- redrive ----------------------------------------------------------------------------------------------------------


def redrive(pipeline, arguments="", session=None):
    return (session or pipeline.db.connection).execute(f"SELECT sqs_ingest_redrive({arguments})").fetchone()[0]


def test_redrive_after_the_mapping_was_mended_makes_the_rows_that_were_missing(stopped):
    messages = [without_device(i) for i in range(150)]  # more than are opened at once
    ingest(stopped, [*messages, "no json"])
    assert len(stopped.dead_letters()) == 151
    let_devices_be_missing(stopped.db)
    assert redrive(stopped) == 150
    assert user_ids(stopped) == users_of(messages)
    ip = stopped.db.value("SELECT masked_ip FROM user_logins WHERE user_id = %s", [messages[7]["user_id"]])
    assert ip == hmac_token(1, K1, messages[7]["ip"])
    (left,) = stopped.dead_letters()
    assert (left["reason"], left["redrives"]) == ("not_json", 1)
    assert stopped.db.value("SELECT count(*) FROM sqs_ingest_ledger") == 151
    assert redrive(stopped) == 0


def test_redriven_row_has_the_date_at_which_its_message_was_sent(stopped):
    ingest(stopped, [without_device(1)])
    stopped.db.sql("UPDATE sqs_ingest_dead_letter SET sent_at = '2024-02-29 23:59:59.999+00'")
    let_devices_be_missing(stopped.db)
    with stopped.db.connect() as session:
        session.execute("SET TimeZone = 'Pacific/Kiritimati'")
        assert redrive(stopped, session=session) == 1
    assert str(stopped.rows()[0]["create_date"]) == "2024-02-29"


@pytest.mark.parametrize("deferred", ["", "DEFERRABLE INITIALLY DEFERRED"], ids=["at once", "deferred"])
def test_redrive_after_the_table_was_mended_inserts_what_it_refused(stopped, deferred):
    db = stopped.db
    db.sql(f"""CREATE TABLE device (name varchar PRIMARY KEY); INSERT INTO device VALUES ('android'), ('ios');
               ALTER TABLE user_logins ADD CONSTRAINT known FOREIGN KEY (device_type) REFERENCES device {deferred}""")
    messages = [login_message(i, device_type="web" if i % 3 == 0 else "tv" if i % 3 == 1 else "ios") for i in range(12)]
    ingest(stopped, messages)
    assert [letter["constraint_name"] for letter in stopped.dead_letters()] == ["known"] * 8
    assert redrive(stopped) == 0
    db.sql("INSERT INTO device VALUES ('web')")
    assert redrive(stopped, "reason => 'row_error'") == 4
    assert user_ids(stopped) == users_of(message for message in messages if message["device_type"] != "tv")
    columns = ("reason", "sqlstate", "constraint_name", "redrives")
    left = [tuple(letter[name] for name in columns) for letter in stopped.dead_letters()]
    assert left == [("row_error", "23503", "known", 2)] * 4


def test_letter_that_fails_again_stays_with_the_reason_of_today_and_can_be_opened_still(stopped, keyring):
    body = json.dumps(without_device(1, app_version="two"))
    (message_id,) = ingest(stopped, [body])
    (before,) = stopped.dead_letters()
    assert (before["reason"], before["field"]) == ("missing_field", "device_id")
    assert (before["redrives"], before["redriven_at"]) == (0, None)
    let_devices_be_missing(stopped.db)
    keyring.keys({1: K1, 2: K2})
    assert wait_until(lambda: redrive(stopped) == 0, 5)
    (after,) = stopped.dead_letters()
    assert (after["reason"], after["field"], after["redrives"]) == ("bad_version", "app_version", 1)
    assert after["redriven_at"] >= before["created_at"]
    for column in ("id", "message_id", "sent_at", "receive_count", "created_at"):
        assert after[column] == before[column]
    assert unseal(1, K1, message_id, bytes(before["sealed"])) == body
    assert unseal(2, K2, message_id, bytes(after["sealed"])) == body  # under the primary key of today
    assert after["redacted"]["fields"]["/ip"]["token"] == hmac_token(2, K2, "10.0.0.1")

    stopped.db.sql("ALTER TABLE user_logins ADD CONSTRAINT none CHECK (device_type = 'none')")
    stopped.db.sql("""UPDATE sqs_ingest_pipeline SET columns = (SELECT jsonb_agg(c) FROM jsonb_array_elements(columns) c
                      WHERE c ->> 'column' <> 'app_version')""")
    assert redrive(stopped) == 0
    (again,) = stopped.dead_letters()
    assert (again["reason"], again["field"], again["sqlstate"], again["constraint_name"], again["redrives"]) == (
        "row_error", None, "23514", "none", 2)  # fmt: skip
    stopped.db.sql("ALTER TABLE user_logins DROP CONSTRAINT none")
    assert redrive(stopped) == 1
    assert stopped.dead_letters() == []


def test_redrive_tries_no_more_letters_than_it_is_told(stopped):
    ingest(stopped, ["no json", *[without_device(i) for i in range(4)]])
    let_devices_be_missing(stopped.db)
    assert redrive(stopped, "max_letters => 0") == 0
    assert [letter["redrives"] for letter in stopped.dead_letters()] == [0] * 5
    assert redrive(stopped, "max_letters => 3") == 2  # the oldest first, one of them in vain
    assert [letter["redrives"] for letter in stopped.dead_letters()] == [1, 0, 0]
    assert user_ids(stopped) == users_of(login_messages(2))
    assert redrive(stopped, "reason => 'missing_field', max_letters => 1") == 1
    assert redrive(stopped) == 1
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        redrive(stopped, "max_letters => -1")


def test_redrive_that_is_rolled_back_leaves_the_letters(stopped):
    ingest(stopped, [*[without_device(i) for i in range(3)], "no json"])
    let_devices_be_missing(stopped.db)
    before = stopped.dead_letters()
    with stopped.db.connect(autocommit=False) as session:
        assert redrive(stopped, session=session) == 3
        session.rollback()
    assert stopped.dead_letters() == before
    assert stopped.rows() == []
    assert redrive(stopped) == 3


def test_two_redrives_at_once_insert_each_letter_once(stopped):
    messages = [without_device(i) for i in range(300)]
    ingest(stopped, messages)
    let_devices_be_missing(stopped.db)
    counts, start = [], threading.Barrier(2)

    def one():
        with stopped.db.connect() as session:
            start.wait()
            counts.append(redrive(stopped, session=session))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 300
    assert user_ids(stopped) == users_of(messages)
    assert stopped.dead_letters() == []


def test_redrive_does_not_wait_for_letters_that_another_redrive_has_in_hand(stopped):
    ingest(stopped, [without_device(i) for i in range(3)])
    let_devices_be_missing(stopped.db)
    with stopped.db.connect(autocommit=False) as first, stopped.db.connect(options="-c lock_timeout=2s") as second:
        assert redrive(stopped, session=first) == 3
        assert redrive(stopped, session=second) == 0
        first.commit()
    assert len(stopped.rows()) == 3


def test_redriven_message_that_the_queue_delivers_again_is_a_duplicate(keyring, proxied, proxy):
    proxy.on("ReceiveMessage", short_polls)
    proxy.on("DeleteMessageBatch", answer(body=b'{"Successful": [{"Id": "0"}], "Failed": []}'), times=1)
    prepare(proxied)
    ingest(proxied, [without_device(1)])
    let_devices_be_missing(proxied.db)
    assert redrive(proxied) == 1
    handle = proxy.asked("DeleteMessageBatch")[0].json["Entries"][0]["ReceiptHandle"]
    proxied.queue.client.change_message_visibility(QueueUrl=proxied.queue.url, ReceiptHandle=handle, VisibilityTimeout=0)
    proxied.db.sql("CALL sqs_ingest_drain()")
    stat = proxied.stat()
    assert (stat["duplicates"], stat["inserted"], len(proxied.rows())) == (1, 0, 1)
    assert proxied.queue.is_empty()


def test_damaged_message_never_becomes_a_row(keyring, proxied, proxy):
    def damage(messages):
        for message in messages:
            message["Body"] = message["Body"].replace("RU", "R\udcff")

    prepare(proxied)
    proxy.on("ReceiveMessage", altered_messages(damage, raw_bytes=True))
    ingest(proxied, [login_message(1)])
    proxy.pass_on("ReceiveMessage")
    assert [letter["reason"] for letter in proxied.dead_letters()] == ["invalid_utf8"]
    for i in range(2):
        assert redrive(proxied) == 0
        (letter,) = proxied.dead_letters()
        assert (letter["reason"], letter["redrives"]) == ("invalid_utf8", i + 1)
    assert proxied.rows() == []


def hear(session):
    heard = []
    session.add_notice_handler(lambda notice: heard.append((notice.severity, notice.message_primary, notice.message_hint or "")))
    return heard


def test_letters_whose_key_is_gone_are_left_with_a_warning(stopped, keyring):
    ingest(stopped, [without_device(1), without_device(2)])
    let_devices_be_missing(stopped.db)
    before = stopped.dead_letters()
    keyring.keys({2: K2})
    with stopped.db.connect() as session:
        heard = hear(session)
        assert redrive(stopped, session=session) == 0
    assert [(text, hint) for severity, text, hint in heard if severity == "WARNING"] and "2 dead letters" in heard[0][1]
    assert "backup" in heard[0][2]
    assert stopped.dead_letters() == before
    keyring.keys({1: K1, 2: K2})
    assert wait_until(lambda: redrive(stopped), 5) == 2


def test_redrive_of_a_tampered_letter_makes_no_row(stopped):
    """One letter's original under another one's message id."""
    ingest(stopped, [without_device(1), without_device(2)])
    let_devices_be_missing(stopped.db)
    stopped.db.sql("UPDATE sqs_ingest_dead_letter SET sealed = (SELECT sealed FROM sqs_ingest_dead_letter ORDER BY id LIMIT 1)")
    assert redrive(stopped) == 1
    assert len(stopped.rows()) == 1 and len(stopped.dead_letters()) == 1


def test_redrive_works_while_the_pipeline_runs(stopped):
    ingest(stopped, [without_device(i) for i in range(5)])
    stopped.start()
    let_devices_be_missing(stopped.db)
    assert redrive(stopped) == 5
    stopped.queue.send(login_messages(5, start=5))
    stopped.wait_for(state=lambda state: state in ("idle", "running"), inserted=5)
    assert len(stopped.rows()) == 10


@pytest.mark.parametrize("become", [None, "SET ROLE {}"])
@pytest.mark.parametrize("call", ["redrive()", "forget('x')"])
def test_superuser_cannot_redrive_or_forget_for_the_owner(pipeline, owner, call, become):
    """The target's triggers belong to the owner, and could become again whoever has connected."""
    let_devices_be_missing(pipeline.db)
    with pipeline.db.connect(owner) as session:
        pipeline.queue.send(['{"user_id": "x"}'])
        session.execute("CALL sqs_ingest_drain(max_messages => 1)")
    with pipeline.db.connect() as session:
        if become:
            session.execute(become.format(owner))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=owner) as refused:
            session.execute(f"SELECT sqs_ingest_{call}")
        assert f'Connect as "{owner}"' in refused.value.diag.message_hint
    assert len(pipeline.dead_letters()) == 1


def test_superuser_may_purge_for_the_owner(pipeline, owner):
    with pipeline.db.connect(owner) as session:
        pipeline.queue.send(["no json"])
        session.execute("CALL sqs_ingest_drain(max_messages => 1)")
    assert pipeline.db.value("SELECT sqs_ingest_purge(older_than => '0')") == 1


def test_session_is_as_before_after_redrive_and_forget(pipeline, owner):
    pipeline.db.sql(f"ALTER ROLE {owner} SUPERUSER")  # so that a superuser may SET ROLE to it
    with pipeline.db.connect() as session:
        session.execute(f"SET ROLE {owner}")
        session.execute("SET search_path = pg_temp, public")
        session.execute("SET default_transaction_isolation = serializable")
        shown = "SELECT current_user, current_setting('search_path'), current_setting('transaction_isolation')"
        before = session.execute(shown).fetchone()
        pipeline.queue.send([without_device(1), "no json"])
        session.execute("CALL sqs_ingest_drain(max_messages => 2)")
        let_devices_be_missing(pipeline.db)
        assert redrive(pipeline, session=session) == 1
        assert session.execute("SELECT sqs_ingest_forget(%s)", [login_message(1)["user_id"]]).fetchone()[0]["rows"] == 1
        assert session.execute(shown).fetchone() == before


# -- purge and retention ----------------------------------------------------------------------------------------------


def test_purge_without_a_condition_is_refused(stopped, letters):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="at least one condition") as refused:
        stopped.db.sql("SELECT sqs_ingest_purge()")
    assert "dead_letter_retention" in refused.value.diag.message_hint
    assert names_left(stopped.db.connection, letters) == ("ABCD", True)


def test_purge_without_a_condition_removes_what_the_retention_says(stopped, letters):
    stopped.db.sql("UPDATE sqs_ingest_pipeline SET dead_letter_retention = '5 days'")
    assert stopped.db.value("SELECT sqs_ingest_purge()") == 2
    assert names_left(stopped.db.connection, letters) == ("BD", True)


def test_purge_with_a_condition_goes_by_that_alone(stopped, letters):
    stopped.db.sql("UPDATE sqs_ingest_pipeline SET dead_letter_retention = '5 days'")
    assert stopped.db.value("SELECT sqs_ingest_purge(reason => 'row_error')") == 2
    assert names_left(stopped.db.connection, letters) == ("CD", True)


def test_what_a_deleted_pipeline_left_can_be_purged_by_a_superuser_alone(pipeline, owner):
    pipeline.db.sql("INSERT INTO sqs_ingest_dead_letter (pipeline, message_id, receive_count, reason, redacted, sealed)"
                    " VALUES ('deleted', 'x', 1, 'not_json', '{}', '')")  # fmt: skip
    with pipeline.db.connect(owner) as session:
        with pytest.raises(psycopg.errors.UndefinedObject):
            session.execute("SELECT sqs_ingest_purge('deleted', older_than => '0')")
    assert pipeline.db.value("SELECT sqs_ingest_purge('deleted', older_than => '0')") == 1


def test_purge_that_is_rolled_back_removes_nothing(stopped, letters):
    with stopped.db.connect(autocommit=False) as session:
        assert session.execute("SELECT sqs_ingest_purge(older_than => '0')").fetchone() == (4,)
        session.rollback()
    assert names_left(stopped.db.connection, letters) == ("ABCD", True)


def test_negative_or_zero_retention_is_refused(stopped):
    for interval in ("0", "-1 day"):
        with pytest.raises(psycopg.errors.CheckViolation):
            stopped.db.sql("UPDATE sqs_ingest_pipeline SET dead_letter_retention = %s::interval", [interval])


def test_worker_removes_dead_letters_that_are_too_old_and_no_others(stopped, letters):
    db = stopped.db
    db.sql("UPDATE sqs_ingest_pipeline SET dead_letter_retention = '5 days'")
    stopped.start()
    wait_until(lambda: names_left(db.connection, letters) == ("BD", True), 10, "old letters removed at the start")
    db.sql("UPDATE sqs_ingest_pipeline SET dead_letter_retention = '1 day'")
    wait_until(lambda: names_left(db.connection, letters) == ("D", True), 10, "a shorter retention holds at once")


def test_worker_removes_a_dead_letter_when_its_time_is_over_though_nothing_comes(stopped):
    stopped.db.sql("UPDATE sqs_ingest_pipeline SET dead_letter_retention = '3 seconds'")
    stopped.start()
    stopped.queue.send(["no json"])
    stopped.wait_for(dead_letters=1, deleted=1)
    sent = time.monotonic()
    assert len(stopped.dead_letters()) == 1
    wait_until(lambda: stopped.dead_letters() == [], 10, "the letter is removed")
    assert time.monotonic() - sent > 1.5
    assert stopped.stat()["dead_letters"] == 1
    assert_counters_add_up(stopped.stat())


def test_idle_pipeline_with_letters_that_are_not_due_runs_no_sql(stopped):
    db, cluster = stopped.db, stopped.cluster
    db.sql("UPDATE sqs_ingest_pipeline SET dead_letter_retention = '1 hour'")
    stopped.start()
    stopped.queue.send(["no json"])
    stopped.wait_for(dead_letters=1, deleted=1)
    stopped.wait_for(state="idle")
    db.close()

    def transactions():
        return cluster.value("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s", [db.name])

    time.sleep(1.5)  # sessions that ended report their last transactions
    before = transactions()
    time.sleep(4)
    assert transactions() == before


# -- forget -----------------------------------------------------------------------------------------------------------


def forget(pipeline, user, session=None):
    return (session or pipeline.db.connection).execute("SELECT sqs_ingest_forget(%s)", [user]).fetchone()[0]


ABOUT = {
    "misspelt key": '{"userid": "%s"}',
    "nested": '{"login": {"by": ["%s"]}}',
    "as a key": '{"%s": {"ip": "1.2.3.4"}}',
    "missing field": '{"user_id": "%s", "ip": "1.2.3.4"}',
    "cut off": '{"user_id": "%s", "ip',
    "no JSON, quoted": "oops: \"%s\"",
    "no JSON, bare": "user=%s;ip=1.2.3.4",
    "an array": '["%s"]',
}


def about(user, text):
    return text.replace("%s", user if text.startswith("user=") else json.dumps(user, ensure_ascii=False)[1:-1])


@pytest.mark.parametrize("user", ["424cdd21-063a-43a7-b91b-7ca1a833afae", "jane.doe@example.org", "ünï’ödd-7"])
def test_forget_erases_the_rows_and_dead_letters_of_a_user_and_of_nobody_else(stopped, user):
    others = [user + "0", "0" + user, user.upper(), "somebody else"]
    about_user = [about(user, text) for text in ABOUT.values()]
    about_others = [about(other, text) for text in ABOUT.values() for other in others]
    rows = [login_message(i, user_id=one) for i, one in enumerate([user, user, *others])]
    ingest(stopped, [*about_user, *about_others, *map(json.dumps, rows)])
    assert len(stopped.dead_letters()) == len(about_user) + len(about_others)
    kept = {letter["id"] for letter in stopped.dead_letters()[len(about_user) :]}

    assert forget(stopped, user) == {"rows": 2, "dead_letters": len(about_user), "not_opened": 0}
    assert user_ids(stopped) == sorted(others)
    assert {letter["id"] for letter in stopped.dead_letters()} == kept
    assert forget(stopped, user) == {"rows": 0, "dead_letters": 0, "not_opened": 0}


def test_forget_finds_the_user_id_however_json_spells_it(stopped):
    user = "jürgen/7"
    spelt = ['{"user_id": "j\\u00fcrgen\\/7"}', '{"id": "jürgen\\/7"}',
             '{"user_id": "j\\u00fcrgen/7", "ip', '{"a": "j\\u00FCrgen/7" oops']  # fmt: skip
    ingest(stopped, [*spelt, '{"user_id": "jurgen/7"}'])
    assert forget(stopped, user)["dead_letters"] == len(spelt)
    assert len(stopped.dead_letters()) == 1


def test_forget_leaves_letters_in_which_the_id_is_something_else(stopped):
    bodies = [without_device(1, user_id="other", locale="RU"), without_device(2, app_version="7"), without_device(3, device_type="7"),
              {"x": "RU"}, "RU", "[7]"]  # fmt: skip
    ingest(stopped, bodies)
    assert forget(stopped, "RU") == forget(stopped, "7") == {"rows": 0, "dead_letters": 0, "not_opened": 0}
    assert len(stopped.dead_letters()) == len(bodies)


def test_forget_waits_for_letters_that_another_session_has_locked(stopped):
    """An erasure that skips what is locked would not be one."""
    ingest(stopped, [without_device(1, user_id="jane.doe")])
    counts = []
    with stopped.db.connect(autocommit=False) as other, stopped.db.connect() as session:
        other.execute("SELECT FROM sqs_ingest_dead_letter FOR UPDATE")
        thread = threading.Thread(target=lambda: counts.append(forget(stopped, "jane.doe", session)))
        thread.start()
        waits = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: stopped.db.value(waits, [session.info.backend_pid]) == "Lock" or counts, 10, "it waits")
        other.rollback()
        thread.join()
    assert counts == [{"rows": 0, "dead_letters": 1, "not_opened": 0}]
    assert stopped.dead_letters() == []


def test_forget_finds_a_user_id_that_is_a_number(stopped):
    rows = [login_message(i, user_id=user) for i, user in enumerate([4711, "4711", 47110])]
    about_others = ['{"user_id": 47110}', '{"userid": 14711}', '{"user_id": 4711.5}']
    ingest(stopped, [*rows, '{"user_id": 4711}', '{"userid": 4711}', *about_others])
    assert forget(stopped, "4711") == {"rows": 2, "dead_letters": 2, "not_opened": 0}
    assert user_ids(stopped) == ["47110"]


def test_forget_finds_masked_user_ids_under_every_key(stopped, keyring):
    db = stopped.db
    db.sql("""UPDATE sqs_ingest_pipeline SET columns = (SELECT jsonb_agg(CASE WHEN c ->> 'column' = 'user_id'
              THEN c || '{"steps": ["mask"]}' ELSE c END) FROM jsonb_array_elements(columns) c)""")
    ingest(stopped, [login_message(1, user_id="jane"), login_message(2, user_id="john"), without_device(3, user_id="jane")])
    keyring.keys({1: K1, 2: K2})
    wait_until(lambda: db.value("SELECT count(*) FROM mask_keys()") == 2, 5)
    ingest(stopped, [login_message(4, user_id="jane"), login_message(5, user_id="john"), without_device(6, user_id="jane")])
    assert {hmac_token(1, K1, "jane"), hmac_token(2, K2, "jane")} < {*user_ids(stopped)}
    assert forget(stopped, "jane") == {"rows": 2, "dead_letters": 2, "not_opened": 0}
    assert user_ids(stopped) == sorted([hmac_token(1, K1, "john"), hmac_token(2, K2, "john")])


def test_forget_says_how_many_letters_it_could_not_open(stopped, keyring):
    ingest(stopped, [login_message(1, user_id="jane"), without_device(2, user_id="jane"), "no json"])
    keyring.keys({2: K2})
    with stopped.db.connect() as session:
        heard = hear(session)
        assert forget(stopped, "jane", session) == {"rows": 1, "dead_letters": 0, "not_opened": 2}
    assert [severity for severity, *_ in heard] == ["WARNING"]
    assert len(stopped.dead_letters()) == 2


def test_forget_leaves_other_pipelines_letters(stopped):
    ingest(stopped, [without_device(1, user_id="jane.doe")])
    stopped.db.sql("UPDATE sqs_ingest_dead_letter SET pipeline = 'another'")
    assert forget(stopped, "jane.doe") == {"rows": 0, "dead_letters": 0, "not_opened": 0}
    assert stopped.db.value("SELECT count(*) FROM sqs_ingest_dead_letter") == 1


def test_forget_that_is_rolled_back_erases_nothing(stopped):
    ingest(stopped, [login_message(1, user_id="jane"), without_device(2, user_id="jane")])
    with stopped.db.connect(autocommit=False) as session:
        assert forget(stopped, "jane", session) == {"rows": 1, "dead_letters": 1, "not_opened": 0}
        session.rollback()
    assert len(stopped.rows()) == 1 and len(stopped.dead_letters()) == 1


def test_forget_refuses_the_empty_user_and_a_pipeline_without_users(stopped):
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        forget(stopped, "")
    assert forget(stopped, None) is None
    stopped.db.sql("""UPDATE sqs_ingest_pipeline SET columns = (SELECT jsonb_agg(c) FROM jsonb_array_elements(columns) c
                      WHERE c ->> 'column' <> 'user_id')""")
    with pytest.raises(psycopg.errors.UndefinedColumn, match="marked as the user's") as refused:
        forget(stopped, "jane")
    assert refused.value.diag.message_hint


@pytest.mark.parametrize("call", ["redrive()", "purge(older_than => '0')", "forget('x')"])
def test_functions_that_change_are_refused_in_a_read_only_transaction(stopped, call):
    with stopped.db.connect() as session:
        session.execute("SET default_transaction_read_only = on")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            session.execute(f"SELECT sqs_ingest_{call}")


# -- counters ---------------------------------------------------------------------------------------------------------


def counted(pipeline):
    stat = pipeline.stat()
    return stat["received"] + stat["deleted"] + stat["transactions"] if stat else 0


def test_stat_reset_sets_the_counters_of_one_pipeline_or_of_all_to_zero(other_db, stopped, make_pipeline, moto):
    other = prepare(make_pipeline(moto.queue(), database=other_db))
    stopped.configure({"sqs_ingest.queue_url": stopped.queue.url})
    with stopped.db.connect() as session:  # it may not have heard of the reload yet
        stopped.queue.send([*login_messages(3), "no json"])
        session.execute("CALL sqs_ingest_drain(max_messages => 4)")
    stopped.queue.send([login_message(5)])
    with other_db.connect() as session:
        session.execute("CALL sqs_ingest_drain(max_messages => 1)")
    db = stopped.db
    before = stopped.stat()["stats_since"]
    with pytest.raises(psycopg.errors.UndefinedObject):
        db.sql("SELECT sqs_ingest_stat_reset('no such pipeline')")
    assert stopped.stat()["inserted"] == 3
    db.sql("SELECT sqs_ingest_stat_reset('user_logins')")
    stat = stopped.stat()
    assert counted(stopped) == 0 and stat["stats_since"] > before
    assert other.stat()["inserted"] == 1
    assert_counters_add_up(stat)

    ingest(stopped, login_messages(2, start=10))
    assert stopped.stat()["inserted"] == 2
    db.sql("SELECT sqs_ingest_stat_reset()")
    assert counted(stopped) == 0
    assert other.stat()["inserted"] == 1


def test_counters_of_recent_pipelines_are_kept_when_many_were_used_before(stopped):
    """The shared memory has room for 64."""
    db = stopped.db
    names = [f"pipeline {i}" for i in range(68)]
    db.sql("""INSERT INTO sqs_ingest_pipeline (name, owner, target, columns, mask_method)
              SELECT new, owner, target, columns, mask_method FROM sqs_ingest_pipeline, unnest(%s::text[]) new""", [names])
    for name in names:
        db.sql("CALL sqs_ingest_drain(%s, 0)", [name])
    stopped.queue.send(login_messages(6))
    for name, messages in zip(names[-3:], (1, 2, 3)):
        db.sql("CALL sqs_ingest_drain(%s, %s)", [name, messages])
    assert [Pipeline(db, name=name).stat()["inserted"] for name in names[-3:]] == [1, 2, 3]


def test_counters_add_up_after_a_reset_with_messages_in_hand(stopped):
    stopped.start()
    stopped.wait_for(state="idle")
    with stopped.db.connect(autocommit=False) as other:
        other.execute("LOCK TABLE user_logins IN SHARE MODE")
        stopped.queue.send(login_messages(10))
        stopped.wait_for(in_hand=10)
        stopped.db.sql("SELECT sqs_ingest_stat_reset()")
        stat = stopped.stat()
        assert (stat["received"], stat["in_hand"], stat["inserted"]) == (10, 10, 0)
        assert_counters_add_up(stat)
    stopped.wait_for(40, inserted=10, deleted=10, in_hand=0)
    assert_counters_add_up(stopped.stat())


# -- rights -----------------------------------------------------------------------------------------------------------

CALLS = {
    "check": "SELECT * FROM sqs_ingest_check()",
    "preview": "SELECT sqs_ingest_preview('user_logins', '{}')",
    "drain": "CALL sqs_ingest_drain()",
    "redrive": "SELECT sqs_ingest_redrive()",
    "purge": "SELECT sqs_ingest_purge(older_than => '0')",
    "forget": "SELECT sqs_ingest_forget('x')",
    "stat_reset": "SELECT sqs_ingest_stat_reset('user_logins')",
    "stat_reset of all": "SELECT sqs_ingest_stat_reset()",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_stranger_is_refused_without_execute_and_with_it(stopped, call):
    role = unique("stranger")
    stopped.db.sql(f"CREATE ROLE {role} LOGIN")
    ingest(stopped, [login_message(1), "no json"])
    with stopped.db.connect(role) as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for (function|procedure)"):
            session.execute(call)
        grant_all(stopped.db, role)
        if call == CALLS["stat_reset of all"]:
            session.execute(call)
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of pipeline"):
                session.execute(call)
    assert stopped.stat()["inserted"] == 1
    assert len(stopped.dead_letters()) == 1


def test_owner_may_call_everything(pipeline, owner):
    with pipeline.db.connect(owner) as session:
        for call in CALLS.values():
            session.execute(call)


@pytest.mark.parametrize("function", ["check", "redrive", "purge", "forget", "preview"])
def test_unknown_pipeline_is_named(stopped, function):
    calls = {"check": "check('nothing')", "redrive": "redrive('nothing')", "forget": "forget('x', 'nothing')",
             "purge": "purge('nothing', older_than => '0')", "preview": "preview('nothing', '{}')"}  # fmt: skip
    if function == "purge":  # for what a deleted pipeline left behind
        assert stopped.db.value("SELECT sqs_ingest_purge('nothing', older_than => '0')") == 0
        return
    with pytest.raises(psycopg.errors.UndefinedObject, match='pipeline "nothing" does not exist'):
        stopped.db.sql(f"SELECT sqs_ingest_{calls[function]}")
