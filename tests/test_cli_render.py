"""Tokens by model and kind, rates, and the trace tree, from made-up received data."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console, RenderableType

from otel_bedrock.cli import top
from otel_bedrock.cli.render import make_console, tokens_table, trace_trees
from otel_bedrock.cli.tokens import ModelTokens, add_up, since, tokens_by_model
from otel_bedrock.received import Attributes, ReceivedPoint, ReceivedSpan, Temporality

USAGE = "gen_ai.client.inference.usage."
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
SECOND = 1_000_000_000


def point(
    kind: str,
    value: int,
    *,
    at: float = 10,
    start: float = 5,
    model: str = SONNET,
    temporality: Temporality = "cumulative",
    **more: str,
) -> ReceivedPoint:
    attributes: Attributes = {
        "gen_ai.request.model": model,
        **{name.replace("_", "."): value for name, value in more.items()},
    }
    return ReceivedPoint(
        metric=USAGE + kind,
        unit="{token}",
        kind="sum",
        temporality=temporality,
        attributes=attributes,
        value=value,
        count=None,
        sum=None,
        start_ns=int(start * SECOND),
        time_ns=int(at * SECOND),
        resource={},
        scope="otel_bedrock",
    )


def span(span_id: str, parent_id: str | None = None, **changes: object) -> ReceivedSpan:
    plain = ReceivedSpan(
        trace_id="t",
        span_id=span_id,
        parent_id=parent_id,
        name=span_id,
        kind="client",
        start_ns=0,
        end_ns=SECOND // 10,
        attributes={},
        status_code="unset",
        status_message="",
        events=(),
        resource={},
        scope="",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # whatever the test says


def drawn(*what: RenderableType, color: bool = False, width: int = 80) -> str:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
    )
    for one in what:
        console.print(one)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tokens_are_added_up_by_model_over_all_other_attributes() -> None:
    rows = tokens_by_model(
        [
            point("input_tokens", 100, model="b"),
            point("input_tokens", 10, model="a", gen_ai_operation="chat"),
            point("input_tokens", 7, model="a", gen_ai_operation="embeddings"),
            point("cache_write.input_tokens", 4, model="a", bedrock_cache_ttl="5m"),
            point("cache_write.input_tokens", 1, model="a", bedrock_cache_ttl="1h"),
            point("reasoning.output_tokens", 1000, model="a"),
        ]
    )
    assert rows == [ModelTokens("a", input=17, cache_write=5), ModelTokens("b", input=100)]


def test_the_split_of_the_input_adds_up_and_unknown_stays_unknown() -> None:
    row = ModelTokens("m", input=100, cache_read=60, cache_write=30, output=5)
    assert (row.uncached, row.total, row.hit_share) == (10, 105, 0.6)
    nothing = ModelTokens("m")
    assert (nothing.uncached, nothing.total, nothing.hit_share) == (None, 0, None)
    assert ModelTokens("m", input=5).hit_share is None
    assert ModelTokens("m", input=0, cache_read=0).hit_share is None
    total = add_up([row, ModelTokens("n", input=1)], "all")
    assert total == ModelTokens("all", input=101, cache_read=60, cache_write=30, output=5)
    assert add_up([nothing], "all").input is None


def test_usage_from_logs_is_never_summed_with_that_from_processes() -> None:
    rows = tokens_by_model(
        [
            point("input_tokens", 5),
            point("input_tokens", 5, bedrock_usage_origin="invocation_log"),
        ]
    )
    assert [(row.origin, row.input) for row in rows] == [("", 5), ("invocation_log", 5)]


@pytest.mark.parametrize(
    ("history", "gained"),
    [
        ([point("input_tokens", 30, at=12, start=11)], 30),
        ([point("input_tokens", 30, at=12, start=5)], 0),
        ([point("input_tokens", 30, at=12, start=5), point("input_tokens", 70, at=14)], 40),
        ([point("input_tokens", 30, at=9), point("input_tokens", 70, at=14)], 40),
        ([point("input_tokens", 70, at=14), point("input_tokens", 30, at=9)], 40),
        ([point("input_tokens", 30, at=9)], 0),
        (
            [
                point("input_tokens", 30, at=9),
                point("input_tokens", 7, at=12, start=11),
                point("input_tokens", 8, at=14, start=11),
            ],
            8,
        ),
        (
            [
                point("input_tokens", 1, at=9, temporality="delta"),
                point("input_tokens", 2, at=12, temporality="delta"),
                point("input_tokens", 4, at=14, temporality="delta"),
            ],
            6,
        ),
    ],
    ids=[
        "a new series began at zero",
        "an old one with an unknown base counts from its first value",
        "and grows from there",
        "a known base is subtracted",
        "in whatever order they came",
        "silence is no gain",
        "a restart counts from zero",
        "deltas add up",
    ],
)
def test_what_was_gained_since(history: list[ReceivedPoint], gained: int) -> None:
    rows = tokens_by_model(since(history, 10 * SECOND))
    assert sum(row.input or 0 for row in rows) == gained


def test_the_table_shows_kinds_that_add_up_with_rates() -> None:
    row = ModelTokens(SONNET, input=10_000, cache_read=7_500, cache_write=1_500, output=500)
    other = ModelTokens("amazon.titan-embed-text-v2:0", input=20)
    lines = drawn(tokens_table([other, row], [row], 10)).splitlines()
    cells = [line.rsplit(maxsplit=3) for line in lines[1:]]
    assert [(cell[0].strip(), *cell[1:]) for cell in cells] == [
        ("all models", "10,520", "1,050.0", "63,000"),
        ("input, uncached", "1,020", "100.0", "6,000"),
        ("cache read (75% of input)", "7,500", "750.0", "45,000"),
        ("cache write", "1,500", "150.0", "9,000"),
        ("output", "500", "50.0", "3,000"),
        (SONNET, "10,500", "1,050.0", "63,000"),
        ("input, uncached", "1,000", "100.0", "6,000"),
        ("cache read (75% of input)", "7,500", "750.0", "45,000"),
        ("cache write", "1,500", "150.0", "9,000"),
        ("output", "500", "50.0", "3,000"),
        ("amazon.titan-embed-text-v2:0", "20", "0.0", "0"),
        ("input, uncached", "20", "0.0", "0"),
    ]
    assert max(map(len, lines)) <= 80


SEVEN = [
    ModelTokens(f"us.amazon.nova-{size}-v1:0", input=size, cache_read=0, output=0)
    for size in range(1, 8)
]


@pytest.mark.parametrize(
    ("height", "shown"),
    [
        (40, 33),  # all of it
        (33, 33),
        (32, 12),  # the sum with its kinds, models without theirs
        (12, 12),
        (11, 11),
        (8, 8),
        (4, 4),
        (3, 3),
    ],
)
def test_what_does_not_fit_goes_from_the_end_and_the_sum_stays(height: int, shown: int) -> None:
    table = tokens_table(SEVEN, [], 10, height=height)
    lines = drawn(table, width=80).splitlines()
    names = [line.split("  ")[0] for line in lines[1:] if not line.startswith("  ")]
    models = [name for name in names if name.startswith("us.")]
    assert len(lines) <= height
    assert names[0] == "all models"
    # Who used most is there, and how many are not.
    assert models == [row.model for row in reversed(SEVEN)][: len(models)]
    more = 7 - len(models)
    assert (names[-1] == f"… and {more} more models") == (more > 0)
    assert len(lines) == shown


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (80, "tokens tokens/s tokens/min"),
        (64, "tokens tokens/min"),
        (44, "tokens tokens/min"),
        (36, "tokens"),
        (30, "tokens"),
    ],
)
def test_columns_go_before_names_are_broken(width: int, columns: str) -> None:
    row = ModelTokens(SONNET, input=10_000, cache_read=7_500, cache_write=1_500, output=500)
    lines = drawn(tokens_table([row], [row], 10, width=width), width=width).splitlines()
    assert lines[0].split() == ["model", "and", "kind", *columns.split()]
    assert max(map(len, lines)) <= width
    whole = width >= len(SONNET) + len("  10,500")
    assert lines[1].startswith(SONNET if whole else SONNET[:20])
    short = tokens_table([row], [row], 10, width=width, height=2)
    assert drawn(short, width=width).splitlines()[1].split()[1] == "10,500"


def test_the_picture_of_top_fits_its_terminal() -> None:
    receiver = SimpleNamespace(
        latest=lambda: [point("input_tokens", 5, model=f"m{number}") for number in range(9)],
        points=[],
        bad_requests=2,
        dropped_spans=1,
        dropped_series=0,
    )
    console = Console(file=io.StringIO(), width=30, height=10, force_terminal=True)
    picture = top._picture(receiver, 0, console, console.height)  # type: ignore[arg-type]
    lines = drawn(picture, width=30).splitlines()
    assert len(lines) == 10
    assert lines[1].split() == ["all", "models", "45"]
    assert lines[-1].endswith("dropped")


def test_one_model_has_no_sum_and_no_time_no_rate() -> None:
    out = drawn(tokens_table([ModelTokens("m", input=0)], [], 0))
    assert "all models" not in out
    assert out.splitlines()[1].split() == ["m", "0", "-", "-"]


def test_origins_are_told_apart_and_not_summed() -> None:
    rows = [ModelTokens("m", input=1), ModelTokens("m", input=1, origin="batch")]
    out = drawn(tokens_table(rows, rows, 1))
    assert "m [batch]" in out
    assert "all models" not in out


def test_the_tree_hangs_children_under_their_parents_in_the_order_of_time() -> None:
    out = drawn(
        *trace_trees(
            [
                span("late", "root", start_ns=5),
                span("early", "root", start_ns=1),
                span("root", end_ns=2 * SECOND),
                span("grandchild", "early", start_ns=2),
                span("orphan", "never arrived", start_ns=9),
            ]
        )
    )
    assert out.splitlines() == [
        "root  2.00 s",
        "├── early  100 ms",
        "│   └── grandchild  100 ms",
        "└── late  100 ms",
        "orphan  100 ms",
    ]


def test_a_span_shows_its_tokens() -> None:
    usage = {
        "gen_ai.usage.input_tokens": 12_345,
        "gen_ai.usage.cache_read.input_tokens": 12_000,
        "gen_ai.usage.cache_write.input_tokens": 0,
        "gen_ai.usage.output_tokens": 0,
    }
    out = drawn(*trace_trees([span("chat", attributes=usage)]))
    assert out.splitlines()[1] == "12,345 in (12,000 from cache), 0 out"


def test_an_error_is_red_and_named() -> None:
    failed = span("chat", status_code="error", attributes={"error.type": "ThrottlingException"})
    out = drawn(*trace_trees([failed]), color=True)
    assert "\x1b[31mchat" in out
    assert "\x1b[1;31mThrottlingException" in out


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = make_console()
    with console.capture() as capture:
        console.print("[plain] :smile:", style="red")
    assert capture.get().strip() == "[plain] :smile:"
