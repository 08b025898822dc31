"""CALL sqs_ingest_drain(): ingestion in a session of one's own, until the queue is empty or so many messages were received."""
import itertools
import json
import re
import threading
import time

import psycopg
import pytest
from harness import Database, login_message, login_messages, unique, wait_until
from pipeline import prepare, user_ids, users_of
from pipeline import (Pipeline, assert_counters_add_up, make_pipeline_fixture, other_db_fixture,  # noqa: F401
                      pipeline_fixture)  # fmt: skip
from proxy import Answer, answer, error, make_proxy_fixture, proxied_fixture, proxy_fixture, short_polls  # noqa: F401

REFUSED_WITHIN = 10  # seconds
SENT_BAD = {
    '{"user_id": "no-ip"}': "missing_field",
    "no json at all": "not_json",
    "[1, 2]": "not_object",
    json.dumps(login_message(900, user_id="x" * 129)): "too_long",
    json.dumps(login_message(901, app_version="two")): "bad_version",
    json.dumps(login_message(902, device_id="")): "empty_field",
    json.dumps(login_message(903, locale=["RU"])): "wrong_type",
}


@pytest.fixture
def watched(proxied, proxy):
    """A pipeline that is not enabled; all its requests go through `proxy`."""
    return prepare(proxied)


@pytest.fixture
def stopped(watched, proxy):
    """The same; its last receive, which finds nothing, does not wait for a second."""
    proxy.on("ReceiveMessage", short_polls)
    return watched


def counts_in(text):
    found = re.search(r"(\d+) messages received, (\d+) inserted, (\d+) duplicates, (\d+) dead letters", text)
    return tuple(map(int, found.groups()))


def call(connection, max_messages=None, pipeline="user_logins"):
    """Drains; returns what the NOTICE at its end says: received, inserted, duplicates, dead letters."""
    notices = []
    connection.add_notice_handler(hear := lambda notice: notices.append(notice.message_primary))
    try:
        connection.execute("CALL sqs_ingest_drain(%s, %s)", [pipeline, max_messages])
    finally:
        connection.remove_notice_handler(hear)
    (said,) = [notice for notice in notices if notice.startswith("drained")]
    return counts_in(said)


def drain(pipeline, max_messages=None):
    return call(pipeline.db.connection, max_messages, pipeline.name)


class Running:
    """A drain in a session of its own, under way in the background."""

    def __init__(self, pipeline, max_messages=None, user="postgres"):
        self.cluster = pipeline.cluster
        self.connection = pipeline.db.connect(user)
        self.pid = self.connection.info.backend_pid
        self.error = self.counts = self.took = None
        self._arguments = (max_messages, pipeline.name)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        began = time.monotonic()
        try:
            self.counts = call(self.connection, *self._arguments)
        except psycopg.Error as failure:
            self.error = failure
        self.took = time.monotonic() - began

    def end(self, timeout=30):
        """Waits for its end; returns the error that ended it, if one did."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"still draining after {timeout} s: {self.activity()}"
        return self.error

    def finish(self, timeout=30):
        if self.end(timeout):
            raise self.error
        return self.counts

    def activity(self):
        return next((row for row in self.cluster.activity() if row["pid"] == self.pid), None)

    def wait_until_it_sleeps(self):
        wait_until(lambda: (self.activity() or {}).get("wait_event") == "PgSleep", 20, "the target's trigger sleeps", 0.02)


@pytest.fixture
def running():
    """running(pipeline, max_messages, user): a Running."""
    made = []
    yield lambda *arguments: made.append(Running(*arguments)) or made[-1]
    for one in made:
        one.connection.close()
        one.end()


class Hold:
    """A hook that keeps receives waiting, until let_go() answers them or drop() drops them."""

    def __init__(self):
        self.reached, self._over, self._answers = threading.Event(), threading.Event(), False

    def __call__(self, request, forward):
        self.reached.set()
        self._over.wait(40)
        return short_polls(request, forward) if self._answers else None

    def let_go(self):
        self._answers = True
        self._over.set()

    def drop(self):
        self._over.set()


@pytest.fixture
def hold():
    hook = Hold()
    yield hook
    hook.drop()


def returning_soon(request, forward):
    """What is received is visible again after 2 s, not after the queue's 30 s; and no long poll."""
    request.body = json.dumps({**request.json, "VisibilityTimeout": 2, "WaitTimeSeconds": 0}).encode()
    return forward()


def sleep_at(db, user_id, seconds=40):
    """The row of this user takes long to insert."""
    db.sql(f"""CREATE OR REPLACE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN IF NEW.user_id = '{user_id}' THEN PERFORM pg_sleep({seconds}); END IF; RETURN NEW; END $$""")
    db.sql("CREATE TRIGGER sleep BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION sleep()")


def assert_each_is_a_row_once(pipeline, messages):
    assert user_ids(pipeline) == users_of(messages)
    assert pipeline.dead_letters() == []
    assert pipeline.queue.is_empty()


def assert_deliveries_add_up(stat):
    """As always, but that what was committed may not be deleted yet, or comes back as a duplicate and is counted again."""
    assert stat["received"] == sum(stat[name] for name in ("inserted", "duplicates", "dead_letters", "released", "in_hand")), stat
    assert stat["deleted"] <= stat["received"] - stat["released"] - stat["in_hand"], stat


# -- until the queue is empty -----------------------------------------------------------------------------------------


def test_drain_ingests_everything_and_ends_when_the_queue_is_empty(stopped):
    messages = login_messages(250)
    bodies = [*map(json.dumps, messages)]
    for position, bad in enumerate(SENT_BAD):
        bodies.insert(position * 30 + 3, bad)
    stopped.queue.send(bodies)

    assert drain(stopped) == (257, 250, 0, 7)

    assert stopped.queue.counts() == (0, 0)
    assert user_ids(stopped) == users_of(messages)
    assert sorted(letter["reason"] for letter in stopped.dead_letters()) == sorted(SENT_BAD.values())
    stat = stopped.stat()
    assert (stat["received"], stat["inserted"], stat["dead_letters"], stat["deleted"]) == (257, 250, 7, 257)
    assert stat["state"] == "stopped" and stat["in_hand"] == 0
    assert_counters_add_up(stat)


