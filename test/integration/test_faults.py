"""Whose fault is an error? A row's costs that row only; the pipeline's costs nothing: it waits, says why,
and goes on by itself.

No message may be received a second time: each delivery counts towards the queue's own dead letter queue. In the tests of
the pipeline's faults that count is 1, so whatever comes back to the queue is lost to the pipeline and lies over there.
"""
import json
import os
import subprocess
import time

import psycopg
import pytest
from harness import login_message, login_messages, wait_until
from pipeline import users_of
from pipeline import assert_counters_add_up, make_owner, pipeline_fixture, prepare  # noqa: F401
from proxy import Answer, make_pipeline_fixture, make_proxy_fixture, proxy_fixture, short_polls  # noqa: F401

# A worker that waits for a lock gives up after 4 s: before that it must find out that it is in a deadlock.
CLUSTER_SETTINGS = {"deadlock_timeout": "2s"}

RESUMES_WITHIN = 60  # the longest pause between two tries is 20 s
COLUMNS = """(user_id varchar(128), device_type varchar(32), masked_ip varchar(256), masked_device_id varchar(256),
    locale varchar(32), app_version integer, create_date date)"""
USER_LOGINS = f"CREATE TABLE user_logins {COLUMNS}"
THERE_BEFORE = "INSERT INTO user_logins VALUES ('there before', 'web', 'x', 'x', 'RU', 1, '2026-01-01')"


def user_ids(pipeline):
    return [row["user_id"] for row in pipeline.rows("user_id") if row["user_id"] != "there before"]


def trigger(body, timing="BEFORE INSERT ON user_logins FOR EACH ROW", kind="", name="target_trigger"):
    return f"""CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
               CREATE {kind} TRIGGER {name} {timing} EXECUTE FUNCTION {name}()"""


def for_web(statement):
    return trigger(f"IF NEW.device_type = 'web' THEN {statement}; END IF;")


@pytest.fixture
def owner(pipeline):
    """An ordinary role that owns the pipeline and its table; the pipeline is stopped."""
    role = make_owner(pipeline)
    prepare(pipeline, role)
    return role


# -- a row's fault ----------------------------------------------------------------------------------------------------

BAD = {"device_type": "web", "locale": None}  # what the tables below refuse

# kind: the table, and SQLSTATE, constraint and column of what it says to a row with BAD
ROW_ERRORS = {
    "domain": (
        f"""{USER_LOGINS}; CREATE DOMAIN device AS varchar(32) CONSTRAINT no_web CHECK (VALUE <> 'web');
            ALTER TABLE user_logins ALTER COLUMN device_type TYPE device""",
        ("23514", "no_web", "device_type"),
    ),
    "not null": (f"{USER_LOGINS}; ALTER TABLE user_logins ALTER COLUMN locale SET NOT NULL", ("23502", None, "locale")),
    "unique": (
        f"{USER_LOGINS}; CREATE UNIQUE INDEX one_web ON user_logins (device_type) WHERE device_type = 'web'; {THERE_BEFORE}",
        ("23505", "one_web", None),
    ),
    "exclusion": (
        f"""{USER_LOGINS}; {THERE_BEFORE}; ALTER TABLE user_logins ADD CONSTRAINT one_web
            EXCLUDE USING btree (device_type WITH =) WHERE (device_type = 'web')""",
        ("23P01", "one_web", None),
    ),
    "foreign key": (
        f"""CREATE TABLE device (name varchar PRIMARY KEY); INSERT INTO device VALUES ('android'), ('ios');
            {USER_LOGINS}; ALTER TABLE user_logins ADD CONSTRAINT known_device FOREIGN KEY (device_type) REFERENCES device""",
        ("23503", "known_device", None),
    ),
    "deferred foreign key": (
        f"""CREATE TABLE device (name varchar PRIMARY KEY); INSERT INTO device VALUES ('android'), ('ios');
            {USER_LOGINS}; ALTER TABLE user_logins ADD CONSTRAINT known_device FOREIGN KEY (device_type) REFERENCES device
            DEFERRABLE INITIALLY DEFERRED""",
        ("23503", "known_device", None),
    ),
    "no partition for it": (
        f"""{USER_LOGINS} PARTITION BY LIST (device_type);
            CREATE TABLE phones PARTITION OF user_logins FOR VALUES IN ('android', 'ios')""",
        ("23514", None, None),
    ),
    "cast in a trigger": (f"{USER_LOGINS}; {for_web('NEW.app_version := NEW.device_type::integer')}", ("22P02", None, None)),
    "too long for a variable": (f"{USER_LOGINS}; {for_web('NEW.locale := repeat(chr(97), 99)')}", ("22001", None, None)),
    "expression of an index": (
        f"{USER_LOGINS}; CREATE INDEX ON user_logins ((1 / (CASE device_type WHEN 'web' THEN 0 ELSE 1 END)))",
        ("22012", None, None),
    ),
    "limit raised by a trigger": (
        f"{USER_LOGINS}; " + for_web("RAISE 'too much' USING ERRCODE = 'program_limit_exceeded'"),
        ("54000", None, None),
    ),
    "trigger without end": (
        f"""CREATE FUNCTION deeper(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN deeper(n + 1) + 1; END $$;
            {USER_LOGINS}; {for_web('PERFORM deeper(0)')}""",
        ("54001", None, None),
    ),
    "trigger that reads a missing table": (f"{USER_LOGINS}; {for_web('PERFORM 1 FROM nowhere')}", ("42P01", None, None)),
    "SQLSTATE of one's own": (
        f"{USER_LOGINS}; "
        + for_web("RAISE 'no web' USING ERRCODE = 'ZX001', CONSTRAINT = 'house rule', COLUMN = 'device_type'"),
        ("ZX001", "house rule", "device_type"),
    ),
    "trigger of the statement": (
        USER_LOGINS + ";"
        + trigger("IF EXISTS (SELECT FROM added WHERE device_type = 'web') THEN RAISE 'no web'; END IF;",
                  "AFTER INSERT ON user_logins REFERENCING NEW TABLE AS added FOR EACH STATEMENT"),
        ("P0001", None, None),
    ),
}  # fmt: skip


