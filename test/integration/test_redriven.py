"""What a dead letter keeps: a redrive stores what would have been stored, and nothing that never was sent."""
import base64
import gzip
import json

from keys import K1, K2, keyring_fixture  # noqa: F401
from pipelines import make_proxy_fixture, pipelines_fixture  # noqa: F401
from proxy import altered_messages, short_polls

MAPPING = [{"column": "id", "from": "/id"}, {"column": "note", "from": "/note"}]


def redrive(pipeline):
    return pipeline.db.value("SELECT sqs_ingest_redrive(%s)", [pipeline.name])


def reasons(pipeline):
    return [letter["reason"] for letter in pipeline.dead_letters()]


def test_payload_that_was_taken_for_base64_alone_is_redriven_when_the_encoding_is_mended(pipelines):
    """gzip is no UTF-8: it looks like a body that came damaged, and is none."""
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text)")
    pipeline = pipelines("t", MAPPING, body_encoding="base64")
    pipeline.queue.send([base64.b64encode(gzip.compress(json.dumps({"id": 1, "note": "x"}).encode())).decode()])
    pipeline.start()
    pipeline.wait_for(dead_letters=1, deleted=1)
    assert reasons(pipeline) == ["invalid_utf8"]
    assert redrive(pipeline) == 0
    db.sql("SELECT sqs_ingest_alter_pipeline(%s, body_encoding => 'gzip+base64')", [pipeline.name])
    assert redrive(pipeline) == 1
    assert db.sql("SELECT * FROM t") == [(1, "x")] and reasons(pipeline) == []


def test_forget_counts_a_payload_that_is_too_large_to_be_looked_into(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text)")
    pipeline = pipelines("t", [{**MAPPING[0], "user": True}, MAPPING[1]], body_encoding="gzip+base64")
    payloads = [json.dumps({"id": 1, "note": "x" * (17 << 20)}), json.dumps({"id": 1, "note": ["x"]})]
    pipeline.queue.send([base64.b64encode(gzip.compress(payload.encode())).decode() for payload in payloads])
    pipeline.drain()
    assert sorted(reasons(pipeline)) == ["too_large", "wrong_type"]
    assert db.value("SELECT sqs_ingest_forget('1', %s)", [pipeline.name]) == {"rows": 0, "dead_letters": 1, "not_opened": 1}


def test_body_that_came_damaged_is_never_redriven_whatever_it_was_rejected_for(pipelines, make_proxy):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text)")

    def damage(messages):
        for message in messages:
            message["Body"] = message["Body"].replace("?", "\udcff")
            message["MD5OfBody"] = "0" * 32

    def damaged_on_the_way(request, forward):
        return altered_messages(damage, raw_bytes=True)(request, lambda: short_polls(request, forward))

    proxy = make_proxy(pipelines.moto)
    proxy.on("ReceiveMessage", damaged_on_the_way)
    pipeline = pipelines("t", MAPPING, endpoint_url=proxy.endpoint, max_receive_count=1)
    pipeline.queue.send([{"id": 1, "note": "a ? b"}])
    # Received once before: it is rejected for that.
    received = pipeline.queue.client.receive_message(QueueUrl=pipeline.queue.url)["Messages"][0]
    pipeline.queue.client.change_message_visibility(
        QueueUrl=pipeline.queue.url, ReceiptHandle=received["ReceiptHandle"], VisibilityTimeout=0)  # fmt: skip
    pipeline.start()
    pipeline.wait_for(dead_letters=1, deleted=1)
    assert reasons(pipeline) == ["too_many_receives"]
    assert redrive(pipeline) == 0
    assert db.sql("SELECT * FROM t") == [] and reasons(pipeline) == ["invalid_utf8"]
    assert redrive(pipeline) == 0 and reasons(pipeline) == ["invalid_utf8"]


def test_redriven_row_has_the_time_when_its_message_was_received(pipelines):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer CHECK (id > 0), received timestamptz NOT NULL, day date NOT NULL)")
    pipeline = pipelines("t", [{"column": "id", "from": "/id"}, {"column": "received", "from": "@received_at", "required": True},
                               {"column": "day", "from": "@received_at", "steps": ["date"], "required": True}])  # fmt: skip
    pipeline.queue.send([{"id": 0}])
    pipeline.start()
    pipeline.wait_for(dead_letters=1)
    db.sql("ALTER TABLE t DROP CONSTRAINT t_id_check")
    assert redrive(pipeline) == 1
    assert db.value("SELECT received BETWEEN now() - interval '1 minute' AND now() AND day = (received AT TIME ZONE 'UTC')::date FROM t")


def test_nothing_of_a_letter_that_was_kept_again_is_left_under_an_older_key(pipelines, keyring):
    """Metadata that is needed no more, too: the letter could not be opened without that key."""
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer, note text)")
    pipeline = pipelines("t", MAPPING)
    pipeline.queue.send(['{"id": 1, "note": "\\ud800"}'])  # no character: it could have come damaged, and did not
    pipeline.drain()
    (letter,) = pipeline.dead_letters()
    assert letter["reason"] == "invalid_utf8" and letter["sealed_metadata"]
    keyring.keys({1: K1, 2: K2})
    pipeline.alter(body_encoding="base64")
    assert redrive(pipeline) == 0
    (letter,) = pipeline.dead_letters()
    assert letter["reason"] != "invalid_utf8" and letter["sealed_metadata"] is None
    keyring.keys({2: K2})
    pipeline.alter(body_encoding="plain")
    assert redrive(pipeline) == 0
    (letter,) = pipeline.dead_letters()
    assert letter["reason"] == "invalid_utf8" and letter["redrives"] == 2
