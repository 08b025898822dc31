"""The main job: messages of a queue become masked rows of user_logins, each once, and the queue ends up empty."""
import copy
import datetime
import hashlib
import json
import shutil

import psycopg
import pytest
from harness import login_message, login_messages, wait_until
from pipeline import assert_counters_add_up, make_pipeline_fixture, other_db_fixture, pipeline_fixture  # noqa: F401
from proxy import altered_messages, answer, make_proxy_fixture, proxied_fixture, proxy_fixture, short_polls  # noqa: F401

REAL_MESSAGE = {
    "user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae", "app_version": "2.3.0", "device_type": "android",
    "ip": "199.172.111.135", "locale": "RU", "device_id": "593-47-5928",
}  # fmt: skip
ROGUE_MESSAGE = {"foo": "oops_wrong_msg_type", "bar": "123"}

# Master key 00 01 … 1f with id 1: the reference values of docs/security.md, made with another implementation.
REFERENCE_KEYRING = "1 " + bytes(range(32)).hex() + "\n"
REFERENCE_IP = "hm1.e1d6621dd5242b11ae8af728593de86ea367875408e955ddaaa47a96b2c254a9"
REFERENCE_DEVICE_ID = "hm1.f310b0f44b7074899d3407c4edea3fdac8dc7c9d485d185bd65a89165a79458c"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


def today_utc():
    return datetime.datetime.now(datetime.timezone.utc).date()


def ingest(pipeline, bodies):
    """Sends the bodies, starts, and waits until all are deleted; returns the rows."""
    pipeline.queue.send(bodies)
    pipeline.start()
    pipeline.wait_until_ingested(len(bodies))
    return pipeline.rows()


# -- a queue becomes a table ------------------------------------------------------------------------------------------


def test_hundred_messages_become_99_rows_and_a_dead_letter(pipeline):
    messages = login_messages(99)
    ids = pipeline.queue.send([*messages[:40], ROGUE_MESSAGE, *messages[40:]])
    assert pipeline.start() is True
    stat = pipeline.wait_until_ingested(100)

    assert pipeline.queue.is_empty()
    assert (stat["inserted"], stat["dead_letters"], stat["released"]) == (99, 1, 0)
    assert stat["deleted"] == stat["received"] == 100 + stat["duplicates"]
    assert_counters_add_up(stat)
    assert stat["delete_failures"] == stat["receive_errors"] == 0
    assert stat["last_error"] is None

    rows = {row["user_id"]: row for row in pipeline.rows()}
    assert len(rows) == 99
    for message in messages:
        row = rows[message["user_id"]]
        assert row["device_type"] == message["device_type"]
        assert row["locale"] == message["locale"]
        assert row["app_version"] == int(message["app_version"].replace(".", ""))
    assert len({row["masked_ip"] for row in rows.values()}) == len({m["ip"] for m in messages})

    (letter,) = pipeline.dead_letters()
    assert (letter["message_id"], letter["reason"], letter["field"]) == (ids[40], "missing_field", "user_id")
    assert letter["redacted"] == {"bytes": len(json.dumps(ROGUE_MESSAGE)), "fields": {}, "other_keys": 2}
    assert pipeline.db.value("SELECT count(*) FROM sqs_ingest_ledger") == 100


def test_idle_pipeline_takes_messages_as_they_come(pipeline):
    pipeline.start()
    for i in range(3):
        pipeline.wait_for(state=lambda state: state in ("idle", "running"))
        pipeline.queue.send([login_message(i)])
        stat = pipeline.wait_until_ingested(i + 1, timeout=10)
    assert stat["inserted"] == 3
    assert_counters_add_up(stat)


def test_start_goes_on_where_stop_left_it(proxied, proxy):
    proxy.on("ReceiveMessage", short_polls)
    assert len(ingest(proxied, login_messages(5))) == 5
    proxied.stop()
    proxied.queue.send(login_messages(5, start=5))
    assert len(proxied.rows()) == 5
    proxied.start()
    stat = proxied.wait_until_ingested(10)
    assert len(proxied.rows()) == 10
    assert_counters_add_up(stat)


