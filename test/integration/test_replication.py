"""Streaming replicas: what a standby shows and refuses, and what a failover keeps. Whatever was deleted from the queue is
on a synchronous standby; an asynchronous one may lack the last of it, and the status says which kind is in force."""
import threading

import psycopg
import pytest
from harness import Database, login_message, login_messages, wait_until
from pipeline import Pipeline
from proxy import Proxy, make_proxy_fixture, proxy_fixture  # noqa: F401
from redelivery import Handouts

ROGUE = {"foo": "oops_wrong_msg_type", "bar": "123"}
CONFIRMED, FLUSHED = "flushed and confirmed by synchronous standbys", "flushed"


def users(messages):
    return sorted(message["user_id"] for message in messages)


def stored(pipeline):
    return [row["user_id"] for row in pipeline.rows("user_id")]


def make_pair(primary, endpoint=None):
    """A standby of a running cluster, with the same keyring, which lies outside the data directories; not started."""
    primary.set({"sqs_ingest.mask_keyring": primary.directory / "keyring"}).reload()
    # A new synchronous_standby_names counts from the standby's next answer on.
    settings = {"wal_receiver_status_interval": 1, **({"sqs_ingest.endpoint_url": endpoint} if endpoint else {})}
    return primary.standby("standby", settings)


def wait_until_it_streams(primary, sync_state):
    wait_until(lambda: primary.sql("SELECT sync_state FROM pg_stat_replication") == [(sync_state,)], 20,
               lambda: f"a standby that is {sync_state}; {primary.sql('SELECT * FROM pg_stat_replication')}")  # fmt: skip


def wait_until_replayed(primary, standby):
    end = primary.value("SELECT pg_current_wal_flush_lsn()::text")
    wait_until(lambda: standby.value("SELECT pg_last_wal_replay_lsn() >= %s::text::pg_lsn", [end]), 20, "replayed")


def wait_for_sync_wait(pipeline, backend_type="sqs_ingest worker"):
    def waiting():
        return [row["pid"] for row in pipeline.cluster.activity()
                if row["backend_type"] == backend_type and row["wait_event"] == "SyncRep"]  # fmt: skip

    return wait_until(waiting, 20, lambda: f"wait for a standby; {pipeline.stat()}")[0]


# -- a standby, and synchronous_standby_names -------------------------------------------------------------------------


class Pair:
    """A primary whose pipeline has ingested something, and its standby, whose own requests would go through proxy."""

    def __init__(self, cluster, moto):
        self.queue, self.proxy = moto.queue(), Proxy(moto)
        self.through, self.primary = Proxy(moto), cluster
        cluster.set({**self.queue.settings, "sqs_ingest.endpoint_url": self.through.endpoint}).reload()
        self.handouts = Handouts(self.through, self.queue)
        self.standby = make_pair(cluster, self.proxy.endpoint)
        self.standby.start()
        self.db = Database(cluster, cluster.create_database())
        self.db.sql("CREATE EXTENSION sqs_ingest")
        self.pipeline = Pipeline(self.db, self.queue)
        self.queue.send([*login_messages(5), ROGUE])
        self.pipeline.start()
        self.pipeline.wait_until_ingested(6)
        self.db.sql("SELECT unmask(mask('a', 'siv'), 'a reason')")
        wait_until_it_streams(cluster, "async")
        wait_until_replayed(cluster, self.standby)
        self.on_standby = Database(self.standby, self.db.name)

    def close(self):
        self.db.close()
        self.on_standby.close()
        self.standby.destroy()
        self.proxy.close()


@pytest.fixture(scope="module")
def pair(cluster, moto):
    pair = Pair(cluster, moto)
    yield pair
    pair.close()


@pytest.mark.parametrize("table", ["user_logins", "sqs_ingest_pipeline", "sqs_ingest_ledger", "sqs_ingest_dead_letter",
                                   "sqs_ingest_key", "sqs_ingest_unmask_audit"])  # fmt: skip
def test_standby_shows_every_table(pair, table):
    rows = f"SELECT t::text FROM {table} t ORDER BY 1"
    assert pair.on_standby.sql(rows) == pair.db.sql(rows) != []


@pytest.mark.parametrize("call", [
    "mask('199.172.111.135')", "mask('593-47-5928', 'siv')", "mask('::ffff:1.2.3.4'::inet)", "mask_candidates('a')",
    "mask_rewrap(mask('a', 'siv'))", "(SELECT array_agg(k::text) FROM mask_keys() k)",
    """sqs_ingest_preview('user_logins', '{"user_id": "a", "ip": "1.2.3.4", "device_id": "1"}', '2026-01-01')""",
])  # fmt: skip
def test_functions_that_change_nothing_give_the_same_on_the_standby(pair, call):
    assert pair.on_standby.value(f"SELECT {call}") == pair.db.value(f"SELECT {call}") is not None


