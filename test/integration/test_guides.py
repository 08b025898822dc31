"""The guides (docs/guides) run from top to bottom as they stand, and what they show is what comes out.

The fenced blocks of a guide are taken in order:

  ```sql            goes to psql as the role `ingester`, with the rights that docs/security.md grants to a role for its own
                    pipelines, and no others
  ```sql superuser  goes to psql as `postgres`
  ```sh             commands `aws …` are asked of an SQS server; others are for reading
  ```text           what the sql block before it shows; `…` is anything. A query that shows something else is asked again
                    for a while: a worker takes its time
  others            are for reading

The names are AWS's own; the cluster's settings and environment lead them to a server on this machine.
"""
import json
import re

import psycopg
import pytest
from aws_cli import aws
from documents import DOCS, ROOT, fenced_blocks, indented_block, operator_grants, owner_grants
from elasticmq import ElasticMq
from harness import REGION, Moto, wait_until

GUIDES = {path.stem: path for path in (DOCS / "guides").glob("*.md")}
WAIT = 120  # seconds: a worker takes its time, and messages that a poll given up has taken come back after 30 s


class Reader:
    """Does what a guide says: on a cluster with the extension, and an AWS of its own."""

    def __init__(self, cluster, server, directory):
        self.cluster, self.server, self.script = cluster, server, directory / "block.sql"
        cluster.sql("CREATE EXTENSION sqs_ingest")
        cluster.sql("SELECT sqs_ingest_create_keyring()")
        cluster.sql(owner_grants())

    def psql(self, sql, role):
        """What psql shows, messages first, and whether all went well."""
        self.script.write_text(sql)
        done = self.cluster.client("psql", "-Xq", "-U", role, "-P", "footer=off", "-v", "ON_ERROR_STOP=1", "-f", self.script)
        said = re.sub(rf"^psql:{re.escape(str(self.script))}:\d+: ", "", done.stderr + done.stdout, flags=re.MULTILINE)
        return tidy(said), done.returncode == 0

    def read(self, markdown):
        found = fenced_blocks(markdown)
        for (kind, text, line), following in zip(found, [*found[1:], ("", "", 0)], strict=True):
            words = kind.split()
            if words[:1] == ["sh"]:
                for command in commands(text):
                    aws(self.server, command)
            elif words[:1] == ["sql"]:
                role = "postgres" if "superuser" in words else "ingester"
                self.run(text, role, following[1] if following[0] == "text" else None, line)

    def run(self, sql, role, expected, line):
        if expected is None:
            said, well = self.psql(sql, role)
            assert well, f"line {line}: {said}"
            return
        pattern = ".*".join(map(re.escape, tidy(expected).split("…")))
        fails = expected.startswith("ERROR:")
        shown = []

        def as_shown():
            said, well = self.psql(sql, role)
            shown.append(said)
            if well == fails:
                pytest.fail(f"line {line}: {said}")
            return re.fullmatch(pattern, said, re.DOTALL)

        if only_looks(sql):
            wait_until(as_shown, WAIT, lambda: f"line {line} shows\n{expected}\nbut\n{shown[-1]}", 0.2)
        else:
            assert as_shown(), f"line {line} shows\n{expected}\nbut\n{shown[-1]}"


def only_looks(sql):
    """Whether it can be asked again."""
    acts = r"\b(create|alter|drop|start|stop|redrive|purge|forget|drain|insert|update|delete)"
    return not re.search(acts, re.sub(r"'[^']*'|pg_stat_\w+", "", sql), re.IGNORECASE)


def tidy(text):
    """Without psql's lines, and with one space where it fills up: a mask that is shown shortened makes columns narrower."""
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not re.fullmatch(r"[-+]+|-\[ RECORD \d+ \]-*\+-*", line))


def commands(script):
    """Those of `aws`, each from its first line to where its quotes are closed and no backslash goes on."""
    found, command = [], ""
    for line in script.splitlines(keepends=True):
        command += line
        if command.endswith("\\\n") or command.count("'") % 2:
            continue
        found.append(command.replace("\\\n", " "))
        command = ""
    return [command for command in found if command.startswith("aws ")]


# moto gives messages of FIFO queues no sequence numbers.
SERVERS = {"fifo": ElasticMq}


@pytest.fixture(name="server")
def server_fixture(guide):
    server = SERVERS.get(guide, Moto)()
    yield server
    server.destroy()


