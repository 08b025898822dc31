"""Whose rights and whose settings: a worker is its pipeline's owner and no more, whatever that role is set to, and only the
owner, its members and superusers start and stop a pipeline."""
import psycopg
import pytest
from harness import login_message, login_messages, unique, wait_until
from pipeline import USER_LOGINS, prepare, user_ids, users_of
from pipeline import make_owner, make_pipeline_fixture, pipeline_fixture  # noqa: F401

RESUMES_WITHIN = 60


def as_role(pipeline, role, *statements):
    """In a session of the role; returns the value of the last statement, if it has one."""
    with pipeline.db.connect(role) as session:
        for statement in statements:
            cursor = session.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def worker_roles(pipeline):
    activity = pipeline.cluster.activity()
    return {row["usename"] for row in activity if (row["backend_type"], row["datname"]) == ("sqs_ingest worker", pipeline.db.name)}


@pytest.fixture
def owner(pipeline):
    """An ordinary role that owns the pipeline and its table; the pipeline is stopped."""
    role = make_owner(pipeline)
    prepare(pipeline, role)
    return role


@pytest.fixture
def stranger(pipeline):
    """Another role with the same rights."""
    return make_owner(pipeline)


def assert_ingests(pipeline, i=0):
    """A message sent now becomes a row, if need be after those that polls of former workers took."""
    for k in range(i, i + 4):
        pipeline.queue.send([login_message(k)])
        try:
            return wait_until(lambda: login_message(k)["user_id"] in user_ids(pipeline), 2 if k < i + 3 else 20)  # noqa: B023
        except AssertionError:
            if k == i + 3:
                raise


# -- the worker is the owner ------------------------------------------------------------------------------------------


def test_worker_and_every_trigger_are_the_owner(pipeline, owner):
    """Row, statement and deferred triggers, in the first try and in the search for a bad row, and the commit."""
    db = pipeline.db
    as_role(
        pipeline,
        owner,
        "CREATE TABLE trace (what text, who text, session text, super text DEFAULT current_setting('is_superuser'))",
        """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO trace VALUES (TG_ARGV[0], current_user, session_user);
               IF TG_ARGV[0] = 'row' AND NEW.device_type = 'web' THEN RAISE 'no web'; END IF;
               RETURN NEW; END $$""",
        "CREATE TRIGGER row BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION note('row')",
        "CREATE TRIGGER statement AFTER INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION note('statement')",
        """CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON user_logins DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION note('deferred')""",
    )
    pipeline.start()
    pipeline.queue.send([login_message(0), login_message(1, device_type="web"), login_message(2)])
    pipeline.wait_until_done(3, RESUMES_WITHIN)
    pipeline.queue.send([login_message(3)])
    pipeline.wait_until_done(4)
    assert len(pipeline.dead_letters()) == 1
    found = set(db.sql("SELECT what, who, session, super FROM trace"))
    assert found == {(what, owner, owner, "off") for what in ("row", "statement", "deferred")}
    assert worker_roles(pipeline) == {owner}


def test_start_in_the_name_of_a_role_makes_that_role_the_owner(pipeline):
    role = make_owner(pipeline)
    with pipeline.db.connect() as session:
        session.execute(f"SET ROLE {role}")
        session.execute("SELECT sqs_ingest_start()")
    assert pipeline.db.value("SELECT owner::text FROM sqs_ingest_pipeline") == role
    assert pipeline.db.value("SELECT tableowner::text FROM pg_tables WHERE tablename = 'user_logins'") == role
    assert_ingests(pipeline)


def test_owner_without_connect_is_refused_with_a_hint(pipeline, owner):
    db = pipeline.db
    db.sql(f'REVOKE CONNECT ON DATABASE "{db.name}" FROM PUBLIC')
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=owner) as refusal:
        pipeline.start()
    assert "CONNECT" in str(refusal.value) and "GRANT" in refusal.value.diag.message_hint
    db.sql(f'GRANT CONNECT ON DATABASE "{db.name}" TO {owner}')
    pipeline.start()
    assert_ingests(pipeline)


def test_owner_who_loses_connect_is_explained_and_mended(pipeline, owner):
    db = pipeline.db
    pipeline.start()
    pipeline.wait_for(state="idle")
    db.sql(f'REVOKE CONNECT ON DATABASE "{db.name}" FROM PUBLIC')
    db.sql("UPDATE sqs_ingest_pipeline SET workers = 2")  # has the launcher look
    stat = pipeline.wait_for(state="cannot_start", workers=[])
    assert owner in stat["why"] and "CONNECT" in stat["why"] and "GRANT" in stat["hint"]
    db.sql(f'GRANT CONNECT ON DATABASE "{db.name}" TO {owner}')
    pipeline.cluster.reload()
    pipeline.wait_for(state="idle")
    assert_ingests(pipeline)


