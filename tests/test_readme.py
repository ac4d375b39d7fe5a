"""README says what the code does: its tables are rendered, its blocks run, its demo is the demo.

After a change that is meant: UPDATE_README=1 python -m pytest tests/test_readme.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run

from otel_bedrock import providers, signals
from otel_bedrock.config import render as render_settings
from otel_bedrock.receiver import Receiver
from otel_bedrock.testing import FakeBedrock

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PART = re.compile(r"(<!-- rendered: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def _demo():
    environ = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "otel_bedrock", "demo"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL, env=environ
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.partition("What left it over OTLP: the trace")
    shown = (text[1] + text[2]).partition("\nWhat next")[0]
    return "```text\n" + "\n".join(line.rstrip() for line in shown.splitlines()) + "\n```\n"


RENDERED = {
    "signals": signals.render,
    "settings": render_settings,
    "providers": providers.render,
    "demo": _demo,
}

# What differs from one run of the demo to the next.
_VARYING = re.compile(r"\d[\d,.]*( s| ms)?|[ ]+")


def _masked(name, text):
    return _VARYING.sub(" ", text) if name == "demo" else text


@pytest.mark.parametrize("name", RENDERED)
def test_a_rendered_part_is_what_the_code_renders(name):
    text = README.read_text()
    found = {part[1]: part[2] for part in PART.findall(text)}
    rendered = RENDERED[name]()
    if os.environ.get("UPDATE_README") == "1":
        if _masked(name, found[name]) != _masked(name, rendered):
            old = next(match for match in PART.finditer(text) if match[2] == name)
            README.write_text(text[: old.start(3)] + rendered + text[old.end(3) :])
        return
    assert _masked(name, found[name]) == _masked(name, rendered)


def _blocks(language):
    return [code for kind, code in BLOCK.findall(README.read_text()) if kind == language]


@pytest.mark.parametrize("code", _blocks("python"), ids=lambda code: code.strip()[-30:])
def test_a_python_block_runs(code):
    with FakeBedrock() as bedrock, Receiver() as receiver:
        done = run(
            code.replace("http://localhost:4318", receiver.url),
            prelude="",
            bedrock=bedrock,
            AWS_ENDPOINT_URL_BEDROCK_RUNTIME=bedrock.url,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        if "print(answer" in code:
            assert len(receiver.spans) == 1


def _console(code, bedrock, folder):
    """Run the commands of a console block, those lines that begin with `$`; return it anew."""
    environ = {
        **os.environ,
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock.url,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    lines = []
    for command in re.findall(r"^\$ (.*)$", code, re.MULTILINE):
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, cwd=folder, env=environ, timeout=60
        )
        assert done.returncode == 0, done.stderr
        lines += [f"$ {command}", *(line.rstrip() for line in done.stdout.splitlines())]
    return "\n".join(lines) + "\n"


# Prices change with the library that has them, which Python 3.10 has not.
_PRICED = re.compile(r"^(cost| ) +.*\n", re.MULTILINE)


@pytest.mark.parametrize("code", _blocks("console"), ids=lambda code: code.split()[-1])
def test_a_console_block_shows_what_the_commands_print(code, tmp_path):
    with FakeBedrock() as bedrock:
        printed = _console(code, bedrock, tmp_path)
    if os.environ.get("UPDATE_README") == "1":
        README.write_text(README.read_text().replace(code, printed))
        return
    assert _PRICED.sub("", printed) == _PRICED.sub("", code)


def test_a_shell_block_names_targets_and_commands_that_are_there():
    """What they do is tested where it is made: test_demo.py, test_no_code.py, .ci/run."""
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {"make", "opentelemetry-instrument", "export", "otel-bedrock"}
    for line in "".join(_blocks("sh")).splitlines():
        words = line.split()
        assert words[0] in known, line
        if words[0] == "make":
            assert words[1] in targets, line
        if words[0] == "otel-bedrock":
            done = subprocess.run(
                [sys.executable, "-m", "otel_bedrock", *_command(words[1:]), "--help"],
                capture_output=True,
                text=True,
                check=True,
            )
            for option in re.findall(r" (--[a-z-]+)", line):
                assert option in done.stdout, line


def _command(words):
    """Return the words that name the command: two of `logs`."""
    return words[: 2 if words[0] == "logs" else 1]


def test_a_promql_block_names_metrics_that_we_emit():
    metrics = {
        metric.name.replace(".", "_") + ("_total" if metric.kind == signals.COUNTER else "")
        for metric in signals.METRICS
    }
    for code in _blocks("promql"):
        for name in re.findall(r"gen_ai_client_\w+|bedrock_client_\w+", code):
            assert name in metrics


def test_a_mermaid_block_is_a_flowchart_with_balanced_brackets():
    (code,) = _blocks("mermaid")
    assert code.startswith("flowchart")
    assert code.count("[") == code.count("]")


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target


def test_the_command_prints_the_same_tables():
    command = shutil.which("otel-bedrock", path=str(Path(sys.executable).parent))
    assert command, "the package is not installed here"
    done = subprocess.run([command, "signals"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == signals.render().strip()
