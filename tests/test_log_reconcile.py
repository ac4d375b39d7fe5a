"""`logs reconcile`: what counts as a difference, and who is named for it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs

import pytest

from otel_bedrock.cli.main import main
from otel_bedrock.invocation_logs.reconcile import COMPARED, compare
from otel_bedrock.invocation_logs.report import Line

TEN, ELEVEN = "2026-11-26T10:00Z", "2026-11-26T11:00Z"


def line(model, hour, identity, requests, given, told, errors=0):
    return Line(
        (model, hour, identity),
        requests=requests + errors,
        errors=errors,
        input_tokens=given,
        output_tokens=told,
    )


def live(requests, given, told):
    return {"requests": requests, "input_tokens": given, "output_tokens": told}


def by_model(rows):
    return {row.model: row for row in rows if row.hour is None}


def test_equal_sums_are_no_difference_whatever_failed():
    lines = [line("m", TEN, "app", 3, 30, 9, errors=2), line("n", TEN, "app", 0, None, None, 4)]
    rows = compare(lines, {("m", TEN): live(3, 30, 9)})
    assert [(row.model, row.hour, row.differs()) for row in rows] == [("m", None, False)]


def test_a_call_whose_metrics_came_in_the_next_hour_is_no_difference():
    lines = [line("m", TEN, "app", 3, 30, 9)]
    for later in (ELEVEN, None):
        rows = compare(lines, {("m", TEN): live(2, 20, 6), ("m", later): live(1, 10, 3)})
        assert [row.differs() for row in rows] == [False]


def test_the_identity_whose_calls_are_the_difference_is_named():
    lines = [
        line("m", TEN, "app", 3, 30, 9),
        line("m", TEN, "console", 1, 5, 2),
        line("m", ELEVEN, "app", 1, 10, 3),
    ]
    rows = compare(lines, {("m", TEN): live(3, 30, 9), ("m", ELEVEN): live(1, 10, 3)})
    assert [(row.hour, row.callers, row.certain) for row in rows] == [
        (None, ("console",), True),
        (TEN, ("console",), True),
    ]
    assert [rows[0].difference(name) for name in COMPARED] == [1, 5, 2, 0, 0]


def test_several_are_named_where_only_their_sum_fits():
    lines = [
        line("m", TEN, "app", 3, 30, 9),
        line("m", TEN, "console", 1, 5, 2),
        line("m", TEN, "nightly", 2, 7, 1),
    ]
    row = by_model(compare(lines, {("m", TEN): live(3, 30, 9)}))["m"]
    assert (set(row.callers), row.certain) == ({"console", "nightly"}, True)


def test_of_one_identity_the_calls_that_were_not_reported_live_are_the_difference():
    """As `instrument(correlate_logs=True)` lets the records say."""
    seen = line("m", TEN, "app", 3, 30, 9)
    seen.key = (*seen.key, "live")
    others = [line("m", TEN, "app", 2, 20, 6), line("m", TEN, "jane", 1, 10, 3)]
    row = by_model(compare([seen, *others], {("m", TEN): live(3, 30, 9)}))["m"]
    assert (set(row.callers), row.certain) == ({"app", "jane"}, True)
    row = by_model(compare([seen, others[0]], {("m", TEN): live(3, 30, 9)}))["m"]
    assert (row.callers, row.certain) == (("app",), True)


def test_two_who_fit_alike_are_not_told_apart():
    lines = [
        line("m", TEN, "app", 3, 30, 9),
        line("m", TEN, "anna", 1, 5, 2),
        line("m", TEN, "bert", 1, 5, 2),
    ]
    row = by_model(compare(lines, {("m", TEN): live(4, 35, 11)}))["m"]
    assert not row.certain


def test_where_no_sum_fits_all_who_called_are_listed():
    lines = [line("m", TEN, "app", 3, 30, 9), line("m", TEN, "cli", 3, 33, 9)]
    row = by_model(compare(lines, {("m", TEN): live(4, 44, 13)}))["m"]
    assert (row.callers, row.certain) == (("app", "cli"), False)


def test_what_only_the_metrics_saw_is_a_difference_of_nobody_s():
    rows = compare([], {("m", TEN): live(1, 5, 2)})
    assert [(row.model, row.difference("requests"), row.callers) for row in rows] == [
        ("m", -1, ()),
        ("m", -1, ()),
    ]


def test_models_that_differ_come_first_and_a_tolerance_is_a_share():
    lines = [line("a", TEN, "app", 1_000, 10_000, 500), line("b", TEN, "app", 1, 9, 9)]
    seen = {("a", TEN): live(999, 9_990, 499)}
    assert [row.model for row in compare(lines, seen) if row.hour is None] == ["b", "a"]
    rows = by_model(compare(lines, seen, tolerance=0.01))
    assert not rows["a"].differs(0.01)
    assert rows["b"].differs(0.01)


# The command, with a Prometheus that says what it is told to.


@contextmanager
def prometheus(answer: dict, status: int = 200) -> Iterator[tuple[str, list]]:
    asked: list = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            given = {key: value[0] for key, value in parse_qs(body).items()}
            asked.append((self.path, given, dict(self.headers)))
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def logs(tmp_path):
    record = {
        "schemaType": "ModelInvocationLog",
        "timestamp": "2026-11-26T10:30:00Z",
        "requestId": "r-1",
        "region": "eu-central-1",
        "operation": "Converse",
        "modelId": "amazon.nova-pro-v1:0",
        "identity": {"arn": "arn:aws:iam::1:user/jane"},
        "input": {"inputTokenCount": 7},
        "output": {"outputTokenCount": 9},
    }
    (tmp_path / "one.json").write_text(json.dumps(record))
    return tmp_path / "one.json"


NOTHING = {"status": "success", "data": {"resultType": "matrix", "result": []}}


def run(capsys, *arguments):
    code = main(["logs", "reconcile", *map(str, arguments)])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_the_questions_are_of_the_log_s_hours_region_and_labels(logs, capsys):
    with prometheus(NOTHING) as (url, asked):
        chosen = ["--match", 'service_name="chat"', "--header", "Authorization: Bearer secret"]
        code, out, _ = run(capsys, logs, "--prometheus", url, *chosen)
    assert code == 4
    assert "+1 calls, +7 input and +9 output tokens in the logs" in out
    assert "Exactly the calls of arn:aws:iam::1:user/jane." in out
    for path, given, headers in asked:
        assert headers["Authorization"] == "Bearer secret"
        for label in (
            'bedrock_usage_origin=""',
            'service_name="chat"',
            'cloud_region=~"eu-central-1|"',
            'error_type=""',
        ):
            assert label in given["query"]
        if path == "/api/v1/query_range":
            assert given["start"] == given["end"] == "1795690800.0"  # 11:00, the hour's end
        else:
            assert (path, given["time"]) == ("/api/v1/query", "1795690980.0")


def test_csv_has_who_made_the_difference(logs, capsys):
    with prometheus(NOTHING) as (url, _):
        code, out, _ = run(capsys, logs, "--prometheus", url, "--format", "csv")
    assert code == 4
    whole, hour = csv.DictReader(io.StringIO(out))
    assert (whole["hour"], hour["hour"]) == ("", TEN)
    for row in (whole, hour):
        assert row["callers"] == "arn:aws:iam::1:user/jane"
        assert (row["logs_input_tokens"], row["live_input_tokens"]) == ("7", "")
        assert row["difference_input_tokens"] == "7"


def test_a_prometheus_that_refuses_is_quoted(logs, capsys):
    with prometheus({"status": "error", "error": "no such thing"}, 400) as (url, _):
        code, _, err = run(capsys, logs, "--prometheus", url)
    assert code == 1
    assert "no such thing" in err
    assert url in err
    code, _, err = run(capsys, logs, "--prometheus", "localhost:9090")
    assert (code, "expected a URL" in err) == (1, True)
    for url in ("http://[::1", "http://a b"):
        code, _, err = run(capsys, logs, "--prometheus", url)
        assert (code, url in err) == (1, True)
    for sample in (["noon", "1"], [1e300, "1"], [1, "much"], [1], None):
        junk = {"status": "success", "data": {"result": [{"metric": {}, "values": [sample]}]}}
        with prometheus(junk) as (url, _):
            code, _, err = run(capsys, logs, "--prometheus", url)
        assert (code, "no result in the answer" in err) == (1, True)
    with prometheus(NOTHING) as (url, _):
        code, _, err = run(capsys, logs, "--prometheus", url, "--header", "nonsense")
    assert (code, "expected 'Name: value'" in err) == (1, True)


@pytest.mark.parametrize("command", ["reconcile", "report", "ingest"])
def test_a_range_that_ends_before_it_begins_is_misuse(command, logs, tmp_path, capsys):
    more = {"reconcile": ["--prometheus", "http://127.0.0.1:1"], "report": []}
    more["ingest"] = ["--checkpoint", str(tmp_path / "c"), "--otlp-endpoint", "http://127.0.0.1:1"]
    bounds = ["--since", "2026-11-27", "--until", "2026-11-26"]
    assert main(["logs", command, str(logs), *bounds, *more[command]]) == 2
    assert "--until 2026-11-26T00:00Z is before --since" in capsys.readouterr().err


def test_no_records_are_nothing_to_compare(tmp_path, capsys):
    code, _, err = run(capsys, tmp_path, "--prometheus", "http://127.0.0.1:1")
    assert (code, "no records" in err) == (1, True)
