"""The harness itself: what the other tests stand on, without the extension."""
import psycopg
import pytest
from botocore.exceptions import ClientError
from harness import login_messages, wait_until

CLUSTER_PRELOAD = None


def test_fresh_database_answers(db):
    assert db.value("SELECT current_database()") == db.name
    assert db.cluster.value("SHOW server_encoding") == "UTF8"


def test_reload_applies_and_unset_goes_back(cluster):
    cluster.set(work_mem="123kB").reload()
    assert cluster.value("SHOW work_mem") == "123kB"
    cluster.unset("work_mem").reload()
    assert cluster.value("SHOW work_mem") == "4MB"


def test_committed_row_survives_every_way_to_end(db):
    db.sql("CREATE TABLE t (i int)")
    for i, end in enumerate([db.cluster.kill, db.cluster.kill_all, lambda: db.cluster.stop("immediate")]):
        db.sql("INSERT INTO t VALUES (%s)", [i])
        end()
        db.cluster.start()
    assert db.sql("SELECT i FROM t ORDER BY i") == [(0,), (1,), (2,)]


def test_broken_configuration_is_told(make_cluster):
    with pytest.raises(RuntimeError, match="no_such_parameter"):
        make_cluster({"no_such_parameter": 1}, preload=None)


def test_standby_follows_and_can_be_promoted(cluster, make_cluster):
    cluster.set(synchronous_standby_names="one").reload()
    standby = make_cluster.adopt(cluster.standby("one")).start()
    wait_until(lambda: cluster.sql("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"), what="sync standby")
    cluster.sql("CREATE TABLE on_both ()")
    wait_until(lambda: standby.value("SELECT to_regclass('on_both')"), what="table on the standby")
    standby.promote()
    standby.sql("DROP TABLE on_both")
    cluster.unset("synchronous_standby_names").reload()


def test_queue_keeps_count(queue):
    assert len(set(queue.send(login_messages(25)))) == 25
    assert queue.counts() == (25, 0)
    received = queue.receive(10)
    assert queue.counts() == (25 - len(received), len(received))


def test_strict_server_refuses_a_wrong_signature(strict_moto):
    strict_moto.queue().send(["hello"])
    with pytest.raises(ClientError, match="signature"):
        strict_moto.client(aws_secret_access_key="wrong").list_queues()


def test_waiting_in_vain_says_for_what():
    with pytest.raises(AssertionError, match="pigs fly; last seen: False"):
        wait_until(lambda: False, 0.2, "pigs fly")


def test_statement_cannot_hang_forever(cluster):
    with cluster.connect(options="-c statement_timeout=100ms") as connection:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(10)")
