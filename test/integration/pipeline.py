"""A pipeline under test: a database with the extension, and the queue that it ingests.

Test modules import the fixtures by name:

    from pipeline import make_pipeline_fixture, pipeline_fixture  # noqa: F401

    def test_something(pipeline):
        pipeline.queue.send(login_messages(3))
        pipeline.start()
        pipeline.wait_for(deleted=3)
"""
import json
import threading

import botocore.config
import botocore.exceptions
import psycopg.rows
import pytest
from harness import REGION, Database, unique, wait_until

COUNTERS = ("received", "inserted", "duplicates", "dead_letters", "released", "in_hand", "deleted")

USER_LOGINS = """CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
    masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)"""


class Pipeline:
    """The pipeline `name` of a database (the built-in one unless said otherwise), fed by `queue`.

    configure()   points the cluster's settings at the queue; more settings can be given
    start(), stop()
    stat()        its row of pg_stat_sqs_ingest, as a dict
    wait_for()    waits until the columns of that row are as given
    """

    def __init__(self, db, queue=None, name="user_logins"):
        self.db, self.queue, self.name = db, queue, name

    @property
    def cluster(self):
        return self.db.cluster

    def configure(self, settings=None):
        self.cluster.set({**(self.queue.settings if self.queue else {}), **(settings or {})}).reload()
        return self

    def start(self):
        return self.db.value("SELECT sqs_ingest_start(%s)", [self.name])

    def stop(self):
        return self.db.value("SELECT sqs_ingest_stop(%s)", [self.name])

    def stat(self):
        with self.db.connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute("SELECT * FROM pg_stat_sqs_ingest WHERE pipeline = %s", [self.name]).fetchone()

    def wait_for(self, timeout=30, **columns):
        """Waits until pg_stat_sqs_ingest shows these values, and returns its row; a function is asked about the value.

            wait_for(deleted=100)
            wait_for(state="backing_off", receive_errors=lambda n: n > 2)
        """
        seen = {}

        def reached():
            seen.update(self.stat() or {})
            return all(want(seen.get(name)) if callable(want) else seen.get(name) == want for name, want in columns.items())

        wait_until(reached, timeout, lambda: f"{columns}; the pipeline: {seen}", 0.05)
        return seen

    def wait_until_done(self, messages, timeout=30):
        """Waits until so many deliveries were received, and all of them are deleted from the queue."""
        return self.wait_for(timeout, received=messages, deleted=messages, in_hand=0)

    def wait_until_ingested(self, messages, timeout=30):
        """Waits until so many messages are rows or dead letters, and everything received is deleted; returns the row.

        Deliveries can be more: a server that is asked by several connections at once may hand a message out twice.
        """
        seen = {}

        def done():
            seen.update(self.stat() or {})
            return (seen and seen["inserted"] + seen["dead_letters"] == messages and seen["in_hand"] == 0
                    and seen["deleted"] == seen["received"] - seen["released"])  # fmt: skip

        wait_until(done, timeout, lambda: f"{messages} messages ingested and deleted; the pipeline: {seen}", 0.05)
        return seen

    def counters(self):
        row = self.stat()
        return {name: row[name] for name in COUNTERS}

    def rows(self, columns="*", table="user_logins"):
        """The ingested rows, as a list of dicts ordered by user_id."""
        with self.db.connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute(f"SELECT {columns} FROM {table} ORDER BY user_id").fetchall()

    def drain(self, max_messages=None):
        """Ingests in the open session until the queue is empty."""
        self.db.sql("CALL sqs_ingest_drain(%s, %s)", [self.name, max_messages])

    def preview(self, body, **arguments):
        """sqs_ingest_preview() of a body, text as it stands, anything else as JSON."""
        names = "".join(f", {name} => %s" for name in arguments)
        body = body if isinstance(body, str) else json.dumps(body)
        return self.db.value(f"SELECT sqs_ingest_preview(%s, %s{names})", [self.name, body, *arguments.values()])

    def alter(self, **options):
        """sqs_ingest_alter_pipeline() with these options."""
        self.db.sql(*call_of("sqs_ingest_alter_pipeline", {"name": self.name, **options}))
        return self

    def dead_letters(self):
        """The dead letters, as a list of dicts in the order they were made."""
        with self.db.connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute("SELECT * FROM sqs_ingest_dead_letter WHERE pipeline = %s ORDER BY id", [self.name]).fetchall()


def user_ids(pipeline):
    return [row["user_id"] for row in pipeline.rows("user_id")]


def users_of(messages):
    return sorted(message["user_id"] for message in messages)


