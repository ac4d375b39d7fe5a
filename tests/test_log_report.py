"""`logs report`: what a month of logs adds up to, each call once, whatever is in the way."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from account_month import write_month

from otel_bedrock.cli.logs_times import read_span
from otel_bedrock.cli.main import main
from otel_bedrock.invocation_logs import Skipped, open_source, read_logs
from otel_bedrock.invocation_logs import brief as brief_module
from otel_bedrock.invocation_logs.brief import make_parse, read_briefly
from otel_bedrock.invocation_logs.rates import RateBook
from otel_bedrock.invocation_logs.report import NoSuchField, Report, field_of
from otel_bedrock.invocation_logs.seen import Seen
from otel_bedrock.pricing import open_prices, price_call

GROUPS = (
    (("model",), ("model",)),
    (("identity",), ("identity",)),
    (("day", "operation"), ("day", "operation")),
    (("metadata:team", "model"), ("team", "model")),
)
TABLE = {
    "source": "ours",
    "date": "2026-10-01",
    "models": {
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0": {
            "input": "3.30",
            "output": "16.50",
            "cache_read": "0.33",
            "cache_write_5m": "4.125",
            "cache_write_1h": "6.60",
            "long_context": {
                "above": 50000,
                "input": "6.60",
                "output": "24.75",
                "cache_read": "0.66",
                "cache_write": "8.25",
            },
        },
        "global.anthropic.claude-opus-4-6-v1": {
            "input": "5",
            "output": "25",
            "cache_read": "0.5",
            "cache_write_5m": "6.25",
            "cache_write_1h": "10",
        },
        "amazon.titan-embed-text-v2:0": {"input": "0.02", "output": "0"},
    },
}


def _written(operation, body):
    return {
        "operation": operation,
        "modelId": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "input": {"inputTokenCount": 7, "cacheWriteInputTokenCount": 30},
        "output": {"outputTokenCount": 9, "outputBodyJson": body},
    }


_SPLIT = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}
_DETAILS = [{"ttl": "1h", "inputTokens": 20}, {"ttl": "5m", "inputTokens": 10}]
_NATIVE = {"input_tokens": 7, "output_tokens": 9}
_CAMEL = {"inputTokens": 7, "outputTokens": 9}
# Cache writes by TTL, in every place where a body tells them, and wrongly.
WRITES = (
    _written("InvokeModel", {"usage": {**_NATIVE, "cache_creation": _SPLIT}}),
    _written("InvokeModel", {"usage": {**_NATIVE, "cache_creation": {**_SPLIT, "x": 1}}}),
    _written("InvokeModel", {"usage": {"cache_creation": _SPLIT}}),
    _written("InvokeModel", {"message": {"usage": {**_NATIVE, "cache_creation": _SPLIT}}}),
    _written("InvokeModel", json.dumps({"usage": {**_NATIVE, "cache_creation": _SPLIT}})),
    _written("InvokeModel", {"usage": {**_NATIVE, "cache_creation": {"ephemeral_5m": 5}}}),
    _written("InvokeModel", {"usage": "much"}),
    _written("InvokeModel", {"usage": {"prompt_tokens": 37, "completion_tokens": 9}}),
    _written(
        "InvokeModelWithResponseStream",
        [{"type": "message_start", "message": {"usage": {**_NATIVE, "cache_creation": _SPLIT}}}],
    ),
    _written("Converse", {"usage": {**_CAMEL, "cacheDetails": _DETAILS}}),
    _written("ConverseStream", {"output": {"usage": {**_CAMEL, "cacheDetails": _DETAILS}}}),
    _written("Converse", {"usage": {**_CAMEL, "cacheDetails": _DETAILS[:1]}}),
    _written("Converse", {"usage": {**_CAMEL, "cache_creation": _SPLIT}}),
    _written("Converse", {"usage": {**_CAMEL, "cacheDetails": [{"ttl": "9h"}]}}),
)


def _inclusive(operation, model, body):
    return {
        "operation": operation,
        "modelId": model,
        "input": {
            "inputTokenCount": 4995,
            "cacheReadInputTokenCount": 0,
            "cacheWriteInputTokenCount": 4993,
        },
        "output": {"outputTokenCount": 9, "outputBodyJson": body},
    }


_GPT = "openai.gpt-5.6-sol"
_WRITTEN = {"inputTokens": 4995, "outputTokens": 9, "cacheWriteInputTokens": 4993}
_PROMPT = {
    "prompt_tokens": 4995,
    "completion_tokens": 9,
    "prompt_tokens_details": {"cache_write_tokens": 4993},
}
# Input that has what was written to the cache in it, as only the body tells.
INCLUSIVE = (
    _inclusive("ConverseStream", _GPT, {"usage": _WRITTEN}),
    _inclusive("InvokeModel", _GPT, {"usage": _PROMPT}),
    _inclusive("InvokeModel", "acme.new-v1:0", {"usage": _PROMPT}),
)


@pytest.fixture(scope="module")
def month(tmp_path_factory):
    folder = tmp_path_factory.mktemp("month")
    return folder, write_month(folder, records=1_500)


@pytest.fixture(params=["msgspec", "json"])
def parser(request, monkeypatch):
    """With msgspec, and as it is where only the standard library is there."""
    if request.param == "json":
        monkeypatch.setattr(brief_module, "_decode", None)
    else:
        pytest.importorskip("msgspec")
    return request.param


def read(folder, report, *, splits=True, variants=False):
    skipped = []
    for log in open_source(str(folder)).objects(report.since, report.until):
        for found in read_briefly(log, make_parse(splits=splits, variants=variants)):
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                report.take(found)
    return skipped


def sums(line):
    return (
        line.requests,
        line.errors,
        line.uncached_tokens,
        line.cache_read_tokens,
        line.cache_write_tokens,
        # A split of nothing written is told by some bodies, and looked at in none.
        line.cache_write_1h_tokens or None,
        line.output_tokens,
        line.first,
        line.last,
    )


def expected(sums):
    return (
        sums.requests,
        sums.errors,
        sums.uncached,
        sums.cache_read,
        sums.cache_write,
        sums.write_1h or None,
        sums.output,
        sums.first,
        sums.last,
    )


def test_without_the_ttl_of_cache_writes_the_sums_are_the_same(month):
    """As in a table, which has no columns for them, and takes the short way more often."""
    folder, truth = month
    report = Report()
    read(folder, report, splits=False)
    assert {line.key[0]: sums(line)[:5] for line in report.lines()} == {
        key: expected(value)[:5] for key, value in truth.sums("model").items()
    }


@pytest.mark.parametrize(("by", "fields"), GROUPS)
def test_a_month_adds_up_to_its_truth(month, parser, by, fields):
    folder, truth = month
    report = Report(by=by)
    skipped = read(folder, report)
    assert report.calls == truth.calls == len(truth.rows)
    assert report.seen.repeated == truth.duplicates > 0
    assert len(skipped) == truth.corrupt > 0
    found = {line.key: sums(line) for line in report.lines()}
    assert found == {
        key if isinstance(key, tuple) else (key,): expected(value)
        for key, value in truth.sums(*fields).items()
    }
    assert sums(report.total()) == expected(truth.total())


def test_the_short_way_is_taken_where_it_is_enough(month):
    """Else nothing of the speed would be left, and no test would say so."""
    pytest.importorskip("msgspec")
    folder, _ = month
    found = [
        type(one).__name__
        for log in open_source(str(folder)).objects(None, None)
        for one in read_briefly(log, make_parse())
    ]
    assert found.count("_Brief") > len(found) / 2


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"inputTokenCount": "7"}},
        {"input": {"inputTokenCount": 7.0, "cacheWriteInputTokenCount": 2}},
        {"input": {"inputTokenCount": -1}},
        {"input": {"inputTokenCount": True}},
        {"input": {"inputTokenCount": 2**70}},
        {"input": [1, 2]},
        {"input": None},
        {"output": "text"},
        {"output": {"outputTokenCount": None}},
        {"requestId": 5},
        {"requestId": ""},
        {"modelId": None, "operation": "Converse"},
        {"timestamp": "2026-10-01T10:00:00.5+02:00"},
        {"timestamp": "yesterday"},
        {"timestamp": None},
        {"identity": "me", "requestMetadata": [1]},
        {"identity": {"arn": 5}, "requestMetadata": {"team": 5}},
        {"schemaType": None},
        {"errorCode": "ThrottlingException"},
        {"performanceConfig": "fast"},
        {"operation": 7, "region": 8},
        {"output": {}},
        {"output": {}, "modelId": "amazon.titan-embed-text-v2:0"},
        {"input": {"inputTokenCount": 7, "cacheWriteInputTokenCount": 3}},
        *WRITES,
        *INCLUSIVE,
        {"modelId": "openai.gpt-oss-120b-1:0", "input": {"inputTokenCount": 7}},
    ],
)
def test_both_ways_read_an_odd_record_alike(change, tmp_path, monkeypatch):
    pytest.importorskip("msgspec")
    record = {
        "schemaType": "ModelInvocationLog",
        "timestamp": "2026-10-01T10:00:00Z",
        "requestId": "r-1",
        "operation": "Converse",
        "modelId": "amazon.nova-pro-v1:0",
        "input": {"inputTokenCount": 7, "cacheReadInputTokenCount": 0},
        "output": {"outputTokenCount": 9},
        **change,
    }
    (tmp_path / "one.json").write_text(json.dumps(record))
    by = ("model", "identity", "operation", "day", "region", "metadata:team")

    def lines():
        report = Report(by=by)
        skipped = read(tmp_path, report)
        return report.lines(), [one.why for one in skipped]

    quickly = lines()
    assert quickly[0] or quickly[1]
    monkeypatch.setattr(brief_module, "_decode", None)
    assert quickly == lines()


@pytest.mark.parametrize("splits", [True, False])
@pytest.mark.parametrize("record", INCLUSIVE)
def test_input_that_counts_the_cache_is_not_counted_with_it_again(record, splits, parser, tmp_path):
    common = {"schemaType": "ModelInvocationLog", "timestamp": "2026-10-01T10:00:00Z"}
    (tmp_path / "one.json").write_text(json.dumps({**common, "requestId": "r-1", **record}))
    report = Report(by=("model",))
    assert read(tmp_path, report, splits=splits) == []
    (line,) = report.lines()
    assert (line.input_tokens, line.uncached_tokens, line.cache_write_tokens) == (4995, 2, 4993)


def test_a_range_takes_calls_by_their_own_times(month):
    folder, truth = month
    since = datetime(2026, 10, 10, tzinfo=timezone.utc)
    until = datetime(2026, 10, 20, 12, tzinfo=timezone.utc)
    report = Report(by=("day",), since=since, until=until)
    read(folder, report)
    wanted = truth.sums("day", where=lambda row: "2026-10-10" <= row.time < "2026-10-20T12")
    assert {line.key[0]: sums(line) for line in report.lines()} == {
        key: expected(value) for key, value in wanted.items()
    }


def test_costs_are_those_of_each_call(month, parser, tmp_path):
    """To the last digit, though only sums are priced; also across a long-context price."""
    folder, _ = month
    prices = open_prices(TABLE)
    report = Report(by=("model",), book=RateBook(prices))
    read(folder, report, variants=True)
    seen, wanted, unpriced = set(), {}, {}
    for record in read_logs([open_source(str(folder))]):
        if record.request_id in seen:
            continue
        seen.add(record.request_id)
        at = datetime(2026, 10, 1, tzinfo=timezone.utc)
        cost = price_call(record.read_call(), record.read_outcome(), prices, at)
        model = record.model.name
        if cost is not None:
            wanted[model] = wanted.get(model, Decimal(0)) + cost.amount
        elif record.error_code is None:
            unpriced[model] = unpriced.get(model, 0) + 1
    assert {line.key[0]: line.cost for line in report.lines() if line.cost is not None} == wanted
    assert {line.key[0]: line.unpriced for line in report.lines() if line.unpriced} == unpriced
    assert len(wanted) == 3
    assert len(unpriced) > 3


def test_a_tier_without_a_price_has_no_cost(parser, tmp_path):
    record = {
        "schemaType": "ModelInvocationLog",
        "timestamp": "2026-10-01T10:00:00Z",
        "requestId": "r-1",
        "operation": "Converse",
        "modelId": "amazon.titan-embed-text-v2:0",
        "input": {"inputTokenCount": 7},
        "output": {"outputTokenCount": 9, "outputBodyJson": {"serviceTier": {"type": "flex"}}},
    }
    plain = {**record, "requestId": "r-2", "output": {"outputTokenCount": 9}}
    (tmp_path / "two.json").write_text(json.dumps(record) + "\n" + json.dumps(plain))
    report = Report(book=RateBook(open_prices(TABLE)))
    read(tmp_path, report, variants=True)
    (line,) = report.lines()
    assert (line.requests, line.unpriced, line.cost) == (2, 1, Decimal("0.00000014"))


def test_ids_are_remembered_beyond_memory():
    with Seen(kept=100) as seen:
        assert all(seen.add(f"id-{number}") for number in range(1_000))
        assert not any(seen.add(f"id-{number}") for number in range(1_000))
        assert seen.add("another")
        assert seen.repeated == 1_000


def test_a_field_that_is_none_is_named():
    with pytest.raises(NoSuchField, match="metadata:KEY, got 'modell'"):
        field_of("modell")
    with pytest.raises(NoSuchField):
        field_of("metadata:")


# The command.


def run(capsys, *arguments):
    code = main(["logs", "report", *map(str, arguments)])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_the_command_names_what_it_leaves_out_and_ends_with_3(month, capsys):
    folder, truth = month
    code, out, err = run(capsys, folder, "--format", "json")
    assert code == 3
    assert f"left out {truth.corrupt} that could not be read" in err
    named = [line for line in err.splitlines() if "line " in line]
    assert all(str(folder) in line for line in named)
    assert len(named) == truth.corrupt
    rows = json.loads(out)
    assert sum(row["requests"] for row in rows) == truth.calls
    assert sum(row["output_tokens"] or 0 for row in rows) == truth.total().output


def test_csv_and_table_say_the_same(tmp_path, capsys):
    truth = write_month(tmp_path, records=200, trouble=False)
    code, out, err = run(capsys, tmp_path, "--by", "operation", "--format", "csv")
    assert (code, err) == (0, "")
    rows = {row["operation"]: row for row in csv.DictReader(io.StringIO(out))}
    wanted = truth.sums("operation")
    assert {key: int(row["uncached_tokens"]) for key, row in rows.items()} == {
        key: value.uncached for key, value in wanted.items()
    }
    _, table, _ = run(capsys, tmp_path, "--by", "operation")
    for key, value in wanted.items():
        (line,) = [line for line in table.splitlines() if line.split()[0] == key]
        assert f"{value.uncached:,}" in line.split()
    assert f"{truth.total().output:,}" in table.splitlines()[-1].split()


def test_what_nobody_told_is_a_dash_and_empty_and_null_but_never_0(tmp_path, capsys):
    record = {
        "schemaType": "ModelInvocationLog",
        "timestamp": "2026-10-01T10:00:00Z",
        "requestId": "r-1",
        "operation": "Converse",
        "modelId": "acme.new-v1:0",
        "input": {},
        "output": {},
    }
    (tmp_path / "one.json").write_text(json.dumps(record))
    prices = tmp_path / "prices.txt"
    prices.write_text(json.dumps(TABLE))
    (row,) = json.loads(run(capsys, tmp_path / "one.json", "--prices", prices, "--format=json")[1])
    assert {key: row[key] for key in row if "tokens" in key or key == "cost_usd"} == {
        "input_tokens": None,
        "uncached_tokens": None,
        "cache_read_tokens": None,
        "cache_write_tokens": None,
        "cache_write_5m_tokens": None,
        "cache_write_1h_tokens": None,
        "output_tokens": None,
        "cost_usd": None,
    }
    assert (row["uncounted_requests"], row["unpriced_requests"]) == (1, 1)
    _, table, _ = run(capsys, tmp_path / "one.json", "--prices", prices)
    assert table.splitlines()[1].split() == (
        "acme.new-v1:0 1 0 1 - - - - - - - 1 2026-10-01T10:00:00Z 2026-10-01T10:00:00Z".split()
    )


def test_a_value_of_others_cannot_write_to_the_terminal(tmp_path, capsys):
    record = {
        "schemaType": "ModelInvocationLog",
        "requestId": "r-1",
        "modelId": "m",
        "requestMetadata": {"team": "a\nb\x1b[2Jc\u202ed é"},
    }
    (tmp_path / "one.json").write_text(json.dumps(record))
    _, out, _ = run(capsys, tmp_path, "--by", "metadata:team")
    assert out.splitlines()[1].startswith(r"a\nb\x1b[2Jc\u202ed é  ")
    _, out, _ = run(capsys, tmp_path, "--by", "metadata:team", "--format", "json")
    assert json.loads(out)[0]["metadata:team"] == record["requestMetadata"]["team"]


def test_mistakes_are_explained(tmp_path, capsys):
    code, _, err = run(capsys, tmp_path / "nothing")
    assert (code, "there is no such file or folder" in err) == (1, True)
    code, _, err = run(capsys, "")
    assert (code, "a source is empty" in err) == (1, True)
    code, _, err = run(capsys, tmp_path, "--by", "team")
    assert (code, "metadata:KEY, got 'team'" in err) == (2, True)
    code, _, err = run(capsys, tmp_path, "--since", "noon")
    assert (code, "expected a time such as 2026-11-01" in err) == (2, True)
    code, _, err = run(capsys, tmp_path, "--prices", tmp_path / "no.json")
    assert (code, "--prices" in err) == (1, True)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("999999w", "9999-12-31T23:59:59.5Z"),
        ("0001-01-01T00:00+05:00", "9999-12-31T23:59-05:00"),
    ],
)
def test_a_time_may_be_as_far_away_as_one_likes(first, last, month, capsys):
    folder, truth = month
    code, out, _ = run(capsys, folder, "--since", first, "--until", last, "--format", "json")
    assert code == 3  # for what is corrupt in it
    assert sum(row["requests"] for row in json.loads(out)) == truth.calls
    assert run(capsys, folder, "--since", last)[1] == "No records.\n"
    assert read_span("999999w") < timedelta(days=40_000)


@pytest.mark.parametrize(
    ("redirect", "code", "says"),
    [
        ("> /dev/full", 1, "cannot write to standard output: No space left on device"),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
    ],
)
@pytest.mark.parametrize("how", ["table", "json"])
def test_an_output_that_cannot_be_written_is_no_traceback(redirect, code, says, how, tmp_path):
    write_month(tmp_path, records=20, trouble=False)
    command = f"{sys.executable} -m otel_bedrock logs report {tmp_path} --format {how} {redirect}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert says in done.stderr


@pytest.mark.parametrize("how", ["table", "json"])
def test_letters_that_the_terminal_lacks_are_written_as_codes(how, tmp_path):
    write_month(tmp_path, records=20, trouble=False)
    for path in tmp_path.rglob("*.json.gz"):
        path.write_bytes(
            gzip.compress(gzip.decompress(path.read_bytes()).replace(b"amazon", "ä".encode()))
        )
    done = subprocess.run(
        [sys.executable, "-m", "otel_bedrock", "logs", "report", tmp_path, "--format", how],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert done.returncode == 0, done.stderr
    if how == "json":
        assert [row for row in json.loads(done.stdout) if row["model"].startswith("ä")]
    else:
        assert b"\\xe4.nova" in done.stdout


def test_an_empty_folder_is_no_mistake(tmp_path, capsys):
    assert run(capsys, tmp_path) == (0, "No records.\n", "")
    assert run(capsys, tmp_path, "--format", "json") == (0, "[]\n", "")


def test_what_was_passed_over_is_counted_and_no_failure(tmp_path, capsys):
    (tmp_path / "notes.md").touch()
    code, out, err = run(capsys, tmp_path)
    assert (code, out) == (0, "No records.\n")
    assert f"passed over 1 in {tmp_path}" in err


def test_a_folder_that_may_not_be_read_is_named_and_the_others_are_read(
    tmp_path, capsys, monkeypatch
):
    truth = write_month(tmp_path, records=40, trouble=False)
    (tmp_path / "secret").mkdir()
    scan = os.scandir

    def refuse(folder):
        if Path(folder).name == "secret":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    code, out, err = run(capsys, tmp_path, "--format", "json")
    assert (code, f"{tmp_path / 'secret'}: Permission denied" in err) == (3, True)
    assert sum(row["requests"] for row in json.loads(out)) == truth.calls
    code, _, err = run(capsys, tmp_path / "secret")
    assert (code, "secret: Permission denied" in err) == (1, True)


def test_a_file_that_may_not_be_read_is_named_and_the_others_are_read(
    tmp_path, capsys, monkeypatch
):
    truth = write_month(tmp_path, records=40, trouble=False)
    (tmp_path / "secret.json").write_text("{}")
    opened = Path.open

    def refuse(self, *args, **kwargs):
        if self.name == "secret.json":
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    code, out, err = run(capsys, tmp_path, "--format", "json")
    assert code == 3
    assert "secret.json: Permission denied" in err
    assert sum(row["requests"] for row in json.loads(out)) == truth.calls


@pytest.mark.parametrize("how", ["table", "csv", "json"])
def test_odd_times_and_texts_end_no_report(how, tmp_path, capsys, parser):
    odd = ("9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00", "1960-01-01T00:00:00Z")
    records = [
        {
            "schemaType": "ModelInvocationLog",
            "timestamp": time,
            "requestId": f"r-{number}",
            "operation": "Converse",
            "modelId": "amazon.nova-\ud800",
            "input": {"inputTokenCount": 10},
            "output": {"outputTokenCount": 5},
        }
        for number, time in enumerate((*odd, "2026-10-01T10:00:00Z"))
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    code, out, err = run(capsys, tmp_path, "--format", how)
    assert (code, err) == (0, "")
    out.encode()
    assert "amazon.nova-?" in out
    assert "2026-10-01T10:00:00Z" in out
    assert not any(time[:10] in out for time in odd)
