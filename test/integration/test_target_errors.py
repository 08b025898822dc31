"""A target table that cannot be written, or refuses rows: what each case costs, and that ingestion resumes by itself.

No message may be received a second time meanwhile (each delivery counts towards the queue's own dead letter queue):
wait_until_done() is reached only if every message was received exactly once.
"""
import time

import psycopg
import pytest
from harness import login_message, login_messages, unique, wait_until
from pipeline import USER_LOGINS, make_owner, prepare, user_ids, users_of
from pipeline import assert_counters_add_up, make_pipeline_fixture, pipeline_fixture  # noqa: F401

RESUMES_WITHIN = 60  # the longest pause between two tries is 20 s


def assert_all_stored_once(pipeline, messages):
    assert user_ids(pipeline) == users_of(messages)
    assert pipeline.dead_letters() == []
    assert pipeline.queue.is_empty()
    assert_counters_add_up(pipeline.stat())


@pytest.fixture
def owner(pipeline):
    """An ordinary role that owns the pipeline and its table; the pipeline is stopped."""
    role = make_owner(pipeline)
    prepare(pipeline, role)
    return role


def trigger(db, body, timing="BEFORE INSERT ON user_logins FOR EACH ROW", kind=""):
    db.sql(f"CREATE FUNCTION target_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$")
    db.sql(f"CREATE {kind} TRIGGER target_trigger {timing} EXECUTE FUNCTION target_trigger()")


# -- the pipeline's fault: nothing is lost, nothing is consumed -------------------------------------------------------


def test_start_refuses_a_missing_target_and_names_it(pipeline):
    pipeline.start()
    pipeline.stop()
    pipeline.db.sql("DROP TABLE user_logins")
    with pytest.raises(psycopg.errors.UndefinedTable, match="user_logins"):
        pipeline.start()
    assert pipeline.stat()["state"] == "stopped"


def test_worker_that_finds_no_target_receives_nothing_until_it_exists(pipeline):
    db, messages = pipeline.db, login_messages(5)
    pipeline.queue.send(messages)
    with db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        session.execute("DROP TABLE user_logins")
        session.commit()
    stat = pipeline.wait_for(state="backing_off")
    assert "user_logins" in stat["why"] and stat["hint"]
    assert stat["received"] == 0 and pipeline.queue.counts() == (5, 0)
    db.sql(USER_LOGINS)
    pipeline.wait_until_done(5, RESUMES_WITHIN)
    assert_all_stored_once(pipeline, messages)


def test_target_dropped_while_running_and_made_anew_loses_nothing(pipeline):
    db, messages = pipeline.db, login_messages(25)
    pipeline.start()
    pipeline.wait_for(state="idle")
    db.sql("DROP TABLE user_logins")
    pipeline.queue.send(messages)
    stat = pipeline.wait_for(state="backing_off")
    assert stat["dead_letters"] == 0 and stat["released"] == 0
    db.sql(USER_LOGINS)
    pipeline.wait_until_done(25, RESUMES_WITHIN)
    assert_all_stored_once(pipeline, messages)


def test_target_replaced_between_two_batches_is_found_again(pipeline):
    db, messages = pipeline.db, login_messages(6)
    pipeline.start()
    pipeline.queue.send(messages[:3])
    pipeline.wait_until_done(3)
    db.sql("ALTER TABLE user_logins RENAME TO user_logins_old")
    db.sql("CREATE TABLE user_logins (LIKE user_logins_old)")
    pipeline.queue.send(messages[3:])
    pipeline.wait_until_done(6, RESUMES_WITHIN)
    assert user_ids(pipeline) == users_of(messages[3:])
    assert db.value("SELECT count(*) FROM user_logins_old") == 3


def test_revoked_permission_costs_no_message(pipeline, owner):
    db, messages = pipeline.db, login_messages(12)
    pipeline.start()
    pipeline.wait_for(state="idle")
    db.sql(f"REVOKE INSERT ON user_logins FROM {owner}")
    pipeline.queue.send(messages)
    stat = pipeline.wait_for(state="backing_off")
    assert "permission denied" in stat["why"] and stat["hint"]
    assert stat["dead_letters"] == 0 and stat["released"] == 0
    db.sql(f"GRANT INSERT ON user_logins TO {owner}")
    pipeline.wait_until_done(12, RESUMES_WITHIN)
    assert_all_stored_once(pipeline, messages)


def test_locked_target_keeps_messages_from_other_consumers(make_pipeline, moto):
    pipeline = make_pipeline(moto.queue(VisibilityTimeout=5))
    messages = login_messages(10)
    pipeline.start()
    pipeline.wait_for(state="idle")
    with pipeline.db.connect(autocommit=False) as other:
        other.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
        pipeline.queue.send(messages)
        pipeline.wait_for(received=10)
        locked_until = time.monotonic() + 12
        while time.monotonic() < locked_until:
            assert pipeline.queue.receive() == []
            time.sleep(0.2)
        assert pipeline.stat()["inserted"] == 0
    pipeline.wait_until_done(10, RESUMES_WITHIN)
    assert_all_stored_once(pipeline, messages)


