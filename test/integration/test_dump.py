"""Dumps of a database that ingests, and the copies that are made of them: all that belongs to the extension is there,
and nothing runs in a copy until somebody starts it."""
import re
import shutil
import threading

import psycopg
import pytest
from harness import Cluster, Database, login_message, login_messages, unique, wait_until
from pipeline import Pipeline, start_beside
from proxy import Proxy, make_pipeline_fixture, make_proxy_fixture, proxied_fixture, proxy_fixture  # noqa: F401
from redelivery import Handouts

ROGUE = {"foo": "oops_wrong_msg_type", "bar": "123"}
TABLES = ["user_logins", "sqs_ingest_pipeline", "sqs_ingest_ledger", "sqs_ingest_dead_letter", "sqs_ingest_key",
          "sqs_ingest_unmask_audit"]  # fmt: skip
SEQUENCES = ["sqs_ingest_dead_letter_id_seq", "sqs_ingest_unmask_audit_id_seq"]

ACL = """
    SELECT c.oid::regclass::text, a.grantee::regrole::text, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
     WHERE c.relname ~ 'sqs_ingest|user_logins'
    UNION ALL
    SELECT p.oid::regprocedure::text, a.grantee::regrole::text, a.privilege_type FROM pg_proc p, aclexplode(p.proacl) a
     WHERE p.proname ~ 'sqs_ingest|mask' ORDER BY 1, 2, 3"""


def contents(db):
    """Every row of the extension's tables and of the target, the sequences, and who may do what."""
    found = {table: [row for (row,) in db.sql(f"SELECT t::text FROM {table} t ORDER BY 1")] for table in TABLES}
    found |= {sequence: db.one(f"SELECT last_value, is_called FROM {sequence}") for sequence in SEQUENCES}
    return {**found, "rights": db.sql(ACL)}


def start_as(role, db):
    with db.connect(role) as session:
        return session.execute("SELECT sqs_ingest_start()").fetchone()[0]


def give_keyring(source, target):
    shutil.copy2(source.data / "sqs_ingest.keyring", target.data)
    server = (target.data / "postgresql.conf").stat()
    shutil.chown(target.data / "sqs_ingest.keyring", server.st_uid, server.st_gid)


def make_owner(db):
    """An ordinary role that may run the pipeline of the database."""
    role = unique("owner")
    if not (db.cluster.data / "sqs_ingest.keyring").exists():
        db.sql("SELECT sqs_ingest_create_keyring()")
    db.sql(f"CREATE ROLE {role} LOGIN")
    db.sql(f"GRANT CREATE ON SCHEMA public TO {role}")
    db.sql(f"GRANT EXECUTE ON FUNCTION sqs_ingest_start(text), sqs_ingest_stop(text) TO {role}")
    return role


class Original:
    """A pipeline that runs as an ordinary role, with some of everything in its tables; and one of another role."""

    def __init__(self, cluster, queue, other_queue):
        self.db = Database(cluster, cluster.create_database("original"))
        self.pipeline = Pipeline(self.db, queue).configure()
        self.db.sql("CREATE EXTENSION sqs_ingest")
        self.owner, self.other_owner = make_owner(self.db), unique("other")
        queue.send([*login_messages(20), ROGUE, "no JSON", login_message(900, user_id=...)])
        start_as(self.owner, self.db)
        self.pipeline.wait_until_ingested(23)
        for _ in range(2):
            self.db.sql("SELECT unmask(mask('593-47-5928', 'siv'), 'the test asks')")
        self.db.sql(f"CREATE ROLE {self.other_owner}")
        self.db.sql(
            """INSERT INTO sqs_ingest_pipeline
               SELECT 'other', %s::text::regrole, %s, target, columns, mask_method, 2, '1 year' FROM sqs_ingest_pipeline""", [self.other_owner, other_queue.url])  # fmt: skip
        self.db.sql(
            """INSERT INTO sqs_ingest_dead_letter (pipeline, message_id, sent_at, receive_count, reason, redacted, sealed)
               VALUES ('other', 'm', now(), 1, 'not_json', '{}', '\\x00')""")  # fmt: skip


