"""The same traffic live and by log: no difference; a call of the console's is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from stack import eventually

from otel_bedrock.invocation_logs.live import expression
from otel_bedrock.testing import FakeBedrock
from otel_bedrock.testing.invocation_log import CONSOLE

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "us.amazon.nova-lite-v1:0"
SERVICE = "reconciled"
PROGRAM = f"""
import boto3, json, otel_bedrock, os
otel_bedrock.instrument(otlp_endpoint=os.environ["COLLECTOR"])
client = boto3.client("bedrock-runtime", endpoint_url=os.environ["FAKE"], region_name="us-east-1")
hello = [{{"role": "user", "content": [{{"text": "Hello! What is new?"}}]}}]
system = [{{"text": "You are a helpful fake. " * 400}}, {{"cachePoint": {{"type": "default"}}}}]
for _ in range(5):
    client.converse(modelId="{CLAUDE}", messages=hello, system=system)
    list(client.converse_stream(modelId="{NOVA}", messages=hello)["stream"])
body = {{"anthropic_version": "bedrock-2023-05-31", "max_tokens": 60,
         "messages": [{{"role": "user", "content": "Hello!"}}]}}
for call in (client.invoke_model, client.invoke_model_with_response_stream):
    body_of = call(modelId="{CLAUDE}", body=json.dumps(body))["body"]
    list(body_of)
client.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=json.dumps({{"inputText": "x"}}))
try:
    client.converse(modelId="no model", messages=hello)
except Exception as error:
    print(type(error).__name__)
otel_bedrock.flush(timeout=20)
"""


def reconcile(stack, folder):
    command = [sys.executable, "-m", "otel_bedrock", "logs", "reconcile", str(folder)]
    chosen = ["--prometheus", stack.prometheus, "--match", f'service_name="{SERVICE}"']
    done = [
        subprocess.run(
            [*command, *chosen, "--format", how], capture_output=True, text=True, timeout=60
        )
        for how in ("json", "table")
    ]
    assert {each.stderr for each in done} == {""}
    assert len({each.returncode for each in done}) == 1
    return done[0].returncode, json.loads(done[0].stdout), done[1].stdout


@pytest.mark.timeout(300)
def test_live_and_logged_are_equal_and_a_playground_call_is_named(stack, tmp_path):
    with FakeBedrock() as bedrock:
        bedrock.log_to(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            text=True,
            timeout=120,
            env={
                **os.environ,
                "COLLECTOR": stack.otlp_http,
                "FAKE": bedrock.url,
                "OTEL_SERVICE_NAME": SERVICE,
                "AWS_ACCESS_KEY_ID": "fake",
                "AWS_SECRET_ACCESS_KEY": "fake",
            },
        )
        assert (done.returncode, done.stderr) == (0, "")
        bedrock.flush_log()
        totals = bedrock.totals()

        def equal():
            code, rows, table = reconcile(stack, tmp_path)
            assert code == 0, table
            return rows, table

        rows, table = eventually(equal, timeout=60, pause=1)
        assert "No difference: 3 models." in table
        assert {row["model"]: row["live_input_tokens"] for row in rows} == {
            model: total.input_tokens for model, total in totals.items() if total.input_tokens
        }
        (claude,) = [row for row in rows if row["model"] == CLAUDE]
        assert claude["logs_cache_read_tokens"] == totals[CLAUDE].cache_read_tokens > 0

        played = bedrock.playground(CLAUDE, "Say: what nobody measured")
        bedrock.flush_log()
        code, rows, table = reconcile(stack, tmp_path)
        assert code == 4
        different = [row for row in rows if row["difference_requests"]]
        assert {row["model"] for row in different} == {CLAUDE}
        for row in different:
            assert row["difference_requests"] == 1
            assert row["difference_input_tokens"] == played.input_tokens
            assert row["difference_output_tokens"] == played.output_tokens
            assert (row["callers"], row["certain"]) == ([CONSOLE], True)
        assert f"Exactly the calls of {CONSOLE}." in table


# Samples a minute apart, from 00:00 on; the hour that is asked for is 01:00 to 02:00.
CASES = """
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'm{gen_ai_request_model="grows",instance="a"}'
        values: '100+1x120'
      - series: 'm{gen_ai_request_model="begins",instance="a"}'
        values: '_x90 7x30'
      - series: 'm{gen_ai_request_model="ends",instance="a"}'
        values: '5x60 9 9 9'
      - series: 'm{gen_ai_request_model="rests",instance="a"}'
        values: '42x120'
      - series: 'm{gen_ai_request_model="gone",instance="a"}'
        values: '42x30'
      - series: 'm{gen_ai_request_model="two processes",instance="a"}'
        values: '10x90'
      - series: 'm{gen_ai_request_model="two processes",instance="b"}'
        values: '_x100 3 5'
    promql_expr_test:
      - expr: EXPRESSION
        eval_time: 2h
        exp_samples:
          - {labels: '{gen_ai_request_model="grows"}', value: 60}
          - {labels: '{gen_ai_request_model="begins"}', value: 7}
          - {labels: '{gen_ai_request_model="ends"}', value: 4}
          - {labels: '{gen_ai_request_model="rests"}', value: 0}
          - {labels: '{gen_ai_request_model="two processes"}', value: 5}
"""


def test_the_promql_is_exact_for_series_that_begin_and_end(stack, tmp_path):
    cases = tmp_path / "cases.yaml"
    cases.write_text(CASES.replace("EXPRESSION", json.dumps(expression("m", 3600))))
    done = subprocess.run(
        [stack.tools / "promtool", "test", "rules", cases], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
