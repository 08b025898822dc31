"""Messages that keep coming while something is done to the database, and whether each one arrived, once.

    with Flow(pipeline) as flow:
        flow.wait_for_more()
        ...
        flow.wait_for_more()
    assert_each_ingested_once(pipeline, flow.sent)

The queue's server must not hand messages out twice: see redelivery.Handouts.
"""
import threading

from harness import login_messages, wait_until


def mixed_messages(count, start=0):
    """Every tenth is for the dead letters."""
    return [f"no JSON {message}" if i % 10 == 9 else message for i, message in enumerate(login_messages(count, start))]


def assert_each_ingested_once(pipeline, sent):
    """Every message is a row or a dead letter, in the ledger, and gone from the queue."""
    wait_until(pipeline.queue.is_empty, 40, lambda: f"queue empty; it has {pipeline.queue.counts()}; {pipeline.stat()}")
    pipeline.wait_for(in_hand=0)
    users = [message["user_id"] for message in sent if not isinstance(message, str)]
    assert [row["user_id"] for row in pipeline.rows("user_id")] == sorted(users)
    assert pipeline.db.value("SELECT count(DISTINCT message_id) FROM sqs_ingest_dead_letter") == len(sent) - len(users)
    assert [letter["reason"] for letter in pipeline.dead_letters()] == ["not_json"] * (len(sent) - len(users))
    assert pipeline.db.value("SELECT count(*) FROM sqs_ingest_ledger") == len(sent)


class Flow:
    """Sends messages, one batch after the other, until the block ends; `sent` is all of them."""

    def __init__(self, pipeline):
        self.pipeline, self.sent, self.over = pipeline, [], threading.Event()

    def _send(self):
        while not self.over.is_set():
            batch = mixed_messages(10, len(self.sent))
            self.pipeline.queue.send(batch)
            self.sent += batch

    def wait_for_more(self, count=20):
        """Waits until so many more messages are ingested."""
        ingested = "SELECT count(*) FROM sqs_ingest_ledger"
        before = self.pipeline.db.value(ingested)
        wait_until(lambda: self.pipeline.db.value(ingested) >= before + count, 40, lambda: f"more; {self.pipeline.stat()}")

    def __enter__(self):
        self.thread = threading.Thread(target=self._send)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
