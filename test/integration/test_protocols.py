"""SQS's two protocols: AWS JSON 1.0, and Query with XML answers, which is all that older servers know."""
import json
import re

import pytest
from harness import Database, login_message, login_messages
from pipeline import Pipeline, assert_counters_add_up, make_pipeline_fixture, pipeline_fixture, prepare, user_ids, users_of  # noqa: F401
from proxy import Answer, answer, make_proxy_fixture
from query_servers import old_elasticmq_fixture, old_moto_fixture  # noqa: F401

ROGUE_MESSAGE = {"foo": "oops_wrong_msg_type", "bar": "123"}
WEB_PAGE = b"<!doctype html><html><head><title>500</title></head><body><h1>Internal Server Error</h1></body></html>"


def speak(pipeline, protocol):
    prepare(pipeline)
    pipeline.db.sql("UPDATE sqs_ingest_pipeline SET protocol = %s WHERE name = %s", [protocol, pipeline.name])


@pytest.fixture(name="old_queue")
def old_queue_fixture(old_moto):
    queue = old_moto.queue()
    yield queue
    queue.delete()


@pytest.fixture(name="any_old_queue", params=["moto", "elasticmq"])
def any_old_queue_fixture(request):
    """A queue on each server that knows only Query."""
    queue = request.getfixturevalue(f"old_{request.param}").queue()
    yield queue
    queue.delete()


@pytest.fixture(name="old_proxy")
def old_proxy_fixture(old_moto, make_proxy):
    """A proxy in front of the server that knows only the Query protocol."""
    return make_proxy(old_moto)


@pytest.fixture(name="behind_old_proxy")
def behind_old_proxy_fixture(old_proxy, old_queue, make_pipeline):
    return make_pipeline(old_queue, {"sqs_ingest.endpoint_url": old_proxy.endpoint})


@pytest.fixture(name="new_proxy")
def new_proxy_fixture(moto, make_proxy):
    return make_proxy(moto)


@pytest.fixture(name="behind_new_proxy")
def behind_new_proxy_fixture(new_proxy, queue, make_pipeline):
    return make_pipeline(queue, {"sqs_ingest.endpoint_url": new_proxy.endpoint})


def protocols_asked(proxy, action=None):
    return [request.protocol for request in proxy.asked(action)]


# -- a server that knows only Query -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["auto", "query"])
def test_the_whole_job_is_done_with_a_server_that_knows_only_query(any_old_queue, make_pipeline, protocol):
    messages = login_messages(99)
    ids = any_old_queue.send([*messages[:40], ROGUE_MESSAGE, *messages[40:]])
    pipeline = make_pipeline(any_old_queue)
    speak(pipeline, protocol)
    pipeline.start()
    stat = pipeline.wait_until_ingested(100)

    assert user_ids(pipeline) == users_of(messages)
    assert (stat["inserted"], stat["dead_letters"], stat["released"]) == (99, 1, 0)
    assert_counters_add_up(stat)
    assert stat["protocol"] == "query"
    assert stat["receive_errors"] == stat["delete_failures"] == 0
    assert stat["last_error"] is None
    assert any_old_queue.is_empty()
    (letter,) = pipeline.dead_letters()
    assert (letter["message_id"], letter["reason"]) == (ids[40], "missing_field")


def test_auto_asks_once_in_json_and_goes_on_in_query(behind_old_proxy, old_proxy):
    behind_old_proxy.start()
    behind_old_proxy.queue.send(login_messages(30))
    behind_old_proxy.wait_until_ingested(30)
    asked = protocols_asked(old_proxy)
    assert asked.count("json") == 1 and asked[:2] == ["json", "query"]
    assert "DeleteMessageBatch" in {request.action for request in old_proxy.asked()}


def test_a_duplicate_is_recognised_and_deleted_over_query(behind_old_proxy, old_proxy):
    handles = []

    def noted(request, forward):
        request.body = request.body.replace(b"WaitTimeSeconds=20", b"WaitTimeSeconds=1")
        answer = forward()
        handles.extend(re.findall("<ReceiptHandle>(.*?)</ReceiptHandle>", answer.body.decode()))
        return answer

    def pretended(request, forward):
        """The queue says that it deleted the message, and still has it."""
        entry = "<DeleteMessageBatchResultEntry><Id>0</Id></DeleteMessageBatchResultEntry>"
        return Answer(body=f"<DeleteMessageBatchResponse><DeleteMessageBatchResult>{entry}</DeleteMessageBatchResult>"
                           "</DeleteMessageBatchResponse>".encode())  # fmt: skip

    old_proxy.on("ReceiveMessage", noted).on("DeleteMessageBatch", pretended, times=1)
    queue = behind_old_proxy.queue
    queue.send(login_messages(1))
    behind_old_proxy.start()
    behind_old_proxy.wait_for(inserted=1, deleted=1)
    queue.client.call("ChangeMessageVisibility", QueueUrl=queue.url, ReceiptHandle=handles[0], VisibilityTimeout=0)
    behind_old_proxy.wait_for(received=2, duplicates=1, deleted=2)
    assert len(behind_old_proxy.rows()) == 1
    assert queue.is_empty()


