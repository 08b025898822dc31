"""unmask() and its traces, who may use what touches a key, and masks in other encodings and plans."""
import re
import threading

import psycopg
import pytest
from harness import Cluster, Database, login_message, unique
from keys import K1, K2, K3, KeyringFile, hmac_token, keyring_fixture, make_pipeline_without_workers, siv_token, subkey  # noqa: F401
from pipeline import Pipeline, make_pipeline_fixture  # noqa: F401
from test_leaks import found_in

VALUE = "203.0.113.217"
TOKEN = siv_token(1, K1, VALUE)


@pytest.fixture
def masks(db, keyring):
    """A database with the extension, in a cluster whose keyring has key 1."""
    db.sql("CREATE EXTENSION sqs_ingest")
    return db


@pytest.fixture
def role(masks):
    """A role without rights, which can log in."""
    name = unique("role")
    masks.sql(f"CREATE ROLE {name} LOGIN")
    yield name
    masks.sql(f"DROP OWNED BY {name}")
    masks.sql(f"DROP ROLE {name}")


def audit(db):
    return db.sql("SELECT role_name, session_role_name, client_addr, token, reason FROM sqs_ingest_unmask_audit ORDER BY id")


# -- the traces of unmask() -------------------------------------------------------------------------------------------


def test_unmask_gives_the_value_and_leaves_a_log_line_and_an_audit_row(masks, role):
    masks.sql(f"GRANT EXECUTE ON FUNCTION unmask(text, text) TO {role}")
    since = masks.cluster.log_position()
    with masks.connect() as session:
        session.execute(f"SET ROLE {role}")
        assert session.execute("SELECT unmask(%s, %s)", [TOKEN, "ticket 4711, Zoë"]).fetchone() == (VALUE,)
    (line,) = re.findall(r"LOG:  .*unmask.*", masks.cluster.log(since))
    assert line == f'LOG:  sqs_ingest: role "{role}" (session role "postgres") unmasks {TOKEN}: ticket 4711, Zoë'
    assert VALUE not in masks.cluster.log(since)
    assert "STATEMENT" not in masks.cluster.log(since)
    assert audit(masks) == [(role, "postgres", None, TOKEN, "ticket 4711, Zoë")]
    assert masks.value("SELECT now() - unmasked_at BETWEEN '-1 s' AND '1 min' FROM sqs_ingest_unmask_audit")


def test_the_log_has_the_line_before_the_value_is_there(masks):
    """Within the statement, as soon as unmask() returns: a client that got the value cannot undo it."""
    seen = masks.value(
        "WITH found AS MATERIALIZED (SELECT unmask(%s, 'first the log') AS value)"
        " SELECT value || ' ' || (strpos(pg_read_file(%s), %s) > 0) FROM found",
        [TOKEN, str(masks.cluster.log_file), f"unmasks {TOKEN}: first the log"],
    )
    assert seen == f"{VALUE} true"


def test_a_rollback_takes_the_audit_row_and_leaves_the_log_line(masks):
    since = masks.cluster.log_position()
    with masks.connect(autocommit=False) as session:
        assert session.execute("SELECT unmask(%s, 'in secret')", [TOKEN]).fetchone() == (VALUE,)
        session.rollback()
    assert audit(masks) == []
    assert f"unmasks {TOKEN}: in secret" in masks.cluster.log(since)


def test_each_value_of_a_query_is_accounted_for(masks):
    tokens = [siv_token(1, K1, f"10.0.0.{i}") for i in range(5)]
    since = masks.cluster.log_position()
    assert masks.sql("SELECT unmask(t, 'all of them') FROM unnest(%s::text[]) AS t", [tokens]) == [(f"10.0.0.{i}",) for i in range(5)]
    assert [row[3] for row in audit(masks)] == tokens
    assert masks.cluster.log(since).count("all of them") == 5


@pytest.mark.parametrize("reason", [None, "", " ", "\t\r\n"])
def test_unmask_without_a_reason_is_refused(masks, reason):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="needs a reason") as refusal:
        masks.sql("SELECT unmask(%s, %s)", [TOKEN, reason])
    assert "server log" in refusal.value.diag.message_hint
    assert VALUE not in str(refusal.value)
    assert audit(masks) == []


