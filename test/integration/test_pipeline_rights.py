"""A role without superuser does everything with a pipeline of its own, by the grants that docs/security.md names. Another role with
the same grants sees and changes nothing of it; a role without grants cannot even try."""
import threading

import psycopg
import pytest
from harness import unique, wait_until
from pipeline import call_of
from pipelines import make_proxy_fixture, pipelines_fixture  # noqa: F401

MAPPING = [{"column": "id", "from": "/id", "required": True, "user": True}, {"column": "masked_ip", "from": "/ip", "steps": ["ip", "mask"]}]
DENIED = psycopg.errors.InsufficientPrivilege


class Session:
    """What a role does, connected as itself."""

    def __init__(self, pipelines, role):
        self.role, self.connection = role, pipelines.db.connect(role)

    def sql(self, statement, parameters=None):
        cursor = self.connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []

    def value(self, statement, parameters=None):
        ((value,),) = self.sql(statement, parameters)
        return value


@pytest.fixture
def session_of(pipelines):
    sessions = []

    def connect(role):
        sessions.append(Session(pipelines, role))
        return sessions[-1]

    yield connect
    for session in sessions:
        session.connection.close()


@pytest.fixture
def owner(pipelines, session_of):
    """A role with the grants, with the table t of its own and the pipeline `events` into it; one row and one dead letter are there."""
    session = session_of(pipelines.owner())
    session.sql("CREATE TABLE t (id integer, masked_ip text)")
    session.pipeline = pipelines("t", MAPPING, user=session.role)
    session.pipeline.queue.send([{"id": 1, "ip": "10.0.0.1"}, {"id": "x"}])
    session.sql("CALL sqs_ingest_drain('events')")
    return session


def calls(pipeline):
    """Every function, as it would be called on the pipeline."""
    return {
        "alter": ("SELECT sqs_ingest_alter_pipeline(%s, workers => 2)", [pipeline]),
        "alter nothing": ("SELECT sqs_ingest_alter_pipeline(%s)", [pipeline]),
        "drop": ("SELECT sqs_ingest_drop_pipeline(%s)", [pipeline]),
        "drop cascade": ("SELECT sqs_ingest_drop_pipeline(%s, true)", [pipeline]),
        "start": ("SELECT sqs_ingest_start(%s)", [pipeline]),
        "stop": ("SELECT sqs_ingest_stop(%s)", [pipeline]),
        "check": ("SELECT * FROM sqs_ingest_check(%s)", [pipeline]),
        "preview": ("SELECT sqs_ingest_preview(%s, '{}')", [pipeline]),
        "preview with attributes": ("SELECT sqs_ingest_preview(%s, '{}', now(), '{}')", [pipeline]),
        "drain": ("CALL sqs_ingest_drain(%s)", [pipeline]),
        "redrive": ("SELECT sqs_ingest_redrive(%s)", [pipeline]),
        "purge": ("SELECT sqs_ingest_purge(%s, older_than => '0')", [pipeline]),
        "forget": ("SELECT sqs_ingest_forget('1', %s)", [pipeline]),
        "stat_reset": ("SELECT sqs_ingest_stat_reset(%s)", [pipeline]),
    }


CALLS = list(calls(""))


