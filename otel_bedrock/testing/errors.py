"""Bedrock's errors: their HTTP status, where they come from, and how they look on the wire."""

from __future__ import annotations

import json

# https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
STATUS = {
    "AccessDeniedException": 403,
    "ConflictException": 400,
    "ExpiredTokenException": 403,
    "InternalServerException": 500,
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
    "ModelStreamErrorException": 424,
    "ModelTimeoutException": 408,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 400,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "UnrecognizedClientException": 403,
    "ValidationException": 400,
}
# Errors of the front door, not of Bedrock, name another origin.
_FRONT = frozenset({"ExpiredTokenException", "UnrecognizedClientException"})
_ORIGINS = {True: "com.amazon.coral.service/", False: "com.amazon.bedrock/"}

THROTTLED = {
    "tokens_per_minute": "Too many tokens, please wait before trying again.",
    "tokens_per_day": "Too many tokens per day, please wait before trying again.",
    "requests_per_minute": "Too many requests, please wait before trying again.",
}
MESSAGES = {
    "AccessDeniedException": "You don't have access to the model with the specified model ID.",
    "ExpiredTokenException": "The security token included in the request is expired",
    "InternalServerException": "The system encountered an unexpected error during processing. "
    "Try your request again.",
    "ModelErrorException": "The model returned an error. Try your request again.",
    "ModelNotReadyException": "Model is not ready for inference. Wait and try your request again.",
    "ModelStreamErrorException": "An error occurred while streaming the response. "
    "Try your request again.",
    "ModelTimeoutException": "Model has timed out in processing the request. "
    "Try your request again.",
    "ServiceUnavailableException": "Bedrock is unable to process your request.",
    "ThrottlingException": THROTTLED["requests_per_minute"],
    "UnrecognizedClientException": "The security token included in the request is invalid.",
}

# Members that the service model has besides the message.
_MEMBERS: dict[str, dict[str, object]] = {
    "ModelErrorException": {"originalStatusCode": 500, "resourceName": "fake"},
    "ModelStreamErrorException": {"originalStatusCode": 500, "originalMessage": "fake"},
}
INVALID_MODEL = "The provided model identifier is invalid."
UNCOUNTABLE = "The provided model doesn't support counting tokens."
MALFORMED = "Malformed input request, please reformat your input and try again."
MISSING_KEY = (
    "Malformed input request: #: required key [{}] not found, "
    "please reformat your input and try again."
)
NOT_A_CHAT_MODEL = (
    "This action doesn't support the model that you provided. "
    "Try again with a supported text or chat model."
)
NO_STREAMING = "The model is unsupported for streaming."
NO_USER_MESSAGE = (
    "A conversation must start with a user message. "
    "Try again with a conversation that starts with a user message."
)
EMPTY_CONTENT = (
    "The content field in the Message object at messages.{} is empty. "
    "Add a ContentBlock object to the content field and try again."
)
BAD_POINTER = "The JSON pointer {} is malformed."
NO_CACHING = "You invoked an unsupported model or your request did not allow prompt caching."


class Refused(Exception):
    """Bedrock answers this request with an error."""

    def __init__(self, name: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.message = message
        self.status = STATUS[name] if status is None else status


UNKNOWN = Refused("UnknownOperationException", "Unknown operation.", 404)


def invalid(message: str) -> Refused:
    """Make a ValidationException."""
    return Refused("ValidationException", message)


def error_header(name: str) -> tuple[str, str]:
    """Name the error the way AWS services do."""
    origin = _ORIGINS[name in _FRONT]
    return ("x-amzn-ErrorType", f"{name}:http://internal.amazon.com/coral/{origin}")


def error_body(refusal: Refused) -> bytes:
    """The body of an error response."""
    members = {"message": refusal.message, **_MEMBERS.get(refusal.name, {})}
    return json.dumps(members, separators=(",", ":")).encode()
