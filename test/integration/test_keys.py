"""The masking keys over time: rotation under running workers and open sessions, and keys that are not those that this
database was used with. Expected tokens are made by keys.py, not by the extension."""
import re
import signal
import subprocess
import threading

import psycopg
import pytest
from harness import Database, login_message, login_messages, pg_bin, unique, wait_until
from keys import (  # noqa: F401
    K1, K2, K3, OTHER, KeyringFile, fingerprint, hmac_token, keyring_fixture, make_pipeline_without_workers, siv_token, unseal,
)  # fmt: skip
from pipeline import Pipeline, assert_counters_add_up, make_pipeline_fixture, pipeline_fixture, stop_soon  # noqa: F401
from pipelines import make_proxy_fixture, pipelines_fixture  # noqa: F401

IP = login_message(1)["ip"]
DEVICE_LATER = (  # device_id is not required any more
    "UPDATE sqs_ingest_pipeline SET columns = (SELECT jsonb_agg(CASE c ->> 'column' WHEN 'masked_device_id' THEN c - 'required' ELSE c END)"
    " FROM jsonb_array_elements(columns) AS c)"
)


def key_states(db):
    return {row[0]: row[1] for row in db.sql("SELECT id, state FROM mask_keys()")}


def drain(pipeline, messages):
    pipeline.queue.send(messages)
    pipeline.db.sql("CALL sqs_ingest_drain()")
    assert pipeline.queue.is_empty()


def notices_of(connection):
    """The notices that a session gets from now on, as they come."""
    found = []
    connection.add_notice_handler(lambda diag: found.append((diag.severity_nonlocalized, diag.message_primary, diag.message_hint)))
    return found


def assert_other_key(error, key_id=1):
    assert error.sqlstate == "F0000"
    assert f"key {key_id} of keyring file" in error.diag.message_primary
    assert "is not the key that this database was used with" in error.diag.message_primary
    assert "backup" in error.diag.message_hint and "mask_keys()" in error.diag.message_hint
    for master in (K1, OTHER):
        assert master.hex() not in str(error)


def assert_refuses_the_other_key(db, statement="SELECT mask('x')", key_id=1):
    with db.connect() as session, pytest.raises(psycopg.Error) as refusal:
        session.execute(statement)
    assert_other_key(refusal.value, key_id)


@pytest.fixture
def used_db(db, keyring):
    """A database that was used with key 1."""
    db.sql("CREATE EXTENSION sqs_ingest")
    db.sql("INSERT INTO sqs_ingest_key (id, fingerprint) VALUES (1, %s)", [fingerprint(K1)])
    assert key_states(db) == {1: "ok"}
    return db


# -- rotation ---------------------------------------------------------------------------------------------------------


def test_a_new_key_is_used_at_once_by_workers_and_open_sessions(pipeline, keyring):
    db = pipeline.db
    pipeline.start()
    pipeline.queue.send([login_message(1, user_id="before")])
    pipeline.wait_until_done(1)
    assert db.value("SELECT mask(%s::text)", [IP]) == hmac_token(1, K1, IP)
    keyring.keys({1: K1, 2: K2})
    assert db.value("SELECT mask(%s::text)", [IP]) == hmac_token(2, K2, IP)
    pipeline.queue.send([login_message(1, user_id="after")])
    pipeline.wait_until_done(2)
    assert {row["user_id"]: row["masked_ip"] for row in pipeline.rows()} == {
        "before": hmac_token(1, K1, IP),
        "after": hmac_token(2, K2, IP),
    }
    assert db.value("SELECT mask_candidates(%s::text)", [IP]) == [hmac_token(2, K2, IP), hmac_token(1, K1, IP)]
    look_up = "SELECT user_id FROM user_logins WHERE masked_ip = ANY(mask_candidates(%s::inet)) ORDER BY 1"
    assert db.sql(look_up, [IP]) == [("after",), ("before",)]
    assert key_states(db) == {1: "ok", 2: "ok"}  # recorded by the worker
    stop_soon(pipeline)


