"""What goes wrong between the worker and the queue costs no message: it backs off, says why, and resumes by itself."""
import calendar
import email.utils
import json
import re
import shutil
import time

import pytest
from harness import CREDENTIALS, REGION, Database, Queue, login_message, login_messages, unique, wait_until
from pipeline import Pipeline, assert_counters_add_up, make_pipeline_fixture, pipeline_fixture  # noqa: F401
from proxy import (  # noqa: F401
    Answer, answer, altered_messages, error, make_proxy_fixture, proxied_fixture, proxy_fixture, short_polls)  # fmt: skip

MANY_SECONDS = 3  # how long a storm is looked for
FEW_REQUESTS = 12  # in MANY_SECONDS: with a base of 1 s there are about five
ATTRIBUTES, RECEIVE, DELETE = "GetQueueAttributes", "ReceiveMessage", "DeleteMessageBatch"


def assert_no_storm(pipeline, proxy):
    """Looks on for some seconds: few requests, a steady state, hardly a log line."""
    since, position = time.monotonic(), pipeline.cluster.log_position()
    while time.monotonic() < since + MANY_SECONDS:
        stat = pipeline.stat()
        assert stat["state"] == "backing_off"
        assert stat["why"] and stat["hint"]
        time.sleep(0.2)
    assert 1 <= len(proxy.asked(since=since)) <= FEW_REQUESTS
    assert pipeline.stat()["receive_errors"] <= FEW_REQUESTS
    assert pipeline.cluster.log(position).count("backs off") <= 1


def assert_all_arrives(pipeline, count=3, timeout=30):
    before = pipeline.stat()["inserted"]
    pipeline.queue.send(login_messages(count))
    stat = pipeline.wait_for(timeout, inserted=before + count, state=lambda state: state in ("running", "idle"))
    wait_until(pipeline.queue.is_empty, 10, "empty queue")
    return stat


# -- the queue is not there -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/123456789012/no-such-queue", "/", "/something/else/entirely"])
def test_unknown_queue_is_said_with_a_hint_and_without_a_storm(proxied, proxy, path):
    url = proxied.queue.server.endpoint + path
    proxied.configure({"sqs_ingest.queue_url": url, "sqs_ingest.endpoint_url": proxy.endpoint})
    proxied.start()
    stat = proxied.wait_for(state="backing_off")
    assert url in stat["why"]
    assert "sqs_ingest.queue_url" in stat["hint"]
    assert stat["last_error_at"] is not None
    assert_no_storm(proxied, proxy)


def test_pipeline_begins_when_its_queue_is_made(make_pipeline, moto):
    name = unique("late")
    pipeline = make_pipeline(settings={
        "sqs_ingest.queue_url": f"{moto.endpoint}/123456789012/{name}",
        "sqs_ingest.endpoint_url": moto.endpoint,
        "sqs_ingest.region": REGION,
    })  # fmt: skip
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert f'{name}" does not exist' in stat["why"]
    pipeline.queue = Queue(moto, name)
    assert_all_arrives(pipeline)
    pipeline.cluster.wait_for_log(r'pipeline "user_logins" goes on')


def test_queue_deleted_meanwhile_is_said_and_another_of_its_name_is_taken(proxied, proxy, moto):
    proxy.on(RECEIVE, short_polls)
    proxied.start()
    assert_all_arrives(proxied)
    proxied.queue.delete()
    stat = proxied.wait_for(state="backing_off")
    assert "does not exist" in stat["why"]
    assert stat["receive_errors"] >= 1
    proxied.queue = Queue(moto, proxied.queue.name)
    assert_all_arrives(proxied)


def test_corrected_queue_url_is_taken_up_at_reload(pipeline):
    right = pipeline.queue.url
    pipeline.configure({"sqs_ingest.queue_url": right + "-no"})
    pipeline.start()
    pipeline.wait_for(state="backing_off")
    pipeline.configure({"sqs_ingest.queue_url": right})
    assert_all_arrives(pipeline)