def test_a_delete_that_fails_for_one_message_is_tried_again_over_query(behind_old_proxy, old_proxy):
    def failed(request, forward):
        entry = "<Id>0</Id><Code>InternalError</Code><Message>not now</Message><SenderFault>false</SenderFault>"
        return Answer(body=f"<DeleteMessageBatchResponse><DeleteMessageBatchResult><BatchResultErrorEntry>{entry}</BatchResultErrorEntry>"
                           "</DeleteMessageBatchResult></DeleteMessageBatchResponse>".encode())  # fmt: skip

    old_proxy.on("DeleteMessageBatch", failed, times=1)
    behind_old_proxy.queue.send(login_messages(1))
    behind_old_proxy.start()
    behind_old_proxy.wait_for(deleted=1, delete_failures=1)
    assert behind_old_proxy.queue.is_empty()


def test_a_server_that_knows_only_query_is_refused_in_json_with_a_hint(any_old_queue, make_pipeline):
    pipeline = make_pipeline(any_old_queue)
    speak(pipeline, "json")
    pipeline.start()
    error = pipeline.wait_for(state="backing_off", last_error=lambda text: text)["last_error"]
    assert "does not seem to know the AWS JSON protocol" in error
    hint = pipeline.db.value("SELECT sqs_ingest_status() -> 'user_logins' ->> 'hint'")
    assert "protocol" in hint and "auto" in hint
    # Nothing is lost: once it is put right, the work is done.
    any_old_queue.send(login_messages(3))
    pipeline.db.sql("UPDATE sqs_ingest_pipeline SET protocol = 'auto'")
    pipeline.wait_until_ingested(3, timeout=60)


def test_a_body_comes_through_query_to_the_byte(any_old_queue, make_pipeline):
    texts = ["<a>&amp;\"'", " both ends ", "line\r\nends\n\ttabs", "caf\u00e9 \u20ac \U0001f600", "]]>", "&#x41;"]
    messages = [login_message(i, device_id=text) for i, text in enumerate(texts)]
    any_old_queue.send([json.dumps(message, ensure_ascii=False) for message in messages])
    pipeline = make_pipeline(any_old_queue)
    pipeline.start()
    pipeline.wait_until_ingested(len(texts))
    found = {row["user_id"]: row["masked_device_id"] for row in pipeline.rows()}
    for message in messages:
        assert found[message["user_id"]] == pipeline.db.value("SELECT mask(%s)", [message["device_id"]])


def test_a_drain_empties_a_queue_over_query(any_old_queue, make_pipeline):
    pipeline = make_pipeline(any_old_queue)
    prepare(pipeline)
    any_old_queue.send(login_messages(25))
    pipeline.db.sql("CALL sqs_ingest_drain('user_logins')")
    assert len(pipeline.rows()) == 25
    assert any_old_queue.is_empty()


@pytest.mark.parametrize("protocol", ["auto", "query"])
def test_message_attributes_come_through_either_protocol(db, make_pipeline, moto, old_moto, protocol):
    server = moto if protocol == "auto" else old_moto
    queue = server.queue()
    attributes = {"tenant": {"DataType": "String", "StringValue": "caf\u00e9 <&>"}, "n": {"DataType": "Number", "StringValue": "7"},
                  "unasked": {"DataType": "Binary", "BinaryValue": "AAH/" if server is old_moto else b"\0\1\xff"}}  # fmt: skip
    queue.client.send_message(QueueUrl=queue.url, MessageBody='{"id": 1}', MessageAttributes=attributes)
    pipeline = make_pipeline(queue)
    pipeline.name = "events"
    db.sql("CREATE TABLE events (id integer, tenant text, n integer)")
    sources = {"id": "/id", "tenant": "@attribute:tenant", "n": "@attribute:n"}
    columns = [{"column": column, "from": source} for column, source in sources.items()]
    db.sql("SELECT sqs_ingest_create_pipeline('events', %s, 'events', %s, protocol => %s)", [queue.url, json.dumps(columns), protocol])
    if not (db.cluster.data / "sqs_ingest.keyring").exists():
        db.sql("SELECT sqs_ingest_create_keyring()")
    pipeline.start()
    pipeline.wait_until_done(1)
    assert db.sql("SELECT * FROM events") == [(1, "caf\u00e9 <&>", 7)]