def test_a_transaction_uses_a_new_key_from_its_next_statement_on(used_db, keyring):
    with used_db.connect(autocommit=False) as session:
        assert session.execute("SELECT mask('x')").fetchone() == (hmac_token(1, K1, "x"),)
        keyring.keys({1: K1, 2: K2})
        assert session.execute("SELECT mask('x')").fetchone() == (hmac_token(2, K2, "x"),)


def test_old_tokens_are_unmasked_and_rewrapped_in_sql(used_db, keyring):
    db, values = used_db, ["199.172.111.135", "", "Zoë"]
    db.sql("CREATE TABLE kept (value text, reversible text, keyed text)")
    for value in values:
        db.sql("INSERT INTO kept VALUES (%s, mask(%s::text, 'siv'), mask(%s::text, 'hmac'))", [value] * 3)
    assert db.sql("SELECT reversible, keyed FROM kept") == [(siv_token(1, K1, v), hmac_token(1, K1, v)) for v in values]

    keyring.keys({1: K1, 2: K2})
    assert db.sql("SELECT unmask(reversible, 'test') FROM kept") == [(v,) for v in values]
    db.sql("UPDATE kept SET reversible = mask_rewrap(reversible)")
    assert db.sql("SELECT reversible FROM kept") == [(siv_token(2, K2, v),) for v in values]
    assert db.value("SELECT bool_and(reversible = mask(value, 'siv')) FROM kept")
    assert db.sql("SELECT keyed FROM kept") == [(hmac_token(1, K1, v),) for v in values]
    db.sql("UPDATE kept SET reversible = mask_rewrap(reversible)")  # again: nothing to do
    assert db.sql("SELECT reversible FROM kept") == [(siv_token(2, K2, v),) for v in values]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="hmac cannot be reversed"):
        db.sql("SELECT mask_rewrap(keyed) FROM kept")

    keyring.keys({2: K2})  # key 1 has done its duty
    assert db.sql("SELECT unmask(reversible, 'test') FROM kept") == [(v,) for v in values]


def test_a_token_of_a_removed_key_is_refused_with_the_keys_id(used_db, keyring):
    keyring.keys({2: K2})
    for call in ("unmask(%s, 'test')", "mask_rewrap(%s)"):
        with pytest.raises(psycopg.errors.UndefinedObject, match="key id 1, which is not in the keyring"):
            used_db.sql(f"SELECT {call}", [siv_token(1, K1, "x")])


def test_candidates_of_every_method_are_under_every_key_newest_first(used_db, keyring):
    keyring.keys({7: K3, 1: K1, 2: K2})
    keys = [(7, K3), (2, K2), (1, K1)]
    assert used_db.value("SELECT mask_candidates('x')") == [hmac_token(i, k, "x") for i, k in keys]
    assert used_db.value("SELECT mask_candidates('x', 'siv')") == [siv_token(i, k, "x") for i, k in keys]
    assert used_db.value("SELECT mask_candidates('::ffff:1.2.3.4'::inet)") == [hmac_token(i, k, "1.2.3.4") for i, k in keys]
    assert used_db.value("SELECT mask_candidates('x', 'md5') = ARRAY[md5('x')]")
    assert used_db.value("SELECT mask_candidates(NULL) IS NULL")


def test_dead_letters_from_before_a_rotation_are_redriven_after_it(pipeline, keyring):
    db = pipeline.db
    make_pipeline_without_workers(pipeline)
    drain(pipeline, [login_message(i, device_id=...) for i in range(3)])
    bodies = [unseal(1, K1, letter["message_id"], bytes(letter["sealed"])) for letter in pipeline.dead_letters()]
    assert len(bodies) == 3 and all('"user_id"' in body for body in bodies)

    keyring.keys({1: K1, 2: K2})
    assert db.value("SELECT sqs_ingest_redrive()") == 0  # nothing was mended: sealed anew, under the key of today
    assert [unseal(2, K2, letter["message_id"], bytes(letter["sealed"])) for letter in pipeline.dead_letters()] == bodies
    assert [letter["redrives"] for letter in pipeline.dead_letters()] == [1, 1, 1]
    keyring.keys({2: K2})
    db.sql(DEVICE_LATER)
    assert db.value("SELECT sqs_ingest_redrive()") == 3
    assert pipeline.dead_letters() == []
    assert {row["masked_ip"] for row in pipeline.rows()} == {hmac_token(2, K2, login_message(i)["ip"]) for i in range(3)}


