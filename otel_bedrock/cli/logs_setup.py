"""`otel-bedrock logs enable` and `logs status`: the account's logging configuration."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from otel_bedrock.cli.commands import CommandError
from otel_bedrock.invocation_logs.account import BAD, OK, Account, AccountError, Check
from otel_bedrock.invocation_logs.setup import (
    KINDS,
    Place,
    Wish,
    bucket_policy,
    buckets_of,
    configure,
    delivered,
    diff,
    dump,
    key_statement,
    role_policy,
    trust_policy,
)

NOT_READY, UNCHANGED = 4, 4

_ENABLE = """\
Turns on model invocation logging for an account and Region, or changes it. Without --yes it only
shows what it would change, and what AWS asks for before: a bucket policy, or a role for CloudWatch
Logs. Those it never changes; what is there of them is looked at.
"""
_ENABLE_TEACH = """\
Counts are in the records whatever is delivered; bodies tell the TTL of cache writes, and hold your
prompts: --deliver none leaves them out.

exit codes:
  0  it is as asked for (with --yes: now)
  1  AWS refused
  2  wrong usage
  4  nothing was changed: --yes was not given

examples:
  otel-bedrock logs enable --s3 my-logs/bedrock
  otel-bedrock logs enable --s3 my-logs/bedrock --deliver none --yes
  otel-bedrock logs enable --log-group /bedrock/calls --role arn:aws:iam::123456789012:role/logs
"""
_STATUS = """\
Says whether model invocation logging is on for an account and Region, whether its bucket and log
group are there and may be written to, and whether records arrive.
"""
_STATUS_TEACH = """\
exit codes:
  0  logging is on, and nothing is wrong with it
  1  AWS refused
  2  wrong usage
  4  logging is off, or something is missing
"""
# Names of old buckets may have capitals and underscores.
_BUCKET = re.compile(r"(?:s3://)?[A-Za-z0-9._-]{3,255}(?:/.*)?")
_MARKS = {OK: "ok ", BAD: "BAD"}


def enable(argv: Sequence[str]) -> int:
    """Run `logs enable`; returns its exit code."""
    parser = _parser("enable", _ENABLE, _ENABLE_TEACH)
    _add_wishes(parser)
    options = parser.parse_args(argv)
    wish = Wish(
        s3=options.s3,
        log_group=options.log_group,
        role=options.role,
        large_s3=options.large_s3,
        deliver=options.deliver,
    )
    try:
        with closing(Account(options.region)) as account:
            changed = _enable(parser, account, wish, yes=options.yes)
    except AccountError as error:
        raise CommandError(str(error)) from error
    return changed


def _enable(parser: argparse.ArgumentParser, account: Account, wish: Wish, *, yes: bool) -> int:
    current = account.config()
    wanted = configure(current, wish)
    _check_wish(parser, wanted)
    print(f"Account {account.place.account}, Region {account.place.region}\n")
    _print_prerequisites(wanted, account.place, list(account.checks(wanted)))
    changes = list(diff(current, wanted))
    if not changes:
        print("The logging configuration is like this already; there is nothing to change.")
        return 0
    print("\n".join(changes))
    if not yes:
        print("\nNothing was changed. To change it, run the same again with --yes.")
        return UNCHANGED
    account.put(wanted)
    print("\nChanged. Records arrive within minutes of calls: otel-bedrock logs status")
    return 0


def status(argv: Sequence[str]) -> int:
    """Run `logs status`; returns its exit code."""
    parser = _parser("status", _STATUS, _STATUS_TEACH)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args(argv)
    try:
        with closing(Account(options.region)) as account:
            config, place = account.config(), account.place
            checks: list[Check] = []
            if config is not None:
                now = datetime.now(timezone.utc)
                checks = [*account.checks(config), *account.arrivals(config, now)]
    except AccountError as error:
        raise CommandError(str(error)) from error
    wrong = config is None or any(check.state == BAD for check in checks)
    if options.format == "json":
        found = {
            "account": place.account,
            "region": place.region,
            "enabled": config is not None,
            "config": config,
            "checks": [asdict(check) for check in checks],
        }
        json.dump(found, sys.stdout, indent=2)
        print()
    elif config is None:
        print(f"Model invocation logging is off for account {place.account} in {place.region}.")
        print("To turn it on: otel-bedrock logs enable --help")
    else:
        print(f"Model invocation logging is on for account {place.account} in {place.region}.")
        print(f"Bodies: {', '.join(delivered(config)) or 'none'}\n")
        _print_checks(checks)
    return NOT_READY if wrong else 0


def _print_checks(checks: Sequence[Check]) -> None:
    for check in checks:
        print(f"{_MARKS.get(check.state, '?  ')} {check.name}: {check.detail}")


def _print_prerequisites(config: dict[str, Any], place: Place, checks: Sequence[Check]) -> None:
    print("What AWS asks for first, and how it looks:")
    _print_checks(checks)
    for bucket, prefix in buckets_of(config):
        print(f"\nThe policy of bucket {bucket} needs this statement; its ACLs must be disabled:")
        print(dump(bucket_policy(bucket, prefix, place)))
        print("and, if a KMS key of yours encrypts the bucket, the key's policy this one:")
        print(dump(key_statement(place)))
    cloudwatch = config.get("cloudWatchConfig")
    if cloudwatch:
        print(f"\nThe role {cloudwatch['roleArn']} needs this trust policy:")
        print(dump(trust_policy(place)))
        print("and these permissions:")
        print(dump(role_policy(cloudwatch["logGroupName"], place)))
    print()


def _check_wish(parser: argparse.ArgumentParser, wanted: dict[str, Any]) -> None:
    cloudwatch = wanted.get("cloudWatchConfig")
    if not cloudwatch and not wanted.get("s3Config"):
        parser.error("say where to log to: --s3, or --log-group with --role")
    if cloudwatch and not (cloudwatch.get("logGroupName") and cloudwatch.get("roleArn")):
        parser.error("CloudWatch Logs needs both --log-group and --role")


def _add_wishes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--s3", type=_read_bucket, metavar="BUCKET[/PREFIX]", help="log to this bucket"
    )
    parser.add_argument("--log-group", metavar="NAME", help="log to this group of CloudWatch Logs")
    parser.add_argument("--role", metavar="ARN", help="the role with which Bedrock writes to it")
    parser.add_argument(
        "--large-s3",
        type=_read_bucket,
        metavar="BUCKET[/PREFIX]",
        help="where bodies go that are too large for CloudWatch Logs (over 100 KB)",
    )
    parser.add_argument(
        "--deliver",
        type=_read_kinds,
        metavar="KINDS",
        help=f"bodies to log: {','.join(KINDS)}, or none (default: as it is; else text)",
    )
    parser.add_argument("--yes", action="store_true", help="make the change")


def _read_bucket(text: str) -> str:
    if not _BUCKET.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected BUCKET or BUCKET/PREFIX, got {text!r}")
    return text


def _read_kinds(text: str) -> frozenset[str]:
    kinds = frozenset() if text == "none" else frozenset(text.split(","))
    if kinds - set(KINDS):
        raise argparse.ArgumentTypeError(f"expected none, or some of {','.join(KINDS)}")
    return kinds


def _parser(name: str, about: str, teach: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"otel-bedrock logs {name}",
        description=about,
        epilog=teach,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--region", help="the Region (default: as the AWS CLI finds it)")
    return parser
