"""Choose a model by price: count the prompt for each, and ask the cheapest that takes it.

    python examples/choose_model.py "Explain prompt caching in two sentences."

Counting is free. Tokens differ from model to model, so that the cheaper price per token is not
always the cheaper call. Prices are those of OTEL_BEDROCK_PRICES (a table of your own), else of
genai-prices (pip install 'otel-bedrock[cost]').
"""

from __future__ import annotations

import os
import sys
from decimal import Decimal
from typing import Any

import boto3

from otel_bedrock import TokenCountUnsupported, count_tokens
from otel_bedrock.call import Usage
from otel_bedrock.context_window import context_window
from otel_bedrock.pricing import GENAI_PRICES, open_prices, price

MODELS = (
    "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "us.anthropic.claude-opus-4-8",
    "us.amazon.nova-pro-v1:0",
)
MOST_OUTPUT = 300


def costs(client: Any, request: dict[str, Any]) -> dict[str, Decimal]:
    """Return what `request` would cost at most, for each model of which that is known."""
    prices = open_prices(os.environ.get("OTEL_BEDROCK_PRICES", GENAI_PRICES))
    found = {}
    for model in MODELS:
        try:
            tokens = count_tokens(client, modelId=model, **request).input_tokens
        except TokenCountUnsupported as error:
            print(f"{model}: {error.reason}")
            continue
        window = context_window(model)
        if window is not None and tokens + MOST_OUTPUT > window:
            print(f"{model}: {tokens:,} tokens do not fit its window of {window:,}")
            continue
        usage = Usage(input_tokens=tokens, output_tokens=MOST_OUTPUT)
        cost = price(usage, model, prices)
        # A model without a price is not free: it is left out.
        print(f"{model}: {tokens:,} tokens, at most {f'${cost.amount}' if cost else 'unknown'}")
        if cost is not None:
            found[model] = cost.amount
    return found


def main() -> None:
    """Count, choose, ask."""
    client = boto3.client("bedrock-runtime")
    request: dict[str, Any] = {
        "messages": [{"role": "user", "content": [{"text": " ".join(sys.argv[1:]) or "Hello!"}]}],
        "inferenceConfig": {"maxTokens": MOST_OUTPUT},
    }
    known = costs(client, request)
    if not known:
        sys.exit("no model has a known cost: set OTEL_BEDROCK_PRICES")
    chosen = min(known, key=lambda model: known[model])
    print(f"\nasking {chosen}")
    answer = client.converse(modelId=chosen, **request)
    print(answer["output"]["message"]["content"][0]["text"])
    print(f"billed: {answer['usage']['inputTokens']} input tokens")


if __name__ == "__main__":
    main()
