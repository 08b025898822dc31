"""Small servers for what moto does not have: instance metadata, a container credentials endpoint, an HTTP CONNECT proxy,
HTTPS. They check what they are asked with; the credentials that they hand out are role sessions that moto knows.
"""
import base64
import contextlib
import datetime
import http.client
import http.server
import json
import socket
import ssl
import subprocess
import threading

from harness import unique

EVERYTHING = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
ROLE_SECONDS = 6 * 3600


def make_role(server):
    """A role of a Moto that may do everything; its ARN."""
    iam, name = server.client("iam"), unique("role")
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=EVERYTHING)["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="everything", PolicyDocument=EVERYTHING)
    return arn


class Sessions:
    """Fresh sessions of a role; `lasts` is what their Expiration says, in seconds."""

    def __init__(self, server, lasts=ROLE_SECONDS):
        self.server, self.role, self.lasts = server, make_role(server), lasts
        self.issued = []  # access key ids

    def issue(self):
        session = self.server.client("sts").assume_role(RoleArn=self.role, RoleSessionName="test")["Credentials"]
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self.lasts)
        self.issued.append(session["AccessKeyId"])
        return {"AccessKeyId": session["AccessKeyId"], "SecretAccessKey": session["SecretAccessKey"],
                "Token": session["SessionToken"], "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ")}  # fmt: skip


class Server:
    """An HTTP server on 127.0.0.1 for as long as the with block lasts; subclasses say what answer(method, path, headers) is."""

    hangs = False  # connections are accepted, and nothing answers

    def __enter__(self):
        outer = self
        self.requests = []  # (method, path)
        self._end = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def respond(self):
                length = int(self.headers.get("Content-Length") or 0)
                self.body = self.rfile.read(length)
                outer.requests.append((self.command, self.path))
                if outer.hangs:
                    outer._end.wait(120)
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, text = outer.answer(self.command, self.path, headers, self.body)
                body = text if isinstance(text, bytes) else text.encode()
                with contextlib.suppress(OSError):  # the client went away
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = respond

            def do_CONNECT(self):
                outer.connect(self)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.port = self._server.server_port
        self.wrap(self._server)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._server.shutdown()
        self._server.server_close()

    def wrap(self, server):
        pass

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"


class InstanceMetadata(Server):
    """EC2's service, version 2 only."""

    def __init__(self, sessions, region=None):
        self.sessions, self.region = sessions, region

    def env(self):
        return {"AWS_EC2_METADATA_DISABLED": None, "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.endpoint}

    def answer(self, method, path, headers, _body):
        if (method, path) == ("PUT", "/latest/api/token"):
            return (200, "a-token") if headers.get("x-aws-ec2-metadata-token-ttl-seconds") else (400, "")
        if headers.get("x-aws-ec2-metadata-token") != "a-token":
            return 401, ""
        if path == "/latest/meta-data/iam/security-credentials/":
            return 200, "the-role"
        if path == "/latest/meta-data/iam/security-credentials/the-role":
            return 200, json.dumps({"Code": "Success", "Type": "AWS-HMAC", **self.sessions.issue()})
        if path == "/latest/meta-data/placement/region" and self.region:
            return 200, self.region
        return 404, ""


class ContainerEndpoint(Server):
    """EKS Pod Identity's agent: it wants the token that `token()` returns."""

    def __init__(self, sessions, token):
        self.sessions, self.token = sessions, token

    def answer(self, method, path, headers, _body):
        if headers.get("authorization") != self.token():
            return 401, "not this token"
        return (200, json.dumps(self.sessions.issue())) if (method, path) == ("GET", "/v1/credentials") else (404, "")


class ConnectProxy(Server):
    """An HTTP proxy with a password that knows only CONNECT, and leads every name to 127.0.0.1."""

    USER, PASSWORD = "someone", "pr0xy-s3cret"

    def __init__(self):
        self.connected = []  # "host:port"

    @property
    def url(self):
        return f"http://{self.USER}:{self.PASSWORD}@127.0.0.1:{self.port}"

    def answer(self, *_):
        return 405, ""

    def connect(self, handler):
        wanted = "Basic " + base64.b64encode(f"{self.USER}:{self.PASSWORD}".encode()).decode()
        if handler.headers.get("Proxy-Authorization") != wanted:
            handler.send_error(407)
            return
        self.connected.append(handler.path)
        with socket.create_connection(("127.0.0.1", int(handler.path.rpartition(":")[2]))) as upstream:
            handler.send_response(200)
            handler.end_headers()
            there = threading.Thread(target=_copy, args=(handler.connection, upstream), daemon=True)
            there.start()
            _copy(upstream, handler.connection)
            there.join()
        handler.close_connection = True


def _copy(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Https(Server):
    """HTTPS in front of a Moto, for the host names given, with a certificate of a CA of its own (`ca_file`)."""

    def __init__(self, upstream, directory, names=("localhost",)):
        self.upstream, self.directory, self.names = upstream, directory, names
        self.ca_file = directory / "ca.pem"

    def wrap(self, server):
        self._make_certificates()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.pem", self.directory / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)

    def _make_certificates(self):
        def openssl(*arguments):
            subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=self.directory)

        extensions = self.directory / "extensions"
        extensions.write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in self.names))
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=a test CA",
                "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=a test server", "-keyout", "server.key",
                "-out", "server.csr")  # fmt: skip
        openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", extensions, "-out", "server.pem")  # fmt: skip

    def answer(self, method, path, headers, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream.port, timeout=40)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