def test_dead_letters_of_a_removed_key_are_left_with_a_warning(pipeline, keyring):
    db = pipeline.db
    make_pipeline_without_workers(pipeline)
    drain(pipeline, [login_message(1, device_id=...), login_message(2, device_id=...)])
    keyring.keys({1: K1, 2: K2})
    drain(pipeline, [login_message(3, device_id=...)])
    before = pipeline.dead_letters()
    db.sql(DEVICE_LATER)

    keyring.keys({2: K2})
    notices = notices_of(db.connection)
    assert db.value("SELECT sqs_ingest_redrive()") == 1
    (warning,) = [notice for notice in notices if notice[0] == "WARNING"]
    assert "2 dead letters could not be opened" in warning[1] and "key id 1" in warning[1] and "backup" in warning[2]
    assert pipeline.dead_letters() == before[:2]  # as they were, to the last column
    assert key_states(db) == {1: "missing", 2: "ok"}
    user = login_message(1)["user_id"]
    assert db.value("SELECT sqs_ingest_forget(%s)", [user]) == {"rows": 0, "dead_letters": 0, "not_opened": 2}

    keyring.keys({1: K1, 2: K2})
    assert db.value("SELECT sqs_ingest_redrive()") == 2
    assert len(pipeline.rows()) == 3 and pipeline.dead_letters() == []


def test_a_rotation_while_messages_are_in_hand_loses_nothing(pipeline, keyring):
    pipeline.start()
    pipeline.wait_for(state="idle")
    pipeline.db.sql("ALTER TABLE user_logins RENAME TO away")
    messages = [*login_messages(9), login_message(9, device_id=...)]
    pipeline.queue.send(messages)
    pipeline.wait_for(in_hand=10)
    keyring.keys({1: K1, 2: K2})
    pipeline.db.sql("ALTER TABLE away RENAME TO user_logins")
    stat = pipeline.wait_until_ingested(10)
    assert {row["user_id"]: row["masked_ip"] for row in pipeline.rows()} == {
        message["user_id"]: hmac_token(2, K2, message["ip"]) for message in messages[:9]
    }
    (letter,) = pipeline.dead_letters()
    assert login_message(9)["user_id"] in unseal(2, K2, letter["message_id"], bytes(letter["sealed"]))
    assert_counters_add_up(stat)


def test_rotations_in_full_flow_lose_nothing(pipeline, keyring):
    messages, keys = login_messages(400), {1: K1}
    pipeline.start()
    for key_id in range(2, 6):
        pipeline.queue.send(messages[(key_id - 2) * 100 : (key_id - 1) * 100])
        keyring.keys(keys := {**keys, key_id: bytes([key_id]) * 32})
    pipeline.wait_until_ingested(400)
    rows = pipeline.rows()
    assert sorted(row["user_id"] for row in rows) == sorted(message["user_id"] for message in messages)
    tokens = {m["user_id"]: {hmac_token(i, key, m["ip"]) for i, key in keys.items()} for m in messages}
    assert [row for row in rows if row["masked_ip"] not in tokens[row["user_id"]]] == []
    # What was recorded is what was written with, and more tokens are found than those under the newest key.
    assert {int(row["masked_ip"][2 : row["masked_ip"].index(".")]) for row in rows} <= set(key_states(pipeline.db))
    assert set(key_states(pipeline.db).values()) <= {"ok", "new"}


def test_a_pipeline_of_method_siv_rotates_too(make_pipeline, queue, keyring):
    pipeline = make_pipeline(queue, {"sqs_ingest.mask_method": "siv"})
    make_pipeline_without_workers(pipeline)
    drain(pipeline, [login_message(1)])
    keyring.keys({1: K1, 2: K2})
    drain(pipeline, [login_message(2)])
    db, ips = pipeline.db, [login_message(i)["ip"] for i in (1, 2)]
    assert db.sql("SELECT masked_ip FROM user_logins ORDER BY user_id") == [(siv_token(1, K1, ips[0]),), (siv_token(2, K2, ips[1]),)]
    db.sql("UPDATE user_logins SET masked_ip = mask_rewrap(masked_ip)")
    assert db.sql("SELECT unmask(masked_ip, 'test') FROM user_logins WHERE masked_ip = (SELECT mask(%s::inet))", [ips[0]]) == [(ips[0],)]