def test_the_owner_does_everything_without_superuser(owner, pipelines):
    pipeline, sql = owner.pipeline, owner.sql
    assert owner.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert sql("SELECT name, owner::text FROM sqs_ingest_pipeline") == [("events", owner.role)]
    assert sql("SELECT reason FROM sqs_ingest_dead_letter") == [("wrong_type",)]
    assert owner.value("SELECT sqs_ingest_preview('events', '{\"id\": 5, \"ip\": \"10.0.0.1\"}') -> 'row' ->> 'masked_ip'") == owner.value("SELECT masked_ip FROM t")
    sql("SELECT sqs_ingest_alter_pipeline('events', workers => 2, batch_size => 10)")
    assert all(ok is not False for item, ok in sql("SELECT item, ok FROM sqs_ingest_check('events')") if item != "durability")
    assert owner.value("SELECT sqs_ingest_start('events')") is True
    pipeline.queue.send([{"id": 2}])
    pipeline.wait_for(inserted=2, in_hand=0)
    assert {role for (role,) in pipelines.db.sql("SELECT DISTINCT usename FROM pg_stat_activity WHERE backend_type = 'sqs_ingest worker'")} == {owner.role}
    assert sql("SELECT pipeline, inserted FROM pg_stat_sqs_ingest") == [("events", 2)]
    assert owner.value("SELECT sqs_ingest_status() -> 'events' ->> 'target'") == "public.t"
    assert owner.value("SELECT sqs_ingest_stop('events')") is True
    sql("ALTER TABLE t ALTER id TYPE text")
    assert owner.value("SELECT sqs_ingest_redrive('events')") == 1
    assert owner.value("SELECT sqs_ingest_forget('x', 'events')") == {"rows": 1, "dead_letters": 0, "not_opened": 0}
    assert owner.value("SELECT sqs_ingest_purge('events', older_than => '0')") == 0
    sql("SELECT sqs_ingest_stat_reset('events')")
    assert sql("SELECT inserted FROM pg_stat_sqs_ingest") == [(0,)]
    sql("SELECT sqs_ingest_drop_pipeline('events')")
    assert sql("SELECT 1 FROM sqs_ingest_pipeline") == []
    sql(*call_of("sqs_ingest_create_pipeline", {"name": "events", "queue_url": pipeline.queue.url, "target": "t"}))
    assert sql("SELECT sqs_ingest_drop_pipeline('events')") and sql("DROP TABLE t") == []


def test_an_operator_runs_what_a_superuser_made_and_changes_nothing(pipelines, session_of):
    db, role = pipelines.db, pipelines.owner()
    db.sql(f"REVOKE CREATE ON SCHEMA public FROM {role}; REVOKE EXECUTE ON FUNCTION sqs_ingest_create_pipeline, sqs_ingest_alter_pipeline FROM {role}")
    db.sql("CREATE TABLE t (id integer, masked_ip text)")
    pipeline = pipelines("t", MAPPING)
    db.sql(f"BEGIN; ALTER TABLE t OWNER TO {role}; UPDATE sqs_ingest_pipeline SET owner = '{role}' WHERE name = '{pipeline.name}'; COMMIT")
    operator = session_of(role)
    assert operator.value("SELECT sqs_ingest_start(%s)", [pipeline.name]) is True
    pipeline.queue.send([{"id": 1}, {"id": "x"}])
    pipeline.wait_until_ingested(2)
    assert operator.sql("SELECT pipeline, inserted, dead_letters FROM pg_stat_sqs_ingest") == [(pipeline.name, 1, 1)]
    assert operator.value("SELECT sqs_ingest_stop(%s)", [pipeline.name]) is True
    assert operator.value("SELECT sqs_ingest_purge(%s, older_than => '0')", [pipeline.name]) == 1
    for call in ("alter", "alter nothing"):
        with pytest.raises(DENIED, match="permission denied for function"):
            operator.sql(*calls(pipeline.name)[call])
    operator.sql("SELECT sqs_ingest_drop_pipeline(%s)", [pipeline.name])


@pytest.mark.parametrize("call", CALLS)
def test_another_owner_can_do_nothing_with_it(owner, pipelines, session_of, call):
    other = session_of(pipelines.owner())
    with pytest.raises(DENIED, match='must be owner of pipeline "events"'):
        other.sql(*calls("events")[call])
    assert pipelines.db.sql("SELECT name, workers FROM sqs_ingest_pipeline") == [("events", 1)]
    assert len(owner.sql("SELECT 1 FROM sqs_ingest_dead_letter")) == 1
    assert owner.sql("SELECT id FROM t") == [(1,)]


