"""FIFO queues: within a message group, rows come in the queue's order, and messages are deleted in it.

The target has a column that counts its inserts. A message's place in its group is its app_version.
"""
import json

import pytest
from elasticmq import elasticmq_fixture, fifo_queue_fixture  # noqa: F401
from harness import login_message, unique, wait_until
from pipeline import assert_counters_add_up, make_pipeline_fixture, prepare  # noqa: F401
from proxy import Answer, make_proxy_fixture, short_polls  # noqa: F401
from redelivery import Handouts

TARGET = """CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
    masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date,
    n bigint GENERATED ALWAYS AS IDENTITY)"""


@pytest.fixture(name="proxy")
def elasticmq_proxy_fixture(elasticmq, make_proxy):
    return make_proxy(elasticmq)


@pytest.fixture(name="fifo")
def fifo_pipeline_fixture(fifo_queue, proxy, make_pipeline):
    """The built-in pipeline on a fresh FIFO queue, through a proxy, into a table that counts its inserts; not started."""
    proxy.on("ReceiveMessage", short_polls)
    pipeline = make_pipeline(fifo_queue, {"sqs_ingest.endpoint_url": proxy.endpoint})
    pipeline.db.sql(TARGET)
    return pipeline


def message_of(group, place, **changes):
    return login_message(place, user_id=group, app_version=str(place), **changes)


def send(queue, messages):
    """Messages in this order; each one's group is its user_id, or what a pair says."""
    pairs = [message if isinstance(message, tuple) else (message["user_id"], message) for message in messages]
    return queue.send([body for _, body in pairs], MessageGroupId=lambda i: pairs[i][0],
                      MessageDeduplicationId=lambda i: unique("d"))  # fmt: skip


def interleaved(groups, places, start=0):
    return [message_of(group, place) for place in range(start, places) for group in groups]


def inserted(pipeline):
    """Of every group, the places in the order in which they were inserted."""
    return dict(pipeline.db.sql("SELECT user_id, array_agg(app_version ORDER BY n) FROM user_logins GROUP BY 1"))


def kill_9(pipeline, handouts):
    """Of the whole server; what it had in hand becomes visible, as it would some time later."""
    pipeline.cluster.kill_all()
    wait_until(lambda: handouts.under_way == 0, what="no receive under way")
    handouts.come_back()
    pipeline.cluster.start()


SLOW = """CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
    CREATE TRIGGER s BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION slow()"""


def in_order(groups, places):
    return {group: list(range(places)) for group in groups}


def set_options(pipeline, **options):
    """Options of the pipeline, which is made for it and not started."""
    prepare(pipeline)
    for name, value in options.items():
        pipeline.db.sql(f"UPDATE sqs_ingest_pipeline SET {name} = %s", [value])


def returned(proxy):
    """The times for which messages went back to the queue invisible, in the order of the requests."""
    asked = [request.json["Entries"] for request in proxy.asked("ChangeMessageVisibilityBatch")]
    return [entries[0]["VisibilityTimeout"] for entries in asked]


GROUPS = [f"g{i}" for i in range(12)]


def test_many_groups_keep_their_order(fifo):
    send(fifo.queue, interleaved(GROUPS, 25))
    fifo.start()
    fifo.wait_until_ingested(300)
    assert inserted(fifo) == in_order(GROUPS, 25)
    assert fifo.queue.is_empty()
    assert_counters_add_up(fifo.stat())


def test_one_long_group_keeps_its_order(fifo):
    send(fifo.queue, interleaved(["only"], 60))
    fifo.start()
    fifo.wait_until_ingested(60)
    assert inserted(fifo) == in_order(["only"], 60)


def test_message_that_becomes_a_dead_letter_does_not_stop_its_group(fifo):
    messages = interleaved(["a", "b"], 10)
    messages[6:6] = [("a", "this is no JSON"), ("b", json.dumps({"user_id": "b"}))]
    send(fifo.queue, messages)
    fifo.start()
    fifo.wait_until_ingested(22)
    assert inserted(fifo) == in_order(["a", "b"], 10)
    assert sorted(letter["reason"] for letter in fifo.dead_letters()) == ["missing_field", "not_json"]
    assert fifo.queue.is_empty()