def bad_one_among_good(count=10, bad_at=6):
    messages = [login_message(i, locale="RU") for i in range(count)]
    messages[bad_at].update(BAD)
    return messages


def assert_only_the_bad_one_is_a_dead_letter(pipeline, messages, ids, said):
    pipeline.wait_until_done(len(messages), RESUMES_WITHIN)
    good = [message for message in messages if message["device_type"] != "web"]
    (bad,) = [i for i, message in enumerate(messages) if message["device_type"] == "web"]
    assert user_ids(pipeline) == users_of(good)
    (letter,) = pipeline.dead_letters()
    assert (letter["message_id"], letter["reason"], letter["receive_count"]) == (ids[bad], "row_error", 1)
    assert (letter["sqlstate"], letter["constraint_name"], letter["field"]) == said
    assert pipeline.queue.is_empty()
    assert_counters_add_up(pipeline.stat())


@pytest.mark.parametrize("table, said", ROW_ERRORS.values(), ids=ROW_ERRORS)
def test_row_that_the_table_refuses_is_the_only_dead_letter(pipeline, table, said):
    messages = bad_one_among_good()
    pipeline.db.sql(table)
    ids = pipeline.queue.send(messages)
    pipeline.start()
    assert_only_the_bad_one_is_a_dead_letter(pipeline, messages, ids, said)


def test_row_that_row_level_security_refuses_is_the_only_dead_letter(pipeline, owner):
    messages = bad_one_among_good()
    pipeline.db.sql("ALTER TABLE user_logins FORCE ROW LEVEL SECURITY")
    pipeline.db.sql("ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY")
    pipeline.db.sql("CREATE POLICY no_web ON user_logins FOR INSERT WITH CHECK (device_type <> 'web')")
    ids = pipeline.queue.send(messages)
    pipeline.start()
    assert_only_the_bad_one_is_a_dead_letter(pipeline, messages, ids, ("42501", None, None))