def test_another_owner_sees_nothing_of_it(owner, pipelines, session_of):
    """It sees these tables at all only once it has a pipeline of its own."""
    other = session_of(pipelines.owner())
    with pytest.raises(DENIED):
        other.sql("SELECT * FROM sqs_ingest_pipeline")
    other.sql("CREATE TABLE u (id integer)")
    pipelines("u", [{"column": "id", "from": "/id"}], user=other.role)
    assert other.sql("SELECT name FROM sqs_ingest_pipeline") == [("events1",)]
    assert other.sql("SELECT pipeline FROM pg_stat_sqs_ingest") == [("events1",)]
    assert list(other.value("SELECT sqs_ingest_status()")) == ["events1"]
    assert other.sql("SELECT * FROM sqs_ingest_dead_letter") == []
    for table in ("sqs_ingest_ledger", "sqs_ingest_key", "t"):
        with pytest.raises(DENIED):
            other.sql(f"SELECT * FROM {table}")


@pytest.mark.parametrize("call", CALLS)
def test_a_role_without_grants_cannot_call_anything(owner, pipelines, session_of, call):
    role = unique("stranger")
    pipelines.db.sql(f"CREATE ROLE {role} LOGIN")
    stranger = session_of(role)
    with pytest.raises(DENIED, match="permission denied for (function|procedure)"):
        stranger.sql(*calls("events")[call])
    with pytest.raises(DENIED, match="permission denied for function"):
        stranger.sql("SELECT sqs_ingest_create_pipeline('p', 'http://127.0.0.1/q', 'pg_class')")


def test_create_in_anothers_name_or_into_anothers_table_is_refused(owner, pipelines, session_of):
    other = session_of(pipelines.owner())
    other.sql("CREATE TABLE u (id integer, masked_ip text)")
    with pytest.raises(psycopg.errors.DuplicateObject):
        pipelines("u", MAPPING, name="events", user=other.role)
    with pytest.raises(DENIED, match=f'belongs to role "{owner.role}"'):
        pipelines("t", MAPPING, user=other.role)
    mine = pipelines("u", MAPPING, user=other.role)
    with pytest.raises(DENIED, match=f'belongs to role "{owner.role}"'):
        other.sql(f"SELECT sqs_ingest_alter_pipeline('{mine.name}', target => 't')")
    assert other.sql("SELECT target FROM sqs_ingest_pipeline") == [("public.u",)]


def test_plain_statements_on_the_pipelines_are_refused(owner):
    for statement in ("UPDATE sqs_ingest_pipeline SET owner = 'postgres'", "DELETE FROM sqs_ingest_pipeline",
                      "INSERT INTO sqs_ingest_pipeline SELECT * FROM sqs_ingest_pipeline", "DELETE FROM sqs_ingest_dead_letter",
                      "TRUNCATE sqs_ingest_pipeline"):  # fmt: skip
        with pytest.raises(DENIED):
            owner.sql(statement)


def test_a_table_of_a_superuser_takes_the_rows_that_its_grants_allow(pipelines, session_of):
    db, role = pipelines.db, pipelines.owner()
    db.sql("CREATE SCHEMA s; CREATE TABLE s.t (id integer PRIMARY KEY, masked_ip text)")
    update = {"on_conflict": "update", "conflict_columns": ["id"]}
    with pytest.raises(DENIED, match="schema s"):
        session_of(role).sql("SELECT 's.t'::regclass")
    db.sql(f"GRANT USAGE ON SCHEMA s TO {role}")
    with pytest.raises(DENIED, match="table t"):
        pipelines("s.t", MAPPING, user=role)
    db.sql(f"GRANT INSERT ON s.t TO {role}")
    with pytest.raises(DENIED, match="table t"):
        pipelines("s.t", MAPPING, user=role, **update)
    pipeline = pipelines("s.t", MAPPING, user=role)
    pipeline.queue.send([{"id": 1}, {"id": 1, "ip": "::1"}])
    session_of(role).sql("CALL sqs_ingest_drain(%s)", [pipeline.name])
    assert db.sql("SELECT * FROM s.t") == [(1, None)]
    db.sql(f"GRANT SELECT, UPDATE ON s.t TO {role}")
    session_of(role).sql(*call_of("sqs_ingest_alter_pipeline", {"name": pipeline.name, **update}))
    assert session_of(role).value("SELECT sqs_ingest_redrive(%s)", [pipeline.name]) == 1
    assert db.value("SELECT masked_ip = mask('::1') FROM s.t")


