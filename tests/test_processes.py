"""Processes: forks that count from zero, Lambda handlers that flush, both within bounds."""

from __future__ import annotations

import time

import pytest
from programs import SONNET, run

import otel_bedrock
from otel_bedrock import sdk, shield
from otel_bedrock.receiver import Receiver
from otel_bedrock.testing import FakeBedrock
from otel_bedrock.testing.capture import capture

INPUT = "gen_ai.client.inference.usage.input_tokens"

FORKS = {
    # gunicorn's prefork: the application is loaded, and instrumented, before the fork.
    "os.fork": """
        children = []
        for number in range(2):
            child = os.fork()
            if child == 0:
                for _ in range(number + 1):
                    ask(client())
                sys.exit(0)
            children.append(child)
        for child in children:
            _, status = os.waitpid(child, 0)
            assert status == 0, status
    """,
    "multiprocessing": """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=lambda: ask(client())) for _ in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join(30)
            assert child.exitcode == 0, child.exitcode
    """,
}


@pytest.mark.parametrize("way", FORKS)
def test_the_sum_over_all_processes_is_the_bill(way):
    """With calls before the fork, in the children, and after it in the parent."""
    with FakeBedrock() as bedrock, Receiver() as receiver:
        done = run(
            f"otel_bedrock.instrument(otlp_endpoint={receiver.url!r})\n"
            "bedrock = client()\nask(bedrock); ask(bedrock); otel_bedrock.flush()\n"
            + "\n".join(line[8:] for line in FORKS[way].splitlines())
            + "\nask(bedrock)",
            bedrock=bedrock,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        points = [point for point in receiver.latest() if point.metric == INPUT]
        assert sum(point.value for point in points) == sum(one.input_tokens for one in bedrock.bill)
        instances = {point.resource["service.instance.id"] for point in points}
        assert len(instances) == len(points) == {"os.fork": 3, "multiprocessing": 4}[way]
        assert len(receiver.spans) == len(bedrock.bill) == 6


def test_a_fork_after_the_users_own_set_up_is_warned_of_once():
    with FakeBedrock() as bedrock:
        done = run(
            """
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import InMemoryMetricReader
            metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
            otel_bedrock.instrument()
            ask(client())
            child = os.fork()
            if child == 0:
                ask(client()); ask(client())
                sys.exit(0)
            os.waitpid(child, 0)
            ask(client())
            """,
            bedrock=bedrock,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("forked after OpenTelemetry was set up") == 1
        assert "post_fork" in done.stderr


class _Context:
    def __init__(self, left):
        self.left = left

    def get_remaining_time_in_millis(self):
        return self.left


@pytest.fixture
def flushes(monkeypatch):
    seen = []

    def flush(timeout):
        seen.append(timeout)
        return True

    monkeypatch.setattr("otel_bedrock.aws_lambda.flush", flush)
    return seen


def test_a_handler_is_flushed_after_it_returned_and_after_it_raised(flushes):
    @otel_bedrock.flush_after
    def handler(event, context):
        if event == "bad":
            raise KeyError("mine")
        return event

    assert handler("good", None) == "good"
    with pytest.raises(KeyError, match="mine"):
        handler("bad", None)
    assert len(flushes) == 2
    assert handler.__name__ == "handler"


def test_a_flush_takes_no_longer_than_the_invocation_has_left(flushes):
    @otel_bedrock.flush_after(timeout=2.0)
    def handler(event, context):
        return None

    handler(None, _Context(60_000))
    handler(None, _Context(700))
    handler(None, _Context(10))
    handler(None, object())
    assert flushes == pytest.approx([2.0, 0.5, 0.0, 2.0])


def test_a_recent_flush_is_enough(flushes):
    @otel_bedrock.flush_after(at_most_every=60)
    def handler(event, context):
        return None

    for _ in range(3):
        handler(None, None)
    assert len(flushes) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"timeout": "2"}, "timeout: expected seconds, 0 or more; got '2'"),
        ({"timeout": float("nan")}, "timeout: expected seconds, 0 or more; got nan"),
        ({"at_most_every": -1}, "at_most_every: expected seconds, 0 or more; got -1"),
    ],
)
def test_a_wrong_time_raises_where_it_is_written_and_not_after_the_handler(wrong, said):
    with pytest.raises(ValueError, match=said):
        otel_bedrock.flush_after(**wrong)


def test_a_setting_in_the_handlers_place_is_told_by_name():
    with pytest.raises(TypeError, match=r"got 2\. .*@flush_after\(timeout=2\)"):
        otel_bedrock.flush_after(2)


@pytest.mark.parametrize("timeout", [float("inf"), 10**400, "x", None, float("nan")])
def test_flush_takes_any_timeout_and_says_which_is_none(timeout, caplog):
    with capture() as captured, FakeBedrock() as bedrock:
        message = {"role": "user", "content": [{"text": "Hello"}]}
        bedrock.client().converse(modelId=SONNET, messages=[message])
        with caplog.at_level("WARNING", "otel_bedrock"):
            assert otel_bedrock.flush(timeout) is True
        assert captured.spans
    said = [record.getMessage() for record in caplog.records]
    wrong = f"flush: timeout: expected seconds, 0 or more; got {timeout!r}; 5 is used"
    assert said == ([] if timeout in (float("inf"), 10**400) else [wrong])


def test_a_flush_with_less_than_no_time_left_does_not_wait(monkeypatch):
    seen = []
    monkeypatch.setattr(sdk, "flush", lambda timeout, *_: seen.append(timeout))
    with capture():
        otel_bedrock.flush(-1)
    assert seen == [0]


def test_a_bug_in_a_flush_is_not_the_handlers(monkeypatch):
    @otel_bedrock.flush_after
    def handler(event, context):
        return event

    def broken():
        raise RuntimeError("ours")

    monkeypatch.delenv(shield.RAISE_VARIABLE)
    monkeypatch.setattr("otel_bedrock.abandoned.look", broken)
    assert handler("mine", None) == "mine"
    assert otel_bedrock.flush() is False


def test_flush_returns_in_time_and_never_raises(monkeypatch):
    from opentelemetry.sdk.trace import TracerProvider

    class Stuck(TracerProvider):
        def force_flush(self, timeout_millis=30_000):
            time.sleep(3)
            return True

    class Broken(TracerProvider):
        def force_flush(self, timeout_millis=30_000):
            raise RuntimeError("broken")

    for provider in (Stuck(), Broken()):
        otel_bedrock.instrument(tracer_provider=provider)
        started = time.monotonic()
        assert otel_bedrock.flush(timeout=0.2) is False
        assert time.monotonic() - started < 1
        otel_bedrock.uninstrument()
        provider.shutdown()
