"""From version 1.0 to 1.1: the new library serves a database that is still at 1.0, ALTER EXTENSION sqs_ingest UPDATE leaves
what CREATE EXTENSION makes, and nothing that users have, granted or built on it is lost on the way.

What an update does to workers and drains in general is tested in test_update.py.
"""
import re
import threading

import psycopg
import pytest
from catalog import catalog, differences
from flow import Flow, assert_each_ingested_once, mixed_messages
from harness import Cluster, Database, login_message, login_messages, unique, wait_until
from pipeline import USER_LOGINS, Pipeline, make_owner, prepare
from proxy import make_pipeline_fixture, make_proxy_fixture, proxied_fixture, proxy_fixture  # noqa: F401
from redelivery import Handouts
from versions import SQL, installed, version

UPGRADE_SCRIPT = SQL / "sqs_ingest--1.0--1.1.sql"
UPDATE = "ALTER EXTENSION sqs_ingest UPDATE"
MD5 = """[{"column": "user_id", "from": "/user_id", "required": true},
          {"column": "masked_ip", "from": "/ip", "required": true, "steps": ["ip", "mask"]}]"""


@pytest.fixture
def old_db(db):
    """A database with version 1.0 of the extension; the library is this one."""
    db.sql("CREATE EXTENSION sqs_ingest VERSION '1.0'")
    return db


@pytest.fixture
def old(old_db, proxied, proxy):
    """The built-in pipeline of such a database, not started."""
    Handouts(proxy, proxied.queue)
    assert version(old_db) == "1.0"
    return proxied


# As version 1.0 wrote it into the row that its first start made.
MAPPING_OF_1_0 = """[
    {"column": "user_id", "from": "/user_id", "required": true},
    {"column": "device_type", "from": "/device_type"},
    {"column": "masked_ip", "from": "/ip", "steps": ["ip", "mask"], "required": true},
    {"column": "masked_device_id", "from": "/device_id", "steps": ["mask"], "required": true},
    {"column": "locale", "from": "/locale"},
    {"column": "app_version", "from": "/app_version", "steps": ["version"]},
    {"column": "create_date", "from": ["/create_date", "@sent_at"], "steps": ["date"]}]"""


@pytest.fixture
def running(old):
    if not (old.cluster.data / "sqs_ingest.keyring").exists():
        old.db.sql("SELECT sqs_ingest_create_keyring()")
    old.db.sql(USER_LOGINS)
    old.db.sql("""INSERT INTO sqs_ingest_pipeline (name, owner, target, columns, mask_method)
                  VALUES ('user_logins', 'postgres', 'public.user_logins', %s, 'hmac')""", [MAPPING_OF_1_0])  # fmt: skip
    old.start()
    old.wait_for(state="idle")
    return old


@pytest.fixture
def other(cluster):
    """Another empty database beside it."""
    database = Database(cluster, cluster.create_database())
    yield database
    database.close()
    cluster.drop_database(database.name)


@pytest.fixture
def role(cluster):
    role = unique("role")
    cluster.sql(f"CREATE ROLE {role}")
    return role


def done(process):
    """The output of a program that ended well and had nothing to complain about."""
    assert process.returncode == 0 and process.stderr == "", f"{process.args}: {process.returncode}\n{process.stderr}"
    return process.stdout


# -- the catalog ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", ["public", "In Gest"])
def test_upgraded_catalog_is_that_of_a_fresh_installation(old_db, other, schema):
    if schema != "public":
        old_db.sql("DROP EXTENSION sqs_ingest")
        for db in (old_db, other):
            db.sql(f'CREATE SCHEMA "{schema}"')
        old_db.sql(f"CREATE EXTENSION sqs_ingest SCHEMA \"{schema}\" VERSION '1.0'")
    other.sql(f'CREATE EXTENSION sqs_ingest SCHEMA "{schema}"')
    assert len(differences(catalog(old_db), catalog(other))) > 500
    old_db.sql(UPDATE)
    assert version(old_db) == version(other) == "1.1"
    assert differences(catalog(old_db), catalog(other)) == []


