"""Logs in S3 and in CloudWatch Logs, read with the real boto3 from moto's server."""

from __future__ import annotations

import gzip
import json
import warnings
from collections import Counter
from datetime import datetime, timedelta, timezone

import boto3
import pytest

from otel_bedrock.cli.main import main
from otel_bedrock.invocation_logs import SourceError, open_source, read_logs
from otel_bedrock.invocation_logs import ingest as ingest_module
from otel_bedrock.invocation_logs.checkpoint import SQLiteCheckpoint
from otel_bedrock.invocation_logs.cloudwatch import STREAM, CloudWatch
from otel_bedrock.invocation_logs.ingest import Ingest, Plan, Watcher
from otel_bedrock.invocation_logs.layout import spans
from otel_bedrock.invocation_logs.outlet import OtlpOutlet
from otel_bedrock.invocation_logs.s3 import S3
from otel_bedrock.receiver import Receiver

BUCKET, GROUP = "my-logs", "/bedrock/calls"
BASE = "team/AWSLogs/111122223333/BedrockModelInvocationLogs"
DAY = datetime(2026, 11, 20, tzinfo=timezone.utc)


def make(number, at=DAY, **members):
    return {
        "schemaType": "ModelInvocationLog",
        "timestamp": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "requestId": f"r-{number}",
        "operation": "Converse",
        "modelId": "amazon.nova-pro-v1:0",
        "input": {"inputTokenCount": number},
        "output": {"outputTokenCount": 2},
        **members,
    }


def pack(records):
    return gzip.compress("".join(json.dumps(each) + "\n" for each in records).encode())


def key(at, name, region="us-east-1"):
    return f"{BASE}/{region}/{at:%Y/%m/%d/%H}/{name}.json.gz"


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
    """The endpoint of an empty AWS."""
    from urllib.request import Request, urlopen

    urlopen(Request(f"{server}/moto-api/reset", method="POST")).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    return server


@pytest.fixture
def bucket(aws):
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)

    def put(name, data):
        client.put_object(Bucket=BUCKET, Key=name, Body=data)

    yield put
    client.close()


@pytest.fixture
def group(aws):
    client = boto3.client("logs")
    client.create_log_group(logGroupName=GROUP)
    client.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)

    def put(*records, at=None):
        client.put_log_events(
            logGroupName=GROUP,
            logStreamName=STREAM,
            logEvents=[
                {
                    "timestamp": round((at or datetime.now(timezone.utc)).timestamp() * 1000),
                    "message": each if isinstance(each, str) else json.dumps(each),
                }
                for each in records
            ],
        )

    yield put
    client.close()


class Listed:
    """A client that notes which prefixes are listed."""

    def __init__(self):
        self.prefixes = []
        self.client = boto3.client("s3")
        self.client.meta.events.register(
            "provide-client-params.s3.ListObjectsV2",
            lambda params, **_: self.prefixes.append(params["Prefix"]),
        )


def ids(found):
    return [each.request_id for each in found]


def fill(bucket):
    for hour in range(24):
        at = DAY + timedelta(hours=hour)
        bucket(key(at, "a"), pack([make(hour, at)]))
        bucket(key(at, "b", "eu-west-1"), pack([make(100 + hour, at)]))
        bucket(f"{BASE}/us-east-1/{at:%Y/%m/%d/%H}/data/r-{hour}_output.json.gz", pack([{"x": 1}]))
    bucket(f"{BASE}/amazon-bedrock-logs-permission-check", b"Permissions are correctly set.")
    bucket("team2/AWSLogs/x.json", pack([make(999)]))


@pytest.mark.parametrize(
    "prefix",
    [
        "team",
        "team/",
        "team/AWSLogs",
        "team/AWSLogs/111122223333/",
        f"{BASE}/",
    ],
)
def test_only_the_hours_of_a_range_are_listed(prefix, bucket):
    fill(bucket)
    listed = Listed()
    source = S3(f"s3://{BUCKET}/{prefix}", listed.client)
    since, until = DAY + timedelta(hours=3), DAY + timedelta(hours=5)
    found = list(read_logs([source], since, until))
    assert sorted(ids(found)) == ["r-103", "r-104", "r-3", "r-4"]
    by_hour = [each for each in listed.prefixes if "/2026/" in each]
    # The range's own hours, and six more for what came late; each in two Regions.
    assert len(by_hour) == 2 * (3 + 6)
    assert not [each for each in listed.prefixes if "/2026/" not in each and each.count("/") > 4]
    listed.client.close()


