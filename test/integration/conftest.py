"""Fixtures of the integration tests. One cluster per module, a fresh database and queue per test.

A module can say, as plain variables:
  CLUSTER_SETTINGS = {"sqs_ingest.max_workers": 2}   added to its cluster's postgresql.conf
  CLUSTER_ENV = {"AWS_PROFILE": "x"}                 added to its postmaster's environment (None removes a name)
  CLUSTER_PRELOAD = None                             no shared_preload_libraries
"""
import signal

import pytest
from harness import Cluster, Database, Moto


def pytest_configure(config):
    def interrupt(*_):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: fixtures get to clean up
        signal.signal(number, interrupt)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for cluster in Cluster.alive:
            report.sections.append((f"server log, {cluster.directory}", cluster.log_tail(60)))
    return report


@pytest.fixture(scope="session")
def moto():
    """The SQS server that the tests share. A test that stops or pauses its server takes own_moto."""
    server = Moto()
    yield server
    server.destroy()


@pytest.fixture(scope="session")
def strict_moto():
    """An SQS server that verifies signatures; strict_moto.env() holds the only credentials that it accepts."""
    server = Moto(verify_signatures=True)
    yield server
    server.destroy()


@pytest.fixture
def own_moto():
    server = Moto()
    yield server
    server.destroy()


@pytest.fixture
def queue(moto):
    """A fresh standard queue. Others, with attributes or FIFO: moto.queue(...)."""
    queue = moto.queue()
    yield queue
    queue.delete()


@pytest.fixture(scope="module")
def cluster(request):
    module = request.module
    cluster = Cluster(
        getattr(module, "CLUSTER_SETTINGS", None),
        getattr(module, "CLUSTER_ENV", None),
        getattr(module, "CLUSTER_PRELOAD", "sqs_ingest"),
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture
def make_cluster():
    """make_cluster(settings, env, preload): more clusters, started, for one test. adopt(cluster) has one destroyed."""
    made = []

    def make(*arguments, **options):
        made.append(Cluster(*arguments, **options))
        return made[-1].start()

    make.adopt = lambda cluster: made.append(cluster) or cluster
    yield make
    for cluster in reversed(made):
        cluster.destroy()


@pytest.fixture
def db(cluster):
    """A fresh, empty database of the module's cluster, dropped by force afterwards."""
    cluster.ensure_running()
    database = Database(cluster, cluster.create_database())
    yield database
    database.close()
    cluster.ensure_running().drop_database(database.name)