# -- a new file that is broken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, mode, why",
    [
        (f"1 {K1.hex()}\n2 {K2.hex()[:-1]}x\n", 0o600, "line 2: expected 64 hexadecimal digits"),
        (f"1 {K1.hex()}\n2 {K2.hex()}\n", 0o640, "has mode 0640"),
        (None, None, "does not exist"),
    ],
    ids=["malformed", "readable by others", "missing"],
)
def test_a_broken_new_file_keeps_the_old_keys_and_the_log_says_why(pipeline, keyring, text, mode, why):
    db, cluster = pipeline.db, pipeline.cluster
    pipeline.start()
    assert db.value("SELECT mask('x')") == hmac_token(1, K1, "x")
    pipeline.wait_for(state="idle")
    since = cluster.log_position()
    keyring.remove() if text is None else keyring.text(text, mode)
    assert db.value("SELECT mask('x')") == hmac_token(1, K1, "x")
    pipeline.queue.send([login_message(1)])
    pipeline.wait_until_done(1)
    assert pipeline.rows()[0]["masked_ip"] == hmac_token(1, K1, IP)
    assert pipeline.stat()["state"] in ("running", "idle")
    kept = re.findall(r"LOG:  sqs_ingest keeps the masking keys read before: keyring file (.*)", cluster.log(since))
    assert len(kept) == 2  # the worker and the session, each once
    assert all(why in line for line in kept)
    assert K2.hex()[:8] not in cluster.log(since) and K1.hex()[:8] not in cluster.log(since)
    # A new session has no old keys.
    with db.connect() as session, pytest.raises(psycopg.Error, match=re.escape(why)):
        session.execute("SELECT mask('x')")
    keyring.keys({1: K1, 2: K2})
    assert db.value("SELECT mask('x')") == hmac_token(2, K2, "x")


def test_the_longest_keyring_is_read_and_read_again(used_db, keyring):
    """Both rings are in OpenSSL's secure heap while one replaces the other."""
    keys = {key_id: key_id.to_bytes(32, "big") for key_id in range(2, 952)}
    for newest in (K2, K3, OTHER):
        keyring.keys({1: K1, **keys, 951: newest})
        assert keyring.path.stat().st_size > 65536 - 69  # no room for another key in 64 kB
        assert used_db.value("SELECT mask('x')") == hmac_token(951, newest, "x")
    assert len(used_db.value("SELECT mask_candidates('x', 'siv')")) == 951
    keyring.text(keyring.path.read_text() + "#" * 69)
    assert used_db.value("SELECT mask('x')") == hmac_token(951, OTHER, "x")
    used_db.cluster.wait_for_log("keeps the masking keys read before: .* is longer than 64 kB")


# -- fingerprints -----------------------------------------------------------------------------------------------------


def test_start_records_the_keys(pipeline, keyring):
    db, columns = pipeline.db, "id, is_primary, state, fingerprint, recorded_at IS NOT NULL"
    keyring.keys({1: K1, 2: K2})
    assert db.sql(f"SELECT {columns} FROM mask_keys()") == [
        (1, False, "new", fingerprint(K1), False),
        (2, True, "new", fingerprint(K2), False),
    ]
    make_pipeline_without_workers(pipeline)
    assert db.sql(f"SELECT {columns} FROM mask_keys()") == [
        (1, False, "ok", fingerprint(K1), True),
        (2, True, "ok", fingerprint(K2), True),
    ]
    keyring.keys({2: OTHER, 3: K3})
    assert db.sql(f"SELECT {columns} FROM mask_keys()") == [
        (1, False, "missing", fingerprint(K1), True),
        (2, False, "different", fingerprint(OTHER), True),
        (3, True, "new", fingerprint(K3), False),
    ]