def test_second_drain_finds_nothing(stopped):
    stopped.queue.send(login_messages(12))
    assert drain(stopped) == (12, 12, 0, 0)
    assert drain(stopped) == (0, 0, 0, 0)
    assert len(stopped.rows()) == 12
    assert_counters_add_up(stopped.stat())


@pytest.mark.parametrize("limit", [0, 1, 7, 25, 60])
def test_never_more_than_max_messages_are_received(watched, proxy, limit):
    delivered = []

    def counted(request, forward):
        answer = short_polls(request, forward)
        delivered.extend(message["MessageId"] for message in answer.json.get("Messages", []))
        return answer

    proxy.on("ReceiveMessage", counted)
    watched.queue.send(login_messages(40))
    taken = min(limit, 40)
    assert drain(watched, limit) == (taken, taken, 0, 0)
    assert len(delivered) == taken
    assert watched.queue.counts() == (40 - taken, 0)
    assert len(watched.rows()) == taken


def test_max_messages_counts_rejected_messages_and_duplicates_too(watched, proxy):
    proxy.on("ReceiveMessage", short_polls)
    watched.queue.send(["no json"] * 8 + [json.dumps(message) for message in login_messages(8)])
    received, *kinds = drain(watched, 10)
    assert (received, sum(kinds)) == (10, 10)
    assert watched.queue.counts() == (6, 0)


def test_redelivered_message_is_a_duplicate_and_deleted(watched, proxy):
    """The queue says that it deleted the message, and delivers it again."""
    proxy.on("DeleteMessageBatch", answer(body=b'{"Successful": [{"Id": "0"}], "Failed": []}'), times=1)
    watched.queue.send([login_message(1)])
    assert drain(watched) == (1, 1, 0, 0)
    handle = proxy.asked("DeleteMessageBatch")[0].json["Entries"][0]["ReceiptHandle"]
    watched.queue.client.change_message_visibility(QueueUrl=watched.queue.url, ReceiptHandle=handle, VisibilityTimeout=0)
    assert drain(watched) == (1, 0, 1, 0)
    assert_each_is_a_row_once(watched, [login_message(1)])
    assert_counters_add_up(watched.stat())


def test_fifo_queue_is_drained_in_the_order_of_each_group(make_pipeline, moto):
    pipeline = make_pipeline(moto.queue(FifoQueue=True, ContentBasedDeduplication=True))
    pipeline.db.sql(
        "CREATE TABLE user_logins (id bigserial, user_id text, device_type text, masked_ip text, masked_device_id text,"
        " locale text, app_version int, create_date date)"
    )
    prepare(pipeline)
    messages = [login_message(i, locale=f"group {i % 5}") for i in range(90)]
    pipeline.queue.send(messages, MessageGroupId=lambda i: messages[i]["locale"])
    assert drain(pipeline) == (90, 90, 0, 0)
    assert pipeline.queue.counts() == (0, 0)
    stored = pipeline.db.sql("SELECT locale, array_agg(user_id ORDER BY id) FROM user_logins GROUP BY locale")
    sent = {f"group {g}": [m["user_id"] for m in messages if m["locale"] == f"group {g}"] for g in range(5)}
    assert dict(stored) == sent


def test_messages_that_come_while_it_drains_are_ingested_too(watched, proxy, hold, running):
    proxy.on("ReceiveMessage", short_polls, times=1).on("ReceiveMessage", hold)
    watched.queue.send(login_messages(10))
    drain = running(watched)
    assert hold.reached.wait(10)
    watched.queue.send(login_messages(10, start=10))
    hold.let_go()
    assert drain.finish() == (20, 20, 0, 0)


@pytest.mark.parametrize("failing_ends", ["last", "first"])
def test_of_the_last_two_receives_one_fails(watched, proxy, failing_ends):
    """The other one has found the queue empty: whether it is, a third one tells."""
    turns, other_ended = itertools.count(), threading.Event()

    def one_fails(request, forward):
        fails = next(turns) == 0
        if fails == (failing_ends == "last"):
            other_ended.wait(10)
        got = Answer(503) if fails else short_polls(request, forward)
        if fails == (failing_ends == "first"):
            threading.Timer(0.5, other_ended.set).start()  # when the answer has been taken
        return got

    watched.db.sql("UPDATE sqs_ingest_pipeline SET on_invalid = 'leave'")  # so that nothing else is asked for meanwhile
    proxy.on("ReceiveMessage", short_polls, times=1).on("ReceiveMessage", one_fails, times=2).on("ReceiveMessage", short_polls)
    watched.queue.send(["no json"] * 10)
    assert drain(watched) == (10, 0, 0, 0)
    assert len(proxy.asked("ReceiveMessage")) >= 4


def test_row_that_the_table_refuses_becomes_a_dead_letter(stopped):
    stopped.db.sql("ALTER TABLE user_logins ADD CONSTRAINT no_web CHECK (device_type <> 'web')")
    stopped.queue.send([*login_messages(15), login_message(15, device_type="web"), *login_messages(15, start=16)])
    assert drain(stopped) == (31, 30, 0, 1)
    (letter,) = stopped.dead_letters()
    assert (letter["reason"], letter["sqlstate"], letter["constraint_name"]) == ("row_error", "23514", "no_web")
    assert stopped.queue.is_empty()


