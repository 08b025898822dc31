"""Hostile bodies: each that cannot become a row gives one dead letter with its reason and field, and costs no other."""
import hashlib
import json

import psycopg
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from harness import Database, login_message, wait_until
from pipeline import Pipeline, assert_counters_add_up, make_pipeline_fixture, pipeline_fixture, stop_soon  # noqa: F401
from proxy import Proxy, altered_messages

GOOD = json.dumps(login_message(1))
MIB = 1 << 20


def body(**changes):
    return json.dumps(login_message(1, **changes))


def raw(name, json_text):
    """A login message in which one field's value is written as it stands."""
    return body(**{name: "@@"}).replace('"@@"', json_text)


def nested(levels):
    return "[" * levels + "]" * levels


# name: (body, reason, field); the last two None: it becomes a row.
# Bodies that no server takes (send_message refuses them) are put into the answer on its way: see SMUGGLED.
BODIES = {
    # not a message
    "not JSON": ("hello", "not_json", None),
    "empty object": ("{}", "missing_field", "user_id"),
    "rogue message": ('{"foo": "oops_wrong_msg_type", "bar": "123"}', "missing_field", "user_id"),
    "array": ("[]", "not_object", None),
    "array of messages": (f"[{GOOD}]", "not_object", None),
    "string": ('"hello"', "not_object", None),
    "number": ("42", "not_object", None),
    "null": ("null", "not_object", None),
    "cut off": (GOOD[:-1], "not_json", None),
    "two objects": (GOOD + GOOD, "not_json", None),
    "something behind": (GOOD + " x", "not_json", None),
    "single quotes": (GOOD.replace('"', "'"), "not_json", None),
    "comment": (GOOD.replace("{", "{ /* hi */ ", 1), "not_json", None),
    "trailing comma": (GOOD.replace("}", ",}"), "not_json", None),
    "NaN": (raw("app_version", "NaN"), "not_json", None),
    "line break in a string": (raw("locale", '"R\nU"'), "not_json", None),
    "bad escape": (raw("locale", r'"\x41"'), "not_json", None),
    "XML": ("<message><user_id>1</user_id></message>", "not_json", None),
    "base64 of JSON": ("eyJ1c2VyX2lkIjogIjEifQ==", "not_json", None),
    "spaces only": ("   \n\t ", "not_json", None),
    # keys
    "duplicate key": (raw("locale", '"RU", "ip": "10.0.0.2"'), "duplicate_key", None),
    "duplicate key, spelt differently": (raw("locale", r'"RU", "\u0069p": "10.0.0.2"'), "duplicate_key", None),
    "duplicate key, deep inside": (raw("extra", '[{"a": 1, "a": 1}]'), "duplicate_key", None),
    "key in another case": (body(IP="10.0.0.2"), None, None),
    "key with NUL": (raw("extra", r'1, "user_id\u0000": "x"'), None, None),
    # required fields
    **{f"{name} {what}": (body(**{name: value}), reason, name)
       for name in ("user_id", "ip", "device_id")
       for what, value, reason in (("missing", ..., "missing_field"), ("null", None, "missing_field"), ("empty", "", "empty_field"))},
    # characters
    **{f"NUL in {name}": (raw(name, r'"a\u0000b"'), "nul_character", name)
       for name in ("user_id", "device_type", "ip", "device_id", "locale")},
    "NUL alone": (raw("ip", r'"\u0000"'), "nul_character", "ip"),
    "NUL in a field that nobody reads": (raw("extra", r'"\u0000"'), None, None),
    "high surrogate alone": (raw("locale", r'"\ud800"'), "invalid_utf8", None),
    "low surrogate alone": (raw("user_id", r'"a\udc00b"'), "invalid_utf8", None),
    "surrogates the wrong way round": (raw("user_id", r'"\udc00\ud800"'), "invalid_utf8", None),
    "lone surrogate that nobody reads": (raw("extra", r'"\udbff"'), "invalid_utf8", None),
    "surrogate pair": (raw("user_id", r'"\ud83d\ude00"'), None, None),
    "four-byte character": (json.dumps(login_message(1, user_id="😀"), ensure_ascii=False), None, None),
    # depth
    "deep": (raw("extra", nested(64)), "too_deep", None),
    "very deep": (raw("extra", nested(100_000)), "too_deep", None),
    "deep, never closed": ("[" * 200_000, "too_deep", None),
    "deep objects": ('{"a":' * 10_000 + "1" + "}" * 10_000, "too_deep", None),
    "as deep as allowed": (raw("extra", nested(63)), None, None),
    # numbers
    "number beyond a double": (raw("app_version", "1e999"), "number_out_of_range", None),
    "number beyond a double that nobody reads": (raw("extra", "-1e999"), "number_out_of_range", None),
    "user_id beyond 64 bits": (raw("user_id", "123456789012345678901234567890"), None, None),
    "ip beyond 64 bits": (raw("ip", "123456789012345678901234567890"), None, None),
    "user_id of 64 bits": (raw("user_id", "18446744073709551615"), None, None),
    "version beyond 32 bits": (body(app_version="2147483648"), "bad_version", "app_version"),
    "version with many digits": (body(app_version="1." * 5000 + "1"), "bad_version", "app_version"),
    "version beyond 64 bits": (raw("app_version", "99999999999999999999"), "bad_version", "app_version"),
    "negative version": (body(app_version=-1), "bad_version", "app_version"),
    # types
    **{f"{name} is {what}": (body(**{name: value}), "wrong_type", name)
       for name in ("user_id", "ip", "device_id", "device_type", "locale", "app_version", "create_date")
       for what, value in (("an object", {"a": "10.0.0.3"}), ("an array", ["10.0.0.3"]))},
    "ip is true": (body(ip=True), "wrong_type", "ip"),
    "device_id is false": (body(device_id=False), "wrong_type", "device_id"),
    "app_version is true": (body(app_version=True), "wrong_type", "app_version"),
    "create_date is a number": (body(create_date=20240101), "wrong_type", "create_date"),
    "device_type is a number": (body(device_type=5), None, None),
    "ip is a number": (body(ip=167772161), None, None),
    # versions and dates
    **{f"version {text!r}": (body(app_version=text), "bad_version", "app_version")
       for text in ("two", "", ".", "1.", ".1", "1..2", "v2.3.0", "2.3.0-beta", " 2.3", "٢.٣", "-1", "+1", "1e3", "0x10", "1,2")},
    **{f"date {text!r}": (body(create_date=text), "bad_date", "create_date")
       for text in ("yesterday", "2024-02-30", "2023-02-29", "24-01-01", "2024-1-1", "infinity", "now", "2024-13-01", "0000-01-01",
                    "2024-01-01T25:00:00Z", "10000-01-01", "2024-01-01; DROP TABLE user_logins")},
    "date ''": (body(create_date=""), "bad_date", "create_date"),
    "leap day": (body(create_date="2024-02-29"), None, None),
    # lengths
    "user_id of 128 characters": (json.dumps(login_message(1, user_id="ж" * 128), ensure_ascii=False), None, None),
    "user_id of 129 characters": (body(user_id="u" * 129), "too_long", "user_id"),
    "locale of 33 characters": (body(locale="ж" * 33), "too_long", "locale"),
    "device_type of 33 characters": (body(device_type="d" * 33), "too_long", "device_type"),
    "user_id with spaces beyond its length": (body(user_id="u" * 128 + " "), "too_long", "user_id"),
    "very long ip and device_id": (body(ip="1" * 50_000, device_id="2" * 50_000), None, None),
    "1 MiB, all padding": (body(padding="p" * (MIB - len(body(padding="")))), None, None),
    "1 MiB of user_id": (body(user_id="u" * (MIB - len(body(user_id="")))), "too_long", "user_id"),
    "1 MiB of no JSON": ("x" * MIB, "not_json", None),
    "many keys": (json.dumps({**login_message(1), **{f"key{i}": i for i in range(20_000)}}), None, None),
    "1 MiB of array": (body(extra=[0] * 300_000), None, None),
}  # fmt: skip

