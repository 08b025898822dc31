"""Pipelines of any queue into any table, several in one database.

    from pipelines import make_proxy_fixture, pipelines_fixture  # noqa: F401

    def test_something(pipelines):
        pipelines.db.sql("CREATE TABLE t (id integer)")
        pipeline = pipelines("t", [{"column": "id", "from": "/id"}])
"""
import pytest
from harness import unique
from pipeline import create_pipeline, stop_soon
from proxy import make_proxy_fixture, short_polls  # noqa: F401

# What docs/security.md grants to a role that runs its own pipelines.
OWNERS_FUNCTIONS = ["sqs_ingest_" + name for name in (
    "create_pipeline", "alter_pipeline", "drop_pipeline", "start", "stop", "check", "preview", "redrive", "purge", "forget", "stat_reset")]  # fmt: skip


class Pipelines:
    """Makes pipelines in `db`, each with a queue of its own; all are stopped and their queues deleted at the end.

        pipelines("t", mapping, on_conflict="nothing")
        pipelines("t", mapping, user=pipelines.owner())

    Their requests go through `proxy`, which keeps polls short: nobody who left holds one.
    """

    def __init__(self, db, moto, proxy):
        self.db, self.moto, self.proxy, self.made, self.queues = db, moto, proxy, [], []
        proxy.on("ReceiveMessage", short_polls)
        db.sql("CREATE EXTENSION sqs_ingest")

    def queue(self, **attributes):
        self.queues.append(self.moto.queue(**attributes))
        return self.queues[-1]

    def __call__(self, target, columns=None, name=None, queue=None, **options):
        name = f"events{len(self.made) or ''}" if name is None else name
        options = {"endpoint_url": self.proxy.endpoint, **options}
        self.made.append(create_pipeline(self.db, queue or self.queue(), target, columns, name, **options))
        return self.made[-1]

    def owner(self):
        """A new role with the rights that docs/security.md names for who runs pipelines of its own."""
        role = unique("owner")
        self.db.sql(f"CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}")
        functions = self.db.value(
            "SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc WHERE proname = ANY(%s)", [OWNERS_FUNCTIONS])
        self.db.sql(f"GRANT EXECUTE ON FUNCTION {functions} TO {role}")
        self.db.sql(f"GRANT EXECUTE ON PROCEDURE sqs_ingest_drain(text, bigint) TO {role}")
        return role

    def stop(self):
        self.db.close()
        for pipeline in self.made:
            if self.db.sql("SELECT 1 FROM pg_stat_sqs_ingest WHERE pipeline = %s AND state <> 'stopped'", [pipeline.name]):
                stop_soon(pipeline)
        for queue in self.queues:
            queue.delete()


@pytest.fixture(name="pipelines")
def pipelines_fixture(db, moto, make_proxy):
    pipelines = Pipelines(db, moto, make_proxy(moto))
    yield pipelines
    db.cluster.ensure_running()
    pipelines.stop()
