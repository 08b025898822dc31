"""Every way to AWS credentials, with the worker itself: against servers that check signatures and tokens."""
import json
import os
import time
import urllib.parse

import pytest
from aws_services import ConnectProxy, ContainerEndpoint, Https, InstanceMetadata, Sessions, make_role
from harness import CREDENTIALS, REGION, Database, login_messages, wait_until
from pipeline import Pipeline, assert_counters_add_up, prepare
from proxy import error, make_proxy_fixture  # noqa: F401

NO_KEYS = dict.fromkeys(CREDENTIALS)
RECEIVE = "ReceiveMessage"


@pytest.fixture
def make(make_cluster, strict_moto):
    """make(env, settings): a pipeline in a cluster of its own, on a queue of the server that verifies signatures.

    The cluster's environment has no keys but those given.
    """

    def make(env=None, settings=None, queue=None):
        queue = queue or strict_moto.queue()
        cluster = make_cluster({**queue.settings, **(settings or {})}, env={**NO_KEYS, **(env or {})})
        db = Database(cluster, cluster.create_database())
        db.sql("CREATE EXTENSION sqs_ingest")
        return Pipeline(db, queue)

    return make


@pytest.fixture
def files(tmp_path):
    """A directory that the server's user can read; files(name, text) puts a file there as a whole, and returns its path."""
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)

    def write(name, text, mode=0o644):
        new = tmp_path / (name + ".new")
        new.write_text(text)
        new.chmod(mode)
        return new.rename(tmp_path / name)

    write.path = tmp_path
    return write


def keys_of(server):
    return f"aws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n"


def assert_all_arrives(pipeline, count=12, timeout=30, start=0):
    before = (pipeline.stat() or {}).get("inserted") or 0
    pipeline.queue.send(login_messages(count, start=start))
    stat = pipeline.wait_for(timeout, inserted=before + count)
    wait_until(pipeline.queue.is_empty, 15, "empty queue")
    return stat


def checked(pipeline, item="credentials"):
    return pipeline.db.one("SELECT ok, detail, hint FROM sqs_ingest_check(%s) WHERE item = %s", [pipeline.name, item])


def forms(proxy):
    """The forms that were sent to STS."""
    return [dict(urllib.parse.parse_qsl(request.body.decode())) for request in proxy.asked()]


# -- roles ------------------------------------------------------------------------------------------------------------


def test_role_of_a_profile_is_assumed_with_its_source_profile(make, strict_moto, make_proxy, files):
    role, sts = make_role(strict_moto), make_proxy(strict_moto)
    config = files("config", f"[profile ops]\nrole_arn = {role}\nsource_profile = base\n[profile base]\n{keys_of(strict_moto)}")
    pipeline = make({"AWS_CONFIG_FILE": str(config), "AWS_ENDPOINT_URL_STS": sts.endpoint}, {"sqs_ingest.aws_profile": "ops"})
    pipeline.start()
    assert_all_arrives(pipeline)
    (form,) = forms(sts)
    assert form["RoleArn"] == role and form["RoleSessionName"] == "sqs_ingest-user_logins"
    ok, detail, _ = checked(pipeline)
    assert ok and detail.startswith(f'role {role}, assumed with profile "base", until 20')


def test_role_of_a_pipeline_is_assumed_with_the_servers_identity(make, strict_moto, make_proxy):
    role, sts = make_role(strict_moto), make_proxy(strict_moto)
    pipeline = prepare(make({**strict_moto.env(), "AWS_ENDPOINT_URL_STS": sts.endpoint}))
    pipeline.db.sql("UPDATE sqs_ingest_pipeline SET role_arn = %s, external_id = 'ext-1' WHERE name = 'user_logins'", [role])
    pipeline.start()
    assert_all_arrives(pipeline)
    form = forms(sts)[0]
    assert (form["Action"], form["RoleArn"], form["ExternalId"]) == ("AssumeRole", role, "ext-1")
    assert f"Credential={strict_moto.access_key}/" in sts.asked()[0].headers["authorization"]
    assert f"/{REGION}/sts/aws4_request" in sts.asked()[0].headers["authorization"]


def test_role_that_may_not_be_assumed_is_said_and_then_mended(make, strict_moto, make_proxy):
    role, sts = make_role(strict_moto), make_proxy(strict_moto)
    denied = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"
    sts.on("AssumeRole", lambda request, forward: type(forward())(403, denied))
    pipeline = prepare(make({**strict_moto.env(), "AWS_ENDPOINT_URL_STS": sts.endpoint}))
    pipeline.db.sql("UPDATE sqs_ingest_pipeline SET role_arn = %s WHERE name = 'user_logins'", [role])
    pipeline.queue.send(login_messages(3))
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert f"role {role} could not be assumed: AccessDenied" in stat["why"]
    assert "trust policy" in stat["hint"]
    time.sleep(3)
    assert len(sts.asked()) <= 8, "no storm"
    sts.pass_on("AssumeRole")
    pipeline.wait_for(60, inserted=3)