def test_missing_queue_url_is_refused_at_start_with_an_example(make_pipeline):
    pipeline = make_pipeline()
    with pytest.raises(Exception, match="no queue URL is configured") as refused:
        pipeline.start()
    assert "sqs_ingest.queue_url = 'https://" in refused.value.diag.message_hint


# -- the server is not there ------------------------------------------------------------------------------------------


def test_refused_connections_end_when_the_server_comes_up(proxied, proxy):
    proxy.close()
    proxied.start()
    stat = proxied.wait_for(state="backing_off")
    assert str(proxy.port) in stat["why"]
    assert "sqs_ingest.endpoint_url" in stat["hint"]
    proxy.open()
    assert_all_arrives(proxied)


def test_outage_in_the_middle_costs_no_message(proxied, proxy):
    proxy.on(RECEIVE, short_polls)
    proxied.start()
    assert_all_arrives(proxied)
    proxy.close()
    proxied.wait_for(state="backing_off")
    proxied.queue.send(login_messages(20, start=100))
    proxy.open()
    stat = proxied.wait_for(inserted=23, deleted=23)
    wait_until(proxied.queue.is_empty, 10, "empty queue")
    assert_counters_add_up(proxied.stat())
    assert stat["duplicates"] == 0


def test_host_that_cannot_be_resolved_is_said(queue, make_pipeline):
    pipeline = make_pipeline(queue, {"sqs_ingest.endpoint_url": "http://no-such-host.invalid:9324"})
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert "no-such-host.invalid" in stat["why"]
    pipeline.configure({"sqs_ingest.endpoint_url": queue.endpoint})
    assert_all_arrives(pipeline)


# -- credentials ------------------------------------------------------------------------------------------------------


@pytest.fixture
def strict(strict_moto, make_proxy, make_pipeline):
    """A pipeline on a server that verifies signatures, and the proxy in between."""
    queue = strict_moto.queue()
    proxy = make_proxy(strict_moto)
    pipeline = make_pipeline(queue, {"sqs_ingest.endpoint_url": proxy.endpoint})
    return pipeline, proxy


@pytest.fixture
def credentials_file(cluster):
    """A shared credentials file: call it with the text."""
    path = cluster.directory / unique("credentials")

    def write(text):
        new = path.with_suffix(".new")
        new.write_text(text)
        owner = cluster.data.stat()
        shutil.chown(new, owner.st_uid, owner.st_gid)
        new.chmod(0o600)
        new.rename(path)

    write.path = path
    return write


def profile(name, server, **changes):
    keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key, **changes}
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def test_profile_of_a_credentials_file_is_signed_with(strict, strict_moto, credentials_file):
    """The server checks each signature; the environment holds other credentials, which a named profile replaces."""
    pipeline, proxy = strict
    credentials_file(profile("other", strict_moto, aws_secret_access_key="wrong") + profile("ingest", strict_moto))
    pipeline.configure({
        "sqs_ingest.aws_credentials_file": credentials_file.path,
        "sqs_ingest.aws_profile": "ingest",
        "sqs_ingest.endpoint_url": proxy.endpoint,
    })  # fmt: skip
    pipeline.start()
    assert_all_arrives(pipeline, 12)
    actions = {request.action for request in proxy.requests}
    assert actions >= {ATTRIBUTES, RECEIVE, DELETE}
    for request in proxy.requests:
        assert f"Credential={strict_moto.access_key}/" in request.headers["authorization"]
        assert f"/{REGION}/sqs/aws4_request" in request.headers["authorization"]
        assert strict_moto.secret_key not in str(request.headers)


def test_right_keys_of_the_environment_are_signed_with(make_cluster, strict_moto):
    queue = strict_moto.queue()
    cluster = make_cluster(queue.settings, env=strict_moto.env())
    db = Database(cluster, cluster.create_database())
    db.sql("CREATE EXTENSION sqs_ingest")
    pipeline = Pipeline(db, queue)
    pipeline.start()
    assert_all_arrives(pipeline)