def test_a_start_that_is_rolled_back_records_nothing(pipeline, keyring):
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        session.rollback()
        assert key_states(pipeline.db) == {1: "new"}
        # Nor does the session think that it did.
        pipeline.db.sql("INSERT INTO sqs_ingest_key (id, fingerprint) VALUES (1, %s)", [fingerprint(OTHER)])
        with pytest.raises(psycopg.Error) as refusal:
            session.execute("SELECT mask('x')")
        assert_other_key(refusal.value)


def test_a_redrive_under_way_keeps_nobody_from_recording_a_new_key(pipelines, keyring):
    db = pipelines.db
    db.sql("CREATE TABLE slow (id integer); CREATE TABLE other (id integer)")
    db.sql("""CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$""")
    mapping = [{"column": "id", "from": "/id"}]
    slow, other = pipelines("slow", mapping), pipelines("other", mapping)
    slow.queue.send([{"id": "x"}])
    slow.drain()
    db.sql("ALTER TABLE slow ALTER id TYPE text; CREATE TRIGGER wait BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION wait()")
    keyring.keys({1: K1, 2: K2})
    redriven = []
    with db.connect(autocommit=False) as holder, db.connect() as session:
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        thread = threading.Thread(target=lambda: redriven.append(session.execute("SELECT sqs_ingest_redrive(%s)", [slow.name]).fetchone()[0]))
        thread.start()
        waits = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: db.value(waits, [session.info.backend_pid]) == "Lock", 20, "the redrive waits")
        other.drain()
        assert key_states(db) == {1: "ok", 2: "ok"}
        holder.rollback()
        thread.join(30)
    assert redriven == [1] and key_states(db) == {1: "ok", 2: "ok"}


def test_a_redrive_records_a_new_key(pipelines, keyring):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer)")
    pipeline = pipelines("t", [{"column": "id", "from": "/id"}])
    pipeline.queue.send([{"id": "x"}])
    pipeline.drain()
    keyring.keys({1: K1, 2: K2})
    assert db.value("SELECT sqs_ingest_redrive(%s)", [pipeline.name]) == 0
    assert key_states(db) == {1: "ok", 2: "ok"}


def test_create_keyring_records_the_key_and_warns_where_it_lies(db, keyring):
    db.sql("CREATE EXTENSION sqs_ingest")
    keyring.remove()
    notices = notices_of(db.connection)
    assert db.value("SELECT sqs_ingest_create_keyring()") == str(keyring.path)
    assert key_states(db) == {1: "ok"}
    assert keyring.path.stat().st_mode & 0o777 == 0o600
    (created, warned) = notices
    assert created[0] == "NOTICE" and "Back it up" in created[2]
    assert warned[0] == "WARNING" and "inside the data directory" in warned[1]
    assert keyring.path.read_text().split()[-1] not in repr(notices)


def test_a_keyring_outside_the_data_directory_is_no_cause_for_a_warning(db, keyring):
    cluster, path = db.cluster, db.cluster.directory / "elsewhere"
    db.sql("CREATE EXTENSION sqs_ingest")
    cluster.set({"sqs_ingest.mask_keyring": path}).reload()
    notices = notices_of(db.connection)
    assert db.value("SELECT sqs_ingest_create_keyring()") == str(path)
    assert [notice[0] for notice in notices] == ["NOTICE"]
    assert re.fullmatch(r"hm1\.[0-9a-f]{64}", masked := db.value("SELECT mask('x')")) and masked != hmac_token(1, K1, "x")
    # It is another key than that of the file beside postgresql.conf.
    cluster.unset("sqs_ingest.mask_keyring").reload()
    assert_refuses_the_other_key(db)
    path.rename(keyring.path)
    cluster.reload()
    assert db.value("SELECT mask('x')") == masked