@pytest.fixture(scope="module")
def original(moto):
    cluster = Cluster().start()
    try:
        original = Original(cluster, moto.queue(), moto.queue())
        yield original
        original.db.close()
    finally:
        cluster.destroy()


@pytest.fixture(scope="module")
def elsewhere(original):
    """Another cluster, configured to ingest the same queue, through a proxy that sees whether it does."""
    proxy = Proxy(original.pipeline.queue.server)
    cluster = Cluster({**original.pipeline.queue.settings, "sqs_ingest.endpoint_url": proxy.endpoint}, own_identity=True)
    try:
        give_keyring(original.db.cluster, cluster)
        cluster.proxy = proxy
        yield cluster.start()
    finally:
        cluster.destroy()
        proxy.close()


@pytest.fixture
def copy(original):
    """An empty database beside the original."""
    database = Database(original.db.cluster, original.db.cluster.create_database())
    yield database
    database.close()
    database.cluster.drop_database(database.name)


# -- dump and restore -------------------------------------------------------------------------------------------------


def done(process):
    """The output of a program that ended well and had nothing to complain about."""
    assert process.returncode == 0 and process.stderr == "", f"{process.args}: {process.returncode}\n{process.stderr}"
    return process.stdout


def run_script(cluster, path, dbname="postgres"):
    return cluster.client("psql", "-X", "-q", "-v", "ON_ERROR_STOP=0", "-f", path, dbname=dbname)


def plain(source, target):
    path = target.cluster.directory / "dump.sql"
    done(source.cluster.client("pg_dump", "-f", path, dbname=source.name))
    done(run_script(target.cluster, path, target.name))


def archive(source, target, *options, dump=("-Fc",)):
    path = target.cluster.directory / unique("dump")
    done(source.cluster.client("pg_dump", *dump, "-f", path, dbname=source.name))
    done(target.cluster.client("pg_restore", "-d", target.name, *options, path))


def onto_an_older_copy(source, target):
    plain(source, target)
    target.sql("DELETE FROM user_logins")
    target.sql("INSERT INTO sqs_ingest_ledger VALUES ('user_logins', now(), 'newer than the dump')")
    target.close()
    archive(source, target, "--clean", "--if-exists")


WAYS = {
    "pg_dump, psql": plain,
    "pg_dump -Fc, pg_restore": archive,
    "pg_dump -Fc, pg_restore -j2": lambda source, target: archive(source, target, "-j2"),
    "pg_dump -Fd -j2, pg_restore -j2": lambda source, target: archive(source, target, "-j2", dump=("-Fd", "-j2")),
    "pg_dump -Fc, pg_restore --clean --if-exists": onto_an_older_copy,
}


def has_label(db):
    """The security label of a database says what is enabled in it."""
    return db.value(
        """SELECT count(*) > 0 FROM pg_shseclabel WHERE provider = 'sqs_ingest' AND classoid = 'pg_database'::regclass
              AND objoid = (SELECT oid FROM pg_database WHERE datname = current_database())""")  # fmt: skip


def assert_launcher_starts_nothing_in(copy, original, moto):
    """The launcher looks at all databases once more: it starts a pipeline that is newly enabled, and none in the copy."""
    cluster = copy.cluster
    canary = Database(cluster, cluster.create_database())
    start_beside(original.pipeline, canary, moto.queue())
    assert cluster.pids("sqs_ingest worker", copy.name) == []
    canary.close()
    cluster.drop_database(canary.name)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_copy_beside_the_original_holds_everything_and_runs_nothing(original, copy, moto, way):
    expected, since = contents(original.db), copy.cluster.log_position()
    way(original.db, copy)
    assert not re.search("ERROR|WARNING|FATAL", copy.cluster.log(since))
    assert contents(copy) == expected
    assert not has_label(copy)
    if way is plain:  # the others are made of the same statements
        assert_launcher_starts_nothing_in(copy, original, moto)
    assert dict(copy.sql("SELECT pipeline, state FROM pg_stat_sqs_ingest")) == {"other": "stopped", "user_logins": "stopped"}
    assert copy.value("SELECT sqs_ingest_status()")["user_logins"]["state"] == "stopped"
    assert original.pipeline.stat()["state"] == "idle"