def prepare(pipeline, user="postgres"):
    """Has start() make the pipeline, its table and the keyring; it is not enabled afterwards, no worker ever ran."""
    with pipeline.db.connect(user, autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        session.execute("SELECT sqs_ingest_stop()")
        session.commit()
    return pipeline


def assert_counters_add_up(stat):
    """Every delivery received went one way, and whatever was committed was deleted."""
    went = [stat[name] for name in ("inserted", "duplicates", "dead_letters", "released", "in_hand")]
    assert stat["received"] == sum(went), stat
    assert stat["deleted"] == stat["received"] - stat["released"] - stat["in_hand"], stat


def make_owner(pipeline):
    """An ordinary role with the rights that docs/security.md names: to start and stop pipelines, and to make the table."""
    role, db = unique("owner"), pipeline.db
    db.sql(f"CREATE ROLE {role} LOGIN")
    db.sql(f"GRANT CREATE ON SCHEMA public TO {role}")
    db.sql(f"GRANT EXECUTE ON FUNCTION sqs_ingest_start(text), sqs_ingest_stop(text) TO {role}")
    if not (pipeline.cluster.data / "sqs_ingest.keyring").exists():
        db.sql("SELECT sqs_ingest_create_keyring()")
    return role


def call_of(function, arguments):
    """SELECT function(name => value, ...), with its parameters; mappings can be given as Python lists."""
    values = {name: json.dumps(value) if name == "columns" and value is not None and not isinstance(value, str) else value
              for name, value in arguments.items()}  # fmt: skip
    return f"SELECT {function}({', '.join(f'{name} => %s' for name in values)})", list(values.values())


def create_pipeline(db, queue, target, columns=None, name="events", user=None, **options):
    """Makes a pipeline with sqs_ingest_create_pipeline(), in a session of `user` if one is named; not started.

    It polls briefly, so that a drain does not wait long for the last message.
    """
    given = {"name": name, "queue_url": queue.url, "target": target, "columns": columns, "endpoint_url": queue.endpoint,
             "region": REGION, "wait_time": 1, **options}  # fmt: skip
    statement, parameters = call_of("sqs_ingest_create_pipeline", given)
    if not (db.cluster.data / "sqs_ingest.keyring").exists():
        db.sql("SELECT sqs_ingest_create_keyring()")
    if user:
        with db.connect(user) as session:
            session.execute(statement, parameters)
    else:
        db.sql(statement, parameters)
    return Pipeline(db, queue, name)


def start_beside(pipeline, db, queue):
    """Starts a pipeline like the given one in another database, on a queue that it names itself; no setting changes."""
    columns, method = pipeline.db.one("SELECT columns::text, mask_method FROM sqs_ingest_pipeline WHERE name = %s", [pipeline.name])
    db.sql("CREATE EXTENSION sqs_ingest")
    db.sql("""CREATE TABLE user_logins (user_id text, device_type text, masked_ip text, masked_device_id text, locale text,
                                        app_version integer, create_date date)""")  # fmt: skip
    db.sql("INSERT INTO sqs_ingest_pipeline VALUES (%s, 'postgres', %s, 'public.user_logins', %s, %s)",
           [pipeline.name, queue.url, columns, method])  # fmt: skip
    started = Pipeline(db, queue, pipeline.name)
    started.start()
    started.wait_for(state="idle")
    return started


def stop_soon(pipeline):
    """stop() waits a while for the long poll under way to end; a message ends it at once."""

    def end_the_long_poll():
        config = botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=2)
        try:
            client = pipeline.queue.server.client(config=config)
            client.send_message(QueueUrl=pipeline.queue.url, MessageBody="the test is over")
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
            pass  # the test took the queue or its server away

    timer = threading.Timer(0.05, end_the_long_poll)
    if pipeline.queue:
        timer.start()
    pipeline.stop()
    if pipeline.queue:
        timer.join()


@pytest.fixture(name="other_db")
def other_db_fixture(cluster):
    """A second fresh database of the module's cluster; a test takes it before its pipelines."""
    database = Database(cluster, cluster.ensure_running().create_database())
    yield database
    database.close()
    cluster.ensure_running().drop_database(database.name)


@pytest.fixture(name="make_pipeline")
def make_pipeline_fixture(db):
    """make_pipeline(queue, settings, database): installs the extension and configures the cluster; not started.

    The pipelines are stopped at the end and the cluster's settings put back, so that the next test finds neither.
    """
    cluster, made = db.cluster, []
    settings_before = dict(cluster.settings)

    def make(queue=None, settings=None, database=db):
        database.sql("CREATE EXTENSION IF NOT EXISTS sqs_ingest")
        made.append(Pipeline(database, queue))
        return made[-1].configure(settings)

    yield make
    cluster.ensure_running()
    for pipeline in made:
        pipeline.db.close()
        stop_soon(pipeline)
    cluster.set(dict.fromkeys(cluster.settings)).set(settings_before).reload()


@pytest.fixture(name="pipeline")
def pipeline_fixture(queue, make_pipeline):
    """The built-in pipeline of a fresh database, configured to ingest a fresh queue, not started."""
    return make_pipeline(queue)


@pytest.fixture(name="running")
def running_fixture(pipeline):
    """The module's pipeline, started, and idle."""
    pipeline.start()
    pipeline.wait_for(state="idle")
    return pipeline