@pytest.mark.parametrize("wrong", ["aws_secret_access_key", "aws_access_key_id"])
def test_wrong_key_is_said_without_a_storm_and_resumes_when_the_file_is_corrected(strict, strict_moto, credentials_file, wrong):
    pipeline, proxy = strict
    credentials_file(profile("default", strict_moto, **{wrong: "AKIAWRONGWRONGWRONGX"}))
    pipeline.configure({
        "sqs_ingest.aws_credentials_file": credentials_file.path,
        "sqs_ingest.aws_profile": "default",
        "sqs_ingest.endpoint_url": proxy.endpoint,
    })  # fmt: skip
    pipeline.queue.send(login_messages(3))
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert "AWS" in stat["hint"]
    assert strict_moto.secret_key not in json.dumps(stat, default=str)
    assert_no_storm(pipeline, proxy)
    (worker,) = pipeline.stat()["workers"]

    credentials_file(profile("default", strict_moto))
    stat = pipeline.wait_for(60, inserted=3)
    assert [one["pid"] for one in stat["workers"]] == [worker["pid"]], "no restart was needed"
    assert strict_moto.secret_key not in pipeline.cluster.log()


def test_no_credentials_at_all_are_said_with_the_places_looked_at(make_cluster, moto, make_proxy):
    queue, proxy = moto.queue(), make_proxy(moto)
    settings = {**queue.settings, "sqs_ingest.endpoint_url": proxy.endpoint}
    cluster = make_cluster(settings, env=dict.fromkeys(CREDENTIALS))
    db = Database(cluster, cluster.create_database())
    db.sql("CREATE EXTENSION sqs_ingest")
    pipeline = Pipeline(db, queue)
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert "no AWS credentials were found" in stat["why"]
    assert str(cluster.directory / ".aws/credentials") in stat["why"]
    assert "AWS_ACCESS_KEY_ID" in stat["hint"]
    assert proxy.requests == [], "nothing is asked without a signature"

    home = cluster.directory / ".aws"
    home.mkdir()
    (home / "credentials").write_text(profile("default", moto))
    assert_all_arrives(pipeline)


def test_profile_that_does_not_exist_is_named(strict, strict_moto, credentials_file):
    pipeline, proxy = strict
    credentials_file(profile("ingest", strict_moto))
    pipeline.configure({
        "sqs_ingest.aws_credentials_file": credentials_file.path,
        "sqs_ingest.aws_profile": "ingset",
        "sqs_ingest.endpoint_url": proxy.endpoint,
    })  # fmt: skip
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert "ingset" in stat["why"] + stat["hint"]


def test_session_token_is_sent_and_signed(proxied, proxy, moto, credentials_file):
    credentials_file(profile("session", moto, aws_session_token="the-session-token"))
    proxied.configure({
        "sqs_ingest.aws_credentials_file": credentials_file.path,
        "sqs_ingest.aws_profile": "session",
        "sqs_ingest.endpoint_url": proxy.endpoint,
    })  # fmt: skip
    proxied.start()
    assert_all_arrives(proxied)
    for request in proxy.requests:
        assert request.headers["x-amz-security-token"] == "the-session-token"
        assert "x-amz-security-token" in re.search("SignedHeaders=([^,]*)", request.headers["authorization"])[1]