def test_new_not_null_column_is_waited_for(pipeline):
    db, messages = pipeline.db, login_messages(5)
    pipeline.start()
    pipeline.wait_for(state="idle")
    db.sql("ALTER TABLE user_logins ADD COLUMN tenant integer NOT NULL")
    pipeline.queue.send(messages)
    stat = pipeline.wait_for(state="backing_off")
    assert "is NOT NULL" in stat["why"] and stat["hint"]
    db.sql("ALTER TABLE user_logins ALTER COLUMN tenant SET DEFAULT 7")
    pipeline.wait_until_done(5, RESUMES_WITHIN)
    assert_all_stored_once(pipeline, messages)
    assert {row["tenant"] for row in pipeline.rows()} == {7}


def test_dropped_column_is_waited_for(pipeline):
    db, messages = pipeline.db, login_messages(5)
    pipeline.start()
    pipeline.wait_for(state="idle")
    db.sql("ALTER TABLE user_logins DROP COLUMN locale")
    pipeline.queue.send(messages)
    stat = pipeline.wait_for(state="backing_off")
    assert "locale" in stat["why"]
    db.sql("ALTER TABLE user_logins ADD COLUMN locale varchar(32)")
    pipeline.wait_until_done(5, RESUMES_WITHIN)
    assert_all_stored_once(pipeline, messages)


def test_trigger_that_never_ends_is_cut_short_and_costs_no_message(make_pipeline, moto):
    pipeline = make_pipeline(moto.queue(VisibilityTimeout=5))
    db, messages = pipeline.db, login_messages(3)
    db.sql(USER_LOGINS)
    trigger(db, "PERFORM pg_sleep(3600);")
    pipeline.start()
    pipeline.queue.send(messages)
    stat = pipeline.wait_for(30, state="backing_off", received=3)
    assert "timeout" in stat["why"]
    assert pipeline.queue.receive() == []
    db.sql("DROP TRIGGER target_trigger ON user_logins")
    pipeline.wait_until_done(3, RESUMES_WITHIN)
    assert_all_stored_once(pipeline, messages)


# -- a row's fault: it costs only itself ------------------------------------------------------------------------------


def assert_one_became_a_dead_letter(pipeline, bad_id, good, sqlstate, constraint=None):
    pipeline.wait_until_done(len(good) + 1, RESUMES_WITHIN)
    assert user_ids(pipeline) == users_of(good)
    (letter,) = pipeline.dead_letters()
    seen = (letter["message_id"], letter["reason"], letter["sqlstate"], letter["constraint_name"])
    assert seen == (bad_id, "row_error", sqlstate, constraint)
    assert letter["receive_count"] == 1
    assert pipeline.queue.is_empty()
    assert_counters_add_up(pipeline.stat())


def send_with_one_bad(pipeline, count=10, bad_at=6):
    """Messages of which one has device_type "web"; returns its message id and the good ones."""
    messages = login_messages(count)
    messages[bad_at]["device_type"] = "web"
    ids = pipeline.queue.send(messages)
    return ids[bad_at], messages[:bad_at] + messages[bad_at + 1 :]


def test_row_that_violates_a_check_is_the_only_dead_letter(pipeline):
    pipeline.db.sql(USER_LOGINS)
    pipeline.db.sql("ALTER TABLE user_logins ADD CONSTRAINT no_web CHECK (device_type <> 'web')")
    bad_id, good = send_with_one_bad(pipeline)
    pipeline.start()
    assert_one_became_a_dead_letter(pipeline, bad_id, good, "23514", "no_web")


def test_row_that_a_trigger_refuses_is_the_only_dead_letter(pipeline):
    pipeline.db.sql(USER_LOGINS)
    trigger(pipeline.db, "IF NEW.device_type = 'web' THEN RAISE EXCEPTION 'no web: %', NEW; END IF;")
    bad_id, good = send_with_one_bad(pipeline)
    pipeline.start()
    assert_one_became_a_dead_letter(pipeline, bad_id, good, "P0001")


def test_row_that_a_deferred_trigger_refuses_is_the_only_dead_letter(pipeline):
    pipeline.db.sql(USER_LOGINS)
    trigger(
        pipeline.db,
        "IF NEW.device_type = 'web' THEN RAISE EXCEPTION 'no web'; END IF;",
        "AFTER INSERT ON user_logins DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
        "CONSTRAINT",
    )
    bad_id, good = send_with_one_bad(pipeline)
    pipeline.start()
    assert_one_became_a_dead_letter(pipeline, bad_id, good, "P0001")


