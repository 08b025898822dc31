"""Processes and servers that end badly at any moment: afterwards every message is a row once, without a hand.

What a crash left in flight returns to the queue when its visibility window is over: 40 s, which a worker asks for with
each receive. moto does not notice that a client is gone: the long poll of a worker that crashed may take messages too.
"""
import random
import re
import signal
import time

import psycopg
import pytest
from harness import Database, children_of, login_messages, wait_until
from pipeline import Pipeline, make_pipeline_fixture  # noqa: F401

AFTER_A_CRASH = 150  # three windows, and some air
CLUSTER_SETTINGS = {"autovacuum": False}


@pytest.fixture
def pipeline(make_pipeline, moto):
    return make_pipeline(moto.queue())


def value(pipeline, query):
    """In a session of its own: crashes end sessions."""
    return pipeline.cluster.value(query, dbname=pipeline.db.name)


def wait_for_value(pipeline, query, reached, what, timeout=AFTER_A_CRASH, interval=0.1):
    return wait_until(lambda: reached(value(pipeline, query)), timeout, what, interval, ignore=psycopg.OperationalError)


def rows(pipeline):
    return value(pipeline, "SELECT count(*) FROM user_logins")


def wait_for_rows(pipeline, n):
    wait_for_value(pipeline, "SELECT count(*) FROM user_logins", lambda count: count >= n, f"{n} rows", interval=0.01)


def assert_each_ingested_once(pipeline, messages, timeout=AFTER_A_CRASH):
    wait_until(pipeline.queue.is_empty, timeout, lambda: f"queue empty; it has {pipeline.queue.counts()}", 0.2)
    wait_for_rows(pipeline, len(messages))
    stored = value(pipeline, "SELECT array_agg(user_id::text ORDER BY user_id) FROM user_logins")
    assert stored == sorted(message["user_id"] for message in messages)
    assert value(pipeline, "SELECT count(*) FROM sqs_ingest_dead_letter") == 0
    assert value(pipeline, "SELECT count(*) FROM sqs_ingest_ledger") == len(messages)


def assert_goes_on(pipeline, tries=4):
    """A message sent now becomes a row; if a poll that a crash left behind took it, the next one does."""
    for i in range(tries):
        (message,) = login_messages(1, start=1000 + i)
        pipeline.queue.send([message])
        query = f"SELECT count(*) FROM user_logins WHERE user_id = '{message['user_id']}'"
        try:
            return wait_for_value(pipeline, query, lambda n: n == 1, "the message is a row", 3 if i < tries - 1 else 30)
        except AssertionError:
            if i == tries - 1:
                raise


def children(cluster, title):
    """Pids of the server's processes with this in their title."""
    return children_of(cluster.postmaster.pid, title)


def child(cluster, title, timeout=AFTER_A_CRASH, interval=0.002):
    return wait_until(lambda: children(cluster, title), timeout, f"process {title!r}", interval)[0]


def signal_quietly(cluster, pid, number):
    try:
        cluster.signal(pid, number)
    except (AssertionError, ProcessLookupError):
        pass  # it is gone already


def wait_for_answer(cluster, timeout=30):
    wait_until(lambda: cluster.value("SELECT 1"), timeout, "the server answers", 0.02, ignore=psycopg.OperationalError)


def crash_of_worker(cluster):
    signal_quietly(cluster, child(cluster, "sqs_ingest worker"), signal.SIGKILL)


def crash_of_launcher(cluster):
    signal_quietly(cluster, child(cluster, "sqs_ingest launcher"), signal.SIGKILL)


def immediate_stop(cluster):
    cluster.stop("immediate")
    cluster.start()


def power_failure(cluster):
    cluster.kill_all()
    cluster.start()


def crash_of_postmaster(cluster):
    cluster.kill()
    cluster.start()


# -- in the middle of a drain -----------------------------------------------------------------------------------------


