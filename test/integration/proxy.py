"""A proxy in front of an SQS server that can fail, delay and alter answers, action by action.

    def lost(request, forward):            # a hook: gives the answer, or None to drop the connection
        forward()                          # asks the server; request.body may be changed before
        return Answer(503)

    proxy.on("DeleteMessageBatch", lost, times=1)

What was asked is in proxy.requests. Requests are passed on as they came, signature and Host header included.
"""
import hashlib
import http.client
import http.server
import json
import socket
import threading
import time
import urllib.parse
from dataclasses import dataclass, field, replace

import pytest
from pipeline import make_pipeline_fixture  # noqa: F401


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    missing: int = 0  # so many bytes are announced, but never sent

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Request:
    path: str
    headers: dict  # names in lower case
    body: bytes
    at: float  # time.monotonic()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def form(self):
        return dict(urllib.parse.parse_qsl(self.body.decode()))

    @property
    def protocol(self):
        return "json" if "x-amz-target" in self.headers else "query"

    @property
    def action(self):
        return self.headers["x-amz-target"].rpartition(".")[2] if self.protocol == "json" else self.form.get("Action", "")


class Proxy:
    """Listens on 127.0.0.1 from its construction on; close() refuses connections, open() is there again on the same port.

    on(action, hook, times)   the next `times` requests of the action (all, when None) are answered by the hook;
                              hooks of one action wait for their turn in the order they were added
    pass_on(action)           forgets the hooks of an action
    """

    def __init__(self, server):
        self.upstream = server.port
        self.port = 0
        self.requests = []
        self._hooks = []
        self._lock = threading.Lock()
        self._connections = set()
        self.open()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def on(self, action, hook, times=None):
        with self._lock:
            self._hooks.append([action, hook, times])
        return self

    def pass_on(self, action):
        with self._lock:
            self._hooks = [entry for entry in self._hooks if entry[0] != action]

    def asked(self, action=None, since=0.0):
        """The requests so far, of one action and since a time of time.monotonic() where given."""
        with self._lock:
            return [r for r in self.requests if action in (None, r.action) and r.at >= since]

    def open(self):
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the client was faster
            self._connections.clear()

    def _hook_for(self, request):
        with self._lock:
            self.requests.append(request)
            for entry in self._hooks:
                if entry[0] == request.action and entry[2] != 0:
                    if entry[2] is not None:
                        entry[2] -= 1
                    return entry[1]
        return lambda request, forward: forward()

    def _forward(self, request):
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=40)
        try:
            connection.putrequest("POST", request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name not in ("connection", "expect", "content-length"):
                    connection.putheader(name, value)
            connection.putheader("content-length", str(len(request.body)))
            connection.endheaders(request.body)
            got = connection.getresponse()
            headers = {name: value for name, value in got.getheaders()
                       if name.lower() not in ("connection", "transfer-encoding", "content-length", "keep-alive")}  # fmt: skip
            return Answer(got.status, got.read(), headers)
        finally:
            connection.close()

    def _handler(proxy):  # noqa: N805 - the handler's self is another one
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                with proxy._lock:
                    proxy._connections.add(self.connection)

            def finish(self):
                with proxy._lock:
                    proxy._connections.discard(self.connection)
                try:
                    super().finish()
                except OSError:
                    pass

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass  # the client went away, or close() did it

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.path, headers, body, time.monotonic())
                passed_on = replace(request)
                answer = proxy._hook_for(request)(passed_on, lambda: proxy._forward(passed_on))
                self.close_connection = answer is None or answer.missing > 0
                if answer is None:
                    return
                self.send_response_only(answer.status)
                for name, value in {"Content-Type": "application/x-amz-json-1.0", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body) + answer.missing))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_):
                pass

        return Handler


# -- hooks ------------------------------------------------------------------------------------------------------------


def error(code, status=400, message="said by the test", **headers):
    """An error as AWS words it, without asking the server."""
    body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": message}).encode()
    return lambda request, forward: Answer(status, body, {"x-amzn-query-error": f"{code};Sender", **headers})


def answer(status=200, body=b"", **options):
    """Always the same, without asking the server."""
    return lambda request, forward: Answer(status, body, **options)


def altered_messages(change, raw_bytes=False):
    """Passes a receive on and lets change(messages) alter the list of messages in its answer, MD5OfBody made to fit.

    A lone surrogate in a body is written as an escape; with raw_bytes, U+DC80 to U+DCFF are written as the bytes 80 to FF.
    """

    def hook(request, forward):
        answer = forward()
        if answer.status != 200 or not answer.json.get("Messages"):
            return answer
        content = answer.json
        before = {message["ReceiptHandle"]: message["Body"] for message in content["Messages"]}
        change(content["Messages"])
        for message in content["Messages"]:
            if message["Body"] != before.get(message["ReceiptHandle"]):
                errors = "surrogateescape" if raw_bytes else "surrogatepass"
                message["MD5OfBody"] = hashlib.md5(message["Body"].encode("utf-8", errors)).hexdigest()
        answer.body = json.dumps(content, ensure_ascii=not raw_bytes).encode("utf-8", "surrogateescape")
        return answer

    return hook


def short_polls(request, forward):
    """Turns long polls into short ones.

    A server goes on with the long poll of a consumer that has left, and hands it a message, which is then in flight
    for nobody. Tests that stop a pipeline and then send to its queue do not want to wait for that to be over.
    """
    request.body = json.dumps({**request.json, "WaitTimeSeconds": 0}).encode()
    answer = forward()
    if answer.status == 200 and not answer.json.get("Messages"):
        time.sleep(0.1)
    return answer


# -- fixtures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(name="make_proxy")
def make_proxy_fixture():
    """make_proxy(server): a Proxy in front of a Moto."""
    made = []

    def make(server):
        made.append(Proxy(server))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture(name="proxy")
def proxy_fixture(moto, make_proxy):
    """A proxy in front of the shared SQS server."""
    return make_proxy(moto)


@pytest.fixture(name="proxied")
def proxied_fixture(proxy, queue, make_pipeline):
    """The built-in pipeline of a fresh database and a fresh queue, not started; all its requests go through `proxy`."""
    return make_pipeline(queue, {"sqs_ingest.endpoint_url": proxy.endpoint})