def test_rows_that_the_table_refuses_do_not_disturb_the_order(fifo):
    fifo.db.sql("ALTER TABLE user_logins ADD CONSTRAINT fives CHECK (app_version % 5 <> 3)")
    send(fifo.queue, interleaved(["a", "b", "c"], 20))
    fifo.start()
    fifo.wait_until_ingested(60)
    assert inserted(fifo) == {group: [n for n in range(20) if n % 5 != 3] for group in "abc"}
    assert len(fifo.dead_letters()) == 12


def test_message_at_which_the_database_breaks_keeps_its_place_in_its_group(fifo):
    """A lone message that breaks the write lets others go first, but not those behind it in its group."""
    fifo.db.sql("""CREATE FUNCTION break_sometimes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.user_id = 'a' AND NEW.app_version = 2 AND nextval('tries') < 8 THEN RAISE 'broken' USING ERRCODE = 'XX000'; END IF;
        RETURN NEW; END $$""")
    fifo.db.sql("CREATE SEQUENCE tries")
    fifo.db.sql("CREATE TRIGGER b BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION break_sometimes()")
    send(fifo.queue, interleaved(["a", "b", "c"], 10))
    fifo.start()
    fifo.wait_until_ingested(30, timeout=90)
    found = inserted(fifo)
    assert found["b"] == found["c"] == list(range(10))
    assert found["a"] == [n for n in range(10) if n in found["a"]], found["a"]
    assert set(range(10)) - set(found["a"]) <= {2}


def test_message_that_cannot_be_kept_takes_those_behind_it_along(fifo, proxy):
    """The extension of one message fails for good while the table is locked: what stands behind it is not written before
    it comes again."""
    fifo.queue.set_attributes(VisibilityTimeout=30)
    lost = {}

    def lose_the_third(request, forward):
        for entry in request.json["Entries"]:
            if entry["VisibilityTimeout"] == 0 or lost:
                continue
            if entry["ReceiptHandle"] == handles.get("2"):
                lost[entry["Id"]] = entry["ReceiptHandle"]
        answer = forward()
        if not lost or "said" in lost:
            return answer
        lost["said"] = True
        (position,) = [key for key in lost if key != "said"]
        content = answer.json
        content["Successful"] = [e for e in content["Successful"] if e["Id"] != position]
        content["Failed"] = [{"Id": position, "SenderFault": True, "Code": "ReceiptHandleIsInvalid", "Message": "it is gone"}]
        answer.body = json.dumps(content).encode()
        # So it is: the queue has it again.
        fifo.queue.client.change_message_visibility(QueueUrl=fifo.queue.url, ReceiptHandle=lost[position], VisibilityTimeout=0)
        return answer

    handles = {}

    def note_handles(request, forward):
        answer = short_polls(request, forward)
        for message in answer.json.get("Messages", []):
            handles.setdefault(json.loads(message["Body"])["app_version"], message["ReceiptHandle"])
        return answer

    proxy.pass_on("ReceiveMessage")
    proxy.on("ReceiveMessage", note_handles).on("ChangeMessageVisibilityBatch", lose_the_third)
    prepare(fifo)
    fifo.start()
    fifo.wait_for(state="idle")
    with fifo.db.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE user_logins")
        send(fifo.queue, interleaved(["a"], 10))
        wait_until(lambda: "said" in lost, 60, "the third one's extension refused")
        wait_until(lambda: fifo.stat()["released"] == 8, 30, lambda: f"third and those behind it gone: {fifo.stat()}")
    fifo.wait_until_ingested(10, timeout=60)
    assert inserted(fifo) == in_order(["a"], 10)
    assert_counters_add_up(fifo.stat())