def test_rows_refused_for_different_reasons_each_say_their_own(pipeline):
    pipeline.db.sql(ROW_ERRORS["deferred foreign key"][0])
    pipeline.db.sql("ALTER TABLE user_logins ADD CONSTRAINT small CHECK (app_version < 1000)")
    pipeline.db.sql(trigger("IF NEW.locale = 'XX' THEN RAISE 'no' USING ERRCODE = 'ZX001'; END IF;"))
    messages = [login_message(i, locale="RU") for i in range(10)]
    messages[2]["device_type"], messages[3]["app_version"], messages[7]["locale"] = "web", "9.9.9.9", "XX"
    ids = pipeline.queue.send([*messages, "no json"])
    pipeline.start()
    pipeline.wait_until_done(11, RESUMES_WITHIN)
    said = ("reason", "sqlstate", "constraint_name")
    found = {letter["message_id"]: tuple(letter[name] for name in said) for letter in pipeline.dead_letters()}
    assert found == {
        ids[2]: ("row_error", "23503", "known_device"),
        ids[3]: ("row_error", "23514", "small"),
        ids[7]: ("row_error", "ZX001", None),
        ids[10]: ("not_json", None, None),
    }
    assert user_ids(pipeline) == users_of(message for i, message in enumerate(messages) if i not in (2, 3, 7))


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_key_that_another_session_has_not_committed_yet_is_judged_when_it_has(pipeline, end):
    messages = bad_one_among_good()
    pipeline.db.sql(USER_LOGINS)
    pipeline.db.sql("CREATE UNIQUE INDEX one_web ON user_logins (device_type) WHERE device_type = 'web'")
    with pipeline.db.connect(autocommit=False) as other:
        other.execute(THERE_BEFORE)
        ids = pipeline.queue.send(messages)
        pipeline.start()
        stat = pipeline.wait_for(state="backing_off", in_hand=10)
        assert "lock" in stat["why"] and stat["dead_letters"] == 0
        getattr(other, end)()
    if end == "commit":
        assert_only_the_bad_one_is_a_dead_letter(pipeline, messages, ids, ("23505", "one_web", None))
    else:
        pipeline.wait_until_done(10, RESUMES_WITHIN)
        assert user_ids(pipeline) == users_of(messages) and pipeline.dead_letters() == []


# -- the pipeline's fault ---------------------------------------------------------------------------------------------


@pytest.fixture
def queue(moto):
    """A second delivery puts a message into the queue's own dead letter queue, `queue.dead_letters`."""
    dead_letters = moto.queue()
    arn = dead_letters.attributes("QueueArn")["QueueArn"]
    queue = moto.queue(RedrivePolicy=json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1}))
    queue.dead_letters = dead_letters
    return queue


def assert_backs_off(pipeline, why, timeout=30, **columns):
    """It says why and what to do, and nothing was consumed or given back."""
    stat = pipeline.wait_for(timeout, state="backing_off", **columns)
    assert why in stat["why"], stat
    assert stat["hint"] and stat["last_error"] == stat["why"] and stat["last_error_at"]
    assert (stat["dead_letters"], stat["released"]) == (0, 0)
    return stat


def assert_all_stored_once(pipeline, messages):
    pipeline.wait_until_done(len(messages), RESUMES_WITHIN)
    assert user_ids(pipeline) == users_of(messages)
    assert pipeline.dead_letters() == []
    assert pipeline.queue.is_empty() and pipeline.queue.dead_letters.is_empty()
    assert_counters_add_up(pipeline.stat())
    pipeline.wait_for(state=lambda state: state in ("running", "idle"))


# kind: the table, what breaks it, what mends it, and what the status must name
PIPELINE_ERRORS = {
    "renamed": (
        USER_LOGINS,
        "ALTER TABLE user_logins RENAME TO away",
        "ALTER TABLE away RENAME TO user_logins",
        "user_logins",
    ),
    "moved to another schema": (
        USER_LOGINS,
        "CREATE SCHEMA away; ALTER TABLE user_logins SET SCHEMA away",
        "ALTER TABLE away.user_logins SET SCHEMA public",
        "user_logins",
    ),
    "partition missing": (
        f"{USER_LOGINS} PARTITION BY RANGE (create_date); CREATE TABLE today PARTITION OF user_logins DEFAULT",
        "ALTER TABLE user_logins DETACH PARTITION today",
        "ALTER TABLE user_logins ATTACH PARTITION today DEFAULT",
        "23514",
    ),
    "sequence exhausted": (
        f"CREATE SEQUENCE number; {USER_LOGINS}; ALTER TABLE user_logins ADD COLUMN id bigint DEFAULT nextval('number')",
        "ALTER SEQUENCE number MAXVALUE 4",
        "ALTER SEQUENCE number NO MAXVALUE",
        "2200H",
    ),
    "new foreign key": (
        USER_LOGINS,
        """CREATE TABLE device (name varchar PRIMARY KEY);
           ALTER TABLE user_logins ADD CONSTRAINT known_device FOREIGN KEY (device_type) REFERENCES device NOT VALID""",
        "INSERT INTO device VALUES ('android'), ('ios')",
        "known_device",
    ),
    "trigger that fails without rows": (
        USER_LOGINS,
        trigger("RAISE 'closed for today';", "BEFORE INSERT ON user_logins FOR EACH STATEMENT"),
        "DROP TRIGGER target_trigger ON user_logins",
        "closed for today",
    ),
    "trigger that fails for every row": (
        USER_LOGINS,
        trigger("PERFORM 1 FROM nowhere;"),
        "CREATE TABLE nowhere ()",
        "42P01",
    ),
    "out of memory for one row": (
        USER_LOGINS,
        trigger(f"IF NEW.user_id = '{login_message(4)['user_id']}' THEN RAISE 'no memory' USING ERRCODE = '53200'; END IF;"),
        "DROP TRIGGER target_trigger ON user_logins",
        "no memory",
    ),
}


