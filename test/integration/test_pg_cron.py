"""Ingestion as a cron job: pg_cron calls sqs_ingest_drain(), no worker is needed."""
import subprocess
from pathlib import Path

import pytest
from harness import PG_CONFIG, Database, login_messages, unique, wait_until
from pipeline import Pipeline, assert_counters_add_up


@pytest.fixture(scope="module")
def pg_cron():
    """Fails where pg_cron is missing, with what to do about it."""
    libraries = Path(subprocess.check_output([PG_CONFIG, "--pkglibdir"], text=True).strip())
    assert (libraries / "pg_cron.so").exists(), (
        f"pg_cron is not in {libraries}: install the package postgresql-MAJOR-cron, or build pg_cron for {PG_CONFIG}"
    )


@pytest.mark.parametrize("background_workers", [False, True], ids=["over a connection", "in a background worker"])
def test_cron_job_ingests_what_came_since_the_last_run(pg_cron, make_cluster, queue, background_workers):
    name = unique("db")
    cluster = make_cluster(
        {
            **queue.settings,
            "shared_preload_libraries": "pg_cron, sqs_ingest",
            "cron.database_name": name,
            "cron.use_background_workers": background_workers,
        }
    )
    db = Database(cluster, cluster.create_database(name))
    cluster.set({"cron.host": cluster.directory}).restart()  # it has no other address
    db.sql("CREATE EXTENSION pg_cron")
    db.sql("CREATE EXTENSION sqs_ingest")
    pipeline = Pipeline(db, queue)
    with db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        session.execute("SELECT sqs_ingest_stop()")
        session.commit()
    queue.send([*login_messages(40), "no json"])

    version = db.value("SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'").replace("-", ".").split(".")
    every_second = [int(version[0]), int(version[1])] >= [1, 5]  # older ones count in minutes
    job = db.value("SELECT cron.schedule('drain', %s, 'CALL sqs_ingest_drain()')", ["1 second" if every_second else "@reboot"])
    for round, rows in enumerate((40, 50), start=1):
        if not every_second:
            cluster.restart()
        wait_until(lambda: len(pipeline.rows()) == rows, 15, lambda: f"ingested: {runs(db)}; {pipeline.stat()}")
        wait_until(queue.is_empty, 10, "the messages are deleted from the queue")
        wait_until(lambda: [status for status, _ in runs(db)].count("succeeded") >= round, 10, lambda: f"said to have succeeded: {runs(db)}")
        if rows == 40:
            queue.send(login_messages(10, start=40))
    db.sql("SELECT cron.unschedule(%s)", [job])
    wait_until(lambda: not any(status == "running" for status, _ in runs(db)), 15, "the last run is over")

    # From 1.5 on unschedule() cancels a run that is under way.
    assert [run for run in runs(db) if run[0] != "succeeded" and "cancel" not in (run[1] or "")] == []
    assert [letter["reason"] for letter in pipeline.dead_letters()] == ["not_json"]
    assert_counters_add_up(pipeline.stat())
    assert cluster.pids("sqs_ingest worker") == []
    db.close()


def runs(db):
    return db.sql("SELECT status, return_message FROM cron.job_run_details ORDER BY runid")
