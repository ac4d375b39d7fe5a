"""Ingest: each record of a log becomes a span and its tokens, once, whatever happens."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from account_month import write_month
from opentelemetry.sdk.trace import TracerProvider

import otel_bedrock
from otel_bedrock.cli.main import main
from otel_bedrock.config import Config
from otel_bedrock.invocation_logs import Record, open_source
from otel_bedrock.invocation_logs import ingest as ingest_module
from otel_bedrock.invocation_logs.checkpoint import (
    Batch,
    CheckpointError,
    MemoryCheckpoint,
    Place,
    SQLiteCheckpoint,
)
from otel_bedrock.invocation_logs.files import Files
from otel_bedrock.invocation_logs.ingest import Ingest, Plan, Watcher, read_request_ids
from otel_bedrock.invocation_logs.live_requests import LiveRequests
from otel_bedrock.invocation_logs.outlet import ExportError, OtlpOutlet
from otel_bedrock.invocation_logs.telling import Teller
from otel_bedrock.invocation_logs.totals import Row, Totals
from otel_bedrock.invocation_logs.values import Position
from otel_bedrock.model_id import parse
from otel_bedrock.receiver import Receiver
from otel_bedrock.testing import FakeBedrock
from otel_bedrock.testing.capture import capture

USAGE = "gen_ai.client.inference.usage."
ORIGIN = "bedrock.usage.origin"
MODELS = ("amazon.nova-pro-v1:0", "us.anthropic.claude-sonnet-4-5-20250929-v1:0")


def make(number, **members):
    """Make a record whose counts tell it apart."""
    return {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": f"2026-11-26T10:{number // 60 % 60:02}:{number % 60:02}Z",
        "accountId": "111122223333",
        "identity": {"arn": "arn:aws:sts::111122223333:assumed-role/app/me"},
        "region": "us-east-1",
        "requestId": f"r-{number}",
        "operation": "Converse",
        "modelId": MODELS[number % 2],
        "input": {
            "inputTokenCount": number,
            "cacheReadInputTokenCount": 10,
            "cacheWriteInputTokenCount": 0,
        },
        "output": {
            "outputTokenCount": 2,
            "outputBodyJson": {"stopReason": "end_turn", "metrics": {"latencyMs": 1500}},
        },
        **members,
    }


def write(path, records, pack=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(each) + "\n" for each in records).encode()
    path.write_bytes(gzip.compress(data) if pack else data)


def ingest(folder, url, checkpoint, config=None, watcher=None, **plan):
    """Run one ingest in this process; returns its tally."""
    store = SQLiteCheckpoint(checkpoint)
    made = Ingest(
        Plan([open_source(str(folder))], **plan),
        store,
        OtlpOutlet(url, patience=5.0),
        config,
        watcher,
    )
    try:
        return made.run()
    finally:
        made.close()
        store.close()


def tokens(receiver):
    """Return {counter: sum over models} as the receiver has it, logs only."""
    sums = Counter()
    for point in receiver.latest():
        if point.metric.startswith(USAGE):
            assert point.attributes[ORIGIN] == "invocation_log"
            sums[point.metric.removeprefix(USAGE)] += point.value
    return dict(sums)


def expected(records):
    return {
        "input_tokens": sum(each["input"]["inputTokenCount"] + 10 for each in records),
        "output_tokens": 2 * len(records),
        "cache_read.input_tokens": 10 * len(records),
        "cache_write.input_tokens": 0,
    }


@pytest.fixture
def receiver():
    with Receiver(span_limit=100_000, point_limit=100_000) as running:
        yield running


def test_a_record_is_the_span_of_a_live_call_with_its_own_times(tmp_path, receiver):
    write(tmp_path / "logs/a.jsonl", [make(7)])
    tally = ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    assert (tally.records, tally.input_tokens, tally.output_tokens) == (1, 17, 2)
    (span,) = receiver.spans
    assert span.name == f"chat {MODELS[1]}"
    start = int(datetime(2026, 11, 26, 10, 0, 7, tzinfo=timezone.utc).timestamp()) * 10**9
    assert (span.start_ns, span.end_ns) == (start, start + 1_500_000_000)
    assert span.kind == "client"
    assert span.parent_id is None
    said = span.attributes
    assert said[ORIGIN] == "invocation_log"
    assert said["aws.request_id"] == "r-7"
    assert said["gen_ai.usage.input_tokens"] == 17
    assert said["gen_ai.usage.output_tokens"] == 2
    assert said["gen_ai.usage.cache_read.input_tokens"] == 10
    assert said["bedrock.identity.arn"].endswith("/me")
    assert said["cloud.account.id"] == "111122223333"
    assert said["gen_ai.response.finish_reasons"] == ("end_turn",)
    assert span.resource["service.name"] == "otel-bedrock-logs"


def test_every_metric_is_marked_and_none_names_an_account(tmp_path, receiver):
    write(tmp_path / "logs/a.jsonl", [make(number) for number in range(4)])
    ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    points = receiver.latest()
    durations = [each for each in points if each.metric == "gen_ai.client.inference.duration"]
    assert sum(each.count for each in durations) == 4
    assert sum(each.sum for each in durations) == pytest.approx(6.0)
    for point in points:
        assert point.attributes[ORIGIN] == "invocation_log"
        assert "111122223333" not in str(point.attributes)


def test_a_call_of_unknown_duration_has_none(tmp_path, receiver):
    write(tmp_path / "logs/a.jsonl", [make(7, output={"outputTokenCount": 2})])
    ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    assert not [each for each in receiver.latest() if "duration" in each.metric]
    assert receiver.spans[0].start_ns == receiver.spans[0].end_ns
    assert tokens(receiver)["output_tokens"] == 2


def test_a_failed_call_is_told_as_one(tmp_path, receiver):
    failed = make(7, errorCode="ThrottlingException", input={}, output={})
    write(tmp_path / "logs/a.jsonl", [failed])
    ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    (span,) = receiver.spans
    assert (span.status_code, span.attributes["error.type"]) == ("error", "ThrottlingException")
    (missing,) = [each for each in receiver.latest() if each.metric.endswith("usage.missing")]
    assert missing.attributes["bedrock.usage.missing.reason"] == "error"


def test_a_record_links_to_the_span_that_made_its_call():
    sent = {"otel_trace_id": "ab" * 16, "otel_span_id": "cd" * 8}
    teller = Teller(Config(), Totals({}), None, spans=True)
    teller.tell(Record(make(1, requestMetadata=sent)), b"1")
    teller.tell(
        Record(make(1, requestMetadata={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"})), b"2"
    )
    teller.tell(Record(make(1, requestMetadata={"otel_trace_id": "x", "traceparent": "y"})), b"3")
    links = [
        [(link.context.trace_id, link.context.span_id) for link in span.links]
        for span in teller.take_spans()
    ]
    teller.close()
    found = (int("ab" * 16, 16), int("cd" * 8, 16))
    assert links == [[found], [found], []]


ODD = {
    "the first year": {"timestamp": "0001-01-01T00:00:00Z"},
    "before 1970": {"timestamp": "1969-12-31T23:59:59Z"},
    "the last year": {"timestamp": "9999-12-31T23:59:59Z"},
    "a latency of ages": {
        "output": {"outputTokenCount": 2, "outputBodyJson": {"metrics": {"latencyMs": 10**15}}}
    },
    "half a pair in the model": {"modelId": "amazon.nova-\ud800"},
    "half a pair in the caller": {"identity": {"arn": "arn:\udc00"}},
    "half a pair in the request": {"requestId": "r-\ud800"},
    "half a pair in the answer": {
        "output": {"outputTokenCount": 2, "outputBodyJson": {"stopReason": "\ud800"}}
    },
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_record_is_in_nobodys_way(odd, tmp_path, receiver, caplog):
    records = [make(number) for number in range(13)]
    records[2].update(ODD[odd])
    write(tmp_path / "logs/a.jsonl", records[:3])
    write(tmp_path / "logs/b.jsonl", records[3:])
    tally = ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    assert (tally.records, tally.skipped, len(receiver.spans)) == (13, 0, 13)
    assert tokens(receiver) == expected(records)
    assert caplog.messages == []


def test_a_span_that_cannot_be_encoded_is_named_and_the_others_arrive(receiver):
    teller = Teller(Config(), Totals({}), None, spans=True)
    for number in range(3):
        teller.tell(Record(make(number)), bytes([number]))
    spans = teller.take_spans()
    teller.close()
    spans[1]._start_time = -1
    (why,) = OtlpOutlet(receiver.url, patience=60.0).send_spans(spans)
    assert why.startswith("the span of request r-1 cannot be encoded: ")
    assert {span.attributes["aws.request_id"] for span in receiver.spans} == {"r-0", "r-2"}


def test_a_second_run_adds_nothing_and_a_new_file_is_added(tmp_path, receiver):
    first = [make(number) for number in range(10)]
    write(tmp_path / "logs/a.json.gz", first, pack=True)
    for _ in range(2):
        ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
        assert tokens(receiver) == expected(first)
    second = [make(number) for number in range(10, 13)]
    write(tmp_path / "logs/b.json.gz", second, pack=True)
    assert ingest(tmp_path / "logs", receiver.url, tmp_path / "c").objects == 1
    assert tokens(receiver) == expected(first + second)
    assert len(receiver.spans) == 13


def test_a_record_that_comes_twice_counts_once(tmp_path, receiver):
    records = [make(number) for number in range(10)]
    write(tmp_path / "logs/a.jsonl", records + records[:3])
    write(tmp_path / "logs/b.json.gz", records[5:], pack=True)
    tally = ingest(tmp_path / "logs", receiver.url, tmp_path / "c", batch=4)
    assert (tally.records, tally.duplicates) == (10, 8)
    assert tokens(receiver) == expected(records)
    assert len(receiver.spans) == 10


def test_a_file_that_grows_is_read_on(tmp_path, receiver):
    path = tmp_path / "logs/a.jsonl"
    records = [make(number) for number in range(9)]
    write(path, records[:4])
    whole = path.read_bytes()
    half = json.dumps(records[4])[:100].encode()
    path.write_bytes(whole + half)
    named = []
    tally = ingest(
        tmp_path / "logs", receiver.url, tmp_path / "c", watcher=Watcher(skipped=named.append)
    )
    assert (tally.records, [each.line for each in named]) == (4, [5])
    write(path, records)
    tally = ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    assert (tally.records, tally.duplicates, tally.skipped) == (5, 0, 0)
    assert tokens(receiver) == expected(records)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_that_is_replaced_by_a_longer_one_is_read_from_its_start(
    wrapped, tmp_path, receiver
):
    path = tmp_path / "logs/a.jsonl"
    records = [make(number) for number in range(100, 115)]
    for some in (records[:5], records[5:]):
        write(
            path, [{"events": [{"message": json.dumps(one)} for one in some]}] if wrapped else some
        )
        ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    assert tokens(receiver) == expected(records)


def test_a_checkpoint_of_the_first_version_is_gone_on_from(tmp_path, receiver):
    records = [make(number) for number in range(9)]
    write(tmp_path / "logs/a.jsonl", records[:4])
    ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    with closing(sqlite3.connect(tmp_path / "c")) as db:
        db.execute("ALTER TABLE places DROP COLUMN fingerprint")
        db.execute("PRAGMA user_version = 1")
    write(tmp_path / "logs/a.jsonl", records)
    tally = ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    assert (tally.records, tally.duplicates) == (5, 0)
    assert tokens(receiver) == expected(records)


def test_what_is_left_out_for_its_time_is_there_for_a_later_run(tmp_path, receiver):
    records = [make(number) for number in range(10)]
    write(tmp_path / "logs/a.jsonl", records)
    middle = datetime(2026, 11, 26, 10, 0, 5, tzinfo=timezone.utc)
    tally = ingest(tmp_path / "logs", receiver.url, tmp_path / "c", since=middle, batch=2)
    assert (tally.records, tally.outside) == (5, 5)
    assert tokens(receiver) == expected(records[5:])
    ingest(tmp_path / "logs", receiver.url, tmp_path / "c", batch=2)
    assert tokens(receiver) == expected(records)


def test_calls_that_were_reported_live_are_left_out(tmp_path, receiver):
    ours = {"otel_trace_id": "ab" * 16, "otel_span_id": "cd" * 8}
    foreign = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    records = [make(1, requestMetadata=ours), make(2, requestMetadata=foreign), make(3), make(4)]
    write(tmp_path / "logs/a.jsonl", records)
    live = read_request_ids(
        [
            "r-4\n",
            json.dumps(
                {
                    "resourceSpans": [
                        {"attributes": [{"key": "aws.request_id", "value": {"stringValue": "r-9"}}]}
                    ]
                }
            ),
        ]
    )
    assert live == {"r-4", "r-9"}
    tally = ingest(
        tmp_path / "logs",
        receiver.url,
        tmp_path / "c",
        only_unseen=True,
        was_live=live.__contains__,
    )
    assert (tally.records, tally.seen_live) == (2, 2)
    assert tokens(receiver) == expected(records[1:3])


def test_an_endpoint_that_does_not_answer_loses_nothing(tmp_path):
    records = [make(number) for number in range(10)]
    write(tmp_path / "logs/a.jsonl", records)
    with Receiver() as receiver:
        port = receiver.port
    store = SQLiteCheckpoint(tmp_path / "c")
    waited = []
    outlet = OtlpOutlet(f"http://127.0.0.1:{port}", patience=0.0, waiting=waited.append)
    made = Ingest(Plan([open_source(str(tmp_path / "logs"))]), store, outlet)
    with pytest.raises(ExportError, match="Nothing is lost"):
        made.run()
    made.close()
    store.close()
    with Receiver(port) as receiver:
        ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
        assert tokens(receiver) == expected(records)


def test_sums_that_were_committed_and_not_sent_leave_with_the_next_run(tmp_path, receiver):
    records = [make(number) for number in range(10)]
    write(tmp_path / "logs/a.jsonl", records)

    class Deaf:
        def send_spans(self, spans):
            pass

        def send_metrics(self, data):
            raise ExportError("deaf")

    store = SQLiteCheckpoint(tmp_path / "c")
    made = Ingest(Plan([open_source(str(tmp_path / "logs"))]), store, Deaf())
    with pytest.raises(ExportError):
        made.run()
    made.close()
    store.close()
    tally = ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    assert tally.records == 0
    assert tokens(receiver) == expected(records)


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
def test_what_a_checkpoint_has_to_do(kind, tmp_path):
    """The contract of a store, for those that are written elsewhere too."""

    def make_store():
        return SQLiteCheckpoint(tmp_path / "c") if kind == "sqlite" else memory

    memory = MemoryCheckpoint()
    store = make_store()
    state = (store.state.instance, store.state.created_ns)
    assert store.place("a") is None
    first = Place("a", "m1", 10, Position(5, 2, 3), False, "f")
    row = Row("tokens", '{"model": "x"}', "1")
    store.commit(Batch(first, [b"1" * 16, b"2" * 16], [row]))
    assert store.place("a") == first
    assert store.seen([b"1" * 16, b"3" * 16]) == {b"1" * 16}
    last = Place("a", "m2", None, Position(50, 0, 9), True)
    store.commit(Batch(last, [b"3" * 16], [row._replace(value="7"), Row("other", "{}", "[1]")]))
    store.prune()
    store.close()
    again = make_store()
    assert (again.state.instance, again.state.created_ns) == state
    assert again.place("a") == last
    assert again.seen([b"1" * 16, b"2" * 16, b"3" * 16, b"4" * 16]) == {
        b"1" * 16,
        b"2" * 16,
        b"3" * 16,
    }
    assert sorted(again.totals()) == [Row("other", "{}", "[1]"), row._replace(value="7")]
    again.close()


def test_a_checkpoint_that_fails_to_write_keeps_what_it_had(tmp_path):
    store = SQLiteCheckpoint(tmp_path / "c")
    place = Place("a", "m", 1, Position(), False)
    store.commit(Batch(place, [b"1" * 16], [Row("tokens", "{}", "1")]))
    with pytest.raises(CheckpointError):
        # An id that is there already: nothing of the batch may stay.
        store.commit(
            Batch(
                Place("a", "m", 1, Position(), True),
                [b"2" * 16, b"1" * 16],
                [Row("tokens", "{}", "2")],
            )
        )
    assert store.seen([b"2" * 16]) == set()
    assert list(store.totals()) == [Row("tokens", "{}", "1")]
    assert store.place("a") == place
    store.close()


def test_two_processes_cannot_share_a_checkpoint(tmp_path):
    store = SQLiteCheckpoint(tmp_path / "c")
    with pytest.raises(CheckpointError, match="another ingest uses this checkpoint"):
        SQLiteCheckpoint(tmp_path / "c")
    store.close()
    (tmp_path / "d").write_text("This is no database, but a text that is long enough.")
    with pytest.raises(CheckpointError, match="cannot be used as a checkpoint"):
        SQLiteCheckpoint(tmp_path / "d")


def test_ids_are_forgotten_after_the_window_and_their_objects_are_not(tmp_path, receiver):
    records = [make(number) for number in range(3)]
    write(tmp_path / "logs/a.jsonl", records)
    ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    store = SQLiteCheckpoint(tmp_path / "c", window=0.0)
    time.sleep(0.01)
    store.prune()
    assert store._db.execute("SELECT count(*) FROM ids").fetchone() == (0,)
    store.close()
    assert ingest(tmp_path / "logs", receiver.url, tmp_path / "c").objects == 0


@pytest.mark.parametrize("pack", [False, True])
def test_a_file_that_is_touched_after_the_window_is_not_counted_again(pack, tmp_path, receiver):
    records = [make(number) for number in range(5)]
    path = tmp_path / "logs/a.json"
    write(path, records, pack)
    ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    with closing(sqlite3.connect(tmp_path / "c")) as db, db:
        db.execute("UPDATE places SET at = at - 8 * 86400")
    os.utime(path, (1, 1))
    for _ in range(2):
        assert ingest(tmp_path / "logs", receiver.url, tmp_path / "c").objects == 0
    assert tokens(receiver) == expected(records)


def test_metrics_alone_and_what_the_sampler_drops(tmp_path, receiver, monkeypatch):
    records = [make(number) for number in range(3)]
    write(tmp_path / "logs/a.jsonl", records)
    ingest(tmp_path / "logs", receiver.url, tmp_path / "c", spans=False)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    ingest(tmp_path / "logs", receiver.url, tmp_path / "d")
    assert receiver.spans == []
    assert tokens(receiver)["output_tokens"] == 12


# The kill test: a process of its own for each run, forked from one that has imported all.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "otel_bedrock.invocation_logs.ingest",
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    ]
)


def _ingest_slowly(folder, url, checkpoint, begun):
    os.environ["OTEL_BEDROCK_RAISE_INTERNAL_ERRORS"] = "1"
    begun.set()
    ingest(folder, url, checkpoint, batch=7, export_every=0.0)


def _span_ids(receiver):
    return Counter(span.span_id for span in receiver.spans)


@pytest.mark.timeout(600)
def test_killed_at_any_moment_no_record_is_lost_or_counted_twice(tmp_path):
    """Fifty kills while more and more is written; late objects and second copies among it."""
    chance = random.Random(7)
    folder = tmp_path / "logs/AWSLogs/1/BedrockModelInvocationLogs/us-east-1/2026/11/26"
    records = [make(number) for number in range(2500)]
    written, killed, amid, ended = 0, 0, 0, 0
    with Receiver(span_limit=100_000, point_limit=1_000_000) as receiver:
        while killed < 50:
            if written < len(records):
                more = records[written : written + 50]
                again = chance.sample(records[: written + 50], 10)
                # Every third object is late: it comes in an hour that is over.
                hour = 10 + written // 500 - (written // 50 % 3 == 2)
                write(folder / f"{hour:02}/{written:05}.json.gz", more + again, pack=True)
                written += 50
            begun = _FORKS.Event()
            where = (tmp_path / "logs", receiver.url, tmp_path / "c", begun)
            child = _FORKS.Process(target=_ingest_slowly, args=where)
            child.start()
            assert begun.wait(60)
            # Every fourth kill comes while it starts, the others once something has arrived.
            if killed % 4:
                seen = len(receiver.spans)
                receiver.wait_for(
                    lambda r, seen=seen, child=child: len(r.spans) > seen or not child.is_alive(),
                    30,
                )
            child.join(chance.uniform(0.0, 0.1))
            if child.exitcode is None:
                os.kill(child.pid, signal.SIGKILL)
                killed += 1
                amid += killed % 4 != 1
            else:
                assert child.exitcode == 0
                ended += 1
            child.join()
        # Most kills came while something was being committed and sent.
        assert amid >= 15, amid
        for _ in range(2):
            ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
        assert tokens(receiver) == expected(records[:written])
        # A span that was sent again is the same span.
        ids = _span_ids(receiver)
        assert len(ids) == written
        told = {(span.span_id, span.start_ns, str(span.attributes)) for span in receiver.spans}
        assert len(told) == written
        # No series ever went back: nothing was exported that was not committed.
        last = {}
        for point in receiver.points:
            if point.kind == "sum":
                key = (point.metric, str(sorted(point.attributes.items())))
                assert point.value >= last.get(key, 0)
                last[key] = point.value
    again = sum(ids.values()) - written
    print(f"{killed} kills, {amid} of them amid; {ended} runs ended; {again} spans sent again")


def test_the_command_ingests_and_says_what_it_did(tmp_path, receiver, capsys):
    records = [make(number) for number in range(3)]
    write(tmp_path / "logs/a.jsonl", records)
    command = ["logs", "ingest", str(tmp_path / "logs"), "--checkpoint", str(tmp_path / "c")]
    command += ["--otlp-endpoint", receiver.url]
    assert main(command) == 0
    assert "3 records of 1 objects: 33 tokens in, 6 out" in capsys.readouterr().err
    assert tokens(receiver) == expected(records)
    with (tmp_path / "logs/a.jsonl").open("a") as file:
        large = make(3, input={"inputTokenCount": 10**12})
        file.write("no JSON\n" + json.dumps(large) + "\n")
    write(tmp_path / "logs/b.jsonl", records)
    assert main(command) == 3
    err = capsys.readouterr().err
    assert "a.jsonl: line 4: expected a JSON object" in err
    assert err.splitlines()[-1] == (
        "1 records of 2 objects: 1,000,000,000,000 tokens in, 2 out; 3 seen before; 1 skipped"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "SOURCE"),
        (["nowhere"], 1, "nowhere: there is no such file or folder"),
        (["x", "--since", "yesterday"], 2, "expected a time such as 2026-11-01"),
        (["x", "--poll", "fast"], 2, "expected a time such as 30s"),
        (["x", "--only-unseen", "--seen", "nowhere.txt"], 1, "--seen nowhere.txt: No such file"),
        (["x", "--seen", "nowhere.txt"], 2, "--only-unseen"),
        (["x", "--otlp-endpoint", "localhost:4318"], 1, "otlp_endpoint"),
    ],
)
def test_errors_of_the_command_say_what_to_do(arguments, code, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [*arguments, "--checkpoint", str(tmp_path / "c")] if arguments else []
    assert main(["logs", "ingest", *given]) == code
    assert says in capsys.readouterr().err


def test_a_signal_is_heard_while_objects_are_looked_for(tmp_path, receiver, capsys, monkeypatch):
    """What was ingested by then is sent all the same."""

    def objects(self, since, until):
        yield from all_objects(self, since, until)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it goes on looking")

    all_objects = Files.objects
    monkeypatch.setattr(Files, "objects", objects)
    write(tmp_path / "logs/a.jsonl", [make(1)])
    command = ["logs", "ingest", str(tmp_path / "logs"), str(tmp_path / "logs")]
    command += ["--checkpoint", str(tmp_path / "c"), "--otlp-endpoint", receiver.url]
    assert main(command) == 130
    assert "1 records of 1 objects" in capsys.readouterr().err
    assert tokens(receiver) == expected([make(1)])


def test_a_checkpoint_that_is_another_program_s_is_named(tmp_path, receiver, capsys):
    write(tmp_path / "a.jsonl", [make(1)])
    with closing(sqlite3.connect(tmp_path / "theirs")) as theirs:
        theirs.execute("CREATE TABLE places (city TEXT)")
        theirs.commit()
    command = ["logs", "ingest", str(tmp_path / "a.jsonl"), "--otlp-endpoint", receiver.url]
    assert main([*command, "--checkpoint", str(tmp_path / "theirs")]) == 1
    assert f"{tmp_path / 'theirs'}: " in capsys.readouterr().err


def test_without_a_home_the_checkpoint_has_to_be_said(tmp_path, receiver, capsys, monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    write(tmp_path / "a.jsonl", [make(1)])
    command = ["logs", "ingest", str(tmp_path / "a.jsonl"), "--otlp-endpoint", receiver.url]
    assert main([*command, "--checkpoint", str(tmp_path / "c")]) == 0
    assert main(command) == 1
    assert "give --checkpoint" in capsys.readouterr().err


def test_an_endpoint_that_is_not_there_is_an_error_that_says_so(tmp_path, capsys):
    write(tmp_path / "a.jsonl", [make(1)])
    with Receiver() as receiver:
        url = receiver.url
    code = main(
        ["logs", "ingest", str(tmp_path), "--checkpoint", str(tmp_path / "c"), "--otlp-endpoint",
         url, "--patience", "0s"]
    )  # fmt: skip
    err = capsys.readouterr().err
    assert code == 1
    assert f"{url} took nothing for" in err
    assert "Is an OpenTelemetry Collector listening there?" in err


def test_every_command_of_logs_has_a_help(capsys):
    from otel_bedrock.cli.logs import COMMANDS

    assert main(["logs"]) == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert command.sentence in out
        assert main(["logs", command.name, "--help"]) == 0
        teaches = capsys.readouterr().out
        assert f"otel-bedrock logs {command.name}" in teaches
        assert ("JOB#MODEL" in teaches) == ("SOURCE..." in teaches or "[SOURCE" in teaches)
    assert main(["logs", "ingset"]) == 2
    assert "Did you mean 'ingest'?" in capsys.readouterr().err


def test_follow_takes_what_comes_and_ends_where_nothing_is_lost(tmp_path, receiver):
    records = [make(number) for number in range(20)]
    write(tmp_path / "logs/a.jsonl", records[:5])
    store = SQLiteCheckpoint(tmp_path / "c")
    moves = []

    def moved(tally):
        moves.append(tally.records)
        if tally.records == 5:
            write(tmp_path / "logs/b.json.gz", records[5:], pack=True)

    watcher = Watcher(stopping=lambda: bool(moves) and moves[-1] >= 20, moved=moved)
    made = Ingest(
        Plan([open_source(str(tmp_path / "logs"))], overlap=timedelta(hours=1)),
        store,
        OtlpOutlet(receiver.url, patience=5.0),
        watcher=watcher,
    )
    tally = made.follow(0.05)
    made.close()
    store.close()
    assert tally.records == 20
    assert tokens(receiver) == expected(records)


def test_follow_forgets_what_is_out_of_its_window(tmp_path, receiver, monkeypatch):
    write(tmp_path / "logs/a.jsonl", [make(1)])
    monkeypatch.setattr(ingest_module, "_PRUNE_EVERY", 0.0)
    pruned = []

    class Watched(MemoryCheckpoint):
        def prune(self):
            pruned.append(len(pruned))

    watcher = Watcher(stopping=lambda: len(pruned) >= 3)
    plan = Plan([open_source(str(tmp_path / "logs"))])
    made = Ingest(plan, Watched(), OtlpOutlet(receiver.url, patience=5.0), watcher=watcher)
    made.follow(0.01)
    made.close()
    assert len(pruned) == 3


def test_a_month_of_an_account_comes_to_what_is_known_of_it(tmp_path, receiver):
    """Many models, errors, off-loaded bodies, duplicates, late files, what is corrupt."""
    truth = write_month(tmp_path / "logs", records=1_200)
    named = []
    tally = ingest(
        tmp_path / "logs", receiver.url, tmp_path / "c", watcher=Watcher(skipped=named.append)
    )
    assert tally.records == truth.calls
    assert tally.duplicates == truth.duplicates
    assert (tally.skipped, len(named)) == (truth.corrupt, truth.corrupt)
    assert len({span.span_id for span in receiver.spans}) == truth.calls
    found = {}
    for point in receiver.latest():
        if point.metric.startswith(USAGE):
            key = (point.attributes["gen_ai.request.model"], point.metric.removeprefix(USAGE))
            found[key] = found.get(key, 0) + point.value
    for model, sums in truth.sums("model").items():
        name = parse(model).name
        read, written = sums.cache_read or 0, sums.cache_write or 0
        assert found.get((name, "output_tokens")) == sums.output, name
        if sums.uncached is not None:
            assert found[name, "input_tokens"] == sums.uncached + read + written, name
        assert found.get((name, "cache_read.input_tokens"), 0) == read, name
        assert found.get((name, "cache_write.input_tokens"), 0) == written, name


# What a log cannot tell, or tells otherwise.
NOT_IN_LOGS = {
    "server.address",
    "server.port",
    "bedrock.usage.source",
    "bedrock.retry_attempts",
    "gen_ai.response.time_to_first_chunk",
    "bedrock.service_tier",
    "bedrock.latency_mode",
    "bedrock.usage.complete",
    # It stands in the error's message.
    "bedrock.throttle.reason",
    # InvokeModel has it in a header alone.
    "bedrock.server.latency_ms",
}
ONLY_IN_LOGS = {
    ORIGIN,
    "cloud.account.id",
    "bedrock.identity.arn",
    "bedrock.inference.region",
    "bedrock.usage.source",
    "bedrock.usage.complete",
    "bedrock.server.latency_ms",
}
CACHED = [{"text": "You are a fake. " * 400}, {"cachePoint": {"type": "default"}}]


def test_the_same_calls_live_and_by_log_are_the_same_spans_and_the_same_tokens(tmp_path, receiver):
    hello = [{"role": "user", "content": [{"text": "Hello, fake! How are you today?"}]}]
    claude = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 20,
        "messages": [{"role": "user", "content": "Hello!"}],
        "system": [
            {
                "type": "text",
                "text": "You are a fake. " * 400,
                "cache_control": {"type": "ephemeral", "ttl": "1h"},
            }
        ],
    }
    sonnet = MODELS[1]
    with FakeBedrock() as bedrock, capture() as captured:
        bedrock.log_to(tmp_path / "logs")
        client = bedrock.client()
        settings = {"maxTokens": 50, "temperature": 0.5}
        for model in (sonnet, "amazon.nova-lite-v1:0", "openai.gpt-oss-120b-1:0"):
            client.converse(modelId=model, messages=hello, inferenceConfig=settings)
            list(client.converse_stream(modelId=model, messages=hello)["stream"])
        usage = client.meta.service_model.shape_for("TokenUsage").members
        # An older botocore drops the TTLs, which a log has all the same.
        for _ in range(2 if "cacheDetails" in usage else 0):
            client.converse(modelId=sonnet, messages=hello, system=CACHED)
        body = json.dumps(claude)
        for _ in range(2):
            client.invoke_model(modelId=sonnet, body=body)["body"].read()
            list(client.invoke_model_with_response_stream(modelId=sonnet, body=body)["body"])
        titan = json.dumps({"inputText": "Hello!", "dimensions": 256})
        client.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=titan)["body"].read()
        gpt = json.dumps({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 9})
        client.invoke_model(modelId="openai.gpt-oss-120b-1:0", body=gpt)["body"].read()
        bedrock.throttle()
        with pytest.raises(client.exceptions.ThrottlingException):
            client.converse(modelId=sonnet, messages=hello)
        bedrock.flush_log()
        live = {span.attributes["aws.request_id"]: span for span in captured.spans}
        counted = Counter()
        for resource in captured.metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points if metric.name.startswith(USAGE) else ():
                        counted[_series(metric.name, point.attributes)] += point.value
    ingest(tmp_path / "logs", receiver.url, tmp_path / "c")
    logged = {span.attributes["aws.request_id"]: span for span in receiver.spans}
    assert len(live) == len(logged) >= 13
    for request_id, span in live.items():
        ours = {key: value for key, value in span.attributes.items() if key not in NOT_IN_LOGS}
        theirs = dict(logged[request_id].attributes)
        assert logged[request_id].name == span.name
        assert {key: theirs.get(key) for key in ours} == ours
        assert set(theirs) - set(ours) <= ONLY_IN_LOGS
    by_log = Counter()
    for point in receiver.latest():
        if point.metric.startswith(USAGE):
            by_log[_series(point.metric, point.attributes)] += point.value
    assert by_log == counted
    assert any(key[3] == "1h" for key in counted)


def _series(metric, attributes):
    names = ("gen_ai.request.model", "gen_ai.operation.name", "bedrock.cache.ttl", "cloud.region")
    return (metric, *(attributes.get(name) for name in names))


def test_a_program_remembers_the_ids_of_its_calls_for_an_ingest(tmp_path, receiver):
    live = LiveRequests(tmp_path / "seen.txt", limit=2)
    provider = TracerProvider()
    provider.add_span_processor(live)
    hello = [{"role": "user", "content": [{"text": "Hello!"}]}]
    with FakeBedrock() as bedrock:
        bedrock.log_to(tmp_path / "logs")
        otel_bedrock.instrument(tracer_provider=provider)
        try:
            ids = [
                bedrock.client().converse(modelId=MODELS[0], messages=hello)["ResponseMetadata"][
                    "RequestId"
                ]
                for _ in range(3)
            ]
        finally:
            otel_bedrock.uninstrument()
        bedrock.playground(MODELS[0], "Good morning.")
        bedrock.flush_log()
    provider.shutdown()
    assert [live(each) for each in ids] == [False, True, True]
    command = ["logs", "ingest", str(tmp_path / "logs"), "--checkpoint", str(tmp_path / "c")]
    command += ["--otlp-endpoint", receiver.url, "--quiet"]
    assert main([*command, "--only-unseen", "--seen", str(tmp_path / "seen.txt")]) == 0
    (span,) = receiver.spans
    assert span.attributes["aws.request_id"] not in ids


def test_standard_input_is_a_source(tmp_path, receiver):
    command = [sys.executable, "-m", "otel_bedrock", "logs", "ingest", "-"]
    command += ["--checkpoint", str(tmp_path / "c"), "--otlp-endpoint", receiver.url]
    records = [make(each) for each in range(3)]
    data = gzip.compress("".join(json.dumps(each) + "\n" for each in records).encode())
    for _ in range(2):
        subprocess.run(command, input=data, check=True, capture_output=True, timeout=100)
    assert tokens(receiver) == expected(records)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_where_nothing_is_lost(number, tmp_path, receiver):
    records = [make(each) for each in range(300)]
    write(tmp_path / "logs/a.jsonl", records[:200])
    command = [sys.executable, "-m", "otel_bedrock", "logs", "ingest", str(tmp_path / "logs")]
    command += ["--checkpoint", str(tmp_path / "c"), "--otlp-endpoint", receiver.url]
    process = subprocess.Popen(
        [*command, "--follow", "--poll", "1s"], stderr=subprocess.PIPE, text=True
    )
    assert receiver.wait_for(lambda r: len(r.spans) >= 200, 60)
    write(tmp_path / "logs/b.jsonl", records[200:])
    assert receiver.wait_for(lambda r: len(r.spans) >= 300, 60)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "300 records of 2 objects" in err
    assert tokens(receiver) == expected(records)
