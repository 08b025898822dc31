"""Real servers for the integration tests: throwaway Postgres clusters and SQS servers (moto), and a way to wait.

Everything lives in fresh directories under /tmp and listens on a socket in there or on 127.0.0.1. Only processes
started here are ever signalled. Postgres refuses to run as root, so under root it runs as the user `postgres`, with
an environment that is given in full.
"""
import atexit
import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import boto3
import botocore.config
import psycopg
import psycopg.rows
import psycopg.sql

PG_CONFIG = os.environ.get("PG_CONFIG", "pg_config")
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

# What these tests talk to is on this machine: no proxy in between, and no credentials of the person who runs them.
for _name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[_name]
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1,localhost"]))


# -- waiting ----------------------------------------------------------------------------------------------------------


def wait_until(condition, timeout=30.0, what="the condition", interval=0.1, ignore=()):
    """Calls condition() until it is true and returns what it returned; AssertionError after `timeout` seconds.

    `what` says in words what is waited for, or is a function that says it at the time of the failure. Exceptions of
    the types in `ignore` (psycopg.OperationalError while a server restarts, say) count as "not yet".
    """
    give_up = time.monotonic() + timeout
    while True:
        try:
            last = condition()
            if last:
                return last
        except ignore as error:
            last = error
        if time.monotonic() > give_up:
            said = what() if callable(what) else what
            raise AssertionError(f"after {timeout:g} s still not so: {said}; last seen: {last!r}")
        time.sleep(interval)


# -- Postgres ---------------------------------------------------------------------------------------------------------

_bindir = None


def pg_bin(program):
    global _bindir
    if _bindir is None:
        _bindir = Path(subprocess.check_output([PG_CONFIG, "--bindir"], text=True).strip())
    return str(_bindir / program)


