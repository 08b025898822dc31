"""What a worker holds at once, however much its messages unfold into."""
import re

from harness import wait_until
from pipelines import make_proxy_fixture, pipelines_fixture  # noqa: F401

MIB = 1 << 20


def peak_memory(pid):
    """Of the process, its own; in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) * 1024


def test_messages_that_unfold_into_many_rows_are_held_as_messages(pipelines):
    """21 kB each, and 26 MiB of rows. Nothing can be written, and so all of them are in hand."""
    db = pipelines.db
    db.sql("CREATE TABLE t (n integer, note text)")
    pipeline = pipelines("t", [{"column": "n", "from": "@each"}, {"column": "note", "from": "/note"}], each="/numbers")
    pipeline.start()
    pipeline.wait_for(state="idle")
    with db.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE t")
        pipeline.queue.send([{"numbers": [0] * 9000, "note": "x" * 3000}] * 10)
        pipeline.wait_for(in_hand=10)
        (worker,) = pipeline.cluster.pids("sqs_ingest worker", db.name)
        assert peak_memory(worker) < 150 * MIB
    # What was not read when it came is read when its turn comes.
    wait_until(lambda: db.value("SELECT count(*) FROM t") == 10 * 9000, 60, "all rows")
    pipeline.wait_for(in_hand=0, deleted=10)
    assert peak_memory(worker) < 300 * MIB
