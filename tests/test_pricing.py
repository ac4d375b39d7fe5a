"""What a call costs: exact by a source's rates, and unknown rather than wrong."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from otel_bedrock.call import Call, Outcome, Usage
from otel_bedrock.config import read_config
from otel_bedrock.invocation_logs.record import BATCH, MARK, Record
from otel_bedrock.invocation_logs.telling import Teller
from otel_bedrock.invocation_logs.totals import Totals
from otel_bedrock.model_id import parse
from otel_bedrock.pricing import open_prices, price, price_call
from otel_bedrock.testing import FakeBedrock, capture

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
ENTRY = {
    "input": "3.30",
    "output": "16.50",
    "cache_read": "0.33",
    "cache_write_5m": "4.125",
    "cache_write_1h": "6.60",
    "long_context": {"above": 200_000, "input": "6.60", "output": "24.75"},
    "flex": {"input": "1.65", "output": "8.25"},
    "batch": {"input": "1", "output": "2"},
}
TABLE = {"source": "contract 7", "date": "2026-11-01", "models": {SONNET: ENTRY}}
PLAIN = Usage(input_tokens=1000, output_tokens=100)
CACHED = Usage(
    input_tokens=1000,
    output_tokens=100,
    cache_read_tokens=200,
    cache_write_tokens=300,
    cache_write_5m_tokens=100,
    cache_write_1h_tokens=200,
    uncached_tokens=500,
)

needs_library = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="genai-prices needs Python 3.11"
)


def amount(usage, model, prices=TABLE, **how):
    cost = price(usage, model, prices, **how)
    return None if cost is None else cost.amount


def test_each_kind_of_token_is_billed_at_its_own_rate():
    cost = price(CACHED, SONNET, TABLE)
    assert cost.parts == {
        "input": Decimal("0.00165"),
        "output": Decimal("0.00165"),
        "cache_read": Decimal("0.000066"),
        "cache_write_5m": Decimal("0.0004125"),
        "cache_write_1h": Decimal("0.00132"),
    }
    assert cost.amount == sum(cost.parts.values()) == Decimal("0.0050985")
    assert (cost.source, cost.date, cost.currency) == ("contract 7", "2026-11-01", "USD")


@given(
    st.tuples(*[st.integers(0, 2**53 - 1)] * 3),
    st.tuples(*[st.decimals(0, 1000, places=8, allow_nan=False)] * 3),
)
def test_the_sum_is_exact_at_any_size(counts, rates):
    uncached, read, output = counts
    usage = Usage(input_tokens=uncached + read, output_tokens=output, cache_read_tokens=read)
    entry = dict(zip(("input", "cache_read", "output"), map(str, rates), strict=True))
    cost = amount(usage, "a.b", {"models": {"a.b": entry}})
    scaled = sum(count * int(rate.scaleb(8)) for count, rate in zip(counts, rates, strict=True))
    assert cost.scaleb(14) == scaled


def test_a_model_without_a_price_has_no_cost_and_a_free_one_costs_nothing():
    assert amount(PLAIN, "amazon.nova-lite-v1:0") is None
    free = {"models": {SONNET: {"input": 0, "output": 0}}}
    assert amount(PLAIN, SONNET, free) == 0
    assert amount(Usage(input_tokens=0, output_tokens=0), SONNET) == 0


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(input_tokens=10),
        Usage(output_tokens=10),
        Usage(input_tokens=10, output_tokens=1, cache_read_tokens=11),
    ],
)
def test_a_count_that_was_not_reported_leaves_the_cost_unknown(usage):
    assert amount(usage, SONNET) is None


def test_an_embedding_has_no_output_to_pay_for():
    assert amount(Usage(input_tokens=10), "a.b", {"models": {"a.b": {"input": "1"}}}) is not None


def test_a_cache_write_of_unknown_ttl_costs_only_where_the_ttls_cost_the_same():
    usage = Usage(input_tokens=10, output_tokens=0, cache_write_tokens=10)
    assert amount(usage, SONNET) is None
    same = {"models": {SONNET: {**ENTRY, "cache_write_1h": "4.125"}}}
    assert amount(usage, SONNET, same) == Decimal("0.00004125")
    whatever = {"models": {SONNET: {"input": 1, "output": 1, "cache_write": 2}}}
    assert amount(usage, SONNET, whatever) == Decimal("0.00002")
    assert amount(CACHED, SONNET, {"models": {SONNET: {"input": 1, "output": 1}}}) is None


def test_tiers_and_batch_have_prices_of_their_own_or_none():
    assert amount(PLAIN, SONNET) == Decimal("0.00495")
    assert amount(PLAIN, SONNET, tier="default", latency="standard") == Decimal("0.00495")
    assert amount(PLAIN, SONNET, tier="flex") == Decimal("0.002475")
    assert amount(PLAIN, SONNET, batch=True) == Decimal("0.0012")
    assert amount(PLAIN, SONNET, tier="priority") is None
    assert amount(PLAIN, SONNET, latency="optimized") is None
    assert amount(PLAIN, SONNET, tier="flex", batch=True) is None
    assert amount(PLAIN, SONNET, tier="of-tomorrow") is None


def test_a_long_context_is_priced_as_a_whole():
    at, above = (Usage(input_tokens=count, output_tokens=0) for count in (200_000, 200_001))
    assert amount(at, SONNET) == Decimal("0.66")
    assert amount(above, SONNET) == Decimal("1.3200066")


def test_the_id_as_called_comes_before_the_bare_one():
    table = {"models": {SONNET: {"input": 1, "output": 0}, f"eu.{SONNET}": {"input": 2}}}
    usage = Usage(input_tokens=1_000_000, output_tokens=0)
    assert amount(usage, SONNET, table) == 1
    assert amount(usage, f"us.{SONNET}", table) == 1
    assert amount(usage, f"eu.{SONNET}", table) == 2
    prefix = "arn:aws:bedrock:eu-west-1:123456789012:"
    assert amount(usage, f"{prefix}inference-profile/eu.{SONNET}", table) == 2
    assert amount(usage, f"{prefix}custom-model/{SONNET}/abc", table) is None
    opaque = {"models": {"provisioned-model/abc": {"input": 3}}}
    assert amount(usage, f"{prefix}provisioned-model/abc", opaque) == 3


def test_a_file_is_read_exactly(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text('{"models": {"a.b": {"input": 0.1, "output": 0.30000000000000004}}}')
    assert amount(Usage(input_tokens=3, output_tokens=0), "a.b", path) == Decimal("3E-7")
    cost = price(Usage(input_tokens=0, output_tokens=1), "a.b", str(path))
    assert cost.amount == Decimal("3.0000000000000004E-7")
    assert (cost.source, cost.date) == ("prices.json", None)


def test_a_function_is_asked_and_may_fail(caplog):
    asked = []

    def ours(question):
        asked.append(question)
        return {"batch": {"input": "2", "output": 0}} if question.batch else None

    assert amount(PLAIN, SONNET, ours) is None
    assert amount(PLAIN, SONNET, ours, batch=True, region="eu-west-1") == Decimal("0.002")
    assert (asked[1].model.name, asked[1].input_tokens, asked[1].region) == (
        SONNET,
        1000,
        "eu-west-1",
    )

    def broken(question):
        raise KeyError("secret")

    prices = open_prices(broken)
    assert amount(PLAIN, SONNET, prices) is amount(PLAIN, SONNET, prices) is None
    assert [record.getMessage() for record in caplog.records] == [
        "no cost where the function broken fails: KeyError"
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"models": []}, "prices.models: expected an object"),
        ({"model": {}}, "prices.model: no such key; known are source, date, models"),
        ({"models": {}, "date": 3}, "prices.date: expected a text, got 3"),
        ({"models": {"a.b": 3}}, "prices.models['a.b']: expected an object, got int"),
        ({"models": {"a.b": {"inputs": 3}}}, "prices.models['a.b'].inputs: no such key"),
        ({"models": {"a.b": {"input": "x"}}}, "prices.models['a.b'].input: expected US dollars"),
        ({"models": {"a.b": {"input": -1}}}, "prices.models['a.b'].input: expected US dollars"),
        ({"models": {"a.b": {"input": float("nan")}}}, "prices.models['a.b'].input: expected"),
        ({"models": {"a.b": {"flex": {"output": True}}}}, "['a.b'].flex.output: expected US"),
        ({"models": {"a.b": {"flex": {"flex": {}}}}}, "prices.models['a.b'].flex.flex: no such"),
        (
            {"models": {"a.b": {"long_context": {"input": 1}}}},
            "prices.models['a.b'].long_context.above: expected a whole number of tokens, got None",
        ),
        (3, "prices: expected 'genai-prices', a JSON file's path, a mapping or a function; got 3"),
        ("nowhere.json", "prices: 'nowhere.json' cannot be read (No such file or directory)"),
    ],
)
def test_a_wrong_table_says_where_it_is_wrong(table, message):
    with pytest.raises(ValueError) as caught:
        open_prices(table)
    assert message in str(caught.value)


def test_a_tier_that_was_asked_for_and_not_confirmed_has_no_cost():
    prices, now = open_prices(TABLE), datetime.now(timezone.utc)

    def cost(asked, **told):
        call = Call("Converse", "chat", parse(SONNET), parameters=asked)
        found = price_call(call, Outcome(usage=PLAIN, **told), prices, now)
        return None if found is None else found.amount

    assert cost({}) == Decimal("0.00495")
    assert cost({"service_tier": "flex"}) is None
    assert cost({"service_tier": "flex"}, service_tier="flex") == Decimal("0.002475")
    assert cost({"service_tier": "flex"}, service_tier="default") == Decimal("0.00495")
    assert cost({"latency_mode": "optimized"}) is None
    assert cost({"latency_mode": "optimized"}, latency_mode="standard") == Decimal("0.00495")


@needs_library
def test_the_library_tells_global_from_other_profiles():
    prices = open_prices("genai-prices")
    assert prices.source.startswith("genai-prices ")
    assert datetime.fromisoformat(prices.date)
    assert amount(PLAIN, f"global.{SONNET}", prices) == Decimal("0.0045")
    assert amount(PLAIN, f"us.{SONNET}", prices) == Decimal("0.00495")
    assert amount(PLAIN, SONNET, prices) == Decimal("0.00495")
    assert amount(CACHED, f"us.{SONNET}", prices) == Decimal("0.0050985")


@needs_library
@pytest.mark.parametrize(
    ("model", "how"),
    [
        (f"us.{SONNET}", {"tier": "flex"}),
        (f"us.{SONNET}", {"tier": "priority"}),
        (f"us.{SONNET}", {"latency": "optimized"}),
        (f"us.{SONNET}", {"batch": True}),
        ("amazon.nova-lite-v2:0", {}),
        ("amazon.nova-2-sonic-v1:0", {}),
        ("acme.unheard-of-v1:0", {}),
        (PROFILE, {}),
        ("arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc", {}),
        (f"arn:aws:bedrock:us-east-1:123456789012:custom-model/{SONNET}/abc", {}),
    ],
)
def test_the_library_gives_no_price_that_it_cannot_tell(model, how):
    assert price(PLAIN, model, "genai-prices", **how) is None


@needs_library
def test_a_profile_of_unknown_geography_has_a_price_only_where_all_agree():
    from otel_bedrock.model_id import resolve

    def resolved(base):
        return resolve(parse(PROFILE), {"abc": base})

    assert amount(PLAIN, resolved(SONNET), "genai-prices") is None
    assert amount(PLAIN, resolved("amazon.nova-lite-v1:0"), "genai-prices") == Decimal("0.000084")


@needs_library
def test_a_long_context_has_the_librarys_rate_or_none():
    long = Usage(input_tokens=300_000, output_tokens=0)
    at = datetime(2026, 11, 20, tzinfo=timezone.utc)
    assert amount(long, f"us.{SONNET}", "genai-prices") is None
    assert amount(long, "global.openai.gpt-5.6-terra", "genai-prices", at=at) == Decimal("1.2")
    assert amount(long, "global.anthropic.claude-sonnet-5", "genai-prices") == Decimal("0.6")
    assert amount(long, "amazon.nova-premier-v1:0", "genai-prices") == Decimal("0.75")


@needs_library
def test_the_price_is_that_of_the_day_of_the_call():
    model = "us.openai.gpt-5.6-luna"
    before, after = (datetime(2026, month, 1, tzinfo=timezone.utc) for month in (7, 9))
    assert amount(PLAIN, model, "genai-prices", at=before) == Decimal("0.00176")
    assert amount(PLAIN, model, "genai-prices", at=after) == Decimal("0.000352")


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    if sys.version_info < (3, 11):
        expected = "genai-prices needs Python 3.11 or newer"
    else:
        expected = "pip install 'otel-bedrock\\[cost\\]'"
        for name in [name for name in sys.modules if name.startswith("genai_prices")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ValueError, match=expected):
        open_prices("genai-prices")


def test_an_older_python_is_named(monkeypatch):
    monkeypatch.setattr("sys.version_info", (3, 10, 14))
    with pytest.raises(ValueError, match=r"needs Python 3\.11 or newer, and this is 3\.10"):
        open_prices("genai-prices")


def test_the_table_in_the_docstring_is_one():
    from otel_bedrock import price_table

    lines = price_table.__doc__.split("\n\n")[2].replace("…", "").splitlines()
    text = "\n".join(line.partition("  #")[0] for line in lines)
    text = text.replace('"24.75", }', '"24.75"}').replace('"3.00", }', '"3.00"}')
    assert open_prices(json.loads(text.replace("{}", '{"input": 1}'))).date == "2026-11-01"


MESSAGE = [{"role": "user", "content": [{"text": "Hello!"}]}]


def _cost_of(bill, entry):
    return sum(
        Decimal(count) * Decimal(entry[name]) / 1_000_000
        for name, count in (("input", bill.input_tokens), ("output", bill.output_tokens))
    )


def test_calls_tell_what_they_cost_on_span_and_metric():
    nova, free = "us.amazon.nova-lite-v1:0", "amazon.nova-micro-v1:0"
    entry = {"input": "60", "output": "240", "cache_read": 1, "cache_write": 1}
    table = {
        "source": "contract 7",
        "date": "2026-11-01",
        "models": {"amazon.nova-lite-v1:0": entry, free: {"input": 0, "output": 0}},
    }
    with FakeBedrock() as bedrock, capture(prices=table) as captured:
        client = bedrock.client()
        client.converse(modelId=nova, messages=MESSAGE)
        list(client.converse_stream(modelId=nova, messages=MESSAGE)["stream"])
        body = json.dumps({"messages": MESSAGE})
        client.invoke_model(modelId=nova, body=body)["body"].read()
        list(client.invoke_model_with_response_stream(modelId=nova, body=body)["body"])
        client.converse(modelId=free, messages=MESSAGE)
        client.converse(modelId="amazon.nova-pro-v1:0", messages=MESSAGE)
        bedrock.throttle()
        with pytest.raises(client.exceptions.ThrottlingException):
            client.converse(modelId=nova, messages=MESSAGE)
        spans, points = captured.spans, captured.points
        bills = list(bedrock.bill)
    costs = [span.attributes.get("bedrock.cost.usd") for span in spans]
    expected = [float(_cost_of(bill, entry)) for bill in bills[:4]]
    assert costs == [*expected, 0.0, None, None]
    assert all(cost > 0 for cost in expected)
    assert spans[0].attributes["bedrock.cost.source"] == "contract 7"
    assert spans[0].attributes["bedrock.cost.date"] == "2026-11-01"
    assert "bedrock.cost.source" not in spans[5].attributes
    told = {
        point.attributes["gen_ai.request.model"]: point.value
        for point in points
        if point.metric == "bedrock.client.cost"
    }
    assert told == {nova: pytest.approx(sum(expected)), free: 0.0}


def test_a_broken_off_stream_has_no_cost():
    nova = "amazon.nova-lite-v1:0"
    table = {"models": {nova: {"input": "60", "output": "240"}}}
    with FakeBedrock() as bedrock, capture(prices=table) as captured:
        stream = bedrock.client().converse_stream(modelId=nova, messages=MESSAGE)["stream"]
        next(iter(stream))
        stream.close()
        assert "bedrock.cost.usd" not in captured.span.attributes
        assert captured.total("bedrock.client.cost") is None


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["recorded", "sampled out"])
def test_a_tier_that_was_asked_for_counts_whether_the_span_is_recorded_or_not(sampler):
    """The answer does not name it, so that the cost is not known."""
    nova = "amazon.nova-lite-v1:0"
    table = {"models": {nova: {"input": "60", "output": "240"}}}
    reply = {
        "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
    }
    with FakeBedrock() as bedrock, capture(sampler=sampler, prices=table) as captured:
        client = bedrock.client()
        for tier in ("flex", "default"):
            bedrock.reply(reply)
            client.converse(modelId=nova, messages=MESSAGE, serviceTier={"type": tier})
        cost = captured.total("bedrock.client.cost")
    assert cost == pytest.approx((3 * 60 + 2 * 240) / 1_000_000)


def test_without_prices_nothing_is_told_of_costs():
    with FakeBedrock() as bedrock, capture() as captured:
        bedrock.client().converse(modelId="amazon.nova-lite-v1:0", messages=MESSAGE)
        assert not any("cost" in key for key in captured.span.attributes)
        assert captured.total("bedrock.client.cost") is None


def test_a_function_that_fails_does_not_reach_the_call():
    def broken(question):
        raise RuntimeError

    with FakeBedrock() as bedrock, capture(prices=broken) as captured:
        bedrock.client().converse(modelId="amazon.nova-lite-v1:0", messages=MESSAGE)
        assert captured.total("gen_ai.client.inference.usage.input_tokens") > 0
        assert captured.total("bedrock.client.cost") is None


def test_wrong_prices_raise_from_instrument_and_only_warn_from_the_environment(monkeypatch, caplog):
    with pytest.raises(ValueError, match=r"prices\.models: expected an object"), capture(prices={}):
        pass
    monkeypatch.setenv("OTEL_BEDROCK_PRICES", "nowhere.json")
    with FakeBedrock() as bedrock, capture() as captured:
        bedrock.client().converse(modelId="amazon.nova-lite-v1:0", messages=MESSAGE)
        assert captured.total("bedrock.client.cost") is None
    assert "'nowhere.json' cannot be read" in caplog.text
    assert "no costs are reported (prices, OTEL_BEDROCK_PRICES)" in caplog.text


@pytest.mark.parametrize(("origin", "cost"), [({}, 0.00495), ({MARK: BATCH}, 0.0012)])
def test_a_logged_call_has_its_price_and_a_batch_its_own(origin, cost):
    record = Record(
        {
            "timestamp": "2026-11-20T10:00:00Z",
            "operation": "InvokeModel",
            "modelId": SONNET,
            "input": {"inputTokenCount": 1000},
            "output": {"outputTokenCount": 100},
            **origin,
        }
    )
    totals = Totals({})
    teller = Teller(read_config({"prices": TABLE}), totals, None, spans=False)
    teller.tell(record, b"1")
    teller.close()
    (told,) = [
        series.value
        for (name, _), series in totals.changed.items()
        if name == "bedrock.client.cost"
    ]
    assert told == pytest.approx(cost)
