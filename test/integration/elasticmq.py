"""ElasticMQ: an SQS server that keeps FIFO queues' rules, with SQS's own limits.

scripts/test brings its jars (test/elasticmq.sha256) to build/elasticmq. Test modules import the fixtures by name.
"""
from pathlib import Path

import pytest
from harness import SqsServer

ROOT = Path(__file__).parents[2]

CONFIGURATION = """
node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}
generate-node-address = {any_port}
rest-sqs {{ enabled = true, bind-hostname = "127.0.0.1", bind-port = {port}, sqs-limits = strict }}
rest-stats.enabled = false
aws {{ region = us-east-1, accountId = 123456789012 }}
queues-storage.enabled = false
messages-storage.enabled = false
"""

# A server of a few seconds: start-up time is what counts.
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData", "-Xmx256m"]


def jars(folder="elasticmq"):
    """The class path of what test/<folder>.sha256 lists."""
    names = [line.split()[1] for line in (ROOT / "test" / f"{folder}.sha256").read_text().splitlines()]
    found = [ROOT / "build" / folder / name for name in names]
    assert all(map(Path.exists, found)), "ElasticMQ is not there: scripts/test integration brings it"
    return ":".join(map(str, found))


class ElasticMq(SqsServer):
    LISTENING = r"Started SQS rest server, bind address 127\.0\.0\.1:(\d+)"

    def command(self):
        configuration = self.directory / "elasticmq.conf"
        configuration.write_text(CONFIGURATION.format(port=self.port, any_port=str(self.port == 0).lower()))
        return [*JAVA, f"-Dconfig.file={configuration}", "-cp", jars(), "org.elasticmq.server.Main"], {}


@pytest.fixture(name="elasticmq", scope="module")
def elasticmq_fixture():
    """The server that a module's tests share."""
    server = ElasticMq()
    yield server
    server.destroy()


@pytest.fixture(name="fifo_queue")
def fifo_queue_fixture(elasticmq):
    """A fresh FIFO queue without deduplication by content. Others: elasticmq.queue(FifoQueue=True, …)."""
    queue = elasticmq.queue(FifoQueue=True)
    yield queue
    queue.delete()