def test_a_long_range_is_listed_in_a_few_requests(bucket):
    fill(bucket)
    listed = Listed()
    source = S3(f"s3://{BUCKET}/team", listed.client)
    since, until = datetime(2000, 1, 1, 1, tzinfo=timezone.utc), DAY + timedelta(hours=5)
    assert len(list(read_logs([source], since, until))) == 2 * 5
    assert len(listed.prefixes) < 100
    listed.client.close()


def test_the_fewest_folders_have_every_hour_and_no_other():
    since = datetime(2024, 12, 30, 22, 59, tzinfo=timezone.utc)
    found = list(spans(since, datetime(2026, 2, 2, 1, tzinfo=timezone.utc)))
    assert found == [
        *("2024/12/30/22/", "2024/12/30/23/", "2024/12/31/", "2025/", "2026/01/", "2026/02/01/"),
        *("2026/02/02/00/", "2026/02/02/01/"),
    ]


def test_an_end_beyond_all_time_is_now(bucket, capsys):
    bucket(key(datetime.now(timezone.utc), "a"), pack([make(1, datetime.now(timezone.utc))]))
    far = ["--since", "1h", "--until", "9999-12-31T23:59Z", "--format", "json"]
    assert main(["logs", "report", f"s3://{BUCKET}/team", *far]) == 0
    assert json.loads(capsys.readouterr().out)[0]["requests"] == 1


def test_without_a_range_all_is_read_and_bodies_and_checks_are_not(bucket):
    fill(bucket)
    found = list(read_logs([open_source(f"s3://{BUCKET}/team")]))
    assert len(found) == 48
    assert ids(read_logs([open_source(f"s3://{BUCKET}/{key(DAY, 'a')}")])) == ["r-0"]
    assert len(list(read_logs([open_source(f"s3://{BUCKET}/{BASE}/us-east-1/2026/11/20/07")]))) == 1


def test_keys_of_another_layout_are_read_as_well(bucket):
    bucket("copied/one.jsonl", pack([make(1)]))
    assert ids(read_logs([open_source(f"s3://{BUCKET}/copied")], since=DAY)) == ["r-1"]


def test_a_range_leaves_out_nothing_that_stands_beside_the_layout(bucket):
    """Another team's logs, a job's output, a copied file; of the logs only what is of the range."""
    now = datetime.now(timezone.utc)
    for number, at in enumerate((now, now - timedelta(days=9))):
        bucket(key(at, "a").removeprefix("team/"), pack([make(number, at)]))
        bucket(key(at, "a"), pack([make(10 + number, at)]))
    answer = {"usage": {"input_tokens": 20, "output_tokens": 1}}
    line = {"recordId": "CALL0000000", "modelInput": {}, "modelOutput": answer}
    bucket("out/abcdefghijkl/in.jsonl.out", json.dumps(line).encode())
    bucket("copied.jsonl", pack([make(30, now)]))
    bucket("AWSLogs/111122223333/CloudTrail/us-east-1/x.json.gz", pack([{"Records": [{}]}]))
    found = read_logs([open_source(f"s3://{BUCKET}")], now - timedelta(hours=1), None, pytest.fail)
    assert sorted(each.read_usage().input_tokens for each in found) == [0, 10, 20, 30]


def test_an_off_loaded_body_is_fetched_where_counts_need_it(bucket):
    body = {"usage": {"inputTokens": 3, "outputTokens": 4}}
    path = f"{BASE}/us-east-1/2026/11/20/00/data/r-1_output.json.gz"
    bucket(path, gzip.compress(json.dumps(body).encode()))
    there = {"outputBodyS3Path": f"s3://{BUCKET}/{path}"}
    gone = {"outputBodyS3Path": f"s3://{BUCKET}/{path}x"}
    bucket(key(DAY, "a"), pack([make(1, input={}, output=there), make(2, input={}, output=gone)]))
    first, second = read_logs([open_source(f"s3://{BUCKET}/team")])
    assert first.read_usage().output_tokens == 4
    assert second.read_usage() is None


CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def elsewhere(number, path):
    """Make a record that lacks its output's count, which its body has."""
    return make(
        number,
        operation="InvokeModel",
        modelId=CLAUDE,
        input={"inputTokenCount": 10, "cacheWriteInputTokenCount": 500},
        output={"outputBodyS3Path": path},
    )