def test_columns_that_may_be_written_are_enough(pipelines, session_of):
    db, role = pipelines.db, pipelines.owner()
    db.sql(f"CREATE TABLE t (id integer, masked_ip text, locked text); GRANT INSERT (id, masked_ip) ON t TO {role}")
    pipeline = pipelines("t", MAPPING, user=role)
    pipeline.queue.send([{"id": 1}])
    session_of(role).sql("CALL sqs_ingest_drain(%s)", [pipeline.name])
    assert db.sql("SELECT id FROM t") == [(1,)]
    with pytest.raises(DENIED):
        session_of(role).sql(*call_of("sqs_ingest_alter_pipeline", {"name": pipeline.name, "columns": [*MAPPING, {"column": "locked", "from": "/x"}]}))


def test_a_grant_that_is_revoked_stops_the_worker_without_loss_until_it_is_back(pipelines):
    db, role = pipelines.db, pipelines.owner()
    db.sql(f"CREATE TABLE t (id integer, masked_ip text); GRANT INSERT ON t TO {role}")
    pipeline = pipelines("t", MAPPING, user=role)
    pipeline.start()
    pipeline.wait_for(state="idle")
    db.sql(f"REVOKE INSERT ON t FROM {role}")
    pipeline.queue.send([{"id": i} for i in range(5)])
    stat = pipeline.wait_for(state="backing_off")
    assert "permission denied for table t" in stat["why"]
    db.sql(f"GRANT INSERT ON t TO {role}")
    pipeline.wait_until_ingested(5)
    assert db.value("SELECT count(*) FROM t") == 5 and pipeline.dead_letters() == []


def test_a_member_of_the_owner_acts_for_it(owner, pipelines, session_of):
    role = unique("member")
    pipelines.db.sql(f"CREATE ROLE {role} LOGIN IN ROLE {owner.role}")
    member = session_of(role)
    member.sql("SELECT sqs_ingest_alter_pipeline('events', workers => 2)")
    assert member.sql("SELECT name, workers, owner::text FROM sqs_ingest_pipeline") == [("events", 2, owner.role)]
    with pytest.raises(DENIED, match="must be run by role"):
        member.sql("SELECT sqs_ingest_redrive('events')")
    member.sql("SELECT sqs_ingest_drop_pipeline('events', true)")
    assert owner.sql("SELECT 1 FROM sqs_ingest_pipeline") == []


def test_triggers_run_with_the_owners_rights_whoever_calls(owner, pipelines):
    """Creation and alteration try an insert of no rows, which statement triggers see."""
    db = pipelines.db
    owner.sql("CREATE TABLE who (told text)")
    owner.sql("""CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'as % of %', current_user, session_user; END $$""")
    owner.sql("CREATE TRIGGER tell BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION tell()")
    with pytest.raises(psycopg.errors.RaiseException, match=f"as {owner.role} of postgres"):
        db.sql("SELECT sqs_ingest_alter_pipeline('events', workers => 2)")
    owner.sql("""CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'SET SESSION AUTHORIZATION DEFAULT'; EXECUTE 'ALTER ROLE postgres CONNECTION LIMIT 7';
                    RETURN NULL; END $$""")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.sql("SELECT sqs_ingest_alter_pipeline('events', workers => 2)")
    assert db.value("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'postgres'") == -1