def test_table_that_refuses_every_row_costs_no_message(stopped):
    """As when tomorrow's partition is missing. What became dead letters, redrive makes rows of; the rest is in the queue."""
    stopped.db.sql("ALTER TABLE user_logins ADD CONSTRAINT none CHECK (device_type = 'none')")
    messages = login_messages(20)
    stopped.queue.send(messages)
    try:
        drain(stopped)
    except psycopg.errors.CheckViolation as failure:
        assert "none" in failure.diag.message_primary
    letters = stopped.dead_letters()
    assert stopped.queue.counts() == (20 - len(letters), 0)
    assert {(letter["reason"], letter["constraint_name"]) for letter in letters} <= {("row_error", "none")}
    assert stopped.rows() == []
    assert_counters_add_up(stopped.stat())
    stopped.db.sql("ALTER TABLE user_logins DROP CONSTRAINT none")
    assert stopped.db.value("SELECT sqs_ingest_redrive()") == len(letters)
    assert drain(stopped) == (20 - len(letters), 20 - len(letters), 0, 0)
    assert_each_is_a_row_once(stopped, messages)


def test_two_messages_that_the_table_refuses_do_not_stop_the_drain(stopped):
    stopped.db.sql("ALTER TABLE user_logins ADD CONSTRAINT no_web CHECK (device_type <> 'web')")
    stopped.queue.send([login_message(0, device_type="web"), login_message(1, device_type="web")])
    assert drain(stopped) == (2, 0, 0, 2)
    assert stopped.queue.is_empty()


# -- who, and where from ----------------------------------------------------------------------------------------------


@pytest.fixture
def owner(pipeline):
    """An ordinary role that owns the pipeline and may drain; the pipeline is not enabled."""
    role, db = unique("owner"), pipeline.db
    db.sql(f"CREATE ROLE {role} LOGIN")
    db.sql(f"GRANT CREATE ON SCHEMA public TO {role}")
    db.sql(f"GRANT EXECUTE ON FUNCTION sqs_ingest_start(text), sqs_ingest_stop(text) TO {role}")
    db.sql(f"GRANT EXECUTE ON PROCEDURE sqs_ingest_drain(text, bigint) TO {role}")
    if not (pipeline.cluster.data / "sqs_ingest.keyring").exists():
        db.sql("SELECT sqs_ingest_create_keyring()")
    prepare(pipeline, role)
    return role


def test_owner_without_superuser_rights_drains_with_its_own_rights(pipeline, owner):
    db = pipeline.db
    with db.connect(owner) as session:
        session.execute("CREATE TABLE who AS SELECT current_user AS who, session_user AS whose WHERE false")
        session.execute("CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$"
                        " BEGIN INSERT INTO who VALUES (current_user, session_user); RETURN NEW; END $$")  # fmt: skip
        session.execute("CREATE TRIGGER note AFTER INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION note()")
        pipeline.queue.send([*login_messages(20), "no json"])
        assert call(session) == (21, 20, 0, 1)
        assert session.execute("SELECT current_user, session_user").fetchone() == (owner, owner)
    assert db.sql("SELECT DISTINCT * FROM who") == [(owner, owner)]
    assert len(pipeline.rows()) == 20
    assert [letter["reason"] for letter in pipeline.dead_letters()] == ["not_json"]


@pytest.mark.parametrize("become", [None, "SET ROLE {}", "SET SESSION AUTHORIZATION {}"])
def test_superuser_cannot_drain_for_the_owner(pipeline, owner, become):
    """The target's triggers belong to the owner, and could become again whoever has connected."""
    pipeline.queue.send(login_messages(3))
    with pipeline.db.connect() as session:
        if become:
            session.execute(become.format(owner))
        said = assert_refused(pipeline, psycopg.errors.InsufficientPrivilege, match=owner, session=session)
    assert f'Connect as "{owner}"' in said.message_hint


def test_member_of_the_owner_cannot_drain_for_the_owner(pipeline, owner):
    member = unique("member")
    pipeline.db.sql(f"CREATE ROLE {member} LOGIN IN ROLE {owner}")
    pipeline.db.sql(f"GRANT EXECUTE ON PROCEDURE sqs_ingest_drain(text, bigint) TO {member}")
    pipeline.queue.send(login_messages(2))
    with pipeline.db.connect(member) as session:
        assert_refused(pipeline, psycopg.errors.InsufficientPrivilege, match=owner, session=session)
        session.execute(f"SET ROLE {owner}")
        assert_refused(pipeline, psycopg.errors.InsufficientPrivilege, match=owner, session=session)


def test_superuser_may_become_another_superuser_who_is_the_owner(pipeline, owner):
    pipeline.db.sql(f"ALTER ROLE {owner} SUPERUSER")
    pipeline.queue.send(login_messages(3))
    with pipeline.db.connect() as session:
        said = assert_refused(pipeline, psycopg.errors.InsufficientPrivilege, match=owner, session=session)
        assert "SET ROLE" in said.message_hint
        session.execute(f"SET ROLE {owner}")
        assert call(session) == (3, 3, 0, 0)
        assert session.execute("SELECT current_user, session_user").fetchone() == (owner, "postgres")


def test_stranger_who_may_call_it_cannot_drain_anothers_pipeline(pipeline, owner):
    stranger = unique("stranger")
    pipeline.db.sql(f"CREATE ROLE {stranger} LOGIN")
    pipeline.queue.send(login_messages(2))
    with pipeline.db.connect(stranger) as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for procedure"):
            call(session)
        pipeline.db.sql(f"GRANT EXECUTE ON PROCEDURE sqs_ingest_drain(text, bigint) TO {stranger}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of pipeline"):
            call(session)
    assert pipeline.queue.counts() == (2, 0)


