"""SQS servers that know only the Query protocol, and a client that speaks it (boto3 has forgotten it).

scripts/test brings them. Test modules import the fixtures by name.
"""
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import botocore.exceptions
import pytest
from elasticmq import JAVA, jars
from harness import Moto, SqsServer

ROOT = Path(__file__).parents[2]
AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0"


def _flatten(name, value):
    """{"A": [{"B": 1}]} as Query's A.1.B=1; {"A": {"x": 1}} as A.1.Name=x, A.1.Value=1."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(f"{name}.{key}" if name else key, inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from _flatten(f"{name}.{number}", inner)
    else:
        yield name, str(value)


def _pairs(mapping):
    return [{"Name": name, "Value": value} for name, value in mapping.items()]


class QueryClient:
    """What harness.Queue asks of boto3's client, in the Query protocol."""

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def call(self, action, **parameters):
        """The answer's <...Result> element, without namespaces."""
        form = {"Action": action, "Version": "2012-11-05", **dict(_flatten("", parameters))}
        request = urllib.request.Request(self.endpoint, urllib.parse.urlencode(form).encode(), {"Authorization": AUTHORIZATION})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                root = self._parse(answer.read())
        except urllib.error.HTTPError as error:
            root = self._parse(error.read())
            said = {"Code": root.findtext(".//Code"), "Message": root.findtext(".//Message")}
            raise botocore.exceptions.ClientError({"Error": said}, action) from None
        return root.find(f"{action}Result")

    @staticmethod
    def _parse(text):
        root = ElementTree.fromstring(text)
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        return root

    def create_queue(self, QueueName, Attributes):
        return {"QueueUrl": self.call("CreateQueue", QueueName=QueueName, Attribute=_pairs(Attributes)).findtext("QueueUrl")}

    def send_message(self, QueueUrl, MessageBody, MessageAttributes=None):
        attributes = _pairs(MessageAttributes or {})
        return {"MessageId": self.call("SendMessage", QueueUrl=QueueUrl, MessageBody=MessageBody, MessageAttribute=attributes).findtext("MessageId")}

    def send_message_batch(self, QueueUrl, Entries):
        result = self.call("SendMessageBatch", QueueUrl=QueueUrl, SendMessageBatchRequestEntry=Entries)
        sent = [{"Id": e.findtext("Id"), "MessageId": e.findtext("MessageId")} for e in result.findall("SendMessageBatchResultEntry")]
        return {"Successful": sent, "Failed": [e.findtext("Code") for e in result.findall("BatchResultErrorEntry")]}

    def get_queue_attributes(self, QueueUrl, AttributeNames):
        result = self.call("GetQueueAttributes", QueueUrl=QueueUrl, AttributeName=AttributeNames)
        return {"Attributes": {e.findtext("Name"): e.findtext("Value") for e in result.findall("Attribute")}}

    def set_queue_attributes(self, QueueUrl, Attributes):
        self.call("SetQueueAttributes", QueueUrl=QueueUrl, Attribute=_pairs(Attributes))

    def delete_queue(self, QueueUrl):
        self.call("DeleteQueue", QueueUrl=QueueUrl)


class OldMoto(Moto):
    """moto 4.1.9. It answers AWS JSON with an XML error that the queue does not exist."""

    PYTHON = ROOT / "build" / "venv-query" / "bin" / "python"

    def command(self):
        assert self.PYTHON.exists(), "the old moto is not there: scripts/test integration brings it"
        command, env = super().command()
        return [self.PYTHON, *command[1:]], env

    def client(self, service="sqs", **options):
        return QueryClient(self.endpoint) if service == "sqs" else super().client(service, **options)


class OldElasticMq(SqsServer):
    """ElasticMQ 1.3.9. It answers AWS JSON with an XML error: MissingAction. Its queues' URLs have a path of their own."""

    LISTENING = r"listening on .*:(\d+)"

    def command(self):
        return [*JAVA, "-cp", jars("elasticmq-query"), "bsh.Interpreter", Path(__file__).with_name("elasticmq_query.bsh"), self.port], {}

    def client(self, service="sqs", **options):
        return QueryClient(self.endpoint)


@pytest.fixture(name="old_moto", scope="module")
def old_moto_fixture():
    server = OldMoto()
    yield server
    server.destroy()


@pytest.fixture(name="old_elasticmq", scope="module")
def old_elasticmq_fixture():
    server = OldElasticMq()
    yield server
    server.destroy()