# Put into the answer in place of "smuggle <name>"; surrogates dc80 … dcff stand for the raw bytes 80 … ff.
SMUGGLED = {
    "invalid UTF-8 in a field": (body(user_id="@@").replace("@@", "caf\udce9"), "invalid_utf8", None),
    "invalid UTF-8 that nobody reads": (body(extra="@@").replace("@@", "\udcff\udcfe"), "invalid_utf8", None),
    "half of a character": (body(locale="@@").replace("@@", "\udce2\udc82"), "invalid_utf8", None),
    "overlong slash": (body(locale="@@").replace("@@", "\udcc0\udcaf"), "invalid_utf8", None),
    "surrogate in UTF-8": (body(locale="@@").replace("@@", "\udced\udca0\udc80"), "invalid_utf8", None),
    "beyond Unicode": (body(locale="@@").replace("@@", "\udcf4\udc90\udc80\udc80"), "invalid_utf8", None),
    "bytes only": ("\udc80\udc81\udc82", "invalid_utf8", None),
    "empty body": ("", "not_json", None),
    "raw NUL": (GOOD + "\0", "not_json", None),
    "raw NUL in a string": (body(user_id="@@").replace("@@", "a\0b"), "not_json", None),
}
LONE_SURROGATE = "lone surrogate in the server's own answer"
PREFIX = "smuggle "
ALL = {**BODIES, **SMUGGLED, LONE_SURROGATE: (None, "invalid_utf8", None)}
REFUSED = [name for name, (_, reason, _) in ALL.items() if reason]
TAKEN = [name for name, (_, reason, _) in ALL.items() if not reason]