def test_web_identity_token_is_exchanged_and_the_missing_file_waited_for(make, strict_moto, make_proxy, files):
    role, sts = make_role(strict_moto), make_proxy(strict_moto)
    token = files.path / "token"
    pipeline = make({"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": role, "AWS_ROLE_SESSION_NAME": "pod-7",
                     "AWS_ENDPOINT_URL_STS": sts.endpoint})  # fmt: skip
    pipeline.queue.send(login_messages(3))
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert f"web identity token file {token}: No such file or directory" in stat["why"]
    files("token", "header.s3cret-payload.signature")
    pipeline.wait_for(60, inserted=3)
    form, request = forms(sts)[0], sts.asked()[0]
    assert form["WebIdentityToken"] == "header.s3cret-payload.signature"
    assert (form["Action"], form["RoleSessionName"]) == ("AssumeRoleWithWebIdentity", "pod-7")
    assert "authorization" not in request.headers
    assert "s3cret-payload" not in pipeline.cluster.log() + json.dumps(pipeline.stat(), default=str)


# -- instance metadata, container endpoint ------------------------------------------------------------------------------


def test_instance_role_is_used_and_its_region(make, strict_moto):
    with InstanceMetadata(Sessions(strict_moto), region=REGION) as metadata:
        pipeline = make(metadata.env(), {"sqs_ingest.region": ""})
        pipeline.start()
        assert_all_arrives(pipeline)
        ok, detail, _ = checked(pipeline)
        assert ok and detail.startswith("instance metadata, role the-role, until 20")
        assert checked(pipeline, "region")[:2] == (True, REGION)


def test_credentials_that_expire_while_running_cost_no_message(make, strict_moto, make_proxy):
    """Sessions last for seconds, and the queue refuses all but the newest two."""
    sessions = Sessions(strict_moto, lasts=4)
    proxy = make_proxy(strict_moto)

    def refuse_old(request, forward):
        key = request.headers["authorization"].split("Credential=")[1].split("/")[0]
        return forward() if key in sessions.issued[-2:] else error("ExpiredToken", 403)(request, forward)

    for action in ("GetQueueAttributes", RECEIVE, "DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
        proxy.on(action, refuse_old)
    with InstanceMetadata(sessions) as metadata:
        pipeline = make(metadata.env(), {"sqs_ingest.endpoint_url": proxy.endpoint})
        pipeline.start()
        for part in range(8):
            pipeline.queue.send(login_messages(20, start=100 * part))
            time.sleep(1.5)
        stat = pipeline.wait_for(60, inserted=160)
        wait_until(pipeline.queue.is_empty, 30, "empty queue")
        assert_counters_add_up(pipeline.stat())
        assert stat["dead_letters"] == 0
        assert len(sessions.issued) >= 3
        assert len(sessions.issued) < 40, "no storm"


def test_outage_of_instance_metadata_does_not_stop_a_running_pipeline(make, strict_moto):
    sessions = Sessions(strict_moto, lasts=3)
    with InstanceMetadata(sessions) as metadata:
        pipeline = make(metadata.env())
        pipeline.start()
        assert_all_arrives(pipeline)
    time.sleep(4)
    assert_all_arrives(pipeline, start=100)


def test_hung_instance_metadata_blocks_nothing(make, strict_moto):
    sessions = Sessions(strict_moto)
    with InstanceMetadata(sessions) as metadata:
        metadata.hangs = True
        pipeline = make(metadata.env())
        cluster = pipeline.cluster
        pipeline.start()
        wait_until(lambda: metadata.requests, 20, "a request")
        begun = time.monotonic()
        other = cluster.create_database()
        cluster.drop_database(other)
        assert time.monotonic() - begun < 10, "the worker absorbs the barriers of other databases"
        begun = time.monotonic()
        pipeline.stop()
        assert time.monotonic() - begun < 15
        asked = len(metadata.requests)
        pipeline.start()
        wait_until(lambda: len(metadata.requests) > asked, 20, "another request")
        pipeline.db.close()
        begun = time.monotonic()
        cluster.drop_database(pipeline.db.name)
        assert time.monotonic() - begun < 15


def test_container_endpoint_is_asked_with_the_token_of_the_file_as_it_is_then(make, strict_moto, files):
    token_file = files("token", "first-token\n")
    sessions = Sessions(strict_moto, lasts=5)
    with ContainerEndpoint(sessions, lambda: token_file.read_text().strip()) as agent:
        pipeline = make({"AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.endpoint + "/v1/credentials",
                         "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token_file)})  # fmt: skip
        pipeline.start()
        assert_all_arrives(pipeline)
        files("token", "second-token\n")
        count = len(sessions.issued)

        def two_more():
            assert_all_arrives(pipeline, 2, start=1000)
            return len(sessions.issued) >= count + 2

        wait_until(two_more, 60, "credentials fetched with the second token", 0.5)
        assert "token" not in json.dumps(pipeline.stat(), default=str)


# -- credential_process -------------------------------------------------------------------------------------------------


def test_credentials_of_a_process_are_used(make, strict_moto, files):
    document = json.dumps({"Version": 1, "AccessKeyId": strict_moto.access_key, "SecretAccessKey": strict_moto.secret_key})
    files("document", document)
    config = files("config", f"[default]\ncredential_process = cat {files.path}/document; echo s3cret-noise >&2\n")
    pipeline = make({"AWS_CONFIG_FILE": str(config)})
    pipeline.start()
    assert_all_arrives(pipeline)
    assert checked(pipeline)[:2] == (True, 'credential_process of profile "default"')
    assert "s3cret-noise" not in pipeline.cluster.log()


def test_process_that_hangs_blocks_nothing_and_ends_with_the_worker(make, files):
    pid_file = files.path / "pid"
    files.path.chmod(0o777)
    config = files("config", f"[default]\ncredential_process = echo $$ > {pid_file}; sleep 1000\n")
    pipeline = make({"AWS_CONFIG_FILE": str(config)})
    pipeline.start()
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), 20, "the process runs")
    pid = int(pid_file.read_text())
    begun = time.monotonic()
    pipeline.stop()
    assert time.monotonic() - begun < 15
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 10, "the process has ended, and is no zombie")