def test_what_stands_behind_a_damaged_delivery_of_its_group_goes_back_with_it(fifo, proxy):
    damaged = {}

    def damage_the_third(request, forward):
        answer = short_polls(request, forward)
        content = answer.json
        for message in content.get("Messages", []):
            if not damaged and message["Body"] == third:
                damaged[message["MessageId"]] = message["ReceiptHandle"]
                message["MD5OfBody"] = "0" * 32
        answer.body = json.dumps(content).encode()
        return answer

    proxy.pass_on("ReceiveMessage")
    proxy.on("ReceiveMessage", damage_the_third)
    messages = interleaved(["a", "b"], 5)
    third = json.dumps(messages[4])
    send(fifo.queue, messages)
    fifo.start()
    stat = fifo.wait_for(inserted=7, released=2)
    assert "MD5OfBody" in stat["last_error"]
    assert inserted(fifo) == {"a": [0, 1], "b": list(range(5))}
    (handle,) = damaged.values()
    fifo.queue.client.change_message_visibility(QueueUrl=fifo.queue.url, ReceiptHandle=handle, VisibilityTimeout=0)
    fifo.wait_until_ingested(10)
    assert inserted(fifo) == in_order(["a", "b"], 5)


def test_no_message_is_deleted_before_an_earlier_one_of_its_group(fifo, proxy):
    """Deletes of one message fail for a while: the others of its group that are not in the same request wait for it."""
    bodies, done = {}, []

    def note_bodies(request, forward):
        answer = short_polls(request, forward)
        for message in answer.json.get("Messages", []):
            body = json.loads(message["Body"])
            bodies[message["ReceiptHandle"]] = (body["user_id"], int(body["app_version"]))
        return answer

    failed = []

    def fail_some(request, forward):
        entries = request.json["Entries"]
        refused = [e for e in entries if bodies[e["ReceiptHandle"]][1] % 7 == 0 and failed.count(e["ReceiptHandle"]) < 3]
        failed.extend(e["ReceiptHandle"] for e in refused)
        kept = [e for e in entries if e not in refused]
        content = {"Successful": [], "Failed": []}
        if kept:
            request.body = json.dumps({**request.json, "Entries": kept}).encode()
            content = forward().json
            done.append([bodies[e["ReceiptHandle"]] for e in kept])
        content.setdefault("Failed", []).extend(
            {"Id": e["Id"], "SenderFault": False, "Code": "InternalError", "Message": "try again"} for e in refused)
        asked.append([bodies[e["ReceiptHandle"]] for e in entries])
        return Answer(body=json.dumps(content).encode())

    asked = []
    proxy.pass_on("ReceiveMessage")
    proxy.on("ReceiveMessage", note_bodies).on("DeleteMessageBatch", fail_some)
    send(fifo.queue, interleaved(GROUPS, 15))
    fifo.start()
    fifo.wait_until_ingested(180, timeout=60)
    assert failed
    assert inserted(fifo) == in_order(GROUPS, 15)
    # Whatever a request asks for, everything before it in its group was deleted, or is asked for in the same request.
    gone = set()
    for entries, succeeded in zip(asked, _aligned(asked, done)):
        for i, (group, place) in enumerate(entries):
            before = {(group, n) for n in range(place)}
            assert before <= gone | set(entries[:i]), (group, place, before - gone)
        gone.update(succeeded)
    assert fifo.queue.is_empty()


def _aligned(asked, done):
    """For each request what it deleted; one that deleted nothing has no entry in `done`."""
    done = list(done)
    for entries in asked:
        if done and set(done[0]) <= set(entries):
            yield done.pop(0)
        else:
            yield []