@pytest.mark.parametrize("reason", ["why not", None])
def test_no_token_is_no_value(masks, reason):
    assert masks.value("SELECT unmask(NULL, %s) IS NULL", [reason])
    assert audit(masks) == []


def test_unmask_needs_a_transaction_that_can_write(masks):
    with masks.connect() as session:
        session.execute("SET default_transaction_read_only = on")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="unmask"):
            session.execute("SELECT unmask(%s, 'test')", [TOKEN])
        session.execute("SELECT mask('x'), mask_rewrap(%s), mask_candidates('x')", [TOKEN])
        assert session.execute("SELECT id, state FROM mask_keys()").fetchall() == [(1, "new")]


def test_a_standby_masks_and_does_not_unmask(masks, make_cluster):
    standby = make_cluster.adopt(masks.cluster.standby()).start()
    with standby.connect(masks.name) as session:
        assert session.execute("SELECT mask('x'), mask_rewrap(%s)", [TOKEN]).fetchone() == (hmac_token(1, K1, "x"), TOKEN)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="unmask"):
            session.execute("SELECT unmask(%s, 'test')", [TOKEN])
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="sqs_ingest_create_keyring"):
            session.execute("SELECT sqs_ingest_create_keyring()")


def test_an_attempt_on_a_token_that_does_not_open_is_in_the_log(masks, role):
    masks.sql(f"GRANT EXECUTE ON FUNCTION unmask(text, text) TO {role}")
    since, forged = masks.cluster.log_position(), siv_token(1, K2, VALUE)
    with masks.connect(role) as session:
        for token, error in ((forged, psycopg.errors.InvalidParameterValue), (siv_token(3, K3, VALUE), psycopg.errors.UndefinedObject)):
            with pytest.raises(error):
                session.execute("SELECT unmask(%s, 'curious')", [token])
            assert f'role "{role}" (session role "{role}") tries in vain to unmask {token}: curious\n' in masks.cluster.log(since)
    assert audit(masks) == []


def test_unmask_needs_a_log_that_is_written(masks):
    with masks.connect() as session:
        session.execute("SET log_min_messages = fatal")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="needs the server log"):
            session.execute("SELECT unmask(%s, 'test')", [TOKEN])
        session.execute("SET log_min_messages = error")
        assert session.execute("SELECT unmask(%s, 'test')", [TOKEN]).fetchone() == (VALUE,)
    assert len(audit(masks)) == 1


def test_a_reason_is_no_novel(masks):
    assert masks.value("SELECT unmask(%s, repeat('x', 1000))", [TOKEN]) == VALUE
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="longer than 1000 bytes"):
        masks.sql("SELECT unmask(%s, repeat('x', 1001))", [TOKEN])


PASTED = "secret-personal-value-81"  # what somebody passes by mistake


NO_TOKENS = [
    PASTED, "", "sv1.", "sv1", f"sv1.{PASTED}", f"svx.{PASTED}", f"sv01.{TOKEN[4:]}", f"sv.{TOKEN[4:]}", f"SV1.{TOKEN[4:]}", f" {TOKEN}",
    f"{TOKEN} ", f"{TOKEN}==", TOKEN[:-1], TOKEN[:-2] + "AA", f"sv4294967296.{TOKEN[4:]}", f"sv2.{TOKEN[4:]}",
    hmac_token(1, K1, VALUE), f"hm1.{PASTED}",
]  # fmt: skip