@pytest.fixture(scope="module")
def everything(original, elsewhere):
    """The original in another cluster, by way of pg_dumpall."""
    path = elsewhere.directory / "everything.sql"
    path.write_text(done(original.db.cluster.client("pg_dumpall")))
    said = run_script(elsewhere, path)
    # The one role that every cluster has, as always with pg_dumpall.
    assert re.fullmatch(r'psql:\S+: ERROR:  role "postgres" already exists\n', said.stderr), said.stderr
    database = Database(elsewhere, original.db.name)
    yield database
    database.close()


def asked_of(queue, proxy):
    return [request for request in proxy.asked() if request.json.get("QueueUrl") == queue.url]


@pytest.mark.parametrize("way", ["pg_dumpall", "pg_restore --create --clean"])
def test_copy_in_another_cluster_holds_everything_and_runs_nothing(original, everything, elsewhere, moto, way):
    """Although the label that enables the original came along, and the queue is configured there too."""
    if way != "pg_dumpall":
        path = elsewhere.directory / "one.dump"
        done(original.db.cluster.client("pg_dump", "-Fc", "-f", path, dbname=original.db.name))
        everything.close()
        done(elsewhere.client("pg_restore", "-C", "--clean", "--if-exists", "-d", "postgres", path))
    assert contents(everything) == contents(original.db)
    assert has_label(everything)
    assert_launcher_starts_nothing_in(everything, original, moto)
    everything.close()
    elsewhere.restart()
    assert_launcher_starts_nothing_in(everything, original, moto)
    assert everything.value("SELECT state FROM pg_stat_sqs_ingest WHERE pipeline = 'user_logins'") == "stopped"
    assert asked_of(original.pipeline.queue, elsewhere.proxy) == []


def test_owner_sees_the_own_pipeline_and_dead_letters_in_the_copy_and_no_others(original, everything):
    with everything.connect(original.owner) as session:
        assert session.execute("SELECT name FROM sqs_ingest_pipeline").fetchall() == [("user_logins",)]
        assert session.execute("SELECT DISTINCT pipeline FROM sqs_ingest_dead_letter").fetchall() == [("user_logins",)]
        assert session.execute("SELECT pipeline, state FROM pg_stat_sqs_ingest").fetchall() == [("user_logins", "stopped")]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT * FROM sqs_ingest_ledger")


def test_owner_cannot_be_dropped_in_the_copy(original, everything):
    """Although nothing but a row of sqs_ingest_pipeline names the role."""
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="cannot be dropped"):
        everything.sql(f"DROP ROLE {original.other_owner}")


def test_next_numbers_in_the_copy_are_new_ones(everything):
    for table, insert in {
        "sqs_ingest_dead_letter":
            "(pipeline, message_id, receive_count, reason, redacted, sealed) VALUES ('other', 'n', 1, 'r', '{}', '')",
        "sqs_ingest_unmask_audit":
            "(role_name, session_role_name, token, reason) VALUES ('a', 'a', 't', 'r')",
    }.items():
        highest = everything.value(f"SELECT max(id) FROM {table}")
        with everything.connect(autocommit=False) as session:
            assert session.execute(f"INSERT INTO {table} {insert} RETURNING id").fetchone()[0] == highest + 1
            session.rollback()


