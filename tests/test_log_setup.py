"""`logs enable` and `logs status`, with the real boto3 against moto's server."""

from __future__ import annotations

import gzip
import json
import warnings
from contextlib import closing
from datetime import datetime, timedelta, timezone
from urllib.request import Request, urlopen

import boto3
import pytest
from account_month import BUCKET as MONTH
from account_month import write_month

from otel_bedrock.cli.main import main
from otel_bedrock.invocation_logs.account import Account
from otel_bedrock.invocation_logs.setup import (
    STREAM,
    Place,
    Wish,
    allows_bedrock,
    bucket_policy,
    configure,
    role_policy,
    trust_policy,
)

BUCKET, GROUP, REGION = "my-logs", "/bedrock/calls", "eu-central-1"
PLACE = Place("123456789012", REGION)  # moto's account
ROLE = "arn:aws:iam::123456789012:role/bedrock-logs"


@pytest.fixture(scope="module")
def server():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer

        running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def aws(server, monkeypatch):
    """An empty AWS; gives clients of it."""
    urlopen(Request(f"{server}/moto-api/reset", method="POST")).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.delenv("AWS_REGION", raising=False)
    made = {}

    def client(name):
        return made.setdefault(name, boto3.client(name, region_name=REGION))

    yield client
    for one in made.values():
        one.close()


def make_bucket(aws, policy=None, region=REGION):
    with closing(boto3.client("s3", region_name=region)) as client:
        client.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": region}
        )
        if policy is not None:
            client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))


def make_role(aws, trust):
    aws("iam").create_role(RoleName="bedrock-logs", AssumeRolePolicyDocument=json.dumps(trust))


def configuration(aws):
    return aws("bedrock").get_model_invocation_logging_configuration().get("loggingConfig") or None


def run(capsys, *arguments):
    code = main(["logs", *arguments])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_enable_shows_all_and_changes_nothing_without_yes(aws, capsys):
    make_bucket(aws, bucket_policy(BUCKET, "bedrock", PLACE))
    code, out, _ = run(capsys, "enable", "--s3", f"{BUCKET}/bedrock")
    assert code == 4
    assert configuration(aws) is None
    assert "Nothing was changed" in out
    added = [line[1:] for line in out.splitlines() if line.startswith("+") and "+++" not in line]
    assert json.loads("\n".join(added)) == {
        "s3Config": {"bucketName": BUCKET, "keyPrefix": "bedrock"},
        "textDataDeliveryEnabled": True,
        "imageDataDeliveryEnabled": False,
        "embeddingDataDeliveryEnabled": False,
        "videoDataDeliveryEnabled": False,
        "audioDataDeliveryEnabled": False,
    }
    assert json.dumps(bucket_policy(BUCKET, "bedrock", PLACE), indent=2) in out
    assert f"ok  bucket {BUCKET}: exists, in {REGION}" in out
    assert f"ok  policy of bucket {BUCKET}: lets Bedrock write to bedrock/AWSLogs" in out


def test_yes_makes_exactly_the_change_that_was_shown(aws, capsys):
    make_bucket(aws)
    code, out, _ = run(capsys, "enable", "--s3", BUCKET, "--deliver", "none", "--yes")
    assert code == 0
    assert "Changed." in out
    config = configuration(aws)
    assert config["s3Config"] == {"bucketName": BUCKET}
    assert not any(value for key, value in config.items() if key.endswith("Enabled"))
    code, out, _ = run(capsys, "enable", "--deliver", "text,image")
    assert code == 4
    changed = {line.strip() for line in out.splitlines() if line[:1] in "+-" and line[1:2] == " "}
    assert changed == {
        '-  "imageDataDeliveryEnabled": false,',
        '+  "imageDataDeliveryEnabled": true,',
        '-  "textDataDeliveryEnabled": false,',
        '+  "textDataDeliveryEnabled": true,',
    }
    assert configuration(aws) == config
    code, out, _ = run(capsys, "enable", "--s3", BUCKET)
    assert (code, "nothing to change" in out) == (0, True)


