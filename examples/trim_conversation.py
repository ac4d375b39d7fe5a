"""A chat that never outgrows a limit: the oldest messages go, as few as have to.

    python examples/trim_conversation.py 400

Before each question the conversation is counted, which is free, and trimmed where it is too long.
What is left begins with a question of the user's, and no tool result loses its tool use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import boto3

from otel_bedrock import count_tokens
from otel_bedrock.trimming import Message, trim

MODEL = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
SYSTEM = [{"text": "You are the help desk of a bicycle shop. Be brief."}]
QUESTIONS = [
    f"Question {number}: what about gear {number}, in 40 words?" for number in range(1, 13)
]


def main() -> None:
    """Ask every question, with as much of the conversation as fits."""
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    client = boto3.client("bedrock-runtime")
    messages: list[Any] = []

    def count(part: Sequence[Message]) -> int:
        return count_tokens(client, modelId=MODEL, messages=part, system=SYSTEM).input_tokens

    for question in QUESTIONS:
        messages.append({"role": "user", "content": [{"text": question}]})
        trimmed = trim(messages, limit, count)
        if not trimmed.fits:
            sys.exit(f"this question alone has {trimmed.input_tokens} tokens: more than {limit}")
        del messages[: trimmed.dropped]
        answer = client.converse(modelId=MODEL, messages=messages, system=SYSTEM)
        messages.append(answer["output"]["message"])
        print(
            f"{answer['usage']['inputTokens']:>5} tokens sent"
            + (f", {trimmed.dropped} messages let go" if trimmed.dropped else "")
        )


if __name__ == "__main__":
    main()
