"""sqs_ingest_start() and sqs_ingest_stop() as parts of transactions, from several sessions at once, and plain changes of
sqs_ingest_pipeline: the catalog is the truth, and whatever happens on the way ends in what it says.

All polls are short here: nothing that a worker left behind takes a message.
"""
import random
import signal
import threading
import time

import psycopg
import pytest
from harness import login_message, login_messages, wait_until
from pipeline import Pipeline, assert_counters_add_up, running_fixture, user_ids, users_of  # noqa: F401
from proxy import make_pipeline_fixture, make_proxy_fixture, proxied_fixture, proxy_fixture, short_polls  # noqa: F401

CLUSTER_SETTINGS = {"max_prepared_transactions": 5}


@pytest.fixture
def pipeline(proxied, proxy):
    proxy.on("ReceiveMessage", short_polls)
    return proxied


def workers(pipeline):
    return pipeline.cluster.pids("sqs_ingest worker", pipeline.db.name)


def is_enabled(pipeline):
    return pipeline.db.value(
        """SELECT count(*) = 1 FROM pg_shseclabel WHERE provider = 'sqs_ingest' AND classoid = 'pg_database'::regclass
              AND objoid = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    )


def assert_ingests(pipeline, i=0):
    message = login_message(i)
    pipeline.queue.send([message])
    wait_until(lambda: message["user_id"] in user_ids(pipeline), 20, lambda: f"a row; the pipeline: {pipeline.stat()}")


def assert_nothing_runs(pipeline, proxy):
    """Not even after the launcher was told to look again."""
    pipeline.cluster.reload()
    since = time.monotonic()
    time.sleep(0.5)
    assert workers(pipeline) == [] and proxy.asked(since=since) == []


# -- effects at commit, and only then ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ROLLBACK TO SAVEPOINT", "caught exception"])
def test_start_in_an_aborted_subtransaction_starts_nothing(pipeline, proxy, how):
    with pipeline.db.connect(autocommit=False) as session:
        if how == "caught exception":
            session.execute(
                """DO $$ BEGIN PERFORM sqs_ingest_start(); RAISE EXCEPTION 'no';
                         EXCEPTION WHEN raise_exception THEN NULL; END $$"""
            )
        else:
            session.execute("SAVEPOINT one")
            session.execute("SELECT sqs_ingest_start()")
            session.execute("ROLLBACK TO one")
        session.commit()
    assert not is_enabled(pipeline)
    assert pipeline.db.value("SELECT count(*) FROM sqs_ingest_pipeline") == 0
    assert pipeline.db.value("SELECT to_regclass('user_logins')") is None
    assert_nothing_runs(pipeline, proxy)


def test_start_and_stop_in_one_transaction_start_nothing(pipeline, proxy):
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        session.execute("SELECT sqs_ingest_stop()")
        session.commit()
    assert not is_enabled(pipeline)
    assert pipeline.stat()["state"] == "stopped"
    assert_nothing_runs(pipeline, proxy)


def test_stop_counts_although_a_start_after_it_was_rolled_back(running, proxy):
    with running.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_stop()")
        session.execute("SAVEPOINT one")
        session.execute("SELECT sqs_ingest_start()")
        session.execute("ROLLBACK TO one")
        session.commit()
    running.wait_for(10, state="stopped", workers=[])
    assert_nothing_runs(running, proxy)


def test_stop_keeps_the_workers_away_although_a_start_after_it_was_rolled_back(running, proxy):
    """As it would without the start: until its transaction ends."""
    with running.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_stop()")
        session.execute("SAVEPOINT one")
        session.execute("SELECT sqs_ingest_start()")
        session.execute("ROLLBACK TO one")
        assert_nothing_runs(running, proxy)
        session.commit()
    assert workers(running) == []


def test_table_can_be_altered_between_stop_and_start_in_one_transaction(running):
    """The workers hold no lock by then, and go on with the table as it is at commit."""
    assert_ingests(running, 0)
    with running.db.connect(autocommit=False) as session:
        session.execute("SET LOCAL lock_timeout = 1")
        session.execute("SELECT sqs_ingest_stop()")
        session.execute("ALTER TABLE user_logins RENAME COLUMN locale TO language")
        session.execute("ALTER TABLE user_logins ALTER COLUMN app_version TYPE bigint")
        session.execute(
            """UPDATE sqs_ingest_pipeline
                  SET columns = replace(columns::text, '"column": "locale"', '"column": "language"')::jsonb"""
        )
        running.queue.send(login_messages(3, 14))
        session.execute("SELECT sqs_ingest_start()")
        session.commit()
    wait_until(lambda: set(users_of(login_messages(3, 14))) <= set(user_ids(running)), 20, "rows in the altered table")
    assert {row["language"] for row in running.rows()} == {"RU"}


CHANGES = {
    "UPDATE": "UPDATE sqs_ingest_pipeline SET workers = 2",
    "DELETE": "DELETE FROM sqs_ingest_pipeline",
    "DROP EXTENSION": "DROP EXTENSION sqs_ingest",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_of_a_pipeline_refuse_prepare_transaction(running, change):
    with running.db.connect(autocommit=False) as session:
        session.execute(change)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="sqs_ingest"):
            session.execute("PREPARE TRANSACTION 'never'")
    assert running.db.value("SELECT count(*) FROM pg_prepared_xacts") == 0
    running.wait_for(15, state="idle", workers=lambda found: len(found) == 1)
    assert_ingests(running)


# -- stop waits, but not for ever -------------------------------------------------------------------------------------


def test_stop_in_a_transaction_that_locks_the_target_ends_and_loses_nothing(running):
    messages = login_messages(10)
    with running.db.connect(autocommit=False) as session:
        session.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
        running.queue.send(messages)
        running.wait_for(in_hand=10)
        began = time.monotonic()
        session.execute("SELECT sqs_ingest_stop()")
        assert time.monotonic() - began < 15
        assert workers(running) == []
        assert running.queue.counts() == (10, 0)  # given back at once
        session.commit()
    assert running.stat()["state"] == "stopped" and user_ids(running) == []
    running.start()
    running.wait_for(inserted=10, deleted=10)
    assert user_ids(running) == users_of(messages) and running.dead_letters() == []
    assert_counters_add_up(running.stat())


def test_stop_warns_when_a_worker_waits_for_what_its_own_transaction_holds(running, proxy):
    """A worker that starts up cannot look its role up: it neither ends nor hears anything until the lock is gone."""
    said = []
    with running.db.connect(autocommit=False) as session:
        session.add_notice_handler(lambda n: said.append((n.severity, n.message_primary, n.message_hint)))
        session.execute("LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE")
        running.cluster.signal(running.stat()["workers"][0]["pid"], signal.SIGTERM)

        def waits_for_the_lock():
            return session.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pg_catalog.pg_authid'::regclass"
            ).fetchone()[0]

        wait_until(waits_for_the_lock, 15, "a worker waits for the lock")
        began = time.monotonic()
        assert session.execute("SELECT sqs_ingest_stop()").fetchone()[0] is True
        assert time.monotonic() - began < 40
        ((severity, message, hint),) = said
        assert severity == "WARNING" and "still finishing" in message and "lock" in hint
        session.commit()
    running.wait_for(15, state="stopped", workers=[])
    assert_nothing_runs(running, proxy)
    running.start()
    assert_ingests(running)


def test_stop_that_is_cancelled_while_it_waits_stops_nothing(running):
    (worker,) = workers(running)
    running.cluster.signal(worker, signal.SIGSTOP)
    try:
        with running.db.connect() as session:
            session.execute("SET statement_timeout = '500ms'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                session.execute("SELECT sqs_ingest_stop()")
        assert is_enabled(running)
    finally:
        running.cluster.signal(worker, signal.SIGCONT)
    assert_ingests(running)
    running.wait_for(15, state="idle")


# -- plain changes of the table ---------------------------------------------------------------------------------------


KEEP = "CREATE TEMP TABLE kept AS TABLE sqs_ingest_pipeline"
PUT_BACK = "INSERT INTO sqs_ingest_pipeline SELECT * FROM kept"
GONE = {
    "DELETE": ("DELETE FROM sqs_ingest_pipeline", PUT_BACK),
    "TRUNCATE": ("TRUNCATE sqs_ingest_pipeline", PUT_BACK),
    "another name": (
        "UPDATE sqs_ingest_pipeline SET name = 'renamed'",
        "UPDATE sqs_ingest_pipeline SET name = 'user_logins'",
    ),
}


@pytest.mark.parametrize("gone, put_back", GONE.values(), ids=GONE)
def test_enabled_pipeline_whose_row_goes_says_what_to_do_and_resumes_when_it_is_back(running, gone, put_back):
    running.db.sql(KEEP)
    running.db.sql(gone)
    stat = running.wait_for(15, state="cannot_start", workers=[])
    assert "user_logins" in stat["why"] and "sqs_ingest_pipeline" in stat["why"]
    assert "sqs_ingest_stop" in stat["hint"] and "insert" in stat["hint"]
    assert workers(running) == []
    messages = login_messages(3)
    running.queue.send(messages)
    assert running.queue.counts() == (3, 0)
    running.db.sql(put_back)
    running.wait_until_done(3)
    assert user_ids(running) == users_of(messages)


def test_pipeline_whose_row_is_gone_can_be_stopped(running, proxy):
    running.db.sql("DELETE FROM sqs_ingest_pipeline")
    assert running.stop() is True
    assert running.stop() is False
    assert not is_enabled(running)
    assert running.stat() is None
    assert_nothing_runs(running, proxy)


def test_start_makes_a_row_that_is_gone_anew(running):
    assert_ingests(running, 0)
    running.db.sql("DELETE FROM sqs_ingest_pipeline")
    running.wait_for(15, state="cannot_start", workers=[])
    running.start()
    assert_ingests(running, 1)


def test_row_that_is_deleted_and_inserted_in_one_transaction_keeps_the_worker(running):
    before = workers(running)
    with running.db.connect(autocommit=False) as session:
        session.execute(KEEP)
        session.execute("DELETE FROM sqs_ingest_pipeline")
        session.execute(PUT_BACK)
        session.commit()
    assert_ingests(running)
    assert workers(running) == before


def test_delete_that_is_rolled_back_keeps_the_worker(running):
    before = workers(running)
    with running.db.connect(autocommit=False) as session:
        session.execute("DELETE FROM sqs_ingest_pipeline")
        session.rollback()
    assert_ingests(running)
    assert workers(running) == before


# -- several sessions at once -----------------------------------------------------------------------------------------


def in_threads(jobs, timeout=60):
    """Runs the functions at the same moment; returns what they returned, or raised."""
    results, start = [None] * len(jobs), threading.Barrier(len(jobs))

    def run(i):
        start.wait()
        try:
            results[i] = jobs[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert not any(thread.is_alive() for thread in threads), "a session hangs"
    return results


def test_first_start_from_many_sessions_at_once_enables_it_once(pipeline):
    def start(session):
        return session.execute("SELECT sqs_ingest_start()").fetchone()[0]

    sessions = [pipeline.db.connect() for _ in range(6)]
    results = in_threads([lambda session=session: start(session) for session in sessions])
    for session in sessions:
        session.close()
    assert sorted(results, key=str) == [False] * 5 + [True]
    assert pipeline.db.value("SELECT count(*) FROM sqs_ingest_pipeline") == 1
    pipeline.wait_for(15, state="idle", workers=lambda found: len(found) == 1)
    assert_ingests(pipeline)


def test_starts_and_stops_from_many_sessions_end_as_the_last_one_said(running):
    """Each that says true changed something; so it is enabled if one more start than stops did."""
    since = running.cluster.log_position()

    def play(seed):
        luck, balance = random.Random(seed), 0
        with running.db.connect(autocommit=False) as session:
            for _ in range(12):
                function = luck.choice(["start", "stop"])
                changed = session.execute(f"SELECT sqs_ingest_{function}()").fetchone()[0]
                if luck.random() < 0.3:
                    session.rollback()
                else:
                    session.commit()
                    balance += (1 if function == "start" else -1) * changed
        return balance

    results = in_threads([lambda seed=seed: play(seed) for seed in range(4)])
    assert all(isinstance(result, int) for result in results), results
    assert 1 + sum(results) == is_enabled(running)
    if is_enabled(running):
        running.wait_for(15, state="idle", workers=lambda found: len(found) == 1)
    else:
        running.wait_for(15, state="stopped", workers=[])
    running.start()
    assert_ingests(running)
    running.stop()
    assert workers(running) == []
    log = running.cluster.log(since)
    assert "deadlock detected" not in log and "tuple concurrently updated" not in log


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_start_waits_for_a_stop_under_way_in_another_session_and_then_has_its_way(running, end):
    found = []
    with running.db.connect(autocommit=False) as stopping, running.db.connect() as starting:
        stopping.execute("SELECT sqs_ingest_stop()")
        thread = threading.Thread(target=lambda: found.append(starting.execute("SELECT sqs_ingest_start()").fetchone()[0]))
        thread.start()
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"
        wait_until(lambda: running.db.value(blocked, [starting.info.backend_pid]), 10, "start() waits")
        getattr(stopping, end)()
        thread.join(30)
    assert found == [end == "commit"]  # true: it was not enabled any more
    running.wait_for(15, state="idle", workers=lambda found: len(found) == 1)
    assert_ingests(running)


def test_drop_extension_at_the_same_moment_as_start_and_stop_deadlocks_with_neither(running):
    since = running.cluster.log_position()
    statements = ["DROP EXTENSION sqs_ingest", "SELECT sqs_ingest_start()", "SELECT sqs_ingest_stop()"]
    sessions = [running.db.connect() for _ in statements]
    results = in_threads([lambda s=s, q=q: s.execute(q).statusmessage for s, q in zip(sessions, statements, strict=True)])
    for session in sessions:
        session.close()
    try:
        assert "deadlock detected" not in running.cluster.log(since), results
        assert results[0] == "DROP EXTENSION"
        gone = (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedObject)
        assert all(result == "SELECT 1" or isinstance(result, gone) for result in results[1:]), results
        assert not is_enabled(running)
        wait_until(lambda: workers(running) == [], 15, "no worker")
    finally:
        running.db.sql("CREATE EXTENSION IF NOT EXISTS sqs_ingest")
    running.start()
    assert_ingests(running)


# -- more than one pipeline -------------------------------------------------------------------------------------------


def add_pipeline(pipeline, queue, name):
    """Another pipeline into the same table, from a queue of its own."""
    pipeline.db.sql(
        """INSERT INTO sqs_ingest_pipeline (name, owner, queue_url, target, columns, mask_method)
           SELECT %s, owner, %s, target, columns, mask_method FROM sqs_ingest_pipeline WHERE name = 'user_logins'""",
        [name, queue.url],
    )
    return Pipeline(pipeline.db, queue, name)


def test_two_pipelines_start_and_stop_each_for_itself(running, moto):
    second = add_pipeline(running, moto.queue(), "second")
    assert second.start() is True
    second.wait_for(state="idle")
    second.queue.send(login_messages(3))
    second.wait_until_done(3)
    assert second.stop() is True
    assert second.stat()["state"] == "stopped"
    running.wait_for(state="idle", workers=lambda found: len(found) == 1)
    assert_ingests(running, 10)
    with running.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start('second')")
        session.execute("SELECT sqs_ingest_stop('user_logins')")
        session.commit()
    running.wait_for(state="stopped", workers=[])
    second.wait_for(state="idle")
    assert_ingests(second, 20)
    assert second.stop() is True


@pytest.mark.parametrize("name", ["Zoë's \\ \"pipeline\" ☃", "%s {0} $1 ;--", "x" * 63, "ü" * 31])
def test_name_with_odd_characters_is_as_good_as_another(running, moto, name):
    odd = add_pipeline(running, moto.queue(), name)
    assert odd.start() is True
    odd.wait_for(state="idle")
    running.stop()
    odd.queue.send([*login_messages(2), "no json"])
    odd.wait_until_done(3)
    assert len(odd.dead_letters()) == 1 and name in running.db.value("SELECT sqs_ingest_status()")
    running.cluster.restart()
    odd.wait_for(state="idle")
    assert odd.stop() is True


# -- other options while messages are in hand -------------------------------------------------------------------------


def refuse_rows(db):
    """As if the disk were full: the pipeline's fault, so messages stay in hand."""
    db.sql(
        """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql
           AS $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'; END $$"""
    )
    db.sql("CREATE TRIGGER full_disk BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION full_disk()")


def accept_rows(db):
    db.sql("DROP TRIGGER full_disk ON user_logins")


MAJOR = """columns = (SELECT jsonb_agg(CASE WHEN c->>'column' = 'app_version' THEN c || '{"steps": ["version:major"]}' ELSE c END)
                       FROM jsonb_array_elements(columns) AS c)"""
OPTIONS = {
    "workers": ("workers = 3", None),
    "mask_method": ("mask_method = 'sha256'", ("masked_ip ~ '^[0-9a-f]{64}$'", "masked_ip ~ '^hm1[.]'")),
    "columns": (MAJOR, ("app_version = 2", "app_version = 230")),
}


@pytest.mark.parametrize("change, became", OPTIONS.values(), ids=OPTIONS)
def test_options_changed_while_messages_are_in_hand_apply_to_them_and_cost_none(running, change, became):
    before, messages = workers(running), [login_message(i, app_version="2.3.0") for i in range(10)]
    refuse_rows(running.db)
    running.queue.send(messages)
    running.wait_for(state="backing_off", in_hand=10)
    running.db.sql(f"UPDATE sqs_ingest_pipeline SET {change}")
    wait_until(lambda: workers(running) and not set(before) & set(workers(running)), 15, "other workers")
    accept_rows(running.db)
    running.wait_for(inserted=10, deleted=10, in_hand=0)
    assert user_ids(running) == users_of(messages)
    assert running.dead_letters() == []
    if became:
        assert running.db.sql(f"SELECT DISTINCT {became[0]}, {became[1]} FROM user_logins") == [(True, False)]
    else:
        running.wait_for(15, workers=lambda found: len(found) == 3)
    assert_counters_add_up(running.stat())


def test_queue_changed_while_messages_are_in_hand_gives_them_back_to_their_queue(running, moto):
    messages, others = login_messages(10), login_messages(10, 100)
    refuse_rows(running.db)
    running.queue.send(messages)
    running.wait_for(state="backing_off", in_hand=10)
    other = moto.queue()
    running.db.sql("UPDATE sqs_ingest_pipeline SET queue_url = %s", [other.url])
    wait_until(lambda: running.queue.counts() == (10, 0), 15, "all back in their queue")
    accept_rows(running.db)
    other.send(others)
    wait_until(lambda: user_ids(running) == users_of(others), 20, "rows of the other queue")
    running.db.sql("UPDATE sqs_ingest_pipeline SET queue_url = NULL")
    wait_until(lambda: user_ids(running) == users_of([*messages, *others]), 20, "rows of both queues")
    wait_until(lambda: running.queue.is_empty() and other.is_empty(), 20, "both queues empty")
    assert running.dead_letters() == []


def test_options_changed_again_and_again_in_the_middle_of_a_drain_lose_nothing_and_double_nothing(running):
    messages = login_messages(300)
    running.queue.send(messages)
    changes = ["workers = 2", "mask_method = 'sha256'", MAJOR, "workers = 3", "mask_method = 'md5'", "workers = 1"]

    def rows():
        return running.db.value("SELECT count(*) FROM user_logins")

    for change in changes:
        enough = min(rows() + 20, 300)
        wait_until(lambda: rows() >= enough, 30, "progress", 0.01)  # noqa: B023
        running.db.sql(f"UPDATE sqs_ingest_pipeline SET {change}")
    wait_until(lambda: rows() >= 300, 30, "all rows")
    wait_until(running.queue.is_empty, 30, lambda: f"queue empty; it has {running.queue.counts()}")
    assert user_ids(running) == users_of(messages)
    assert running.dead_letters() == []
    assert running.db.value("SELECT count(*) FROM sqs_ingest_ledger") == 300