def test_cloudwatch_needs_a_role_whose_policies_are_shown(aws, capsys):
    aws("logs").create_log_group(logGroupName=GROUP)
    make_role(aws, trust_policy(PLACE))
    code, out, _ = run(capsys, "enable", "--log-group", GROUP, "--role", ROLE, "--yes")
    assert code == 0
    for policy in (trust_policy(PLACE), role_policy(GROUP, PLACE)):
        assert json.dumps(policy, indent=2) in out
    assert f"ok  log group {GROUP}: exists" in out
    assert "ok  role bedrock-logs: exists; Bedrock may assume it" in out
    assert configuration(aws)["cloudWatchConfig"] == {"logGroupName": GROUP, "roleArn": ROLE}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say where to log to"),
        (["--log-group", GROUP], "needs both --log-group and --role"),
        (["--s3", ""], "expected BUCKET or BUCKET/PREFIX"),
        (["--s3", "s3:///logs"], "expected BUCKET or BUCKET/PREFIX"),
        (["--large-s3", "/x"], "expected BUCKET or BUCKET/PREFIX"),
        (["--s3", BUCKET, "--deliver", "texts"], "expected none, or some of text,image"),
    ],
)
def test_a_wish_that_cannot_be_is_explained(aws, capsys, arguments, says):
    code, _, err = run(capsys, "enable", *arguments)
    assert (code, says in err) == (2, True)


def test_what_is_missing_is_named(aws, capsys):
    elsewhere = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "s3:*"}]}
    make_bucket(aws, region="us-west-2")
    make_role(aws, elsewhere)
    wishes = ["--s3", BUCKET, "--log-group", "/not/there", "--role", ROLE]
    _, out, _ = run(capsys, "enable", *wishes)
    assert f"BAD bucket {BUCKET}: exists, in us-west-2; it must be in {REGION}" in out
    assert f"BAD policy of bucket {BUCKET}: is not there" in out
    assert "BAD log group /not/there: is not there" in out
    assert "BAD role bedrock-logs: exists; Bedrock may not assume it" in out


def test_status_of_an_account_without_logging(aws, capsys):
    code, out, _ = run(capsys, "status")
    assert (code, "is off for account 123456789012 in eu-central-1" in out) == (4, True)
    code, out, _ = run(capsys, "status", "--format", "json")
    assert (code, json.loads(out)["enabled"]) == (4, False)


def test_status_says_whether_records_arrive(aws, capsys):
    make_bucket(aws, bucket_policy(BUCKET, "", PLACE))
    aws("logs").create_log_group(logGroupName=GROUP)
    make_role(aws, trust_policy(PLACE))
    wishes = ["--s3", BUCKET, "--log-group", GROUP, "--role", ROLE]
    assert run(capsys, "enable", *wishes, "--yes")[0] == 0
    code, out, _ = run(capsys, "status")
    assert code == 4
    assert f"BAD records in bucket {BUCKET}: none within 48 hours" in out
    assert f"BAD records in log group {GROUP}: none within 48 hours" in out

    now = datetime.now(timezone.utc)
    root = f"AWSLogs/{PLACE.account}/BedrockModelInvocationLogs"
    hour = now - timedelta(hours=3)
    put = aws("s3").put_object
    put(Bucket=BUCKET, Key=f"{root}/amazon-bedrock-logs-permission-check", Body=b"")
    key = f"{root}/{REGION}/{hour:%Y/%m/%d/%H}/x.json.gz"
    put(Bucket=BUCKET, Key=key, Body=gzip.compress(b"{}\n"))
    aws("logs").create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    aws("logs").put_log_events(
        logGroupName=GROUP,
        logStreamName=STREAM,
        logEvents=[{"timestamp": round(now.timestamp() * 1000), "message": "{}"}],
    )
    code, out, _ = run(capsys, "status")
    assert code == 0, out
    assert "BAD" not in out
    assert "Bodies: text" in out
    assert f"ok  records in bucket {BUCKET}: the newest is of {now:%Y-%m-%d}" in out
    assert "0 min ago" in out
    code, out, _ = run(capsys, "status", "--format", "json")
    found = json.loads(out)
    assert (code, found["enabled"], found["region"]) == (0, True, REGION)
    assert {check["state"] for check in found["checks"]} == {"ok"}


