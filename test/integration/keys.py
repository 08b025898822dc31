"""Masking keys: fixed ones, the file that holds them, and the tokens they give, made without the extension's code.

Test modules import the fixture by name: from keys import keyring_fixture.
"""
import base64
import hashlib
import hmac
import os
import shutil

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

K1 = bytes(range(32))  # the reference key of test/unit/reference_keyring.h
K2 = bytes.fromhex("ffeeddccbbaa99887766554433221100" * 2)
K3 = hashlib.sha256(b"the third").digest()
OTHER = hashlib.sha256(b"somebody else's").digest()


def subkey(master, info, length):
    return HKDF(SHA256(), length, salt=None, info=b"sqs_ingest/v1/" + info).derive(master)


def hmac_token(key_id, master, value):
    return f"hm{key_id}." + hmac.new(subkey(master, b"hmac", 32), value.encode(), hashlib.sha256).hexdigest()


def siv_token(key_id, master, value):
    sealed = AESSIV(subkey(master, b"siv", 64)).encrypt(b"\x01" + value.encode(), [b"sqs_ingest/v1/siv"])
    return f"sv{key_id}." + base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def fingerprint(master):
    return hmac.new(subkey(master, b"fingerprint", 32), b"sqs_ingest", hashlib.sha256).hexdigest()


def unseal(key_id, master, message_id, sealed):
    """The body of a dead letter; an exception if it was not sealed under this key."""
    assert sealed[:5] == b"\x01" + key_id.to_bytes(4, "big"), f"sealed under key {int.from_bytes(sealed[1:5], 'big')}"
    return AESGCM(subkey(master, b"seal", 32)).decrypt(sealed[5:17], sealed[17:], sealed[:5] + message_id.encode()).decode()


class KeyringFile:
    """The keyring of a cluster, where it is by default. keys() and text() replace it, as an editor would."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.path = cluster.data / "sqs_ingest.keyring"

    def text(self, text, mode=0o600):
        new = self.path.with_name("sqs_ingest.keyring.new")
        new.write_text(text)
        new.chmod(mode)
        if os.geteuid() == 0:
            shutil.chown(new, "postgres", "postgres")
        new.rename(self.path)
        if self.cluster.running:
            self.cluster.reload()
        return self

    def keys(self, keys):
        """keys({1: K1, 2: K2})"""
        return self.text("".join(f"{key_id} {master.hex()}\n" for key_id, master in keys.items()))

    def remove(self):
        self.path.unlink()
        self.cluster.reload()


def make_pipeline_without_workers(pipeline):
    """The pipeline's row and its table, and no worker: for sqs_ingest_drain() and what needs no queue."""
    with pipeline.db.connect(autocommit=False) as session:
        session.execute("SELECT sqs_ingest_start()")
        session.execute("SELECT sqs_ingest_stop()")
        session.commit()


@pytest.fixture(name="keyring")
def keyring_fixture(cluster):
    """The keyring of the module's cluster, with key 1 alone at the beginning and at the end of each test."""
    cluster.ensure_running()
    keyring = KeyringFile(cluster).keys({1: K1})
    yield keyring
    keyring.keys({1: K1})
