"""The end of a server, or of a session, in the middle of a CALL sqs_ingest_drain(): what is committed stays, what is not
goes back to the queue, and the next drain ingests it. (How workers end is in test_lifecycle.py and test_crashes.py.)"""
import signal
import threading
import time

import psycopg
import pytest
from harness import login_messages, wait_until
from proxy import make_pipeline_fixture, make_proxy_fixture, proxied_fixture, proxy_fixture  # noqa: F401
from redelivery import Handouts


class Drain:
    """A drain in a session of its own; `error` is what ended it, if not the end of the queue."""

    def __init__(self, pipeline):
        self.session, self.error = pipeline.db.connect(), None
        self.pid = self.session.info.backend_pid
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.session.execute("CALL sqs_ingest_drain()")
        except psycopg.Error as error:
            self.error = error

    def join(self):
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.session.close()
        return self.error


def fast(cluster, drain):
    began = time.monotonic()
    cluster.stop("fast", 15)
    assert time.monotonic() - began < 10
    cluster.start()


def immediate(cluster, drain):
    cluster.stop("immediate")
    cluster.start()


def kill_9(cluster, drain):
    """Postgres ends all sessions then, and recovers."""
    cluster.signal(drain.pid, signal.SIGKILL)
    wait_until(lambda: drain.error, 20, "the session is gone")
    wait_until(lambda: cluster.value("SELECT 1"), 30, "the server answers", ignore=psycopg.OperationalError)


def terminate(cluster, drain):
    assert cluster.value("SELECT pg_terminate_backend(%s, 10000)", [drain.pid])


ENDS = {"fast shutdown": fast, "immediate shutdown": immediate, "kill -9 of the session": kill_9,
        "pg_terminate_backend": terminate}  # fmt: skip


@pytest.mark.parametrize("end", ["fast shutdown", "immediate shutdown", "kill -9 of the session"])
def test_drain_that_is_ended_in_the_middle_loses_nothing_and_the_next_one_goes_on(proxied, proxy, end):
    cluster, handouts = proxied.cluster, Handouts(proxy, proxied.queue, slow=0.2)
    proxied.start()
    proxied.stop()
    messages = login_messages(250)
    proxied.queue.send(messages)
    drain = Drain(proxied)
    wait_until(lambda: proxied.db.value("SELECT count(*) FROM sqs_ingest_ledger") > 20, 30, "it drains", 0.01)
    proxied.db.close()
    ENDS[end](cluster, drain)
    assert isinstance(drain.join(), psycopg.OperationalError)
    committed = proxied.db.value("SELECT count(*) FROM user_logins")
    assert 20 < committed < 250, "not in the middle"
    assert committed == proxied.db.value("SELECT count(*) FROM sqs_ingest_ledger")
    assert proxied.stat()["state"] == "stopped"

    handouts.slow = 0
    handouts.come_back()
    deleted = 250 - sum(proxied.queue.counts())
    assert deleted <= committed
    while not proxied.queue.is_empty():  # a poll that was under way at the end may have taken some more
        proxied.db.sql("CALL sqs_ingest_drain()")
        handouts.come_back()
    assert [row["user_id"] for row in proxied.rows("user_id")] == sorted(message["user_id"] for message in messages)
    assert proxied.dead_letters() == []


@pytest.mark.parametrize("end", ["fast shutdown", "pg_terminate_backend"])
def test_drain_that_is_ended_while_it_asks_the_queue_gives_back_what_it_is_handed(proxied, proxy, end):
    """As a worker does: nobody has to wait for a visibility timeout."""
    cluster, handouts = proxied.cluster, Handouts(proxy, proxied.queue, slow=0.3)
    proxied.start()
    proxied.stop()
    proxied.queue.send(login_messages(250))
    drain = Drain(proxied)
    wait_until(lambda: handouts.under_way >= 4, 30, "receives are under way", 0.01)
    proxied.db.close()
    ENDS[end](cluster, drain)
    drain.join()
    wait_until(lambda: handouts.under_way == 0, 10, "all receives are answered")
    wait_until(lambda: proxied.queue.counts()[1] == 0, 5, lambda: f"nothing in flight; {proxied.queue.counts()}")
    visible, _ = proxied.queue.counts()
    assert visible > 0 and visible + proxied.db.value("SELECT count(*) FROM sqs_ingest_ledger") == 250
