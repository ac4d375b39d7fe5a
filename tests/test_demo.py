"""The demo, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from otel_bedrock.cli import demo
from otel_bedrock.cli.bill import compare, tokens_billed
from otel_bedrock.cli.commands import CommandError
from otel_bedrock.cli.tokens import ModelTokens

pytestmark = pytest.mark.skipif(
    demo.boto3_is_too_old(), reason=f"the demo needs boto3 {demo.OLDEST_BOTO3}, and says so"
)

ROOT = Path(__file__).parents[1]
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OPUS = "us.anthropic.claude-opus-4-5-20251101-v1:0"
# What a user's shell may hold, and what must not lead the demo astray.
HOSTILE = {
    "AWS_PROFILE": "production",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_BEARER_TOKEN_BEDROCK": "secret",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "OTEL_SDK_DISABLED": "true",
    "OTEL_TRACES_SAMPLER": "always_off",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "OTEL_BEDROCK_SEMCONV": "v1.41",
}


@cache
def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The demo without a terminal, with nothing on stdin; once for all tests that look at it."""
    return subprocess.run(
        [sys.executable, "-m", "otel_bedrock", "demo", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        env={
            **os.environ,
            "NO_COLOR": "1",
            "COLUMNS": "80",
            "PYTHONIOENCODING": "utf-8",
            **environment,
        },
    )


def test_it_ends_by_itself_and_all_is_well() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_it_fits_into_80_columns_without_colour() -> None:
    out = run().stdout
    assert "\x1b" not in out
    assert [line for line in out.splitlines() if len(line) > 80] == []


def test_it_shows_what_the_chat_program_says() -> None:
    out = run().stdout
    for who in ("Opus: (throttled", "Sonnet: ", "Titan: ", "Nova: ", "Llama: ", "Mistral: "):
        assert f"\n  {who}" in out


def test_the_trace_hangs_every_call_under_the_session() -> None:
    lines = run().stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("support session"))
    tree = lines[start + 1 : lines.index("", start)]
    children = [line for line in tree if line.startswith(("├── ", "└── "))]
    assert len(children) == 10
    throttled = next(i for i, line in enumerate(tree) if f"chat {OPUS}" in line)
    assert "ThrottlingException" in tree[throttled + 1]
    assert any("from cache" in line for line in tree)


def test_the_tokens_are_those_of_the_bill() -> None:
    out = run().stdout
    assert "Counted: the same, to the token" in " ".join(out.split())


def test_it_says_what_to_do_next() -> None:
    out = run().stdout.partition("What next")[2]
    for words in (
        "otel_bedrock.instrument(otlp_endpoint=",
        "Collector",
        "otel-bedrock top",
        "make test",
        "chat.py",
    ):
        assert words in out
    assert demo.CHAT.is_file()


def test_json_has_four_models_and_cache_reads_and_nothing_else_is_printed() -> None:
    done = run("--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    models = {row["model"]: row for row in found["models"]}
    assert len(models) >= 6
    sonnet = models[SONNET]
    assert sonnet["cache_read"] > 0
    assert sonnet["cache_write"] > 0
    assert sonnet["input"] == sonnet["uncached"] + sonnet["cache_read"] + sonnet["cache_write"]
    assert models["amazon.titan-embed-text-v2:0"]["output"] is None
    assert OPUS not in models
    assert found["counted_tokens"] == found["billed_tokens"] > 0
    assert found["differences"] == []
    assert found["seconds"] > 0


def test_the_environment_of_the_user_does_not_lead_it_astray() -> None:
    done = run("--json", **HOSTILE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["differences"] == []


def test_an_ascii_terminal_is_enough() -> None:
    done = run(PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "support session" in done.stdout


def test_a_terminal_without_a_width_is_no_bug() -> None:
    done = run(COLUMNS="0")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_difference_is_named_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_more(bill: Any) -> list[ModelTokens]:
        return [*tokens_billed(bill), ModelTokens("a model that nobody saw", output=7)]

    monkeypatch.setattr(demo, "tokens_billed", one_more)
    with pytest.raises(CommandError, match="nobody saw: output: counted None, billed 7"):
        demo.run([])
    assert "What next" not in capsys.readouterr().out


def test_unreported_and_zero_cost_the_same() -> None:
    assert compare([ModelTokens("m", input=1)], [ModelTokens("m", input=1, cache_read=0)]) == []
    assert compare([ModelTokens("m", input=1)], [ModelTokens("m", input=2)]) == [
        "m: input: counted 1, billed 2"
    ]


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print('so far so good'); raise SystemExit(3)", "exit code 3"),
        ("print('so far so good')", "nothing arrived"),
    ],
)
def test_a_chat_program_that_fails_is_quoted(
    program: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_chat.py").write_text(program)
    monkeypatch.setattr(demo, "CHAT_MODULE", "failing_chat")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(CommandError, match=f"(?s){says}.*so far so good"):
        demo.run(["--json"])


def test_a_boto3_that_is_too_old_is_told_from_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boto3.__version__", "1.34.116")
    with pytest.raises(CommandError, match=r"boto3 1\.34\.116 .* pip install 'boto3>=1\.37\.24'"):
        demo.run([])


def test_json_and_keep_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        demo.run(["--json", "--keep"])
    assert "--json and --keep" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent another way there")
def test_keep_goes_on_until_ctrl_c() -> None:
    """With both servers there for a program of one's own, at the addresses that it prints."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "otel_bedrock", "demo", "--keep"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        fake = ""
        for line in process.stdout:
            fake = fake or line.partition("AWS_ENDPOINT_URL_BEDROCK_RUNTIME=")[2].strip()
            if "Ctrl-C ends it" in line:
                break
        with urllib.request.urlopen(f"{fake}/_fake/bill", timeout=10) as answer:
            assert json.load(answer)["bill"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


def test_the_example_is_the_program_of_the_demo() -> None:
    """One copy in the repository: examples/chat.py is a link to the package's."""
    assert (ROOT / "examples" / "chat.py").is_symlink()
    assert (ROOT / "examples" / "chat.py").read_text() == demo.CHAT.read_text()