def test_upgraded_catalog_is_that_of_a_fresh_one_to_pg_upgrade_too(old_db, other):
    """An independent witness: in its mode for pg_upgrade pg_dump writes every member of an extension with all its rights."""
    old_db.sql(UPDATE)
    other.sql("CREATE EXTENSION sqs_ingest")

    def as_pg_upgrade_sees_it(db):
        script = done(db.cluster.client("pg_dump", "--schema-only", "--binary-upgrade", dbname=db.name))
        # Numbers of objects, and the values that rows from before the upgrade have in the new columns.
        script = re.sub(r"\b\d{5}\b", "OID", script)
        script = re.sub(r"-- set missing value\.\nSELECT pg_catalog\.binary_upgrade_set_missing_value\(.*?\);\n", "", script)
        script = re.sub(r"SELECT pg_catalog\.binary_upgrade_set_next_attribute_versions\(.*?\);\n", "", script)
        script = re.sub(r"relfrozenxid = '\d+', relminmxid = '\d+'", "", script)
        return re.sub(r"^\\(un)?restrict .*", "", script, flags=re.MULTILINE).splitlines()

    upgraded, fresh = as_pg_upgrade_sees_it(old_db), as_pg_upgrade_sees_it(other)
    assert len(fresh) > 1000 and any("binary_upgrade_set_record_init_privs(true)" in line for line in fresh)
    assert differences(upgraded, fresh) == []


def test_the_comparison_covers_every_comment_of_the_install_script(db):
    db.sql("CREATE EXTENSION sqs_ingest")
    script = (SQL / "sqs_ingest--1.1.sql").read_text()
    compared = [line for line in catalog(db) if re.match(r".*?: comment: ", line, re.DOTALL)]
    assert len(compared) == len(re.findall("^COMMENT ON ", script, re.MULTILINE)) + 1  # the control file's


