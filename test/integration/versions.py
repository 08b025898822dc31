"""Versions of the extension: the scripts of sql/, and others that a test makes up."""
import atexit
import contextlib
import os
import subprocess
from pathlib import Path

from harness import PG_CONFIG

SQL = Path(__file__).parents[2] / "sql"


@contextlib.contextmanager
def installed(scripts):
    """Has these files (name to text) in the server's extension directory until the end of the block, or of the run."""
    directory = Path(subprocess.check_output([PG_CONFIG, "--sharedir"], text=True).strip()) / "extension"
    sudo = [] if os.access(directory, os.W_OK) else ["sudo", "-n"]
    paths = [str(directory / name) for name in scripts]

    def remove():
        subprocess.run([*sudo, "rm", "-f", *paths], check=True)

    atexit.register(remove)
    try:
        for path, text in zip(paths, scripts.values()):
            subprocess.run([*sudo, "tee", path], input=text.encode(), stdout=subprocess.DEVNULL, check=True)
            subprocess.run([*sudo, "chmod", "a+r", path], check=True)
        yield
    finally:
        remove()
        atexit.unregister(remove)


def version(db):
    return db.value("SELECT extversion FROM pg_extension WHERE extname = 'sqs_ingest'")