@pytest.mark.parametrize("call", ["unmask(%s, 'test')", "mask_rewrap(%s)"])
def test_what_is_no_token_is_refused_without_repeating_it(masks, call):
    for token in NO_TOKENS:
        since = masks.cluster.log_position()
        with pytest.raises(psycopg.Error) as refusal:
            masks.sql(f"SELECT {call}", [token])
        error = refusal.value
        assert error.sqlstate == ("42704" if token.startswith("sv2.") else "22023"), token
        said = " ".join(filter(None, [error.diag.message_primary, error.diag.message_detail, error.diag.message_hint, error.diag.context]))
        # What has the form of a token is named in the log, as an attempt.
        log = "\n".join(line for line in masks.cluster.log(since).splitlines() if "tries in vain to unmask sv" not in line)
        assert "ERROR:" in log
        pieces = [token[i : i + 5] for i in range(3, len(token) - 4)]  # the first three can be a key's id
        assert [piece for piece in pieces if piece in said or piece in log] == []
    assert audit(masks) == []


# -- rights -----------------------------------------------------------------------------------------------------------

CALLS = {
    "mask(text)": "mask('x')",
    "mask(text, text)": "mask('x', 'siv')",
    "mask(inet)": "mask('1.2.3.4'::inet)",
    "mask_candidates(text)": "mask_candidates('x')",
    "mask_candidates(text, text)": "mask_candidates('x', 'siv')",
    "mask_candidates(inet)": "mask_candidates('1.2.3.4'::inet)",
    "mask_rewrap(text)": f"mask_rewrap('{TOKEN}')",
    "unmask(text, text)": f"unmask('{TOKEN}', 'test')",
    "mask_keys()": "mask_keys()",
}