@pytest.mark.parametrize("table, breaks, mends, names", PIPELINE_ERRORS.values(), ids=PIPELINE_ERRORS)
def test_table_that_cannot_be_written_costs_no_message_and_no_delivery(pipeline, table, breaks, mends, names):
    messages = login_messages(7)
    pipeline.db.sql(table)
    pipeline.start()
    pipeline.queue.send(messages[:2])
    pipeline.wait_until_done(2)
    pipeline.db.sql(breaks)
    pipeline.queue.send(messages[2:])
    assert_backs_off(pipeline, names, in_hand=5)
    pipeline.db.sql(mends)
    assert_all_stored_once(pipeline, messages)


def test_schema_that_the_owner_may_not_use_costs_no_message_and_no_delivery(pipeline, owner):
    db, messages = pipeline.db, login_messages(5)
    db.sql(f"CREATE SCHEMA closed; GRANT USAGE ON SCHEMA closed TO {owner}; ALTER TABLE user_logins SET SCHEMA closed")
    db.sql("UPDATE sqs_ingest_pipeline SET target = 'closed.user_logins'")
    pipeline.start()
    pipeline.wait_for(state="idle")
    db.sql(f"REVOKE USAGE ON SCHEMA closed FROM {owner}")
    pipeline.queue.send(messages)
    assert_backs_off(pipeline, "closed", in_hand=5)
    db.sql(f"GRANT USAGE ON SCHEMA closed TO {owner}")
    pipeline.wait_until_done(5, RESUMES_WITHIN)
    db.sql("ALTER TABLE closed.user_logins SET SCHEMA public")
    assert_all_stored_once(pipeline, messages)


@pytest.mark.parametrize("table", ["sqs_ingest_ledger", "sqs_ingest_dead_letter"])
def test_locked_bookkeeping_costs_no_message_and_no_delivery(pipeline, table):
    messages = login_messages(5)
    pipeline.start()
    pipeline.wait_for(state="idle")
    with pipeline.db.connect(autocommit=False) as other:
        other.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")  # it can be read
        pipeline.queue.send([*messages, "no json"])
        assert_backs_off(pipeline, "lock", in_hand=6)
        assert user_ids(pipeline) == []
    pipeline.wait_until_done(6, RESUMES_WITHIN)
    assert user_ids(pipeline) == users_of(messages)
    assert [letter["reason"] for letter in pipeline.dead_letters()] == ["not_json"]
    assert pipeline.queue.dead_letters.is_empty()


def test_deadlock_with_another_session_costs_no_message_and_no_delivery(pipeline):
    """The other session holds what a trigger wants, and wants the table that the worker holds."""
    db, messages = pipeline.db, login_messages(5)
    db.sql("CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)")
    db.sql(USER_LOGINS)
    db.sql(trigger("UPDATE counter SET n = n + 1;", "AFTER INSERT ON user_logins FOR EACH STATEMENT"))
    pipeline.start()
    pipeline.wait_for(state="idle")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sqs_ingest worker' AND wait_event_type = 'Lock'"
    with db.connect(autocommit=False) as other:
        other.execute("SET deadlock_timeout = '1min'")  # it is the worker that finds out
        other.execute("UPDATE counter SET n = 0")
        pipeline.queue.send(messages)
        wait_until(lambda: db.value(waits), 20, "the worker waits for the row", 0.02)
        other.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
        assert_backs_off(pipeline, "deadlock detected", in_hand=5)
    assert_all_stored_once(pipeline, messages)