def test_message_whose_delete_fails_for_good_takes_those_behind_it_along(fifo, proxy):
    """They come back in order, are recognised, and are deleted then."""
    fifo.queue.set_attributes(VisibilityTimeout=30)
    first, bodies = [], {}

    def note_bodies(request, forward):
        answer = short_polls(request, forward)
        for message in answer.json.get("Messages", []):
            bodies[message["ReceiptHandle"]] = int(json.loads(message["Body"])["app_version"])
        return answer

    def say_that_the_first_is_stale(request, forward):
        entries = request.json["Entries"]
        places = [bodies[entry["ReceiptHandle"]] for entry in entries]
        if first:
            return forward()
        first.extend(places)
        handle = entries[0]["ReceiptHandle"]
        fifo.queue.client.change_message_visibility(QueueUrl=fifo.queue.url, ReceiptHandle=handle, VisibilityTimeout=0)
        failed = [{"Id": "0", "SenderFault": True, "Code": "ReceiptHandleIsInvalid", "Message": "stale"}]
        failed += [{"Id": e["Id"], "SenderFault": False, "Code": "InternalError", "Message": "try again"} for e in entries[1:]]
        return Answer(body=json.dumps({"Successful": [], "Failed": failed}).encode())

    proxy.pass_on("ReceiveMessage")
    proxy.on("ReceiveMessage", note_bodies).on("DeleteMessageBatch", say_that_the_first_is_stale)
    send(fifo.queue, interleaved(["a"], 20))
    fifo.start()
    # Long before the visibility timeout: they were released.
    wait_until(fifo.queue.is_empty, 20, lambda: f"queue empty; it has {fifo.queue.counts()}")
    assert first == list(range(10))
    assert inserted(fifo) == in_order(["a"], 20)
    fifo.wait_for(in_hand=0, deleted=20, duplicates=lambda n: n >= 10)


def test_kill_9_in_the_middle_keeps_the_order(fifo, proxy):
    proxy.pass_on("ReceiveMessage")
    handouts = Handouts(proxy, fifo.queue)
    send(fifo.queue, interleaved(GROUPS, 20))
    fifo.db.sql(SLOW)
    fifo.start()
    for killed_after in (20, 80):
        wait_until(lambda: sum(map(len, inserted(fifo).values())) >= killed_after, 60, "some rows")
        kill_9(fifo, handouts)
    wait_until(lambda: sum(map(len, inserted(fifo).values())) >= 240, 120, lambda: f"all rows: {inserted(fifo)}")
    assert inserted(fifo) == in_order(GROUPS, 20)
    wait_until(fifo.queue.is_empty, 60, lambda: f"queue empty; it has {fifo.queue.counts()}")


def test_database_outage_keeps_the_order(fifo):
    fifo.start()
    fifo.wait_for(state="idle")
    send(fifo.queue, interleaved(GROUPS, 5))
    fifo.wait_until_ingested(60)
    fifo.db.sql("ALTER TABLE user_logins RENAME TO elsewhere")
    send(fifo.queue, interleaved(GROUPS, 20, start=5))
    fifo.wait_for(state="backing_off")
    fifo.db.sql("ALTER TABLE elsewhere RENAME TO user_logins")
    fifo.wait_until_ingested(240, timeout=60)
    assert inserted(fifo) == in_order(GROUPS, 20)


def test_several_workers_keep_the_order(fifo):
    set_options(fifo, workers=2)
    send(fifo.queue, interleaved(GROUPS, 25))
    fifo.start()
    fifo.wait_until_ingested(300, timeout=60)
    assert inserted(fifo) == in_order(GROUPS, 25)
    assert fifo.queue.is_empty()


def test_drain_keeps_the_order(fifo):
    prepare(fifo)
    send(fifo.queue, interleaved(GROUPS, 12))
    fifo.db.sql("CALL sqs_ingest_drain()")
    assert inserted(fifo) == in_order(GROUPS, 12)
    assert fifo.queue.is_empty()


# -- on_invalid = leave -----------------------------------------------------------------------------------------------

NO_JSON = "this is no JSON"


def test_message_that_is_left_stops_its_group_until_it_is_given_up(fifo, proxy):
    set_options(fifo, on_invalid="leave", max_receive_count=2)
    messages = interleaved(["a", "b"], 8)
    messages.insert(6, ("a", NO_JSON))  # behind a's 2
    ids = send(fifo.queue, messages)
    fifo.start()
    # Before it is given up, nothing behind it is written.
    wait_until(lambda: inserted(fifo).get("b") == list(range(8)), what=lambda: f"b written: {inserted(fifo)}")
    assert inserted(fifo)["a"] == [0, 1, 2]
    fifo.wait_for(dead_letters=1, in_hand=0, inserted=16)
    assert inserted(fifo) == in_order(["a", "b"], 8)
    (letter,) = fifo.dead_letters()
    assert (letter["message_id"], letter["reason"], letter["receive_count"]) == (ids[6], "too_many_receives", 3)
    assert returned(proxy) == [2, 4]
    fifo.wait_for(deleted=17)
    assert fifo.queue.is_empty()
    assert_counters_add_up(fifo.stat())


