"""examples/lambda_logs.py: events of S3 that come twice, at once, and to functions that die."""

from __future__ import annotations

import importlib.util
import json
import warnings
from contextlib import closing
from pathlib import Path
from urllib.parse import quote_plus
from urllib.request import Request, urlopen

import boto3
import pytest
from account_month import BUCKET, write_month
from botocore.exceptions import ClientError

from otel_bedrock.receiver import Receiver

EXAMPLE = Path(__file__).parent.parent / "examples/lambda_logs.py"
USAGE = "gen_ai.client.inference.usage."


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("lambda_logs", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bucket(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer

        running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        running.start()
    host, port = running.get_host_and_port()
    # What it holds is the process's, and outlives the server.
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("STATE", "s3://state/ingest.sqlite")
    with closing(boto3.client("s3", region_name="us-east-1")) as client:
        client.create_bucket(Bucket=BUCKET)
        client.create_bucket(Bucket="state")
        yield client
    running.stop()


def put(bucket, folder):
    keys = []
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            keys.append(path.relative_to(folder).as_posix())
            bucket.put_object(Bucket=BUCKET, Key=keys[-1], Body=path.read_bytes())
    return keys


def event(*keys):
    return {
        "Records": [
            {"s3": {"bucket": {"name": BUCKET}, "object": {"key": quote_plus(key, safe="/")}}}
            for key in keys
        ]
    }


def sums(receiver):
    found = {}
    for point in receiver.latest():
        if point.metric.startswith(USAGE):
            name = point.metric.removeprefix(USAGE)
            found[name] = found.get(name, 0) + point.value
    return found


def expected(truth):
    total = truth.total()
    parts = (total.uncached, total.cache_read, total.cache_write)
    return {
        "input_tokens": sum(part or 0 for part in parts),
        "output_tokens": total.output,
        "cache_read.input_tokens": total.cache_read,
        "cache_write.input_tokens": total.cache_write,
    }


def test_every_object_counts_once_however_often_its_event_comes(
    example, bucket, tmp_path, monkeypatch
):
    truth = write_month(tmp_path, records=24, seed=3, trouble=False)
    keys = put(bucket, tmp_path)
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_BEDROCK_OTLP_ENDPOINT", receiver.url)
        done = [example.handler(event(key)) for key in keys]
        assert sum(each["records"] for each in done) == truth.calls
        assert sums(receiver) == expected(truth)
        for again in (event(*keys), event(keys[-1]), event("gone.json.gz"), {}):
            assert example.handler(again)["records"] == 0
        detail = {"bucket": {"name": BUCKET}, "object": {"key": keys[-1]}}
        assert example.handler({"detail": detail})["records"] == 0
        assert sums(receiver) == expected(truth)
        assert len(receiver.spans) == truth.calls


def test_a_function_that_dies_loses_and_doubles_nothing(example, bucket, tmp_path, monkeypatch):
    truth = write_month(tmp_path, records=24, seed=4, trouble=False)
    keys = put(bucket, tmp_path)
    half = len(keys) // 2

    def die(*_):
        raise MemoryError

    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_BEDROCK_OTLP_ENDPOINT", receiver.url)
        for place, names in ((example.State, "store"), (example.Held, "release")):
            with monkeypatch.context() as patch:
                patch.setattr(place, names, die)
                with pytest.raises(MemoryError):
                    example.handler(event(*keys[:half]))
            assert sums(receiver) == {}
        example.handler(event(*keys[:half]))
        example.handler(event(*keys[half:]))
        assert sums(receiver) == expected(truth)


def test_of_two_at_once_one_is_tried_again(example, bucket, tmp_path, monkeypatch):
    truth = write_month(tmp_path, records=24, seed=5, trouble=False)
    keys = put(bucket, tmp_path)
    half = len(keys) // 2
    store = example.State.store
    rivals = [event(*keys[half:])]

    def store_late(self, path):
        if rivals:
            example.handler(rivals.pop())
        store(self, path)

    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_BEDROCK_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setattr(example.State, "store", store_late)
        with pytest.raises(ClientError, match="PreconditionFailed"):
            example.handler(event(*keys[:half]))
        example.handler(event(*keys[:half]))
        assert sums(receiver) == expected(truth)


def test_an_event_comes_again_for_a_body_that_cannot_be_had_now(example, bucket, monkeypatch):
    record = {
        "schemaType": "ModelInvocationLog",
        "requestId": "r-1",
        "operation": "Converse",
        "modelId": "amazon.nova-pro-v1:0",
        "input": {"inputTokenCount": 10},
        "output": {"outputBodyS3Path": "s3://bodies/r-1.json"},
    }
    bucket.put_object(Bucket=BUCKET, Key="a.json", Body=json.dumps(record).encode())
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_BEDROCK_OTLP_ENDPOINT", receiver.url)
        with pytest.raises(RuntimeError, match="1 objects"):
            example.handler(event("a.json"))
        bucket.create_bucket(Bucket="bodies")
        body = json.dumps({"usage": {"inputTokens": 10, "outputTokens": 7}})
        bucket.put_object(Bucket="bodies", Key="r-1.json", Body=body.encode())
        assert example.handler(event("a.json"))["records"] == 1
        assert sums(receiver) == {"input_tokens": 10, "output_tokens": 7}