def test_works_without_shared_preload_libraries(make_cluster, queue):
    """The pipeline is made by hand: start() needs the preloading."""
    columns = [
        {"column": "user_id", "from": "/user_id", "required": True},
        {"column": "masked_ip", "from": "/ip", "steps": ["ip", "mask"], "required": True},
        {"column": "create_date", "from": ["/create_date", "@sent_at"]},
    ]
    cluster = make_cluster(queue.settings, None, None)
    db = Database(cluster, cluster.create_database())
    db.sql("CREATE EXTENSION sqs_ingest")
    db.sql("SELECT sqs_ingest_create_keyring()")
    db.sql("CREATE TABLE logins (user_id varchar(128), masked_ip text, create_date date)")
    db.sql("INSERT INTO sqs_ingest_pipeline (name, owner, target, columns, mask_method)"
           " VALUES ('by hand', 'postgres', 'public.logins', %s, 'hmac')", [json.dumps(columns)])  # fmt: skip
    db.close()
    with db.connect() as session:  # the library is loaded by the call, in a session that has not used it yet
        queue.send([*login_messages(60), "no json"])
        assert call(session, None, "by hand") == (61, 60, 0, 1)
    assert db.value("SELECT count(*) FROM logins WHERE masked_ip LIKE 'hm1.%'") == 60
    assert queue.counts() == (0, 0)
    assert Pipeline(db, queue, "by hand").stat()["state"] == "cannot_start"
    queue.send([login_message(100)])
    assert drain(Pipeline(db, queue, "by hand")) == (1, 1, 0, 0)
    db.close()


# -- refusals: nothing is received ------------------------------------------------------------------------------------


def assert_refused(pipeline, kind, statement="CALL sqs_ingest_drain()", match=None, session=None):
    before = pipeline.queue.counts()
    began = time.monotonic()
    with pytest.raises(kind, match=match) as refused:
        (session or pipeline.db.connection).execute(statement)
    assert time.monotonic() - began < REFUSED_WITHIN
    assert pipeline.queue.counts() == before
    return refused.value.diag


def test_refused_inside_a_transaction_block(stopped):
    stopped.queue.send(login_messages(2))
    with stopped.db.connect(autocommit=False) as session:
        said = assert_refused(stopped, psycopg.errors.InvalidTransactionTermination, session=session)
    assert "transaction block" in said.message_primary and said.message_hint


def test_refused_inside_a_function(stopped):
    stopped.queue.send(login_messages(2))
    stopped.db.sql("CREATE FUNCTION wrapped() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL sqs_ingest_drain(); END $$")
    assert_refused(stopped, psycopg.errors.InvalidTransactionTermination, "SELECT wrapped()")
    assert_refused(stopped, psycopg.errors.InvalidTransactionTermination, "DO $$ BEGIN PERFORM wrapped(); END $$")


def test_refused_inside_a_block_that_catches_exceptions(stopped):
    """It is a subtransaction, which cannot be committed past."""
    stopped.queue.send(login_messages(2))
    assert_refused(
        stopped, psycopg.errors.InvalidTransactionTermination,
        "DO $$ BEGIN BEGIN CALL sqs_ingest_drain(); EXCEPTION WHEN division_by_zero THEN NULL; END; END $$",
    )  # fmt: skip
    assert drain(stopped) == (2, 2, 0, 0)


def test_do_block_and_procedure_outside_a_transaction_may_drain_as_they_may_commit(stopped):
    db = stopped.db
    stopped.queue.send(login_messages(20))
    db.sql("DO $$ BEGIN CALL sqs_ingest_drain(max_messages => 5); CALL sqs_ingest_drain(max_messages => 5); END $$")
    assert len(stopped.rows()) == 10
    db.sql("""CREATE PROCEDURE nightly() LANGUAGE plpgsql AS $$
              DECLARE r record; n bigint; BEGIN
                FOR r IN SELECT * FROM generate_series(1, 2) LOOP CALL sqs_ingest_drain(max_messages => 5); END LOOP;
                SELECT count(*) INTO n FROM user_logins;
                ASSERT n = 20, n;
                COMMIT;
              END $$""")
    db.sql("CALL nightly()")
    assert_each_is_a_row_once(stopped, login_messages(20))


def test_refused_while_the_pipeline_is_enabled(stopped):
    stopped.start()
    said = assert_refused(stopped, psycopg.errors.ObjectInUse, match="enabled")
    assert "sqs_ingest_stop()" in said.message_hint


def test_refused_while_the_queue_feeds_another_enabled_pipeline(other_db, stopped, make_pipeline):
    other = make_pipeline(stopped.queue, database=other_db)
    other.start()
    other.wait_for(state="idle")
    said = assert_refused(stopped, psycopg.errors.ObjectInUse, match="already feeds")
    assert said.message_hint


def test_refused_while_ingestion_is_switched_off_for_the_cluster(stopped):
    """A restored copy with sqs_ingest.enabled = off must not eat the queue through its cron jobs."""
    stopped.queue.send(login_messages(2))
    stopped.configure({"sqs_ingest.enabled": False})
    with stopped.db.connect() as session:
        assert_refused(stopped, psycopg.Error, match="sqs_ingest.enabled", session=session)


def test_refuses_wrong_arguments(stopped):
    assert_refused(stopped, psycopg.errors.UndefinedObject, "CALL sqs_ingest_drain('nothing')", 'pipeline "nothing"')
    assert_refused(stopped, psycopg.errors.NullValueNotAllowed, "CALL sqs_ingest_drain(NULL)")
    assert_refused(stopped, psycopg.errors.InvalidParameterValue, "CALL sqs_ingest_drain(max_messages => -1)")


def test_refused_in_a_read_only_session(stopped):
    stopped.queue.send(login_messages(2))
    with stopped.db.connect() as session:
        session.execute("SET default_transaction_read_only = on")
        assert_refused(stopped, psycopg.errors.ReadOnlySqlTransaction, session=session)


def test_refused_on_a_standby(make_cluster, queue):
    primary = make_cluster(queue.settings)
    name = primary.create_database()
    pipeline = Pipeline(Database(primary, name), queue)
    pipeline.db.sql("CREATE EXTENSION sqs_ingest")
    prepare(pipeline)
    queue.send(login_messages(2))
    standby = make_cluster.adopt(primary.standby())
    standby.start()
    pipeline.db.close()
    with standby.connect(name) as session:
        assert_refused(pipeline, psycopg.errors.ReadOnlySqlTransaction, session=session)