def test_rotated_session_token_is_read_when_the_old_one_has_expired(proxied, proxy, moto, credentials_file):
    def refuse_the_old(request, forward):
        if request.headers["x-amz-security-token"] == "old":
            return error("ExpiredTokenException", 403, "The security token included in the request is expired")(request, forward)
        return forward()

    for action in (ATTRIBUTES, RECEIVE, DELETE):
        proxy.on(action, refuse_the_old)
    credentials_file(profile("session", moto, aws_session_token="old"))
    proxied.configure({
        "sqs_ingest.aws_credentials_file": credentials_file.path,
        "sqs_ingest.aws_profile": "session",
        "sqs_ingest.endpoint_url": proxy.endpoint,
    })  # fmt: skip
    proxied.start()
    stat = proxied.wait_for(state="backing_off")
    assert "expired" in stat["why"]
    credentials_file(profile("session", moto, aws_session_token="new"))
    assert_all_arrives(proxied)


@pytest.mark.parametrize("source", ["AWS_REGION", "profile"])
def test_region_comes_from_the_environment_or_the_profile_where_nothing_names_it(make_cluster, moto, make_proxy, source):
    queue, proxy = moto.queue(), make_proxy(moto)
    env = {"AWS_REGION": "eu-central-1"} if source == "AWS_REGION" else {}
    settings = {"sqs_ingest.queue_url": queue.url, "sqs_ingest.endpoint_url": proxy.endpoint}
    cluster = make_cluster(settings, env=env)
    home = cluster.directory / ".aws"
    home.mkdir()
    (home / "config").write_text("[default]\nregion = eu-central-1\n")
    db = Database(cluster, cluster.create_database())
    db.sql("CREATE EXTENSION sqs_ingest")
    Pipeline(db, queue).start()
    request = wait_until(lambda: proxy.asked(), what="a request")[0]
    assert "/eu-central-1/sqs/aws4_request" in request.headers["authorization"]


# -- the server fails -------------------------------------------------------------------------------------------------

FAILURES = {
    "503": answer(503),
    "429": answer(429),
    "RequestThrottled": error("RequestThrottled", 400),
    "ThrottlingException": error("ThrottlingException", 400),
    "InternalError": error("InternalError", 500),
    "OverLimit": error("OverLimit", 403),
    "HTML of a proxy": answer(502, b"<html><head><title>502 Bad Gateway</title></head></html>", headers={"Content-Type": "text/html"}),
    "HTML with status 200": answer(200, b"<html><body>Welcome to the hotel's network</body></html>"),
    "XML": answer(400, b"<ErrorResponse><Error><Code>RequestThrottled</Code><Message>slowly</Message></Error></ErrorResponse>"),
    "nothing": answer(200, b""),
    "half of an answer": answer(200, b'{"Messages":[{"MessageId":"10.9.8.7","Recei', missing=100),
    "no JSON": answer(200, b'{"Messages":["10.9.8.7"'),
    "JSON of another shape": answer(200, b'{"Messages":"10.9.8.7"}'),
    "an array": answer(200, b"[]"),
}


def drop(request, forward):
    return None


@pytest.mark.parametrize("failure", FAILURES)
def test_failing_receives_are_survived(proxied, proxy, failure):
    proxy.on(RECEIVE, FAILURES[failure], times=2)
    proxied.queue.send(login_messages(12))
    proxied.start()
    proxied.wait_for(receive_errors=2)
    stat = proxied.wait_until_ingested(12)
    assert stat["inserted"] == 12
    assert stat["receive_errors"] == 2
    assert stat["last_error"]
    assert "10.9.8.7" not in stat["last_error"], "an answer is never quoted"
    assert proxied.queue.is_empty()


def test_dropped_connections_are_survived(proxied, proxy):
    """Some are not even seen: libcurl asks once more when a kept connection was closed."""
    for action in (ATTRIBUTES, RECEIVE, DELETE):
        proxy.on(action, drop, times=4)
    proxied.queue.send(login_messages(5))
    proxied.start()
    stat = proxied.wait_until_ingested(5)
    assert stat["receive_errors"] >= 1
    assert stat["delete_failures"] >= 5
    assert proxied.queue.is_empty()
    assert len(proxied.rows()) == 5