def test_recorded_at_is_the_tables_whatever_the_datestyle(used_db):
    with used_db.connect() as session:
        session.execute("SET datestyle = 'SQL, DMY'")
        session.execute("SET timezone = 'Asia/Kolkata'")
        same = session.execute("SELECT m.recorded_at = k.recorded_at FROM mask_keys() m JOIN sqs_ingest_key k USING (id)")
        assert same.fetchall() == [(True,)]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT mask('x')",
        "SELECT mask('x', 'siv')",
        "SELECT mask('1.2.3.4'::inet)",
        "SELECT mask_candidates('x')",
        "SELECT mask_candidates('1.2.3.4'::inet)",
        f"SELECT unmask('{siv_token(1, K1, 'x')}', 'test')",
        f"SELECT unmask('{siv_token(1, OTHER, 'x')}', 'test')",
        f"SELECT mask_rewrap('{siv_token(1, OTHER, 'x')}')",
        "SELECT sqs_ingest_start()",
    ],
)
def test_another_key_under_a_known_id_is_refused(used_db, queue, keyring, statement):
    used_db.cluster.set(queue.settings)
    keyring.keys({1: OTHER})
    assert_refuses_the_other_key(used_db, statement)
    keyring.keys({1: OTHER, 2: K2})  # another primary key makes it no better
    assert_refuses_the_other_key(used_db, statement)
    assert used_db.value("SELECT count(*) FROM sqs_ingest_unmask_audit") == 0
    used_db.cluster.unset(*queue.settings).reload()


def test_a_pipelines_functions_refuse_another_key(pipeline, keyring):
    db = pipeline.db
    make_pipeline_without_workers(pipeline)
    drain(pipeline, [login_message(1), login_message(2, device_id=...)])
    rows, letters = pipeline.rows(), pipeline.dead_letters()
    keyring.keys({1: OTHER})
    user = login_message(2)["user_id"]
    for statement in ("SELECT sqs_ingest_redrive()", "SELECT sqs_ingest_preview('user_logins', '{}')",
                      f"SELECT sqs_ingest_forget('{user}')", "SELECT sqs_ingest_start()"):  # fmt: skip
        assert_refuses_the_other_key(db, statement)
    found = {row[0]: row[1:] for row in db.sql("SELECT item, ok, detail, hint FROM sqs_ingest_check()")}
    assert found["keyring"][0] is False
    assert "is not the key that this database was used with" in found["keyring"][1] and "backup" in found["keyring"][2]
    assert (pipeline.rows(), pipeline.dead_letters()) == (rows, letters)
    assert key_states(db) == {1: "different"}


def test_drain_refuses_another_key_and_takes_nothing_from_the_queue(pipeline, keyring):
    make_pipeline_without_workers(pipeline)
    keyring.keys({1: OTHER})
    pipeline.queue.send([login_message(1)])
    assert_refuses_the_other_key(pipeline.db, "CALL sqs_ingest_drain()")
    assert pipeline.queue.counts() == (1, 0)
    assert pipeline.rows() == [] and pipeline.dead_letters() == []


def test_a_keyring_without_the_newest_key_is_refused(pipeline, keyring):
    """An old copy of the file: an older key would be the primary again, and equal values would have other masks."""
    db = pipeline.db
    keyring.keys({1: K1, 2: K2})
    pipeline.start()
    pipeline.queue.send([login_message(1)])
    pipeline.wait_until_done(1)
    keyring.keys({1: K1})
    stat = pipeline.wait_for(state="backing_off")
    assert "key 2, which this database was used with, is not in keyring file" in stat["why"]
    for statement in ("SELECT mask('x')", "SELECT mask_candidates('x')", "SELECT sqs_ingest_start()"):
        with db.connect() as session, pytest.raises(psycopg.Error, match="key 2, which this database was used with") as refusal:
            session.execute(statement)
        assert refusal.value.sqlstate == "F0000" and "newest keyring" in refusal.value.diag.message_hint
    keyring.keys({2: K2, 3: K3})  # the older one may go
    pipeline.queue.send([login_message(2)])
    pipeline.wait_until_done(2)
    assert [row["masked_ip"] for row in pipeline.rows()] == [hmac_token(2, K2, IP), hmac_token(3, K3, login_message(2)["ip"])]
    # On purpose:
    stop_soon(pipeline)
    db.sql("DELETE FROM sqs_ingest_key WHERE id > 1")
    keyring.keys({1: K1})
    assert db.value("SELECT mask('x')") == hmac_token(1, K1, "x")