# Each with a queue and a table of its own: what is wrong with them, and the error that says so.
TROUBLES = {
    "no such queue": (psycopg.OperationalError, "does not exist", "sqs_ingest.queue_url"),
    "no such host": (psycopg.OperationalError, "127.0.0.1:1/", "can be reached"),
    "no table": (psycopg.errors.UndefinedTable, "no_table", ""),
    "no column": (psycopg.errors.UndefinedColumn, 'no column "device_type"', "Add the column"),
    "another's table": (psycopg.errors.InsufficientPrivilege, "does not trust", "owner"),
    "view without trigger": (psycopg.errors.ObjectNotInPrerequisiteState, "cannot insert into view", ""),
    "locked": (psycopg.errors.LockNotAvailable, "lock timeout", ""),
}


def test_lasting_trouble_ends_the_drain_soon_and_costs_no_message(stopped, moto, running):
    db, role = stopped.db, unique("stranger")
    stopped.configure({"sqs_ingest.endpoint_url": None})  # each asks its queue's own
    db.sql(f"""CREATE ROLE {role};
               CREATE TABLE no_column (user_id text);
               CREATE TABLE anothers_table (LIKE user_logins); ALTER TABLE anothers_table OWNER TO {role};
               CREATE VIEW view_without_trigger AS SELECT DISTINCT * FROM user_logins;
               CREATE TABLE locked (LIKE user_logins)""")
    drains, queues = {}, {}
    with db.connect(autocommit=False) as other:
        other.execute("LOCK TABLE locked IN SHARE MODE")
        for name in TROUBLES:
            queues[name] = moto.queue()
            queues[name].send(login_messages(12))
            urls = {"no such queue": queues[name].url + "-not", "no such host": "http://127.0.0.1:1/123456789012/queue"}
            table = "public." + name.replace(" ", "_").replace("'", "")
            db.sql(
                """INSERT INTO sqs_ingest_pipeline (name, owner, queue_url, target, columns, mask_method)
                   SELECT %s, owner, %s, %s, columns, mask_method FROM sqs_ingest_pipeline WHERE name = 'user_logins'""",
                [name, urls.get(name, queues[name].url), "public.user_logins" if name in urls else table],
            )
            drains[name] = running(Pipeline(db, queues[name], name))
        for name, (kind, message, hint) in TROUBLES.items():
            failed = drains[name].end(30)
            assert isinstance(failed, kind) and message in failed.diag.message_primary, f"{name}: {failed!r}"
            assert hint in (failed.diag.message_hint or ""), f"{name}: {failed.diag.message_hint}"
            if name != "view without trigger":  # which has a detail of its own
                assert counts_in(failed.diag.message_detail)[1:] == (0, 0, 0), name
            assert drains[name].took < (20 if name == "locked" else REFUSED_WITHIN), name  # each wait for a lock is 4 s
            assert drains[name].connection.execute("SELECT 1").fetchone() == (1,)
    assert {name: queue.counts() for name, queue in queues.items()} == dict.fromkeys(TROUBLES, (12, 0))
    assert db.value("SELECT count(*) FROM sqs_ingest_dead_letter") == 0
    for name in TROUBLES:
        assert_counters_add_up(Pipeline(db, name=name).stat())

    assert drain(Pipeline(db, name="locked")) == (12, 12, 0, 0)


def test_missing_credentials_are_named_soon(make_cluster, queue):
    cluster = make_cluster(queue.settings, dict.fromkeys(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]))
    pipeline = Pipeline(Database(cluster, cluster.create_database()), queue)
    pipeline.db.sql("CREATE EXTENSION sqs_ingest")
    prepare(pipeline)
    said = assert_refused(pipeline, psycopg.OperationalError, match="(?i)credentials")
    assert "AWS_ACCESS_KEY_ID" in said.message_hint
    pipeline.db.close()


@pytest.mark.parametrize("action", ["GetQueueAttributes", "ReceiveMessage"])
def test_credentials_refused_once_are_read_again(stopped, proxy, action):
    """Those of a session expire, and newer ones are there."""
    proxy.pass_on("ReceiveMessage")
    proxy.on(action, error("ExpiredTokenException", 403, "expired"), times=1).on("ReceiveMessage", short_polls)
    stopped.queue.send(login_messages(5))
    assert drain(stopped) == (5, 5, 0, 0)


def test_credentials_that_several_receives_had_are_read_again(watched, proxy):
    arrived, expired = [], threading.Event()

    def expire(request, forward):
        if expired.is_set():
            return short_polls(request, forward)
        arrived.append(request)
        if len(arrived) < 4:
            expired.wait(2)
        expired.set()
        return error("ExpiredTokenException", 403, "expired")(request, forward)

    proxy.on("ReceiveMessage", short_polls, times=4).on("ReceiveMessage", expire)
    watched.queue.send(login_messages(100))
    assert drain(watched) == (100, 100, 0, 0)
    assert len(arrived) > 1


@pytest.mark.parametrize("action", ["GetQueueAttributes", "ReceiveMessage"])
def test_credentials_that_are_refused_again_end_the_drain_soon(watched, proxy, action):
    proxy.on(action, error("InvalidClientTokenId", 403, "the security token is invalid"))
    watched.queue.send(login_messages(5))
    began = time.monotonic()
    said = assert_refused(watched, psycopg.OperationalError, match="the security token is invalid")
    assert time.monotonic() - began < 4 and "AWS_ACCESS_KEY_ID" in said.message_hint
    assert len(proxy.asked(action)) == 2