@pytest.mark.parametrize("failure", ["503", "429", "HTML of a proxy"])
def test_failing_first_look_at_the_queue_is_survived(proxied, proxy, failure):
    proxy.on(ATTRIBUTES, FAILURES[failure], times=2)
    proxied.start()
    assert_all_arrives(proxied)
    assert len(proxy.asked(ATTRIBUTES)) == 3


@pytest.mark.parametrize("failure, hint", [("429", "AWS limits the request rate"), ("503", "tried again by itself")])
def test_long_trouble_is_shown_backed_off_and_over_when_it_is_over(proxied, proxy, failure, hint):
    proxy.on(RECEIVE, FAILURES[failure])
    proxied.start()
    proxied.wait_for(receive_errors=lambda n: n >= 2)
    assert hint in proxied.wait_for(state="backing_off")["hint"]
    assert_no_storm(proxied, proxy)
    proxy.pass_on(RECEIVE)
    assert_all_arrives(proxied)


def test_denied_permission_names_the_needed_ones(proxied, proxy):
    denied = "User: arn:aws:iam::123456789012:user/x is not authorized to perform: sqs:receivemessage"
    proxy.on(RECEIVE, error("AccessDeniedException", 403, denied))
    proxied.start()
    stat = proxied.wait_for(state="backing_off")
    assert denied in stat["why"]
    assert "sqs:ReceiveMessage" in stat["hint"]
    assert_no_storm(proxied, proxy)


def test_giant_answer_is_cut_off(proxied, proxy):
    """More than ten messages could ever be: it is not read to its end, and the memory stays small."""
    proxy.on(RECEIVE, answer(200, b"x" * (70 << 20)), times=1)
    proxied.queue.send(login_messages(3))
    proxied.start()
    stat = proxied.wait_until_ingested(3, timeout=5)
    assert stat["receive_errors"] == 1
    assert "larger than" in stat["last_error"]
    assert stat["bytes"] < 1 << 20


def test_redirect_is_not_followed(proxied, proxy, moto, make_proxy):
    """A redirect could carry the signed request elsewhere."""
    elsewhere = make_proxy(moto)
    proxy.on(RECEIVE, answer(307, headers={"Location": elsewhere.endpoint + "/"}), times=1)
    proxied.queue.send(login_messages(3))
    proxied.start()
    proxied.wait_until_ingested(3)
    assert elsewhere.requests == []
    assert proxied.stat()["receive_errors"] == 1


def test_message_damaged_on_its_way_is_not_taken(proxied, proxy):
    def damage_one(request, forward):
        got = forward()
        got.body = got.body.replace(b"10.0.0.1", b"10.0.0.9")
        return got

    proxy.on(RECEIVE, damage_one, times=1)
    ids = proxied.queue.send(login_messages(3))
    proxied.start()
    stat = proxied.wait_for(deleted=2)
    assert (stat["received"], stat["inserted"], stat["dead_letters"]) == (2, 2, 0)
    assert "MD5OfBody" in stat["last_error"] and ids[1] in stat["last_error"]
    assert "10.0.0.9" not in stat["last_error"]
    assert sum(proxied.queue.counts()) == 1, "it stays in the queue"


def test_delivery_without_id_or_handle_costs_only_itself(proxied, proxy):
    def strip(request, forward):
        got = forward()
        content = got.json
        for message, name in zip(content.get("Messages", []), ["MessageId", "ReceiptHandle", "Body"]):
            del message[name]
        got.body = json.dumps(content).encode()
        return got

    proxy.on(RECEIVE, strip, times=1)
    proxied.queue.send(login_messages(5))
    proxied.start()
    stat = proxied.wait_for(deleted=2)
    assert (stat["received"], stat["inserted"]) == (2, 2)
    assert proxied.queue.counts() == (0, 3)


