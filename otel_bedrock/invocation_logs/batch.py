"""Batch: the output of batch inference jobs, turned into records of the same form as logs.

https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results.html: a folder for
each job with `<input>.jsonl.out`, lines of `recordId`, `modelInput` and `modelOutput` or `error`,
and `manifest.json.out`, the totals. Neither says which model it was. That is asked of Bedrock
(bedrock:GetModelInvocationJob), read from `job.json` beside the manifest (what `aws bedrock
get-model-invocation-job` printed), or written behind the source: `s3://bucket/out/JOB#MODEL`.

A job's calls have the time of its end. Its manifest is compared with its lines, and where they
differ that is reported as input that could not be read whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from otel_bedrock.invocation_logs.inflate import Broken, inflate
from otel_bedrock.invocation_logs.parsing import loads
from otel_bedrock.invocation_logs.reading import LogObject, Source
from otel_bedrock.invocation_logs.record import BATCH, MARK, SCHEMA, Record, read_time
from otel_bedrock.paths import dig

MANIFEST = "manifest.json.out"
JOB = "job.json"
_LINES = re.compile(r"\.jsonl\.out(\.gz)?$")
_JOB_ID = re.compile(r"[a-z0-9]{12}")
_MODEL = re.compile(r"(?P<source>.+)#(?P<model>arn:\S+|[a-z0-9-]+\.[^/#\s]+)")

# Gives what GetModelInvocationJob says of a job; None where it cannot be had.
AskJob = Callable[[str], "Mapping[str, Any] | None"]


@dataclass(slots=True)
class Sums:
    """What the lines of a job come to, or what its manifest says of them."""

    records: int = 0
    succeeded: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def differences(self, lines: Sums) -> Iterator[str]:
        """Say where the lines say something else than this manifest."""
        for name in self.__slots__:
            told, found = getattr(self, name), getattr(lines, name)
            if told is not None and told != found:
                yield f"{name.replace('_', ' ')}: {told:,} in the manifest, {found:,} in the lines"


@dataclass(slots=True)
class Job:
    """One job: its folder, what is known of it, its files of lines and their sums."""

    folder: str
    model: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    ended: datetime | None = None
    files: dict[str, LogObject] = field(default_factory=dict)
    sums: dict[str, Sums] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.folder.rstrip("/").rpartition("/")[2]

    @property
    def key(self) -> str:
        """What tells its lines from other jobs': its id at Bedrock, else all of its folder."""
        arn = _text(self.about.get("jobArn")) or ""
        known = (arn.rpartition("/")[2], self.id)
        return next(filter(_JOB_ID.fullmatch, known), None) or arn or self.folder

    def record(self, line: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return a line as a record of an invocation log."""
        about, answer = self.about, line.get("modelOutput")
        arn = _text(about.get("jobArn")) or ""
        _, _, _, region, account, *_ = (*arn.split(":"), "", "", "", "", "")
        record: dict[str, Any] = {
            "schemaType": SCHEMA,
            MARK: BATCH,
            "requestId": f"{self.key}/{name.rpartition('/')[2]}/{line.get('recordId')}",
            "operation": _operation(answer),
            "modelId": self.model,
            "timestamp": f"{self.ended:%Y-%m-%dT%H:%M:%SZ}" if self.ended else None,
            "region": region or None,
            "accountId": account or None,
            "identity": {"arn": _text(about.get("roleArn"))},
            "input": {"inputBodyJson": line.get("modelInput")},
            "output": {"outputBodyJson": answer},
        }
        error = line.get("error")
        if error is not None:
            record["errorCode"] = str(dig(error, "errorCode") or "error")
        return record

    def convert(self, log: LogObject) -> Iterator[bytes]:
        """Give the lines of a file as lines of a log; what is none stays as it is, to be named."""
        sums = Sums()
        for line in _lines(inflate(log.open(0))):
            try:
                value = loads(line)
            except ValueError:
                value = None
            if not is_line(value):
                yield line + b"\n"
                continue
            record = self.record(value, log.name)
            _count(sums, record)
            yield json.dumps(record, separators=(",", ":")).encode() + b"\n"
        self.sums[log.name] = sums

    def check(self, manifest: LogObject) -> Iterator[bytes]:
        """Compare the manifest with the lines; a difference is an OSError, nothing is given."""
        try:
            said = loads(b"".join(inflate(manifest.open(0))))
        except (Broken, ValueError) as error:
            raise OSError(f"no manifest of a batch job: {error}") from error
        if not self.files:
            raise OSError("no lines (*.jsonl.out) of this job are here")
        lines = Sums()
        for name, log in self.files.items():
            if name not in self.sums:
                for _ in self.convert(log):
                    pass
            for part in Sums.__slots__:
                total = getattr(lines, part) + getattr(self.sums[name], part)
                setattr(lines, part, total)
        different = list(_read_manifest(said).differences(lines))
        if different:
            raise OSError("; ".join(different))
        yield b""


def is_line(value: Any) -> bool:
    """Say whether a JSON value is a line of a batch job's output."""
    return (
        isinstance(value, dict)
        and "recordId" in value
        and ("modelOutput" in value or "error" in value)
    )


class WithBatches:
    """A source whose output of batch jobs is given as records too, each job with its manifest."""

    def __init__(self, source: Source, model: str | None = None, ask: AskJob | None = None) -> None:
        self.name = source.name
        self.recent = source.recent
        self._source = source
        self._model = model
        self._ask = ask

    @property
    def passed_over(self) -> int:
        """How many files were left alone."""
        return self._source.passed_over

    def objects(self, since: datetime | None, until: datetime | None) -> Iterator[LogObject]:
        """Give the objects of the source; those of a job one after the other, its manifest last."""
        job: Job | None = None
        manifest: LogObject | None = None
        for log in self._source.objects(since, until):
            folder, _, base = log.name.rpartition("/")
            ours = base in (MANIFEST, JOB) or _LINES.search(base) is not None
            if job is not None and (folder != job.folder or not ours):
                yield from _last(job, manifest)
                job = manifest = None
            if not ours or (base == JOB and not _is_job(log)):
                yield log
                continue
            if job is None:
                job = Job(folder, self._model)
                self._know(job)
            if base == MANIFEST:
                manifest = log
            elif base != JOB:
                job.ended = job.ended or log.modified
                job.files[log.name] = log
                yield _converted(job, log)
        if job is not None:
            yield from _last(job, manifest)

    def _know(self, job: Job) -> None:
        about = None
        if not job.folder.startswith("s3://"):
            about = _read_json(Path(job.folder) / JOB)
        elif self._ask is not None and _JOB_ID.fullmatch(job.id):
            about = self._ask(job.id)
        if isinstance(about, Mapping):
            job.about = about
            job.model = self._model or _text(about.get("modelId"))
            job.ended = _time(about.get("endTime")) or job.ended


def split_model(text: str) -> tuple[str, str | None]:
    """Split what is written behind a source: the model of its batch jobs."""
    match = _MODEL.fullmatch(text)
    return (match["source"], match["model"]) if match else (text, None)


def ask_bedrock(job_id: str) -> Mapping[str, Any] | None:
    """Ask Bedrock for a job; None where it does not say."""
    from contextlib import closing

    from otel_bedrock.invocation_logs.aws import FAILURES, make_client

    try:
        with closing(make_client("bedrock")) as client:
            found: Mapping[str, Any] = client.get_model_invocation_job(jobIdentifier=job_id)
            return found
    except FAILURES:
        return None


def _converted(job: Job, log: LogObject) -> LogObject:
    return replace(log, open=lambda _: job.convert(log), grows=False, seekable=False)


def _last(job: Job, manifest: LogObject | None) -> Iterator[LogObject]:
    if manifest is not None:
        held = manifest
        yield replace(held, open=lambda _: job.check(held), grows=False, seekable=False)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _operation(answer: Any) -> str:
    # Nova's own answer looks like Converse's, but for the latency.
    talks = isinstance(answer, Mapping) and "stopReason" in answer and "metrics" in answer
    return "Converse" if talks else "InvokeModel"


def _count(sums: Sums, record: dict[str, Any]) -> None:
    sums.records += 1
    if "errorCode" in record:
        sums.failed += 1
        return
    sums.succeeded += 1
    usage = Record(record).read_usage()
    if usage is not None:
        sums.input_tokens += usage.input_tokens or 0
        sums.output_tokens += usage.output_tokens or 0


def _read_manifest(said: Any) -> Sums:
    def count(name: str) -> Any:
        value = dig(said, name)
        return value if type(value) is int else None

    # What it does not say is not compared.
    return Sums(
        count("processedRecordCount"),
        count("successRecordCount"),
        count("errorRecordCount"),
        count("inputTokenCount"),
        count("outputTokenCount"),
    )


def _read_json(path: Path) -> Any:
    try:
        return loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _is_job(log: LogObject) -> bool:
    try:
        value = loads(b"".join(inflate(log.open(0))))
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and "jobArn" in value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc)
    at = read_time(_text(value))
    return None if at is None else datetime.fromtimestamp(at / 1e9, timezone.utc)
