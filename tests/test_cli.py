"""The frame of the command line: help, versions, mistakes, endings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from otel_bedrock.cli import commands
from otel_bedrock.cli.commands import COMMANDS, Command, CommandError
from otel_bedrock.cli.main import main
from otel_bedrock.receiver import Receiver
from otel_bedrock.setting_values import Invalid


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as users start it, but without a terminal and with nothing on stdin."""
    return subprocess.run(
        [sys.executable, "-m", "otel_bedrock", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> str:
    """A command `try` that does what `ending` says."""
    monkeypatch.setattr(
        "otel_bedrock.cli.main.COMMANDS", (Command("try", "Try.", f"{__name__}:attempt"),)
    )
    return "try"


ending: BaseException | int = 0


def attempt(argv: Sequence[str]) -> int:
    if isinstance(ending, int):
        return ending
    raise ending


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_teaches(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "otel_bedrock.instrument(" in out
    for row in COMMANDS:
        assert row.name in out
        assert row.sentence in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_the_help_imports_none_of_the_commands() -> None:
    """So that it is there at once, and without the extras."""
    code = (
        "import sys; from otel_bedrock.cli.main import main; main(['--help']);"
        "print([m for m in ('rich', 'boto3', 'google.protobuf') if m in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == "[]\n"


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    import otel_bedrock

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"otel-bedrock {otel_bedrock.__version__}\n"


def test_an_unknown_command_names_the_nearest_and_lists_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["dmeo"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no command 'dmeo'. Did you mean 'demo'?" in captured.err
    assert ", ".join(row.name for row in COMMANDS) in captured.err


def test_an_unknown_command_that_resembles_none_still_lists_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["zzz"]) == 2
    err = capsys.readouterr().err
    assert "Did you mean" not in err
    assert ", ".join(row.name for row in COMMANDS) in err


def test_an_unknown_option_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nonsense"]) == 2
    assert "--nonsense" in capsys.readouterr().err


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_every_command_has_a_help_of_its_own(
    row: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([row.name, "--help"]) == 0
    assert f"otel-bedrock {row.name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        (0, 0, ""),
        (3, 3, ""),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 1, ""),
        (SystemExit(4), 4, ""),
        (CommandError("do this"), 1, "otel-bedrock try: do this\n"),
        (Invalid("prices: expected this"), 2, "otel-bedrock try: prices: expected this\n"),
        (OSError(28, "No space left"), 1, "otel-bedrock try: No space left\n"),
        (
            FileNotFoundError(2, "No such file", "a.txt"),
            1,
            "otel-bedrock try: a.txt: No such file\n",
        ),
        (
            ModuleNotFoundError("No module named 'rich'", name="rich.table"),
            1,
            "otel-bedrock try: rich is not installed: pip install 'otel-bedrock[cli]'\n",
        ),
    ],
)
def test_every_ending_has_its_exit_code(
    command: str,
    how: BaseException | int,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ending", how)
    assert main([command]) == code
    assert capsys.readouterr().err == says


def test_a_missing_module_that_is_no_extra_is_a_bug_and_shows_itself(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules[__name__], "ending", ModuleNotFoundError("No module", name="misspelt")
    )
    with pytest.raises(ModuleNotFoundError):
        main([command])


@pytest.mark.parametrize("name", ["demo", "top"])
def test_without_rich_it_says_what_to_install(name: str) -> None:
    code = (
        "import sys; sys.modules['rich'] = None;"
        f"from otel_bedrock.cli.main import main; sys.exit(main(['{name}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"otel-bedrock {name}: rich is not installed: pip install 'otel-bedrock[cli]'\n"
    )


def test_a_closed_pipe_is_quiet() -> None:
    shell = f"'{sys.executable}' -m otel_bedrock --help | true"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="streams are closed another way there")
@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("signals >&-", 0, ""),
        ("signals <&- >&- 2>&-", 0, ""),
        ("count --model x - <&-", 1, "otel-bedrock count: standard input: empty"),
        pytest.param(
            "signals >/dev/full",
            1,
            "otel-bedrock signals: No space left on device\n",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here"),
        ),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_bug(command: str, code: int, says: str) -> None:
    shell = f"'{sys.executable}' -m otel_bedrock {command}"
    done = subprocess.run(
        shell, shell=True, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr[: len(says) or None]) == (code, says)


def test_every_extra_is_named_in_the_table() -> None:
    assert set(commands.EXTRAS.values()) == {"cli"}


def test_top_prints_one_table_without_a_terminal() -> None:
    done = run("top", "--port", "0", "--once", "--interval", "0.1", NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    assert "No tokens yet." in done.stdout
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_top_says_which_port_is_taken() -> None:
    with Receiver() as other:
        port = other.port
        done = run("top", "--port", str(port), "--once")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--port", "web"], ["--port", "65536"], ["--interval", "0"], ["--interval", "x"]]
)
def test_top_refuses_nonsense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", *arguments]) == 2
    assert f"argument {arguments[0]}: expected a" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent another way there")
def test_ctrl_c_ends_top_without_a_complaint() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "otel_bedrock", "top", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "OTLP receiver at" in process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""