def test_a_report_reads_s3_and_cloudwatch_as_it_reads_files(aws, tmp_path, capsys):
    truth = write_month(tmp_path, records=24, trouble=False)
    with closing(boto3.client("s3", region_name="us-east-1")) as client:
        client.create_bucket(Bucket=MONTH)
        for path in tmp_path.rglob("*"):
            if path.is_file():
                key = path.relative_to(tmp_path).as_posix()
                client.put_object(Bucket=MONTH, Key=key, Body=path.read_bytes())
    aws("logs").create_log_group(logGroupName=GROUP)
    aws("logs").create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    now = datetime.now(timezone.utc)
    extra = {
        "schemaType": "ModelInvocationLog",
        "timestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "requestId": "one-more",
        "operation": "Converse",
        "modelId": "amazon.nova-lite-v1:0",
        "input": {"inputTokenCount": 1_000_003},
        "output": {"outputTokenCount": 7},
    }
    aws("logs").put_log_events(
        logGroupName=GROUP,
        logStreamName=STREAM,
        logEvents=[{"timestamp": round(now.timestamp() * 1000), "message": json.dumps(extra)}],
    )
    sources = [f"s3://{MONTH}", f"cloudwatch:{GROUP}", f"s3://{MONTH}/AWSLogs"]
    code, out, err = run(capsys, "report", *sources, "--by", "region", "--format", "json")
    assert (code, err) == (0, "")
    rows = {row["region"]: row for row in json.loads(out)}
    assert rows[None]["input_tokens"] == 1_000_003
    assert rows["us-east-1"]["requests"] == truth.calls
    assert rows["us-east-1"]["uncached_tokens"] == truth.total().uncached


def test_a_region_must_be_known(aws, monkeypatch, capsys):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    code, _, err = run(capsys, "status")
    assert (code, "set AWS_REGION, or give --region" in err) == (1, True)
    with closing(Account("eu-west-1")) as account:
        assert account.place.region == "eu-west-1"


def test_what_aws_refuses_is_quoted(monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    code, _, err = run(capsys, "status", "--region", REGION)
    assert (code, "get_model_invocation_logging_configuration" in err) == (1, True)


@pytest.mark.parametrize(
    "command", [["status"], ["report", "cloudwatch:/x"], ["report", "s3://abc"]]
)
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AWS_PROFILE", "nope", "nope"),
        ("AWS_CONFIG_FILE", "broken", "broken"),
        ("AWS_ENDPOINT_URL", "foo", "foo (AWS_ENDPOINT_URL?)"),
    ],
)
def test_settings_of_aws_that_are_none_are_named(
    command, name, value, says, tmp_path, monkeypatch, capsys
):
    (tmp_path / "broken").write_text("[oh\nno")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv(name, value)
    code, _, err = run(capsys, *command)
    assert (code, says in err) == (1, True), err


def test_a_policy_is_read_with_its_wildcards_and_its_prefixes():
    resource = "arn:aws:s3:::my-logs/bedrock/AWSLogs/123456789012/BedrockModelInvocationLogs/x"
    assert allows_bedrock(bucket_policy(BUCKET, "bedrock", PLACE), "s3:PutObject", resource)
    assert not allows_bedrock(bucket_policy(BUCKET, "other", PLACE), "s3:PutObject", resource)
    broad = {
        "Statement": {
            "Effect": "Allow",
            "Principal": {"Service": ["bedrock.amazonaws.com", "x.amazonaws.com"]},
            "Action": "s3:*",
            "Resource": "arn:aws:s3:::my-logs/*",
        }
    }
    assert allows_bedrock(broad, "s3:PutObject", resource)
    broad["Statement"]["Effect"] = "Deny"
    assert not allows_bedrock(broad, "s3:PutObject", resource)


def test_a_wish_leaves_alone_what_it_does_not_name():
    current = {
        "cloudWatchConfig": {"logGroupName": "a", "roleArn": ROLE},
        "textDataDeliveryEnabled": False,
    }
    wanted = configure(current, Wish(large_s3="s3://b/c/"))
    assert wanted == {
        "cloudWatchConfig": {
            "logGroupName": "a",
            "roleArn": ROLE,
            "largeDataDeliveryS3Config": {"bucketName": "b", "keyPrefix": "c"},
        },
        "textDataDeliveryEnabled": False,
    }
    assert current["cloudWatchConfig"] == {"logGroupName": "a", "roleArn": ROLE}
