"""An idle pipeline: one long poll, no SQL, next to no CPU."""
import os
import time

from harness import login_messages
from pipeline import assert_counters_add_up, make_pipeline_fixture  # noqa: F401

CLUSTER_SETTINGS = {"autovacuum": False}  # which has transactions of its own
IDLE_SECONDS = 60


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        user, system = stat.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def transactions(cluster, name):
    query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
    return cluster.value(query, [name])


def requests(moto):
    return (moto.directory / "log").read_text().count('"POST / HTTP')


def test_idle_pipeline_runs_no_sql_and_holds_one_long_poll(make_pipeline, own_moto):
    pipeline = make_pipeline(own_moto.queue())
    cluster = pipeline.cluster
    pipeline.start()
    # One batch: the ledger is pruned right after it. (After more batches that comes once more, a minute later.)
    pipeline.queue.send(login_messages(1))
    pipeline.wait_until_done(1)
    pipeline.wait_for(state="idle")
    (worker,) = cluster.pids("sqs_ingest worker")
    (launcher,) = cluster.pids("sqs_ingest launcher")
    pipeline.db.close()
    time.sleep(3)  # sessions that ended report their last transactions
    before = transactions(cluster, pipeline.db.name), requests(own_moto), cpu_seconds(worker), cpu_seconds(launcher)

    time.sleep(IDLE_SECONDS)

    assert transactions(cluster, pipeline.db.name) == before[0]
    assert requests(own_moto) - before[1] <= IDLE_SECONDS / 20 + 1
    assert cpu_seconds(worker) - before[2] < 0.2
    assert cpu_seconds(launcher) - before[3] < 0.2

    assert cluster.pids("sqs_ingest worker") == [worker]
    pipeline.queue.send(login_messages(3, start=100))
    pipeline.wait_until_done(4)
    assert_counters_add_up(pipeline.stat())