def test_refusal_in_the_middle_ends_the_drain_and_says_how_far_it_came(watched, proxy):
    proxy.on("ReceiveMessage", short_polls, times=1).on("ReceiveMessage", error("AccessDenied", 403))
    watched.queue.send(login_messages(25))
    with pytest.raises(psycopg.OperationalError) as failed:
        drain(watched)
    assert "sqs:ReceiveMessage" in failed.value.diag.message_hint
    assert counts_in(failed.value.diag.message_detail) == (10, 10, 0, 0)
    assert watched.queue.counts() == (15, 0)
    assert_counters_add_up(watched.stat())
    proxy.pass_on("ReceiveMessage")
    assert drain(watched) == (15, 15, 0, 0)


# -- while it runs ----------------------------------------------------------------------------------------------------


def test_progress_shows_in_pg_stat_activity(watched, proxy, hold, running):
    proxy.on("ReceiveMessage", short_polls, times=1).on("ReceiveMessage", hold)
    watched.queue.send([*login_messages(9), "no json", *login_messages(10, start=9)])
    drain = running(watched)
    wait_until(lambda: "10 messages received, 9 inserted, 0 duplicates, 1 dead letters" in drain.activity()["query"],
               what=lambda: f"progress in pg_stat_activity: {drain.activity()}")  # fmt: skip
    assert 'sqs_ingest_drain of "user_logins"' in drain.activity()["query"]
    assert drain.activity()["state"] == "active"
    hold.let_go()
    assert drain.finish() == (20, 19, 0, 1)


def test_holds_no_snapshot_lock_or_transaction_id_while_it_waits_for_the_queue(watched, proxy, hold, running):
    db = watched.db
    proxy.on("ReceiveMessage", short_polls, times=1).on("ReceiveMessage", hold)
    watched.queue.send(login_messages(10))
    drain = running(watched)
    wait_until(lambda: "10 inserted" in drain.activity()["query"], 10, "the first batch is written")
    assert hold.reached.wait(10)
    activity = drain.activity()
    assert (activity["backend_xid"], activity["backend_xmin"]) == (None, None)
    assert activity["wait_event_type"] == "Extension"
    locks = db.sql("SELECT locktype, relation::regclass, mode FROM pg_locks WHERE pid = %s", [drain.pid])
    assert [lock for lock in locks if lock[0] != "virtualxid"] == []
    # So the table can be altered, and dead rows are removed.
    with db.connect(options="-c lock_timeout=1s") as other:
        other.execute("ALTER TABLE user_logins ADD COLUMN note text")
    hold.let_go()
    assert drain.finish() == (10, 10, 0, 0)


def test_rows_of_a_batch_are_visible_while_it_goes_on(watched, proxy, hold, running):
    proxy.on("ReceiveMessage", short_polls, times=1).on("ReceiveMessage", hold)
    watched.queue.send(login_messages(10))
    drain = running(watched)
    wait_until(lambda: len(watched.rows()) == 10, 10, "the first batch is there")
    wait_until(watched.queue.is_empty, 10, "the first batch is deleted from the queue")
    wait_until(lambda: watched.stat()["deleted"] == 10, 10, "the first batch is counted")
    assert_counters_add_up(watched.stat())
    hold.let_go()
    drain.finish()


def test_counters_add_up_while_messages_are_in_hand(stopped, running):
    sleep_at(stopped.db, login_message(15)["user_id"], 2)
    stopped.queue.send(login_messages(40))
    drain = running(stopped)
    drain.wait_until_it_sleeps()
    assert_deliveries_add_up(stopped.stat())
    assert drain.finish() == (40, 40, 0, 0)
    assert_counters_add_up(stopped.stat())


def test_two_drains_at_once_ingest_each_message_once(stopped, running):
    messages = login_messages(200)
    stopped.queue.send(messages)
    drains = [running(stopped), running(stopped)]
    ends = [drain.finish() for drain in drains]
    assert sum(inserted for _, inserted, _, _ in ends) == 200
    assert_each_is_a_row_once(stopped, messages)
    assert stopped.stat()["inserted"] == 200
    assert_counters_add_up(stopped.stat())


def test_start_during_a_drain_harms_nothing(stopped, running):
    messages = login_messages(200)
    sleep_at(stopped.db, messages[15]["user_id"], 1)
    stopped.queue.send(messages)
    drain = running(stopped)
    drain.wait_until_it_sleeps()
    assert stopped.start() is True
    drain.finish()
    stopped.wait_for(inserted=200)
    wait_until(stopped.queue.is_empty, 20, "the queue is empty")
    assert_each_is_a_row_once(stopped, messages)
    wait_until(lambda: stopped.stat()["deleted"] == stopped.stat()["received"], 10, "all deletes counted")
    assert_counters_add_up(stopped.stat())


def test_extension_dropped_during_a_drain_ends_it_and_costs_no_message(watched, proxy, hold, running):
    proxy.on("ReceiveMessage", short_polls, times=1).on("ReceiveMessage", hold)
    watched.queue.send(login_messages(30))
    drain = running(watched)
    wait_until(lambda: len(watched.rows()) == 10, 10, "the first batch is there")
    assert hold.reached.wait(10)
    watched.db.sql("DROP EXTENSION sqs_ingest")
    hold.let_go()
    assert isinstance(drain.end(), psycopg.Error)
    assert drain.connection.execute("SELECT count(*) FROM user_logins").fetchone() == (10,)
    wait_until(lambda: watched.queue.counts() == (20, 0), 10, lambda: f"given back: {watched.queue.counts()}")
    watched.db.sql("CREATE EXTENSION sqs_ingest")


