"""ALTER EXTENSION sqs_ingest UPDATE while workers run and messages flow: a release that follows may bring new functions,
another view and more columns, and no message is lost, doubled or blamed for it.

What this release brings is tested in test_upgrade.py. The ones after it are made up here, in the server's extension
directory, and taken away again.
"""
import re
import threading

import psycopg
import pytest
from flow import Flow, assert_each_ingested_once, mixed_messages
from harness import wait_until
from proxy import make_pipeline_fixture, make_proxy_fixture, proxied_fixture, proxy_fixture  # noqa: F401
from redelivery import Handouts
from versions import SQL, installed, version

BASE, NEXT, BROKEN = "1.1", "1.1.1test", "1.1.2test"
INSTALL_SCRIPT = SQL / f"sqs_ingest--{BASE}.sql"

MORE_COLUMNS = """
    ALTER TABLE @extschema@.sqs_ingest_pipeline ADD COLUMN test_note text;
    ALTER TABLE @extschema@.sqs_ingest_dead_letter ADD COLUMN test_note text NOT NULL DEFAULT 'old';
    ALTER TABLE @extschema@.sqs_ingest_ledger ADD COLUMN test_at timestamptz NOT NULL DEFAULT pg_catalog.now();
"""


def objects_anew():
    """What an upgrade script repeats of the install script: all functions, and the view with one column more."""
    script = INSTALL_SCRIPT.read_text()
    functions = re.findall(r"^CREATE (?:FUNCTION|PROCEDURE) .*?;\n(?=COMMENT)", script, re.DOTALL | re.MULTILINE)
    (view,) = re.findall(r"^CREATE VIEW .*?;\n", script, re.DOTALL | re.MULTILINE)
    view, columns = re.subn(r"(s\.credentials)(\s+FROM)", r"\1, 1 AS test_column\2", view)
    assert len(functions) > 20 and columns == 1
    return "".join(statement.replace("CREATE ", "CREATE OR REPLACE ", 1) for statement in [*functions, view])


# As an upgrade script gives a function another column; the library that runs here does not know it.
ONE_MORE_OF_STAT = """
    UPDATE pg_catalog.pg_proc SET proallargtypes = proallargtypes || 'text'::regtype::oid, proargmodes = proargmodes || '{o}'::"char"[],
        proargnames = proargnames || '{test_column}'::text[] WHERE oid = '@extschema@.sqs_ingest_stat()'::regprocedure;
"""
SCRIPTS = {
    f"sqs_ingest--{BASE}--{NEXT}.sql": lambda: MORE_COLUMNS + objects_anew() + ONE_MORE_OF_STAT,
    f"sqs_ingest--{BASE}--{BROKEN}.sql": lambda: MORE_COLUMNS + objects_anew() + "SELECT 1 / 0;\n",
}


@pytest.fixture(scope="module", autouse=True)
def next_versions():
    """The made-up upgrade scripts, as long as this module runs."""
    with installed({name: text() for name, text in SCRIPTS.items()}):
        yield


@pytest.fixture
def running(proxied, proxy):
    Handouts(proxy, proxied.queue)
    proxied.start()
    proxied.wait_for(state="idle")
    return proxied


def workers(pipeline):
    return pipeline.cluster.pids("sqs_ingest worker", pipeline.db.name)


def test_update_while_messages_flow_costs_none_and_the_workers_go_on(running):
    db, before, since = running.db, workers(running), running.cluster.log_position()
    with Flow(running) as flow:
        flow.wait_for_more()
        db.sql(f"ALTER EXTENSION sqs_ingest UPDATE TO '{NEXT}'")
        flow.wait_for_more(40)
    assert version(running.db) == NEXT
    assert_each_ingested_once(running, flow.sent)
    assert {letter["test_note"] for letter in running.dead_letters()} == {"old"}
    assert workers(running) == before
    assert not re.search("ERROR|FATAL|WARNING", running.cluster.log(since))


def test_status_is_readable_before_and_after_an_update_in_the_same_session(running):
    """Prepared statements of the session included."""
    with running.db.connect() as session:
        look = "SELECT pipeline, state FROM pg_stat_sqs_ingest"
        for _ in range(7):  # psycopg prepares it on the way
            assert session.execute(look).fetchall() == [("user_logins", "idle")]
        assert session.execute("SELECT sqs_ingest_status()").fetchone()[0]["user_logins"].get("test_column") is None
        running.db.sql(f"ALTER EXTENSION sqs_ingest UPDATE TO '{NEXT}'")
        assert session.execute(look).fetchall() == [("user_logins", "idle")]
        assert session.execute("SELECT sqs_ingest_status()").fetchone()[0]["user_logins"]["test_column"] == 1


def test_monitoring_role_and_owner_see_the_status_after_an_update(running):
    """CREATE OR REPLACE keeps what was granted."""
    running.db.sql(f"ALTER EXTENSION sqs_ingest UPDATE TO '{NEXT}'")
    with running.db.connect() as session:
        session.execute("SET ROLE pg_monitor")
        assert session.execute("SELECT pipeline, test_column FROM pg_stat_sqs_ingest").fetchall() == [("user_logins", 1)]
        assert "user_logins" in session.execute("SELECT sqs_ingest_status()").fetchone()[0]