# -- endpoints, CA, proxies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"])
def test_endpoint_of_the_environment_is_taken(make, strict_moto, make_proxy, variable):
    proxy, queue = make_proxy(strict_moto), strict_moto.queue()
    settings = {"sqs_ingest.queue_url": f"https://sqs.{REGION}.amazonaws.com/123456789012/{queue.name}", "sqs_ingest.endpoint_url": ""}
    pipeline = make({**strict_moto.env(), variable: proxy.endpoint}, settings, queue)
    pipeline.start()
    assert_all_arrives(pipeline)
    assert proxy.asked(RECEIVE)


def test_setting_wins_over_the_endpoint_of_the_environment(make, strict_moto):
    pipeline = make({**strict_moto.env(), "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1"})
    pipeline.start()
    assert_all_arrives(pipeline)


def test_wrong_endpoint_variable_is_named(make, strict_moto):
    pipeline = make({**strict_moto.env(), "AWS_ENDPOINT_URL": "localhost"}, {"sqs_ingest.endpoint_url": ""})
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert "AWS_ENDPOINT_URL has no scheme" in stat["why"]
    assert "AWS_ENDPOINT_URL" in stat["hint"]


def test_queue_url_on_a_metadata_address_is_refused(make, strict_moto):
    pipeline = make(strict_moto.env(), {"sqs_ingest.endpoint_url": "http://169.254.169.254"})
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert "metadata service" in stat["why"]


def test_ca_bundle_of_the_environment_is_trusted_and_without_it_nobody(make, strict_moto, files):
    with Https(strict_moto, files.path) as server:
        settings = {"sqs_ingest.endpoint_url": f"https://localhost:{server.port}"}
        distrustful = make(strict_moto.env(), settings)
        distrustful.start()
        stat = distrustful.wait_for(state="backing_off")
        assert "certificate" in stat["why"]
        distrustful.cluster.destroy()
        pipeline = make({**strict_moto.env(), "AWS_CA_BUNDLE": str(server.ca_file)}, settings)
        pipeline.start()
        assert_all_arrives(pipeline)


def test_https_goes_through_the_proxy_of_the_environment(make, strict_moto, files):
    """The queue's name is one that only the proxy knows; instance metadata is asked without it."""
    name = "sqs.example.test"
    with Https(strict_moto, files.path, (name,)) as server, ConnectProxy() as proxy, InstanceMetadata(Sessions(strict_moto)) as metadata:
        pipeline = make({"HTTPS_PROXY": proxy.url, "HTTP_PROXY": "http://127.0.0.1:1", "AWS_CA_BUNDLE": str(server.ca_file), **metadata.env()},
                        {"sqs_ingest.endpoint_url": f"https://{name}:{server.port}"})  # fmt: skip
        pipeline.start()
        assert_all_arrives(pipeline)
        assert set(proxy.connected) == {f"{name}:{server.port}"}
        assert proxy.PASSWORD not in pipeline.cluster.log()


@pytest.mark.parametrize("url", ["http://someone:pr0xy-s3cret@127.0.0.1:1", "gopher://someone:pr0xy-s3cret@127.0.0.1:1"])
def test_proxy_that_does_not_work_is_said_without_its_password(make, strict_moto, url):
    pipeline = make({**strict_moto.env(), "HTTPS_PROXY": url}, {"sqs_ingest.endpoint_url": "https://sqs.example.test"})
    pipeline.start()
    stat = pipeline.wait_for(state="backing_off")
    assert stat["why"]
    assert "pr0xy-s3cret" not in json.dumps(stat, default=str) + pipeline.cluster.log()