def _server_user():
    """Keyword arguments for subprocess that make the child run as the server's user."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _fresh_directory(prefix):
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")
    return path


def _alive(pid):
    """Whether the process exists and is not a zombie (an orphan's parent may never ask for its exit status)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid, title=""):
    """Pids of the process's children with this in their title, from /proc: no session is needed."""
    found = []
    for child in filter(str.isdigit, os.listdir("/proc")):  # each of them can end while we look
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and title.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def _setting(value):
    if isinstance(value, bool):
        return "on" if value else "off"
    return "'" + str(value).replace("'", "''") + "'"


class Cluster:
    """One throwaway Postgres cluster; its own superuser is `postgres`, over the socket, without a password.

        cluster = Cluster({"sqs_ingest.region": "us-east-1"})
        cluster.start()
        with cluster.connect() as connection: ...
        cluster.destroy()

    settings  a dict; change it with set() and unset(), which take effect at the next reload() or restart()
    env       environment of the postmaster, on top of PATH, HOME, LANG, TZ; takes effect at the next start()
    own_identity  a system identifier of its own, as clusters elsewhere have; takes a second longer
    """

    alive = []  # every cluster not yet destroyed: conftest shows their logs when a test fails
    _template = None

    def __init__(self, settings=None, env=None, preload="sqs_ingest", own_identity=False, _data=None):
        self.directory = _fresh_directory("sqs-ingest.")
        self.data = self.directory / "data"
        self.log_file = self.directory / "log"
        self.env = {**CREDENTIALS, "AWS_EC2_METADATA_DISABLED": "true", **(env or {})}
        self.postmaster = None
        Cluster.alive.append(self)
        if _data:
            _data(self)
        elif own_identity:
            self._initdb(self.data)
        else:
            self._copy_of_template()
        self.settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.directory,
            # Processes are killed here, machines are not: what was written survives, flushed to the disk or not.
            "fsync": False,
            "shared_buffers": "32MB",
            "max_worker_processes": 16,
            "log_line_prefix": "%m [%p] %b %d ",
            "log_checkpoints": False,
            **({"shared_preload_libraries": preload} if preload else {}),
            **(settings or {}),
        }
        self._write_settings()

    # initdb once per run, then copies: every cluster has the same system identifier, and starts in half a second.
    def _copy_of_template(self):
        if Cluster._template is None:
            directory = _fresh_directory("sqs-ingest-template.")
            atexit.register(shutil.rmtree, directory, ignore_errors=True)
            self._initdb(directory / "data")
            Cluster._template = directory / "data"
        subprocess.run(["cp", "-a", Cluster._template, self.data], check=True)

    def _initdb(self, data):
        self._run(["initdb", "--no-sync", "-D", data, "-U", "postgres", "-E", "UTF8",
                   "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=reject"])  # fmt: skip
        (data / "postgresql.conf").open("a").write("include 'test.conf'\n")

    def _environment(self):
        base = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LANG": "C.UTF-8", "TZ": "UTC"}
        return {**base, **{name: value for name, value in self.env.items() if value is not None}}

    def _run(self, command, cwd="/"):
        """Runs one of the server's programs to its end, as the server's user."""
        command = [pg_bin(command[0]), *map(str, command[1:])]
        done = subprocess.run(command, cwd=cwd, env=self._environment(), stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **_server_user())  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")

    def _write_settings(self):
        lines = [f"{name} = {_setting(value)}\n" for name, value in self.settings.items()]
        path = self.data / "test.conf"
        path.write_text("".join(lines))
        if os.geteuid() == 0:
            shutil.chown(path, "postgres", "postgres")

    def standby(self, name="standby", settings=None):
        """A new cluster, not started, that streams from this one (which runs) under the application_name `name`."""

        def base_backup(new):
            source = f"host={self.directory} user=postgres application_name={name}"
            new._run(["pg_basebackup", "-D", new.data, "-d", source, "-R", "-X", "stream", "-c", "fast", "--no-sync"])

        kept = {n: v for n, v in self.settings.items() if n not in ("unix_socket_directories", "synchronous_standby_names")}
        return Cluster({**kept, **(settings or {})}, env=self.env, preload=None, _data=base_backup)

    # -- settings

    def set(self, settings=None, **more):
        """Puts settings into the configuration; names with a dot go into the dict. None: back to the default."""
        for name, value in {**(settings or {}), **more}.items():
            if value is None:
                self.settings.pop(name, None)
            else:
                self.settings[name] = value
        self._write_settings()
        return self

    def unset(self, *names):
        return self.set(dict.fromkeys(names))

    def reload(self, timeout=10):
        """SIGHUP, and waits until new sessions see the new configuration (running processes get to it on their own)."""
        before = self.value("SELECT pg_conf_load_time()")
        self.postmaster.send_signal(signal.SIGHUP)
        wait_until(lambda: self.value("SELECT pg_conf_load_time()") != before, timeout, "configuration reloaded", 0.05)

    # -- running

    @property
    def running(self):
        return self.postmaster is not None and self.postmaster.poll() is None

    def start(self, timeout=60):
        """Starts the server and waits until it accepts connections."""
        assert not self.running, "already running"
        with self.log_file.open("a") as log:
            self.postmaster = subprocess.Popen(
                [pg_bin("postgres"), "-D", str(self.data)], cwd="/", env=self._environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, **_server_user())  # fmt: skip

        def ready():
            if not self.running:
                raise RuntimeError(f"the server did not start; its log ends:\n{self.log_tail(30)}")
            try:
                lines = (self.data / "postmaster.pid").read_text().splitlines()
            except FileNotFoundError:
                return False
            return len(lines) >= 8 and int(lines[0]) == self.postmaster.pid and lines[7].strip() == "ready"

        wait_until(ready, timeout, "server ready for connections", 0.02)
        return self

    def stop(self, mode="fast", timeout=60):
        """Stops the server: "smart", "fast" (the default) or "immediate" (as after a crash: the next start recovers)."""
        if self.running:
            children = children_of(self.postmaster.pid)
            signals = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
            self.postmaster.send_signal(signals[mode])
            self._wait_for_the_end(timeout, f"{mode} stop", children)

    def kill(self, timeout=30):
        """kill -9 of the postmaster alone; waits until all its children have noticed and left by themselves."""
        children = children_of(self.postmaster.pid)
        self.postmaster.kill()
        self._wait_for_the_end(timeout, "kill -9 of the postmaster", children)

    def kill_all(self):
        """kill -9 of the postmaster and every process of the server at once, as a power failure would."""
        os.kill(self.postmaster.pid, signal.SIGSTOP)  # it must not start new ones meanwhile
        children = children_of(self.postmaster.pid)
        for pid in [self.postmaster.pid, *children]:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.kill(pid, signal.SIGKILL)
        self._wait_for_the_end(10, "kill -9 of all", children)

    def _wait_for_the_end(self, timeout, what, children):
        give_up = time.monotonic() + timeout
        try:
            self.postmaster.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{what}: the postmaster still runs after {timeout:g} s; {self._titles(children)}") from None
        wait_until(lambda: not any(map(_alive, children)), max(1.0, give_up - time.monotonic()),
                   lambda: f"{what}: children gone; {self._titles(children)}", 0.02)  # fmt: skip

    @staticmethod
    def _titles(pids):
        titles = []
        for pid in filter(_alive, pids):
            try:
                titles.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
            except (FileNotFoundError, ProcessLookupError):
                pass
        return f"processes left: {titles}"

    def restart(self, mode="fast"):
        self.stop(mode)
        return self.start()

    def upgrade_to(self, new):
        """pg_upgrade of this cluster, which is stopped, to a new one with an identity of its own, which has never run."""
        self.stop()
        new._run(["pg_upgrade", "-b", pg_bin(""), "-B", pg_bin(""), "-d", self.data, "-D", new.data, "-U", "postgres",
                  "-s", new.directory], cwd=new.directory)  # fmt: skip

    def promote(self):
        self._run(["pg_ctl", "promote", "-w", "-D", self.data])

    def ensure_running(self):
        return self if self.running else self.start()

    def destroy(self):
        """Ends the server, kindly at first, and removes its directory."""
        try:
            if self.running:
                try:
                    self.stop("fast", 30)
                except AssertionError:
                    self.kill_all()
        finally:
            if self in Cluster.alive:
                Cluster.alive.remove(self)
            shutil.rmtree(self.directory, ignore_errors=True)

    def signal(self, pid, number):
        """Sends a signal to one of this server's processes: signal(pid, signal.SIGKILL) crashes a backend."""
        assert pid == self.postmaster.pid or pid in children_of(self.postmaster.pid), f"{pid} is no process of this server"
        os.kill(pid, number)

    # -- SQL

    def dsn(self, dbname="postgres", user="postgres"):
        return f"host={self.directory} dbname={dbname} user={user}"

    def connect(self, dbname="postgres", user="postgres", **options):
        """A psycopg connection, autocommit unless said otherwise. No statement of a test runs longer than 60 s."""
        options = {"autocommit": True, "connect_timeout": 10, "options": "-c statement_timeout=60s", **options}
        return psycopg.connect(self.dsn(dbname, user), **options)

    def sql(self, query, parameters=None, dbname="postgres", user="postgres"):
        """The rows (tuples) of a statement, in a session of its own; [] for a statement without result."""
        with self.connect(dbname, user) as connection:
            return rows(connection, query, parameters)

    def value(self, query, parameters=None, dbname="postgres"):
        return self.sql(query, parameters, dbname)[0][0]

    def client(self, program, *arguments, dbname="postgres"):
        """Runs one of Postgres' client programs on a database, to its end: a CompletedProcess with its output as text."""
        env = {**self._environment(), "PGHOST": str(self.directory), "PGUSER": "postgres", "PGDATABASE": dbname}
        return subprocess.run([pg_bin(program), *map(str, arguments)], cwd="/", env=env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120)  # fmt: skip

    def create_database(self, name=None, **options):
        """A fresh database: create_database() or create_database("name", template="template0", owner="someone")."""
        name = name or unique("db")
        sql = psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name))
        for option, value in options.items():
            sql += psycopg.sql.SQL(" " + option.upper() + " {}").format(psycopg.sql.Identifier(value))
        with self.connect() as connection:
            connection.execute(sql)
        return name

    def drop_database(self, name):
        with self.connect() as connection:
            connection.execute(psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(psycopg.sql.Identifier(name)))

    def activity(self):
        """pg_stat_activity as a list of dicts."""
        with self.connect(row_factory=psycopg.rows.dict_row) as connection:
            return connection.execute("SELECT * FROM pg_stat_activity").fetchall()

    def pids(self, backend_type, dbname=None):
        """Pids of the processes whose backend_type is, or begins with, the given text."""
        return [row["pid"] for row in self.activity()
                if (row["backend_type"] or "").startswith(backend_type) and dbname in (None, row["datname"])]  # fmt: skip

    # -- the log

    def log_position(self):
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def log(self, since=0):
        """The server's log, from a position that log_position() gave."""
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")

    def log_tail(self, lines=60):
        return "\n".join(self.log().splitlines()[-lines:])

    def wait_for_log(self, pattern, since=0, timeout=30):
        """Waits until the log has a match for the regular expression, and returns the match."""
        return wait_until(lambda: re.search(pattern, self.log(since)), timeout, f"log line matching {pattern!r}")


