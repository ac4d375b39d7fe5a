"""logs.yaml counts what Bedrock's invocation logs say, as a live call would have been counted."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from fleet import Fleet, send_log
from stack import direct, eventually

from otel_bedrock.invocation_logs import Record, open_source, read_logs
from otel_bedrock.model_id import parse
from otel_bedrock.testing import FakeBedrock

_USAGE = "gen_ai_client_inference_usage"
COUNTERS = {
    f"{_USAGE}_input_tokens_total": "input",
    f"{_USAGE}_output_tokens_total": "output",
    f"{_USAGE}_cache_read_input_tokens_total": "cache_read",
    f"{_USAGE}_cache_write_input_tokens_total": "cache_write",
    "bedrock_client_usage_missing_total": "missing",
}
LINE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ACCOUNT = "arn:aws:bedrock:us-east-1:123456789012"


class Reader(Fleet):
    """A collector of logs.yaml on a folder of its own."""

    def start(self) -> None:
        self.records = self.folder / "records"
        self.records.mkdir()
        self.logs = self.collector("logs", ["logs.yaml"], {"BEDROCK_LOGS_DIR": str(self.records)})

    def scrape(self):
        """Return labels and value of each counter's series."""
        with direct(f"http://{self.logs.environ['OTELCOL_PROMETHEUS_ENDPOINT']}/metrics", 5) as got:
            lines = got.read().decode().splitlines()
        found = [LINE.match(line) for line in lines if not line.startswith("#")]
        return [
            (one[1], dict(LABEL.findall(one[2])), float(one[3]))
            for one in found
            if one and one[1] in COUNTERS
        ]

    def totals(self):
        """Return what was counted by model and kind, without zeros."""
        told = Counter()
        for name, labels, value in self.scrape():
            assert labels["bedrock_usage_origin"] == "invocation_log"
            told[labels["gen_ai_request_model"], COUNTERS[name]] += int(value)
        return +told

    def write(self, name, records):
        path = self.records / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in records)
        data = text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.fixture
def reader(tools):
    with Reader() as started:
        yield started


def record(n, model="anthropic.claude-3-haiku-20240307-v1:0", operation="Converse", **more):
    made = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": "2026-11-20T10:00:00Z",
        "accountId": "123456789012",
        "region": "us-east-1",
        "requestId": f"00000000-0000-4000-8000-{n:012d}",
        "operation": operation,
        "modelId": model,
        "input": {},
        "output": {},
    }
    return made | more


def read_by_python(folder):
    """Return what the library's own reader makes of the same files."""
    told = Counter()
    for one in read_logs([open_source(str(folder))]):
        if isinstance(one, Record) and (usage := one.read_usage()) is not None:
            for kind in ("input", "output", "cache_read", "cache_write"):
                told[one.model.name, kind] += getattr(usage, f"{kind}_tokens") or 0
    return +told


def test_a_live_call_and_its_record_are_counted_alike(reader):
    """Every family, streams, cache, errors: the bill of the calls is what the collector counts."""
    with FakeBedrock() as bedrock:
        bedrock.log_to(reader.records)
        client = bedrock.client()
        say = [{"role": "user", "content": [{"text": "Hello! What is the capital of France?"}]}]
        system = [{"text": "You are a helpful fake. " * 400}, {"cachePoint": {"type": "default"}}]
        sonnet = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
        for _ in range(3):
            client.converse(modelId=sonnet, messages=say, system=system)
            list(client.converse_stream(modelId=sonnet, messages=say, system=system)["stream"])
        claude = {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 60,
            "messages": [{"role": "user", "content": "Hello!"}],
        }
        bodies = {
            sonnet: claude,
            "us.amazon.nova-lite-v1:0": {"messages": say},
            "amazon.titan-text-express-v1": {"inputText": "Hello!"},
            "us.meta.llama3-3-70b-instruct-v1:0": {"prompt": "Hello!"},
            "mistral.mistral-large-2402-v1:0": {"prompt": "<s>[INST] Hello! [/INST]"},
            "cohere.command-r-v1:0": {"message": "Hello!"},
            "openai.gpt-oss-120b-1:0": {"messages": [{"role": "user", "content": "Hello!"}]},
        }
        for model, body in bodies.items():
            client.invoke_model(modelId=model, body=json.dumps(body))["body"].read()
            answer = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
            list(answer["body"])
        titan = "amazon.titan-embed-text-v2:0"
        client.invoke_model(modelId=titan, body=json.dumps({"inputText": "Hello!"}))["body"].read()
        bedrock.flush_log()
        bill = bedrock.bill

    billed = Counter()
    for one in bill:
        name = parse(one.model_id).name
        for kind in ("input", "output", "cache_read", "cache_write"):
            billed[name, kind] += getattr(one, f"{kind}_tokens") or 0
    assert read_by_python(reader.records) == +billed
    assert len({model for model, _ in billed}) == 8
    assert sum(1 for key in billed if key[1] == "cache_read" and billed[key]) >= 1
    eventually(lambda: reader.totals() == +billed, timeout=30)


