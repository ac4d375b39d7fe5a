"""`otel-bedrock count`: the tokens of a prompt before it is sent, and what they come to."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otel_bedrock.cli import prompt as prompts
from otel_bedrock.cli.commands import CommandError
from otel_bedrock.cli.estimate import Estimate, estimate
from otel_bedrock.cli.prompt import Prompt, read_prompt
from otel_bedrock.config import Config, read_config
from otel_bedrock.counting import TokenCountUnsupported, count_tokens
from otel_bedrock.mantle import base_url
from otel_bedrock.model_id import ModelId, parse, resolve
from otel_bedrock.pricing import GENAI_PRICES, Prices, open_prices
from otel_bedrock.quota import MINUTE, Quota, limit_of, quota_of
from otel_bedrock.setting_values import SERVICE_QUOTAS, Invalid
from otel_bedrock.trimming import Trimmed, trim

OK, FAILED, MISUSED, UNSUPPORTED, TOO_LONG = 0, 1, 2, 3, 4

ABOUT = """\
Count the input tokens of a prompt before it is sent, as Bedrock would bill them, by its
CountTokens (or bedrock-mantle, for the models that only it counts). That is free of charge,
and nothing is generated.
"""
TEACH = """\
what FILE may be (- is standard input):
  plain text               counted as one message of a user
  a Converse request       {"messages": [{"role": "user", "content": [{"text": "…"}]}], …};
                           bytes as base64, as the AWS CLI takes them; its modelId is used
                           where --model is not given
  a list of messages       the same
  an InvokeModel body      {"anthropic_version": "bedrock-2023-05-31", "messages": …}
--as says which it is where that is not what was meant.

what is printed:
  input      what the call would be billed for, whatever comes from a cache included
  context    the share of the model's context window
  cost       of the input, before any output, by the price source of --prices; then with as much
             output as may come (maxTokens of the request, else the most that the model gives)
  quota      the share of a minute's quota that Bedrock reserves: input and that output
What nobody knows is `unknown`, and never 0.

exit codes:
  0  counted             3  Bedrock does not count this model, or not this request
  1  failed              4  --trim: it does not fit, whatever goes
  2  misused             130  interrupted

examples:
  echo "What is the capital of France?" | otel-bedrock count --model MODEL -
  otel-bedrock count --model MODEL --compare MODEL --compare MODEL prompt.txt
  otel-bedrock count --model MODEL --trim 150000 conversation.json
  otel-bedrock count --model MODEL --json prompt.txt | jq .input_tokens
  otel-bedrock count --supported
