"""Setup: the logging configuration of an account, and the policies that AWS asks for before it.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html: the bucket and
the log group are of the same account and Region; the bucket's policy lets Bedrock put objects, and
for CloudWatch Logs there is a role that Bedrock may assume.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SERVICE = "bedrock.amazonaws.com"
STREAM = "aws/bedrock/modelinvocations"
KINDS = ("text", "image", "embedding", "video", "audio")
_SWITCH = "{}DataDeliveryEnabled"


@dataclass(frozen=True, slots=True)
class Place:
    """An account and a Region: what a configuration holds for."""

    account: str
    region: str
    partition: str = "aws"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for; None is as it is now. Buckets may have a prefix: `bucket/prefix`."""

    s3: str | None = None
    log_group: str | None = None
    role: str | None = None
    large_s3: str | None = None
    deliver: frozenset[str] | None = None


def configure(current: Mapping[str, Any] | None, wish: Wish) -> dict[str, Any]:
    """Return the configuration that `wish` makes of the current one."""
    wanted: dict[str, Any] = json.loads(json.dumps(current or {}))
    if wish.s3 is not None:
        wanted["s3Config"] = _bucket(wish.s3)
    cloudwatch = dict(wanted.get("cloudWatchConfig") or {})
    if wish.log_group is not None:
        cloudwatch["logGroupName"] = wish.log_group
    if wish.role is not None:
        cloudwatch["roleArn"] = wish.role
    if wish.large_s3 is not None:
        cloudwatch["largeDataDeliveryS3Config"] = _bucket(wish.large_s3)
    if cloudwatch:
        wanted["cloudWatchConfig"] = cloudwatch
    for kind in KINDS:
        switch = _SWITCH.format(kind)
        if wish.deliver is not None:
            wanted[switch] = kind in wish.deliver
        elif not current:
            wanted[switch] = kind == "text"
    return wanted


def delivered(config: Mapping[str, Any]) -> list[str]:
    """Return the kinds of data whose bodies are delivered."""
    return [kind for kind in KINDS if config.get(_SWITCH.format(kind))]


def _bucket(text: str) -> dict[str, str]:
    name, _, prefix = text.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    return {"bucketName": name, "keyPrefix": prefix} if prefix else {"bucketName": name}


def buckets_of(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the buckets that a configuration writes to, each with its prefix."""
    found: dict[tuple[str, str], None] = {}
    large = (config.get("cloudWatchConfig") or {}).get("largeDataDeliveryS3Config")
    for part in (config.get("s3Config"), large):
        if part and part.get("bucketName"):
            found[part["bucketName"], part.get("keyPrefix") or ""] = None
    return list(found)


def log_root(prefix: str, account: str) -> str:
    """Return the key under which an account's logs are."""
    before = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    return f"{before}AWSLogs/{account}/BedrockModelInvocationLogs"


def _for_account(place: Place) -> dict[str, Any]:
    source = f"arn:{place.partition}:bedrock:{place.region}:{place.account}:*"
    return {
        "StringEquals": {"aws:SourceAccount": place.account},
        "ArnLike": {"aws:SourceArn": source},
    }


def bucket_policy(bucket: str, prefix: str, place: Place) -> dict[str, Any]:
    """Return the bucket policy that lets Bedrock write logs there."""
    key = f"{log_root(prefix, place.account)}/*"
    statement = {
        "Sid": "AmazonBedrockLogsWrite",
        "Effect": "Allow",
        "Principal": {"Service": SERVICE},
        "Action": ["s3:PutObject"],
        "Resource": [f"arn:{place.partition}:s3:::{bucket}/{key}"],
        "Condition": _for_account(place),
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def key_statement(place: Place) -> dict[str, Any]:
    """Return the statement that a bucket's own KMS key needs in its policy."""
    return {
        "Effect": "Allow",
        "Principal": {"Service": SERVICE},
        "Action": "kms:GenerateDataKey",
        "Resource": "*",
        "Condition": _for_account(place),
    }


def trust_policy(place: Place) -> dict[str, Any]:
    """Return the trust policy of the role that writes to CloudWatch Logs."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": SERVICE},
        "Action": "sts:AssumeRole",
        "Condition": _for_account(place),
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def role_policy(log_group: str, place: Place) -> dict[str, Any]:
    """Return the permissions of that role."""
    group = f"arn:{place.partition}:logs:{place.region}:{place.account}:log-group:{log_group}"
    statement = {
        "Effect": "Allow",
        "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Resource": f"{group}:log-stream:{STREAM}",
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def allows_bedrock(policy: Any, action: str, resource: str | None = None) -> bool:
    """Say whether a policy has a statement that lets Bedrock do `action` on `resource`.

    Conditions are not weighed, nor statements that deny.
    """
    if not isinstance(policy, Mapping):
        return False
    for statement in _list(policy.get("Statement")):
        principal = statement.get("Principal")
        services = _list(principal.get("Service")) if isinstance(principal, Mapping) else []
        if (
            statement.get("Effect") == "Allow"
            and (principal == "*" or SERVICE in services)
            and _matches(action, statement.get("Action"))
            and (resource is None or _matches(resource, statement.get("Resource")))
        ):
            return True
    return False


def _matches(text: str, patterns: Any) -> bool:
    return any(fnmatch.fnmatchcase(text.lower(), str(one).lower()) for one in _list(patterns))


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def dump(value: Any) -> str:
    """Return JSON as people read it."""
    return json.dumps(value, indent=2)


def diff(current: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> Iterable[str]:
    """Return what would change, as a unified diff; nothing where nothing would."""

    def lines(config: Mapping[str, Any] | None) -> list[str]:
        return json.dumps(config, indent=2, sort_keys=True).splitlines() if config else []

    return difflib.unified_diff(
        lines(current), lines(wanted), "logging configuration now", "with --yes", lineterm="", n=99
    )