def test_row_that_repeats_a_unique_key_is_the_only_dead_letter(pipeline):
    pipeline.db.sql(USER_LOGINS)
    pipeline.db.sql("ALTER TABLE user_logins ADD CONSTRAINT one_each UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED")
    messages = login_messages(5)
    ids = pipeline.queue.send([*messages, login_message(0)])
    pipeline.start()
    pipeline.wait_until_done(6, RESUMES_WITHIN)
    assert user_ids(pipeline) == users_of(messages)
    (letter,) = pipeline.dead_letters()
    assert letter["message_id"] in (ids[0], ids[5])
    assert (letter["sqlstate"], letter["constraint_name"]) == ("23505", "one_each")


def test_lone_bad_message_becomes_a_dead_letter_when_company_arrives(pipeline):
    pipeline.db.sql(USER_LOGINS)
    pipeline.db.sql("ALTER TABLE user_logins ADD CONSTRAINT no_web CHECK (device_type <> 'web')")
    pipeline.start()
    pipeline.wait_for(state="idle")
    (bad_id,) = pipeline.queue.send([login_message(0, device_type="web")])
    pipeline.wait_for(state="backing_off", received=1)
    good = login_messages(5, start=1)
    pipeline.queue.send(good)
    pipeline.wait_for(20, dead_letters=1, inserted=5, deleted=6)
    assert_one_became_a_dead_letter(pipeline, bad_id, good, "23514", "no_web")


def test_batch_whose_every_row_is_refused_is_tried_for_a_while_and_then_becomes_dead_letters(pipeline):
    pipeline.db.sql(USER_LOGINS)
    pipeline.db.sql("ALTER TABLE user_logins ADD CONSTRAINT nobody CHECK (false)")
    ids = pipeline.queue.send(login_messages(2))
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off", received=2)
    assert "nobody" in stat["why"] and "23514" in stat["why"] and stat["dead_letters"] == 0
    pipeline.wait_for(120, dead_letters=2, deleted=2, received=2)
    assert sorted(letter["message_id"] for letter in pipeline.dead_letters()) == sorted(ids)


# -- whose rights, whose settings -------------------------------------------------------------------------------------


def test_settings_that_a_trigger_changes_do_not_reach_the_next_batch(pipeline, owner):
    db, other = pipeline.db, unique("other")
    db.sql(f"CREATE ROLE {other}")
    db.sql(f"GRANT {other} TO {owner}")
    db.sql("CREATE TABLE public.trace (i int GENERATED ALWAYS AS IDENTITY, who text, path text, sync text, readonly text)")
    db.sql(f"GRANT INSERT ON public.trace TO {owner}, {other}")
    trigger(
        db,
        f"""INSERT INTO public.trace (who, path, sync, readonly) VALUES (current_user, current_setting('search_path'),
                current_setting('synchronous_commit'), current_setting('default_transaction_read_only'));
            PERFORM set_config('role', '{other}', false), set_config('search_path', 'nowhere', false),
                set_config('synchronous_commit', 'off', false),
                set_config('default_transaction_read_only', 'on', false);""",
        "AFTER INSERT ON user_logins FOR EACH STATEMENT",
    )
    pipeline.start()
    messages = login_messages(9)
    for i in range(0, 9, 3):
        pipeline.queue.send(messages[i : i + 3])
        pipeline.wait_until_done(i + 3)
    assert_all_stored_once(pipeline, messages)
    trace = db.sql("SELECT who, path, sync, readonly FROM trace")
    assert len(trace) >= 3 and set(trace) == {(owner, '"$user", public', "on", "off")}


def test_bad_row_after_a_trigger_changed_the_role_is_still_a_dead_letter(pipeline, owner):
    db, other = pipeline.db, unique("other")
    db.sql(f"CREATE ROLE {other}")
    db.sql(f"GRANT {other} TO {owner}")
    trigger(
        db,
        f"""IF NEW.device_type = 'web' THEN RAISE EXCEPTION 'no web'; END IF;
            PERFORM set_config('role', '{other}', false);""",
    )
    bad_id, good = send_with_one_bad(pipeline)
    pipeline.start()
    assert_one_became_a_dead_letter(pipeline, bad_id, good, "P0001")