def test_dump_restored_over_the_database_while_it_ingests_stops_it_and_brings_the_old_state_back(proxied, proxy):
    db, path = proxied.db, proxied.cluster.directory / "before.dump"
    Handouts(proxy, proxied.queue)
    proxied.queue.send(login_messages(10))
    proxied.start()
    proxied.wait_until_ingested(10)
    done(proxied.cluster.client("pg_dump", "-Fc", "-f", path, dbname=db.name))
    expected = contents(db)
    proxied.queue.send(login_messages(5, 10))
    proxied.wait_until_ingested(15)
    db.close()
    done(proxied.cluster.client("pg_restore", "--clean", "--if-exists", "-d", db.name, path))
    assert contents(db) == expected
    wait_until(lambda: proxied.cluster.pids("sqs_ingest worker") == [], 5, "no worker")
    assert proxied.stat()["state"] == "stopped"
    proxied.start()
    proxied.queue.send(login_messages(2, 15))
    wait_until(lambda: len(proxied.rows()) == 12, 20, "it goes on")


# -- going on in the copy ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["the same cluster", "another cluster"])
def another_db(request, cluster, make_cluster):
    """An empty database in the cluster or in another one, which has the keyring and the roles, but other settings."""
    if request.param == "the same cluster":
        database = Database(cluster, cluster.create_database())
        yield database
        database.close()
        stop_all(cluster)
        return cluster.ensure_running().drop_database(database.name)
    other = make_cluster(own_identity=True)
    database = Database(other, other.create_database())
    yield database
    database.close()


def stop_all(cluster):
    """Before the databases go."""
    cluster.set({"sqs_ingest.enabled": False}).reload()
    wait_until(lambda: cluster.pids("sqs_ingest worker") == [], 20, "no workers")
    cluster.set({"sqs_ingest.enabled": True}).reload()


def give_keyring_and_roles(source, target):
    give_keyring(source, target)
    path = target.directory / "roles.sql"
    path.write_text(done(source.client("pg_dumpall", "--roles-only")))
    run_script(target, path)


def test_started_copy_goes_on_where_the_original_stopped(another_db, proxied, proxy):
    """What was ingested before the dump and is delivered again is a duplicate; what is new is ingested."""
    source, db, queue = proxied.cluster, proxied.db, proxied.queue
    handouts = Handouts(proxy, queue, keep_deleted=True)
    role = make_owner(db)
    queue.send([*login_messages(8), ROGUE])
    start_as(role, db)
    proxied.wait_until_ingested(9)
    if another_db.cluster is not source:
        give_keyring_and_roles(source, another_db.cluster)
        another_db.cluster.set({**queue.settings, "sqs_ingest.endpoint_url": proxy.endpoint}).reload()
    archive(db, another_db)
    proxied.stop()

    copy = Pipeline(another_db, queue)
    assert start_as(role, another_db)
    handouts.keep_deleted = False
    handouts.come_back()
    queue.send([login_message(8), "no JSON"])
    stat = copy.wait_until_ingested(2)
    wait_until(lambda: copy.stat()["duplicates"] == 9, 20, lambda: f"nine duplicates; {copy.stat()}")
    assert stat["inserted"] == 1
    assert [row["user_id"] for row in copy.rows()] == sorted(m["user_id"] for m in login_messages(9))
    assert [letter["reason"] for letter in copy.dead_letters()] == ["missing_field", "not_json"]
    assert [letter["id"] for letter in copy.dead_letters()] == [1, 2]
    assert copy.rows("masked_ip")[8]["masked_ip"] == db.value("SELECT mask('10.0.0.8')")
    wait_until(queue.is_empty, 20, "queue empty")


def test_upgraded_cluster_holds_everything_and_runs_nothing_until_it_is_started(make_cluster, moto, make_proxy):
    queue, proxy = moto.queue(), make_proxy(moto)
    handouts = Handouts(proxy, queue, keep_deleted=True)
    settings = {**queue.settings, "sqs_ingest.endpoint_url": proxy.endpoint}
    old = make_cluster(settings)
    db = Database(old, old.create_database())
    db.sql("CREATE EXTENSION sqs_ingest")
    role = make_owner(db)
    queue.send([*login_messages(8), ROGUE])
    start_as(role, db)
    Pipeline(db, queue).wait_until_ingested(9)
    expected = contents(db)
    db.close()

    new = make_cluster.adopt(Cluster(settings, own_identity=True))
    old.upgrade_to(new)
    give_keyring(old, new)
    asked, upgraded = len(proxy.asked()), Database(new.start(), db.name)
    assert contents(upgraded) == expected
    assert has_label(upgraded)
    assert upgraded.value("SELECT state FROM pg_stat_sqs_ingest") == "stopped"
    assert new.pids("sqs_ingest worker") == [] and len(proxy.asked()) == asked
    start_as(role, upgraded)
    handouts.keep_deleted = False
    handouts.come_back()
    Pipeline(upgraded, queue).wait_for(received=9, duplicates=9, deleted=9)
    upgraded.close()


