"""No code at all: opentelemetry-instrument in front of a Python program, and of the AWS CLI."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from otel_bedrock.receiver import Receiver
from otel_bedrock.testing import FakeBedrock

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"

PROGRAM = """
import boto3, json, os
client = boto3.client("bedrock-runtime", endpoint_url=os.environ["FAKE_BEDROCK"])
message = {"role": "user", "content": [{"text": "How many tokens is this?"}]}
print(json.dumps(client.converse(modelId=os.environ["MODEL"], messages=[message])["usage"]))
"""


def _run(auto_environment, command, bedrock, receiver):
    """Run a command under opentelemetry-instrument and return what it printed."""
    done = subprocess.run(
        [auto_environment / "opentelemetry-instrument", *command],
        capture_output=True,
        text=True,
        timeout=90,
        env={
            **os.environ,
            "PATH": f"{auto_environment}{os.pathsep}{os.environ['PATH']}",
            "FAKE_BEDROCK": bedrock.url,
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock.url,
            "MODEL": SONNET,
            "OTEL_SERVICE_NAME": "no-code",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_LOGS_EXPORTER": "none",
        },
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _check(receiver, bedrock, usage):
    (span,) = [span for span in receiver.spans if span.name.startswith("chat ")]
    (billed,) = bedrock.bill
    assert span.name == f"chat {SONNET}"
    assert span.resource["service.name"] == "no-code"
    for attribute, printed, cost in (
        ("gen_ai.usage.input_tokens", usage["inputTokens"], billed.input_tokens),
        ("gen_ai.usage.output_tokens", usage["outputTokens"], billed.output_tokens),
    ):
        assert span.attributes[attribute] == printed == cost
    sums = {point.metric: point.value for point in receiver.latest()}
    assert sums["gen_ai.client.inference.usage.input_tokens"] == billed.input_tokens
    assert sums["gen_ai.client.inference.usage.output_tokens"] == billed.output_tokens


@pytest.mark.timeout(900)
def test_a_program_without_a_line_of_ours_is_told(auto_environment, tmp_path):
    program = tmp_path / "app.py"
    program.write_text(PROGRAM)
    with FakeBedrock() as bedrock, Receiver() as receiver:
        usage = _run(auto_environment, ["python", program], bedrock, receiver)
        _check(receiver, bedrock, usage)


@pytest.mark.timeout(900)
def test_the_tokens_that_the_aws_cli_prints_are_the_tokens_on_its_span(auto_environment):
    """The command of AWS's article on token counts, with nothing but a prefix."""
    message = [{"role": "user", "content": [{"text": "What is Amazon Bedrock?"}]}]
    with FakeBedrock() as bedrock, Receiver() as receiver:
        command = ["aws", "bedrock-runtime", "converse", "--model-id", SONNET]
        command += ["--messages", json.dumps(message), "--output", "json"]
        answer = _run(auto_environment, command, bedrock, receiver)
        _check(receiver, bedrock, answer["usage"])