def test_row_that_is_left_stops_its_group_until_the_table_takes_it(fifo, proxy):
    set_options(fifo, on_invalid="leave")
    fifo.db.sql("ALTER TABLE user_logins ADD CONSTRAINT no_fours CHECK (user_id <> 'a' OR app_version % 5 <> 4)")
    send(fifo.queue, interleaved(["a", "b", "c"], 10))
    fifo.start()
    wait_until(lambda: returned(proxy)[-1:] == [4], what=lambda: f"left twice: {returned(proxy)}")
    assert inserted(fifo) == {"a": [0, 1, 2, 3], "b": list(range(10)), "c": list(range(10))}
    fifo.db.sql("ALTER TABLE user_logins DROP CONSTRAINT no_fours")
    wait_until(lambda: inserted(fifo) == in_order(["a", "b", "c"], 10), what=lambda: f"all in order: {inserted(fifo)}")
    assert fifo.dead_letters() == []
    fifo.wait_for(deleted=30, in_hand=0)
    assert fifo.queue.is_empty()
    assert_counters_add_up(fifo.stat())


def test_message_that_is_left_is_in_the_last_error(fifo):
    set_options(fifo, on_invalid="leave")
    (id,) = send(fifo.queue, [("a", NO_JSON)])
    fifo.start()
    stat = fifo.wait_for(released=1)
    assert id in stat["last_error"] and NO_JSON not in str(stat)


@pytest.fixture(name="standard")
def standard_pipeline_fixture(elasticmq, proxy, make_pipeline):
    """The built-in pipeline on a standard queue, whose redrive policy allows two receives; queue.letters is its own
    dead letter queue."""
    letters = elasticmq.queue()
    policy = {"deadLetterTargetArn": letters.attributes()["QueueArn"], "maxReceiveCount": 2}
    queue = elasticmq.queue(RedrivePolicy=json.dumps(policy))
    queue.letters = letters
    proxy.on("ReceiveMessage", short_polls)
    pipeline = make_pipeline(queue, {"sqs_ingest.endpoint_url": proxy.endpoint})
    pipeline.db.sql(TARGET)
    return pipeline


def test_message_of_a_standard_queue_is_left_alone_and_ends_by_the_redrive_policy(standard, proxy):
    set_options(standard, on_invalid="leave")
    (id, *_) = standard.queue.send([NO_JSON, *interleaved(["a"], 20)])
    standard.start()
    standard.wait_for(inserted=20)
    wait_until(lambda: standard.queue.letters.counts() == (1, 0), what="the bad one in the dead letter queue")
    assert [message["MessageId"] for message in standard.queue.letters.receive()] == [id]
    assert returned(proxy) == [2, 4]
    standard.wait_for(deleted=20)
    assert standard.queue.is_empty() and standard.dead_letters() == []
    assert_counters_add_up(standard.stat())


def test_groups_of_a_standard_queue_mean_no_order(standard):
    """Fair queues: MessageGroupId on a standard queue names a tenant."""
    set_options(standard, on_invalid="leave")
    bodies = [NO_JSON, *interleaved(["a"], 9)]
    standard.queue.send(bodies, MessageGroupId="a")
    standard.start()
    standard.wait_for(inserted=9, released=1)


# -- without a ledger -------------------------------------------------------------------------------------------------


def assert_nothing_is_skipped(places):
    """Messages may be written twice, but then all that is behind them in hand is, too: places never jump ahead."""
    seen = -1
    for before, place in zip([-1, *places], places):
        assert place <= before + 1 and place <= seen + 1, places
        seen = max(seen, place)


