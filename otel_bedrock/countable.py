"""TABLE: which models can be counted before a call, and where; and a memory of those that cannot.

CountTokens of bedrock-runtime knows foundation models by their bare ids. Claude models that are
served through inference profiles alone are counted on the bedrock-mantle endpoint instead.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

RUNTIME, MANTLE = "bedrock-runtime", "bedrock-mantle"

GUIDE = "https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html"
_LISTED = f"{GUIDE}, listed until it referred to the model cards"
_CARDS = "https://docs.aws.amazon.com/bedrock/latest/userguide/model-cards.html"
_SEEN = "https://github.com/BerriAI/litellm 1.109.1: its table of the models that AWS counts"
_DATE = "2026-10"

# Regions in which AWS documented CountTokens when its page still listed them; since then the
# model cards say it for each model. bedrock-mantle is where the model is.
REGIONS = (
    "us-east-1",
    "us-east-2",
    "us-west-2",
    "ap-northeast-1",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "eu-central-1",
    "eu-central-2",
    "eu-west-1",
    "eu-west-2",
    "sa-east-1",
)
REGIONS_SOURCE, REGIONS_DATE = _LISTED, "2025"

# What may follow the version in an id: a date, and `-v1:0` with or without `:0`.
_END = r"(-\d{8})?(-v\d+(:\d+)?)?$"


@dataclass(frozen=True, slots=True, eq=False)
class Countable:
    """One row: models whose base id matches `pattern`, and the endpoints to ask, in this order.

    A model that bedrock-runtime turns out not to count, where it has no bare id in a Region, is
    asked of the next endpoint. Rows without `source` are not documented: asking shows.
    """

    title: str
    pattern: str
    endpoints: tuple[str, ...]
    source: str = ""
    date: str = ""


_BOTH = (RUNTIME, MANTLE)

# First match wins.
TABLE = (
    Countable("Claude 3.5 Haiku", rf"anthropic\.claude-3-5-haiku{_END}", _BOTH, _LISTED, "2025"),
    Countable(
        "Claude 3.5 Sonnet, v1 and v2",
        rf"anthropic\.claude-3-5-sonnet{_END}",
        _BOTH,
        _LISTED,
        "2025",
    ),
    Countable("Claude 3.7 Sonnet", rf"anthropic\.claude-3-7-sonnet{_END}", _BOTH, _LISTED, "2025"),
    Countable("Claude Opus 4", rf"anthropic\.claude-opus-4{_END}", _BOTH, _LISTED, "2025"),
    Countable("Claude Sonnet 4", rf"anthropic\.claude-sonnet-4{_END}", _BOTH, _LISTED, "2025"),
    Countable("Claude Opus 4.1", rf"anthropic\.claude-opus-4-1{_END}", _BOTH, _SEEN, "2026-11"),
    Countable("Claude Sonnet 4.5", rf"anthropic\.claude-sonnet-4-5{_END}", _BOTH, _SEEN, "2026-11"),
    Countable("Claude Haiku 4.5", rf"anthropic\.claude-haiku-4-5{_END}", _BOTH, _SEEN, "2026-11"),
    Countable("Claude Opus 4.5", rf"anthropic\.claude-opus-4-5{_END}", _BOTH, _SEEN, "2026-11"),
    Countable("Claude Opus 4.6", rf"anthropic\.claude-opus-4-6{_END}", _BOTH, _SEEN, "2026-11"),
    Countable("Claude Sonnet 4.6", rf"anthropic\.claude-sonnet-4-6{_END}", _BOTH, _SEEN, "2026-11"),
    Countable(
        "Claude Opus 4.7, Opus 4.8",
        rf"anthropic\.claude-opus-4-[78]{_END}",
        (MANTLE,),
        _CARDS,
        _DATE,
    ),
    Countable(
        "Claude 5 and 5.5: Opus, Sonnet, Haiku, Fable",
        rf"anthropic\.claude-(opus|sonnet|haiku|fable)-5(-\d)?{_END}",
        (MANTLE,),
        _CARDS,
        _DATE,
    ),
    Countable("Claude Mythos", r"anthropic\.claude-mythos", (MANTLE,), _CARDS, _DATE),
    Countable("other Claude models", r"anthropic\.", _BOTH),
    Countable("every other model", r"", (RUNTIME,)),
)


def find(base_id: str) -> Countable:
    """Return the row of a foundation model's id."""
    return next(row for row in TABLE if re.match(row.pattern, base_id))


def mantle_name(base_id: str) -> str:
    """Return a model's name on bedrock-mantle: its base id without date and version."""
    return re.sub(_END, "", base_id)


# Answers by which bedrock-runtime and bedrock-mantle say that they do not count a model; the
# text is the only sign. Of the profiles' own message AWS has two spellings of the apostrophe.
_REJECTIONS = re.compile(
    r"support counting tokens|on-demand throughput isn.t supported"
    r"|does not support the '/anthropic/v1/messages' API",
    re.IGNORECASE,
)


def rejects(code: str, message: str) -> bool:
    """Say whether an error answers that this model is not counted here."""
    # 404: the model is not on this endpoint, or not any more.
    return code == "ResourceNotFoundException" or (
        code == "ValidationException" and _REJECTIONS.search(message) is not None
    )


class Memory:
    """Which models an endpoint does not count, each remembered for `seconds`.

    So that the answer is not asked for again with every prompt, and yet noticed when AWS adds a
    model. `clock` gives seconds that only grow.
    """

    MOST = 4096

    def __init__(self, seconds: float = 3600.0, clock: Callable[[], float] | None = None) -> None:
        self._seconds = seconds
        self._clock = clock or time.monotonic
        self._reasons: dict[tuple[str, str], tuple[float, str]] = {}

    def put(self, endpoint: str, model: str, reason: str) -> None:
        """Remember why `endpoint` does not count `model`."""
        if len(self._reasons) >= self.MOST:
            # Callers may make up any number of ids; what is forgotten costs one more request.
            self._reasons = {}
        self._reasons[endpoint, model] = (self._clock() + self._seconds, reason)

    def find(self, endpoint: str, model: str) -> str | None:
        """Return the reason where it is still remembered."""
        until, reason = self._reasons.get((endpoint, model), (0.0, None))
        return reason if reason is not None and self._clock() < until else None

    def clear(self) -> None:
        """Forget everything."""
        self._reasons = {}