@pytest.mark.parametrize("function", CALLS)
def test_what_touches_a_key_is_for_those_alone_whom_it_was_granted_to(masks, role, function):
    grants = ([], ["pg_monitor"], ["pg_monitor", "pg_read_all_data", "pg_write_all_data"])
    with masks.connect(role) as session:
        for grant in grants:
            for one in grant:
                masks.sql(f"GRANT {one} TO {role}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"):
                session.execute(f"SELECT {CALLS[function]}")
        masks.sql(f"REVOKE pg_monitor, pg_read_all_data, pg_write_all_data FROM {role}")
        masks.sql(f"GRANT EXECUTE ON FUNCTION {function} TO {role}")
        session.execute(f"SELECT {CALLS[function]}")
        for table in ("sqs_ingest_key", "sqs_ingest_unmask_audit"):  # the functions read and write it, the role does not
            for statement in (f"SELECT * FROM {table}", f"DELETE FROM {table}", f"INSERT INTO {table} DEFAULT VALUES"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(statement)
        for other in CALLS.keys() - {function}:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT {CALLS[other]}")


def test_a_granted_role_cannot_change_where_the_keys_and_the_audit_are_found(masks, role):
    """The functions name their tables by schema: a table of the same name before it in the search_path is not theirs."""
    masks.sql(f"GRANT EXECUTE ON FUNCTION unmask(text, text), mask(text) TO {role}")
    masks.sql("INSERT INTO sqs_ingest_key (id, fingerprint) VALUES (1, 'somebody else''s')")
    with masks.connect(role) as session:
        session.execute("CREATE TEMP TABLE sqs_ingest_key (id bigint, fingerprint text, recorded_at timestamptz)")
        session.execute("CREATE TEMP TABLE sqs_ingest_unmask_audit (token text, reason text)")
        session.execute("SET search_path = pg_temp, public, pg_catalog")
        with pytest.raises(psycopg.Error, match="not the key that this database was used with"):
            session.execute("SELECT public.mask('x')")
        masks.sql("DELETE FROM sqs_ingest_key")
        assert session.execute("SELECT public.unmask(%s, 'test')", [TOKEN]).fetchone() == (VALUE,)
    assert audit(masks) == [(role, role, None, TOKEN, "test")]


# -- plans and encodings ----------------------------------------------------------------------------------------------


def test_a_parallel_query_masks_as_any_other(masks):
    masks.sql("CREATE TABLE big AS SELECT '10.0.' || i / 256 || '.' || i %% 256 AS ip FROM generate_series(1, 2000) AS i", [])
    masks.sql("ANALYZE big")
    query = "SELECT ip, mask(ip), mask(ip, 'siv'), (mask_candidates(ip))[1], mask_rewrap(mask(ip, 'siv')) FROM big WHERE length(ip) > 7"
    alone = sorted(masks.sql(query))
    with masks.connect() as session:
        force = "debug_parallel_query" if session.info.server_version >= 160000 else "force_parallel_mode"
        session.execute(f"SET {force} = on")
        session.execute("SET parallel_setup_cost = 0")
        session.execute("SET parallel_tuple_cost = 0")
        session.execute("SET min_parallel_table_scan_size = 0")
        plan = "\n".join(line for (line,) in session.execute("EXPLAIN ANALYZE " + query))
        assert "Gather" in plan and re.search(r"Workers Launched: [1-9]", plan)
        assert sorted(session.execute(query).fetchall()) == alone
        # A condition that masks stays in the leader.
        found = session.execute("SELECT ip FROM big WHERE mask(ip) = %s", [hmac_token(1, K1, "10.0.0.7")]).fetchall()
    assert found == [("10.0.0.7",)]
    assert alone[0] == (ip := alone[0][0], hmac_token(1, K1, ip), siv_token(1, K1, ip), hmac_token(1, K1, ip), siv_token(1, K1, ip))


@pytest.fixture
def latin1(cluster, keyring):
    database = Database(cluster, cluster.create_database(template="template0", encoding="LATIN1", locale="C"))
    database.sql("CREATE EXTENSION sqs_ingest")
    yield database
    database.close()
    cluster.drop_database(database.name)


def test_a_latin1_database_masks_the_utf8_bytes(latin1):
    assert latin1.value("SHOW server_encoding") == "LATIN1"
    assert latin1.value("SELECT octet_length('Zoë')") == 3
    assert latin1.value("SELECT mask('Zoë')") == hmac_token(1, K1, "Zoë")
    assert latin1.value("SELECT mask('Zoë', 'siv')") == siv_token(1, K1, "Zoë")
    assert latin1.value("SELECT mask_candidates('Zoë')") == [hmac_token(1, K1, "Zoë")]
    assert latin1.value("SELECT mask('Zoë', 'sha256') = encode(sha256('\\x5a6fc3ab'), 'hex')")
    assert latin1.value("SELECT mask(repeat('ë', 1000))") == hmac_token(1, K1, "ë" * 1000)


def test_a_latin1_database_unmasks_into_its_own_encoding(latin1):
    token = siv_token(1, K1, "Zoë")
    assert latin1.value("SELECT unmask(%s, 'Müller asks')", [token]) == "Zoë"
    assert latin1.value("SELECT octet_length(unmask(%s, 'test'))", [token]) == 3
    assert latin1.value("SELECT mask_rewrap(%s)", [token]) == token
    assert [row[4] for row in audit(latin1)] == ["Müller asks", "test"]


def test_a_value_that_a_latin1_database_cannot_write_is_a_clear_error(latin1):
    token = siv_token(1, K1, "secret-personal €")
    since = latin1.cluster.log_position()
    with pytest.raises(psycopg.errors.UntranslatableCharacter, match='no equivalent in encoding "LATIN1"'):
        latin1.sql("SELECT unmask(%s, 'test')", [token])
    assert "secret-personal" not in latin1.cluster.log(since) and "0xe2" not in latin1.cluster.log(since)
    # The value was shown to nobody, yet it was asked for.
    assert f"unmasks {token}: test" in latin1.cluster.log(since)
    assert latin1.value("SELECT mask_rewrap(%s)", [token]) == token


def test_a_database_without_an_encoding_masks_what_is_utf8(cluster, keyring):
    db = Database(cluster, cluster.create_database(template="template0", encoding="SQL_ASCII", locale="C"))
    db.sql("CREATE EXTENSION sqs_ingest")
    with db.connect(client_encoding="UTF8") as session:
        zoe = "convert_from('\\x5a6fc3ab', 'SQL_ASCII')"
        assert session.execute(f"SELECT unmask(%s, 'test') = {zoe}", [siv_token(1, K1, "Zoë")]).fetchone() == (True,)
        assert session.execute(f"SELECT mask({zoe}) = %s", [hmac_token(1, K1, "Zoë")]).fetchone() == (True,)
        with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
            session.execute("SELECT mask(convert_from('\\x5a6feb', 'SQL_ASCII'))")
    db.close()
    cluster.drop_database(db.name)


# -- pipelines of method siv ------------------------------------------------------------------------------------------


def test_a_pipeline_of_method_siv_writes_reversible_tokens(make_pipeline, queue, keyring):
    pipeline = make_pipeline(queue, {"sqs_ingest.mask_method": "siv"})
    pipeline.start()
    messages = [login_message(1, ip="1.2.3.4"), login_message(2, ip="::ffff:1.2.3.4"), login_message(3, ip="2001:DB8::0:1"),
                login_message(4, ip="Zoë", device_id="1.2.3.4")]  # fmt: skip
    queue.send([*messages, login_message(5, device_id=...)])
    pipeline.wait_until_ingested(5)
    rows = pipeline.rows("masked_ip, masked_device_id")
    assert [row["masked_ip"] for row in rows] == [siv_token(1, K1, ip) for ip in ("1.2.3.4", "1.2.3.4", "2001:db8::1", "Zoë")]
    assert rows[3]["masked_device_id"] == rows[0]["masked_ip"]  # equal values, equal tokens, in whatever column
    assert pipeline.db.value("SELECT mask('1.2.3.4'::inet)") == rows[0]["masked_ip"]
    look_up = "SELECT unmask(masked_ip, 'test') FROM user_logins WHERE masked_device_id = (SELECT mask('1.2.3.4'))"
    assert pipeline.db.sql(look_up) == [("Zoë",)]
    (letter,) = pipeline.dead_letters()
    assert letter["redacted"]["fields"]["/ip"]["token"] == hmac_token(1, K1, login_message(5)["ip"])  # never reversible


def test_a_token_longer_than_its_column_is_a_dead_letter(make_pipeline, queue, keyring):
    pipeline = make_pipeline(queue, {"sqs_ingest.mask_method": "siv"})
    fits = siv_token(1, K1, "1.2.3.45")
    pipeline.db.sql(
        f"CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip varchar({len(fits)}),"
        " masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)"
    )
    pipeline.start()
    queue.send([login_message(1, ip="1.2.3.45"), login_message(2, ip="1.2.3.456"), login_message(3, ip="100.200.30.40")])
    pipeline.wait_until_ingested(3)
    assert [row["masked_ip"] for row in pipeline.rows()] == [fits]
    assert [(letter["reason"], letter["field"]) for letter in pipeline.dead_letters()] == [("too_long", "ip")] * 2


# -- leaks ------------------------------------------------------------------------------------------------------------

# Values that occur nowhere by chance.
SECRETS = [f"plain-value-5e9c{i}d" for i in range(10, 21)]
MASKED, UNMASKED, CANDIDATE, REWRAPPED, REDRIVEN, REDRIVEN_DEVICE, PREVIEWED, REJECTED, CLOSED, BAD_TOKEN, METHOD = SECRETS


class Watched:
    """A session of its own cluster, whose settings are the default ones, and what another one saw of it meanwhile."""

    def __init__(self, moto):
        self.queue = moto.queue()
        self.cluster = Cluster({**self.queue.settings, "wal_keep_size": "1GB"})
        self.keyring = KeyringFile(self.cluster).keys({1: K3})
        self.cluster.start()
        self.db = Database(self.cluster, self.cluster.create_database())
        self.seen = []
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=[done])
        watcher.start()
        try:
            self._use_everything()
        finally:
            done.set()
            watcher.join()
        self.db.sql("CHECKPOINT")
        self.db.sql("SELECT pg_switch_wal()")
        self.db.sql("CHECKPOINT")

    def _watch(self, done):
        with self.cluster.connect() as connection:
            while not done.is_set():
                self.seen += connection.execute("SELECT backend_type, query, wait_event FROM pg_stat_activity").fetchall()

    def run(self, query, *parameters):
        with self.db.connect() as session:
            return session.execute(query, parameters).fetchall()

    def fails(self, query, *parameters):
        with self.db.connect() as session, pytest.raises(psycopg.Error) as error:
            session.execute(query, parameters)
        assert found_in(str(error.value).encode(), SECRETS) == []

    def _use_everything(self):
        db = self.db
        db.sql("CREATE EXTENSION sqs_ingest")
        make_pipeline_without_workers(Pipeline(db, self.queue))
        self.run("SELECT mask(%s::text), mask(%s::text, 'siv'), mask(%s::text, 'sha256')", MASKED, MASKED, MASKED)
        token = self.run("SELECT mask(%s::text, 'siv')", UNMASKED)[0][0]
        assert self.run("SELECT unmask(%s, 'test')", token) == [(UNMASKED,)]
        self.run("SELECT mask_candidates(%s::text), mask_candidates(%s::text, 'siv')", CANDIDATE, CANDIDATE)
        db.sql("CREATE TABLE kept (token text)")
        with db.connect() as session:
            session.execute("INSERT INTO kept VALUES (mask(%s::text, 'siv'))", [REWRAPPED])
        # Dead letters that cannot be opened, that are redriven in vain and with success, and that are forgotten.
        self.queue.send([login_message(1, ip=REDRIVEN, device_id=REDRIVEN_DEVICE, user_id=...)])
        db.sql("CALL sqs_ingest_drain()")
        self.queue.send([login_message(2, ip=CLOSED, device_id=CLOSED, user_id=...)])
        db.sql("CALL sqs_ingest_drain()")
        first, second = [id for (id,) in db.sql("SELECT id FROM sqs_ingest_dead_letter ORDER BY id")]
        self.keyring.keys({2: K2})
        self.run("SELECT sqs_ingest_redrive()")  # a WARNING
        assert self.run("SELECT sqs_ingest_forget(%s)", "nobody, really")[0][0]["not_opened"] == 2
        self.keyring.keys({1: K3, 2: K2})
        db.sql("UPDATE kept SET token = mask_rewrap(token)")
        assert self.run("SELECT left(token, 4) FROM kept") == [("sv2.",)]
        assert self.run("SELECT sqs_ingest_redrive()") == [(0,)]
        db.sql("UPDATE sqs_ingest_pipeline SET columns = jsonb_set(columns, '{0}', (columns -> 0) - 'required')")
        assert self.run("SELECT sqs_ingest_redrive(ids => %s)", [first]) == [(1,)]
        assert self.run("SELECT count(*) FROM sqs_ingest_dead_letter WHERE id = %s", second) == [(1,)]
        self.run("SELECT sqs_ingest_forget(%s)", CLOSED)
        body = '{"user_id": "u", "ip": "%s", "device_id": "%s"}'
        assert "row" in self.run("SELECT sqs_ingest_preview('user_logins', %s)", body % (PREVIEWED, PREVIEWED))[0][0]
        for bad in (f'{{"ip": "{REJECTED}"}}', f'{{"ip": "{REJECTED}", "{REJECTED}": 1', REJECTED):
            assert "rejected" in self.run("SELECT sqs_ingest_preview('user_logins', %s)", bad)[0][0]
        self.fails("SELECT unmask(%s, 'test')", BAD_TOKEN)
        self.fails("SELECT mask_rewrap(%s)", "sv1." + BAD_TOKEN)
        self.fails("SELECT mask(%s::text, 'rot13')", METHOD)
        self.fails("SELECT mask_candidates(%s::text, '')", METHOD)
        self.fails("SELECT sqs_ingest_preview('nothing', %s)", REJECTED)
        self.fails("SELECT sqs_ingest_redrive('nothing', %s)", METHOD)
        self.fails("SELECT sqs_ingest_forget(%s, 'nothing')", METHOD)

    def files(self):
        for path in self.cluster.data.rglob("*"):
            if path.is_file() and not path.name.startswith("sqs_ingest.keyring"):
                try:
                    yield str(path.relative_to(self.cluster.data)), path.read_bytes()
                except FileNotFoundError:
                    pass  # a temporary one, gone meanwhile

    def close(self):
        self.db.close()
        self.cluster.destroy()
        self.queue.delete()


