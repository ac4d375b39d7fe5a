"""AWS: clients that try again, bodies from S3, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
)

from otel_bedrock.invocation_logs.offloaded import read_body
from otel_bedrock.invocation_logs.reading import SourceError
from otel_bedrock.paths import dig

# What a call of AWS may raise, the reading of a body included.
FAILURES = (BotoCoreError, ClientError)

_CHUNK = 1 << 18

# Error code -> what to do.
_ADVICE = {
    "AccessDenied": "allow {action} to these credentials",
    "AccessDeniedException": "allow {action} to these credentials",
    "NoSuchBucket": "is the bucket's name right?",
    "ResourceNotFoundException": "are its name and the Region right (AWS_REGION, or its ARN)?",
    "ExpiredToken": "sign in again",
    "ExpiredTokenException": "sign in again",
}


def make_client(service: str, region: str | None = None) -> Any:
    """Make a client with the credentials and the Region of the environment.

    Raises:
        SourceError: a setting of the environment is none.
    """
    import boto3
    from botocore.config import Config

    retries = Config(retries={"mode": "standard", "max_attempts": 8})
    try:
        return boto3.session.Session().client(service, region_name=region, config=retries)  # type: ignore[call-overload]  # any service
    except ValueError as error:
        raise SourceError(f"{service}: {error} (AWS_ENDPOINT_URL?)") from error


def explain(what: str, action: str, error: Exception) -> str:
    """Say what failed with `what`, and what to do."""
    if isinstance(error, NoCredentialsError):
        return f"{what}: no AWS credentials: set AWS_PROFILE, or run `aws configure`"
    if isinstance(error, NoRegionError):
        return f"{what}: no Region: set AWS_REGION"
    code = _code(error)
    advice = _ADVICE.get(code, "").format(action=action) if isinstance(code, str) else ""
    return f"{what}: {error}" + (f" ({advice})" if advice else "")


def _code(error: Exception) -> Any:
    return dig(getattr(error, "response", None), "Error.Code")


def read_object(client: Callable[[], Any], bucket: str, key: str, **more: Any) -> Iterator[bytes]:
    """Yield the bytes of an object of S3; every failure is an OSError.

    Where it is not there that is a FileNotFoundError.
    """
    try:
        body = client().get_object(Bucket=bucket, Key=key, **more)["Body"]
        try:
            yield from body.iter_chunks(_CHUNK)
        finally:
            body.close()
    except FAILURES as error:
        kind = FileNotFoundError if _code(error) == "NoSuchKey" else OSError
        raise kind(explain(f"s3://{bucket}/{key}", "s3:GetObject", error)) from error


def fetch_body(client: Callable[[], Any], path: str) -> Any:
    """Return an off-loaded body, parsed; what goes wrong is as `offloaded.Fetch` has it."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    if not path.startswith("s3://") or not key:
        raise ValueError(f"{path}: expected s3://bucket/key")
    try:
        return read_body(read_object(client, bucket, key))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