@pytest.mark.parametrize("statement", [
    "SELECT sqs_ingest_start()", "SELECT sqs_ingest_stop()", "CALL sqs_ingest_drain()", "SELECT sqs_ingest_redrive()",
    "SELECT sqs_ingest_purge(older_than => '0')", "SELECT sqs_ingest_forget('a')",
    "SELECT unmask(mask('a', 'siv'), 'a reason')",
    "UPDATE sqs_ingest_pipeline SET workers = 2",
])  # fmt: skip
def test_standby_refuses_what_would_write(pair, statement):
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as refusal:
        pair.on_standby.sql(statement)
    name = statement.split()[1].partition("(")[0]
    assert name in str(refusal.value) or statement.startswith("UPDATE")


def test_unmask_on_a_standby_tells_nothing_without_its_audit(pair):
    since = pair.standby.log_position()
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as refusal:
        pair.on_standby.sql("SELECT unmask(%s, 'a reason')", [pair.db.value("SELECT mask('a plain value', 'siv')")])
    assert "a plain value" not in str(refusal.value) + pair.standby.log(since)


def test_check_on_a_standby_answers_and_says_that_nothing_runs_there(pair):
    rows = pair.on_standby.sql("SELECT item, ok, detail, hint FROM sqs_ingest_check()")
    amiss = [f"{detail} {hint}" for _, ok, detail, hint in rows if not ok]
    assert len(amiss) < len(rows) and any("standby" in words for words in amiss), rows


def test_status_on_a_standby_is_readable_and_says_why_nothing_runs(pair):
    """Enabled it is; the advice to run sqs_ingest_start() would be no help there."""
    (status,) = pair.on_standby.sql("SELECT state, why, hint, workers FROM pg_stat_sqs_ingest")
    assert pair.on_standby.value("SELECT sqs_ingest_status()")["user_logins"]["state"] == status[0]
    assert status[0] in ("stopped", "cannot_start") and status[3] == []
    assert "standby" in f"{status[1]} {status[2]}" and "sqs_ingest_start()" not in f"{status[1]} {status[2]}"


def test_standby_runs_no_process_and_asks_the_queue_nothing(pair):
    pair.standby.reload()
    pair.standby.restart()
    assert pair.on_standby.value("SELECT count(*) FROM user_logins") >= 5
    assert pair.standby.pids("sqs_ingest") == []
    assert [request.action for request in pair.proxy.asked() if request.action != "GetQueueAttributes"] == []


@pytest.fixture
def names(pair):
    """Sets synchronous_standby_names of the running primary, which flushes as a real one does; back to none afterwards."""

    def set_names(value, fsync=True):
        pair.primary.set(synchronous_standby_names=value, fsync=fsync).reload()

    set_names("")
    yield set_names
    set_names("", fsync=False)


@pytest.mark.parametrize("then", ["standby", ""], ids=["a standby that is there", "none"])
def test_standby_that_is_required_live_is_waited_for_until_the_requirement_is_met_or_lifted(pair, names, then):
    pipeline, deleted = pair.pipeline, pair.pipeline.stat()["deleted"]
    pipeline.wait_for(state="idle", durability=FLUSHED)
    names("nobody")
    pipeline.wait_for(durability=CONFIRMED)
    ledger = pair.db.value("SELECT count(*) FROM sqs_ingest_ledger")
    pair.queue.send(login_messages(5, 100 + ledger))
    wait_for_sync_wait(pipeline)
    assert sum(pair.queue.counts()) == 5 and pipeline.stat()["deleted"] == deleted
    names(then)
    pipeline.wait_for(deleted=deleted + 5, in_hand=0)
    assert pair.queue.is_empty()
    assert pipeline.stat()["durability"] == (CONFIRMED if then else FLUSHED)
    if then:
        there = {user for (user,) in pair.on_standby.sql("SELECT user_id FROM user_logins")}
        assert set(users(login_messages(5, 100 + ledger))) <= there


def test_drain_deletes_nothing_that_a_synchronous_standby_has_not_confirmed(pair, names):
    """Not even when the wait is cancelled: the commit is there, and the messages come back as duplicates."""
    pipeline, db = pair.pipeline, pair.db
    pipeline.stop()
    try:
        names("nobody")
        before = db.value("SELECT count(*) FROM user_logins")
        pair.queue.send(login_messages(5, 300))
        failed = []

        def drain():
            try:
                with db.connect() as session:
                    session.execute("CALL sqs_ingest_drain()")
            except psycopg.Error as error:
                failed.append(error)

        thread = threading.Thread(target=drain)
        thread.start()
        pid = wait_for_sync_wait(pipeline, "client backend")
        db.sql("SELECT pg_cancel_backend(%s)", [pid])
        wait_until(lambda: db.value("SELECT count(*) FROM user_logins") == before + 5 or failed, 20, "the wait is over")
        assert sum(pair.queue.counts()) == 5
        for _ in range(100):  # whatever it waits for next
            if not thread.is_alive():
                break
            db.sql("SELECT pg_cancel_backend(%s)", [pid])
            thread.join(0.2)
        assert failed and not thread.is_alive()
        assert sum(pair.queue.counts()) == 5
        names("standby")
        wait_until_it_streams(pair.primary, "sync")
        pair.handouts.come_back()
        db.sql("CALL sqs_ingest_drain()")
        wait_until(pair.queue.is_empty, 20, "queue empty")
        assert db.value("SELECT count(*) FROM user_logins") == before + 5
    finally:
        names("")
        pipeline.start()