def test_without_a_ledger_kill_9_keeps_the_order(fifo, proxy):
    set_options(fifo, ledger=False)
    proxy.pass_on("ReceiveMessage")
    handouts = Handouts(proxy, fifo.queue)
    fifo.db.sql(SLOW)
    send(fifo.queue, interleaved(GROUPS[:6], 20))
    fifo.start()
    for killed_after in (15, 60):
        wait_until(lambda: sum(map(len, inserted(fifo).values())) >= killed_after, 60, "some rows")
        kill_9(fifo, handouts)
    wait_until(fifo.queue.is_empty, 120, lambda: f"queue empty; it has {fifo.queue.counts()}")
    found = inserted(fifo)
    for group in GROUPS[:6]:
        assert_nothing_is_skipped(found[group])
        assert set(found[group]) == set(range(20))


def test_without_a_ledger_failing_deletes_keep_the_order(fifo, proxy):
    """Some deletes fail for good: those messages come back, and with them all that is behind them."""
    set_options(fifo, ledger=False)
    fifo.queue.set_attributes(VisibilityTimeout=30)
    stale = []

    def make_one_stale(request, forward):
        entries = request.json["Entries"]
        if len(stale) >= 6:
            return forward()
        handle = entries[len(stale) % len(entries)]["ReceiptHandle"]
        stale.append(handle)
        fifo.queue.client.change_message_visibility(QueueUrl=fifo.queue.url, ReceiptHandle=handle, VisibilityTimeout=0)
        kept = [entry for entry in entries if entry["ReceiptHandle"] != handle]
        (id,) = [entry["Id"] for entry in entries if entry["ReceiptHandle"] == handle]
        content = {"Successful": [], "Failed": []}
        if kept:
            request.body = json.dumps({**request.json, "Entries": kept}).encode()
            content = forward().json
        content.setdefault("Failed", []).append({"Id": id, "SenderFault": True, "Code": "ReceiptHandleIsInvalid", "Message": "stale"})
        return Answer(body=json.dumps(content).encode())

    proxy.on("DeleteMessageBatch", make_one_stale)
    send(fifo.queue, interleaved(GROUPS[:3], 15))
    fifo.start()
    wait_until(lambda: len(stale) == 6 and fifo.queue.is_empty(), 60, lambda: f"queue empty; it has {fifo.queue.counts()}")
    found = inserted(fifo)
    for group in GROUPS[:3]:
        assert set(found[group]) == set(range(15))
        firsts = list(dict.fromkeys(found[group]))
        assert firsts == list(range(15)), found[group]


# -- receives whose answer is lost ------------------------------------------------------------------------------------


def test_receive_that_got_no_answer_is_repeated_and_brings_its_messages(fifo, proxy):
    """Otherwise their groups would stand still for the visibility timeout, which is ten minutes here."""
    fifo.queue.set_attributes(VisibilityTimeout=600)
    lost, answered = [], []

    def lose_the_first_messages(request, forward):
        answer = short_polls(request, forward)
        brought = [message["Body"] for message in answer.json.get("Messages", [])]
        if brought and len(lost) < 2:
            lost.append(request.json["ReceiveRequestAttemptId"])
            return None if len(lost) == 1 else Answer(502, b"<html>Bad Gateway</html>")
        answered.append(request.json["ReceiveRequestAttemptId"])
        return answer

    proxy.pass_on("ReceiveMessage")
    proxy.on("ReceiveMessage", lose_the_first_messages)
    send(fifo.queue, interleaved(["a"], 10))
    fifo.start()
    fifo.wait_until_ingested(10)
    assert inserted(fifo) == in_order(["a"], 10)
    assert lost[0] == lost[1]
    fifo.wait_for(deleted=10)
    # Answered once, an id is never used again.
    wait_until(lambda: len(answered) > 3, what="more receives")
    assert lost[0] in answered and len(set(answered)) == len(answered)


def test_standard_queue_is_not_asked_with_an_attempt_id(standard, proxy):
    standard.queue.send(interleaved(["a"], 3))
    standard.start()
    standard.wait_for(deleted=3)
    assert all("ReceiveRequestAttemptId" not in request.json for request in proxy.asked("ReceiveMessage"))