SETTINGS = {
    "search_path": "pg_temp, nowhere", "lock_timeout": "1ms", "synchronous_commit": "off", "work_mem": "77kB",
    "default_transaction_isolation": "serializable", "default_transaction_deferrable": "on", "DateStyle": "SQL, DMY",
    "statement_timeout": "50s", "idle_in_transaction_session_timeout": "300ms", "application_name": "cron",
    "TimeZone": "Asia/Tokyo",
    "IntervalStyle": "sql_standard", "bytea_output": "escape", "standard_conforming_strings": "off", "row_security": "off",
    "client_min_messages": "notice", "quote_all_identifiers": "on",
    "transform_null_equals": "on", "array_nulls": "off", "extra_float_digits": "0",
}  # fmt: skip


def settings_of(session):
    shown = {name: session.execute(f"SHOW {name}").fetchone()[0] for name in [*SETTINGS, "transaction_isolation"]}
    return shown, session.execute("SELECT current_user, session_user, current_schemas(true)").fetchone()


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_session_is_as_before_and_its_settings_do_no_harm(pipeline, owner, ends):
    pipeline.queue.send([*login_messages(30), "no json", *login_messages(4, start=30)])
    if ends == "with an error":
        sleep_at(pipeline.db, login_message(15)["user_id"])
    schema = pipeline.db.value("SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'sqs_ingest'")
    pipeline.db.sql(f"ALTER ROLE {owner} SUPERUSER")  # so that a superuser may SET ROLE to it
    with pipeline.db.connect() as session:
        session.execute("CREATE TEMP TABLE mine (n int)")
        session.execute("PREPARE two AS SELECT 2")
        session.execute(f"SET ROLE {owner}")
        for name, value in SETTINGS.items():
            session.execute(f"SET {name} = {value}" if name == "search_path" else f"SET {name} = '{value}'")
        if ends == "with an error":
            session.execute("SET statement_timeout = '1500ms'")
        before = settings_of(session)
        statement = f"CALL {schema}.sqs_ingest_drain()"
        if ends == "well":
            session.execute(statement)
            assert user_ids(pipeline) == users_of(login_messages(34))
        else:
            with pytest.raises(psycopg.errors.QueryCanceled):
                session.execute(statement)
        assert settings_of(session) == before
        assert session.execute("EXECUTE two").fetchone() == (2,)
        session.execute("SELECT count(*) FROM pg_catalog.pg_class")


# -- interrupted: what was committed are rows, the rest is the queue's ------------------------------------------------


def test_cancel_in_the_middle_of_a_write_gives_the_rest_back_at_once(stopped, running):
    messages = login_messages(120)
    sleep_at(stopped.db, messages[25]["user_id"])
    stopped.queue.send(messages)
    drain = running(stopped)
    drain.wait_until_it_sleeps()
    stopped.db.sql("SELECT pg_cancel_backend(%s)", [drain.pid])
    assert isinstance(drain.end(5), psycopg.errors.QueryCanceled)

    rows = user_ids(stopped)
    assert counts_in(drain.error.diag.message_detail)[1:] == (len(rows), 0, 0)
    assert 0 < len(rows) < 26 and set(rows) < {message["user_id"] for message in messages}
    assert stopped.queue.counts() == (120 - len(rows), 0)
    assert_counters_add_up(stopped.stat())
    stopped.db.sql("DROP TRIGGER sleep ON user_logins")
    assert call(drain.connection) == (120 - len(rows), 120 - len(rows), 0, 0)
    assert_each_is_a_row_once(stopped, messages)
    assert_counters_add_up(stopped.stat())


def test_cancel_while_it_waits_for_the_queue_ends_it_soon(watched, proxy, hold, running):
    proxy.on("ReceiveMessage", short_polls, times=1).on("ReceiveMessage", hold)
    watched.queue.send(login_messages(30))
    drain = running(watched)
    wait_until(lambda: len(watched.rows()) == 10, 10, "the first batch is there")
    assert hold.reached.wait(10)
    watched.db.sql("SELECT pg_cancel_backend(%s)", [drain.pid])
    assert isinstance(drain.end(5), psycopg.errors.QueryCanceled)
    hold.drop()
    assert watched.queue.counts() == (20, 0)
    proxy.pass_on("ReceiveMessage")
    assert call(drain.connection) == (20, 20, 0, 0)
    assert_counters_add_up(watched.stat())


def cancelled(pipeline, drain):
    pipeline.db.sql("SELECT pg_cancel_backend(%s)", [drain.pid])
    assert isinstance(drain.end(), psycopg.errors.QueryCanceled)


def terminated(pipeline, drain):
    pipeline.db.sql("SELECT pg_terminate_backend(%s)", [drain.pid])
    assert isinstance(drain.end(), psycopg.OperationalError)


def crashed(pipeline, drain):
    since = pipeline.cluster.log_position()
    pipeline.cluster.signal(drain.pid, 9)
    assert isinstance(drain.end(), psycopg.OperationalError)
    pipeline.cluster.wait_for_log("reinitializing", since)
    wait_until(lambda: pipeline.cluster.value("SELECT 1"), 30, "the server recovered", ignore=psycopg.OperationalError)


def stopped_fast(pipeline, drain):
    began = time.monotonic()
    pipeline.cluster.stop("fast")
    assert time.monotonic() - began < 5
    assert isinstance(drain.end(), psycopg.OperationalError)
    pipeline.cluster.start()


@pytest.mark.parametrize("interrupted", [cancelled, terminated, crashed, stopped_fast])
def test_interrupted_drain_loses_nothing_and_ingests_nothing_twice(watched, proxy, running, interrupted):
    messages = login_messages(120)
    sleep_at(watched.db, messages[25]["user_id"])
    proxy.on("ReceiveMessage", returning_soon)
    watched.queue.send(messages)
    drain = running(watched)
    drain.wait_until_it_sleeps()
    watched.db.close()
    interrupted(watched, drain)
    there = len(user_ids(watched))
    assert 0 < there < 26
    assert_deliveries_add_up(watched.stat())

    watched.db.sql("DROP TRIGGER sleep ON user_logins")
    wait_until(lambda: watched.queue.counts()[1] == 0, 20, lambda: f"all are visible again: {watched.queue.counts()}")
    proxy.pass_on("ReceiveMessage")
    call(watched.db.connection)
    assert_each_is_a_row_once(watched, messages)
    assert watched.db.value("SELECT count(*) FROM sqs_ingest_ledger") == 120
    assert_deliveries_add_up(watched.stat())