PREVIEW = "sqs_ingest_preview(text, text, timestamptz, jsonb, text)"
STAT = "'sqs_ingest_stat()'::regprocedure"
MUTANTS = {
    "comment of a column": "COMMENT ON COLUMN sqs_ingest_pipeline.wait_time IS 'seconds'",
    "comment of a view's column": "COMMENT ON COLUMN pg_stat_sqs_ingest.discarded IS NULL",
    "comment of a function": f"COMMENT ON FUNCTION {PREVIEW} IS NULL",
    "comment of a policy": "COMMENT ON POLICY sqs_ingest_owner ON sqs_ingest_pipeline IS NULL",
    "comment of a trigger": "COMMENT ON TRIGGER sqs_ingest_pipeline_changed ON sqs_ingest_pipeline IS NULL",
    "comment of an index": "COMMENT ON INDEX sqs_ingest_dead_letter_pipeline_idx IS NULL",
    "default": "ALTER TABLE sqs_ingest_pipeline ALTER batch_size SET DEFAULT 501",
    "no default": "ALTER TABLE sqs_ingest_pipeline ALTER ledger DROP DEFAULT",
    "nullable": "ALTER TABLE sqs_ingest_pipeline ALTER envelope DROP NOT NULL",
    "type": "ALTER TABLE sqs_ingest_pipeline ALTER role_arn TYPE varchar(2048)",
    "collation": 'ALTER TABLE sqs_ingest_pipeline ALTER region TYPE text COLLATE "C"',
    "storage": "ALTER TABLE sqs_ingest_dead_letter ALTER sealed_metadata SET STORAGE EXTERNAL",
    "order of columns": "ALTER TABLE sqs_ingest_dead_letter DROP sealed_metadata, ADD sealed_metadata bytea",
    "one column more": "ALTER TABLE sqs_ingest_ledger ADD more text",
    "constraint missing": "ALTER TABLE sqs_ingest_pipeline DROP CONSTRAINT sqs_ingest_pipeline_conflict_columns_check",
    "constraint's name": "ALTER TABLE sqs_ingest_pipeline RENAME CONSTRAINT sqs_ingest_pipeline_protocol_check TO protocol_check",
    "constraint's text": """ALTER TABLE sqs_ingest_pipeline DROP CONSTRAINT sqs_ingest_pipeline_wait_time_check,
        ADD CONSTRAINT sqs_ingest_pipeline_wait_time_check CHECK (wait_time BETWEEN 0 AND 20)""",
    "constraint not validated": """ALTER TABLE sqs_ingest_pipeline DROP CONSTRAINT sqs_ingest_pipeline_wait_time_check,
        ADD CONSTRAINT sqs_ingest_pipeline_wait_time_check CHECK (wait_time BETWEEN 1 AND 20) NOT VALID""",
    "index": "CREATE INDEX ON sqs_ingest_dead_letter (message_id)",
    "index's order": """DROP INDEX sqs_ingest_dead_letter_pipeline_idx;
        CREATE INDEX sqs_ingest_dead_letter_pipeline_idx ON sqs_ingest_dead_letter (pipeline, created_at DESC);
        COMMENT ON INDEX sqs_ingest_dead_letter_pipeline_idx IS 'dead letters of a pipeline by age'""",
    "row security": "ALTER TABLE sqs_ingest_pipeline DISABLE ROW LEVEL SECURITY",
    "row security forced": "ALTER TABLE sqs_ingest_dead_letter FORCE ROW LEVEL SECURITY",
    "policy": "ALTER POLICY sqs_ingest_owner ON sqs_ingest_dead_letter USING (true)",
    "policy's roles": "ALTER POLICY sqs_ingest_owner ON sqs_ingest_dead_letter TO pg_monitor",
    "trigger": "ALTER TABLE sqs_ingest_pipeline DISABLE TRIGGER sqs_ingest_pipeline_changed",
    "view's options": "ALTER VIEW pg_stat_sqs_ingest RESET (security_barrier)",
    "view's query": """DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW pg_stat_sqs_ingest WITH (security_barrier) AS '
        || replace(pg_get_viewdef('pg_stat_sqs_ingest'), 's.credentials', 's.protocol AS credentials'); END $$""",
    "view's columns": "ALTER VIEW pg_stat_sqs_ingest RENAME discarded TO thrown_away",
    "volatility": f"ALTER FUNCTION {PREVIEW} STABLE",
    "strictness": f"ALTER FUNCTION {PREVIEW} STRICT",
    "parallel safety": f"ALTER FUNCTION {PREVIEW} PARALLEL SAFE",
    "security definer": "ALTER FUNCTION sqs_ingest_drop_pipeline SECURITY DEFINER",
    "function's setting": "ALTER FUNCTION sqs_ingest_drop_pipeline SET search_path = pg_catalog",
    "estimates": "ALTER FUNCTION sqs_ingest_stat ROWS 10",
    "C symbol": "UPDATE pg_proc SET prosrc = 'sqs_ingest_start' WHERE proname = 'sqs_ingest_drop_pipeline'",
    "library": "UPDATE pg_proc SET probin = 'sqs_ingest' WHERE proname = 'sqs_ingest_drop_pipeline'",
    "argument's name": "UPDATE pg_proc SET proargnames[1] = 'pipeline' WHERE proname = 'sqs_ingest_drop_pipeline'",
    "argument's default": """CREATE OR REPLACE FUNCTION sqs_ingest_drop_pipeline(name text, cascade boolean DEFAULT true)
        RETURNS void AS '$libdir/sqs_ingest', 'sqs_ingest_drop_pipeline' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE""",
    "result's column": f"UPDATE pg_proc SET proargnames[27] = 'who' WHERE oid = {STAT}",
    "result's type": f"UPDATE pg_proc SET proallargtypes[25] = 'int4'::regtype WHERE oid = {STAT}",
    "body": """CREATE OR REPLACE FUNCTION sqs_ingest_status() RETURNS jsonb LANGUAGE sql STABLE PARALLEL RESTRICTED
        RETURN (SELECT jsonb_object_agg(s.pipeline, to_jsonb(s)) FROM pg_stat_sqs_ingest s)""",
    "everybody may call it": f"GRANT EXECUTE ON FUNCTION {PREVIEW} TO PUBLIC",
    "somebody may call it": "GRANT EXECUTE ON FUNCTION sqs_ingest_stat TO pg_read_all_data",
    "a grant is missing": "REVOKE EXECUTE ON FUNCTION sqs_ingest_status FROM pg_monitor",
    "a grant of the view is missing": "REVOKE SELECT ON pg_stat_sqs_ingest FROM pg_monitor",
    "a grant with its option": "GRANT SELECT ON pg_stat_sqs_ingest TO pg_monitor WITH GRANT OPTION",
    "a grant of a column": "GRANT SELECT (protocol) ON sqs_ingest_pipeline TO PUBLIC",
    "initial rights missing": f"DELETE FROM pg_init_privs WHERE objoid = {STAT}",
    "initial rights": f"UPDATE pg_init_privs SET initprivs = initprivs || '=X/postgres'::aclitem WHERE objoid = {STAT}",
    "owner": "ALTER FUNCTION sqs_ingest_alter_pipeline OWNER TO pg_monitor",
    "membership": f"ALTER EXTENSION sqs_ingest DROP FUNCTION {PREVIEW}",
    "dumped tables": "UPDATE pg_extension SET extconfig = extconfig[1:3], extcondition = extcondition[1:3] WHERE extname = 'sqs_ingest'",
    "dumped rows": "UPDATE pg_extension SET extcondition[2] = 'WHERE false' WHERE extname = 'sqs_ingest'",
    "relocatable": "UPDATE pg_extension SET extrelocatable = true WHERE extname = 'sqs_ingest'",
    "one function more": "ALTER EXTENSION sqs_ingest ADD FUNCTION stranger()",
}