def smuggle(messages):
    for message in messages:
        if message["Body"].startswith(PREFIX):
            message["Body"] = SMUGGLED[message["Body"].removeprefix(PREFIX)][0]


def smuggle_surrogate(messages):
    for message in messages:
        if message["Body"] == LONE_SURROGATE:
            message["Body"] = body(user_id="@@").replace("@@", "a\ud800b")


def hook(request, forward):
    """Raw bytes can only be written unescaped, a lone surrogate only escaped: never both in one answer."""
    got = forward()
    escaped = LONE_SURROGATE.encode() in got.body
    return altered_messages(smuggle_surrogate if escaped else smuggle, raw_bytes=not escaped)(request, lambda: got)


class Ingested:
    """All bodies sent, each beside good messages, and ingested: message ids by name, dead letters by message id."""

    def __init__(self, cluster, moto):
        self.proxy = Proxy(moto)
        self.queue = moto.queue()
        self.db = Database(cluster, cluster.create_database())
        self.db.sql("CREATE EXTENSION sqs_ingest")
        self.pipeline = Pipeline(self.db, self.queue).configure({"sqs_ingest.endpoint_url": self.proxy.endpoint})
        self.proxy.on("ReceiveMessage", hook)
        self.bodies = {name: text for name, (text, _, _) in BODIES.items()}
        self.bodies.update({name: PREFIX + name for name in SMUGGLED})
        self.ids, self.good = {}, []
        for i, (name, text) in enumerate(self.bodies.items()):
            # One call each: a batch may not be larger than one message.
            self.ids[name] = self.queue.send([text])[0]
            if i % 3 == 0:
                self.good += self.queue.send([login_message(1000 + i)])
        self.pipeline.start()
        self.pipeline.wait_until_ingested(len(self.ids) + len(self.good), timeout=60)
        # A batch of its own, since the others hold raw bytes.
        self.ids[LONE_SURROGATE], *more = self.queue.send([LONE_SURROGATE, login_message(5000)])
        self.good += more
        self.stat = self.pipeline.wait_until_ingested(len(self.ids) + len(self.good), timeout=30)
        self.letters = {}
        for letter in self.pipeline.dead_letters():
            self.letters.setdefault(letter["message_id"], []).append(letter)
        self.queue_was_empty = self.queue.is_empty()
        stop_soon(self.pipeline)  # its queue is that of the settings, which are the next test's

    def letter(self, name):
        (letter,) = self.letters[self.ids[name]]
        return letter

    def close(self):
        self.db.close()
        self.db.cluster.drop_database(self.db.name)
        self.queue.delete()
        self.proxy.close()


@pytest.fixture(scope="module")
def ingested(cluster, moto):
    ingested = Ingested(cluster, moto)
    yield ingested
    ingested.close()