def test_copy_beside_a_running_original_may_not_be_started_on_its_queue(proxied, proxy, copy_db):
    proxied.start()
    proxied.wait_for(state="idle")
    plain(proxied.db, copy_db)
    with pytest.raises(psycopg.errors.ObjectInUse, match="already feeds pipeline"):
        copy_db.sql("SELECT sqs_ingest_start()")


@pytest.fixture
def copy_db(cluster):
    database = Database(cluster, cluster.create_database())
    yield database
    database.close()
    cluster.drop_database(database.name)


def test_dump_taken_while_messages_flow_has_each_message_whole_or_not_at_all(proxied, proxy, copy_db):
    """Its row or dead letter, and its ledger entry."""
    Handouts(proxy, proxied.queue)
    proxied.start()
    over = threading.Event()

    def send():
        i = 0
        while not over.is_set():
            proxied.queue.send([*login_messages(9, i), f"no JSON {i}"])
            i += 9

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(3):
            before = proxied.wait_for(inserted=lambda n: n > 10)
            proxied.wait_for(inserted=lambda n: n > before["inserted"] + 5)
            path = proxied.cluster.directory / unique("flow")
            done(proxied.cluster.client("pg_dump", "-Fc", "-f", path, dbname=proxied.db.name))
            after = proxied.wait_for(inserted=lambda n: n > before["inserted"] + 10)
    finally:
        over.set()
        sender.join()
    done(proxied.cluster.client("pg_restore", "-d", copy_db.name, path))
    rows, letters, ledger = (copy_db.value(f"SELECT count(*) FROM {table}")
                             for table in ("user_logins", "sqs_ingest_dead_letter", "sqs_ingest_ledger"))  # fmt: skip
    assert before["inserted"] < rows <= after["inserted"] and letters > 0
    assert rows + letters == ledger
    joined = "SELECT count(*) FROM sqs_ingest_dead_letter JOIN sqs_ingest_ledger USING (pipeline, message_id)"
    assert copy_db.value(joined) == letters


def in_path(db):
    """The schema "In Gest" is in the path of all sessions from now on."""
    db.sql(f'ALTER DATABASE "{db.name}" SET search_path = "In Gest", public')
    db.close()


def test_extension_in_a_schema_of_its_own_is_dumped_restored_and_goes_on(proxied, proxy, copy_db):
    db, queue = proxied.db, proxied.queue
    handouts = Handouts(proxy, queue, keep_deleted=True)
    db.sql("DROP EXTENSION sqs_ingest")
    db.sql('CREATE SCHEMA "In Gest"')
    db.sql('CREATE EXTENSION sqs_ingest SCHEMA "In Gest"')
    in_path(db)
    queue.send([*login_messages(5), ROGUE])
    proxied.start()
    proxied.wait_until_ingested(6)
    archive(db, copy_db)
    in_path(copy_db)
    assert contents(copy_db) == contents(db)
    assert copy_db.value("SELECT state FROM pg_stat_sqs_ingest") == "stopped"
    proxied.stop()
    handouts.keep_deleted = False
    copy = Pipeline(copy_db, queue)
    copy.start()
    handouts.come_back()
    queue.send([login_message(5)])
    copy.wait_for(duplicates=6, inserted=1)
    assert len(copy.rows()) == 6 and len(copy.dead_letters()) == 1
    copy.stop()