def test_default_of_read_only_transactions_does_not_reach_ingestion(pipeline, proxy):
    cluster, messages = pipeline.cluster, login_messages(6)
    pipeline.configure({"sqs_ingest.endpoint_url": proxy.on("ReceiveMessage", short_polls).endpoint})  # for the restart
    pipeline.start()
    pipeline.wait_for(state="idle")
    try:
        cluster.set(default_transaction_read_only=True, default_transaction_isolation="serializable").reload()
        pipeline.queue.send(messages[:3])
        pipeline.wait_until_done(3)
        cluster.restart()
        pipeline.wait_for(state="idle")
        pipeline.queue.send(messages[3:])
        pipeline.wait_until_done(3)  # counted since the restart
    finally:
        cluster.unset("default_transaction_read_only", "default_transaction_isolation").reload()
    assert user_ids(pipeline) == users_of(messages)
    assert pipeline.queue.dead_letters.is_empty()


# -- disks ------------------------------------------------------------------------------------------------------------


def as_root(*command):
    return subprocess.run([*([] if os.geteuid() == 0 else ["sudo", "-n"]), *command], capture_output=True).returncode == 0


class Disk:
    """A tablespace `tiny` on a disk of its own, which has room for a megabyte."""

    def __init__(self, cluster):
        self.cluster, self.path = cluster, cluster.directory / "tiny"

    def mount(self):
        server_user = self.cluster.data.stat().st_uid
        return as_root("mount", "-t", "tmpfs", "-o", f"size=1m,mode=0700,uid={server_user}", "tmpfs", self.path)

    def set_read_only(self, read_only):
        option = "ro" if read_only else "rw"
        return as_root("mount", "-o", f"remount,{option}", self.path)

    def fill(self, db):
        db.sql("CREATE TABLE filler (a char(6000)) TABLESPACE tiny")
        with pytest.raises(psycopg.errors.DiskFull):
            while True:
                db.sql("INSERT INTO filler VALUES ('')")


@pytest.fixture
def disk(cluster):
    disk = Disk(cluster)
    disk.path.mkdir()
    if not disk.mount():
        pytest.skip("no disk can be mounted here")
    try:
        with cluster.connect() as session:
            session.execute(f"CREATE TABLESPACE tiny LOCATION '{disk.path}'")
        yield disk
        disk.set_read_only(False)
        with cluster.ensure_running().connect() as session:
            session.execute("DROP TABLESPACE tiny")
    finally:
        assert as_root("umount", "-l", disk.path)
        disk.path.rmdir()


def test_full_disk_costs_no_message_and_no_delivery(disk, pipeline):
    db, messages = pipeline.db, login_messages(5)
    db.sql(f"{USER_LOGINS} TABLESPACE tiny")
    disk.fill(db)
    pipeline.start()
    pipeline.queue.send(messages)
    assert_backs_off(pipeline, "No space left on device", in_hand=5)
    db.sql("DROP TABLE filler")
    assert_all_stored_once(pipeline, messages)


def test_read_only_disk_costs_no_message_and_no_delivery(disk, pipeline):
    db, messages = pipeline.db, login_messages(5)
    db.sql(f"{USER_LOGINS} TABLESPACE tiny; CHECKPOINT")
    db.close()
    if not wait_until(lambda: disk.set_read_only(True), 10, "remounted read-only"):
        pytest.skip("the disk cannot be remounted")
    try:
        pipeline.start()
        pipeline.queue.send(messages)
        assert_backs_off(pipeline, "user_logins", in_hand=5)
    finally:
        disk.set_read_only(False)
    assert_all_stored_once(pipeline, messages)


# -- meanwhile --------------------------------------------------------------------------------------------------------