def wait_for_progress(pipeline, wanted=30):
    """Waits for so many more rows, or fewer: what crashes took out of the queue is not back for some time."""
    visible, _ = pipeline.queue.counts()
    wait_for_rows(pipeline, rows(pipeline) + min(wanted, visible // 2))


CRASHES = {
    "of processes": [crash_of_worker, crash_of_worker, crash_of_launcher, crash_of_worker],
    "of the server": [immediate_stop, power_failure, crash_of_postmaster, immediate_stop, power_failure],
}


@pytest.mark.parametrize("crashes", CRASHES.values(), ids=CRASHES)
def test_drain_with_crashes_in_the_middle_ingests_each_message_once(pipeline, crashes):
    messages = login_messages(300)
    pipeline.queue.send(messages)
    pipeline.start()
    for crash in crashes:
        wait_for_progress(pipeline)
        time.sleep(random.uniform(0, 0.05))  # any moment of a batch
        crash(pipeline.cluster)
        wait_for_answer(pipeline.cluster)
    assert_each_ingested_once(pipeline, messages)


def test_terminated_worker_finishes_its_batch_and_another_one_goes_on(pipeline):
    messages = login_messages(200)
    pipeline.queue.send(messages)
    since = pipeline.cluster.log_position()
    pipeline.start()
    for at_least in (1, 50, 100):
        wait_for_rows(pipeline, at_least)
        signal_quietly(pipeline.cluster, child(pipeline.cluster, "sqs_ingest worker"), signal.SIGTERM)
    # Nothing has to wait for its visibility timeout: what was in hand was written or released.
    assert_each_ingested_once(pipeline, messages, timeout=20)
    assert "terminating any other active server processes" not in pipeline.cluster.log(since)


def test_cancelling_the_worker_harms_nothing(pipeline):
    messages = login_messages(200)
    pipeline.queue.send(messages)
    pipeline.start()
    worker = child(pipeline.cluster, "sqs_ingest worker")
    with pipeline.db.connect() as session:
        give_up = time.monotonic() + 60
        while session.execute("SELECT count(*) FROM user_logins").fetchone()[0] < 200:
            assert time.monotonic() < give_up
            session.execute("SELECT pg_cancel_backend(%s)", [worker])
            time.sleep(0.005)
    assert_each_ingested_once(pipeline, messages, timeout=30)
    assert children(pipeline.cluster, "sqs_ingest worker") == [worker]


@pytest.fixture
def fresh_processes(cluster):
    """Should a process not come back, the next test has one all the same."""
    yield
    cluster.restart()


# -- idle -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["worker", "launcher"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_idle_process_that_ends_comes_back(pipeline, fresh_processes, victim, number):
    cluster = pipeline.cluster
    pipeline.start()
    pipeline.wait_for(state="idle")
    pid = child(cluster, f"sqs_ingest {victim}")
    cluster.signal(pid, number)
    wait_until(lambda: any(found != pid for found in children(cluster, f"sqs_ingest {victim}")), 30, f"another {victim}")
    wait_for_answer(cluster)
    assert_goes_on(pipeline)


def test_launcher_that_was_terminated_keeps_starting_pipelines(pipeline, fresh_processes):
    """Not only does it come back: it still hears of start() and stop()."""
    cluster = pipeline.cluster
    pid = child(cluster, "sqs_ingest launcher")
    cluster.value(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: any(found != pid for found in children(cluster, "sqs_ingest launcher")), 30, "another launcher")
    pipeline.start()
    pipeline.wait_for(20, state="idle")
    assert_goes_on(pipeline)
    assert pipeline.stop()
    pipeline.wait_for(10, state="stopped", workers=[])


# -- at every stage of start-up ---------------------------------------------------------------------------------------


def test_process_that_ends_at_any_stage_of_its_start_never_keeps_the_server_down(pipeline):
    cluster, messages, luck = pipeline.cluster, login_messages(40), random.Random(1)
    pipeline.queue.send(messages)
    pipeline.start()
    for i in range(20):
        victim = luck.choice(["worker", "worker", "worker", "scout"])
        # A worker that is asked to end is started again after a pause that grows; a crash of the server resets it.
        number = signal.SIGTERM if i % 3 == 2 else signal.SIGKILL
        if victim == "scout":
            wait_for_answer(cluster)
            cluster.postmaster.send_signal(signal.SIGHUP)  # has the launcher look again
            try:
                pid = child(cluster, "sqs_ingest scout", 2, 0)
            except AssertionError:
                continue
        else:
            known = children(cluster, "sqs_ingest worker")
            if known:
                signal_quietly(cluster, known[0], signal.SIGKILL)
            pid = wait_until(lambda: [found for found in children(cluster, "sqs_ingest worker") if found not in known],
                             30, f"a new worker, round {i}", 0)[0]  # fmt: skip
        time.sleep(luck.uniform(0, 0.05))
        signal_quietly(cluster, pid, number)
        assert cluster.running
    wait_for_answer(cluster)
    assert_each_ingested_once(pipeline, messages)
    assert not re.search(r"terminated by signal (?!9\b)\d+", cluster.log())


# -- synchronous standbys ---------------------------------------------------------------------------------------------


@pytest.fixture
def sync_pipeline(make_cluster, moto):
    """A pipeline on a cluster whose synchronous standby `one` runs: (pipeline, standby)."""
    queue = moto.queue()
    cluster = make_cluster({**queue.settings, "autovacuum": False})
    standby = make_cluster.adopt(cluster.standby("one")).start()
    db = Database(cluster, cluster.create_database())
    db.sql("CREATE EXTENSION sqs_ingest")
    pipeline = Pipeline(db, queue)
    cluster.set(synchronous_standby_names="one").reload()
    wait_until(lambda: cluster.sql("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"), what="sync standby")
    pipeline.start()
    pipeline.wait_for(state="idle")
    yield pipeline, standby
    db.close()


def worker_waits_for_standby(pipeline):
    return [row["pid"] for row in pipeline.cluster.activity()
            if row["backend_type"] == "sqs_ingest worker" and row["wait_event"] == "SyncRep"]  # fmt: skip


def assert_nothing_was_deleted(pipeline, sent):
    assert sum(pipeline.queue.counts()) == sent
    assert pipeline.stat()["deleted"] == 0


def test_nothing_is_deleted_while_the_synchronous_standby_is_down(sync_pipeline):
    pipeline, standby = sync_pipeline
    messages = login_messages(12)
    standby.stop()
    pipeline.queue.send(messages)
    wait_until(lambda: worker_waits_for_standby(pipeline), 30, "worker waits for the standby")
    still = time.monotonic() + 5
    while time.monotonic() < still:
        assert_nothing_was_deleted(pipeline, 12)
        time.sleep(0.5)
    standby.start()
    assert_each_ingested_once(pipeline, messages)
    on_standby = standby.value("SELECT count(*) FROM user_logins", dbname=pipeline.db.name)
    assert on_standby == 12


def test_cancelled_wait_for_the_standby_deletes_nothing(sync_pipeline):
    pipeline, standby = sync_pipeline
    messages = login_messages(10)
    standby.stop()
    pipeline.queue.send(messages)
    for _ in range(4):
        for pid in wait_until(lambda: worker_waits_for_standby(pipeline), 30, "worker waits for the standby"):
            pipeline.cluster.value(f"SELECT pg_cancel_backend({pid})")
        time.sleep(0.3)
        assert_nothing_was_deleted(pipeline, 10)
    wait_until(lambda: rows(pipeline) > 0, what="rows that are committed here")
    wait_until(lambda: pipeline.stat()["state"] == "backing_off" or worker_waits_for_standby(pipeline), what="it says so")
    assert_nothing_was_deleted(pipeline, 10)
    standby.start()
    assert_each_ingested_once(pipeline, messages)


def test_worker_terminated_while_it_waits_for_the_standby_deletes_nothing(sync_pipeline):
    pipeline, standby = sync_pipeline
    messages = login_messages(10)
    standby.stop()
    pipeline.queue.send(messages)
    (pid,) = wait_until(lambda: worker_waits_for_standby(pipeline), 30, "worker waits for the standby")
    pipeline.cluster.signal(pid, signal.SIGTERM)
    wait_until(lambda: pid not in pipeline.cluster.pids("sqs_ingest worker"), 30, "the worker has left")
    assert_nothing_was_deleted(pipeline, 10)
    standby.start()
    assert_each_ingested_once(pipeline, messages)
