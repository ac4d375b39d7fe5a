"""Account: what AWS says of an account's logging: its configuration, its destinations, its records.

Everything here reads, but for `Account.put`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from otel_bedrock.invocation_logs.layout import holds_records
from otel_bedrock.invocation_logs.setup import (
    STREAM,
    Place,
    allows_bedrock,
    buckets_of,
    log_root,
)

OK, BAD, UNKNOWN = "ok", "bad", "unknown"
# How far back the newest record is looked for, an hour at a time.
_HOURS = 48
_ABSENT = frozenset(
    ("404", "NoSuchBucket", "NoSuchBucketPolicy", "NoSuchEntity", "ResourceNotFoundException")
)


class AccountError(Exception):
    """AWS does not answer what must be known; the message says what it said."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: `state` is OK, BAD, or UNKNOWN where AWS does not say."""

    name: str
    state: str
    detail: str


class Account:
    """The account and Region that the environment's credentials are of."""

    def __init__(self, region: str | None = None) -> None:
        try:
            self._session = boto3.Session(region_name=region)
        except BotoCoreError as error:
            raise AccountError(f"AWS's settings cannot be used: {error}") from error
        self._clients: dict[str, Any] = {}
        if self._session.region_name is None:
            raise AccountError("no Region: set AWS_REGION, or give --region")
        self._place: Place | None = None

    def close(self) -> None:
        """End the connections."""
        for client in self._clients.values():
            client.close()

    @property
    def place(self) -> Place:
        """Whose account it is."""
        if self._place is None:
            who = self._must("sts", "get_caller_identity")
            region = str(self._session.region_name)
            self._place = Place(
                who["Account"], region, self._session.get_partition_for_region(region)
            )
        return self._place

    def config(self) -> dict[str, Any] | None:
        """Return the logging configuration; None where logging is off."""
        answer = self._must("bedrock", "get_model_invocation_logging_configuration")
        found: dict[str, Any] | None = answer.get("loggingConfig")
        return found or None

    def put(self, config: Mapping[str, Any]) -> None:
        """Set the logging configuration."""
        self._must(
            "bedrock", "put_model_invocation_logging_configuration", loggingConfig=dict(config)
        )

    def checks(self, config: Mapping[str, Any]) -> Iterator[Check]:
        """Look at every destination of a configuration."""
        for bucket, prefix in buckets_of(config):
            yield from self._check_bucket(bucket, prefix)
        cloudwatch = config.get("cloudWatchConfig") or {}
        if cloudwatch.get("logGroupName"):
            yield self._check_group(cloudwatch["logGroupName"])
        if cloudwatch.get("roleArn"):
            yield self._check_role(cloudwatch["roleArn"])

    def arrivals(self, config: Mapping[str, Any], now: datetime) -> Iterator[Check]:
        """Look for the newest records of each destination."""
        s3 = config.get("s3Config") or {}
        if s3.get("bucketName"):
            yield self._newest_object(s3["bucketName"], s3.get("keyPrefix") or "", now)
        group = (config.get("cloudWatchConfig") or {}).get("logGroupName")
        if group:
            yield self._newest_event(group, now)

    def _check_bucket(self, bucket: str, prefix: str) -> Iterator[Check]:
        def region() -> str:
            answer = self._client("s3").get_bucket_location(Bucket=bucket)
            return answer.get("LocationConstraint") or "us-east-1"

        name = f"bucket {bucket}"
        found = _ask(name, region)
        if isinstance(found, Check):
            yield found
            return
        here = self.place.region
        # The bucket's own word for eu-west-1, from before there were others.
        same = {"EU": "eu-west-1"}.get(found, found) == here
        detail = f"exists, in {found}" + ("" if same else f"; it must be in {here}")
        yield Check(name, OK if same else BAD, detail)

        def policy() -> Any:
            return json.loads(self._client("s3").get_bucket_policy(Bucket=bucket)["Policy"])

        name = f"policy of bucket {bucket}"
        rules = _ask(name, policy)
        if isinstance(rules, Check):
            yield rules
            return
        place = self.place
        key = f"{log_root(prefix, place.account)}/x"
        resource = f"arn:{place.partition}:s3:::{bucket}/{key}"
        allowed = allows_bedrock(rules, "s3:PutObject", resource)
        yield Check(
            name,
            OK if allowed else BAD,
            f"{'lets' if allowed else 'does not let'} Bedrock write to {key[:-1]}",
        )

    def _check_group(self, group: str) -> Check:
        def find() -> bool:
            answer = self._client("logs").describe_log_groups(logGroupNamePrefix=group, limit=50)
            return any(one["logGroupName"] == group for one in answer["logGroups"])

        name = f"log group {group}"
        found = _ask(name, find)
        if isinstance(found, Check):
            return found
        return Check(name, OK if found else BAD, "exists" if found else "is not there")

    def _check_role(self, arn: str) -> Check:
        role = arn.rpartition("/")[2]

        def trust() -> Any:
            found = self._client("iam").get_role(RoleName=role)["Role"]
            policy = found["AssumeRolePolicyDocument"]
            return policy if isinstance(policy, dict) else json.loads(policy)

        name = f"role {role}"
        found = _ask(name, trust)
        if isinstance(found, Check):
            return found
        trusts = allows_bedrock(found, "sts:AssumeRole")
        verb = "may" if trusts else "may not"
        return Check(name, OK if trusts else BAD, f"exists; Bedrock {verb} assume it")

    def _newest_object(self, bucket: str, prefix: str, now: datetime) -> Check:
        def newest() -> datetime | None:
            pages = self._client("s3").get_paginator("list_objects_v2")
            root = f"{log_root(prefix, self.place.account)}/{self.place.region}"
            for back in range(_HOURS):
                hour = now - timedelta(hours=back)
                times: list[datetime] = [
                    item["LastModified"]
                    for page in pages.paginate(Bucket=bucket, Prefix=f"{root}/{hour:%Y/%m/%d/%H}/")
                    for item in page.get("Contents", ())
                    if holds_records(item["Key"])
                ]
                if times:
                    return max(times)
            return None

        return _arrival(f"records in bucket {bucket}", newest, now)

    def _newest_event(self, group: str, now: datetime) -> Check:
        def newest() -> datetime | None:
            answer = self._client("logs").describe_log_streams(
                logGroupName=group, logStreamNamePrefix=STREAM
            )
            times = [one.get("lastEventTimestamp") for one in answer["logStreams"]]
            known = [at for at in times if at is not None]
            return datetime.fromtimestamp(max(known) / 1000, timezone.utc) if known else None

        return _arrival(f"records in log group {group}", newest, now)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            # The stubs know a hundred literal names here, and no str.
            create: Any = self._session.client
            try:
                self._clients[service] = create(service)
            except ValueError as error:
                raise AccountError(f"{service}: {error} (AWS_ENDPOINT_URL?)") from error
        return self._clients[service]

    def _must(self, service: str, operation: str, **given: Any) -> Any:
        try:
            return getattr(self._client(service), operation)(**given)
        except (BotoCoreError, ClientError) as error:
            raise AccountError(f"{service}.{operation}: {error}") from error


def _ask(name: str, question: Callable[[], Any]) -> Any:
    """Return the answer, or a Check that says why there is none."""
    try:
        return question()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT:
            return Check(name, BAD, "is not there")
        return Check(name, UNKNOWN, f"cannot be looked at: {code}")
    except BotoCoreError as error:
        return Check(name, UNKNOWN, f"cannot be looked at: {error}")


def _arrival(name: str, newest: Callable[[], datetime | None], now: datetime) -> Check:
    found = _ask(name, newest)
    if isinstance(found, Check):
        return found
    if found is None:
        return Check(name, BAD, f"none within {_HOURS} hours")
    minutes = max(0, round((now - found).total_seconds() / 60))
    ago = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
    old = now - found > timedelta(hours=_HOURS)
    return Check(
        name, BAD if old else OK, f"the newest is of {found:%Y-%m-%dT%H:%M:%SZ}, {ago} ago"
    )
