"""Starting and stopping pipelines, and what may happen to them between: transactions that roll back, databases and
extensions that go, servers that restart, slots and keys that are missing."""
import os
import re
import threading
import time

import psycopg
import pytest
from harness import Database, login_message, login_messages, unique, wait_until
from pipeline import user_ids, users_of
from pipeline import Pipeline, assert_counters_add_up, make_pipeline_fixture, pipeline_fixture  # noqa: F401

CLUSTER_SETTINGS = {"max_prepared_transactions": 5}


def workers(cluster, dbname=None):
    return cluster.pids("sqs_ingest worker", dbname)


def assert_ingests(pipeline, start, tries=4):
    """A message sent now becomes a row soon; the first has a number from `start` on.

    moto does not notice that a client is gone: the long poll of a worker that ended takes the next message, which is
    back much later. So another message is sent then, once for every such poll.
    """
    for i in range(start, start + tries):
        message = login_message(i)
        pipeline.queue.send([message])
        try:
            wait_until(lambda: message["user_id"] in user_ids(pipeline), 20 if i == start + tries - 1 else 2)
            return
        except AssertionError:
            if i == start + tries - 1:
                raise


def assert_ingests_nothing(pipeline, seconds=1.5):
    """Two messages that are sent stay in the queue."""
    received = (pipeline.stat() or {"received": 0})["received"]
    pipeline.queue.send(login_messages(2, 900000))
    time.sleep(seconds)
    assert sum(pipeline.queue.counts()) == 2
    assert (pipeline.stat() or {"received": 0})["received"] == received


@pytest.fixture
def second_db(cluster):
    database = Database(cluster, cluster.create_database())
    yield database
    database.close()
    cluster.ensure_running().drop_database(database.name)


# -- start and stop ---------------------------------------------------------------------------------------------------


def test_second_start_and_second_stop_say_that_there_was_nothing_to_do(pipeline):
    assert pipeline.start() is True
    assert pipeline.start() is False
    pipeline.wait_for(state="idle")
    assert len(workers(pipeline.cluster, pipeline.db.name)) == 1
    assert pipeline.stop() is True
    assert pipeline.stop() is False
    stat = pipeline.stat()
    assert (stat["state"], stat["workers"]) == ("stopped", []) and stat["hint"]


def test_stopped_pipeline_takes_nothing_and_goes_on_when_started_again(pipeline):
    pipeline.start()
    assert_ingests(pipeline, 0)
    pipeline.stop()
    assert_ingests_nothing(pipeline)
    pipeline.start()
    assert_ingests(pipeline, 10)


def test_start_right_after_a_stop_is_heard_at_once(pipeline):
    """Whatever the launcher is doing when the nudge comes."""
    for i in range(4):
        pipeline.start()
        time.sleep(0.04 * i)
        pipeline.stop()
        time.sleep(0.02 * i)
        pipeline.start()
        pipeline.wait_for(5, state="idle")
        pipeline.stop()