@pytest.fixture(scope="module")
def fresh(cluster):
    """A database with a fresh extension, and its catalog; it is rolled back after each use."""
    database = Database(cluster, cluster.create_database())
    database.sql("CREATE EXTENSION sqs_ingest")
    database.sql("CREATE FUNCTION stranger() RETURNS int LANGUAGE sql RETURN 1")
    yield database, catalog(database)
    database.close()
    cluster.drop_database(database.name)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_comparison_notices(fresh, mutant):
    db, before = fresh
    with db.connection.transaction(force_rollback=True):
        db.sql(MUTANTS[mutant])
        found = differences(before, catalog(db))
    assert found != []
    assert catalog(db) == before


# -- the new library on a catalog of 1.0 ------------------------------------------------------------------------------


def test_database_that_is_not_upgraded_yet_works_as_before(running):
    """All that version 1.0 has, with the library of 1.1."""
    db, queue = running.db, running.queue
    messages = mixed_messages(40)
    queue.send(messages)
    assert_each_ingested_once(running, messages)
    stat = running.wait_for(state="idle", inserted=36, dead_letters=4)
    assert "discarded" not in stat
    assert db.value("SELECT sqs_ingest_status()")["user_logins"]["inserted"] == 36
    assert len(db.sql("SELECT * FROM sqs_ingest_stat()")) == 1
    checked = db.sql("SELECT item, ok, detail FROM sqs_ingest_check()")
    assert len(checked) > 8 and [item for item, ok, _ in checked if ok is False] == ["durability"]  # fsync is off here
    preview = db.value("SELECT sqs_ingest_preview('user_logins', %s)", ['{"user_id": "u", "ip": "1.2.3.4", "device_id": "d"}'])
    assert preview["row"]["user_id"] == "u"
    assert db.value("SELECT sqs_ingest_redrive()") == 0
    assert {letter["redrives"] for letter in running.dead_letters()} == {1}
    assert db.value("SELECT sqs_ingest_purge(ids => %s)", [[running.dead_letters()[0]["id"]]]) == 1
    assert db.value("SELECT sqs_ingest_forget(%s)", [messages[0]["user_id"]])["rows"] == 1
    db.sql("SELECT sqs_ingest_stat_reset()")
    assert running.wait_for(inserted=0)["received"] == 0
    assert running.stop() is True
    queue.send([login_message(1000)])
    db.sql("CALL sqs_ingest_drain()")
    assert login_message(1000)["user_id"] in [row["user_id"] for row in running.rows("user_id")]
    assert version(db) == "1.0"