def test_message_without_a_sent_timestamp_is_ingested_once(proxied, proxy):
    def without_timestamp(messages):
        for message in messages:
            del message["Attributes"]

    proxy.on(RECEIVE, altered_messages(without_timestamp))
    proxy.on(DELETE, answer(body=b'{"Successful": [{"Id": "0"}]}'), times=1)
    proxied.queue.send([login_message(1, create_date="2024-05-06")])
    proxied.start()
    proxied.wait_for(deleted=1)
    make_visible_again(proxied, proxy.asked(DELETE)[0])
    stat = proxied.wait_for(duplicates=1, deleted=2)
    assert stat["inserted"] == 1


# -- deletes ----------------------------------------------------------------------------------------------------------


def make_visible_again(pipeline, delete_request, position=0):
    handle = delete_request.json["Entries"][position]["ReceiptHandle"]
    client = pipeline.queue.client
    client.change_message_visibility(QueueUrl=pipeline.queue.url, ReceiptHandle=handle, VisibilityTimeout=0)


def fail_entries(positions, code, sender_fault=False):
    """Deletes the others; those at the positions are answered as failed inside a 200."""

    def hook(request, forward):
        entries = request.json["Entries"]
        failed = [entry for entry in entries if int(entry["Id"]) in positions]
        request.body = json.dumps({**request.json, "Entries": [e for e in entries if e not in failed]}).encode()
        content = forward().json if len(failed) < len(entries) else {"Successful": []}
        content["Failed"] = [{"Id": e["Id"], "Code": code, "SenderFault": sender_fault, "Message": "no"} for e in failed]
        return Answer(200, json.dumps(content).encode())

    return hook


@pytest.mark.parametrize("failure", ["503", "429", "half of an answer", "HTML with status 200"])
def test_failed_delete_is_repeated(proxied, proxy, failure):
    proxy.on(DELETE, FAILURES[failure], times=1)
    proxied.queue.send(login_messages(5))
    proxied.start()
    stat = proxied.wait_until_ingested(5)
    assert stat["delete_failures"] == 5
    assert proxied.queue.is_empty()
    assert len(proxied.rows()) == 5


def test_answer_to_a_delete_that_was_lost_is_no_harm(proxied, proxy):
    def lost(request, forward):
        forward()
        return None

    proxy.on(DELETE, lost, times=1)
    proxied.queue.send(login_messages(3))
    proxied.start()
    wait_until(lambda: len(proxy.asked(DELETE)) >= 2, what="the delete is repeated")
    wait_until(proxied.queue.is_empty, 10, "empty queue")
    proxied.wait_for(deleted=3)
    assert len(proxied.rows()) == 3


def handles_of_deletes(proxy):
    return [[entry["ReceiptHandle"] for entry in request.json["Entries"]] for request in proxy.asked(DELETE)]


def test_entries_that_failed_inside_a_200_are_repeated_alone(proxied, proxy):
    proxy.on(DELETE, fail_entries({1, 3}, "InternalError"), times=1)
    proxied.queue.send(login_messages(5))
    proxied.start()
    stat = proxied.wait_until_ingested(5)
    assert stat["delete_failures"] == 2
    assert proxied.queue.is_empty()
    first, *later = handles_of_deletes(proxy)
    assert len(first) == 5
    assert sorted(handle for request in later for handle in request) == sorted([first[1], first[3]])


def test_stale_handle_is_counted_and_not_tried_again(proxied, proxy):
    proxy.on(RECEIVE, short_polls)
    proxy.on(DELETE, fail_entries({0}, "ReceiptHandleIsInvalid", sender_fault=True), times=1)
    proxied.queue.send([login_message(1)])
    proxied.start()
    stat = proxied.wait_for(delete_failures=1)
    assert (stat["inserted"], stat["deleted"]) == (1, 0)
    proxied.wait_for(state="idle")
    assert len(proxy.asked(DELETE)) == 1

    make_visible_again(proxied, proxy.asked(DELETE)[0])
    stat = proxied.wait_for(duplicates=1, deleted=1)
    assert proxied.queue.is_empty()
    assert len(proxied.rows()) == 1