def rows(connection, query, parameters=None):
    cursor = connection.execute(query, parameters)
    return cursor.fetchall() if cursor.description else []


class Database:
    """A database of a cluster with one open session; sql(), one() and value() run in it, connect() opens another.

    The session is opened anew after the server was started anew. When the server itself ends all sessions (a crashed
    backend), the first use afterwards raises psycopg.OperationalError, the next opens a new one.
    """

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self._connection = self._postmaster = None

    @property
    def connection(self):
        if self._connection is None or self._connection.closed or self._postmaster is not self.cluster.postmaster:
            self.close()
            self._connection, self._postmaster = self.cluster.connect(self.name), self.cluster.postmaster
        return self._connection

    def connect(self, user="postgres", **options):
        return self.cluster.connect(self.name, user, **options)

    def sql(self, query, parameters=None):
        return rows(self.connection, query, parameters)

    def one(self, query, parameters=None):
        found = self.sql(query, parameters)
        assert len(found) == 1, f"expected one row, got {len(found)}: {found[:5]!r}"
        return found[0]

    def value(self, query, parameters=None):
        return self.one(query, parameters)[0]

    def close(self):
        """Ends the session, and returns when the server has ended it too: DROP DATABASE finds nobody of ours."""
        if self._connection is None or self._connection.closed:
            return
        pid = self._connection.info.backend_pid
        self._connection.close()
        wait_until(lambda: pid not in children_of(self._postmaster.pid), 20, f"backend {pid} has ended", interval=0.005)