@pytest.fixture(name="reader")
def reader_fixture(make_cluster, server, tmp_path):
    settings = {"sqs_ingest.endpoint_url": server.endpoint}
    cluster = make_cluster(settings, {"AWS_ENDPOINT_URL_STS": server.endpoint, "AWS_REGION": REGION})
    return Reader(cluster, server, tmp_path)


@pytest.mark.parametrize("guide", sorted(GUIDES))
def test_guide_can_be_followed_from_top_to_bottom(reader, guide):
    reader.read(GUIDES[guide].read_text())


# -- the other documents ----------------------------------------------------------------------------------------------


@pytest.fixture(name="guide")
def guide_fixture():
    """None of them: a server for any queue."""


def send(server, name, body):
    server.client().send_message(QueueUrl=server.client().create_queue(QueueName=name)["QueueUrl"], MessageBody=body)


def test_the_readme_shows_how_a_pipeline_is_made(reader):
    send(reader.server, "orders", '{"order_id": "3f0d9c56-6d2c-4a9e-9d3a-0f6d3f5b8d11", "total": 12.5}')
    reader.run(indented_block("README.md", "Any queue into any table, in one call."), "ingester", None, 0)
    reader.run("SELECT total FROM orders", "ingester", "total\n12.50", 0)


def test_operations_shows_how_to_ingest_without_a_worker(reader):
    send(reader.server, "login-queue", '{"user_id": "u1", "ip": "192.0.2.7", "device_id": "d1", "app_version": "2.3.0"}')
    reader.run(indented_block("docs/operations.md", "Make the pipeline once, as its owner, and do not start it:"), "ingester", None, 0)
    reader.run("SELECT user_id, app_version FROM logins", "ingester", "user_id | app_version\nu1 | 2.3.0", 0)


def test_a_role_runs_the_pipeline_that_a_superuser_made_and_makes_none(reader):
    """By the grants and the hand-over that docs/security.md shows."""
    reader.cluster.sql(operator_grants())
    reader.cluster.sql("CREATE TABLE orders (order_id integer)")
    reader.run(indented_block("docs/security.md", "hands both over, in one transaction:"), "postgres", None, 0)
    send(reader.server, "orders", '{"order_id": 7}')
    send(reader.server, "orders", '{"order_id": "seven"}')
    reader.run("SELECT sqs_ingest_start('orders')", "operator", None, 0)
    reader.run("SELECT order_id FROM orders", "operator", "order_id\n7", 0)
    reader.run("SELECT reason FROM sqs_ingest_dead_letter", "operator", "reason\nwrong_type", 0)
    with reader.cluster.connect(user="operator") as session:
        for call in ("sqs_ingest_alter_pipeline('orders', queue_url => 'https://example.com/1/another')",
                     "sqs_ingest_create_pipeline('mine', 'https://example.com/1/another', 'orders')"):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT {call}")


FOUR = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"}
POLICIES = {
    "iam-policy.json": FOUR,
    "iam-policy-kms.json": {"kms:Decrypt"},
    "iam-policy-assume-role.json": {"sts:AssumeRole"},
}


@pytest.mark.parametrize("name", POLICIES)
def test_policy_to_copy_allows_what_is_needed_and_security_says_what_for(name):
    policy = json.loads((DOCS / name).read_text())
    (statement,) = policy["Statement"]
    action = statement["Action"]
    assert set([action] if isinstance(action, str) else action) == POLICIES[name]
    assert statement["Effect"] == "Allow" and statement["Resource"].startswith("arn:aws:")
    security = (DOCS / "security.md").read_text()
    assert all(re.search(rf"^\| `{action}`", security, re.MULTILINE) for action in POLICIES[name])


def test_policies_in_the_guides_are_json():
    found = [text for path in GUIDES.values() for kind, text, _ in fenced_blocks(path.read_text()) if kind == "json"]
    assert len(found) >= 3
    for text in found:
        assert json.loads(text)["Version"] == "2012-10-17"


def test_there_is_a_guide_for_each_task_and_the_readme_names_it():
    readme = (ROOT / "README.md").read_text()
    assert GUIDES
    for guide in GUIDES:
        assert f"docs/guides/{guide}.md" in readme


def test_links_between_the_documents_lead_somewhere():
    pages = [ROOT / "README.md", *DOCS.glob("**/*.md")]
    headings = {page.resolve(): {anchor(h) for h in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)} for page in pages}
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in target:
                continue
            path, _, fragment = target.partition("#")
            found = (page.parent / path).resolve() if path else page.resolve()
            assert found.exists(), f"{page.name}: {target}"
            assert not fragment or fragment in headings[found], f"{page.name}: {target}"


def anchor(heading):
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