# -- the row ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, masked",
    [
        ("sha256", sha256),
        ("sha256:8", lambda text: sha256(text)[:8]),
        ("md5", md5),
        ("hmac", {REAL_MESSAGE["ip"]: REFERENCE_IP, REAL_MESSAGE["device_id"]: REFERENCE_DEVICE_ID}.get),
    ],
    ids=["sha256", "sha256:8", "md5", "hmac"],
)
def test_real_message_becomes_the_expected_row(queue, make_pipeline, method, masked):
    pipeline = make_pipeline(queue)
    keyring = pipeline.cluster.directory / "reference.keyring"
    keyring.write_text(REFERENCE_KEYRING)
    keyring.chmod(0o600)
    owner = pipeline.cluster.data.stat()
    shutil.chown(keyring, owner.st_uid, owner.st_gid)
    pipeline.configure({"sqs_ingest.mask_keyring": keyring, "sqs_ingest.mask_method": method})
    days = {today_utc()}
    rows = ingest(pipeline, [REAL_MESSAGE])
    days.add(today_utc())

    assert rows[0].pop("create_date") in days
    assert rows == [{
        "user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae",
        "device_type": "android",
        "masked_ip": masked("199.172.111.135"),
        "masked_device_id": masked("593-47-5928"),
        "locale": "RU",
        "app_version": 230,
    }]  # fmt: skip
    assert pipeline.db.value("SELECT mask_method FROM sqs_ingest_pipeline") == method
    assert pipeline.db.one("SELECT mask('199.172.111.135'), mask('199.172.111.135'::inet), mask('593-47-5928')") == (
        masked("199.172.111.135"), masked("199.172.111.135"), masked("593-47-5928"))  # fmt: skip


def test_known_sha256_is_the_published_one(queue, make_pipeline):
    rows = ingest(make_pipeline(queue, {"sqs_ingest.mask_method": "sha256"}), [REAL_MESSAGE])
    assert rows[0]["masked_ip"] == hashlib.sha256(b"199.172.111.135").hexdigest()
    assert len(rows[0]["masked_ip"]) == 64


def test_masking_method_stays_that_of_the_first_start(queue, make_pipeline):
    pipeline = make_pipeline(queue, {"sqs_ingest.mask_method": "md5"})
    ingest(pipeline, [login_message(1)])
    pipeline.configure({"sqs_ingest.mask_method": "sha256"})
    pipeline.queue.send([login_message(2)])
    pipeline.wait_for(deleted=2)
    assert {row["masked_ip"] for row in pipeline.rows()} == {md5("10.0.0.1"), md5("10.0.0.2")}
    assert pipeline.db.value("SELECT mask_method FROM sqs_ingest_pipeline") == "md5"


def test_equal_values_get_equal_masks_and_others_do_not(pipeline):
    same = [login_message(i, ip="192.0.2.1", device_id="device") for i in range(3)]
    rows = ingest(pipeline, [*same, login_message(3, ip="192.0.2.2", device_id="Device")])
    assert [len({row[column] for row in rows}) for column in ("masked_ip", "masked_device_id")] == [2, 2]
    assert all(row["masked_ip"].startswith("hm1.") and len(row["masked_ip"]) == 68 for row in rows)


def test_spellings_of_one_address_get_one_mask(queue, make_pipeline):
    pipeline = make_pipeline(queue, {"sqs_ingest.mask_method": "sha256"})
    spellings = {
        "2001:DB8:0:0:0:0:0:1": "2001:db8::1",
        "2001:db8::0001": "2001:db8::1",
        "::ffff:192.0.2.7": "192.0.2.7",
        "192.0.2.7": "192.0.2.7",
        "not an address": "not an address",
        "192.0.2.7:443": "192.0.2.7:443",
    }
    rows = ingest(pipeline, [login_message(i, ip=ip) for i, ip in enumerate(spellings)])
    wanted = {login_message(i)["user_id"]: sha256(canonical) for i, canonical in enumerate(spellings.values())}
    assert {row["user_id"]: row["masked_ip"] for row in rows} == wanted


