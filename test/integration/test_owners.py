"""Owners see their own pipelines and nothing of others', without a grant of anybody's; and a role that owns a pipeline goes
the way that roles go in Postgres: DROP OWNED or REASSIGN OWNED first."""
import psycopg
import psycopg.rows
import pytest
from harness import Database, login_message, login_messages, unique, wait_until
from pipeline import users_of
from pipeline import Pipeline, make_owner
from proxy import make_pipeline_fixture, make_proxy_fixture, proxied_fixture, proxy_fixture, short_polls  # noqa: F401


def query(pipeline, role, statement):
    """What the role gets to see, in a session of its own."""
    with pipeline.db.connect(role) as session:
        cursor = session.execute(statement)
        return cursor.fetchall() if cursor.description else []


def pipelines_seen(pipeline, role):
    return {row[0] for row in query(pipeline, role, "SELECT name FROM sqs_ingest_pipeline")}


def user_ids(pipeline, table="user_logins"):
    return [row["user_id"] for row in pipeline.rows("user_id", table)]


def worker_roles(pipeline):
    activity = pipeline.cluster.activity()
    return {row["usename"] for row in activity if (row["backend_type"], row["datname"]) == ("sqs_ingest worker", pipeline.db.name)}


def workers(pipeline):
    return pipeline.cluster.pids("sqs_ingest worker", pipeline.db.name)


@pytest.fixture
def first(proxied, proxy):
    """The built-in pipeline, running, of an ordinary role: first.owner."""
    proxy.on("ReceiveMessage", short_polls)
    proxied.owner = make_owner(proxied)
    query(proxied, proxied.owner, "SELECT sqs_ingest_start()")
    proxied.wait_for(state="idle")
    return proxied


@pytest.fixture
def second(first, moto):
    """Another pipeline in the same database, with a queue, a table and an owner of its own."""
    queue, role = moto.queue(), make_owner(first)
    first.db.sql(f"CREATE TABLE second_logins (LIKE user_logins); ALTER TABLE second_logins OWNER TO {role}")
    first.db.sql(
        """INSERT INTO sqs_ingest_pipeline (name, owner, queue_url, target, columns, mask_method)
           SELECT 'second', %s::regrole, %s, 'public.second_logins', columns, mask_method FROM sqs_ingest_pipeline""",
        [role, queue.url],
    )
    pipeline = Pipeline(first.db, queue, "second")
    pipeline.owner = role
    query(pipeline, role, "SELECT sqs_ingest_start('second')")
    pipeline.wait_for(state="idle")
    yield pipeline
    if pipeline.stat():
        pipeline.stop()


@pytest.fixture
def both(first, second):
    """Both pipelines have ingested a row and a dead letter."""
    for i, pipeline in enumerate((first, second)):
        pipeline.queue.send([login_message(i), f"no json {i}"])
        pipeline.wait_until_done(2)
    return first, second


# -- sight ------------------------------------------------------------------------------------------------------------


SIGHTS = {
    "sqs_ingest_pipeline": "SELECT name FROM sqs_ingest_pipeline",
    "sqs_ingest_dead_letter": "SELECT DISTINCT pipeline FROM sqs_ingest_dead_letter",
    "pg_stat_sqs_ingest": "SELECT pipeline FROM pg_stat_sqs_ingest",
    "sqs_ingest_stat()": "SELECT pipeline FROM sqs_ingest_stat()",
    "sqs_ingest_status()": "SELECT jsonb_object_keys(sqs_ingest_status())",
}


@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
def test_owner_sees_its_own_pipeline_only(both, sight):
    for pipeline in both:
        assert query(pipeline, pipeline.owner, sight) == [(pipeline.name,)]


@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
def test_superuser_sees_all_pipelines_and_a_bystander_none(both, sight):
    first, second = both
    assert sorted(query(first, "postgres", sight)) == [("second",), ("user_logins",)]
    bystander = unique("bystander")
    first.db.sql(f"CREATE ROLE {bystander} LOGIN")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(first, bystander, sight)