# -- SQS --------------------------------------------------------------------------------------------------------------


class SqsServer:
    """An SQS server on a port of its own.

    endpoint, access_key, secret_key   what a client needs; env() is the same for a Cluster's environment
    pause(), resume()                  SIGSTOP and SIGCONT: connections are accepted and nothing answers
    stop(), start()                    as an outage on the same port; what is in the queues is lost

    A kind of server says command(), and what its log says (LISTENING: a pattern with the port) when it listens.
    """

    alive = []
    LISTENING = None

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix=f"sqs-ingest-{type(self).__name__.lower()}.", dir="/tmp"))
        self.port = 0
        self.process = None
        self.access_key, self.secret_key = CREDENTIALS.values()
        SqsServer.alive.append(self)
        self.start()

    def command(self):
        """What to run, on self.port (0: any), and what to add to its environment."""
        raise NotImplementedError

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self, timeout=60):
        log_path = self.directory / "log"
        command, more = self.command()
        env = {"PATH": os.environ["PATH"], "HOME": str(self.directory), **more}
        with log_path.open("w") as log:
            self.process = subprocess.Popen([*map(str, command)], cwd="/", env=env, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)  # fmt: skip

        def listening():
            if self.process.poll() is not None:
                raise RuntimeError(f"the SQS server did not start:\n{log_path.read_text()}")
            return re.search(self.LISTENING, log_path.read_text())

        self.port = int(wait_until(listening, timeout, "SQS server listening", 0.05)[1])
        return self

    def env(self):
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def client(self, service="sqs", **options):
        config = botocore.config.Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=30)
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        return boto3.client(service, **{"endpoint_url": self.endpoint, "region_name": REGION, "config": config, **keys, **options})

    def queue(self, name=None, **attributes):
        """A new Queue: queue(), queue(VisibilityTimeout=5), queue(FifoQueue=True) (its name ends in .fifo)."""
        name = name or unique("queue") + (".fifo" if attributes.get("FifoQueue") else "")
        return Queue(self, name, attributes)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def destroy(self):
        self.stop()
        if self in SqsServer.alive:
            SqsServer.alive.remove(self)
        shutil.rmtree(self.directory, ignore_errors=True)