def test_version_is_its_digits(pipeline):
    versions = {"2.3.0": 230, "0.96": 96, "26": 26, "0.0.1": 1, "10.20.30": 102030, 7: 7, 2.3: 23, "2147483647": 2147483647}
    rows = ingest(pipeline, [login_message(i, app_version=version) for i, version in enumerate(versions)])
    wanted = {login_message(i)["user_id"]: number for i, number in enumerate(versions.values())}
    assert {row["user_id"]: row["app_version"] for row in rows} == wanted


def test_missing_and_null_optional_fields_are_null(pipeline):
    optional = ("device_type", "locale", "app_version")
    bodies = [login_message(0, **dict.fromkeys(optional)), login_message(1, **dict.fromkeys(optional, ...))]
    rows = ingest(pipeline, bodies)
    assert [[row[name] for name in optional] for row in rows] == [[None] * 3] * 2


def test_create_date_comes_from_the_body_else_from_the_sent_timestamp_in_utc(proxied, proxy):
    """Just before midnight in UTC is another day in most time zones: the server's own must not matter."""
    sent = datetime.datetime(2024, 2, 29, 23, 59, 59, 999000, datetime.timezone.utc)

    def send_on_leap_day(messages):
        for message in messages:
            message["Attributes"]["SentTimestamp"] = str(int(sent.timestamp() * 1000))

    proxied.configure({"timezone": "Pacific/Kiritimati", "sqs_ingest.endpoint_url": proxy.endpoint})
    proxy.on("ReceiveMessage", altered_messages(send_on_leap_day))
    dates = [..., None, "2023-11-21", "2023-11-21T23:30:00-01:00", "2023-11-21T10:00:00Z"]
    rows = ingest(proxied, [login_message(i, create_date=date) for i, date in enumerate(dates)])
    by_user = {row["user_id"]: str(row["create_date"]) for row in rows}
    assert [by_user[login_message(i)["user_id"]] for i in range(5)] == [
        "2024-02-29", "2024-02-29", "2023-11-21", "2023-11-22", "2023-11-21"]  # fmt: skip
    assert proxied.db.sql("SELECT DISTINCT sent_at FROM sqs_ingest_ledger") == [(sent,)]


def test_values_that_look_like_sql_stay_values(pipeline):
    strange = ["'; DROP TABLE user_logins; --", '"', "{a,NULL}", "NULL", "\\", "$1", "\t\n", "😀 ünï", "a" * 128]
    rows = ingest(pipeline, [login_message(0, user_id=value, locale=value[:32]) for value in strange])
    assert sorted((row["user_id"], row["locale"]) for row in rows) == sorted((value, value[:32]) for value in strange)


# -- once -------------------------------------------------------------------------------------------------------------


def test_redelivered_message_is_ingested_once_and_deleted_with_its_new_handle(proxied, proxy):
    """The queue says that it deleted the message, and delivers it again."""
    all_deleted = json.dumps({"Successful": [{"Id": "0"}], "Failed": []}).encode()
    proxy.on("DeleteMessageBatch", answer(body=all_deleted), times=1)
    proxied.queue.send([login_message(1)])
    proxied.start()
    proxied.wait_for(deleted=1)
    (first,) = proxy.asked("DeleteMessageBatch")
    old_handle = first.json["Entries"][0]["ReceiptHandle"]
    proxied.queue.client.change_message_visibility(QueueUrl=proxied.queue.url, ReceiptHandle=old_handle, VisibilityTimeout=0)

    stat = proxied.wait_for(duplicates=1, deleted=2)
    assert stat["inserted"] == 1
    assert_counters_add_up(stat)
    new_handle = proxy.asked("DeleteMessageBatch")[-1].json["Entries"][0]["ReceiptHandle"]
    assert new_handle != old_handle
    assert proxied.queue.is_empty()
    assert len(proxied.rows()) == 1