def test_an_open_session_refuses_another_key_after_its_reload_and_needs_nothing_but_the_right_one(used_db, keyring):
    assert used_db.value("SELECT mask('x')") == hmac_token(1, K1, "x")
    keyring.keys({1: OTHER})
    for _ in range(2):  # not only the first time
        with pytest.raises(psycopg.Error) as refusal:
            used_db.sql("SELECT mask('x')")
        assert_other_key(refusal.value)
    keyring.keys({1: K1})
    assert used_db.value("SELECT mask('x')") == hmac_token(1, K1, "x")


def test_methods_without_a_key_need_no_keyring(used_db, keyring):
    keyring.keys({1: OTHER})
    assert used_db.value("SELECT mask('x', 'md5') = md5('x') AND mask('x', 'sha256') = encode(sha256('x'), 'hex')")
    keyring.remove()
    with used_db.connect() as session:
        assert session.execute("SELECT mask('x', 'md5') = md5('x')").fetchone() == (True,)


def test_another_key_stops_a_running_worker_and_the_right_one_starts_it_again(pipeline, keyring):
    cluster = pipeline.cluster
    pipeline.start()
    pipeline.queue.send([login_message(1)])
    pipeline.wait_until_done(1)
    keyring.keys({1: OTHER})
    stat = pipeline.wait_for(state="backing_off")
    assert "is not the key that this database was used with" in stat["why"] and "backup" in stat["hint"]
    # The long poll that was under way brings these; nothing is made of them.
    pipeline.queue.send([*login_messages(3, start=2), login_message(5, device_id=...)])
    in_hand = pipeline.wait_for(in_hand=lambda n: n > 0)["in_hand"]
    # Twice more it looks, and neither writes nor takes more.
    since, seen = cluster.log_position(), pipeline.stat()["last_error_at"]
    for _ in range(2):
        seen = pipeline.wait_for(last_error_at=lambda at, seen=seen: at > seen)["last_error_at"]
    pipeline.queue.send(login_messages(2, start=6))
    stat = pipeline.stat()
    assert (stat["state"], stat["received"], stat["in_hand"], stat["inserted"]) == ("backing_off", 1 + in_hand, in_hand, 1)
    assert len(pipeline.rows()) == 1 and pipeline.dead_letters() == []
    assert OTHER.hex() not in cluster.log(since)
    keyring.keys({1: K1})
    pipeline.wait_until_ingested(7)
    assert {row["masked_ip"] for row in pipeline.rows()} == {hmac_token(1, K1, login_message(i)["ip"]) for i in (1, 2, 3, 4, 6, 7)}
    (letter,) = pipeline.dead_letters()
    assert unseal(1, K1, letter["message_id"], bytes(letter["sealed"]))
    assert_counters_add_up(pipeline.stat())


def test_a_new_worker_process_refuses_another_key_before_it_receives(pipeline, keyring):
    cluster = pipeline.cluster
    make_pipeline_without_workers(pipeline)
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        keyring.keys({1: OTHER})
        pipeline.queue.send(login_messages(3))
        session.commit()
    stat = pipeline.wait_for(state="backing_off")
    assert "is not the key that this database was used with" in stat["why"] and "backup" in stat["hint"]
    assert stat["received"] == 0 and pipeline.queue.counts() == (3, 0)
    # And another one after that.
    (worker,) = cluster.pids("sqs_ingest worker")
    cluster.signal(worker, signal.SIGTERM)
    wait_until(lambda: cluster.pids("sqs_ingest worker") not in ([], [worker]), what="another worker")
    pipeline.wait_for(state="backing_off", received=0)
    assert pipeline.rows() == []
    keyring.keys({1: K1})
    pipeline.wait_until_ingested(3)
    assert sorted(row["masked_ip"] for row in pipeline.rows()) == sorted(hmac_token(1, K1, m["ip"]) for m in login_messages(3))


