"""Recorded Bedrock exchanges, replayed to a real boto3 client through a real socket."""

from __future__ import annotations

import base64
import gzip
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
from botocore.config import Config

VARIABLE = "OTEL_BEDROCK_RECORDINGS"

Record = dict[str, Any]

METHODS = {
    "Converse": "converse",
    "ConverseStream": "converse_stream",
    "InvokeModel": "invoke_model",
    "InvokeModelWithResponseStream": "invoke_model_with_response_stream",
    "CountTokens": "count_tokens",
    "ApplyGuardrail": "apply_guardrail",
}

# Set anew by the server: the recorded ones may not fit the bytes as they are sent now.
_FRAMING = {"content-length", "transfer-encoding", "connection", "content-encoding"}


def load() -> list[Record]:
    """Return the records of the folder that OTEL_BEDROCK_RECORDINGS names; [] where unset."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return []
    with gzip.open(Path(folder) / "recordings.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


class Replay:
    """A loopback server that answers with the record it was told to."""

    def __init__(self) -> None:
        self.record: Record | None = None
        replay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                record = replay.record
                assert record is not None
                body = base64.b64decode(record["response_body_b64"])
                self.send_response_only(record["status"])
                for name, value in record["response_headers"].items():
                    if name.lower() not in _FRAMING:
                        self.send_header(name, value)
                if record["streamed"]:
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for start in range(0, len(body), 1000):
                        piece = body[start : start + 1000]
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.write(b"0\r\n\r\n")
                else:
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def client(self) -> Any:
        """Return a boto3 client of this server, without retries."""
        return boto3.Session().client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=self.url,
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def replaying() -> Iterator[Replay]:
    replay = Replay()
    try:
        yield replay
    finally:
        replay.close()


def parameters(record: Record) -> dict[str, Any]:
    """Build the parameters of the boto3 call from the recorded path and request body."""
    model = unquote(record["path"].split("/")[2])
    body = record["request_body"]
    if record["request_body_encoding"] == "base64":
        body = base64.b64decode(body)
    operation = record["operation"]
    if operation.startswith("InvokeModel"):
        return {"modelId": model, "body": body}
    try:
        data = json.loads(body) if body else {}
    except ValueError:
        # Cut short at the source; what is judged is the answer.
        data = {"messages": [{"role": "user", "content": [{"text": "cut short"}]}]}
    if operation == "ApplyGuardrail":
        parts = record["path"].split("/")
        return {"guardrailIdentifier": parts[2], "guardrailVersion": parts[4], **data}
    return {"modelId": model, **data}


def known(client: Any, record: Record) -> bool:
    """Say whether the installed botocore has the record's operation."""
    return record["operation"] in client.meta.service_model.operation_names


def _trimmed(value: Any, shape: Any) -> Any:
    """Return `value` without the members that an older botocore cannot send."""
    if shape.type_name == "structure" and isinstance(value, dict):
        if getattr(shape, "is_document_type", False):
            return value
        members = shape.members
        return {key: _trimmed(item, members[key]) for key, item in value.items() if key in members}
    if shape.type_name == "list" and isinstance(value, list):
        return [_trimmed(item, shape.member) for item in value]
    return value


def run(client: Any, record: Record) -> dict[str, Any]:
    """Make the call and return all that the caller sees."""
    seen: dict[str, Any] = {}
    shape = client.meta.service_model.operation_model(record["operation"]).input_shape
    try:
        sent = _trimmed(parameters(record), shape)
        answer = getattr(client, METHODS[record["operation"]])(**sent)
        seen["keys"] = list(answer)
        stream = answer.get("stream") or (answer.get("body") if record["streamed"] else None)
        if stream is not None:
            seen["stream_type"] = type(stream)
            seen["events"] = events = []
            events.extend(stream)
        elif "body" in answer:
            seen["body_type"] = type(answer["body"])
            seen["body"] = answer["body"].read()
        else:
            seen["answer"] = {k: v for k, v in answer.items() if k != "ResponseMetadata"}
    except Exception as error:
        seen["error"] = (type(error).__module__, type(error).__qualname__, str(error))
    return seen