def test_a_record_waits_for_a_body_that_cannot_be_had_now(bucket, tmp_path, capsys):
    records = [elsewhere(1, "s3://other-bucket/r-1.json"), make(2), make(3)]
    bucket(key(DAY, "a"), pack(records))
    command = ["logs", "ingest", f"s3://{BUCKET}/team", "--checkpoint", str(tmp_path / "c")]
    with Receiver() as receiver:
        command += ["--otlp-endpoint", receiver.url]
        assert main(command) == 3
        err = capsys.readouterr().err
        assert "s3://other-bucket/r-1.json" in err
        assert "NoSuchBucket" in err
        assert "1 objects to be read again" in err
        assert sums(receiver) == {"input_tokens": 5, "output_tokens": 4}
        assert main(["logs", "report", f"s3://{BUCKET}/team"]) == 3
        assert "NoSuchBucket" in capsys.readouterr().err
        client = boto3.client("s3")
        client.create_bucket(Bucket="other-bucket")
        split = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 500}
        told = {"input_tokens": 10, "output_tokens": 77, "cache_creation_input_tokens": 500}
        body = json.dumps({"usage": {**told, "cache_creation": split}})
        client.put_object(Bucket="other-bucket", Key="r-1.json", Body=body.encode())
        client.close()
        assert main(command) == 0
        written = {"cache_write.input_tokens": 500}
        assert sums(receiver) == {"input_tokens": 515, "output_tokens": 81, **written}
        assert main(command) == 0
        assert "0 records of 0 objects" in capsys.readouterr().err


def test_bodies_that_are_not_there_are_named_once_for_each_object(bucket, tmp_path, capsys):
    gone = [elsewhere(number, f"s3://{BUCKET}/gone/{number}.json") for number in range(3)]
    bucket(key(DAY, "a"), pack([*gone, make(4)]))
    command = ["logs", "ingest", f"s3://{BUCKET}/team", "--checkpoint", str(tmp_path / "c")]
    with Receiver() as receiver:
        command += ["--otlp-endpoint", receiver.url]
        assert main(command) == 3
        err = capsys.readouterr().err
        assert err.count("counts of an off-loaded body are unknown") == 1
        assert f"s3://{BUCKET}/gone/0.json" in err
        written = {"cache_write.input_tokens": 1_500}
        assert sums(receiver) == {"input_tokens": 3 * 510 + 4, "output_tokens": 2, **written}
        assert main(command) == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s3://", "expected s3://bucket or s3://bucket/prefix"),
        ("s3://no-such-bucket/x", "is the bucket's name right"),
        ("cloudwatch:", "expected cloudwatch:LOG_GROUP"),
        ("cloudwatch:/no/such/group", "are its name and the Region right"),
    ],
)
@pytest.mark.parametrize("back", [None, 3, 300])
def test_a_source_that_is_not_there_says_what_to_look_at(text, says, back, aws):
    since = None if back is None else datetime.now(timezone.utc) - timedelta(hours=back)
    with pytest.raises(SourceError, match=says):
        list(read_logs([open_source(text)], since))


def test_a_log_group_is_read_by_time(group):
    now = datetime.now(timezone.utc)
    hours = [now - timedelta(hours=back) for back in (5, 3, 1)]
    group("Permissions are correctly set for Amazon Bedrock logs.", at=hours[0])
    for number, at in enumerate(hours):
        group(make(number, at), at=at)
    assert ids(read_logs([open_source(f"cloudwatch:{GROUP}")])) == ["r-0", "r-1", "r-2"]
    since, until = now - timedelta(hours=4), now - timedelta(hours=2)
    assert ids(read_logs([open_source(f"cloudwatch:{GROUP}")], since, until)) == ["r-1"]


def test_a_log_group_is_asked_for_no_time_before_its_first_event(group):
    now = datetime.now(timezone.utc)
    at = now - timedelta(hours=30)
    group(make(1, at), at=at)
    source = CloudWatch(f"cloudwatch:{GROUP}")
    found = list(source.objects(datetime(2020, 1, 1, tzinfo=timezone.utc), None))
    assert 31 <= len(found) <= 32
    assert found[0].hour == at.replace(minute=0, second=0, microsecond=0)
    # The last day is asked for whatever the streams say by now; a full hour ends before the next.
    hour = now.replace(minute=0, second=0, microsecond=0)
    (one,) = source.objects(hour - timedelta(hours=3), hour - timedelta(hours=2))
    assert one.hour == hour - timedelta(hours=3)
    assert list(source.objects(hour, hour)) == []


def test_an_hour_of_a_log_group_is_whole_when_nothing_can_come_any_more(group):
    now = datetime.now(timezone.utc)
    since = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=10)
    found = list(CloudWatch(f"cloudwatch:{GROUP}").objects(since, None))
    assert [each.mark for each in found] == ["whole"] * 4 + [None] * (len(found) - 4)
    cut = list(CloudWatch(f"cloudwatch:{GROUP}").objects(since + timedelta(minutes=1), None))
    assert cut[0].mark is None