@pytest.fixture(scope="module")
def watched(moto):
    watched = Watched(moto)
    yield watched
    watched.close()


KEYS = [K2, K3, *(subkey(key, info, size) for key in (K2, K3) for info, size in ((b"hmac", 32), (b"siv", 64), (b"seal", 32)))]


def test_bound_values_and_keys_are_not_in_the_log(watched):
    log = watched.cluster.log()
    assert "unmasks sv1." in log and "unknown masking method" in log and "no token of method siv" in log
    assert found_in(log.encode(), SECRETS + KEYS) == []


def test_bound_values_and_keys_are_not_in_pg_stat_activity(watched):
    seen = repr(watched.seen)
    assert "unmask($1" in seen or "sqs_ingest_redrive" in seen
    assert found_in(seen.encode(), SECRETS + KEYS) == []


def test_bound_values_and_keys_are_in_no_file_of_the_data_directory(watched):
    assert {name: found for name, data in watched.files() if (found := found_in(data, SECRETS + KEYS))} == {}


def test_the_search_would_find_what_is_there(watched):
    token = siv_token(1, K3, UNMASKED).encode()
    assert {name.split("/")[0] for name, data in watched.files() if token in data} >= {"base", "pg_wal"}


def regions(pid):
    """The readable memory of a process: beginning, end, and the flags of smaps ("dd": left out of core dumps)."""
    with open(f"/proc/{pid}/smaps") as smaps:
        for line in smaps:
            if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) (r?)", line):
                place = int(found[1], 16), int(found[2], 16), found[3]
            elif line.startswith("VmFlags:") and place[2]:
                yield place[0], place[1], line.split()[1:]