def test_monitoring_role_watches_all_pipelines_and_reads_no_dead_letter(both):
    first, _ = both
    monitor = unique("monitor")
    first.db.sql(f"CREATE ROLE {monitor} LOGIN IN ROLE pg_monitor")
    for sight in ("pg_stat_sqs_ingest", "sqs_ingest_stat()", "sqs_ingest_status()"):
        assert sorted(query(first, monitor, SIGHTS[sight])) == [("second",), ("user_logins",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(first, monitor, SIGHTS["sqs_ingest_dead_letter"])


def test_member_of_an_owner_sees_what_the_owner_sees(both):
    first, second = both
    member = unique("member")
    first.db.sql(f"CREATE ROLE {member} LOGIN IN ROLE {second.owner}")
    for sight in SIGHTS.values():
        assert query(first, member, sight) == [("second",)]


def test_owner_sees_the_counters_and_the_state_of_its_pipeline(both):
    first, _ = both
    with first.db.connect(first.owner, row_factory=psycopg.rows.dict_row) as session:
        (stat,) = session.execute("SELECT * FROM pg_stat_sqs_ingest").fetchall()
    assert (stat["state"], stat["received"], stat["inserted"], stat["dead_letters"]) in (("running", 2, 1, 1), ("idle", 2, 1, 1))
    assert len(stat["workers"]) == 1 and stat["target"] == "public.user_logins"


def test_owner_watches_its_pipeline_in_trouble_and_stopped(first):
    first.db.sql("ALTER TABLE user_logins RENAME TO away")
    first.queue.send(login_messages(1))
    sight = "SELECT state, why, hint FROM pg_stat_sqs_ingest"
    wait_until(lambda: query(first, first.owner, sight)[0][0] == "backing_off", 20, "backing off")
    ((_, why, hint),) = query(first, first.owner, sight)
    assert "user_logins" in why and hint
    query(first, first.owner, "SELECT sqs_ingest_stop()")
    assert query(first, first.owner, sight)[0][0] == "stopped"
    first.db.sql("ALTER TABLE away RENAME TO user_logins")


def test_owner_is_told_why_its_pipeline_cannot_start_after_a_restart(first):
    cluster = first.cluster
    queue_url = cluster.settings["sqs_ingest.queue_url"]
    cluster.unset("sqs_ingest.queue_url").restart()
    stat = first.wait_for(state="cannot_start")
    seen = query(first, first.owner, "SELECT state, why, hint FROM pg_stat_sqs_ingest")
    assert seen == [("cannot_start", stat["why"], stat["hint"])]
    cluster.set({"sqs_ingest.queue_url": queue_url}).reload()
    wait_until(lambda: query(first, first.owner, "SELECT state FROM pg_stat_sqs_ingest") == [("idle",)], 20, "idle")


def test_owner_reads_its_dead_letters_whole(both):
    first, _ = both
    ((reason, redacted, sealed),) = query(first, first.owner, "SELECT reason, redacted, sealed FROM sqs_ingest_dead_letter")
    assert reason == "not_json" and redacted == {"bytes": 9} and sealed


def test_errors_and_functions_in_a_condition_do_not_show_what_others_have(both):
    """A function that is called before the policy would tell."""
    first, second = both
    first.db.sql(f"GRANT CREATE ON SCHEMA public TO {first.owner}")
    said = []
    with first.db.connect(first.owner) as session:
        session.add_notice_handler(lambda notice: said.append(notice.message_primary))
        session.execute(
            """CREATE FUNCTION peek(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
               AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$"""
        )
        session.execute("SELECT * FROM sqs_ingest_pipeline WHERE peek(name)")
        session.execute("SELECT * FROM sqs_ingest_dead_letter WHERE peek(pipeline)")
        session.execute("SELECT * FROM pg_stat_sqs_ingest WHERE peek(pipeline)")
    assert set(said) == {"user_logins"}


# -- who owns -----------------------------------------------------------------------------------------------------------


def test_pipeline_that_changes_hands_is_seen_by_the_new_owner_only(both):
    first, second = both
    first.db.sql(f"ALTER TABLE user_logins OWNER TO {second.owner}")
    first.db.sql("UPDATE sqs_ingest_pipeline SET owner = %s::regrole WHERE name = 'user_logins'", [second.owner])
    assert pipelines_seen(first, first.owner) == set()
    assert query(first, first.owner, SIGHTS["sqs_ingest_dead_letter"]) == []
    assert pipelines_seen(first, second.owner) == {"user_logins", "second"}
    wait_until(lambda: query(first, first.owner, SIGHTS["sqs_ingest_stat()"]) == [], 15, "nothing in the shared state")
    wait_until(lambda: worker_roles(first) == {second.owner}, 15, "both workers are the new owner")
    first.queue.send(login_messages(1, 5))
    first.wait_for(inserted=2, deleted=3)


def test_role_without_any_pipeline_left_can_be_dropped_after_drop_owned(first):
    """What was granted to it goes with DROP OWNED, as everywhere."""
    first.stop()
    first.db.sql("UPDATE sqs_ingest_pipeline SET owner = 'postgres'")
    first.db.sql("ALTER TABLE user_logins OWNER TO postgres")
    first.db.sql(f"DROP OWNED BY {first.owner}")
    first.db.sql(f"DROP ROLE {first.owner}")
    assert first.db.value("SELECT owner::text FROM sqs_ingest_pipeline") == "postgres"


# -- an owner goes ----------------------------------------------------------------------------------------------------


def give_away(pipeline):
    """All that the role owns here but the pipeline."""
    pipeline.db.sql(f"ALTER TABLE user_logins OWNER TO postgres; REVOKE CREATE ON SCHEMA public FROM {pipeline.owner}")
    pipeline.db.sql(f"REVOKE EXECUTE ON FUNCTION sqs_ingest_start(text), sqs_ingest_stop(text) FROM {pipeline.owner}")


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_drop_role_of_an_owner_is_refused(first, state):
    give_away(first)
    if state == "stopped":
        first.stop()
    with pytest.raises(psycopg.errors.DependentObjectsStillExist) as refusal:
        first.db.sql(f"DROP ROLE {first.owner}")
    assert "sqs_ingest" in str(refusal.value)
    if state == "running":
        first.db.sql(f"GRANT INSERT ON user_logins TO {first.owner}; ALTER TABLE user_logins OWNER TO {first.owner}")
        first.queue.send(login_messages(1))
        first.wait_until_done(1)


def test_drop_role_is_refused_from_another_database_too(first):
    give_away(first)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist) as refusal:
        first.cluster.sql(f"DROP ROLE {first.owner}")
    assert first.db.name in str(refusal.value)


def test_drop_owned_drops_the_pipelines_of_that_role_only(both):
    first, second = both
    said = []
    with first.db.connect() as session:
        session.add_notice_handler(lambda notice: said.append(notice.message_primary))
        session.execute(f"DROP OWNED BY {first.owner} CASCADE")
    assert any("user_logins" in text for text in said)
    assert pipelines_seen(first, "postgres") == {"second"}
    wait_until(lambda: len(workers(first)) == 1, 15, "its worker is gone")
    first.db.sql(f"DROP ROLE {first.owner}")
    wait_until(lambda: [row[0] for row in first.db.sql("SELECT pipeline FROM pg_stat_sqs_ingest")] == ["second"], 15, "status")
    first.queue.send(login_messages(2, 10))
    second.queue.send(login_messages(2, 20))
    second.wait_for(inserted=3, deleted=4)
    assert first.queue.counts() == (2, 0)


def test_drop_owned_that_is_rolled_back_changes_nothing(first):
    with first.db.connect(autocommit=False) as session:
        session.execute(f"DROP OWNED BY {first.owner} CASCADE")
        session.rollback()
    first.wait_for(15, state="idle", workers=lambda found: len(found) == 1)
    assert pipelines_seen(first, first.owner) == {"user_logins"}
    first.queue.send(login_messages(2))
    first.wait_until_done(2)


def test_drop_owned_in_the_middle_of_a_drain_leaves_the_rest_in_the_queue(first):
    messages = login_messages(200)
    first.db.sql("CREATE TABLE seen (user_id text)")
    first.db.sql(
        """CREATE FUNCTION copy() RETURNS trigger SECURITY DEFINER SET search_path = public LANGUAGE plpgsql
           AS $$ BEGIN INSERT INTO seen VALUES (NEW.user_id); RETURN NEW; END $$"""
    )
    first.db.sql("CREATE TRIGGER copy BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION copy()")
    first.queue.send(messages)
    first.wait_for(inserted=lambda n: n > 20)
    first.db.sql(f"DROP OWNED BY {first.owner} CASCADE")
    wait_until(lambda: workers(first) == [], 20, "workers gone")
    stored = first.db.value("SELECT count(*) FROM seen")
    assert first.db.value("SELECT count(DISTINCT user_id) FROM seen") == stored
    wait_until(lambda: first.queue.counts() == (200 - stored, 0), 10, lambda: f"{stored} stored, {first.queue.counts()} left")
    first.db.sql(f"DROP ROLE {first.owner}")


def test_pipeline_made_anew_after_drop_owned_ingests_as_its_new_owner(first):
    first.queue.send([login_message(0), "no json of the former owner"])
    first.wait_until_done(2)
    first.db.sql(f"DROP OWNED BY {first.owner} CASCADE")
    heir = make_owner(first)
    query(first, heir, "SELECT sqs_ingest_start()")
    first.queue.send(login_messages(2, 10))
    wait_until(lambda: user_ids(first) == users_of(login_messages(2, 10)), 20, "rows in its table")
    assert first.db.value("SELECT owner::text FROM sqs_ingest_pipeline") == heir


def test_new_owner_of_the_name_does_not_see_dead_letters_of_the_pipeline_that_was_dropped(first):
    """They were another role's: whoever makes a pipeline of that name next has nothing to do with them."""
    first.queue.send(["no json of the former owner"])
    first.wait_until_done(1)
    first.db.sql(f"DROP OWNED BY {first.owner} CASCADE")
    heir = make_owner(first)
    query(first, heir, "SELECT sqs_ingest_start()")
    assert query(first, heir, "SELECT id FROM sqs_ingest_dead_letter") == []


def test_reassign_owned_hands_the_pipeline_over_and_the_role_can_go(first):
    """The usual way: REASSIGN OWNED, DROP OWNED for what was granted, DROP ROLE."""
    heir = make_owner(first)
    first.queue.send(["no json"])
    first.wait_until_done(1)
    first.db.sql(f"REASSIGN OWNED BY {first.owner} TO {heir}")
    assert first.db.value("SELECT owner::text FROM sqs_ingest_pipeline") == heir
    first.db.sql(f"DROP OWNED BY {first.owner}")
    first.db.sql(f"DROP ROLE {first.owner}")
    assert pipelines_seen(first, heir) == {"user_logins"}
    assert query(first, heir, "SELECT reason FROM sqs_ingest_dead_letter") == [("not_json",)]
    wait_until(lambda: worker_roles(first) == {heir}, 15, "the worker is the new owner")
    first.queue.send(login_messages(2))
    first.wait_for(inserted=2, deleted=3)
    assert query(first, heir, "SELECT sqs_ingest_stop()") == [(True,)]


def test_reassign_owned_in_the_middle_of_a_drain_loses_nothing(first):
    heir, messages = make_owner(first), login_messages(200)
    first.queue.send(messages)
    first.wait_for(inserted=lambda n: n > 20)
    first.db.sql(f"REASSIGN OWNED BY {first.owner} TO {heir}")
    wait_until(lambda: len(user_ids(first)) >= 200, 30, lambda: f"all rows; {first.stat()}")
    wait_until(first.queue.is_empty, 20, "queue empty")
    assert user_ids(first) == users_of(messages) and first.dead_letters() == []


def test_reassign_owned_touches_no_other_database(first, moto):
    """Pipelines are objects of their database, as tables are."""
    other = Database(first.cluster, first.cluster.create_database())
    try:
        heir = make_owner(first)
        other.sql("CREATE EXTENSION sqs_ingest")
        other.sql(f"REASSIGN OWNED BY {first.owner} TO {heir}")
        other.sql(f"DROP OWNED BY {first.owner}")
        assert pipelines_seen(first, first.owner) == {"user_logins"}
        first.queue.send(login_messages(1))
        first.wait_until_done(1)
    finally:
        other.close()
        first.cluster.drop_database(other.name)


def test_drop_and_reassign_owned_work_without_the_extension(cluster, db):
    """The library is there all the same."""
    roles = [unique("role") for _ in range(3)]
    for role in roles:
        db.sql(f"CREATE ROLE {role}")
    db.sql(f"CREATE TABLE things (); ALTER TABLE things OWNER TO {roles[0]}")
    db.sql(f"REASSIGN OWNED BY {roles[0]} TO {roles[1]}")
    assert db.value("SELECT tableowner::text FROM pg_tables WHERE tablename = 'things'") == roles[1]
    db.sql(f"DROP OWNED BY {roles[1]}, {roles[2]}")
    assert db.value("SELECT to_regclass('things')") is None
    for role in roles:
        db.sql(f"DROP ROLE {role}")