def test_every_body_is_a_row_or_a_dead_letter_and_the_queue_is_empty(ingested):
    stat = ingested.stat
    assert stat["dead_letters"] == len(REFUSED)
    assert stat["inserted"] == len(TAKEN) + len(ingested.good)
    assert_counters_add_up(stat)
    assert ingested.queue_was_empty
    assert ingested.db.value("SELECT count(*) FROM user_logins") == stat["inserted"]
    assert stat["delete_failures"] == stat["receive_errors"] == 0


@pytest.mark.parametrize("name", REFUSED)
def test_body_is_refused_with_its_reason_and_field(ingested, name):
    letter = ingested.letter(name)
    _, reason, field = ALL[name]
    assert (letter["reason"], letter["field"]) == (reason, field)
    assert (letter["sqlstate"], letter["constraint_name"]) == (None, None)
    assert letter["receive_count"] == 1
    assert letter["sent_at"] is not None


@pytest.mark.parametrize("name", TAKEN)
def test_body_becomes_a_row(ingested, name):
    assert ingested.ids[name] not in ingested.letters


def test_good_messages_beside_bad_ones_are_inserted(ingested):
    wanted = {login_message(1000 + i)["user_id"] for i in range(0, len(ingested.bodies), 3)} | {login_message(5000)["user_id"]}
    assert wanted <= {row["user_id"] for row in ingested.pipeline.rows("user_id")}
    assert not set(ingested.good) & set(ingested.letters)


def test_values_are_kept_as_they_were_sent(ingested):
    users = {row["user_id"] for row in ingested.pipeline.rows("user_id")}
    assert {"😀", "ж" * 128, "18446744073709551615"} <= users


# -- what a dead letter shows, and what it keeps ----------------------------------------------------------------------


def sent_text(name):
    return ALL[name][0].encode("utf-8", "surrogateescape")


def test_redacted_has_shapes_and_tokens_and_no_values(ingested):
    redacted = ingested.letter("user_id of 129 characters")["redacted"]
    assert redacted["bytes"] == len(sent_text("user_id of 129 characters"))
    assert redacted["other_keys"] == 0
    fields = redacted["fields"]
    assert set(fields) == {"/user_id", "/app_version", "/device_type", "/ip", "/locale", "/device_id"}
    for pointer, shape in fields.items():
        value = login_message(1, user_id="u" * 129)[pointer[1:]]
        assert shape == {"type": "string", "length": len(value), "token": ingested.db.value("SELECT mask(%s)", [value])}


def test_redacted_of_objects_and_numbers_shows_only_their_type(ingested):
    assert ingested.letter("ip is an object")["redacted"]["fields"]["/ip"] == {"type": "object"}
    assert ingested.letter("create_date is a number")["redacted"]["fields"]["/create_date"] == {"type": "number"}


def test_redacted_counts_other_keys_without_naming_them(ingested):
    redacted = ingested.letter("rogue message")["redacted"]
    assert redacted == {"bytes": len(sent_text("rogue message")), "fields": {}, "other_keys": 2}


@pytest.mark.parametrize("name", ["not JSON", "1 MiB of user_id", "1 MiB of no JSON", "duplicate key", "deep"])
def test_redacted_of_what_cannot_be_read_or_is_large_is_only_its_length(ingested, name):
    assert ingested.letter(name)["redacted"] == {"bytes": len(sent_text(name))}


def test_sealed_is_not_the_body_and_differs_each_time(ingested):
    sealed = [letter["sealed"] for (letter,) in ingested.letters.values()]
    assert len(set(sealed)) == len(sealed)
    for name in REFUSED:
        if name not in (*SMUGGLED, LONE_SURROGATE):
            sealed = bytes(ingested.letter(name)["sealed"])
            assert len(sealed) == 1 + 4 + 12 + len(sent_text(name)) + 16
            assert sent_text(name) not in sealed or len(sent_text(name)) < 3


def unseal(cluster, letter):
    key_id, master = (cluster.data / "sqs_ingest.keyring").read_text().splitlines()[-1].split()
    key = HKDF(SHA256(), 32, None, b"sqs_ingest/v1/seal").derive(bytes.fromhex(master))
    sealed = bytes(letter["sealed"])
    assert sealed[:5] == b"\x01" + int(key_id).to_bytes(4, "big")
    return AESGCM(key).decrypt(sealed[5:17], sealed[17:], sealed[:5] + letter["message_id"].encode())