def found_in_memory(cluster, pid, secrets):
    """Names of the secrets that are in the memory of one of the server's processes, each with whether core dumps leave it out."""
    assert pid in cluster.pids("")
    found = set()
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for begin, end, flags in regions(pid):
            try:
                memory.seek(begin)
                data = memory.read(end - begin)
            except (OSError, ValueError):
                continue  # the kernel's own pages
            found |= {(name, "dd" in flags) for name, secret in secrets.items() if secret in data}
    return found


def secrets_of(key):
    parts = {"hmac": subkey(key, b"hmac", 32), "seal": subkey(key, b"seal", 32), "siv": subkey(key, b"siv", 64)[:32]}
    return {"the key": key, "its digits": key.hex().encode(), "siv, second half": subkey(key, b"siv", 64)[32:], **parts}


def test_subkeys_are_in_memory_that_core_dumps_leave_out_and_the_key_is_nowhere(make_pipeline, queue, keyring):
    pipeline = make_pipeline(queue)
    cluster = pipeline.cluster
    keyring.keys({1: K1, 2: K3})
    expected = {(name, True) for name in ("hmac", "seal", "siv", "siv, second half")}
    with pipeline.db.connect() as session:
        pid = session.info.backend_pid
        try:
            assert found_in_memory(cluster, pid, secrets_of(K3)) == set()
        except PermissionError:
            pytest.skip("the memory of other processes cannot be read here")
        session.execute("SELECT mask('x'), unmask(mask('x', 'siv'), 'test'), mask_candidates('x')")
        session.execute("SELECT mask(i::text), mask_rewrap(mask(i::text, 'siv')) FROM generate_series(1, 100) AS i")
        assert found_in_memory(cluster, pid, secrets_of(K3)) == expected
        keyring.keys({2: K2})
        session.execute("SELECT mask('x'), mask('x', 'siv')")
        assert found_in_memory(cluster, pid, secrets_of(K3)) == set()
    keyring.keys({1: K1, 2: K3})
    pipeline.start()
    queue.send([login_message(1), login_message(2, device_id=...)])
    pipeline.wait_until_ingested(2)
    (worker,) = cluster.pids("sqs_ingest worker")
    assert found_in_memory(cluster, worker, secrets_of(K3)) == expected