def test_nothing_more_is_received_while_the_disk_is_full(make_pipeline, moto, proxy):
    """Also when the zero-row probe finds nothing wrong, and the visibility of what is in hand has to be extended."""
    queue = moto.queue(VisibilityTimeout=26)  # to be extended after 2 s
    pipeline = make_pipeline(queue, {"sqs_ingest.endpoint_url": proxy.endpoint})
    pipeline.db.sql(USER_LOGINS)
    pipeline.db.sql(trigger("RAISE 'no space' USING ERRCODE = 'disk_full';"))
    queue.send(login_messages(10))
    pipeline.start()
    pipeline.wait_for(state="backing_off", in_hand=10)
    queue.send(login_messages(10, 10))
    wait_until(lambda: proxy.asked("ChangeMessageVisibilityBatch"), 30, "an extension")
    tried_at = pipeline.stat()["last_error_at"]
    pipeline.wait_for(30, last_error_at=lambda at: at > tried_at)
    assert pipeline.stat()["received"] == 10
    pipeline.db.sql("DROP TRIGGER target_trigger ON user_logins")
    pipeline.wait_until_done(20, RESUMES_WITHIN)


def test_extension_that_the_answer_leaves_out_is_asked_for_once_more(make_pipeline, moto, proxy):
    """Once, and not for ever, should the server never name what it has extended."""
    queue = moto.queue(VisibilityTimeout=26)  # to be extended after 2 s
    pipeline = make_pipeline(queue, {"sqs_ingest.endpoint_url": proxy.endpoint})
    pipeline.db.sql(USER_LOGINS)
    pipeline.db.sql(trigger("RAISE 'no space' USING ERRCODE = 'disk_full';"))
    proxy.on("ChangeMessageVisibilityBatch", lambda request, forward: forward() and Answer(200, b"{}"))
    queue.send([login_message(1)])
    pipeline.start()
    wait_until(lambda: len(proxy.asked("ChangeMessageVisibilityBatch")) == 2, 20, "an extension, and another")
    time.sleep(2)
    first, second = proxy.asked("ChangeMessageVisibilityBatch")
    assert first.json == second.json
    pipeline.db.sql("DROP TRIGGER target_trigger ON user_logins")
    pipeline.wait_until_done(1, RESUMES_WITHIN)


def test_row_that_takes_too_long_keeps_no_other_from_being_stored(pipeline):
    """A batch that runs into the time limit is divided; what is too slow alone stands in nobody's way."""
    pipeline.db.sql(USER_LOGINS)
    pipeline.db.sql(for_web("PERFORM pg_sleep(3600)"))
    slow, good = login_message(0, device_type="web"), login_message(1)
    pipeline.queue.send([slow, good])
    pipeline.start()
    wait_until(lambda: user_ids(pipeline) == users_of([good]), 45, lambda: f"the good one; {pipeline.stat()}")
    pipeline.db.sql("DROP TRIGGER target_trigger ON user_logins")
    pipeline.wait_until_done(2, RESUMES_WITHIN)
    assert pipeline.queue.dead_letters.is_empty()


def test_message_sent_to_a_table_in_trouble_is_stored_when_the_trouble_is_over(pipeline):
    """A second time, after the first time went well: the pause begins short again."""
    messages = login_messages(4)
    pipeline.db.sql(USER_LOGINS)
    pipeline.start()
    for i in (0, 2):
        pipeline.queue.send(messages[i : i + 1])
        pipeline.wait_until_done(i + 1)
        pipeline.db.sql("ALTER TABLE user_logins RENAME TO away")
        pipeline.queue.send(messages[i + 1 : i + 2])
        assert_backs_off(pipeline, "user_logins", in_hand=1)
        pipeline.db.sql("ALTER TABLE away RENAME TO user_logins")
        pipeline.wait_until_done(i + 2, 10)
    assert_all_stored_once(pipeline, messages)


@pytest.mark.parametrize("on_invalid", ["leave", "discard"])
def test_row_that_breaks_the_write_stops_nobody_whatever_on_invalid_says(pipeline, on_invalid):
    """It is neither left nor discarded: it could be the database after all. It becomes a dead letter."""
    pipeline.db.sql(USER_LOGINS)
    pipeline.db.sql(for_web("RAISE 'broken' USING ERRCODE = 'internal_error'"))
    broken, good = login_message(0, device_type="web"), login_messages(30, 1)
    prepare(pipeline)
    pipeline.db.sql("UPDATE sqs_ingest_pipeline SET on_invalid = %s", [on_invalid])
    pipeline.queue.send([broken, *good])
    pipeline.start()
    pipeline.wait_for(60, inserted=30, dead_letters=1, deleted=31)
    assert user_ids(pipeline) == users_of(good)
    assert [letter["reason"] for letter in pipeline.dead_letters()] == ["row_error"]
    pipeline.queue.send(login_messages(5, 100))
    pipeline.wait_for(inserted=35)