def test_records_as_bedrock_writes_them(reader):
    """Bare counts, counts only in the body, streams, no counts, errors, ARNs, junk between."""
    sonnet = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    counts = {
        "inputTokenCount": 1,
        "cacheReadInputTokenCount": 129_709,
        "cacheWriteInputTokenCount": 411,
    }
    converse = {"usage": {"inputTokens": 5, "outputTokens": 7, "cacheReadInputTokens": 100}}
    chunks = [
        {
            "type": "message_start",
            "message": {
                "usage": {
                    "input_tokens": 2,
                    "output_tokens": 1,
                    "cache_creation_input_tokens": 30,
                    "cache_creation": {
                        "ephemeral_5m_input_tokens": 10,
                        "ephemeral_1h_input_tokens": 20,
                    },
                }
            },
        },
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"outputTokenCount": 9}},
    ]
    reader.write(
        "AWSLogs/123456789012/BedrockModelInvocationLogs/us-east-1/2026/11/20/10/a.json.gz",
        [
            record(1, sonnet, input=counts, output={"outputTokenCount": 326}),
            record(2, f"global.{sonnet}", output={"outputBodyJson": converse}),
            "{ this is no JSON\n",
            record(
                3,
                f"{ACCOUNT}:inference-profile/us.{sonnet}",
                "InvokeModelWithResponseStream",
                input={"inputTokenCount": 2, "cacheWriteInputTokenCount": 30},
                output={"outputTokenCount": 9, "outputBodyJson": chunks},
            ),
            {"schemaType": "SomethingElse", "modelId": "x"},
            record(
                4,
                f"{ACCOUNT}:application-inference-profile/abc123",
                input={"inputTokenCount": 3},
                output={"outputTokenCount": 29},
            ),
            record(5, errorCode="ThrottlingException"),
            record(6, "no.such-model", errorCode="ValidationException"),
            record(7, "amazon.nova-canvas-v1:0", "InvokeModel"),
            record(8, input={"inputTokenCount": 0}, output={"outputTokenCount": 0}),
            record(
                13,
                "openai.gpt-6-v1:0",
                "InvokeModel",
                input={"inputTokenCount": 60},
                output={
                    "outputTokenCount": 8,
                    "outputBodyJson": {
                        "usage": {
                            "prompt_tokens": 100,
                            "completion_tokens": 8,
                            "prompt_tokens_details": {"cached_tokens": 40},
                        }
                    },
                },
            ),
        ],
    )
    reader.write("AWSLogs/x/data/1_output.json.gz", [record(9, input={"inputTokenCount": 10**6})])
    reader.write("AWSLogs/x/amazon-bedrock-logs-permission-check.json", [record(10)])
    # A record from anywhere else is the body of a log.
    send_log(reader.logs.grpc, json.dumps(record(11, input={"inputTokenCount": 1_000})))

    haiku = "anthropic.claude-3-haiku-20240307-v1:0"
    expected = {
        (sonnet, "input"): 130_121,
        (sonnet, "output"): 326,
        (sonnet, "cache_read"): 129_709,
        (sonnet, "cache_write"): 411,
        (f"global.{sonnet}", "input"): 105,
        (f"global.{sonnet}", "output"): 7,
        (f"global.{sonnet}", "cache_read"): 100,
        (f"us.{sonnet}", "input"): 32,
        (f"us.{sonnet}", "output"): 9,
        (f"us.{sonnet}", "cache_write"): 30,
        ("application-inference-profile/abc123", "input"): 3,
        ("application-inference-profile/abc123", "output"): 29,
        ("openai.gpt-6-v1:0", "input"): 100,
        ("openai.gpt-6-v1:0", "output"): 8,
        ("openai.gpt-6-v1:0", "cache_read"): 40,
        (haiku, "missing"): 1,
        ("other", "missing"): 1,
        (haiku, "input"): 1_000,
    }

    sent_as_log = {(haiku, "input"): 1_000}
    no_usage = {(haiku, "missing"): 1, ("other", "missing"): 1}
    wanted = read_by_python(reader.records)
    assert wanted | sent_as_log | no_usage == expected

    def told():
        assert reader.totals() == expected
        return True

    eventually(told, timeout=30)
    series = reader.scrape()
    split = {
        labels["bedrock_cache_ttl"]: value
        for name, labels, value in series
        if "cache_write" in name and labels["gen_ai_request_model"] == f"us.{sonnet}"
    }
    assert split == {"5m": 10, "1h": 20}
    for _, labels, _ in series:
        base = parse(labels["gen_ai_request_model"]).base_id
        assert labels.get("bedrock_model_base_id") == base
        assert "123456789012" not in repr(labels)

    # A restart goes on where it was: nothing is read twice, and new records are counted.
    reader.logs.stop()
    reader.write("later.jsonl", [record(12, input={"inputTokenCount": 44})])
    reader.logs.start()
    eventually(lambda: reader.totals() == {(haiku, "input"): 44}, timeout=30)


def test_the_recorded_logs(reader):
    """The five real records of the recordings, by the same rules."""
    folder = os.environ.get("OTEL_BEDROCK_RECORDINGS")
    if not folder:
        pytest.skip("OTEL_BEDROCK_RECORDINGS names no folder of recorded exchanges")
    (lines,) = Path(folder, "logs").glob("*.jsonl")
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(records) == 5
    reader.write("five.jsonl", records)
    wanted = Counter()
    for one in records:
        wanted[one["modelId"], "input"] += one["input"]["inputTokenCount"]
        wanted[one["modelId"], "output"] += one["output"]["outputTokenCount"]
    assert read_by_python(reader.records) == wanted
    eventually(lambda: reader.totals() == wanted, timeout=30)