# -- servers that know both -------------------------------------------------------------------------------------------


def test_auto_stays_with_json_where_it_is_known(behind_new_proxy, new_proxy):
    behind_new_proxy.start()
    behind_new_proxy.queue.send(login_messages(20))
    stat = behind_new_proxy.wait_until_ingested(20)
    assert stat["protocol"] == "json"
    assert set(protocols_asked(new_proxy)) == {"json"}


def test_query_requests_are_signed_as_the_server_verifies(strict_moto, make_cluster, make_proxy):
    cluster = make_cluster(env=strict_moto.env())
    queue = strict_moto.queue()
    proxy = make_proxy(strict_moto)
    db = Database(cluster, "postgres")
    db.sql("CREATE EXTENSION sqs_ingest")
    pipeline = Pipeline(db, queue).configure({"sqs_ingest.endpoint_url": proxy.endpoint})
    speak(pipeline, "query")
    queue.send(login_messages(12))
    pipeline.start()
    pipeline.wait_until_ingested(12)
    assert set(protocols_asked(proxy)) == {"query"}
    assert queue.is_empty()


@pytest.mark.parametrize("outage", [answer(500, WEB_PAGE), answer(503, WEB_PAGE), answer(500), answer(200, WEB_PAGE)],
                         ids=["500", "503", "empty", "welcome page"])  # fmt: skip
def test_an_outage_does_not_settle_the_wrong_protocol(behind_new_proxy, new_proxy, outage):
    """A broken proxy says the same to both protocols."""
    new_proxy.on("GetQueueAttributes", outage, times=6)
    behind_new_proxy.start()
    behind_new_proxy.queue.send(login_messages(5))
    stat = behind_new_proxy.wait_until_ingested(5, timeout=60)
    assert stat["protocol"] == "json"
    assert set(protocols_asked(new_proxy, "ReceiveMessage")) == {"json"}


def test_a_proxy_that_recovers_between_two_requests_does_not_settle_the_wrong_protocol(behind_new_proxy, new_proxy):
    new_proxy.on("GetQueueAttributes", answer(500, WEB_PAGE), times=1)
    behind_new_proxy.start()
    behind_new_proxy.queue.send(login_messages(5))
    stat = behind_new_proxy.wait_until_ingested(5)
    assert protocols_asked(new_proxy, "GetQueueAttributes")[:2] == ["json", "query"]
    assert stat["protocol"] == "json"
    assert set(protocols_asked(new_proxy, "ReceiveMessage")) == {"json"}
    assert stat["receive_errors"] == 0, "the repetition in the other protocol was answered"


def test_an_outage_of_a_server_that_knows_only_query_passes(behind_old_proxy, old_proxy):
    old_proxy.on("GetQueueAttributes", answer(500, WEB_PAGE), times=5)
    behind_old_proxy.start()
    behind_old_proxy.queue.send(login_messages(5))
    stat = behind_old_proxy.wait_until_ingested(5, timeout=60)
    assert stat["protocol"] == "query"


def test_an_outage_in_the_middle_does_not_change_what_is_settled(behind_old_proxy, old_proxy):
    behind_old_proxy.start()
    behind_old_proxy.wait_for(state="idle", protocol="query")
    old_proxy.on("ReceiveMessage", answer(500, WEB_PAGE), times=2)
    old_proxy.close()
    old_proxy.open()
    behind_old_proxy.wait_for(receive_errors=lambda n: n > 1)
    behind_old_proxy.queue.send(login_messages(5))
    stat = behind_old_proxy.wait_until_ingested(5, timeout=60)
    assert stat["protocol"] == "query"
    assert protocols_asked(old_proxy).count("json") == 1


def test_a_server_that_comes_back_as_one_that_knows_only_query_is_understood(moto, old_moto, make_proxy, make_pipeline):
    """An emulator is replaced by an older version, which has the queue too."""
    queue = moto.queue()
    old = old_moto.queue(queue.name)
    proxy = make_proxy(moto)
    pipeline = make_pipeline(queue, {"sqs_ingest.endpoint_url": proxy.endpoint})
    pipeline.start()
    pipeline.wait_for(state="idle", protocol="json")
    proxy.close()
    proxy.upstream = old_moto.port
    proxy.open()
    old.send(login_messages(4))
    stat = pipeline.wait_until_ingested(4, timeout=60)
    assert stat["protocol"] == "query"
