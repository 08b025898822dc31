"""What a DBA does to a whole database while it ingests: copy, drop, rename, close it; many of them in one cluster; and a
cluster that has no room for another process."""
import re
import threading

import psycopg
import pytest
from harness import Database, login_messages, unique, wait_until
from pipeline import Pipeline, assert_counters_add_up, running_fixture, start_beside  # noqa: F401
from proxy import make_pipeline_fixture, make_proxy_fixture, proxied_fixture, proxy_fixture  # noqa: F401
from redelivery import Handouts

ROGUE = {"foo": "oops_wrong_msg_type", "bar": "123"}


@pytest.fixture
def pipeline(proxied, proxy):
    Handouts(proxy, proxied.queue)
    return proxied


@pytest.fixture
def make_database(cluster):
    """make_database(): one more database, with the extension; dropped afterwards."""
    made = []

    def make(name=None, **options):
        made.append(Database(cluster, cluster.create_database(name, **options)))
        return made[-1]

    yield make
    for database in made:
        database.close()
        cluster.ensure_running().drop_database(database.name)


def workers(db):
    return db.cluster.pids("sqs_ingest worker", db.name)


def launcher(cluster):
    (pid,) = cluster.pids("sqs_ingest launcher")
    return pid


def users(messages):
    return sorted(message["user_id"] for message in messages)


def assert_ingests(pipeline, start, count=3):
    messages = login_messages(count, start)
    pipeline.queue.send(messages)
    wait_until(lambda: set(users(messages)) <= {row["user_id"] for row in pipeline.rows("user_id")}, 30,
               lambda: f"rows; the pipeline: {pipeline.stat()}")  # fmt: skip


# -- copied -----------------------------------------------------------------------------------------------------------


def test_database_that_ingests_is_no_template_until_it_is_stopped(running, make_database):
    """Postgres copies no database that somebody uses. stop() is what it takes, and it takes the workers out at once."""
    db = running.db
    messages = login_messages(10)
    running.queue.send([*messages, ROGUE])
    running.wait_until_ingested(11)
    before = workers(db)
    db.close()
    with pytest.raises(psycopg.errors.ObjectInUse) as refusal:
        db.cluster.create_database(template=db.name)
    assert "is being accessed by other users" in str(refusal.value) and "1 other session" in str(refusal.value)
    assert workers(db) == before and running.stat()["state"] == "idle"

    running.stop()
    db.close()
    copy = Pipeline(make_database(template=db.name), running.queue)
    assert users(copy.rows()) == users(messages) and len(copy.dead_letters()) == 1
    assert copy.db.value("SELECT count(*) FROM sqs_ingest_ledger") == 11
    assert copy.stat()["state"] == "stopped"

    running.start()
    assert_ingests(running, 20)
    with pytest.raises(psycopg.errors.ObjectInUse, match="already feeds"):
        copy.start()
    db.close()
    copy.db.close()
    db.cluster.restart()
    running.wait_for(state="idle")
    assert_ingests(running, 30)
    assert workers(copy.db) == [] and copy.stat()["state"] == "stopped"
    assert users(copy.rows()) == users(messages)


# -- dropped ----------------------------------------------------------------------------------------------------------


def test_plain_drop_of_a_database_that_ingests_is_refused_until_it_is_stopped(running, make_database, moto):
    """As with any session. It shows what it is, so that nobody has to guess what to stop."""
    cluster, doomed = running.cluster, make_database()
    other = start_beside(running, doomed, moto.queue())
    doomed.close()
    with pytest.raises(psycopg.errors.ObjectInUse) as refusal:
        cluster.sql(f'DROP DATABASE "{doomed.name}"')
    assert "1 other session" in refusal.value.diag.message_detail
    (session,) = [row for row in cluster.activity() if row["datname"] == doomed.name]
    assert (session["backend_type"], session["usename"]) == ("sqs_ingest worker", "postgres")
    assert_ingests(other, 0)

    other.stop()
    doomed.close()
    cluster.sql(f'DROP DATABASE "{doomed.name}"')
    assert_ingests(running, 10)