def test_library_that_is_older_than_the_catalog_shows_the_status_that_it_knows(running):
    """So it is on a standby that was not restarted yet when the primary was updated."""
    running.db.sql(f"ALTER EXTENSION sqs_ingest UPDATE TO '{NEXT}'")
    assert running.db.sql("SELECT pipeline, state, test_column FROM sqs_ingest_stat()") == [("user_logins", "idle", None)]


def test_worker_that_meets_the_lock_of_an_update_waits_and_writes_then(running):
    """The update takes its time: the messages of the meantime are neither rows nor dead letters before it is committed."""
    before, messages = workers(running), mixed_messages(10)
    with running.db.connect(autocommit=False) as session:
        session.execute(f"ALTER EXTENSION sqs_ingest UPDATE TO '{NEXT}'")
        running.queue.send(messages)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s) AND wait_event_type = 'Lock'"
        wait_until(lambda: running.db.value(waits, [before]), 20, "the worker waits for the lock")
        session.commit()
    assert_each_ingested_once(running, messages)
    assert workers(running) == before


@pytest.mark.parametrize("end", ["script that fails", "ROLLBACK"])
def test_update_that_is_rolled_back_leaves_everything_as_it_was(running, end):
    db, before = running.db, workers(running)
    columns = "SELECT attrelid::regclass::text, attname FROM pg_attribute WHERE attname LIKE 'test%'"
    with Flow(running) as flow:
        flow.wait_for_more()
        with db.connect(autocommit=False) as session:
            if end == "ROLLBACK":
                session.execute(f"ALTER EXTENSION sqs_ingest UPDATE TO '{NEXT}'")
                session.rollback()
            else:
                with pytest.raises(psycopg.errors.DivisionByZero):
                    session.execute(f"ALTER EXTENSION sqs_ingest UPDATE TO '{BROKEN}'")
        flow.wait_for_more()
        assert version(db) == BASE and db.sql(columns) == []
    assert_each_ingested_once(running, flow.sent)
    assert workers(running) == before
    # And the one that works still does.
    db.sql(f"ALTER EXTENSION sqs_ingest UPDATE TO '{NEXT}'")
    assert len(db.sql(columns)) >= 4


def test_stop_update_and_start_in_one_transaction_is_one_step(running):
    with Flow(running) as flow:
        flow.wait_for_more()
        with running.db.connect(autocommit=False) as session:
            session.execute("SELECT sqs_ingest_stop()")
            assert workers(running) == []
            session.execute(f"ALTER EXTENSION sqs_ingest UPDATE TO '{NEXT}'")
            session.execute("UPDATE sqs_ingest_pipeline SET test_note = 'updated'")
            session.execute("SELECT sqs_ingest_start()")
            session.commit()
        flow.wait_for_more()
    assert_each_ingested_once(running, flow.sent)


def test_drain_goes_on_through_an_update(proxied, proxy):
    handouts = Handouts(proxy, proxied.queue, slow=0.2)
    messages = mixed_messages(250)
    proxied.start()
    proxied.stop()
    proxied.queue.send(messages)
    failed = []

    def drain():
        try:
            with proxied.db.connect() as session:
                session.execute("CALL sqs_ingest_drain()")
        except psycopg.Error as error:
            failed.append(error)

    thread = threading.Thread(target=drain)
    thread.start()
    wait_until(lambda: proxied.db.value("SELECT count(*) FROM sqs_ingest_ledger") > 20, interval=0.005, what="it drains")
    proxied.db.sql(f"ALTER EXTENSION sqs_ingest UPDATE TO '{NEXT}'")
    at_update = proxied.db.value("SELECT count(*) FROM sqs_ingest_ledger")
    handouts.slow = 0
    thread.join(60)
    assert failed == [] and not thread.is_alive()
    assert at_update < 250, "the update came too late to tell anything"
    assert_each_ingested_once(proxied, messages)


def test_updated_pipeline_resumes_after_a_restart(running):
    running.db.sql(f"ALTER EXTENSION sqs_ingest UPDATE TO '{NEXT}'")
    running.cluster.restart()
    running.wait_for(state="idle")
    messages = mixed_messages(10)
    running.queue.send(messages)
    assert_each_ingested_once(running, messages)


def test_set_schema_is_refused_and_costs_nothing(running):
    """Its schema is chosen at CREATE EXTENSION: the control file says relocatable = false."""
    running.db.sql("CREATE SCHEMA elsewhere")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match='extension "sqs_ingest" does not support SET SCHEMA'):
        running.db.sql("ALTER EXTENSION sqs_ingest SET SCHEMA elsewhere")
    messages = mixed_messages(10)
    running.queue.send(messages)
    assert_each_ingested_once(running, messages)


def test_schema_of_the_extension_can_be_renamed_under_the_workers(running, proxy):
    """Nothing remembers its name."""
    db, before = running.db, mixed_messages(10)
    running.queue.send(before)
    assert_each_ingested_once(running, before)
    db.sql("ALTER SCHEMA public RENAME TO renamed")
    db.sql("UPDATE renamed.sqs_ingest_pipeline SET target = 'renamed.user_logins'")
    db.sql(f'ALTER DATABASE "{db.name}" SET search_path = renamed')
    db.close()
    after = mixed_messages(10, 10)
    running.queue.send(after)
    assert_each_ingested_once(running, before + after)
    assert db.value("SELECT sqs_ingest_status()")["user_logins"]["inserted"] > 0
    db.sql("ALTER SCHEMA renamed RENAME TO public")
    db.sql(f'ALTER DATABASE "{db.name}" RESET search_path')
