"""Models that complete a plain prompt: Titan text, Llama, Mistral, Cohere Command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

from otel_bedrock.testing.prompt import Prompt, plain_segments, stops_of
from otel_bedrock.testing.shapes.shape import Body, Reply, Shape
from otel_bedrock.testing.tokenizer import split_text


def _reader(limit: str, stop: str) -> Callable[[Body], Prompt]:
    """For a body with `prompt`, the limit and the stop sequences at its top."""

    def read(body: Body) -> Prompt:
        text = str(body["prompt"])
        return Prompt(
            segments=plain_segments(text),
            text=text,
            max_tokens=body.get(limit),
            stops=stops_of(body.get(stop)),
        )

    return read


def _read_titan(body: Body) -> Prompt:
    config = body.get("textGenerationConfig", {})
    return Prompt(
        segments=plain_segments(body["inputText"]),
        text=str(body["inputText"]),
        max_tokens=config.get("maxTokenCount"),
        stops=stops_of(config.get("stopSequences")),
    )


def _write_titan(reply: Reply) -> Body:
    result = {
        "tokenCount": reply.answer.tokens,
        "outputText": reply.answer.text,
        "completionReason": reply.finish,
    }
    return {"inputTextTokenCount": reply.cost.input, "results": [result]}


def _titan_chunks(reply: Reply) -> Iterator[Body]:
    # Titan streams a short answer as one chunk.
    yield {
        "outputText": reply.answer.text,
        "index": 0,
        "totalOutputTextTokenCount": reply.answer.tokens,
        "completionReason": reply.finish,
        "inputTextTokenCount": reply.cost.input,
    }


def _write_llama(reply: Reply) -> Body:
    return {
        "generation": reply.answer.text,
        "prompt_token_count": reply.cost.input,
        "generation_token_count": reply.answer.tokens,
        "stop_reason": reply.finish,
    }


def _llama_chunks(reply: Reply) -> Iterator[Body]:
    pieces = split_text(reply.answer.text) or [""]
    for number, piece in enumerate(pieces, 1):
        last = number == len(pieces)
        yield {
            "generation": piece,
            # The prompt is counted in the first chunk only, the generation cumulatively.
            "prompt_token_count": reply.cost.input if number == 1 else None,
            "generation_token_count": reply.answer.tokens if last else number,
            "stop_reason": reply.finish if last else None,
        }


def _write_mistral(reply: Reply) -> Body:
    return {"outputs": [{"text": reply.answer.text, "stop_reason": reply.finish}]}


def _mistral_chunks(reply: Reply) -> Iterator[Body]:
    for piece in split_text(reply.answer.text):
        yield {"outputs": [{"text": piece, "stop_reason": None}]}
    yield {"outputs": [{"text": "", "stop_reason": reply.finish}]}


def _write_command(reply: Reply) -> Body:
    generation = {
        "id": str(uuid4()),
        "text": reply.answer.text,
        "finish_reason": reply.finish,
    }
    return {
        "id": reply.request_id,
        "generations": [generation],
        "prompt": reply.prompt.text,
    }


def _command_chunks(reply: Reply) -> Iterator[Body]:
    if not reply.request.get("stream"):
        # Without `stream` in the body, the one chunk is the whole response.
        yield _write_command(reply)
        return
    for piece in split_text(reply.answer.text):
        yield {"index": 0, "is_finished": False, "text": piece}
    yield {"finish_reason": reply.finish, "is_finished": True}


def _read_command_r(body: Body) -> Prompt:
    history = [turn.get("message", "") for turn in body.get("chat_history", ())]
    segments = plain_segments(*history, body["message"])
    return Prompt(
        segments=(*segments, *plain_segments(*body.get("documents", ()))),
        text=str(body["message"]),
        max_tokens=body.get("max_tokens"),
        stops=stops_of(body.get("stop_sequences")),
    )


def _write_command_r(reply: Reply) -> Body:
    turns = [
        *reply.request.get("chat_history", ()),
        {"role": "USER", "message": reply.prompt.text},
        {"role": "CHATBOT", "message": reply.answer.text},
    ]
    return {
        "response_id": f"{reply.request_id[:8]}/{uuid4()}",
        "text": reply.answer.text,
        "generation_id": str(uuid4()),
        "chat_history": turns,
        "finish_reason": reply.finish,
    }


def _command_r_chunks(reply: Reply) -> Iterator[Body]:
    whole = _write_command_r(reply)
    yield {
        "is_finished": False,
        "event_type": "stream-start",
        "generation_id": whole["generation_id"],
    }
    for piece in split_text(reply.answer.text):
        yield {"is_finished": False, "event_type": "text-generation", "text": piece}
    units = {"input_tokens": reply.cost.input, "output_tokens": reply.answer.tokens}
    # Only the streamed form reports what was billed in the body.
    whole["meta"] = {"api_version": {"version": "1"}, "billed_units": units}
    yield {
        "is_finished": True,
        "event_type": "stream-end",
        "response": whole,
        "finish_reason": reply.finish,
    }


TITAN = Shape(
    "inputText",
    _read_titan,
    _write_titan,
    _titan_chunks,
    {"end": "FINISH", "length": "LENGTH", "stop": "STOP_CRITERIA_MET", "tool": "FINISH"},
)
LLAMA = Shape(
    "prompt",
    _reader("max_gen_len", "stop"),
    _write_llama,
    _llama_chunks,
    {"end": "stop", "length": "length", "stop": "stop", "tool": "stop"},
)
MISTRAL = Shape(
    "prompt",
    _reader("max_tokens", "stop"),
    _write_mistral,
    _mistral_chunks,
    {"end": "stop", "length": "length", "stop": "stop", "tool": "tool_calls"},
)
_COHERE = {
    "end": "COMPLETE",
    "length": "MAX_TOKENS",
    "stop": "STOP_SEQUENCE",
    "tool": "COMPLETE",
}
COMMAND = Shape(
    "prompt",
    _reader("max_tokens", "stop_sequences"),
    _write_command,
    _command_chunks,
    {**_COHERE, "stop": "COMPLETE"},
)
COMMAND_R = Shape("message", _read_command_r, _write_command_r, _command_r_chunks, _COHERE)