@pytest.mark.parametrize("obstacle", ["sqs_ingest.enabled is off", "a queue URL that is none"])
def test_plain_drop_of_an_enabled_database_without_workers_succeeds(running, make_database, moto, obstacle):
    """The launcher, which looks at it now and then, is not in the way, and forgets it."""
    cluster, doomed = running.cluster, make_database()
    other = start_beside(running, doomed, moto.queue())
    if obstacle == "sqs_ingest.enabled is off":
        cluster.set({"sqs_ingest.enabled": False}).reload()
        other.wait_for(state="stopped", workers=[])
    else:
        doomed.sql("UPDATE sqs_ingest_pipeline SET queue_url = 'no url'")
        other.wait_for(state="cannot_start")
    doomed.close()
    since = cluster.log_position()
    cluster.sql(f'DROP DATABASE "{doomed.name}"')
    cluster.set({"sqs_ingest.enabled": True}).reload()
    running.wait_for(state="idle")
    assert_ingests(running, 0)
    assert not re.search("ERROR|FATAL|could not read", cluster.log(since))


def test_drop_with_force_in_the_middle_of_ingestion_ends_quietly_and_disturbs_nobody(running, make_database, moto):
    cluster, doomed = running.cluster, make_database()
    neighbours, the_launcher = workers(running.db), launcher(cluster)
    other = start_beside(running, doomed, moto.queue())
    doomed.sql("UPDATE sqs_ingest_pipeline SET workers = 4")
    wait_until(lambda: len(workers(doomed)) == 4, 20, "four workers")
    messages = login_messages(100)
    other.queue.send(login_messages(300))
    running.queue.send(messages)
    other.wait_for(inserted=lambda n: n > 10)
    doomed.close()
    since = cluster.log_position()
    cluster.sql(f'DROP DATABASE "{doomed.name}" WITH (FORCE)')
    running.wait_until_ingested(100)
    assert_counters_add_up(running.stat())
    # Whatever the launcher would do about it, it has had its chance: it has started a pipeline since.
    start_beside(running, make_database(), moto.queue())
    assert workers(running.db) == neighbours and launcher(cluster) == the_launcher
    said = cluster.log(since)
    assert len(said.splitlines()) <= 8, said  # two lines for each worker that was terminated, if at all
    assert not re.search("could not read the pipelines|does not exist|PANIC|signal", said)


def test_owner_of_database_and_pipeline_drops_it_by_force_without_being_superuser(running, make_database, moto):
    """The worker is a session of its own role, not of a superuser."""
    cluster, role = running.cluster, unique("owner")
    cluster.sql(f"CREATE ROLE {role} LOGIN CREATEDB")
    doomed = make_database(owner=role)
    pipeline = start_beside(running, doomed, moto.queue())
    doomed.sql(f"ALTER TABLE user_logins OWNER TO {role}")
    doomed.sql("UPDATE sqs_ingest_pipeline SET owner = %s::text::regrole", [role])
    wait_until(lambda: [row["usename"] for row in cluster.activity() if row["pid"] in workers(doomed)] == [role], 20,
               "the worker is the owner")  # fmt: skip
    pipeline.wait_for(state="idle")
    doomed.close()
    cluster.sql(f'DROP DATABASE "{doomed.name}" WITH (FORCE)', user=role)
    wait_until(lambda: workers(doomed) == [], 10, "no worker is left")


