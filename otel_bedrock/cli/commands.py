"""TABLE: every command of `otel-bedrock`, in the order of its help."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

Run = Callable[[Sequence[str]], int]


@dataclass(frozen=True, slots=True)
class Command:
    """One row: what the help says, and what runs."""

    name: str
    sentence: str
    target: str
    """`module:function`, imported only when the command runs, so that the help needs nothing."""

    def load(self) -> Run:
        """Import what runs the command."""
        module, _, function = self.target.partition(":")
        run: Run = getattr(import_module(module), function)
        return run


MISUSED = 2


def run_named(program: str, commands: Sequence[Command], arguments: Sequence[str]) -> int:
    """Run the command that the first of `arguments` names; returns its exit code."""
    name, *rest = arguments
    for command in commands:
        if command.name == name:
            return command.load()(rest)
    names = [command.name for command in commands]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    print(
        f"{program}: no command {name!r}."
        + (f" Did you mean {near[0]!r}?" if near else "")
        + f"\nThe commands are: {', '.join(names)}. See: {program} --help",
        file=sys.stderr,
    )
    return MISUSED


COMMANDS = (
    Command(
        "demo",
        "Watch a chat program call a fake Bedrock: its trace and its tokens.",
        "otel_bedrock.cli.demo:run",
    ),
    Command(
        "top",
        "Receive OTLP and show tokens by model and kind, with live rates.",
        "otel_bedrock.cli.top:run",
    ),
    Command(
        "count",
        "Count a prompt's tokens before it is sent: window, cost, quota.",
        "otel_bedrock.cli.count:run",
    ),
    Command(
        "fake",
        "Serve a fake Amazon Bedrock on loopback, to test against.",
        "otel_bedrock.cli.fake:run",
    ),
    Command(
        "logs",
        "Read Bedrock's own logs: the calls that others made.",
        "otel_bedrock.cli.logs:run",
    ),
    Command(
        "signals",
        "List every span attribute and metric that leaves a process.",
        "otel_bedrock.cli.signals:run",
    ),
)

# What a command may import beyond the package's own requirements, and the extra that brings it.
EXTRAS = {"rich": "cli"}


class CommandError(Exception):
    """A failure that the user can mend: its message is printed, and the exit code is 1."""


class OutputError(CommandError):
    """Standard output takes nothing: a full disk, say."""


@contextmanager
def writing() -> Iterator[None]:
    """Say of what fails within that it is standard output; a closed pipe is the reader's doing."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise OutputError(f"cannot write to standard output: {why}") from error
