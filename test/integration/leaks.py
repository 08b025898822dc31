"""Looking for plain values where they must not be: in a server's log at its most talkative, and in the files of its data directory."""
import base64

# As much as a server can be made to say.
TALKATIVE = {
    "log_min_messages": "debug1",
    "log_min_error_statement": "debug5",
    "log_error_verbosity": "verbose",
    "log_statement": "all",
    "log_min_duration_statement": 0,
    "log_duration": True,
    "log_connections": True,
    "log_parameter_max_length": -1,
    "log_parameter_max_length_on_error": -1,
    "log_lock_waits": True,
    "track_activity_query_size": "64kB",
    "auto_explain.log_min_duration": 0,
    "auto_explain.log_nested_statements": True,
    "auto_explain.log_analyze": True,
    "auto_explain.log_verbose": True,
    "auto_explain.log_triggers": True,
    "auto_explain.log_parameter_max_length": -1,
    "auto_explain.log_level": "log",
    "plan_cache_mode": "force_custom_plan",
    "wal_keep_size": "1GB",
}


def spellings(secret):
    """A text as it stands, and as somebody would carry it on without noticing."""
    raw = secret if isinstance(secret, bytes) else secret.encode()
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for cut in range(3):  # base64 depends on where the text begins
        yield base64.b64encode(b"\0" * cut + raw)[4 if cut else 0 : -4]


def found_in(data, secrets):
    return [secret for secret in secrets if any(one in data for one in spellings(secret))]


def files_of(cluster):
    """All files of the data directory but the keyring itself, each with its content, what is in memory written out before."""
    with cluster.connect() as session:
        for statement in ("CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT"):
            session.execute(statement)
    for path in cluster.data.rglob("*"):
        if path.is_file() and path.name != "sqs_ingest.keyring":
            try:
                yield path, path.read_bytes()
            except FileNotFoundError:
                pass  # a temporary one, gone meanwhile
