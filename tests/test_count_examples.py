"""The examples of counting run, and do what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from otel_bedrock.testing import FakeBedrock

EXAMPLES = Path(__file__).parent.parent / "examples"
HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.fixture
def bedrock():
    with FakeBedrock() as running:
        if not hasattr(running.client(), "count_tokens"):
            pytest.skip("the installed botocore has no CountTokens")
        yield running


def run(bedrock, name, *arguments, **environ):
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock.url,
            "AWS_ENDPOINT_URL_BEDROCK_MANTLE": bedrock.url,
            **environ,
        },
    )


def test_the_cheapest_model_is_asked(bedrock, tmp_path):
    prices = tmp_path / "prices.json"
    rates = {HAIKU: ("1", "5"), SONNET: ("0.1", "0.5")}
    table = {model: {"input": one, "output": two} for model, (one, two) in rates.items()}
    prices.write_text(json.dumps({"models": table}))
    done = run(bedrock, "choose_model.py", "How many?", OTEL_BEDROCK_PRICES=str(prices))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"asking {SONNET}" in done.stdout
    billed = bedrock.bill[-1]
    assert (billed.operation, billed.model_id) == ("Converse", SONNET)
    assert f"billed: {billed.input_tokens} input tokens" in done.stdout
    # Its count was what it was billed, and a model that cannot be counted is said.
    assert f"{SONNET}: {billed.input_tokens} tokens, at most $0.000" in done.stdout
    assert "us.anthropic.claude-opus-4-8: " in done.stdout
    assert "doesn't support counting tokens" in done.stdout


def test_a_conversation_stays_under_its_limit(bedrock):
    done = run(bedrock, "trim_conversation.py", "150")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    asked = [bill for bill in bedrock.bill if bill.operation == "Converse"]
    assert len(asked) == 12
    assert max(bill.input_tokens for bill in asked) <= 150
    sent = [int(number) for number in re.findall(r"(\d+) tokens sent", done.stdout)]
    assert sent == [bill.input_tokens for bill in asked]
    assert "messages let go" in done.stdout
    # It is trimmed no more than it has to be.
    assert min(sent[4:]) > 75


def test_a_question_that_never_fits_is_said(bedrock):
    done = run(bedrock, "trim_conversation.py", "10")
    assert done.returncode == 1
    assert "more than 10" in done.stderr
