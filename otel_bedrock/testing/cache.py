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
# Past so many prefixes, those that have ended are thrown away.
_MANY = 50_000


class PromptCache:
    """Prefixes by model; a read renews the life of what it reads.

    Bedrock ignores checkpoints under about a thousand tokens; here `minimum` is 0, so that
    small prompts can show caching.
    """

    def __init__(self, minimum: int = 0, clock: Callable[[], float] = monotonic) -> None:
        self.minimum = minimum
        self._clock = clock
        self._lock = Lock()
        # When each prefix ends, and for how long a read renews it.
        self._until: dict[bytes, tuple[float, float]] = {}

    def clear(self) -> None:
        with self._lock:
            self._until.clear()

    def charge(self, model: str, prompt: Prompt, *, implicit: bool) -> Cost:
        """Read the longest known prefix, write the marked ones beyond it.

        A prefix is found again although its mark has moved on, as in a growing conversation;
        Bedrock looks back for about twenty blocks, this looks at all.
        """
        segments = _mark_all(prompt.segments) if implicit else prompt.segments
        digest = blake2b(model.encode(), digest_size=16)
        points: list[tuple[bytes, int, str | None]] = []
        total = 0
        for segment in segments:
            digest.update(json.dumps(segment.content, sort_keys=True).encode())
            total += segment.tokens
            if total >= self.minimum:
                points.append((digest.digest(), total, segment.ttl))
        now = self._clock()
        read = 0
        writes: dict[str, int] = {}
        with self._lock:
            if len(self._until) > _MANY:
                self._until = {key: until for key, until in self._until.items() if until[0] > now}
            for key, tokens, _ in points:
                until, life = self._until.get(key, (now, 0.0))
                if until > now:
                    read = tokens
                    self._until[key] = (now + life, life)
            done = read
            for key, tokens, ttl in points:
                if ttl is not None and tokens > done:
                    writes[ttl] = writes.get(ttl, 0) + tokens - done
                    done = tokens
                    self._until[key] = (now + _seconds(ttl), _seconds(ttl))
        return Cost(
            uncached=total - done,
            read=read,
            write=done - read,
            # Bedrock lists the longer life first.
            writes=tuple(sorted(writes.items(), key=lambda item: -_seconds(item[0]))),
        )


def _seconds(ttl: str) -> float:
    return _SECONDS.get(ttl, 300.0)


def _mark_all(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Models that cache unasked keep every prefix but the whole prompt."""
    kept = tuple(Segment(item.content, item.tokens, "5m") for item in segments[:-1])
    return kept + segments[-1:]