def test_a_lost_keyring_is_not_replaced(pipeline, keyring):
    make_pipeline_without_workers(pipeline)
    keyring.remove()
    for forget_pipeline in (False, True):
        if forget_pipeline:
            pipeline.db.sql("DELETE FROM sqs_ingest_pipeline")
        with pipeline.db.connect() as session, pytest.raises(psycopg.errors.UndefinedFile, match="does not exist"):
            session.execute("SELECT sqs_ingest_start()")
        assert not keyring.path.exists()
    with pipeline.db.connect() as session, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refusal:
        session.execute("SELECT sqs_ingest_create_keyring()")
    assert "backup" in refusal.value.diag.message_hint
    assert not keyring.path.exists()
    # On purpose:
    pipeline.db.sql("DELETE FROM sqs_ingest_key")
    assert pipeline.db.value("SELECT sqs_ingest_create_keyring()") == str(keyring.path)
    assert key_states(pipeline.db) == {1: "ok"}


# -- other clusters ---------------------------------------------------------------------------------------------------


def test_a_standby_with_another_keyring_refuses_before_and_after_its_promotion(make_cluster, moto):
    queue = moto.queue()
    primary = make_cluster(queue.settings)
    keyring = KeyringFile(primary).keys({1: K1})
    pipeline = Pipeline(Database(primary, primary.create_database()), queue)
    pipeline.db.sql("CREATE EXTENSION sqs_ingest")
    make_pipeline_without_workers(pipeline)
    standby = make_cluster.adopt(primary.standby())
    assert (standby.data / keyring.path.name).read_bytes() == keyring.path.read_bytes()  # a base backup carries it
    KeyringFile(standby).keys({1: OTHER})
    pipeline.start()
    position = primary.value("SELECT pg_current_wal_lsn()")
    standby.start()
    caught_up = lambda: standby.value("SELECT pg_last_wal_replay_lsn() >= %s", [position])  # noqa: E731
    wait_until(caught_up, what="what the primary wrote is here")
    on_standby = Pipeline(Database(standby, pipeline.db.name), queue)
    assert_refuses_the_other_key(on_standby.db)
    pipeline.db.close()
    primary.stop()
    standby.promote()
    stat = on_standby.wait_for(state="backing_off")
    assert "is not the key that this database was used with" in stat["why"]
    assert stat["received"] == 0
    assert_refuses_the_other_key(on_standby.db)
    KeyringFile(standby).keys({1: K1})
    assert on_standby.db.value("SELECT mask('x')") == hmac_token(1, K1, "x")
    on_standby.wait_for(state="idle")
    on_standby.db.close()
    queue.delete()


def test_a_restored_dump_works_with_its_keyring_and_refuses_another(pipeline, keyring, make_cluster):
    make_pipeline_without_workers(pipeline)
    drain(pipeline, [login_message(1), login_message(2, device_id=...)])
    rows, letters = pipeline.rows(), pipeline.dead_letters()
    dump = subprocess.check_output([pg_bin("pg_dump"), "-d", pipeline.cluster.dsn(pipeline.db.name)])
    target = make_cluster(pipeline.queue.settings)
    other_keyring = KeyringFile(target).keys({1: OTHER})
    restored = Pipeline(Database(target, target.create_database(unique("restored"))), pipeline.queue)
    command = [pg_bin("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target.dsn(restored.db.name)]
    subprocess.run(command, input=dump, stdout=subprocess.DEVNULL, check=True)
    assert (restored.rows(), restored.dead_letters()) == (rows, letters)
    assert key_states(restored.db) == {1: "different"}
    for statement in ("SELECT mask('x')", "SELECT sqs_ingest_start()", "SELECT sqs_ingest_redrive()"):
        assert_refuses_the_other_key(restored.db, statement)

    other_keyring.keys({1: K1})
    assert key_states(restored.db) == {1: "ok"}
    assert restored.db.sql("SELECT user_id FROM user_logins WHERE masked_ip = (SELECT mask(%s::inet))", [IP]) == [
        (login_message(1)["user_id"],)
    ]
    restored.db.sql(DEVICE_LATER)
    assert restored.db.value("SELECT sqs_ingest_redrive()") == 1
    drain(restored, [login_message(3)])
    assert len(restored.rows()) == 3
    restored.db.close()