def test_redelivered_reject_is_one_dead_letter(proxied, proxy):
    all_deleted = json.dumps({"Successful": [{"Id": "0"}], "Failed": []}).encode()
    proxy.on("DeleteMessageBatch", answer(body=all_deleted), times=1)
    proxied.queue.send([ROGUE_MESSAGE])
    proxied.start()
    proxied.wait_for(deleted=1)
    handle = proxy.asked("DeleteMessageBatch")[0].json["Entries"][0]["ReceiptHandle"]
    proxied.queue.client.change_message_visibility(QueueUrl=proxied.queue.url, ReceiptHandle=handle, VisibilityTimeout=0)
    stat = proxied.wait_for(duplicates=1, deleted=2)
    assert stat["dead_letters"] == 1
    assert len(proxied.dead_letters()) == 1
    assert proxied.queue.is_empty()


def test_ledger_forgets_what_the_queue_cannot_deliver_any_more(pipeline):
    """The queue keeps messages for 4 days by default; a day is added."""
    pipeline.db.sql(
        "INSERT INTO sqs_ingest_ledger SELECT 'user_logins', now() - age::interval, age"
        " FROM unnest('{4 days 23 hours,5 days 1 hour,300 days}'::text[]) age"
    )
    pipeline.db.sql("INSERT INTO sqs_ingest_ledger VALUES ('another', now() - interval '300 days', 'x')")
    pipeline.start()
    pipeline.queue.send([login_message(1)])
    pipeline.wait_until_done(1)
    kept = "SELECT message_id FROM sqs_ingest_ledger WHERE sent_at < now() - interval '1 day' ORDER BY 1"
    wait_until(lambda: pipeline.db.sql(kept) == [("4 days 23 hours",), ("x",)], 10, "old entries removed")


def test_message_known_to_the_ledger_is_deleted_without_a_row(pipeline):
    """As after a crash between commit and delete: another server's ledger entry stands for the first delivery."""
    ids = pipeline.queue.send(login_messages(2))
    (first,) = [m for m in pipeline.queue.receive(VisibilityTimeout=1) if m["MessageId"] == ids[0]]
    pipeline.db.sql(
        "INSERT INTO sqs_ingest_ledger VALUES ('user_logins', to_timestamp(%s::numeric / 1000), %s)",
        [first["Attributes"]["SentTimestamp"], ids[0]],
    )
    pipeline.start()
    pipeline.wait_for(inserted=1, duplicates=1, deleted=2)
    assert [row["user_id"] for row in pipeline.rows()] == [login_message(1)["user_id"]]
    assert pipeline.queue.is_empty()


def test_message_delivered_twice_in_one_answer_is_ingested_once(proxied, proxy):
    def twice(messages):
        for message in list(messages):
            again = copy.deepcopy(message)
            again["ReceiptHandle"] += "-again"
            messages.append(again)

    def delete_the_real_ones(request, forward):
        entries = request.json["Entries"]
        real = [entry for entry in entries if not entry["ReceiptHandle"].endswith("-again")]
        request.body = json.dumps({**request.json, "Entries": real}).encode()
        got = forward() if real else answer(body=b'{"Successful": []}')(request, forward)
        content = got.json
        content["Successful"] += [{"Id": entry["Id"]} for entry in entries if entry not in real]
        got.body = json.dumps(content).encode()
        return got

    proxy.on("ReceiveMessage", altered_messages(twice)).on("DeleteMessageBatch", delete_the_real_ones)
    proxied.queue.send([*login_messages(4), ROGUE_MESSAGE])
    proxied.start()
    stat = proxied.wait_for(duplicates=5, deleted=10)
    assert (stat["inserted"], stat["dead_letters"]) == (4, 1)
    assert_counters_add_up(stat)
    assert len(proxied.rows()) == 4
    assert len(proxied.dead_letters()) == 1
    assert proxied.queue.is_empty()
    deleted = [entry["ReceiptHandle"] for request in proxy.asked("DeleteMessageBatch") for entry in request.json["Entries"]]
    assert len(deleted) == len(set(deleted)) == 10