def test_an_arn_names_the_region():
    source = CloudWatch("cloudwatch:arn:aws:logs:eu-west-1:111122223333:log-group:/a/b:*")
    assert source._region == "eu-west-1"
    assert source._group == {
        "logGroupIdentifier": "arn:aws:logs:eu-west-1:111122223333:log-group:/a/b"
    }


def test_an_empty_log_group_gives_nothing(group):
    assert list(read_logs([open_source(f"cloudwatch:{GROUP}")])) == []


def sums(receiver):
    usage = "gen_ai.client.inference.usage."
    found = Counter()
    for point in receiver.latest():
        if point.metric.startswith(usage):
            found[point.metric.removeprefix(usage)] += point.value
    return found


def test_a_bucket_is_followed_late_objects_and_second_copies_included(bucket, tmp_path):
    now = datetime.now(timezone.utc)
    bucket(key(now, "a"), pack([make(1, now), make(2, now)]))
    rounds = [
        # Late, in an hour that is over; with a second copy of a record.
        (key(now - timedelta(hours=2), "late"), [make(3, now), make(1, now)]),
        (key(now, "b"), [make(4, now)]),
    ]

    def moved(tally):
        if rounds and tally.records >= 2:
            name, records = rounds.pop(0)
            bucket(name, pack(records))

    store = SQLiteCheckpoint(tmp_path / "c")
    with Receiver() as receiver:
        watcher = Watcher(stopping=lambda: made.tally.records >= 4, moved=moved)
        plan = Plan([open_source(f"s3://{BUCKET}/team")], overlap=timedelta(hours=3))
        made = Ingest(plan, store, OtlpOutlet(receiver.url, patience=5.0), watcher=watcher)
        tally = made.follow(0.05)
        made.close()
        assert (tally.records, tally.duplicates) == (4, 1)
        assert sums(receiver) == {"input_tokens": 10, "output_tokens": 8}
    store.close()


def test_a_log_group_is_followed_as_a_live_tail(group, tmp_path):
    group(make(1, datetime.now(timezone.utc)))
    later = [make(2, datetime.now(timezone.utc)), make(3, datetime.now(timezone.utc))]

    def moved(tally):
        if later and tally.records:
            group(later.pop(0))

    store = SQLiteCheckpoint(tmp_path / "c")
    with Receiver() as receiver:
        watcher = Watcher(stopping=lambda: made.tally.records >= 3, moved=moved)
        plan = Plan([open_source(f"cloudwatch:{GROUP}")])
        made = Ingest(plan, store, OtlpOutlet(receiver.url, patience=5.0), watcher=watcher)
        made.follow(0.05)
        made.close()
        assert sums(receiver) == {"input_tokens": 6, "output_tokens": 6}
    store.close()


def test_follow_finishes_each_hour_of_a_log_group_and_nobody_undoes_it(
    group, tmp_path, monkeypatch
):
    """Only the ids of what is done are forgotten."""
    now = datetime.now(timezone.utc)
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=7)
    group(make(1, hour), at=hour + timedelta(minutes=20))
    name = f"cloudwatch:{GROUP}/{hour:%Y-%m-%dT%H}Z"
    monkeypatch.setattr(ingest_module, "_LOOK_EVERY", 0.0)
    passes = []

    class Counted(CloudWatch):
        def objects(self, since, until):
            passes.append(since)
            return super().objects(since, until)

    store = SQLiteCheckpoint(tmp_path / "c")
    with Receiver() as receiver:

        def start(**more):
            watcher = Watcher(stopping=lambda: len(passes) >= 3)
            plan = Plan([Counted(f"cloudwatch:{GROUP}")], **more)
            return Ingest(plan, store, OtlpOutlet(receiver.url, patience=5.0), watcher=watcher)

        made = start()
        made.follow(0.0)
        made.close()
        assert store.place(name).done
        passes.clear()
        made = start(since=hour + timedelta(minutes=10))
        made.run()
        made.close()
        assert store.place(name).done
        assert sums(receiver) == {"input_tokens": 1, "output_tokens": 2}
    store.close()


def test_the_command_reads_both_and_counts_a_call_once(bucket, group, tmp_path, capsys):
    now = datetime.now(timezone.utc)
    bucket(key(now, "a"), pack([make(1, now), make(2, now)]))
    group(make(2, now), make(3, now))
    with Receiver() as receiver:
        command = ["logs", "ingest", f"s3://{BUCKET}/team", f"cloudwatch:{GROUP}"]
        command += ["--since", "2h", "--checkpoint", str(tmp_path / "c")]
        assert main([*command, "--otlp-endpoint", receiver.url]) == 0
        assert "3 records" in capsys.readouterr().err
        assert sums(receiver) == {"input_tokens": 6, "output_tokens": 6}
