"""CPU time that the worker spends per message, from /proc: user + system, with an SQS server that keeps up.

Run through bench/cpu-per-message, which installs what it needs.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "test/integration"))
from harness import Cluster, wait_until  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICK, int(fields[12]) / TICK


def resident_mib(pid):
    """Memory of the worker's own: without what it shares with other processes."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = [line.split()[1] for line in rollup.splitlines() if line.startswith("Private_")]
    return sum(map(int, private)) / 1024


def run_once(cluster, node, modules, count):
    server = subprocess.Popen([node, ROOT / "bench/load-server.mjs", modules, str(count)], stdout=subprocess.PIPE)
    try:
        ready = json.loads(server.stdout.readline())
        endpoint = f"http://127.0.0.1:{ready['port']}"
        cluster.set({"sqs_ingest.queue_url": ready["url"], "sqs_ingest.endpoint_url": endpoint}).reload()
        database = cluster.create_database()
        try:
            return drain(cluster, database, count)
        finally:
            cluster.drop_database(database)
    finally:
        server.terminate()
        server.wait()


def drain(cluster, name, count):
    with cluster.connect(name) as session:
        session.execute("CREATE EXTENSION sqs_ingest")
        session.execute("SELECT sqs_ingest_start()")
        worker = wait_until(lambda: cluster.pids("sqs_ingest worker"), what="a worker")[0]
        start = time.monotonic()

        def all_deleted():
            row = session.execute("SELECT inserted, deleted FROM pg_stat_sqs_ingest").fetchone()
            return row == (count, count)

        wait_until(all_deleted, 600, "all messages ingested", interval=0.05)
        seconds = time.monotonic() - start
        user, system = cpu_seconds(worker)
        memory = resident_mib(worker)
        transactions = session.execute("SELECT transactions FROM pg_stat_sqs_ingest").fetchone()[0]
        session.execute("SELECT sqs_ingest_stop()")
        assert session.execute("SELECT count(DISTINCT user_id) FROM user_logins").fetchone() == (count,)
    return {"user": user / count * 1e6, "system": system / count * 1e6, "rate": count / seconds,
            "batch": count / transactions, "memory": memory}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50000, help="per run (default 50000)")
    parser.add_argument("--runs", type=int, default=3, help="the median counts (default 3)")
    parser.add_argument("--fsync", action="store_true", help="flush for real; off by default: it measures the disk")
    parser.add_argument("--node", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--modules", required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    cluster = Cluster({"sqs_ingest.region": "us-east-1", "fsync": arguments.fsync})
    try:
        cluster.start()
        runs = []
        for i in range(arguments.runs):
            run = run_once(cluster, arguments.node, arguments.modules, arguments.messages)
            runs.append(run)
            print("run {}: {user:.1f} + {system:.1f} µs user + system per message, {rate:.0f} messages/s, "
                  "{batch:.0f} messages a transaction, {memory:.0f} MiB private memory".format(i + 1, **run), flush=True)
    finally:
        cluster.destroy()
    total = statistics.median(run["user"] + run["system"] for run in runs)
    print(f"median: {total:.1f} µs CPU per message (aim: at most 60)")


main()
