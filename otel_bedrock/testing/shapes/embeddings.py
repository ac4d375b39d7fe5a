"""Embedding models: Titan, Cohere, Nova. They report input tokens, and nothing of output."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import sin
from zlib import crc32

from otel_bedrock.testing.prompt import Prompt, plain_segments
from otel_bedrock.testing.shapes.shape import Body, Reply, Shape
from otel_bedrock.testing.tokenizer import MEDIA_TOKENS


@lru_cache(maxsize=256)
def _numbers(seed: int, size: int) -> tuple[float, ...]:
    return tuple(round(sin(seed + step) / 16, 8) for step in range(size))


def _vector(text: str, size: int) -> tuple[float, ...]:
    """Numbers that depend on the text; few enough kinds to keep them."""
    return _numbers(crc32(text.encode()) % 64, size)


def _prompt(texts: list[str], size: int, images: int = 0) -> Prompt:
    segments = plain_segments(*texts)
    extra = plain_segments(*({"source": ""} for _ in range(images)))
    return Prompt(segments=segments + extra, inputs=tuple(texts), dimensions=size)


def _titan_reader(size: int) -> Callable[[Body], Prompt]:
    def read(body: Body) -> Prompt:
        images = 1 if body.get("inputImage") else 0
        config = body.get("embeddingConfig", {})
        wanted = body.get("dimensions", config.get("outputEmbeddingLength", size))
        return _prompt([str(body.get("inputText", ""))], wanted, images)

    return read


def _size(reply: Reply) -> int:
    assert reply.prompt.dimensions is not None
    return reply.prompt.dimensions


def _write_titan(reply: Reply) -> Body:
    numbers = _vector(reply.prompt.inputs[0], _size(reply))
    return {"embedding": numbers, "inputTextTokenCount": reply.cost.input}


def _write_titan_v2(reply: Reply) -> Body:
    numbers = _vector(reply.prompt.inputs[0], _size(reply))
    return {
        "embedding": numbers,
        "embeddingsByType": {"float": numbers},
        "inputTextTokenCount": reply.cost.input,
    }


def _cohere_reader(size: int) -> Callable[[Body], Prompt]:
    def read(body: Body) -> Prompt:
        texts = [str(text) for text in body.get("texts", ())]
        return _prompt(texts, body.get("output_dimension", size), len(body.get("images", ())))

    return read


def _vectors(reply: Reply) -> list[tuple[float, ...]]:
    return [_vector(text, _size(reply)) for text in reply.prompt.inputs]


def _write_cohere(reply: Reply) -> Body:
    return {
        "embeddings": _vectors(reply),
        "id": reply.request_id,
        "response_type": "embeddings_floats",
        # Version 3 lowers the case of what it echoes.
        "texts": [text.lower() for text in reply.prompt.inputs],
    }


def _write_cohere_v4(reply: Reply) -> Body:
    kinds = reply.request.get("embedding_types", ["float"])
    return {
        "embeddings": {kind: _vectors(reply) for kind in kinds},
        "id": reply.request_id,
        "response_type": "embeddings_by_type",
        "texts": list(reply.prompt.inputs),
    }


def _read_nova(body: Body) -> Prompt:
    params = body.get("singleEmbeddingParams", {})
    text = params.get("text", {}).get("value")
    size = params.get("embeddingDimension", 3072)
    if text is None:
        return _prompt([""], size, images=1)
    return _prompt([str(text)], size)


def _write_nova(reply: Reply) -> Body:
    kind = "IMAGE" if reply.cost.input == MEDIA_TOKENS else "TEXT"
    numbers = _vector(reply.prompt.inputs[0], _size(reply))
    return {"embeddings": [{"embedding": numbers, "embeddingType": kind}]}


def _shape(key: str, read: Callable[[Body], Prompt], write: Callable[[Reply], Body]) -> Shape:
    return Shape(key, read, write, chunks=None, finishes={}, generates=False)


TITAN = _shape("inputText", _titan_reader(1536), _write_titan)
TITAN_IMAGE = _shape("inputText", _titan_reader(1024), _write_titan)
TITAN_V2 = _shape("inputText", _titan_reader(1024), _write_titan_v2)
COHERE = _shape("texts", _cohere_reader(1024), _write_cohere)
COHERE_V4 = _shape("texts", _cohere_reader(1536), _write_cohere_v4)
NOVA = _shape("taskType", _read_nova, _write_nova)
