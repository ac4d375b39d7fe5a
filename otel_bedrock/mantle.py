"""Mantle: count_tokens of the bedrock-mantle endpoint, for which no AWS SDK has a method.

https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html#count-tokens-mantle: the
Anthropic form, signed for the service `bedrock-mantle` or with a Bedrock API key in `x-api-key`;
the IAM action is `bedrock-mantle:CountTokens` on the project. The request goes through the calling
client's own HTTP session: its proxies, certificates, timeouts and connections. It is made once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any
from urllib.parse import urlsplit

from otel_bedrock.paths import dig
from otel_bedrock.setting_values import Invalid
from otel_bedrock.usage import whole

ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_BEDROCK_MANTLE"
PATH = "/anthropic/v1/messages/count_tokens"
_SERVICE = "bedrock-mantle"
_VERSION = "2023-06-01"

# AWS's own endpoints of bedrock-runtime. A client of any other one (a test's, a gateway's, a VPC
# endpoint) must not have its prompts sent past it, so that there the endpoint has to be said.
_OWN = re.compile(r"https://bedrock-runtime\.([a-z0-9-]+)\.(amazonaws\.com|api\.aws)/?")

# Something to do; where it can be awaited, the asynchronous twin does that.
Step = Callable[[], Any]

# Type of an Anthropic error -> the code by which bedrock-runtime would say it.
_CODES: Mapping[str, str] = {
    "invalid_request_error": "ValidationException",
    "authentication_error": "UnrecognizedClientException",
    "permission_error": "AccessDeniedException",
    "not_found_error": "ResourceNotFoundException",
    "request_too_large": "ValidationException",
    "rate_limit_error": "ThrottlingException",
    "api_error": "InternalServerException",
    "overloaded_error": "ServiceUnavailableException",
}
_CODES_BY_STATUS: Mapping[int, str] = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    413: "ValidationException",
    429: "ThrottlingException",
    500: "InternalServerException",
}


def endpoint(client: Any, given: str | None = None) -> str | None:
    """Return the base URL of bedrock-mantle for `client`; None where nobody says.

    What was given, AWS_ENDPOINT_URL_BEDROCK_MANTLE, AWS_ENDPOINT_URL, and else the Region's own
    where the client uses AWS's own endpoint of its Region.

    Raises:
        Invalid: what was given, or what a variable says, is no URL; the message names which.
    """
    said = {"mantle_endpoint": given}
    if given is None and os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") != "true":
        said = {name: os.environ.get(name) for name in (ENDPOINT_VARIABLE, "AWS_ENDPOINT_URL")}
    for name, url in said.items():
        if url:
            try:
                return base_url(url)
            except Invalid as error:
                raise Invalid(f"{name}: {error}") from None
    own = _OWN.fullmatch(client.meta.endpoint_url)
    return None if own is None else f"https://bedrock-mantle.{own[1]}.api.aws"


def base_url(given: Any) -> str:
    """Return a base URL without the slashes at its end.

    Raises:
        Invalid: it is none.
    """
    try:
        parts = urlsplit(given)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, TypeError, AttributeError):  # also of a port that is no number
        fits = False
    if not isinstance(given, str) or not fits or any(map(str.isspace, given)):
        raise Invalid(
            "expected the base URL of bedrock-mantle, such as"
            f" https://bedrock-mantle.us-east-1.api.aws; got {given!r}"
        )
    return given.rstrip("/")


def count(
    client: Any, base: str, model: str, body: Mapping[str, Any], betas: tuple[str, ...]
) -> Generator[Step, Any, int]:
    """Ask for the tokens of `body`; the steps are for the caller to do.

    Raises:
        ClientError: of the class and code by which bedrock-runtime would say the same.
    """
    from botocore.awsrequest import AWSRequest

    headers = {"Content-Type": "application/json", "anthropic-version": _VERSION}
    if betas:
        headers["anthropic-beta"] = ",".join(betas)
    data = json.dumps({"model": model, **body}, ensure_ascii=False).encode()
    request = AWSRequest("POST", base + PATH, headers=headers, data=data)
    yield from _sign(client, request)
    prepared = request.prepare()
    response = yield lambda: client._endpoint.http_session.send(prepared)
    content = yield lambda: response.content
    answer = _load(content)
    if response.status_code == 200:
        counted = whole(answer.get("input_tokens"))
        if counted is not None:
            return counted
    raise _error(client, response, answer)


def _sign(client: Any, request: Any) -> Generator[Step, Any, None]:
    """Sign as botocore would sign CountTokens for this client, but for the other service."""
    from botocore import UNSIGNED
    from botocore.auth import SigV4Auth

    signer = client._request_signer
    context = {
        "client_config": client.meta.config,
        "auth_options": client.meta.service_model.metadata.get("auth"),
    }
    version = yield lambda: signer._choose_signer("Converse", "standard", context)
    if version is UNSIGNED:
        return
    if version == "bearer":
        _refuse_plain(request.url)
        token = signer._auth_token
        if hasattr(token, "get_frozen_token"):
            unfrozen = token
            token = yield lambda: unfrozen.get_frozen_token()
        request.headers["x-api-key"] = getattr(token, "token", "")
        return
    credentials = client._get_credentials()
    if credentials is not None:
        frozen = yield lambda: credentials.get_frozen_credentials()
        credentials = frozen
    SigV4Auth(credentials, _SERVICE, client.meta.region_name).add_auth(request)


def _refuse_plain(url: str) -> None:
    """As botocore does: a key is sent as it is, so that it needs TLS; not on this machine."""
    from botocore.exceptions import InvalidEndpointConfigurationError

    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise InvalidEndpointConfigurationError(msg="An API key requires an HTTPS endpoint.")


def _load(content: Any) -> Mapping[str, Any]:
    try:
        answer = json.loads(content)
    except (ValueError, TypeError, RecursionError):
        answer = None
    return answer if isinstance(answer, Mapping) else {}


def _error(client: Any, response: Any, answer: Mapping[str, Any]) -> Exception:
    kind, message = dig(answer, "error.type"), dig(answer, "error.message")
    status = response.status_code
    code = _CODES.get(kind) if isinstance(kind, str) else None
    if code is None:
        code = _CODES_BY_STATUS.get(status) or "ServiceUnavailableException"
    # IAM answers in AWS's own form: {"Message": …}.
    text = message or answer.get("message") or answer.get("Message")
    parsed = {
        "Error": {
            "Code": code,
            "Message": text if isinstance(text, str) else f"bedrock-mantle answered {status}",
        },
        "ResponseMetadata": {
            "HTTPStatusCode": status,
            "RequestId": answer.get("request_id") or response.headers.get("x-amzn-requestid", ""),
            "HTTPHeaders": {key.lower(): value for key, value in response.headers.items()},
            "RetryAttempts": 0,
        },
    }
    made: Exception = client.exceptions.from_code(code)(parsed, "CountTokens")
    return made