# -- renamed and closed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["sqs_ingest_stop()", "sqs_ingest.enabled = off"])
def test_database_is_renamed_while_nothing_runs_and_ingests_under_its_new_name(running, way):
    cluster, db, name = running.cluster, running.db, running.db.name
    assert_ingests(running, 0)
    if way == "sqs_ingest_stop()":
        db.close()
        with pytest.raises(psycopg.errors.ObjectInUse, match="is being accessed by other users"):
            cluster.sql(f'ALTER DATABASE "{name}" RENAME TO "{name}_new"')
        running.stop()
    else:
        cluster.set({"sqs_ingest.enabled": False}).reload()
        running.wait_for(state="stopped", workers=[])
    db.close()
    cluster.sql(f'ALTER DATABASE "{name}" RENAME TO "{name}_new"')
    try:
        renamed = Pipeline(Database(cluster, f"{name}_new"), running.queue)
        if way == "sqs_ingest_stop()":
            assert renamed.start()
        else:
            cluster.set({"sqs_ingest.enabled": True}).reload()
        assert_ingests(renamed, 10)
        assert workers(renamed.db) == cluster.pids("sqs_ingest worker") != []
        renamed.stop()
        renamed.db.close()
    finally:
        cluster.sql(f'ALTER DATABASE "{name}_new" RENAME TO "{name}"')


def test_database_closed_to_connections_says_so_in_the_log_and_ingests_when_it_is_open_again(running):
    """ALLOW_CONNECTIONS false and the end of its sessions: how a database is got out of use when one cannot ask nicely."""
    cluster, name, since = running.cluster, running.db.name, running.cluster.log_position()
    running.db.close()
    cluster.sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    (worker,) = workers(running.db)
    cluster.sql("SELECT pg_terminate_backend(%s)", [worker])
    wait_until(lambda: worker not in workers(running.db), 15, "the worker left")
    running.queue.send(login_messages(3))
    cluster.wait_for_log("not currently accepting connections|database .* cannot be connected to", since)
    cluster.sql(f'ALTER DATABASE "{name}" RENAME TO "{name}_new"')
    cluster.sql(f'ALTER DATABASE "{name}_new" RENAME TO "{name}"')
    cluster.sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    cluster.reload()  # the launcher looks again; it does so now and then anyway
    running.wait_for(8, inserted=3)
    assert len(re.findall("FATAL", cluster.log(since))) <= 6
    assert len(workers(running.db)) == 1


def test_owner_without_connect_keeps_the_worker_it_has_and_gets_no_other(pipeline):
    """As Postgres does with sessions. It is explained, and start() is heard at once when it is mended."""
    cluster, db, role = pipeline.cluster, pipeline.db, unique("owner")
    if not (cluster.data / "sqs_ingest.keyring").exists():
        db.sql("SELECT sqs_ingest_create_keyring()")
    db.sql(f"CREATE ROLE {role} LOGIN")
    db.sql(f"GRANT CREATE ON SCHEMA public TO {role}")
    db.sql(f"GRANT EXECUTE ON FUNCTION sqs_ingest_start(text), sqs_ingest_stop(text) TO {role}")
    with db.connect(role) as session:
        session.execute("SELECT sqs_ingest_start()")
    pipeline.wait_for(state="idle")
    before = workers(db)
    db.sql(f'REVOKE CONNECT ON DATABASE "{db.name}" FROM PUBLIC')
    assert_ingests(pipeline, 0)
    assert workers(db) == before
    since = cluster.log_position()
    db.sql("SELECT pg_terminate_backend(%s)", before)
    stat = pipeline.wait_for(20, state="cannot_start", why=lambda why: why and "CONNECT" in why)
    assert role in stat["why"] and "GRANT" in stat["hint"] and "CONNECT ON DATABASE" in stat["hint"]
    pipeline.queue.send(login_messages(3, 10))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="CONNECT"):
        pipeline.start()
    db.sql(f'GRANT CONNECT ON DATABASE "{db.name}" TO {role}')
    pipeline.start()
    pipeline.wait_for(8, state="idle", inserted=6)
    assert len(re.findall("FATAL", cluster.log(since))) <= 4


# -- side by side -----------------------------------------------------------------------------------------------------