def test_what_an_earlier_owner_left_cannot_be_opened_by_the_next(owner, pipelines, session_of):
    pipelines.db.sql("DELETE FROM sqs_ingest_pipeline")
    other = session_of(pipelines.owner())
    other.sql("CREATE TABLE u (id integer, masked_ip text)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="dead letters") as refused:
        pipelines("u", MAPPING, name="events", user=other.role)
    assert "sqs_ingest_purge" in refused.value.diag.message_hint
    pipelines.db.sql("SELECT sqs_ingest_purge('events', older_than => '0')")
    pipelines("u", MAPPING, name="events", user=other.role)


def test_no_function_is_anybodys(pipelines):
    """All that the extension has, but sqs_ingest_preloaded(), is revoked from PUBLIC."""
    open_to_all = pipelines.db.sql("""
        SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid
        WHERE e.extname = 'sqs_ingest' AND has_function_privilege('public', p.oid, 'EXECUTE')""")
    assert open_to_all == [("sqs_ingest_preloaded",)]


def let_inserts_wait(session):
    """Those into the table t, for whoever has advisory lock 1."""
    session.sql("CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$")
    session.sql("CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()")


def wait_until_a_worker_waits(db):
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND backend_type LIKE 'sqs%'"
    wait_until(lambda: db.value(waiting) == 1, what="a worker waits in the trigger")


def test_a_worker_leaves_no_dead_letters_to_the_next_owner_of_the_name(pipelines, session_of):
    """DROP OWNED waits for no worker. This one is in a trigger meanwhile, with a letter to write."""
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer NOT NULL, secret text)")
    let_inserts_wait(db)
    first, second = session_of(pipelines.owner()), session_of(pipelines.owner())
    db.sql(f"GRANT INSERT ON t TO {first.role}")
    mapping = [{"column": "id", "from": "/id", "required": True}, {"column": "secret", "from": "/secret", "steps": ["mask"]}]
    dropped = pipelines("t", mapping, name="p", user=first.role)
    gate = session_of("postgres")
    gate.sql("SELECT pg_advisory_lock(1)")
    dropped.queue.send([{"id": 1, "secret": "x"}, {"secret": "the plain text of the first"}])
    first.sql("SELECT sqs_ingest_start('p')")
    wait_until_a_worker_waits(db)
    db.sql(f"DROP OWNED BY {first.role}")
    second.sql("CREATE TABLE mine (secret text)")
    made = pipelines("mine", [{"column": "secret", "from": "/secret"}], name="p", user=second.role)
    gate.sql("SELECT pg_advisory_unlock(1)")
    wait_until(lambda: pipelines.db.cluster.pids("sqs_ingest worker", db.name) == [], 20, "no worker is left")
    assert made.dead_letters() == []
    assert second.value("SELECT sqs_ingest_redrive('p')") == 0 and second.sql("TABLE mine") == []
    assert sum(dropped.queue.counts()) == 2 and db.sql("TABLE t") == []


def test_a_worker_with_a_dead_letter_to_write_is_not_in_the_way_of_drop_extension(pipelines, session_of, under_way):
    db = pipelines.db
    db.sql("CREATE TABLE t (id integer NOT NULL)")
    let_inserts_wait(db)
    pipeline = pipelines("t", MAPPING[:1])
    gate = session_of("postgres")
    gate.sql("SELECT pg_advisory_lock(1)")
    pipeline.queue.send([{"id": 1}, {"id": "none"}])
    pipeline.start()
    wait_until_a_worker_waits(db)
    drop = under_way(gate, "DROP EXTENSION sqs_ingest")
    pipelines.made.clear()
    gate.sql("SELECT pg_advisory_unlock(1)")
    drop.end()
    assert db.sql("TABLE t") in ([(1,)], [])  # nothing, if the trigger has waited for 4 s


# -- while it is dropped, altered or handed over ----------------------------------------------------------------------


class UnderWay:
    """A statement under way in a session of its own, in the background."""

    def __init__(self, db, role, statement):
        self.db, self.connection, self.error = db, db.connect(role), None
        self._thread = threading.Thread(target=self._run, args=[statement], daemon=True)
        self._thread.start()

    def _run(self, statement):
        try:
            cursor = self.connection.execute(statement)
            self.rows = cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            self.error = error

    def wait_until_it_waits(self):
        """For a lock."""
        waits = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
        pid = self.connection.info.backend_pid
        wait_until(lambda: self.db.value(waits, [pid]) == "Lock" or not self._thread.is_alive(), 20, "it waits for a lock", 0.02)
        assert self._thread.is_alive(), f"it did not wait: {self.error or self.rows}"
        return self

    def end(self):
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error
        return self.rows