def test_stop_of_an_idle_pipeline_does_not_wait_for_its_long_poll(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    began = time.monotonic()
    pipeline.stop()
    assert time.monotonic() - began < 3


def test_stop_with_messages_in_hand_gives_them_back_at_once(make_pipeline, moto):
    pipeline = make_pipeline(moto.queue(VisibilityTimeout=30))
    db, messages = pipeline.db, login_messages(10)
    pipeline.queue.send(messages)
    with db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        session.execute(
            """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql
               AS $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'; END $$"""
        )
        session.execute("CREATE TRIGGER full_disk BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION full_disk()")
        session.commit()
    pipeline.wait_for(state="backing_off", in_hand=10)
    assert pipeline.queue.counts() == (0, 10)
    pipeline.stop()
    assert pipeline.queue.counts() == (10, 0)
    assert_counters_add_up(pipeline.wait_for(state="stopped", received=10, released=10, in_hand=0))
    db.sql("DROP TRIGGER full_disk ON user_logins")
    pipeline.start()
    pipeline.wait_for(inserted=10, deleted=10)
    assert user_ids(pipeline) == users_of(messages)
    assert pipeline.dead_letters() == []
    assert_counters_add_up(pipeline.stat())


def test_stop_while_a_write_waits_for_a_lock_does_not_wait_for_the_lock(pipeline):
    messages = login_messages(10)
    pipeline.start()
    pipeline.wait_for(state="idle")
    with pipeline.db.connect(autocommit=False) as other:
        other.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
        pipeline.queue.send(messages)
        pipeline.wait_for(received=lambda n: n > 0)
        began = time.monotonic()
        assert pipeline.stop()
        assert time.monotonic() - began < 15
        assert pipeline.stat()["workers"] == []
    pipeline.start()
    pipeline.wait_for(60, inserted=10, deleted=10)
    wait_until(pipeline.queue.is_empty, 60, "queue empty")
    assert user_ids(pipeline) == users_of(messages)
    assert_counters_add_up(pipeline.stat())


def test_stop_in_the_middle_of_a_drain_leaves_nothing_in_flight(pipeline):
    messages = login_messages(150)
    pipeline.queue.send(messages)
    pipeline.start()
    pipeline.wait_for(inserted=lambda n: n > 20)
    pipeline.stop()
    stat = pipeline.stat()
    assert stat["in_hand"] == 0
    assert_counters_add_up(stat)
    visible, in_flight = pipeline.queue.counts()
    assert (visible + stat["inserted"], in_flight) == (150, 0)
    pipeline.start()
    pipeline.wait_for(60, inserted=150, deleted=150)
    assert user_ids(pipeline) == users_of(messages)
    assert pipeline.dead_letters() == []


# -- transactions -----------------------------------------------------------------------------------------------------


def test_start_that_is_rolled_back_starts_nothing(pipeline):
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        session.rollback()
    assert_ingests_nothing(pipeline)
    assert pipeline.db.value("SELECT count(*) FROM sqs_ingest_pipeline") == 0
    assert workers(pipeline.cluster) == []


def test_workers_start_only_when_start_commits(pipeline):
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        assert_ingests_nothing(pipeline, 1)
        session.commit()
    pipeline.wait_for(deleted=2)


def test_stop_that_is_rolled_back_changes_nothing_in_the_end(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_stop()")
        assert workers(pipeline.cluster) == []
        session.rollback()
    pipeline.wait_for(10, state="idle")
    assert_ingests(pipeline, 0)


def test_stop_in_a_savepoint_that_is_rolled_back_changes_nothing_in_the_end(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SAVEPOINT one")
        session.execute("SELECT sqs_ingest_stop()")
        session.execute("SAVEPOINT two")
        session.execute("SELECT sqs_ingest_stop()")
        session.execute("RELEASE two")
        assert workers(pipeline.cluster) == []
        session.execute("ROLLBACK TO one")
        # It goes on while the transaction is still open.
        wait_until(lambda: workers(pipeline.cluster), 10, "a worker")
        session.commit()
    pipeline.wait_for(10, state="idle")
    assert_ingests(pipeline, 0)


def test_stop_in_a_released_savepoint_counts(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SAVEPOINT one")
        session.execute("SELECT sqs_ingest_stop()")
        session.execute("RELEASE one")
        session.commit()
    pipeline.wait_for(state="stopped", workers=[])
    assert_ingests_nothing(pipeline)


def test_stop_and_start_in_one_transaction_ends_with_the_pipeline_running(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_stop()")
        session.execute("SELECT sqs_ingest_start()")
        session.commit()
    pipeline.wait_for(10, state="idle")
    assert_ingests(pipeline, 0)


def test_session_that_dies_inside_stop_leaves_the_pipeline_running(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    session = pipeline.db.connect(autocommit=False)
    session.execute("SELECT sqs_ingest_stop()")
    pipeline.db.value("SELECT pg_terminate_backend(%s)", [session.info.backend_pid])
    pipeline.wait_for(10, state="idle")
    assert_ingests(pipeline, 0)


@pytest.mark.parametrize("function", ["start", "stop"])
def test_start_and_stop_refuse_prepare_transaction(pipeline, function):
    if function == "stop":
        pipeline.start()
    with pipeline.db.connect(autocommit=False) as session:
        session.execute(f"SELECT sqs_ingest_{function}()")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            session.execute("PREPARE TRANSACTION 'never'")
    pipeline.db.sql("SELECT 1")
    if function == "stop":
        pipeline.wait_for(10, state="idle")
        assert_ingests(pipeline, 0)


# -- the extension and the database go --------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["idle", "in the middle of a drain"])
def test_drop_extension_ends_the_workers_and_leaves_the_rows(pipeline, when):
    cluster, db, since = pipeline.cluster, pipeline.db, pipeline.cluster.log_position()
    messages = login_messages(120)
    pipeline.queue.send(messages)
    pipeline.start()
    if when == "idle":
        pipeline.wait_for(60, inserted=120)
        pipeline.wait_for(state="idle")
    else:
        pipeline.wait_for(inserted=lambda n: n > 10)
    began = time.monotonic()
    db.sql("DROP EXTENSION sqs_ingest")
    assert time.monotonic() - began < 15
    wait_until(lambda: workers(cluster) == [], 15, "workers gone")
    stored = user_ids(pipeline)
    assert len(stored) == len(set(stored)) and set(stored) <= set(users_of(messages))
    visible, in_flight = pipeline.queue.counts()
    assert (len(stored) + visible, in_flight) == (120, 0)
    time.sleep(3)
    assert workers(cluster) == []
    log = cluster.log(since)
    assert not re.search("terminated by signal|PANIC", log)
    assert len(re.findall("sqs_ingest", log)) < 20, log
    db.sql("CREATE EXTENSION sqs_ingest")
    assert (pipeline.stat() or {"state": "stopped"})["state"] == "stopped"


def test_drop_extension_that_is_rolled_back_changes_nothing_in_the_end(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("DROP EXTENSION sqs_ingest")
        session.rollback()
    pipeline.wait_for(15, state="idle")
    assert_ingests(pipeline, 0)


def test_pipeline_made_anew_after_drop_extension_ingests(pipeline):
    pipeline.start()
    assert_ingests(pipeline, 0)
    pipeline.db.sql("DROP EXTENSION sqs_ingest")
    pipeline.db.sql("CREATE EXTENSION sqs_ingest")
    assert pipeline.start() is True
    assert_ingests(pipeline, 10)


def test_dropped_database_takes_its_pipeline_along(second_db, pipeline, make_pipeline, moto):
    cluster, since = pipeline.cluster, pipeline.cluster.log_position()
    pipeline.start()
    pipeline.wait_for(state="idle")
    doomed = Database(cluster, cluster.create_database())
    doomed.sql("CREATE EXTENSION sqs_ingest")
    pipeline.db.sql("UPDATE sqs_ingest_pipeline SET queue_url = %s", [pipeline.queue.url])
    other = Pipeline(doomed, moto.queue()).configure()
    other.start()
    other.queue.send(login_messages(200))
    other.wait_for(inserted=lambda n: n > 10)
    doomed.close()
    with cluster.connect() as session:
        began = time.monotonic()
        session.execute(f'DROP DATABASE "{doomed.name}" WITH (FORCE)')
        assert time.monotonic() - began < 10
    wait_until(lambda: workers(cluster, doomed.name) == [], 10, "its workers are gone")
    assert_ingests(pipeline, 0)  # the neighbour does not mind
    time.sleep(3)
    log = cluster.log(since)
    assert not re.search("terminated by signal|PANIC", log)
    assert len(re.findall("FATAL|ERROR", log)) < 10, log
    # The queue is free for somebody else.
    second_db.sql("CREATE EXTENSION sqs_ingest")
    heir = make_pipeline(other.queue, database=second_db)
    assert heir.start() is True
    wait_until(lambda: heir.stat()["state"] in ("running", "idle"), 20, "the heir runs")


def test_drop_of_another_database_does_not_wait_for_an_idle_worker(pipeline):
    cluster = pipeline.cluster
    pipeline.start()
    pipeline.wait_for(state="idle")
    for _ in range(3):
        name = cluster.create_database()
        began = time.monotonic()
        cluster.drop_database(name)
        assert time.monotonic() - began < 5


def test_copy_of_a_database_by_template_does_not_ingest(pipeline):
    cluster = pipeline.cluster
    pipeline.start()
    assert_ingests(pipeline, 0)
    cluster.set({"sqs_ingest.enabled": False}).reload()
    pipeline.wait_for(state="stopped", workers=[])
    pipeline.db.close()
    copy = Database(cluster, cluster.create_database(template=pipeline.db.name))
    try:
        cluster.set({"sqs_ingest.enabled": True}).reload()
        assert_ingests(pipeline, 10)
        assert copy.value("SELECT state FROM pg_stat_sqs_ingest") == "stopped"
        assert workers(cluster, copy.name) == []
        assert copy.value("SELECT count(*) FROM user_logins WHERE user_id = %s", [login_message(0)["user_id"]]) == 1
        assert copy.value("SELECT count(*) FROM user_logins") < pipeline.db.value("SELECT count(*) FROM user_logins")
    finally:
        copy.close()
        cluster.drop_database(copy.name)


# -- roles ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def owned(pipeline):
    """The pipeline, running, owned by an ordinary role; and the role."""
    db, role = pipeline.db, unique("owner")
    if not (pipeline.cluster.data / "sqs_ingest.keyring").exists():
        db.sql("SELECT sqs_ingest_create_keyring()")
    db.sql(f"CREATE ROLE {role} LOGIN")
    db.sql(f"GRANT CREATE ON SCHEMA public TO {role}")
    db.sql(f"GRANT EXECUTE ON FUNCTION sqs_ingest_start(text) TO {role}")
    with db.connect(role) as session:
        session.execute("SELECT sqs_ingest_start()")
    pipeline.wait_for(state="idle")
    return pipeline, role


def test_renamed_owner_goes_on(owned):
    pipeline, role = owned
    assert_ingests(pipeline, 0)
    pipeline.db.sql(f"ALTER ROLE {role} RENAME TO {role}_new")
    assert_ingests(pipeline, 10)
    pipeline.stop()
    pipeline.start()
    assert_ingests(pipeline, 20)
    assert pipeline.db.value("SELECT owner::text FROM sqs_ingest_pipeline") == f"{role}_new"


def needs_login(pipeline):
    """From 17 on a worker can run as a role without LOGIN."""
    return pipeline.db.connection.info.server_version < 170000


def test_owner_without_login_is_explained_and_mended(owned):
    pipeline, role = owned
    pipeline.stop()
    pipeline.db.sql(f"ALTER ROLE {role} NOLOGIN")
    if not needs_login(pipeline):
        pipeline.start()
        assert_ingests(pipeline, 0)
        return
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refusal:
        pipeline.start()
    assert role in str(refusal.value) and "LOGIN" in refusal.value.diag.message_hint
    pipeline.db.sql(f"ALTER ROLE {role} LOGIN")
    pipeline.start()
    assert_ingests(pipeline, 0)


def test_owner_who_loses_login_while_the_server_restarts_is_explained(owned):
    pipeline, role = owned
    pipeline.db.sql(f"ALTER ROLE {role} NOLOGIN")
    pipeline.cluster.restart()
    if not needs_login(pipeline):
        pipeline.wait_for(state="idle")
        assert_ingests(pipeline, 0)
        return
    stat = pipeline.wait_for(state="cannot_start")
    assert role in stat["why"] and "LOGIN" in stat["hint"]
    pipeline.db.sql(f"ALTER ROLE {role} LOGIN")
    pipeline.wait_for(40, state="idle")
    assert_ingests(pipeline, 0)


def test_pipeline_of_a_role_that_goes_is_handed_over_with_its_other_objects(owned):
    pipeline, role = owned
    cluster, db, since = pipeline.cluster, pipeline.db, pipeline.cluster.log_position()
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        db.sql(f"DROP ROLE {role}")
    db.sql(f"REASSIGN OWNED BY {role} TO postgres")
    db.sql(f"DROP OWNED BY {role}")
    db.sql(f"DROP ROLE {role}")
    pipeline.wait_for(40, state="idle")
    assert_ingests(pipeline, 0)
    assert len(re.findall("FATAL", cluster.log(since))) < 10


# -- the server restarts ----------------------------------------------------------------------------------------------


def test_pipelines_of_two_databases_resume_by_themselves_each_in_its_own(second_db, pipeline, make_pipeline, moto):
    cluster = pipeline.cluster
    pipeline.start()
    pipeline.db.sql("UPDATE sqs_ingest_pipeline SET queue_url = %s", [pipeline.queue.url])
    other = make_pipeline(moto.queue(), database=second_db)
    other.start()
    cluster.restart()
    assert_ingests(pipeline, 0)
    assert_ingests(other, 1000)
    assert set(user_ids(pipeline)) <= set(users_of(login_messages(10)))
    assert set(user_ids(other)) <= set(users_of(login_messages(10, 1000)))


@pytest.mark.parametrize("mode", ["fast", "smart"])
def test_shutdown_in_the_middle_of_a_drain_is_quick_and_loses_nothing(make_pipeline, moto, mode):
    pipeline = make_pipeline(moto.queue(VisibilityTimeout=22))
    messages = login_messages(200)
    pipeline.queue.send(messages)
    pipeline.start()
    pipeline.wait_for(inserted=lambda n: n > 20)
    pipeline.db.close()
    began = time.monotonic()
    pipeline.cluster.stop(mode, 10)
    assert time.monotonic() - began < 10
    assert pipeline.queue.counts()[1] == 0  # nothing is in flight: written and deleted, or released
    pipeline.cluster.start()
    wait_until(pipeline.queue.is_empty, 60, "queue empty")
    assert user_ids(pipeline) == users_of(messages)
    assert pipeline.dead_letters() == []


def test_shutdown_of_an_idle_server_does_not_wait_for_the_long_poll(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    pipeline.db.close()
    began = time.monotonic()
    pipeline.cluster.stop("fast", 10)
    assert time.monotonic() - began < 5
    pipeline.cluster.start()


# -- changes of configuration -----------------------------------------------------------------------------------------


def test_plain_update_of_workers_and_queue_is_noticed(pipeline, moto):
    pipeline.start()
    assert_ingests(pipeline, 0)
    pipeline.db.sql("UPDATE sqs_ingest_pipeline SET workers = 2")
    wait_until(lambda: len(pipeline.stat()["workers"]) == 2 == len(workers(pipeline.cluster)), 15, "two workers")
    next_queue = moto.queue()
    pipeline.db.sql("UPDATE sqs_ingest_pipeline SET queue_url = %s, workers = 1", [next_queue.url])
    wait_until(lambda: len(workers(pipeline.cluster)) == 1 and pipeline.stat()["queue_url"] == next_queue.url, 15, "one worker")
    messages = login_messages(3, 50)
    next_queue.send(messages)
    wait_until(lambda: set(users_of(messages)) <= set(user_ids(pipeline)), 20, "rows from the new queue")
    assert_ingests_nothing(pipeline, 1)  # the old queue


def test_update_that_is_rolled_back_keeps_the_worker(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    before = workers(pipeline.cluster)
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("UPDATE sqs_ingest_pipeline SET workers = 3")
        session.rollback()
    assert_ingests(pipeline, 0)
    assert workers(pipeline.cluster) == before


def test_enabled_off_stops_everything_and_on_resumes(pipeline):
    cluster = pipeline.cluster
    pipeline.start()
    assert_ingests(pipeline, 0)
    cluster.set({"sqs_ingest.enabled": False}).reload()
    stat = pipeline.wait_for(state="stopped", workers=[])
    assert "sqs_ingest.enabled" in stat["why"]
    assert_ingests_nothing(pipeline)
    cluster.set({"sqs_ingest.enabled": True}).reload()
    assert_ingests(pipeline, 10)


def test_two_workers_ingest_each_message_once(pipeline):
    messages = login_messages(200)
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        session.execute("UPDATE sqs_ingest_pipeline SET workers = 2")
        session.commit()
    wait_until(lambda: len(pipeline.stat()["workers"]) == 2, 15, "two workers")
    pipeline.queue.send(messages)
    pipeline.wait_for(60, inserted=200, deleted=200)
    assert user_ids(pipeline) == users_of(messages)
    assert pipeline.dead_letters() == []
    assert_counters_add_up(pipeline.stat())


def test_queue_of_a_running_pipeline_is_refused_to_another(second_db, pipeline, make_pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    other = make_pipeline(pipeline.queue, database=second_db)
    with pytest.raises(psycopg.errors.ObjectInUse, match="already feeds"):
        other.start()


# -- standby ----------------------------------------------------------------------------------------------------------


def test_standby_ingests_nothing_until_it_is_promoted(make_cluster, moto):
    queue = moto.queue()
    primary = make_cluster(queue.settings)
    db = Database(primary, primary.create_database())
    db.sql("CREATE EXTENSION sqs_ingest")
    pipeline = Pipeline(db, queue)
    pipeline.start()
    assert_ingests(pipeline, 0)
    standby = make_cluster.adopt(primary.standby()).start()
    time.sleep(2)
    assert standby.pids("sqs_ingest") == []
    assert_ingests(pipeline, 10)
    stored = user_ids(pipeline)
    wait_until(lambda: standby.value("SELECT count(*) FROM user_logins", dbname=db.name) == len(stored), 20, "rows replayed")
    db.close()
    primary.stop()
    standby.promote()
    on_standby = Pipeline(Database(standby, db.name), queue)
    on_standby.wait_for(20, state="idle")
    assert_ingests(on_standby, 20)
    assert set(stored) < set(user_ids(on_standby))
    on_standby.db.close()


# -- what is missing --------------------------------------------------------------------------------------------------


def test_without_preload_mask_works_and_start_names_the_line_to_add(make_cluster, moto):
    cluster = make_cluster({**moto.queue().settings, "shared_preload_libraries": "auto_explain"}, preload=None)
    db = Database(cluster, "postgres")
    db.sql("CREATE EXTENSION sqs_ingest")
    db.sql("SELECT sqs_ingest_create_keyring()")
    assert db.value("SELECT mask('a')") == db.value("SELECT mask('a')") != "a"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refusal:
        db.sql("SELECT sqs_ingest_start()")
    assert "shared_preload_libraries = 'auto_explain,sqs_ingest'" in refusal.value.diag.message_hint
    assert db.value("SELECT sqs_ingest_status()") == {}
    # Enabled once, and then the line is lost:
    cluster.set(shared_preload_libraries="sqs_ingest").restart()
    db.sql("SELECT sqs_ingest_start()")
    wait_until(lambda: workers(cluster), what="a worker")
    cluster.unset("shared_preload_libraries").restart()
    status = db.value("SELECT sqs_ingest_status()")["user_logins"]
    assert status["state"] == "cannot_start"
    assert "shared_preload_libraries" in status["why"] and "postgresql.conf" in status["hint"]
    assert db.value("SELECT mask('a')") != "a"
    cluster.set(shared_preload_libraries="sqs_ingest").restart()
    wait_until(lambda: workers(cluster), what="a worker, by itself")
    db.close()


def test_exhausted_process_slots_are_explained_and_a_free_one_is_taken(make_cluster, moto):
    queue = moto.queue()
    # One slot is the launcher's; a parallel query takes the other one.
    cluster = make_cluster({**queue.settings, "max_worker_processes": 2, "max_logical_replication_workers": 0})
    db = Database(cluster, cluster.create_database())
    db.sql("CREATE EXTENSION sqs_ingest")
    pipeline = Pipeline(db, queue)
    taker = psycopg.connect(cluster.dsn(), autocommit=True)
    force = "debug_parallel_query" if taker.info.server_version >= 160000 else "force_parallel_mode"
    taker.execute(f"SET {force} = on")
    busy = threading.Thread(target=lambda: ignore_cancel(taker), daemon=True)
    busy.start()
    wait_until(lambda: cluster.pids("parallel worker"), what="the slot is taken")
    pipeline.start()
    stat = pipeline.wait_for(20, state="cannot_start")
    assert "slot" in stat["why"] and "max_worker_processes" in stat["hint"]
    assert re.search(r"sqs_ingest.*slot.*\n.*HINT.*max_worker_processes", cluster.log())
    assert len(re.findall("no background worker slot is free", cluster.log())) < 5
    taker.cancel()
    busy.join(10)
    pipeline.wait_for(40, state="idle")
    assert_ingests(pipeline, 0)
    db.close()


def ignore_cancel(connection):
    try:
        connection.execute("SELECT pg_sleep(300)")
    except psycopg.errors.QueryCanceled:
        pass


def test_second_pipeline_beyond_max_workers_says_why_and_starts_when_there_is_room(make_cluster, moto):
    cluster = make_cluster({"sqs_ingest.max_workers": 1})
    pipelines = []
    for _ in range(2):
        queue = moto.queue()
        db = Database(cluster, cluster.create_database())
        db.sql("CREATE EXTENSION sqs_ingest")
        cluster.set(queue.settings).reload()
        pipelines.append(Pipeline(db, queue))
        pipelines[-1].start()
        db.sql("UPDATE sqs_ingest_pipeline SET queue_url = %s", [queue.url])
        if len(pipelines) == 1:
            pipelines[0].wait_for(state="idle")
    first, second = pipelines
    stat = second.wait_for(20, state="cannot_start")
    assert "sqs_ingest.max_workers" in stat["why"] + stat["hint"]
    assert_ingests(first, 0)
    first.stop()
    second.wait_for(40, state="idle")
    assert_ingests(second, 0)
    for pipeline in pipelines:
        pipeline.db.close()


@pytest.mark.parametrize("fault", ["missing", "readable by others"])
def test_keyring_at_fault_is_explained_and_costs_no_message(pipeline, fault):
    cluster, messages = pipeline.cluster, login_messages(5)
    keyring, away = cluster.data / "sqs_ingest.keyring", cluster.data / "sqs_ingest.keyring.away"
    pipeline.queue.send(messages)
    try:
        with pipeline.db.connect(autocommit=False) as session:
            session.execute("SELECT sqs_ingest_start()")
            keyring.rename(away) if fault == "missing" else keyring.chmod(0o644)
            session.commit()
        stat = pipeline.wait_for(state="backing_off")
        assert "keyring" in stat["why"] and stat["hint"]
        assert stat["received"] == 0
        with pipeline.db.connect() as session, pytest.raises(psycopg.Error, match="keyring"):
            session.execute("SELECT sqs_ingest_start()")
    finally:
        if away.exists():
            away.rename(keyring)
        keyring.chmod(0o600)
    cluster.reload()
    pipeline.wait_for(40, inserted=5, deleted=5)
    assert user_ids(pipeline) == users_of(messages)


def test_keyring_that_goes_bad_under_a_running_worker_is_not_used_and_nothing_stops(pipeline):
    """The keys read before are good for as long as the process lives; it says that it keeps them."""
    cluster = pipeline.cluster
    keyring = cluster.data / "sqs_ingest.keyring"
    pipeline.start()
    pipeline.wait_for(state="idle")
    since = cluster.log_position()
    try:
        os.chmod(keyring, 0o644)
        cluster.reload()
        cluster.wait_for_log("keeps the masking keys", since)
        assert_ingests(pipeline, 0)
    finally:
        os.chmod(keyring, 0o600)
    cluster.reload()
    assert_ingests(pipeline, 10)