def test_deletes_that_the_answer_leaves_out_are_repeated_alone(proxied, proxy):
    """One is deleted, of the others the answer says nothing."""

    def only_the_first(request, forward):
        request.body = json.dumps({**request.json, "Entries": request.json["Entries"][:1]}).encode()
        return forward()

    proxy.on(DELETE, only_the_first, times=1)
    proxied.queue.send(login_messages(5))
    proxied.start()
    stat = proxied.wait_until_ingested(5)
    assert stat["delete_failures"] == 4
    assert proxied.queue.is_empty()
    first, *later = handles_of_deletes(proxy)
    assert sorted(handle for request in later for handle in request) == sorted(first[1:])


def test_server_that_names_no_deleted_entries_is_asked_twice(proxied, proxy):
    def unnamed(request, forward):
        forward()
        return Answer(200, b"{}")

    proxy.on(DELETE, unnamed)
    proxied.queue.send(login_messages(5))
    proxied.start()
    stat = proxied.wait_until_ingested(5)
    assert (stat["deleted"], stat["delete_failures"]) == (5, 5)
    proxied.wait_for(state="idle")
    asked = [entry["ReceiptHandle"] for request in proxy.asked(DELETE) for entry in request.json["Entries"]]
    assert len(asked) == 10 and len(set(asked)) == 5


def test_answer_that_names_entries_nobody_sent_is_no_success(proxied, proxy):
    proxy.on(DELETE, answer(body=b'{"Successful": [{"Id": "7"}]}'), times=1)
    proxied.queue.send(login_messages(2))
    proxied.start()
    stat = proxied.wait_until_ingested(2)
    assert stat["delete_failures"] == 2
    assert proxied.queue.is_empty()


def test_entry_ids_are_positions(proxied, proxy):
    proxied.queue.send(login_messages(10))
    proxied.start()
    proxied.wait_until_ingested(10)
    for request in proxy.asked(DELETE):
        ids = [entry["Id"] for entry in request.json["Entries"]]
        assert ids == [str(i) for i in range(len(ids))]


# -- the clock --------------------------------------------------------------------------------------------------------


def signed_at(request):
    return calendar.timegm(time.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ"))


def dated(offset, inner=None):
    """Passes on (or to `inner`), with a Date header that is `offset` seconds away."""

    def hook(request, forward):
        got = inner(request, forward) if inner else forward()
        got.headers = {k: v for k, v in got.headers.items() if k.lower() != "date"}
        got.headers["Date"] = email.utils.formatdate(time.time() + offset, usegmt=True)
        return got

    return hook


@pytest.mark.parametrize("offset", [3600, -3600])
def test_wrong_clock_is_corrected_by_the_date_of_the_refusal(proxied, proxy, offset):
    """As AWS does it: a request more than five minutes off is refused, and the refusal says what time it is."""

    def keep_time(request, forward):
        if abs(signed_at(request) - (time.time() + offset)) > 300:
            return dated(offset, error("RequestTimeTooSkewed", 403))(request, forward)
        return dated(offset)(request, forward)

    for action in (ATTRIBUTES, RECEIVE, DELETE):
        proxy.on(action, keep_time)
    proxied.start()
    assert_all_arrives(proxied)
    first, *others = proxy.requests
    assert abs(signed_at(first) - time.time()) < 300
    assert all(abs(signed_at(request) - time.time() - offset) < 120 for request in others)


def test_small_skew_is_corrected_where_the_queue_minds_it(proxied, proxy):
    def strict_to_the_minute(request, forward):
        if abs(signed_at(request) - (time.time() + 120)) > 60:
            return dated(120, error("SignatureDoesNotMatch", 403, "Signature expired"))(request, forward)
        return dated(120)(request, forward)

    for action in (ATTRIBUTES, RECEIVE, DELETE):
        proxy.on(action, strict_to_the_minute)
    proxied.start()
    assert_all_arrives(proxied)