def test_pipeline_of_another_table_works_before_the_upgrade(old):
    """A row in the table was the way to make one."""
    db = old.db
    db.sql("CREATE TABLE logins (user_id text NOT NULL, masked_ip text)")
    db.sql("INSERT INTO sqs_ingest_pipeline VALUES ('logins', 'postgres', %s, 'public.logins', %s, 'md5')", [old.queue.url, MD5])
    logins = Pipeline(db, old.queue, "logins")
    logins.start()
    old.queue.send([*login_messages(5), {"ip": "1.2.3.4"}])
    logins.wait_for(inserted=5, dead_letters=1, deleted=6)
    logins.stop()
    assert len(logins.rows(table="logins")) == 5


def test_library_that_is_older_than_the_update_is_told_to_be_replaced(old_db):
    """The server has it in memory until it is restarted. Here the script asks for what no library has yet."""
    script = UPGRADE_SCRIPT.read_text().replace("'sqs_ingest_drop_pipeline'", "'sqs_ingest_of_a_later_version'")
    before = catalog(old_db)
    with installed({"sqs_ingest--1.0--1.1.1test.sql": script}):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="library .* is older than version 1.1") as failed:
            old_db.sql(f"{UPDATE} TO '1.1.1test'")
    assert "restart the server" in failed.value.diag.message_hint
    assert "sqs_ingest_of_a_later_version" in failed.value.diag.message_detail
    assert catalog(old_db) == before


# -- the update -------------------------------------------------------------------------------------------------------


def test_upgrade_while_messages_flow_costs_none_and_what_is_new_works_at_once(running):
    db, since = running.db, running.cluster.log_position()
    workers = running.cluster.pids("sqs_ingest worker", db.name)
    with Flow(running) as flow:
        flow.wait_for_more()
        db.sql(UPDATE)
        flow.wait_for_more(40)
        assert running.cluster.pids("sqs_ingest worker", db.name) == workers
        db.sql("SELECT sqs_ingest_alter_pipeline('user_logins', batch_size => 7)")
        flow.wait_for_more(40)
    assert_each_ingested_once(running, flow.sent)
    assert running.stat()["discarded"] == 0
    assert not re.search("ERROR|FATAL|WARNING", running.cluster.log(since))
    # A mapping of 1.0 goes on as it is, with the new options too.
    db.sql("SELECT sqs_ingest_alter_pipeline('user_logins', on_invalid => 'discard')")
    running.queue.send(["no JSON"])
    running.wait_for(discarded=1, in_hand=0)


def test_workers_that_run_keep_in_dead_letters_what_is_new_from_the_upgrade_on(running):
    db = running.db
    for count in (1, 2):
        running.queue.send([r'{"user_id": "\ud800"}'])
        running.wait_for(dead_letters=count)
        if count == 1:
            workers = running.cluster.pids("sqs_ingest worker", db.name)
            db.sql(UPDATE)
    assert running.cluster.pids("sqs_ingest worker", db.name) == workers
    assert db.sql("SELECT sealed_metadata IS NOT NULL FROM sqs_ingest_dead_letter ORDER BY id") == [(False,), (True,)]


def test_upgrade_that_is_rolled_back_leaves_version_1_0(running):
    db = running.db
    before = catalog(db)
    with db.connect(autocommit=False) as session:
        session.execute(UPDATE)
        session.rollback()
    assert catalog(db) == before and version(db) == "1.0"
    messages = mixed_messages(10)
    running.queue.send(messages)
    assert_each_ingested_once(running, messages)