def test_statement_timeout_ends_it_and_gives_the_rest_back(stopped):
    messages = login_messages(60)
    sleep_at(stopped.db, messages[25]["user_id"])
    stopped.queue.send(messages)
    with stopped.db.connect() as session:
        session.execute("SET statement_timeout = '1500ms'")
        with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
            call(session)
        assert stopped.queue.counts() == (60 - len(stopped.rows()), 0)
        stopped.db.sql("DROP TRIGGER sleep ON user_logins")
        session.execute("SET statement_timeout = 0")
        call(session)
    assert_each_is_a_row_once(stopped, messages)
    assert_counters_add_up(stopped.stat())


def test_server_that_is_stopped_fast_does_not_wait_for_the_queue(watched, proxy, hold, running):
    proxy.on("ReceiveMessage", short_polls, times=1).on("ReceiveMessage", hold)
    watched.queue.send(login_messages(10))
    drain = running(watched)
    wait_until(lambda: len(watched.rows()) == 10, 10, "the first batch is there")
    assert hold.reached.wait(10)
    watched.db.close()
    began = time.monotonic()
    watched.cluster.stop("fast")
    assert time.monotonic() - began < 4
    assert isinstance(drain.end(), psycopg.OperationalError)
    watched.cluster.start()


# -- a pipeline that changes under a drain ----------------------------------------------------------------------------


def under_its_name(pipeline):
    return pipeline.db.value("""SELECT (SELECT count(*) FROM sqs_ingest_ledger WHERE pipeline = %(name)s)
                                     + (SELECT count(*) FROM sqs_ingest_dead_letter WHERE pipeline = %(name)s)""", {"name": pipeline.name})  # fmt: skip


@pytest.fixture
def half_way(watched, proxy, hold, running):
    """(a drain that has written ten messages and waits for its queue, let_go()): it gets ten good and two bad ones then."""
    proxy.on("ReceiveMessage", short_polls, times=1).on("ReceiveMessage", hold)
    watched.queue.send(login_messages(10))
    drain = running(watched)
    assert hold.reached.wait(10)
    wait_until(lambda: len(watched.rows()) == 10, 10, "the first batch is there")
    watched.wait_for(deleted=10)
    watched.queue.send([*map(json.dumps, login_messages(10, start=10)), "no json", "nor this"])
    return drain, hold.let_go


def assert_ended_by_the_change(pipeline, drain, message):
    assert isinstance(drain.end(), psycopg.errors.ObjectNotInPrerequisiteState)
    assert message in drain.error.diag.message_primary and drain.error.diag.message_hint
    assert counts_in(drain.error.diag.message_detail)[1:] == (10, 0, 0)
    assert pipeline.queue.counts() == (12, 0)
    assert user_ids(pipeline) == users_of(login_messages(10))


def test_a_drain_ends_when_its_pipeline_is_altered_and_loses_nothing(watched, half_way):
    drain, let_go = half_way
    watched.alter(columns=[{"column": "user_id", "from": "/user_id", "required": True}])
    let_go()
    assert_ended_by_the_change(watched, drain, "was altered")
    assert watched.dead_letters() == [] and under_its_name(watched) == 10
    assert_counters_add_up(watched.stat())
    assert call(watched.db.connection)[1:] == (10, 0, 2)
    assert [row["masked_ip"] is None for row in watched.rows()] == [False] * 10 + [True] * 10
    assert_counters_add_up(watched.stat())


def test_a_drain_ends_when_its_pipeline_is_dropped_and_leaves_nothing(watched, half_way):
    drain, let_go = half_way
    watched.db.sql("SELECT sqs_ingest_drop_pipeline(%s)", [watched.name])
    assert under_its_name(watched) == 0
    let_go()
    assert_ended_by_the_change(watched, drain, "was dropped")
    assert under_its_name(watched) == 0


def test_a_drain_writes_nothing_for_the_next_owner_of_its_pipelines_name(watched, half_way):
    drain, let_go = half_way
    db, owner = watched.db, unique("owner")
    db.sql("SELECT sqs_ingest_drop_pipeline(%s)", [watched.name])
    db.sql(f"CREATE ROLE {owner} LOGIN; CREATE TABLE theirs (id integer); ALTER TABLE theirs OWNER TO {owner}")
    function = db.value("SELECT oid::regprocedure::text FROM pg_proc WHERE proname = 'sqs_ingest_create_pipeline'")
    db.sql(f"GRANT EXECUTE ON FUNCTION {function} TO {owner}")
    with db.connect(owner) as session:
        session.execute("SELECT sqs_ingest_create_pipeline(%s, 'https://sqs.us-east-1.amazonaws.com/123456789012/q', 'theirs')", [watched.name])
    let_go()
    assert_ended_by_the_change(watched, drain, "another owner")
    assert under_its_name(watched) == 0
    stat = watched.stat()
    assert (stat["received"], stat["released"], stat["deleted"], stat["last_error"]) == (0, 0, 0, None)


def test_a_drop_waits_for_the_batch_that_a_drain_writes(stopped, running):
    sleep_at(stopped.db, "slow", 2)
    stopped.queue.send([*map(json.dumps, [login_message(0, user_id="slow"), *login_messages(8, start=1)]), "no json", *["nor this"] * 30])
    drain = running(stopped)
    drain.wait_until_it_sleeps()
    stopped.db.sql("SELECT sqs_ingest_drop_pipeline(%s, cascade => true)", [stopped.name])
    assert "slow" in user_ids(stopped)
    if drain.end():
        assert "was dropped" in str(drain.error)
    assert under_its_name(stopped) == 0