@pytest.mark.parametrize("name", ["rogue message", "not JSON", "1 MiB of user_id", "duplicate key", "NUL in ip"])
def test_sealed_original_opens_with_the_keyring(ingested, name):
    assert unseal(ingested.db.cluster, ingested.letter(name)) == sent_text(name)


# -- tables that are narrower than the masks --------------------------------------------------------------------------


def make_table(pipeline, masked_ip):
    pipeline.db.sql(
        f"CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip {masked_ip},"
        " masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)"
    )


def test_table_that_no_token_fits_is_refused_at_the_start(pipeline):
    make_table(pipeline, "varchar(67)")
    with pytest.raises(psycopg.errors.DatatypeMismatch, match='"masked_ip".* at least 68 characters, but the column holds 67') as refused:
        pipeline.start()
    assert refused.value.diag.message_hint


def test_token_longer_than_its_column_is_refused_and_never_cut(queue, make_pipeline):
    """Tokens of method siv are as long as their values: one fits, the other does not."""
    pipeline = make_pipeline(queue, {"sqs_ingest.mask_method": "siv"})
    make_table(pipeline, "varchar(40)")
    pipeline.queue.send([login_message(1, ip="10.0.0.1"), login_message(2, ip="199.172.111.135")])
    pipeline.start()
    pipeline.wait_until_ingested(2)
    assert pipeline.db.sql("SELECT user_id, unmask(masked_ip, 'test') FROM user_logins") == [(login_message(1)["user_id"], "10.0.0.1")]
    assert [(letter["reason"], letter["field"]) for letter in pipeline.dead_letters()] == [("too_long", "ip")]


def test_token_that_fits_exactly_is_taken(queue, make_pipeline):
    pipeline = make_pipeline(queue, {"sqs_ingest.mask_method": "sha256:10"})
    make_table(pipeline, "varchar(10)")
    pipeline.queue.send([login_message(1)])
    pipeline.start()
    pipeline.wait_until_ingested(1)
    assert pipeline.rows("user_id, masked_ip")[0]["masked_ip"] == hashlib.sha256(b"10.0.0.1").hexdigest()[:10]


def test_narrow_integer_refuses_what_does_not_fit(pipeline):
    make_table(pipeline, "text")
    pipeline.db.sql("ALTER TABLE user_logins ALTER app_version TYPE smallint")
    pipeline.queue.send([login_message(1, app_version="32768"), login_message(2, app_version="32767")])
    pipeline.start()
    stat = pipeline.wait_until_ingested(2)
    assert (stat["inserted"], stat["dead_letters"]) == (1, 1)
    (letter,) = pipeline.dead_letters()
    assert (letter["reason"], letter["field"]) == ("number_out_of_range", "app_version")


def test_row_that_a_constraint_refuses_is_named_and_costs_only_itself(pipeline):
    make_table(pipeline, "text")
    pipeline.db.sql("ALTER TABLE user_logins ADD CONSTRAINT no_xx CHECK (locale <> 'XX'), ALTER device_type SET NOT NULL")
    ids = pipeline.queue.send([login_message(i, locale="XX" if i == 3 else "RU", device_type=None if i == 7 else "ios") for i in range(10)])
    pipeline.start()
    stat = pipeline.wait_until_ingested(10)
    assert (stat["inserted"], stat["dead_letters"]) == (8, 2)
    letters = {letter["message_id"]: letter for letter in pipeline.dead_letters()}
    check, not_null = letters[ids[3]], letters[ids[7]]
    assert (check["reason"], check["sqlstate"], check["constraint_name"]) == ("row_error", "23514", "no_xx")
    assert (not_null["reason"], not_null["sqlstate"], not_null["field"]) == ("row_error", "23502", "device_type")


# -- answers that are large -------------------------------------------------------------------------------------------


def test_ten_messages_of_a_mebibyte_in_one_answer(pipeline):
    padding = "\u00e9" * 170_000  # each escaped by the server's JSON: six bytes
    for i in range(10):
        pipeline.queue.send([login_message(i, padding=padding)])
    wait_until(lambda: pipeline.queue.counts() == (10, 0), what="ten messages")
    pipeline.start()
    stat = pipeline.wait_until_ingested(10)
    assert stat["inserted"] == 10
    assert stat["bytes"] > 9 * MIB