def test_equal_bodies_are_messages_of_their_own(pipeline):
    assert len(ingest(pipeline, [login_message(1)] * 3)) == 3


# -- the target table -------------------------------------------------------------------------------------------------


def test_existing_table_is_used_as_it_is(pipeline):
    pipeline.db.sql(
        "CREATE TABLE user_logins (id bigserial PRIMARY KEY, note text DEFAULT 'mine', create_date date, app_version bigint,"
        " locale text, masked_device_id text, masked_ip text, device_type text, user_id text NOT NULL)"
    )
    pipeline.db.sql("INSERT INTO user_logins (user_id) VALUES ('from before')")
    oid = pipeline.db.value("SELECT 'user_logins'::regclass::oid")
    rows = ingest(pipeline, login_messages(3))
    assert pipeline.db.value("SELECT 'user_logins'::regclass::oid") == oid
    assert [row["user_id"] for row in rows].count("from before") == 1
    assert len(rows) == 4
    assert {row["note"] for row in rows} == {"mine"}
    assert sorted(row["id"] for row in rows) == [1, 2, 3, 4]


def test_made_table_has_the_published_columns(pipeline):
    notices = []
    pipeline.db.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    pipeline.start()
    columns = pipeline.db.sql(
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'user_logins'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert columns == [
        ("user_id", "character varying(128)"),
        ("device_type", "character varying(32)"),
        ("masked_ip", "character varying(256)"),
        ("masked_device_id", "character varying(256)"),
        ("locale", "character varying(32)"),
        ("app_version", "integer"),
        ("create_date", "date"),
    ]
    assert any('created the target table "user_logins"' in notice for notice in notices)


def test_table_without_a_needed_column_is_refused_at_start(pipeline):
    pipeline.db.sql("CREATE TABLE user_logins (user_id text, masked_ip text)")
    with pytest.raises(psycopg.errors.UndefinedColumn, match="user_logins has no column") as refused:
        pipeline.start()
    assert refused.value.diag.message_hint


# -- start and stop ---------------------------------------------------------------------------------------------------


def test_default_settings_ingest(pipeline):
    """Nothing but the queue is configured: the keyring is there after the first start, the method is hmac."""
    names = {name for name in pipeline.cluster.settings if name.startswith("sqs_ingest.")}
    assert names == {"sqs_ingest.queue_url", "sqs_ingest.endpoint_url", "sqs_ingest.region"}
    ingest(pipeline, login_messages(1))
    assert pipeline.db.one("SELECT name, mask_method, workers, target FROM sqs_ingest_pipeline") == (
        "user_logins", "hmac", 1, "public.user_logins")  # fmt: skip
    keyring = pipeline.cluster.data / "sqs_ingest.keyring"
    assert keyring.stat().st_mode & 0o777 == 0o600
    assert pipeline.db.value("SELECT masked_ip = mask('10.0.0.0') FROM user_logins")


def test_second_start_and_second_stop_say_false(pipeline):
    assert pipeline.stop() is False
    assert [pipeline.start(), pipeline.start()] == [True, False]
    pipeline.wait_for(state=lambda state: state in ("idle", "running"))
    (worker,) = pipeline.stat()["workers"]
    assert pipeline.start() is False
    assert [one["pid"] for one in pipeline.stat()["workers"]] == [worker["pid"]]
    assert [pipeline.stop(), pipeline.stop()] == [True, False]
    assert pipeline.stat()["state"] == "stopped"


def test_stop_ends_the_worker_before_it_returns(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    assert pipeline.cluster.pids("sqs_ingest worker")
    pipeline.stop()
    assert pipeline.cluster.pids("sqs_ingest worker") == []
    stat = pipeline.stat()
    assert (stat["state"], stat["workers"], stat["in_hand"]) == ("stopped", [], 0)


def test_rolled_back_start_does_nothing(pipeline):
    pipeline.queue.send([login_message(1)])
    with pipeline.db.connect(autocommit=False) as connection:
        assert connection.execute("SELECT sqs_ingest_start()").fetchone() == (True,)
        connection.rollback()
    assert pipeline.db.value("SELECT to_regclass('user_logins')") is None
    assert pipeline.db.sql("SELECT * FROM sqs_ingest_pipeline") == []
    assert pipeline.db.sql("SELECT * FROM pg_shseclabel WHERE provider = 'sqs_ingest'") == []
    # Whatever makes the launcher look does not start it either.
    pipeline.cluster.reload()
    with pytest.raises(AssertionError):
        wait_until(lambda: pipeline.cluster.pids("sqs_ingest worker"), 1, "a worker that must not come", 0.05)
    assert pipeline.queue.counts() == (1, 0)


def test_rolled_back_stop_does_not_stop(proxied, proxy):
    proxy.on("ReceiveMessage", short_polls)
    proxied.start()
    proxied.wait_for(state="idle")
    with proxied.db.connect(autocommit=False) as connection:
        assert connection.execute("SELECT sqs_ingest_stop()").fetchone() == (True,)
        assert proxied.cluster.pids("sqs_ingest worker") == []
        connection.rollback()
    proxied.queue.send([login_message(1)])
    proxied.wait_for(timeout=10, inserted=1)


def test_queue_that_feeds_another_database_is_refused(other_db, pipeline, make_pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    other = make_pipeline(pipeline.queue, database=other_db)
    with pytest.raises(psycopg.errors.ObjectInUse, match='already feeds pipeline "user_logins"') as refused:
        other.start()
    assert pipeline.queue.url in refused.value.diag.message_primary
    assert "Stop that pipeline" in refused.value.diag.message_hint
    assert other_db.value("SELECT to_regclass('user_logins')") is None
    assert pipeline.stat()["state"] == "idle"


def test_stopped_pipeline_lends_its_queue_to_another_database_at_once(other_db, pipeline, make_pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    other = make_pipeline(pipeline.queue, database=other_db)
    pipeline.stop()
    assert other.start() is True
    other.wait_for(state="idle")
    with pytest.raises(psycopg.errors.ObjectInUse):
        pipeline.start()


def test_two_starts_at_once_on_one_queue_let_one_run(other_db, pipeline, make_pipeline):
    other = make_pipeline(pipeline.queue, database=other_db)
    with pipeline.db.connect(autocommit=False) as one, other_db.connect(autocommit=False) as two:
        one.execute("SELECT sqs_ingest_start()")
        two.execute("SELECT sqs_ingest_start()")
        one.commit()
        two.commit()
    wait_until(lambda: {p.stat()["state"] for p in (pipeline, other)} == {"idle", "cannot_start"}, 20,
               lambda: f"one runs, the other says why not: {pipeline.stat()}, {other.stat()}")  # fmt: skip
    running, waiting = sorted((pipeline, other), key=lambda p: p.stat()["state"], reverse=True)
    stat = waiting.stat()
    assert "same queue" in stat["why"]
    assert "Stop the other pipeline" in stat["hint"]
    running.stop()
    waiting.wait_for(state="idle")


def test_status_and_view_say_the_same(pipeline):
    ingest(pipeline, login_messages(2))
    status = pipeline.db.value("SELECT sqs_ingest_status() -> 'user_logins'")
    stat = pipeline.stat()
    for name in ("state", "queue_url", "target", "received", "inserted", "deleted", "transactions", "in_hand"):
        assert status[name] == stat[name]
    assert status["target"] == "public.user_logins"
    assert status["queue_url"] == pipeline.queue.url
    assert status["last_poll_at"] is not None
    assert 0 <= status["lag_seconds"] < 60