# -- failover ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def failover(make_cluster, moto, proxy):
    """failover(synchronous, …): a pipeline that runs on a primary, the same on its standby, and the queue's Handouts."""

    def make(synchronous, **options):
        queue = moto.queue()
        primary = make_cluster({**queue.settings, "sqs_ingest.endpoint_url": proxy.endpoint})
        handouts = Handouts(proxy, queue, **options)
        standby = make_cluster.adopt(make_pair(primary)).start()
        if synchronous:
            primary.set(synchronous_standby_names="standby").reload()
        wait_until_it_streams(primary, "sync" if synchronous else "async")
        db = Database(primary, primary.create_database())
        db.sql("CREATE EXTENSION sqs_ingest")
        pipeline = Pipeline(db, queue)
        pipeline.start()
        pipeline.wait_for(state="idle")
        return pipeline, Pipeline(Database(standby, db.name), queue), handouts

    return make


def test_failover_to_a_synchronous_standby_in_the_middle_of_ingestion_loses_nothing_and_doubles_nothing(failover, proxy):
    pipeline, promoted, handouts = failover(synchronous=True, slow=0.2)
    messages = login_messages(250)
    ids = pipeline.queue.send(messages)
    pipeline.wait_for(deleted=lambda n: n > 20)
    pipeline.cluster.kill_all()
    promoted.cluster.promote()
    at_promotion = promoted.db.value("SELECT count(*) FROM sqs_ingest_ledger")
    assert 20 < at_promotion < 250, "not in the middle"
    handouts.slow = 0
    handouts.come_back_until_the_queue_is_empty()  # nobody has started anything there
    promoted.wait_for(state="idle", in_hand=0)
    assert stored(promoted) == users(messages)
    assert {id for (id,) in promoted.db.sql("SELECT message_id FROM sqs_ingest_ledger")} == set(ids)
    assert promoted.dead_letters() == []
    promoted.db.close()


def test_failover_to_an_asynchronous_standby_may_lose_the_last_rows_as_the_status_said_and_doubles_nothing(failover):
    pipeline, promoted, handouts = failover(synchronous=False, keep_deleted=True)
    for server in (pipeline.cluster, promoted.cluster):
        server.set(fsync=True).reload()
    there, late = login_messages(5), login_messages(5, 5)
    pipeline.queue.send(there)
    pipeline.wait_for(deleted=5, durability=FLUSHED)
    wait_until_replayed(pipeline.cluster, promoted.cluster)
    promoted.cluster.stop()
    pipeline.queue.send(late)
    pipeline.wait_for(deleted=10)  # the standby has not seen them
    pipeline.cluster.kill_all()
    promoted.cluster.start().promote()
    promoted.wait_for(state="idle", durability=FLUSHED)
    assert stored(promoted) == users(there)
    # Should the queue deliver them all once more: what is there is a duplicate, what was lost is found again.
    handouts.keep_deleted = False
    handouts.come_back()
    promoted.wait_for(deleted=10, duplicates=5, inserted=5)
    assert stored(promoted) == users(there + late)
    promoted.db.close()


def test_standby_promoted_with_another_key_refuses_to_mask(failover):
    """Duplicates of the rows that it has would not be found any more."""
    pipeline, promoted, handouts = failover(synchronous=False)
    pipeline.queue.send([login_message(0)])
    pipeline.wait_for(deleted=1)
    wait_until_replayed(pipeline.cluster, promoted.cluster)
    pipeline.cluster.kill_all()
    keyring = pipeline.cluster.directory / "keyring"
    good, id = keyring.read_text(), promoted.db.value("SELECT max(id) FROM sqs_ingest_key")
    keyring.write_text(f"{id} {'7' * 64}\n")
    promoted.cluster.reload()
    promoted.cluster.promote()
    stat = promoted.wait_for(state=lambda state: state in ("backing_off", "cannot_start"), why=lambda why: "key" in (why or ""))
    assert stat["hint"] and stat["received"] == 0
    promoted.queue.send([login_message(1)])
    with pytest.raises(psycopg.Error, match="key"):
        promoted.db.sql("SELECT mask('a')")
    assert promoted.queue.counts() == (1, 0)
    keyring.write_text(good)
    promoted.cluster.reload()
    promoted.wait_for(40, deleted=1)
    assert stored(promoted) == users(login_messages(2))
    promoted.db.close()