def test_two_databases_ingest_hundreds_of_messages_side_by_side_and_nothing_is_crossed(running, make_database, moto):
    """Not even for messages that look alike: equal bodies go to both."""
    cluster = running.cluster
    other = start_beside(running, make_database(), moto.queue())
    both = {running: [*login_messages(200), *[ROGUE] * 5],
            other: [*login_messages(100), *login_messages(150, 5000), *[ROGUE] * 7]}  # fmt: skip
    ids = {}

    def send(pipeline):
        ids[pipeline] = set(pipeline.queue.send(both[pipeline]))

    senders = [threading.Thread(target=send, args=[pipeline]) for pipeline in both]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    for pipeline, messages in both.items():
        stat = pipeline.wait_until_ingested(len(messages), 60)
        assert (stat["duplicates"], stat["dead_letters"]) == (0, messages.count(ROGUE))
        assert users(pipeline.rows()) == users(message for message in messages if message != ROGUE)
        assert {id for (id,) in pipeline.db.sql("SELECT message_id FROM sqs_ingest_ledger")} == ids[pipeline]
    assert {row["datname"] for row in cluster.activity() if row["backend_type"] == "sqs_ingest worker"} == {
        running.db.name, other.db.name}  # fmt: skip


# -- no room ----------------------------------------------------------------------------------------------------------


def small_cluster(make_cluster, queue, **settings):
    cluster = make_cluster({**queue.settings, "max_logical_replication_workers": 0, **settings})
    db = Database(cluster, cluster.create_database())
    db.sql("CREATE EXTENSION sqs_ingest")
    return Pipeline(db, queue)


def test_room_for_the_launcher_only_is_explained_and_a_bigger_setting_mends_it(make_cluster, moto):
    pipeline = small_cluster(make_cluster, moto.queue(), max_worker_processes=1)
    cluster, since = pipeline.cluster, pipeline.cluster.log_position()
    assert pipeline.start()
    stat = pipeline.wait_for(state="cannot_start")
    assert "slot" in stat["why"] and "max_worker_processes" in stat["hint"]
    for _ in range(5):
        cluster.reload()  # each has the launcher try again
    assert len(re.findall("no background worker slot is free", cluster.log(since))) == 1
    # What needs no process works.
    pipeline.stop()
    pipeline.queue.send(login_messages(3))
    pipeline.db.sql("CALL sqs_ingest_drain()")
    assert len(pipeline.rows()) == 3
    pipeline.start()
    cluster.set(max_worker_processes=4).restart()
    assert_ingests(pipeline, 10)
    pipeline.db.close()


def test_no_room_for_the_launcher_is_explained_by_the_status(make_cluster, moto):
    pipeline = small_cluster(make_cluster, moto.queue(), max_worker_processes=0)
    pipeline.start()
    stat = pipeline.stat()
    assert stat["state"] == "cannot_start"
    assert "launcher" in stat["why"] and "max_worker_processes" in stat["hint"]
    pipeline.db.close()


def test_slot_that_another_pipeline_gives_back_is_taken(make_cluster, moto):
    """Two databases, room for one worker: the second one waits, says for what, and starts when the first one stops."""
    first = small_cluster(make_cluster, moto.queue(), max_worker_processes=3)
    cluster = first.cluster
    second = Pipeline(Database(cluster, cluster.create_database()), moto.queue())
    second.db.sql("CREATE EXTENSION sqs_ingest")
    taker = cluster.connect()
    force = "debug_parallel_query" if taker.info.server_version >= 160000 else "force_parallel_mode"
    first.start()
    first.db.sql("UPDATE sqs_ingest_pipeline SET queue_url = %s", [first.queue.url])
    first.wait_for(state="idle")
    taker.execute(f"SET {force} = on")

    def take():
        with pytest.raises(psycopg.errors.QueryCanceled):
            taker.execute("SELECT pg_sleep(50)")

    busy = threading.Thread(target=take)
    busy.start()
    wait_until(lambda: cluster.pids("parallel worker"), what="all slots are taken")
    cluster.set(second.queue.settings).reload()
    second.start()
    stat = second.wait_for(state="cannot_start")
    assert "slot" in stat["why"] and "max_worker_processes" in stat["hint"]
    assert_ingests(first, 0)
    first.stop()
    second.wait_for(40, state="idle")
    assert_ingests(second, 10)
    taker.cancel()
    busy.join(10)
    taker.close()
    for pipeline in (first, second):
        pipeline.db.close()
