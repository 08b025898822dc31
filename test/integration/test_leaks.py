"""Plain personal data and keys are nowhere: not in the log at its most talkative, not in a file of the data directory."""
import re
import threading

import pytest
from harness import Cluster, Database, login_message, wait_until
from leaks import TALKATIVE, files_of, found_in
from pipeline import Pipeline, assert_counters_add_up

# Values that occur nowhere by chance. Where a value is rewritten before it is masked, both spellings count.
PLAIN = [
    "203.0.113.217", "device-plain-4f1c9e", "2001:DB8:CAFE:0:0:0:BEEF:217", "2001:db8:cafe::beef:217", "device-plain-77aa01",
    "198.51.100.231", "device-plain-rejected-5d", "203.0.113.99", "device-plain-check-8e", "device-plain-array-1b",
    "203.0.113.161", "device-plain-nul-6c", "device-plain-not-json-2a", "198.51.100.18", "203.0.113.45", "device-plain-dup-9d",
    "device-plain-utf8-3f", "198.51.100.77", "device-plain-long-0e", "203.0.113.118", "device-plain-trigger-7b",
]  # fmt: skip


def bodies():
    return {
        "good": login_message(1, ip=PLAIN[0], device_id=PLAIN[1]),
        "IPv6": login_message(2, ip=PLAIN[2], device_id=PLAIN[4]),
        "no user": login_message(3, ip=PLAIN[5], device_id=PLAIN[6], user_id=...),
        "refused by a CHECK": login_message(4, ip=PLAIN[7], device_id=PLAIN[8], locale="XX"),
        "wrong type": login_message(5, ip=[PLAIN[5]], device_id=[PLAIN[9]]),
        "NUL": login_message(6, ip=PLAIN[10] + "\0", device_id=PLAIN[11]),
        "no JSON": f'{{"ip": "{PLAIN[13]}", "device_id": "{PLAIN[12]}"',
        "duplicate key": f'{{"ip": "{PLAIN[14]}", "device_id": "{PLAIN[15]}", "ip": "x"}}',
        "lone surrogate": f'{{"ip": "{PLAIN[14]}", "device_id": "{PLAIN[16]}\\ud800"}}',
        "too long": login_message(7, ip=PLAIN[17], device_id=PLAIN[18], user_id="u" * 200),
        "refused by a trigger": login_message(8, ip=PLAIN[19], device_id=PLAIN[20], locale="YY"),
        "PII in other places": {**login_message(9, ip=PLAIN[0], device_id=PLAIN[1]), PLAIN[5]: PLAIN[6], "note": PLAIN[8]},
        "rejected, PII in other places": {PLAIN[5]: PLAIN[6], "note": [PLAIN[8], {"ip": PLAIN[0]}]},
        "bad date": login_message(10, ip=PLAIN[0], device_id=PLAIN[1], create_date=f"at {PLAIN[5]}"),
        "bad version": login_message(11, ip=PLAIN[0], device_id=PLAIN[1], app_version=PLAIN[6]),
    }  # fmt: skip


class Ingested:
    """A cluster of its own, in which all of bodies() went through a pipeline while somebody watched pg_stat_activity."""

    def __init__(self, moto, preload):
        self.queue = moto.queue()
        self.cluster = Cluster({**TALKATIVE, **self.queue.settings}, preload=preload)
        self.cluster.start()
        self.db = Database(self.cluster, self.cluster.create_database())
        self.db.sql("CREATE EXTENSION sqs_ingest")
        self.db.sql(
            "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar(256),"
            " masked_device_id varchar(256), locale varchar(32) CHECK (locale <> 'XX'), app_version integer, create_date date)"
        )
        self.db.sql(
            "CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'not this row: %', NEW USING DETAIL = NEW::text, HINT = NEW::text; END $$"
        )
        self.db.sql(
            "CREATE TRIGGER complain BEFORE INSERT ON user_logins FOR EACH ROW WHEN (NEW.locale = 'YY') EXECUTE FUNCTION complain()"
        )
        self.pipeline = Pipeline(self.db, self.queue)
        self.bodies = bodies()
        self.ids = dict(zip(self.bodies, self.queue.send(list(self.bodies.values()))))
        self.activity = []
        self._watch_while(self._ingest)
        self.stat = self.pipeline.stat()
        self.status = self.db.value("SELECT sqs_ingest_status()::text")
        self.keyring = self.cluster.data / "sqs_ingest.keyring"
        self.master = bytes.fromhex(self.keyring.read_text().split()[-1])

    def _ingest(self):
        self.pipeline.start()
        self.pipeline.wait_until_ingested(len(self.bodies))

    def _watch_while(self, work):
        done = threading.Event()

        def watch():
            with self.cluster.connect() as connection:
                while not done.is_set():
                    self.activity += connection.execute("SELECT query FROM pg_stat_activity WHERE query IS NOT NULL").fetchall()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            work()
        finally:
            done.set()
            thread.join()

    def files(self):
        return files_of(self.cluster)

    def close(self):
        self.db.close()
        self.cluster.destroy()
        self.queue.delete()


@pytest.fixture(scope="module", params=["sqs_ingest", "auto_explain,sqs_ingest"])
def ingested(moto, request):
    ingested = Ingested(moto, request.param)
    yield ingested
    ingested.close()