def test_owner_with_a_connection_limit_of_zero_ingests(pipeline, owner):
    """Workers are no connections."""
    pipeline.db.sql(f"ALTER ROLE {owner} CONNECTION LIMIT 0")
    pipeline.start()
    assert_ingests(pipeline)


# -- settings of the role ---------------------------------------------------------------------------------------------


HOSTILE = {
    "how values are written": {
        "DateStyle": "'SQL, DMY'",
        "TimeZone": "'Pacific/Kiritimati'",
        "IntervalStyle": "'sql_standard'",
        "client_encoding": "'LATIN1'",
        "bytea_output": "'escape'",
        "standard_conforming_strings": "off",
        "backslash_quote": "off",
        "array_nulls": "off",
        "quote_all_identifiers": "on",
        "transform_null_equals": "on",
        "extra_float_digits": "-15",
    },
    "how statements are planned": {
        "enable_indexscan": "off",
        "enable_bitmapscan": "off",
        "enable_seqscan": "off",
        "work_mem": "'64kB'",
        "plan_cache_mode": "'force_custom_plan'",
        "jit": "on",
        "jit_above_cost": "0",
        "constraint_exclusion": "on",
        "from_collapse_limit": "1",
    },
    "how long a session lives": {
        "statement_timeout": "1",
        "lock_timeout": "1",
        "idle_in_transaction_session_timeout": "1",
        "idle_session_timeout": "1",
        "exit_on_error": "off",
    },
    "where things are": {
        "search_path": "''",
        "default_tablespace": "'nowhere'",
        "temp_tablespaces": "'nowhere'",
        "local_preload_libraries": "'nowhere'",
        "session_preload_libraries": "'nowhere'",
        "dynamic_library_path": "'/nowhere'",
    },
    "what a transaction is": {
        "default_transaction_isolation": "'serializable'",
        "default_transaction_read_only": "on",
        "default_transaction_deferrable": "on",
        "synchronous_commit": "off",
        "row_security": "off",
        "check_function_bodies": "off",
    },
}


@pytest.mark.parametrize("settings", HOSTILE.values(), ids=HOSTILE)
def test_settings_of_the_owner_change_nothing(pipeline, owner, settings):
    db = pipeline.db
    db.sql("ALTER TABLE user_logins ADD CONSTRAINT no_web CHECK (device_type <> 'web')")
    db.sql("ALTER TABLE user_logins ADD COLUMN sync text DEFAULT current_setting('synchronous_commit')")
    for name, value in settings.items():
        db.sql(f"ALTER ROLE {owner} SET {name} = {value}")
    good = [
        login_message(0, user_id="Zoë ☃ \\ '' \"", create_date="2026-03-04"),
        login_message(1, user_id="NULL", locale="{}"),
        login_message(2, user_id="\\x00", locale=None),
    ]
    pipeline.queue.send([*good, login_message(3, device_type="web"), "no json"])
    pipeline.start()
    pipeline.wait_until_done(5, RESUMES_WITHIN)
    columns = "*, create_date::text AS day, masked_ip = mask('10.0.0.0') AS mask_is_right"
    rows = {row["user_id"]: row for row in pipeline.rows(columns)}
    assert set(rows) == {message["user_id"] for message in good}
    first = rows[good[0]["user_id"]]
    assert (first["day"], first["mask_is_right"], first["app_version"], first["sync"]) == ("2026-03-04", True, 230, "on")
    assert rows["NULL"]["locale"] == "{}" and rows["\\x00"]["locale"] is None
    assert db.value("SELECT bool_and(create_date IN ((now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date - 1))"
                    " FROM user_logins WHERE user_id <> %s", [good[0]["user_id"]])  # fmt: skip
    letters = {letter["reason"]: letter for letter in pipeline.dead_letters()}
    assert set(letters) == {"row_error", "not_json"} and letters["row_error"]["constraint_name"] == "no_web"
    assert all(bytes(letter["sealed"])[:1] == b"\1" for letter in letters.values())


def test_row_that_is_refused_does_not_end_the_worker_of_an_owner_with_exit_on_error(pipeline, owner):
    """Any role can set it for itself, and then each error ends its sessions."""
    pipeline.db.sql("ALTER TABLE user_logins ADD CONSTRAINT no_web CHECK (device_type <> 'web')")
    pipeline.db.sql(f"ALTER ROLE {owner} SET exit_on_error = on")
    messages = login_messages(5)
    pipeline.queue.send([*messages, login_message(9, device_type="web")])
    pipeline.start()
    pipeline.wait_until_done(6, RESUMES_WITHIN)
    assert user_ids(pipeline) == users_of(messages)
    assert [letter["sqlstate"] for letter in pipeline.dead_letters()] == ["23514"]


