"""The /_fake/ paths: the bill and the faults, for other processes and other languages."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from otel_bedrock.testing.faults import ASKED

if TYPE_CHECKING:
    from otel_bedrock.testing.server import FakeBedrock


def _get_bill(bedrock: FakeBedrock, asked: Any) -> object:
    return bedrock.to_json()


def _clear_bill(bedrock: FakeBedrock, asked: Any) -> object:
    bedrock.clear_bill()
    return {}


def _ask(bedrock: FakeBedrock, asked: Any) -> object:
    for one in asked if isinstance(asked, list) else [asked]:
        arguments = dict(one)
        name = arguments.pop("fault", None)
        if name not in ASKED:
            raise ValueError(f"fault: expected one of {', '.join(ASKED)}, got {name!r}")
        getattr(bedrock, name)(**arguments)
    return {}


def _clear_faults(bedrock: FakeBedrock, asked: Any) -> object:
    bedrock.clear_faults()
    return {}


def _flush_log(bedrock: FakeBedrock, asked: Any) -> object:
    bedrock.flush_log()
    return {}


def _play(bedrock: FakeBedrock, asked: Any) -> object:
    return asdict(bedrock.playground(**asked))


def _health(bedrock: FakeBedrock, asked: Any) -> object:
    return {"status": "ok"}


_ROUTES: dict[tuple[str, str], Callable[[FakeBedrock, Any], object]] = {
    ("GET", "/_fake/bill"): _get_bill,
    ("DELETE", "/_fake/bill"): _clear_bill,
    ("POST", "/_fake/faults"): _ask,
    ("DELETE", "/_fake/faults"): _clear_faults,
    ("POST", "/_fake/playground"): _play,
    ("POST", "/_fake/flush"): _flush_log,
    ("GET", "/_fake/health"): _health,
}


def answer(bedrock: FakeBedrock, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Answer one /_fake/ request with a status and a JSON body."""
    route = _ROUTES.get((method, path))
    if route is None:
        known = ", ".join(f"{verb} {where}" for verb, where in _ROUTES)
        return 404, _dump({"error": f"{method} {path}: unknown; there are {known}"})
    try:
        return 200, _dump(route(bedrock, json.loads(body) if body else None))
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        return 400, _dump({"error": str(error)})


def _dump(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
