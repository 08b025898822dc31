"""A queue that delivers again, when a test says so: what SQS may do at any time, and does after a crash.

    handouts = Handouts(proxy, queue)      # all receives of the pipeline go through the proxy
    ...                                    # the client crashes with messages in hand
    handouts.come_back()                   # they are visible again, as when their visibility timeout is over
"""
import json
import time

from harness import wait_until
from proxy import Answer, short_polls


class Handouts:
    """What a queue has handed out through a proxy. Its polls are short: nobody who left holds one.

    keep_deleted   while it is true, the queue says that it deleted a message, and still has it
    slow           seconds that each receive takes at least: time to interfere in the middle
    under_way      receives that are not answered yet
    """

    def __init__(self, proxy, queue, keep_deleted=False, slow=0.0):
        self.queue, self.keep_deleted, self.slow = queue, keep_deleted, slow
        self._handles, self.under_way = {}, 0
        proxy.on("ReceiveMessage", self._receive).on("DeleteMessageBatch", self._delete)

    def _receive(self, request, forward):
        self.under_way += 1
        try:
            time.sleep(self.slow)
            answer = short_polls(request, forward)
        finally:
            self.under_way -= 1
        if answer.status == 200:
            for message in answer.json.get("Messages", []):
                self._handles[message["MessageId"]] = message["ReceiptHandle"]
        return answer

    def _delete(self, request, forward):
        if not self.keep_deleted:
            return forward()
        done = [{"Id": entry["Id"]} for entry in request.json["Entries"]]
        return Answer(body=json.dumps({"Successful": done, "Failed": []}).encode())

    def come_back(self):
        """All that was handed out and is still in the queue becomes visible."""
        handles = list(self._handles.items())
        for i in range(0, len(handles), 10):
            entries = [{"Id": id, "ReceiptHandle": handle, "VisibilityTimeout": 0} for id, handle in handles[i : i + 10]]
            answer = self.queue.client.change_message_visibility_batch(QueueUrl=self.queue.url, Entries=entries)
            for failed in answer.get("Failed", []):
                self._handles.pop(failed["Id"])  # it is deleted

    def come_back_until_the_queue_is_empty(self, timeout=40):
        """After a crash: what is handed out while nobody is there comes back too."""

        def emptied():
            self.come_back()
            return self.queue.is_empty()

        wait_until(emptied, timeout, lambda: f"queue empty; it has {self.queue.counts()}", 0.5)