def test_pipelines_and_dead_letters_of_before_have_the_defaults_of_the_new_columns(running):
    db, messages = running.db, mixed_messages(20)
    running.queue.send(messages)
    assert_each_ingested_once(running, messages)
    before = db.value("SELECT to_jsonb(p) FROM sqs_ingest_pipeline p")
    letters = running.dead_letters()
    db.sql(UPDATE)
    after = db.value("SELECT to_jsonb(p) FROM sqs_ingest_pipeline p")
    assert {name: after[name] for name in before} == before
    new = {name: value for name, value in after.items() if name not in before and value is not None}
    assert new == {"protocol": "auto", "max_receivers": 8, "batch_size": 500, "wait_time": 20, "envelope": "none",
                   "body_encoding": "plain", "on_invalid": "dead_letter", "on_conflict": "dead_letter", "ledger": True}  # fmt: skip
    assert running.dead_letters() == [{**letter, "sealed_metadata": None} for letter in letters]
    # They can still be opened.
    assert db.value("SELECT sqs_ingest_redrive()") == 0
    assert {letter["redrives"] for letter in running.dead_letters()} == {1}


def test_session_that_looked_before_sees_the_new_columns_after(running):
    with running.db.connect() as session:
        for _ in range(7):  # psycopg prepares it on the way
            assert "discarded" not in session.execute("SELECT sqs_ingest_status()").fetchone()[0]["user_logins"]
            assert session.execute("SELECT pipeline, inserted FROM sqs_ingest_stat()").fetchall() == [("user_logins", 0)]
        running.db.sql(UPDATE)
        status = session.execute("SELECT sqs_ingest_status()").fetchone()[0]["user_logins"]
        assert status["discarded"] == 0 and {"protocol", "credentials"} <= set(status)
        assert session.execute("SELECT pipeline, inserted FROM sqs_ingest_stat()").fetchall() == [("user_logins", 0)]


def test_reader_of_the_status_that_goes_on_to_the_dead_letters_and_the_upgrade_do_not_deadlock(old_db):
    failed = []

    def update(session):
        try:
            session.execute(UPDATE)
        except psycopg.Error as error:
            failed.append(error)

    with old_db.connect(autocommit=False) as reader, old_db.connect() as updater:
        reader.execute("SELECT * FROM pg_stat_sqs_ingest")
        thread = threading.Thread(target=update, args=[updater])
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        wait_until(lambda: old_db.value(waits, [updater.info.backend_pid]), 20, "the update waits for the reader")
        reader.execute("SELECT * FROM sqs_ingest_pipeline, sqs_ingest_dead_letter")
        reader.commit()
        thread.join()
    assert failed == [] and version(old_db) == "1.1"


