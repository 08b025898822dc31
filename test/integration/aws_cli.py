"""`aws <service> <operation> --option value …`, as it is written for AWS's own command line, asked of a test server.

The options are translated by botocore's description of the operation. Values of lists and structures are JSON, of a map
also name=value,name=value. `--profile <account number>` asks as that account.
"""
import json
import shlex

from botocore import xform_name

# Where the command line has a name of its own.
RENAMED = {("sns", "notification-endpoint"): "endpoint"}


def as_account(server, account):
    """Keyword arguments for server.client(): keys of another account than the server's own."""
    role = f"arn:aws:iam::{account}:role/admin"
    keys = server.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    names = {"aws_access_key_id": "AccessKeyId", "aws_secret_access_key": "SecretAccessKey", "aws_session_token": "SessionToken"}
    return {name: keys[key] for name, key in names.items()}


def typed(text, shape):
    if shape.type_name in ("integer", "long"):
        return int(text)
    if shape.type_name in ("structure", "list") or text.startswith("{") and shape.type_name == "map":
        return json.loads(text)
    if shape.type_name == "map":
        return dict(pair.split("=", 1) for pair in text.split(","))
    return text


def aws(server, command):
    """Does it, and returns what the server answered."""
    program, service, operation, *options = shlex.split(command)
    assert program == "aws", command
    given = dict(zip(options[::2], options[1::2], strict=True))
    account = given.pop("--profile", None)
    client = server.client(service, **(as_account(server, account) if account else {}))
    name = {xform_name(n, "-"): n for n in client.meta.service_model.operation_names}[operation]
    members = client.meta.service_model.operation_model(name).input_shape.members
    arguments = {}
    for option, text in given.items():
        option = option.removeprefix("--")
        option = RENAMED.get((service, option), option)
        member = {xform_name(n, "-"): n for n in members}[option]
        arguments[member] = typed(text, members[member])
    return getattr(client, xform_name(name))(**arguments)