def test_owner_with_a_role_setting_ingests_as_itself_or_says_why_not(pipeline, owner, stranger):
    """ALTER ROLE … SET role: its sessions begin as another role."""
    pipeline.db.sql(f"GRANT {stranger} TO {owner}")
    pipeline.db.sql(f"ALTER ROLE {owner} SET role = '{stranger}'")
    pipeline.queue.send(login_messages(3))
    pipeline.start()
    stat = pipeline.wait_for(state=lambda state: state in ("backing_off", "cannot_start", "idle"))
    if stat["state"] == "idle":
        pipeline.wait_until_done(3)
        return
    assert stranger in f"{stat['why']} {stat['hint']}", stat
    assert stat["received"] == 0


def test_settings_of_the_database_and_of_the_role_in_it_change_nothing(pipeline, owner):
    db = pipeline.db
    db.sql(f'ALTER DATABASE "{db.name}" SET search_path = nowhere')
    db.sql(f'ALTER DATABASE "{db.name}" SET default_transaction_read_only = on')
    db.sql(f'ALTER ROLE {owner} IN DATABASE "{db.name}" SET statement_timeout = 1')
    db.close()
    try:
        with db.connect(options="-c default_transaction_read_only=off -c search_path=public") as session:
            session.execute("SELECT sqs_ingest_start()")
            pipeline.queue.send([*login_messages(3), "no json"])
            wait_until(lambda: session.execute("SELECT count(*) FROM user_logins").fetchone()[0] == 3, 20, "three rows")
            assert session.execute("SELECT count(*) FROM sqs_ingest_dead_letter").fetchone()[0] == 1
    finally:
        with pipeline.cluster.connect() as session:
            session.execute(f'ALTER DATABASE "{db.name}" RESET ALL')


# -- rights on the target ---------------------------------------------------------------------------------------------


def give_table_to_superuser(pipeline):
    pipeline.db.sql("ALTER TABLE user_logins OWNER TO postgres")


def test_owner_without_insert_on_the_target_receives_nothing_until_it_is_granted(pipeline, owner):
    give_table_to_superuser(pipeline)
    messages = login_messages(4)
    pipeline.queue.send(messages)
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert "permission denied for table user_logins" in stat["why"] and stat["hint"]
    assert stat["received"] == 0 and pipeline.queue.counts() == (4, 0)
    pipeline.db.sql(f"GRANT INSERT ON user_logins TO {owner}")
    pipeline.wait_until_done(4, RESUMES_WITHIN)
    assert user_ids(pipeline) == users_of(messages)


def test_insert_on_the_mapped_columns_is_enough(pipeline, owner):
    give_table_to_superuser(pipeline)
    pipeline.db.sql("ALTER TABLE user_logins ADD COLUMN note text")
    pipeline.db.sql(
        f"""GRANT INSERT (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
            ON user_logins TO {owner}"""
    )
    pipeline.queue.send(login_messages(2))
    pipeline.start()
    pipeline.wait_until_done(2)


def test_right_to_a_sequence_that_is_missing_costs_no_message(pipeline, owner):
    """With no rows the statement does not need it: every row is refused."""
    pipeline.db.sql("CREATE SEQUENCE number")
    pipeline.db.sql("ALTER TABLE user_logins ADD COLUMN id bigint DEFAULT nextval('number')")
    pipeline.queue.send(login_messages(4))
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off", in_hand=4)
    assert "42501" in stat["why"] and (stat["dead_letters"], stat["released"]) == (0, 0)
    pipeline.db.sql(f"GRANT USAGE ON SEQUENCE number TO {owner}")
    pipeline.wait_until_done(4, RESUMES_WITHIN)
    assert pipeline.dead_letters() == []


