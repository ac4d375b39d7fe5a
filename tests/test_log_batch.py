"""Output of batch inference: read as logs are, marked as batch, compared with its manifest."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import warnings
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest

from otel_bedrock.cli.main import main
from otel_bedrock.invocation_logs import open_source, read_logs
from otel_bedrock.invocation_logs.batch import split_model
from otel_bedrock.receiver import Receiver
from otel_bedrock.testing import FakeBedrock

JOB = "abcdef123456"
CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
ABOUT = {
    "jobArn": f"arn:aws:bedrock:eu-central-1:123456789012:model-invocation-job/{JOB}",
    "jobName": "nightly",
    "modelId": CLAUDE,
    "roleArn": "arn:aws:iam::123456789012:role/batch",
    "status": "Completed",
    "submitTime": "2026-11-20T01:00:00Z",
    "endTime": "2026-11-20T03:04:05.678Z",
}


def claude(given, told):
    usage = {"input_tokens": given, "output_tokens": told}
    return {"type": "message", "content": [{"type": "text", "text": "{"}], "usage": usage}


def converse(given, told):
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": "]"}]}},
        "stopReason": "end_turn",
        "metrics": {"latencyMs": 5},
        "usage": {"inputTokens": given, "outputTokens": told},
    }


def nova(given, told):
    usage = {"inputTokens": given, "outputTokens": told, "totalTokens": given + told}
    message = {"role": "assistant", "content": [{"text": "x"}]}
    return {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}


def titan(given, told):
    return {"embedding": [0.1], "inputTextTokenCount": given}


def line(number, output=None, error=None):
    record = {"recordId": f"CALL{number:07}", "modelInput": {"messages": []}}
    if error is not None:
        return {**record, "error": {"errorCode": error, "errorMessage": "no"}}
    return {**record, "modelOutput": output}


def manifest(records, given, told, errors=0):
    return {
        "totalRecordCount": records,
        "processedRecordCount": records,
        "successRecordCount": records - errors,
        "errorRecordCount": errors,
        "inputTokenCount": given,
        "outputTokenCount": told,
    }


def write_job(folder, lines, said, about=ABOUT, name="input.jsonl.out"):
    folder = Path(folder) / JOB
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(each) + "\n" for each in lines))
    if said is not None:
        (folder / "manifest.json.out").write_text(json.dumps(said))
    if about is not None:
        (folder / "job.json").write_text(json.dumps(about))
    return folder


LINES = [line(1, claude(10, 5)), line(2, claude(20, 7)), line(3, error=400)]
SAID = manifest(3, 30, 12, errors=1)


def report(capsys, *arguments):
    code = main(["logs", "report", *map(str, arguments), "--format", "json"])
    done = capsys.readouterr()
    return code, json.loads(done.out), done.err


def test_a_job_s_lines_are_records_of_origin_batch(tmp_path):
    folder = write_job(tmp_path, LINES, SAID)
    skipped = []
    records = list(read_logs([open_source(str(folder))], skipped=skipped.append))
    assert skipped == []
    assert {record.origin for record in records} == {"batch"}
    assert [record.request_id for record in records] == [
        f"{JOB}/input.jsonl.out/CALL000000{number}" for number in (1, 2, 3)
    ]
    first, _, third = records
    assert (first.model_id, first.operation, first.region) == (
        CLAUDE,
        "InvokeModel",
        "eu-central-1",
    )
    assert first.identity == ABOUT["roleArn"]
    assert first.timestamp == "2026-11-20T03:04:05Z"
    usage = first.read_usage()
    assert (usage.input_tokens, usage.output_tokens) == (10, 5)
    assert (third.error_code, third.read_usage()) == ("400", None)


@pytest.mark.parametrize(
    ("make", "operation"),
    [
        (claude, "InvokeModel"),
        (converse, "Converse"),
        (nova, "InvokeModel"),
        (titan, "InvokeModel"),
    ],
)
def test_every_shape_of_answer_is_counted(make, operation, tmp_path):
    folder = write_job(tmp_path, [line(1, make(10, 5))], manifest(1, 10, 0 if make is titan else 5))
    (record,) = read_logs([open_source(str(folder))], skipped=pytest.fail)
    usage = record.read_usage()
    assert record.operation == operation
    assert (usage.input_tokens, usage.output_tokens) == (10, None if make is titan else 5)


def test_the_report_has_batch_beside_logs(tmp_path, capsys):
    write_job(tmp_path, LINES, SAID)
    log = {
        "schemaType": "ModelInvocationLog",
        "timestamp": "2026-11-20T05:00:00Z",
        "requestId": "r-1",
        "operation": "Converse",
        "modelId": CLAUDE,
        "input": {"inputTokenCount": 1},
        "output": {"outputTokenCount": 2},
    }
    (tmp_path / "log.json").write_text(json.dumps(log))
    code, rows, err = report(capsys, tmp_path, "--by", "origin", "--by", "model")
    assert (code, err) == (0, "")
    found = {row["origin"]: (row["requests"], row["input_tokens"], row["errors"]) for row in rows}
    assert found == {"batch": (3, 30, 1), "invocation_log": (1, 1, 0)}
    assert {row["model"] for row in rows} == {CLAUDE}


def test_batch_has_the_price_of_batch_or_none(tmp_path, capsys):
    write_job(tmp_path, LINES, SAID)
    usual = {"input": "1", "output": "10"}
    prices = tmp_path / "prices.txt"
    for entry, cost, unpriced in (
        (usual, None, 2),
        ({**usual, "batch": {"input": "0.5", "output": "5"}}, "0.000075", 0),
    ):
        prices.write_text(json.dumps({"models": {CLAUDE: entry}}))
        _, (row,), _ = report(capsys, tmp_path / JOB, "--prices", prices)
        assert row["cost_usd"] == cost
        assert row["unpriced_requests"] == unpriced


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (manifest(4, 30, 12, errors=1), "records: 4 in the manifest, 3 in the lines"),
        (manifest(3, 31, 12, errors=1), "input tokens: 31 in the manifest, 30 in the lines"),
        (manifest(3, 30, 12), "failed: 0 in the manifest, 1 in the lines"),
        ("nonsense", None),
    ],
)
def test_a_manifest_that_says_otherwise_is_reported(said, says, tmp_path, capsys):
    write_job(tmp_path, LINES, said)
    code, rows, err = report(capsys, tmp_path)
    assert [row["requests"] for row in rows] == [3]
    if says is None:
        assert (code, err) == (0, "")  # it says nothing
    else:
        assert code == 3
        assert f"{JOB}/manifest.json.out: " in err
        assert says in err


def test_a_manifest_alone_is_named(tmp_path, capsys):
    folder = write_job(tmp_path, [], SAID)
    (folder / "input.jsonl.out").unlink()
    code, rows, err = report(capsys, folder)
    assert (code, rows) == (3, [])
    assert "no lines (*.jsonl.out) of this job are here" in err


def test_a_line_that_is_none_is_named_and_missing_in_the_manifest_s_eyes(tmp_path, capsys):
    folder = write_job(tmp_path, LINES, SAID)
    path = folder / "input.jsonl.out"
    path.write_text(path.read_text().replace('{"recordId": "CALL0000002"', '{"recordId: "CALL'))
    code, rows, err = report(capsys, folder)
    assert code == 3
    assert "input.jsonl.out: line 2" in err
    assert "records: 3 in the manifest, 2 in the lines" in err
    assert [row["requests"] for row in rows] == [2]


def test_the_manifest_of_a_real_job_holds_for_lines_that_add_up_to_it(tmp_path, capsys):
    root = os.environ.get("OTEL_BEDROCK_RECORDINGS")
    if not root:
        pytest.skip("left out: OTEL_BEDROCK_RECORDINGS names no folder of recordings")
    path = Path(root) / "logs" / "manifest.json.out"
    said = json.loads(path.read_text())
    rng = random.Random(5)
    counts = [
        _split(said[name], said["successRecordCount"], rng)
        for name in ("inputTokenCount", "outputTokenCount")
    ]
    lines = [line(n, claude(*pair)) for n, pair in enumerate(zip(*counts, strict=True))]
    folder = write_job(tmp_path, lines[:1_000], None)
    write_job(tmp_path, lines[1_000:], None, name="second.jsonl.out")
    shutil.copy(path, folder)
    code, (row,), err = report(capsys, folder)
    assert (code, err) == (0, "")
    assert (row["requests"], row["input_tokens"], row["output_tokens"]) == (
        said["totalRecordCount"],
        said["inputTokenCount"],
        said["outputTokenCount"],
    )


def _split(total, parts, rng):
    cuts = sorted(rng.randrange(total + 1) for _ in range(parts - 1))
    return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]


def test_ingest_counts_a_job_once_and_marks_it(tmp_path, capsys):
    folder = write_job(tmp_path, LINES, SAID)
    checkpoint = ["--checkpoint", str(tmp_path / "state.sqlite")]
    with Receiver() as receiver:
        for _ in range(2):
            command = ["logs", "ingest", str(folder), "--otlp-endpoint", receiver.url, *checkpoint]
            assert main(command) == 0, capsys.readouterr().err
        points = [
            point
            for point in receiver.latest()
            if point.metric == "gen_ai.client.inference.usage.input_tokens"
        ]
        spans = list(receiver.spans)
    assert [(point.attributes["bedrock.usage.origin"], point.value) for point in points] == [
        ("batch", 30)
    ]
    assert len(spans) == 3
    assert {span.attributes["bedrock.usage.origin"] for span in spans} == {"batch"}


def test_a_model_may_be_written_behind_the_source(tmp_path):
    folder = write_job(tmp_path, LINES, SAID, about=None)
    (first, *_) = read_logs([open_source(f"{folder}#amazon.nova-lite-v1:0")])
    assert first.model_id == "amazon.nova-lite-v1:0"
    (first, *_) = read_logs([open_source(str(folder))])
    assert first.model_id is None
    assert first.timestamp is not None
    assert split_model("s3://b/p#arn:aws:bedrock:x:1:custom-model/a/b")[1].startswith("arn:")
    assert split_model("a#b/c.d") == ("a#b/c.d", None)
    assert split_model("plain") == ("plain", None)


@pytest.mark.parametrize("known", [True, False])
def test_jobs_in_folders_of_one_name_are_not_one_job(known, tmp_path, capsys):
    """Record ids are the same in every job; a copy of the job is still the same calls."""
    for day, job in (
        ("mon", "aaaaaaaaaaaa"),
        ("tue", "bbbbbbbbbbbb"),
        ("tue-copy", "bbbbbbbbbbbb"),
    ):
        arn = ABOUT["jobArn"].replace(JOB, job)
        about = {**ABOUT, "jobArn": arn} if known else None
        folder = write_job(tmp_path / day, LINES, SAID, about)
        folder.rename(folder.parent / ("output" if known or day == "mon" else job))
    code, rows, err = report(capsys, tmp_path)
    assert (code, err) == (0, "")
    assert [(row["requests"], row["input_tokens"]) for row in rows] == [(6, 60)]


def test_folders_that_name_no_job_are_told_apart(tmp_path, capsys):
    for day in ("mon", "tue"):
        folder = write_job(tmp_path / day, LINES, SAID, about=None)
        folder.rename(folder.parent / "output")
    _, rows, _ = report(capsys, tmp_path)
    assert [(row["requests"], row["input_tokens"]) for row in rows] == [(6, 60)]


@pytest.fixture
def moto(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer

        running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        running.start()
    host, port = running.get_host_and_port()
    # What it holds is the process's, and outlives the server.
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield
    running.stop()


def test_of_a_job_in_s3_bedrock_is_asked(moto, tmp_path, monkeypatch):
    with closing(boto3.client("s3", region_name="us-east-1")) as client, FakeBedrock() as bedrock:
        client.create_bucket(Bucket="out")
        body = "".join(json.dumps(each) + "\n" for each in LINES).encode()
        client.put_object(Bucket="out", Key=f"a/{JOB}/in.jsonl.out", Body=gzip.compress(body))
        said = json.dumps(manifest(3, 30, 99, errors=1)).encode()
        client.put_object(Bucket="out", Key=f"a/{JOB}/manifest.json.out", Body=said)
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", bedrock.url)
        bedrock.reply(ABOUT)
        skipped = []
        records = list(read_logs([open_source(f"s3://out/a/{JOB}/")], skipped=skipped.append))
        assert bedrock.requests[0].path == f"/model-invocation-job/{JOB}"
        bedrock.fail("AccessDeniedException")
        unknown = list(read_logs([open_source(f"s3://out/a/{JOB}")]))
    assert {record.model_id for record in records} == {CLAUDE}
    assert {record.timestamp for record in records} == {"2026-11-20T03:04:05Z"}
    assert [str(one) for one in skipped] == [
        f"s3://out/a/{JOB}/manifest.json.out: output tokens: 99 in the manifest, 12 in the lines"
    ]
    assert {record.model_id for record in unknown} == {None}
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    assert {record.timestamp[:10] for record in unknown} == {today}
