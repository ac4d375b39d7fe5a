"""Errors: an exception of a call, read into `error.type` and the reason of a throttle."""

from __future__ import annotations

from typing import Any

from otel_bedrock.answer import Found, read_metadata
from otel_bedrock.paths import dig

THROTTLES = frozenset(
    (
        "ThrottlingException",
        "throttlingException",
        "ServiceUnavailableException",
        "serviceUnavailableException",
        "ModelNotReadyException",
    )
)

# Codes after which Bedrock did not accept the model id: such an id opens no series.
REFUSALS = frozenset(("ValidationException", "ResourceNotFoundException", "AccessDeniedException"))
# What ends a call while its model is at work: of an id that is none, Bedrock says so at once.
UNANSWERED = frozenset(("ReadTimeoutError", "ConnectionClosedError", "CancelledError"))


def accepted(found: Any) -> bool:
    """Say whether Bedrock took the model id of a call that ended as the Outcome `found` says."""
    error = found.error_type
    if error is None or error in UNANSWERED:
        return True
    # What failed and has no request id was not answered by Bedrock.
    return found.request_id is not None and error not in REFUSALS


# A piece of the message, in lower case -> bedrock.throttle.reason; the first that fits.
# https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
_REASONS = (
    ("too many tokens per day", "tokens_per_day"),
    ("too many tokens", "tokens_per_minute"),
    ("too many requests", "requests_per_minute"),
    ("too many connections", "capacity"),
    ("capacity", "capacity"),
    ("unable to process your request", "capacity"),
    ("service unavailable", "capacity"),
    ("not ready", "capacity"),
)


def read_error(error: BaseException) -> Found:
    """Read an exception into fields of an Outcome.

    `error_type` is the code that Bedrock sent (`ThrottlingException`), else the exception's
    class: botocore makes up codes such as `400` where an answer names none.
    """
    answer: Any = getattr(error, "response", None)
    code = dig(answer, "Error.Code")
    message = dig(answer, "Error.Message") or dig(answer, "Error.message")
    found = read_metadata(dig(answer, "ResponseMetadata"))
    if not isinstance(code, str) or not code or code.isdecimal() or code == "Unknown":
        code = type(error).__name__
    found["error_type"] = code
    found["error_message"] = message if isinstance(message, str) else str(error)
    if code in THROTTLES:
        text = found["error_message"].lower()
        found["throttle_reason"] = next(
            (reason for piece, reason in _REASONS if piece in text), "other"
        )
    return found