def test_only_a_superuser_may_upgrade(old_db, role):
    """The control file does not say trusted: what it makes runs in the server."""
    old_db.sql(f"GRANT CREATE ON DATABASE \"{old_db.name}\" TO {role}")
    with old_db.connect() as session:
        session.execute(f"SET ROLE {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(UPDATE)
    assert version(old_db) == "1.0"


# -- what users have --------------------------------------------------------------------------------------------------

RIGHTS = """
    SELECT o.identity, g.grantee, g.privilege_type, g.grantor, g.is_grantable
      FROM (SELECT oid::regclass::text, relacl FROM pg_class WHERE relkind IN ('r', 'v', 'S') AND relname ~ 'sqs_ingest'
            UNION ALL
            SELECT attrelid::regclass || '.' || attname, attacl FROM pg_attribute WHERE attrelid = 'pg_stat_sqs_ingest'::regclass
            UNION ALL
            SELECT oid::regprocedure::text, proacl FROM pg_proc WHERE proname ~ 'sqs_ingest|mask') AS o(identity, acl),
           LATERAL (SELECT nullif(grantee, 0)::regrole::text AS grantee, privilege_type, grantor::regrole::text, is_grantable
                      FROM aclexplode(o.acl)) AS g
     ORDER BY 1, 2 NULLS FIRST, 3, 4"""


def grant_this_and_that(db, role, other_role):
    """What a DBA may have granted and revoked."""
    for statement in (
        f"GRANT SELECT ON pg_stat_sqs_ingest TO {role} WITH GRANT OPTION",
        f"GRANT SELECT (pipeline, state) ON pg_stat_sqs_ingest TO {other_role}",
        f"GRANT EXECUTE ON FUNCTION sqs_ingest_stat(), sqs_ingest_status() TO {role} WITH GRANT OPTION",
        f"GRANT EXECUTE ON FUNCTION sqs_ingest_preview(text, text, timestamptz), sqs_ingest_check(text) TO {other_role}",
        "GRANT EXECUTE ON FUNCTION mask(text) TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION sqs_ingest_status() FROM pg_monitor",
        f"SET ROLE {role}",
        f"GRANT EXECUTE ON FUNCTION sqs_ingest_stat() TO {other_role}",
        "RESET ROLE",
    ):
        db.sql(statement)


def test_every_grant_survives_the_upgrade(old, cluster, role):
    """Those of pipeline owners, and those that a DBA made; nobody gets more than before, and nobody the new functions."""
    other_role = unique("role")
    cluster.sql(f"CREATE ROLE {other_role}")
    db, owner = old.db, make_owner(old)
    prepare(old, owner)
    grant_this_and_that(db, role, other_role)
    before = db.sql(RIGHTS)
    assert {owner, role, other_role, None} <= {grantee for _, grantee, *_ in before}
    db.sql(UPDATE)
    after = db.sql(RIGHTS)
    new = [right for right in after if right not in before]
    assert [right for right in before if right not in after] == []
    assert len(new) == 4 and {(grantee, right) for _, grantee, right, *_ in new} == {("postgres", "EXECUTE")}
    with db.connect(owner) as session:
        assert session.execute("SELECT pipeline, discarded FROM pg_stat_sqs_ingest").fetchall() == [("user_logins", 0)]
        assert "user_logins" in session.execute("SELECT sqs_ingest_status()").fetchone()[0]


def test_grants_are_still_dumped_after_the_upgrade(old, other, cluster, role):
    """They did not become the extension's own by it: those pg_dump leaves to CREATE EXTENSION, which does not make them."""
    other_role = unique("role")
    cluster.sql(f"CREATE ROLE {other_role}")
    prepare(old, make_owner(old))
    grant_this_and_that(old.db, role, other_role)
    old.db.sql(UPDATE)
    path = cluster.directory / unique("dump")
    done(cluster.client("pg_dump", "-Fc", "-f", path, dbname=old.db.name))
    done(cluster.client("pg_restore", "-d", other.name, path))
    assert other.sql(RIGHTS) == old.db.sql(RIGHTS)


def test_views_and_functions_of_users_on_the_status_survive_the_upgrade(running):
    db = running.db
    for statement in (
        "CREATE VIEW everything AS SELECT * FROM pg_stat_sqs_ingest",
        "CREATE VIEW raw AS SELECT * FROM sqs_ingest_stat()",
        "CREATE VIEW whole AS SELECT s AS stat FROM pg_stat_sqs_ingest s",
        "CREATE MATERIALIZED VIEW kept AS SELECT pipeline, inserted FROM pg_stat_sqs_ingest",
        "CREATE FUNCTION state_of(text) RETURNS text LANGUAGE sql RETURN (SELECT state FROM pg_stat_sqs_ingest WHERE pipeline = $1)",
        "CREATE VIEW letters AS SELECT * FROM sqs_ingest_dead_letter",
    ):
        db.sql(statement)
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
    before = [db.sql(columns, [view]) for view in ("everything", "raw", "letters")]
    db.sql(UPDATE)
    db.sql("REFRESH MATERIALIZED VIEW kept")
    running.queue.send(mixed_messages(10))
    running.wait_for(inserted=9, dead_letters=1, deleted=10)
    assert db.sql("SELECT pipeline, inserted FROM everything") == db.sql("SELECT pipeline, inserted FROM raw")
    assert db.sql("SELECT (stat).inserted, (stat).discarded FROM whole") == [(9, 0)]
    assert db.value("SELECT state_of('user_logins')") in ("running", "idle")
    assert len(db.sql("SELECT * FROM letters")) == 1
    assert [db.sql(columns, [view]) for view in ("everything", "raw", "letters")] == before


# -- dumps and clusters of 1.0 ----------------------------------------------------------------------------------------

CONTENTS = ["user_logins", "sqs_ingest_ledger", "sqs_ingest_key"]


def contents(db):
    return {table: db.sql(f"SELECT t::text FROM {table} t ORDER BY 1") for table in CONTENTS} | {
        "pipelines": db.sql("SELECT name, owner::text, queue_url, target, columns::text, mask_method, workers FROM sqs_ingest_pipeline"),
        "dead letters": db.sql("SELECT id, message_id, reason, redacted::text, sealed, created_at FROM sqs_ingest_dead_letter"),
    }


@pytest.mark.parametrize("way", ["plain", "archive", "archive into a database that has 1.1"])
def test_dump_of_1_0_is_restored_where_1_1_is_installed(running, other, cluster, way):
    """CREATE EXTENSION in a dump names no version; the data in it name their columns."""
    db, messages = running.db, mixed_messages(20)
    running.queue.send(messages)
    assert_each_ingested_once(running, messages)
    running.stop()
    path = cluster.directory / unique("dump")
    if way == "plain":
        done(cluster.client("pg_dump", "-f", path, dbname=db.name))
        done(cluster.client("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", path, dbname=other.name))
    elif way == "archive":
        done(cluster.client("pg_dump", "-Fc", "-f", path, dbname=db.name))
        done(cluster.client("pg_restore", "--exit-on-error", "-d", other.name, path))
    else:
        other.sql("CREATE EXTENSION sqs_ingest")
        done(cluster.client("pg_dump", "-Fc", "-f", path, dbname=db.name))
        done(cluster.client("pg_restore", "--exit-on-error", "-d", other.name, path))
    assert version(other) == "1.1" and contents(other) == contents(db)
    assert other.one("SELECT wait_time, on_invalid, ledger FROM sqs_ingest_pipeline") == (20, "dead_letter", True)
    copy = Pipeline(other, running.queue)
    copy.start()
    running.queue.send([login_message(500), "no JSON"])
    copy.wait_for(inserted=1, dead_letters=1, deleted=2)
    assert other.value("SELECT count(DISTINCT id) FROM sqs_ingest_dead_letter") == 3
    copy.stop()


def test_cluster_of_1_0_goes_through_pg_upgrade_and_is_upgraded_then(make_cluster, moto):
    """pg_upgrade keeps the version that each database has, with the rights granted since and before."""
    queue = moto.queue()
    old = make_cluster(queue.settings)
    db = Database(old, old.create_database())
    db.sql("CREATE EXTENSION sqs_ingest VERSION '1.0'")
    pipeline = Pipeline(db, queue)
    owner = make_owner(pipeline)
    prepare(pipeline, owner)
    grant_this_and_that(db, owner, "pg_read_all_settings")
    expected, rights = contents(db), db.sql(RIGHTS)
    db.close()
    new = make_cluster.adopt(Cluster(queue.settings, own_identity=True))
    old.upgrade_to(new)
    upgraded = Database(new.start(), db.name)
    assert version(upgraded) == "1.0"
    assert contents(upgraded) == expected and upgraded.sql(RIGHTS) == rights
    upgraded.sql(UPDATE)
    assert [right for right in rights if right not in upgraded.sql(RIGHTS)] == []
    assert upgraded.value("SELECT discarded FROM pg_stat_sqs_ingest") == 0
    upgraded.close()
