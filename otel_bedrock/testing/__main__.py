"""The command line of FakeBedrock: `python -m otel_bedrock.testing`."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Sequence
from threading import Event

from otel_bedrock.cli.arguments import port_number
from otel_bedrock.testing.server import FakeBedrock

_MODEL = "anthropic.claude-sonnet-4-20250514-v1:0"
_ABOUT = """\
Serves a fake Amazon Bedrock runtime on this machine: Converse, ConverseStream, InvokeModel,
InvokeModelWithResponseStream, CountTokens and ApplyGuardrail for every model family, and
count_tokens of bedrock-mantle, with responses, headers, event streams and errors like the real
ones. Answers and token counts are made up, but consistent, and every call is billed. It costs
nothing and asks for no credentials.
"""
_TEACH = """\
what the prompt can ask for:
  "Say: hello"             is answered with exactly that
  "… in 120 words"         makes the answer that long
  naming an offered tool   makes the model use it

from any process or language:
  GET    /_fake/bill       what was billed, call by call, and totals by model
  DELETE /_fake/bill       start anew
  POST   /_fake/faults     what goes wrong with the next calls, one or a list of
                             {"fault": "throttle", "reason": "tokens_per_day", "times": 2}
                             {"fault": "fail", "name": "ModelErrorException"}
                             {"fault": "break_stream", "after": 3}
                             {"fault": "stream_error", "name": "throttlingException", "after": 3}
                             {"fault": "corrupt_stream", "after": 3}
                             {"fault": "slow", "first": 0.5, "each": 0.05}
                             {"fault": "hang"}
                             {"fault": "reply", "body": {}, "headers": {}, "status": 200}
  DELETE /_fake/faults     forget them
  POST   /_fake/playground a call that is in the invocation log alone:
                             {"model_id": "…", "text": "Hello!"}
  POST   /_fake/flush      write what the invocation log has kept

examples:
  otel-bedrock fake --port 8811
  curl -s -X POST localhost:8811/_fake/faults -d '{"fault": "throttle"}'
  curl -s localhost:8811/_fake/bill
"""
_HELLO = """\
Fake Amazon Bedrock on {url}

  AWS_ACCESS_KEY_ID=fake AWS_SECRET_ACCESS_KEY=fake aws bedrock-runtime converse \\
    --endpoint-url {url} --region us-east-1 --model-id {model} \\
    --messages '[{{"role": "user", "content": [{{"text": "Say: hello"}}]}}]'

  boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url="{url}",
               aws_access_key_id="fake", aws_secret_access_key="fake")

  the bill: curl -s {url}/_fake/bill      stop with Ctrl-C
"""


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=_ABOUT,
        epilog=_TEACH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=0,
        metavar="N",
        help="port to listen on (default: a free one)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, reachable from this machine alone)",
    )
    parser.add_argument(
        "--chunk-size",
        type=int,
        metavar="BYTES",
        help="cut streams into writes of so many bytes, so that event frames straddle them",
    )
    parser.add_argument(
        "--invocation-log",
        metavar="FOLDER",
        help="write model invocation logs there, as Bedrock writes them to a bucket",
    )
    parser.add_argument("--quiet", action="store_true", help="print the URL and nothing else")
    return parser


def _print_bill(bedrock: FakeBedrock) -> None:
    totals = bedrock.totals()
    print("\nbilled:" if totals else "\nno calls")
    for model_id, sums in totals.items():
        print(
            f"  {model_id}: {sums.calls} calls, {sums.input_tokens} input tokens "
            f"({sums.cache_read_tokens} read from and {sums.cache_write_tokens} written to "
            f"the cache), {sums.output_tokens} output tokens"
        )


# What a port alone is to blame for: it is taken, or only root's.
_OF_THE_PORT = (errno.EADDRINUSE, errno.EACCES)


def _advice(error: OSError | UnicodeError) -> str:
    if getattr(error, "errno", None) in _OF_THE_PORT:
        return "Leave --port away to get a free one."
    return "--host takes an IPv4 address of this machine, such as 127.0.0.1."


def serve(argv: Sequence[str], prog: str = "otel-bedrock fake") -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    options = _parser(prog).parse_args(argv)
    if options.chunk_size is not None and options.chunk_size < 1:
        print(f"{prog}: --chunk-size: expected 1 or more", file=sys.stderr)
        return 2
    bedrock = FakeBedrock(options.host, options.port, chunk_size=options.chunk_size)
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        bedrock.start()
    except (OSError, UnicodeError) as error:
        why = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        print(
            f"{prog}: cannot listen on {options.host}:{options.port}: {why}. {_advice(error)}",
            file=sys.stderr,
        )
        return 1
    with bedrock:
        try:
            if options.invocation_log is not None:
                bedrock.log_to(options.invocation_log)
        except OSError as error:
            print(
                f"{prog}: --invocation-log: {options.invocation_log}: {error.strerror}",
                file=sys.stderr,
            )
            return 1
        if options.quiet:
            print(bedrock.url, flush=True)
        else:
            print(_HELLO.format(url=bedrock.url, model=_MODEL), flush=True)
        stopped.wait()
        if not options.quiet:
            _print_bill(bedrock)
    return 0


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], "python -m otel_bedrock.testing"))