"""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.supported:
        from otel_bedrock.cli.supported import show

        show(as_json=options.json)
        return OK
    if options.file is None:
        parser.error("FILE is missing: a prompt, or - for standard input")
    prompt = read_prompt(options.file, options.form)
    if options.system is not None:
        prompt = prompt.under(options.system)
    model = options.model or prompt.model
    if model is None:
        parser.error("--model ID is missing, and FILE names no modelId")
    counter = _Counter(options)
    rows = [counter.row(one, prompt) for one in dict.fromkeys([model, *options.compare])]
    trimmed = None
    if options.trim is not None and rows[0].count is not None:
        trimmed = counter.trim(model, prompt, options.trim, rows[0].count.input_tokens)
    _print(options, prompt, rows, trimmed, unpriced=counter.unpriced)
    if trimmed is not None and not trimmed.fits:
        return TOO_LONG
    if any(row.count is not None for row in rows):
        return OK
    return FAILED if counter.failed else UNSUPPORTED


def _print(
    options: argparse.Namespace,
    prompt: Prompt,
    rows: Sequence[Estimate],
    trimmed: Trimmed | None,
    *,
    unpriced: str | None,
) -> None:
    from otel_bedrock.cli import count_render

    if options.json:
        first, *others = (row.as_json() for row in rows)
        found: dict[str, Any] = {"form": prompt.form, **first}
        if others:
            found["compared"] = others
        if trimmed is not None:
            found["trim"] = count_render.trim_json(trimmed, prompt, options.trim)
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if len(rows) == 1:
        if rows[0].count is not None:
            count_render.show_one(rows[0], prompt, unpriced=unpriced)
        else:
            print(f"otel-bedrock count: {rows[0].problem}", file=sys.stderr)
    else:
        count_render.show_table(rows, prompt, unpriced=unpriced)
    if trimmed is not None:
        count_render.show_trim(trimmed, prompt, options.trim)


class _Counter:
    """Counts prompts with one client, and puts together what they come to."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.config: Config = read_config({})
        self.options = options
        self.failed = False
        self._known: Sequence[Quota] | None = None
        self.prices, self.unpriced = _open(options.prices, self.config)
        self.client = _answered(lambda: _make_client(options), None)

    def row(self, model_id: str, prompt: Prompt) -> Estimate:
        """Count `prompt` for one model."""
        try:
            count = self._count(model_id, prompt)
        except TokenCountUnsupported as error:
            return Estimate(model_id, None, str(error))
        except CommandError as error:
            # What was counted for the other models is not lost.
            if not self.options.compare:
                raise
            self.failed = True
            return Estimate(model_id, None, str(error))
        options, model = self.options, self._model(model_id)
        return estimate(
            model_id,
            model,
            count,
            max_tokens=prompt.max_tokens if options.max_tokens is None else options.max_tokens,
            prices=self.prices,
            region=self.client.meta.region_name,
            limit=self._limit(model_id, model),
        )

    def _limit(self, model_id: str, model: ModelId) -> int | None:
        """Return the model's quota in tokens a minute, where somebody says it."""
        given = self.config.quota_limits if self.options.quota is None else self.options.quota
        if given == SERVICE_QUOTAS:
            return quota_of(model, MINUTE, self._quotas())
        if isinstance(given, int):
            return given
        found = limit_of(model, given) if isinstance(given, Mapping) else None
        return None if found is None else found.get(MINUTE)

    def _quotas(self) -> Sequence[Quota]:
        """Ask Service Quotas, once. A count is worth having without it."""
        if self._known is None:
            from botocore.exceptions import BotoCoreError, ClientError

            from otel_bedrock.service_quotas import list_quotas

            try:
                self._known = tuple(list_quotas(self.client))
            except (BotoCoreError, ClientError) as error:
                self._known = ()
                print(
                    f"otel-bedrock count: the quota stays unknown: {error}\n"
                    "It needs the IAM action servicequotas:ListServiceQuotas.",
                    file=sys.stderr,
                )
        return self._known

    def trim(self, model_id: str, prompt: Prompt, limit: int, whole: int) -> Trimmed:
        """Find which messages have to go."""
        if not prompt.messages:
            raise CommandError("--trim: there are no messages in this body")
        try:
            return trim(
                prompt.messages,
                limit,
                lambda messages: self._count(model_id, prompt.of(messages)).input_tokens,
                whole,
            )
        except TokenCountUnsupported as error:
            raise CommandError(f"--trim: {error}") from None

    def _count(self, model_id: str, prompt: Prompt) -> Any:
        return _answered(
            lambda: count_tokens(
                self.client,
                modelId=model_id,
                mantle_endpoint=self.options.mantle_endpoint_url,
                model_aliases=self.config.model_aliases or {},
                resolve_models=self.config.resolve_models,
                **prompt.arguments(),
            ),
            self,
            model_id,
        )

    def _model(self, model_id: str) -> ModelId:
        model = parse(model_id)
        return model if model.base_id else resolve(model, self.config.model_aliases or {})

    def permissions(self, model_id: str, message: str) -> str:
        """Say which IAM actions CountTokens needs, and on which resource."""
        meta = self.client.meta
        partition, region = meta.partition, meta.region_name
        if "bedrock-mantle" in message:
            project = f"arn:{partition}:bedrock-mantle:{region}:ACCOUNT:project/default"
            return f"It needs this IAM action on {project}:\n  bedrock-mantle:CountTokens"
        base = self._model(model_id).base_id or model_id
        resource = f"arn:{partition}:bedrock:{region}::foundation-model/{base}"
        return (
            f"It needs these IAM actions on {resource}:\n"
            "  bedrock:CountTokens\n"
            "  bedrock:InvokeModel    AWS lists it for counting, too"
        )