def test_target_of_another_ordinary_role_is_refused_although_the_owner_may_insert(pipeline, owner, stranger):
    pipeline.db.sql(f"ALTER TABLE user_logins OWNER TO {stranger}")
    pipeline.db.sql(f"GRANT INSERT ON user_logins TO {owner}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=stranger) as refusal:
        as_role(pipeline, owner, "SELECT sqs_ingest_start()")
    assert owner in refusal.value.diag.message_hint
    assert pipeline.stat()["state"] == "stopped"


def test_target_of_a_role_that_may_act_as_the_owner_is_taken(pipeline, owner, stranger):
    pipeline.db.sql(f"ALTER TABLE user_logins OWNER TO {stranger}")
    pipeline.db.sql(f"GRANT INSERT ON user_logins TO {owner}")
    pipeline.db.sql(f"GRANT {owner} TO {stranger}")
    as_role(pipeline, owner, "SELECT sqs_ingest_start()")
    assert_ingests(pipeline)


@pytest.mark.parametrize("who", ["superuser", "owner"])
def test_trigger_on_a_partition_of_a_stranger_never_runs_as_the_owner(pipeline, stranger, who):
    """Who owns a partition can put triggers on it, as on the table itself."""
    cluster, db, since = pipeline.cluster, pipeline.db, pipeline.cluster.log_position()
    role = "postgres" if who == "superuser" else make_owner(pipeline)
    db.sql(f"{USER_LOGINS} PARTITION BY LIST (device_type)")
    db.sql("CREATE TABLE phones PARTITION OF user_logins DEFAULT")
    db.sql(f"ALTER TABLE user_logins OWNER TO {role}")
    db.sql(f"ALTER TABLE phones OWNER TO {stranger}")
    as_role(
        pipeline,
        stranger,
        """CREATE FUNCTION grab() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE LOG 'trigger ran as %', current_user; RETURN NEW; END $$""",
        "CREATE TRIGGER grab BEFORE INSERT ON phones FOR EACH ROW EXECUTE FUNCTION grab()",
    )
    pipeline.queue.send(login_messages(2))
    try:
        as_role(pipeline, role, "SELECT sqs_ingest_start()")
    except psycopg.errors.InsufficientPrivilege as refusal:
        assert stranger in str(refusal)
        return
    wait_until(lambda: pipeline.stat()["inserted"] or pipeline.stat()["state"] == "backing_off", 20, "an end")
    assert f"trigger ran as {role}" not in cluster.log(since)


# -- who may do what --------------------------------------------------------------------------------------------------


def test_role_with_the_documented_grants_starts_and_stops_its_own_pipeline(pipeline):
    role = make_owner(pipeline)
    assert as_role(pipeline, role, "SELECT sqs_ingest_start()") is True
    pipeline.queue.send(login_messages(3))
    wait_until(lambda: as_role(pipeline, role, "SELECT count(*) FROM user_logins") == 3, 20, "rows in its table")
    assert as_role(pipeline, role, "SELECT sqs_ingest_stop()") is True
    assert pipeline.stat()["state"] == "stopped"


@pytest.mark.parametrize("function", ["start", "stop"])
def test_pipeline_of_another_role_is_refused(pipeline, owner, stranger, function):
    if function == "stop":
        pipeline.start()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of pipeline") as refusal:
        as_role(pipeline, stranger, f"SELECT sqs_ingest_{function}()")
    assert refusal.value.sqlstate == "42501" and owner in refusal.value.diag.message_hint
    pipeline.wait_for(state="idle" if function == "stop" else "stopped")


def test_member_of_the_owner_starts_and_stops_its_pipeline(pipeline, owner, stranger):
    pipeline.db.sql(f"GRANT {owner} TO {stranger}")
    assert as_role(pipeline, stranger, "SELECT sqs_ingest_start()") is True
    assert_ingests(pipeline)
    assert as_role(pipeline, stranger, "SELECT sqs_ingest_stop()") is True
    assert pipeline.db.value("SELECT owner::text FROM sqs_ingest_pipeline") == owner


def test_start_without_the_right_to_make_the_table_leaves_nothing_behind(pipeline):
    role = make_owner(pipeline)
    pipeline.db.sql(f"REVOKE CREATE ON SCHEMA public FROM {role}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="schema public"):
        as_role(pipeline, role, "SELECT sqs_ingest_start()")
    assert pipeline.db.value("SELECT count(*) FROM sqs_ingest_pipeline") == 0


def test_bystander_may_call_nothing_and_read_nothing_of_it(pipeline):
    role, db = unique("bystander"), pipeline.db
    db.sql(f"CREATE ROLE {role}")
    member = """JOIN pg_depend d ON d.objid = o.oid AND d.deptype = 'e'
                JOIN pg_extension e ON e.oid = d.refobjid AND extname = 'sqs_ingest'"""
    functions = f"SELECT proname::text FROM pg_proc o {member} WHERE has_function_privilege(%s, o.oid, 'EXECUTE')"
    assert db.sql(functions, [role]) == [("sqs_ingest_preloaded",)]
    tables = f"""SELECT relname::text FROM pg_class o {member}
                  WHERE relkind IN ('r', 'v') AND has_table_privilege(%s, o.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')"""
    assert db.sql(tables, [role]) == []


@pytest.mark.parametrize("table", ["sqs_ingest_pipeline", "sqs_ingest_ledger", "sqs_ingest_dead_letter"])
def test_owner_cannot_write_the_bookkeeping_by_hand(pipeline, owner, table):
    for statement in (f"DELETE FROM {table}", f"INSERT INTO {table} DEFAULT VALUES", f"TRUNCATE {table}"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_role(pipeline, owner, statement)
    if table == "sqs_ingest_pipeline":
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_role(pipeline, owner, "UPDATE sqs_ingest_pipeline SET owner = 'postgres'")