@pytest.fixture
def under_way(pipelines):
    made = []
    yield lambda session, statement: made.append(UnderWay(pipelines.db, session.role, statement)) or made[-1].wait_until_it_waits()
    for one in made:
        one.connection.cancel()
        one._thread.join(30)
        one.connection.close()


@pytest.fixture
def in_hand(owner, pipelines):
    """Another session of the owner, in a transaction that has locked the table t."""
    with pipelines.db.connect(owner.role, autocommit=False) as session:
        session.execute("LOCK TABLE t")
        yield session
        session.rollback()


ACTING = {"redrive": "SELECT sqs_ingest_redrive('events')", "forget": "SELECT sqs_ingest_forget('x', 'events')"}
FRUITLESS = {"redrive": "SELECT sqs_ingest_redrive('events', max_letters => 0)", "forget": "SELECT sqs_ingest_forget('7', 'events')",
             "purge": "SELECT sqs_ingest_purge('events', reason => 'none')"}  # fmt: skip


def hand_over(db, session):
    """To another owner, who gets a dead letter like the one that is there."""
    db.sql(f"UPDATE sqs_ingest_pipeline SET owner = '{session.role}'")
    db.sql("""INSERT INTO sqs_ingest_dead_letter (pipeline, message_id, receive_count, reason, redacted, sealed)
              SELECT pipeline, message_id, receive_count, reason, redacted, sealed FROM sqs_ingest_dead_letter""")


@pytest.mark.parametrize("acting", FRUITLESS.values(), ids=FRUITLESS)
def test_nobody_drops_it_before_a_redrive_purge_or_forget_is_committed_but_alter_goes_on(owner, pipelines, acting):
    with pipelines.db.connect(owner.role, autocommit=False) as session:
        session.execute(acting)
        with pytest.raises(psycopg.errors.ObjectInUse, match="is under way") as refused:
            owner.sql("SELECT sqs_ingest_drop_pipeline('events', true)")
        assert refused.value.diag.message_hint
        owner.sql("SELECT sqs_ingest_alter_pipeline('events', workers => 2)")
        session.commit()
    owner.sql("SELECT sqs_ingest_drop_pipeline('events', true)")


@pytest.mark.parametrize("drop", ["SELECT sqs_ingest_drop_pipeline('events', true)", "DROP OWNED BY CURRENT_USER CASCADE"],
                         ids=["pipeline", "owned"])  # fmt: skip
@pytest.mark.parametrize("acting", ACTING.values(), ids=ACTING)
def test_a_redrive_or_forget_that_waits_for_the_table_is_in_nobodys_way(owner, pipelines, in_hand, under_way, drop, acting):
    """Who holds the table may drop both."""
    acting = under_way(owner, acting)
    in_hand.execute("SET lock_timeout = '2s'")
    in_hand.execute("DROP TABLE t" if "pipeline" in drop else "SELECT")
    in_hand.execute(drop)
    in_hand.commit()
    with pytest.raises(psycopg.Error, match="does not exist|must be owner|permission denied"):
        acting.end()
    assert pipelines.db.sql("SELECT name FROM sqs_ingest_pipeline") == []


@pytest.fixture
def refused_for_a_hand_over(owner, pipelines, session_of, under_way):
    def act(acting, while_locked):
        """The statement of the owner is under way and waits for that lock when the pipeline is handed over."""
        with pipelines.db.connect(autocommit=False) as other:
            other.execute(while_locked)
            statement = under_way(owner, acting)
            hand_over(pipelines.db, session_of(pipelines.owner()))
            other.rollback()
        with pytest.raises(DENIED, match='must be owner of pipeline "events"'):
            statement.end()

    return act