class Moto(SqsServer):
    """A moto server. With verify_signatures=True it checks every request's SigV4 signature."""

    LISTENING = r"Running on http://127\.0\.0\.1:(\d+)"

    def __init__(self, verify_signatures=False):
        self.verify_signatures = verify_signatures
        super().__init__()

    def command(self):
        env = {"PYTHONUNBUFFERED": "1"}
        if self.verify_signatures:
            env["INITIAL_NO_AUTH_ACTION_COUNT"] = "3"  # those of _make_user
        return [sys.executable, Path(__file__).with_name("moto_server.py"), "-H", "127.0.0.1", "-p", self.port], env

    def start(self, timeout=60):
        super().start(timeout)
        if self.verify_signatures:
            self._make_user()
        return self

    def _make_user(self):
        self.access_key, self.secret_key = CREDENTIALS.values()
        iam = self.client("iam")
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        iam.create_user(UserName="ingest")
        iam.put_user_policy(UserName="ingest", PolicyName="everything", PolicyDocument=policy)
        key = iam.create_access_key(UserName="ingest")["AccessKey"]
        self.access_key, self.secret_key = key["AccessKeyId"], key["SecretAccessKey"]


class Queue:
    """A queue on a server, made on construction. `url` and `endpoint` are what the settings want."""

    def __init__(self, server, name, attributes=None):
        self.server, self.name = server, name
        self.client = server.client()
        values = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in (attributes or {}).items()}
        self.url = self.client.create_queue(QueueName=name, Attributes=values)["QueueUrl"]

    @property
    def endpoint(self):
        return self.server.endpoint

    @property
    def settings(self):
        """For Cluster(...) and Cluster.set(): ingest this queue."""
        return {"sqs_ingest.queue_url": self.url, "sqs_ingest.endpoint_url": self.endpoint, "sqs_ingest.region": REGION}

    def send(self, bodies, **entry):
        """Sends bodies (text as it stands, anything else as JSON); returns their message ids in order.

        More keys of SendMessageBatch's entries can be given, such as MessageGroupId or DelaySeconds; a function is
        called with the body's position.
        """
        bodies = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
        ids = []
        for start in range(0, len(bodies), 10):
            entries = []
            for i, body in enumerate(bodies[start : start + 10]):
                extra = {key: value(start + i) if callable(value) else value for key, value in entry.items()}
                entries.append({"Id": str(i), "MessageBody": body, **extra})
            answer = self.client.send_message_batch(QueueUrl=self.url, Entries=entries)
            assert not answer.get("Failed"), answer["Failed"]
            found = {result["Id"]: result["MessageId"] for result in answer["Successful"]}
            ids += [found[str(i)] for i in range(len(entries))]
        return ids

    def counts(self):
        """How many messages are visible, and how many in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.attributes(*names)
        return int(found[names[0]]), int(found[names[1]])

    def is_empty(self):
        return self.counts() == (0, 0)

    def attributes(self, *names):
        return self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(names) or ["All"])["Attributes"]

    def set_attributes(self, **attributes):
        self.client.set_queue_attributes(QueueUrl=self.url, Attributes={k: str(v) for k, v in attributes.items()})

    def receive(self, count=10, **options):
        """What another consumer would get: a list of messages as boto3 gives them."""
        options = {"MaxNumberOfMessages": count, "AttributeNames": ["All"], **options}
        return self.client.receive_message(QueueUrl=self.url, **options).get("Messages", [])

    def delete(self):
        self.client.delete_queue(QueueUrl=self.url)


# -- test data --------------------------------------------------------------------------------------------------------


def unique(prefix):
    return f"{prefix}_{uuid.uuid4().hex[:12]}"


def login_message(i=0, **changes):
    """The i-th login message, as a dict: every i has its own user, ip and device. A change to ... removes the key."""
    message = {
        "user_id": str(uuid.UUID(int=i, version=4)),
        "app_version": f"2.3.{i % 10}",
        "device_type": "android" if i % 2 == 0 else "ios",
        "ip": f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}",
        "locale": None if i % 7 == 3 else "RU",
        "device_id": f"{i // 1000000 % 1000:03}-{i // 10000 % 100:02}-{i % 10000:04}",
        **changes,
    }
    return {key: value for key, value in message.items() if value is not ...}


def login_messages(count, start=0):
    return [login_message(i) for i in range(start, start + count)]


# Should pytest end in a way that skips its fixtures, nothing is left running.
@atexit.register
def _destroy_everything():
    for server in [*Cluster.alive, *SqsServer.alive]:
        server.destroy()
