"""Prompt caching: which prefixes of a prompt were seen before, and until when."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from threading import Lock
from time import monotonic

from otel_bedrock.testing.cost import Cost
from otel_bedrock.testing.prompt import Prompt, Segment

_SECONDS = {"5m": 300.0, "1h": 3600.0}


class PromptCache:
    """Prefixes by model; a read renews the life of what it reads.

    Bedrock ignores checkpoints under about a thousand tokens; here `minimum` is 0, so that
    small prompts can show caching.
    """

    def __init__(self, minimum: int = 0, clock: Callable[[], float] = monotonic) -> None:
        self.minimum = minimum
        self._clock = clock
        self._lock = Lock()
        self._until: dict[bytes, float] = {}

    def clear(self) -> None:
        with self._lock:
            self._until.clear()

    def charge(self, model: str, prompt: Prompt, implicit: bool) -> Cost:
        """Read the longest known prefix, write the marked ones beyond it."""
        segments = _mark_all(prompt.segments) if implicit else prompt.segments
        digest = blake2b(model.encode(), digest_size=16)
        points: list[tuple[bytes, int, str]] = []
        total = 0
        for segment in segments:
            digest.update(json.dumps(segment.content, sort_keys=True).encode())
            total += segment.tokens
            if segment.ttl is not None and total >= self.minimum:
                points.append((digest.digest(), total, segment.ttl))
        now = self._clock()
        read = 0
        writes: dict[str, int] = {}
        with self._lock:
            for key, tokens, ttl in points:
                if self._until.get(key, now) > now:
                    read = tokens
                    self._until[key] = now + _SECONDS.get(ttl, 300.0)
            done = read
            for key, tokens, ttl in points:
                if tokens > done:
                    writes[ttl] = writes.get(ttl, 0) + tokens - done
                    done = tokens
                    self._until[key] = now + _SECONDS.get(ttl, 300.0)
        return Cost(
            uncached=total - done,
            read=read,
            write=done - read,
            # Bedrock lists the longer life first.
            writes=tuple(sorted(writes.items(), key=lambda item: -_SECONDS.get(item[0], 300.0))),
        )


def _mark_all(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Models that cache unasked keep every prefix but the whole prompt."""
    kept = tuple(Segment(item.content, item.tokens, "5m") for item in segments[:-1])
    return kept + segments[-1:]