@pytest.mark.parametrize("acting", ACTING.values(), ids=ACTING)
def test_a_redrive_or_forget_that_waited_for_the_table_leaves_the_next_owners_dead_letters(owner, refused_for_a_hand_over, acting):
    refused_for_a_hand_over(acting, "LOCK TABLE t")
    assert [letter["redrives"] for letter in owner.pipeline.dead_letters()] == [0, 0]
    assert owner.sql("SELECT id FROM t") == [(1,)]


def test_a_redrive_opens_no_dead_letter_that_came_after_the_pipeline_was_handed_over(owner, refused_for_a_hand_over):
    owner.sql("ALTER TABLE t ALTER id TYPE text")
    let_inserts_wait(owner)
    refused_for_a_hand_over(ACTING["redrive"], "SELECT pg_advisory_xact_lock(1)")
    assert len(owner.pipeline.dead_letters()) == 2 and owner.sql("SELECT id FROM t") == [("1",)]


def test_a_forget_leaves_dead_letters_that_came_after_the_pipeline_was_handed_over(owner, refused_for_a_hand_over):
    refused_for_a_hand_over(ACTING["forget"], "SELECT FROM sqs_ingest_dead_letter FOR UPDATE")
    assert len(owner.pipeline.dead_letters()) == 2


@pytest.mark.parametrize("acting", FRUITLESS.values(), ids=FRUITLESS)
def test_an_old_snapshot_shows_no_owner_that_is_none_any_more(owner, pipelines, session_of, acting):
    with pipelines.db.connect(owner.role, autocommit=False) as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        session.execute("SELECT 1 FROM sqs_ingest_pipeline")
        hand_over(pipelines.db, session_of(pipelines.owner()))
        with pytest.raises(DENIED, match='must be owner of pipeline "events"'):
            session.execute(acting)
        session.rollback()


def test_a_redrive_goes_by_what_the_pipeline_is_when_the_table_is_free(owner, in_hand, under_way):
    owner.sql("CREATE TABLE u (id text, masked_ip text)")
    redrive = under_way(owner, ACTING["redrive"])
    owner.sql("SELECT sqs_ingest_alter_pipeline('events', target => 'u')")
    in_hand.rollback()
    assert redrive.end() == [(1,)]
    assert owner.sql("SELECT id FROM u") == [("x",)]


@pytest.mark.parametrize("handing_over", ["UPDATE sqs_ingest_pipeline SET owner = '{heir}'", "REASSIGN OWNED BY {owner} TO {heir}"], ids=["UPDATE", "REASSIGN"])
@pytest.mark.parametrize("call", ["alter", "drop cascade"])
def test_what_waits_while_it_is_handed_over_is_refused(owner, pipelines, under_way, call, handing_over):
    heir = pipelines.owner()
    with pipelines.db.connect(autocommit=False) as other:
        other.execute(handing_over.format(owner=owner.role, heir=heir))
        statement, (name,) = calls("events")[call]
        acting = under_way(owner, statement.replace("%s", f"'{name}'"))
        other.commit()
    with pytest.raises(DENIED, match='must be owner of pipeline "events"'):
        acting.end()
    assert pipelines.db.sql("SELECT name, owner::text, workers FROM sqs_ingest_pipeline") == [("events", heir, 1)]
    assert len(owner.pipeline.dead_letters()) == 1


@pytest.mark.parametrize("call", ["start", "stop"])
def test_start_and_stop_wait_for_reassign_owned_and_are_refused(owner, pipelines, under_way, call):
    heir = pipelines.owner()
    with pipelines.db.connect(autocommit=False) as other:
        other.execute(f"REASSIGN OWNED BY {owner.role} TO {heir}")
        acting = under_way(owner, f"SELECT sqs_ingest_{call}('events')")
        other.commit()
    with pytest.raises(DENIED, match='must be owner of pipeline "events"'):
        acting.end()
    assert pipelines.db.value("SELECT count(*) FROM pg_shseclabel l JOIN pg_database d ON d.oid = l.objoid WHERE d.datname = current_database()") == 0