def test_owner_with_hostile_role_settings_ingests_and_its_functions_never_run_as_somebody_else(pipeline, owner):
    cluster, db, since = pipeline.cluster, pipeline.db, pipeline.cluster.log_position()
    db.sql("CREATE SCHEMA evil")
    db.sql(f"GRANT ALL ON SCHEMA evil TO {owner}")
    shadows = {
        "eq(text, text) RETURNS boolean": "$1 OPERATOR(pg_catalog.=) $2",
        "lt(timestamptz, timestamptz) RETURNS boolean": "$1 OPERATOR(pg_catalog.<) $2",
        "unnest(text[]) RETURNS SETOF text": None,
        "now() RETURNS timestamptz": "pg_catalog.now()",
        "sqs_ingest_start(text) RETURNS boolean": "true",
    }
    with db.connect(owner) as session:
        for signature, value in shadows.items():
            what = f"RETURN {value};" if value else "RETURN QUERY SELECT pg_catalog.unnest($1);"
            session.execute(
                f"""CREATE FUNCTION evil.{signature} LANGUAGE plpgsql AS $$ BEGIN
                        RAISE LOG 'shadow ran as %', current_user; {what} END $$"""
            )
        session.execute("CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq)")
        session.execute("CREATE OPERATOR evil.< (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = evil.lt)")
        session.execute("CREATE TABLE evil.sqs_ingest_ledger (LIKE public.user_logins)")
        session.execute("CREATE TABLE evil.user_logins (LIKE public.user_logins)")
    for setting in (
        "search_path = evil, pg_catalog, public",
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "default_transaction_deferrable = on",
        "statement_timeout = 1",
        "lock_timeout = 1",
        "transform_null_equals = on",
        "row_security = off",
        "session_replication_role = origin",
    ):
        db.sql(f"ALTER ROLE {owner} SET {setting}")
    messages = login_messages(6)
    messages.append(login_message(99, app_version="no version"))
    pipeline.queue.send(messages)
    pipeline.start()
    pipeline.wait_until_done(7)
    assert user_ids(pipeline) == users_of(messages[:6])
    assert len(pipeline.dead_letters()) == 1
    assert "shadow ran as" not in cluster.log(since)
    assert db.value("SELECT count(*) FROM evil.user_logins") == 0


def test_superuser_pipeline_refuses_the_table_of_a_stranger(pipeline):
    db, stranger = pipeline.db, unique("stranger")
    db.sql(f"CREATE ROLE {stranger} LOGIN")
    db.sql(USER_LOGINS)
    db.sql(f"ALTER TABLE user_logins OWNER TO {stranger}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=stranger):
        pipeline.start()


@pytest.mark.parametrize("how", ["given away", "replaced"])
def test_trigger_of_a_stranger_who_gets_the_table_later_never_runs_as_the_superuser(pipeline, how):
    cluster, db, stranger = pipeline.cluster, pipeline.db, unique("stranger")
    db.sql(f"CREATE ROLE {stranger} LOGIN")
    db.sql(f"GRANT CREATE ON SCHEMA public TO {stranger}")
    pipeline.start()
    pipeline.queue.send(login_messages(1))
    pipeline.wait_until_done(1)
    since = cluster.log_position()
    if how == "given away":
        db.sql(f"ALTER TABLE user_logins OWNER TO {stranger}")
    else:
        db.sql("ALTER TABLE user_logins RENAME TO user_logins_old")
    with db.connect(stranger) as session:
        if how == "replaced":
            session.execute(USER_LOGINS)
        session.execute(
            """CREATE FUNCTION grab() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE LOG 'trigger ran as %', current_user; RETURN NEW; END $$"""
        )
        session.execute("CREATE TRIGGER grab BEFORE INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION grab()")
    pipeline.queue.send(login_messages(3, start=1))
    wait_until(lambda: pipeline.stat()["inserted"] > 1 or pipeline.stat()["state"] == "backing_off", what="the next batch")
    assert "trigger ran as postgres" not in cluster.log(since)
    stat = pipeline.stat()
    assert stat["state"] == "backing_off" and stranger in stat["why"]
    db.sql("ALTER TABLE user_logins OWNER TO postgres")
    db.sql("DROP TRIGGER grab ON user_logins")
    pipeline.wait_until_done(4, RESUMES_WITHIN)


def test_row_level_security_that_hides_the_ledger_from_nobody_changes_nothing(pipeline, owner):
    """A policy on the owner's own table applies to others, not to its owner: rows go in."""
    db, messages = pipeline.db, login_messages(3)
    db.sql("ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY")
    pipeline.queue.send(messages)
    pipeline.start()
    pipeline.wait_until_done(3)
    assert_all_stored_once(pipeline, messages)


def test_pipeline_state_stays_readable_while_the_target_is_locked(pipeline):
    pipeline.start()
    pipeline.wait_for(state="idle")
    with pipeline.db.connect(autocommit=False) as other:
        other.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
        pipeline.queue.send(login_messages(1))
        pipeline.wait_for(received=1)
        wait_until(lambda: pipeline.db.value("SELECT sqs_ingest_status()->'user_logins'->>'in_hand'") == "1", 5, "status")
    pipeline.wait_until_done(1, RESUMES_WITHIN)