def test_all_went_where_it_belongs(ingested):
    """The rest of this file looks for something in places that were really used."""
    stat = ingested.stat
    assert stat["inserted"] == len(ingested.bodies) - stat["dead_letters"] == 3
    assert_counters_add_up(stat)
    reasons = {letter["message_id"]: letter["reason"] for letter in ingested.pipeline.dead_letters()}
    assert {name: reasons.get(message_id) for name, message_id in ingested.ids.items()} == {
        "good": None,
        "IPv6": None,
        "PII in other places": None,
        "no user": "missing_field",
        "refused by a CHECK": "row_error",
        "refused by a trigger": "row_error",
        "wrong type": "wrong_type",
        "NUL": "nul_character",
        "no JSON": "not_json",
        "duplicate key": "duplicate_key",
        "lone surrogate": "invalid_utf8",
        "too long": "too_long",
        "rejected, PII in other places": "missing_field",
        "bad date": "bad_date",
        "bad version": "bad_version",
    }


def test_log_is_as_talkative_as_intended(ingested):
    log = ingested.cluster.log()
    assert "statement: SELECT sqs_ingest_start(" in log or "sqs_ingest_start" in log
    if "auto_explain" in ingested.cluster.settings["shared_preload_libraries"]:
        assert re.search(r"plan:\s+Query Text: INSERT INTO public\.user_logins", log)
        assert re.search(r"Query Text: INSERT INTO [^\n]*sqs_ingest_dead_letter", log)


def test_log_has_no_plain_value(ingested):
    assert found_in(ingested.cluster.log().encode(), PLAIN) == []


def test_log_has_no_key(ingested):
    assert found_in(ingested.cluster.log().encode(), [ingested.master]) == []


def test_no_file_of_the_data_directory_has_a_plain_value(ingested):
    leaks = {str(path.relative_to(ingested.cluster.data)): found for path, data in ingested.files() if (found := found_in(data, PLAIN))}
    assert leaks == {}


def test_no_file_of_the_data_directory_but_the_keyring_has_the_key(ingested):
    leaks = [str(path) for path, data in ingested.files() if found_in(data, [ingested.master])]
    assert leaks == []


def test_search_would_find_what_is_there(ingested):
    """The masks and the user ids are in the heap, the WAL and the log's plans: a leak would be found the same way."""
    (mask,) = ingested.db.one("SELECT masked_ip FROM user_logins WHERE user_id = %s", [login_message(1)["user_id"]])
    places = {str(path.relative_to(ingested.cluster.data)).split("/")[0] for path, data in ingested.files() if mask.encode() in data}
    assert places >= {"base", "pg_wal"}


def test_status_and_activity_have_no_plain_value(ingested):
    assert len(ingested.activity) > 10
    assert found_in(repr(ingested.activity).encode(), PLAIN) == []
    assert found_in(ingested.status.encode(), PLAIN) == []
    assert found_in(repr(ingested.stat).encode(), PLAIN) == []
    assert found_in(ingested.status.encode(), [ingested.master]) == []


def test_dead_letters_show_no_plain_value_and_seal_the_original(ingested):
    letters = ingested.pipeline.dead_letters()
    assert len(letters) == ingested.stat["dead_letters"]
    for letter in letters:
        assert found_in(repr({**letter, "sealed": None}).encode(), PLAIN) == []
        assert found_in(bytes(letter["sealed"]), PLAIN) == []


def test_rows_hold_masks_only(ingested):
    for row in ingested.pipeline.rows():
        assert re.fullmatch(r"hm1\.[0-9a-f]{64}", row["masked_ip"])
        assert re.fullmatch(r"hm1\.[0-9a-f]{64}", row["masked_device_id"])


def test_statements_of_other_sessions_see_no_plain_value(ingested):
    """What the worker keeps in memory that SQL can show: its prepared statements' texts, and its cursors."""
    shown = ingested.db.sql("SELECT backend_type, query, wait_event FROM pg_stat_activity")
    assert any((kind or "").startswith("sqs_ingest worker") for kind, _, _ in shown)
    assert found_in(repr(shown).encode(), PLAIN) == []


# -- the queue's side -------------------------------------------------------------------------------------------------


def test_crash_while_messages_are_in_hand_writes_no_plain_value(make_cluster, own_moto):
    """A table that cannot be written keeps messages in the worker's memory; then everything is killed."""
    queue = own_moto.queue()
    cluster = make_cluster({**TALKATIVE, **queue.settings})
    db = Database(cluster, cluster.create_database())
    db.sql("CREATE EXTENSION sqs_ingest")
    pipeline = Pipeline(db, queue)
    pipeline.start()
    pipeline.wait_for(state="idle")
    db.sql("ALTER TABLE user_logins RENAME TO away")
    queue.send([body for body in bodies().values()])
    pipeline.wait_for(state="backing_off", in_hand=lambda n: n > 0)
    since = cluster.log_position()
    cluster.kill_all()
    cluster.start()
    wait_until(lambda: cluster.pids("sqs_ingest worker"), what="the worker again")
    pipeline.wait_for(state="backing_off")
    cluster.stop("immediate")
    assert cluster.log(since)
    assert found_in(cluster.log().encode(), PLAIN) == []
    for path in cluster.data.rglob("*"):
        if path.is_file():
            assert found_in(path.read_bytes(), PLAIN) == [], path