def _answered(ask: Callable[[], Any], counter: _Counter | None, model_id: str = "") -> Any:
    """Return what `ask` returns; what AWS or botocore has against it, as the AWS CLI says it."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    try:
        return ask()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        more = ""
        if counter is not None and code in ("AccessDeniedException", "AccessDenied"):
            more = f"\n{counter.permissions(model_id, str(error))}"
        raise CommandError(f"{error}{more}") from None
    except NoRegionError:
        raise CommandError(
            "You must specify a region: --region, AWS_REGION, or `aws configure`"
        ) from None
    except NoCredentialsError:
        raise CommandError(
            "Unable to locate credentials. You can configure credentials by running `aws configure`"
            " (or `aws login`), or choose some with --profile"
        ) from None
    except Invalid:
        raise
    except (BotoCoreError, ValueError) as error:
        raise CommandError(str(error)) from None


def _make_client(options: argparse.Namespace) -> Any:
    import boto3

    # AWS_REGION is the AWS CLI's; botocore knows AWS_DEFAULT_REGION alone.
    region = options.region or os.environ.get("AWS_REGION")
    session = boto3.Session(profile_name=options.profile, region_name=region)
    make: Any = session.client
    return make("bedrock-runtime", endpoint_url=options.endpoint_url)


def _open(given: str | None, config: Config) -> tuple[Prices | None, str | None]:
    """Open the price source: what was asked for, else what is there; or say why there is none."""
    source = given or config.prices
    try:
        return open_prices(source or GENAI_PRICES), None
    except (ImportError, ValueError) as error:
        why = str(error).removeprefix("prices: ")
        if source:
            name = "--prices" if given else "OTEL_BEDROCK_PRICES"
            raise CommandError(f"{name}: {why}") from None
        return None, why


def _whole(text: str) -> int:
    number = text.replace(",", "").replace("_", "")
    if not (number.isascii() and number.isdecimal()) or len(number) > 18:
        raise argparse.ArgumentTypeError(f"expected a whole number of tokens, got {text!r}")
    return int(number)


def _base_url(text: str) -> str:
    try:
        return base_url(text)
    except Invalid as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _quota(text: str) -> int | str:
    return text if text == SERVICE_QUOTAS else _whole(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-bedrock count",
        usage="otel-bedrock count --model ID [options] FILE|-",
        description=ABOUT,
        epilog=TEACH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="the prompt, see below; - for standard input")
    add(
        "--model",
        metavar="ID",
        help="model id, inference profile or ARN, as the call would name it",
    )
    add(
        "--compare",
        metavar="ID",
        action="append",
        default=[],
        help="another model; may be repeated",
    )
    add("--system", metavar="TEXT", help="system prompt, in place of the file's own")
    add("--trim", type=_whole, metavar="N", help="say which messages must go to fit N input tokens")
    add("--as", dest="form", choices=prompts.FORMS, help="what FILE is (default: as it looks)")
    add("--max-tokens", type=_whole, metavar="N", help="most output tokens, for cost and quota")
    add(
        "--prices",
        metavar="SOURCE",
        help="genai-prices (the default; extra `cost`), or the path of your own table",
    )
    add(
        "--quota",
        type=_quota,
        metavar="N",
        help="your quota of a model, in tokens a minute, or service-quotas to ask for it",
    )
    add("--json", action="store_true", help="print JSON, for scripts")
    add("--supported", action="store_true", help="print the models and Regions that AWS documents")
    add("--region", help="AWS Region")
    add("--profile", help="profile of the AWS configuration")
    add("--endpoint-url", metavar="URL", help="endpoint of bedrock-runtime")
    add("--mantle-endpoint-url", type=_base_url, metavar="URL", help="endpoint of bedrock-mantle")
    return parser
