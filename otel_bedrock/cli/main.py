"""Finds the command, runs it, and turns every ending into an exit code."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from otel_bedrock.cli.commands import (
    COMMANDS,
    EXTRAS,
    MISUSED,
    CommandError,
    OutputError,
    run_named,
    writing,
)
from otel_bedrock.setting_values import Invalid

OK, FAILED, INTERRUPTED = 0, 1, 130
NAME_WIDTH = max(len(command.name) for command in COMMANDS)

DESCRIPTION = "Exact token counts of Amazon Bedrock calls, as OpenTelemetry traces and metrics."
EPILOG = f"""\
commands:
{chr(10).join(f"  {command.name:{NAME_WIDTH}}  {command.sentence}" for command in COMMANDS)}

In your program, once, before its first call:

  import otel_bedrock

  otel_bedrock.instrument(otlp_endpoint="http://localhost:4318")

examples:
  otel-bedrock demo          see what that line does, without an AWS account
  otel-bedrock top           then run your program, and watch its tokens here
  otel-bedrock top --help    what a command takes
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code and never raises for what users do."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    try:
        code = _run(arguments)
        with writing():  # here, where a closed pipe is still ours to be quiet about
            sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse, and rich on a closed pipe
        return stop.code if isinstance(stop.code, int) else FAILED if stop.code else OK
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return FAILED
    except OutputError as error:
        _abandon_stdout()
        return _fail(arguments, str(error))
    except CommandError as error:
        return _fail(arguments, str(error))
    except Invalid as error:
        return _fail(arguments, str(error), MISUSED)
    except OSError as error:  # a disk that is full, a file that may not be read
        _abandon_stdout()
        why = error.strerror or str(error)
        return _fail(arguments, why if error.filename is None else f"{error.filename}: {why}")
    except ModuleNotFoundError as error:
        missing = _explain(error)
        if missing is None:
            raise
        return _fail(arguments, missing)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        parser = _parser()
        if parser.parse_args(arguments).version:
            print(f"otel-bedrock {_version()}")
        else:
            parser.print_help()
        return OK
    return run_named("otel-bedrock", COMMANDS, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-bedrock",
        usage="otel-bedrock COMMAND [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


def _version() -> str:
    import otel_bedrock

    return otel_bedrock.__version__


def _explain(error: ModuleNotFoundError) -> str | None:
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:  # a bug, which deserves its traceback
        return None
    return f"{name} is not installed: pip install 'otel-bedrock[{EXTRAS[name]}]'"


def _fail(arguments: list[str], message: str, code: int = FAILED) -> int:
    print(f"{' '.join(['otel-bedrock', *arguments[:1]])}: {message}", file=sys.stderr)
    return code


def _open_streams() -> None:
    """See that what is printed can be, wherever it goes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            # Python has None where a stream was closed before it began (`>&-`), as daemons do: what
            # is said there goes nowhere, and nothing is read.
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - it stays open
            setattr(sys, name, nowhere)
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            # Of a locale that lacks a letter, or for half of one, its code is written.
            stream.reconfigure(errors="backslashreplace")


def _abandon_stdout() -> None:
    # Nobody reads on, or nothing fits. Without this the interpreter's own flush at exit complains
    # a second time; what can still be written is.
    with suppress(OSError, ValueError):  # where stdout is closed, or is no file
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
