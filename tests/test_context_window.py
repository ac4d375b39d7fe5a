"""How much a model takes: by a table, and unknown where it is not in it."""

from __future__ import annotations

import sys

import pytest

from otel_bedrock.context_window import WINDOWS, context_window, max_output, window_of
from otel_bedrock.model_id import parse

ARN = "arn:aws:bedrock:us-east-1:123456789012:"


@pytest.mark.parametrize(
    ("model", "context", "output"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 200_000, 64_000),
        (f"{ARN}inference-profile/us.anthropic.claude-opus-4-6-v1", 1_000_000, 128_000),
        ("global.anthropic.claude-haiku-5-5", 1_000_000, 128_000),
        ("anthropic.claude-3-haiku-20240307-v1:0:48k", 200_000, 4_096),
        ("amazon.nova-lite-v1:0", 300_000, 5_000),
        ("openai.gpt-oss-120b-1:0", 128_000, None),
        ("anthropic.claude-opus-9", None, None),
        ("amazon.nova-lite-v2:0", None, None),
        (f"{ARN}provisioned-model/abc", None, None),
        ("", None, None),
    ],
)
def test_a_window_is_that_of_the_base_model_or_unknown(model, context, output):
    assert (context_window(model), max_output(model)) == (context, output)
    assert context_window(parse(model)) == context


@pytest.mark.skipif(sys.version_info < (3, 11), reason="genai-prices needs Python 3.11")
def test_no_row_says_other_than_the_price_library_where_both_know():
    from genai_prices.data_snapshot import get_snapshot

    provider = next(each for each in get_snapshot().providers if each.id == "aws")
    used, checked = set(), 0
    for entry in provider.models:
        row = window_of(entry.id.replace("regional.", "").replace("global.", ""))
        if row is not None and entry.context_window is not None:
            assert row.context == entry.context_window, entry.id
            used.add(row)
            checked += 1
    assert checked > 60
    # Older ones that the library does not have.
    assert len(set(WINDOWS) - used) <= 3
