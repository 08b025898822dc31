"""moto's server, one queue action at a time: moto itself lets two receives at once have the same message.

Takes moto_server's arguments. A long poll holds nobody up: it looks, and looks again. Where signatures are verified,
AssumeRoleWithWebIdentity needs none, as on AWS.
"""
import functools
import sys
import threading
import time

from moto.server import main
from moto.sqs.models import SQSBackend
from moto.sts.responses import TokenResponse

LOCK = threading.RLock()
POLL_EVERY = 0.05


def one_at_a_time(action):
    @functools.wraps(action)
    def locked(*args, **kwargs):
        with LOCK:
            return action(*args, **kwargs)

    return locked


receive_at_once = one_at_a_time(SQSBackend.receive_message)


def receive_message(self, queue_name, count, wait_seconds_timeout, visibility_timeout, message_attribute_names=None):
    give_up = time.monotonic() + wait_seconds_timeout
    while True:
        messages = receive_at_once(self, queue_name, count, 0, visibility_timeout, message_attribute_names)
        if messages or time.monotonic() >= give_up:
            return messages
        time.sleep(POLL_EVERY)


for name in ["send_message", "send_message_batch", "delete_message", "delete_message_batch",
             "change_message_visibility", "change_message_visibility_batch", "get_queue_attributes"]:  # fmt: skip
    setattr(SQSBackend, name, one_at_a_time(getattr(SQSBackend, name)))
SQSBackend.receive_message = receive_message

verify_signature = TokenResponse._authenticate_and_authorize_action


def verify_unless_web_identity(self, *args, **kwargs):
    if self._get_action() != "AssumeRoleWithWebIdentity":
        verify_signature(self, *args, **kwargs)


TokenResponse._authenticate_and_authorize_action = verify_unless_web_identity

if __name__ == "__main__":
    main(sys.argv[1:])
