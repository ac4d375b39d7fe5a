"""The rules say what they should: promtool's own cases, and the checks of the programs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from stack import COLLECTOR

pytestmark = pytest.mark.e2e

HERE = Path(__file__).resolve().parent
CASES = sorted((HERE.parent / "promtool").glob("*.yaml"))
RULES = sorted((COLLECTOR / "rules").glob("*.yaml"))


def run(*command: str | Path) -> str:
    """Run a check and return what it said; it must be content."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
@pytest.mark.timeout(300)
def test_each_alert_fires_and_is_silent_as_its_cases_say(tools: Path, cases: Path) -> None:
    run(tools / "promtool", "test", "rules", cases)


def test_the_rules_and_the_configuration_pass_promtool(tools: Path) -> None:
    run(tools / "promtool", "check", "rules", "--lint-fatal", *RULES)
    assert "3 rule files found" in run(
        tools / "promtool", "check", "config", COLLECTOR / "prometheus.yaml"
    )


def test_alertmanagers_configuration_passes_with_every_switch_on_and_off(
    tools: Path, tmp_path: Path
) -> None:
    off = COLLECTOR / "alertmanager.yaml"
    run(tools / "amtool", "check-config", off)
    # A switch has its # right before its text, or before what is indented below it.
    text, switched = re.subn(r"(?m)^    #(?! \S)", "    ", off.read_text())
    assert switched > 10
    on = tmp_path / "alertmanager.yaml"
    on.write_text(text)
    run(tools / "amtool", "check-config", on)
    wired = [sorted(one) for one in yaml.safe_load(text)["receivers"]]
    assert wired == [
        ["name", "pagerduty_configs", "sns_configs", "webhook_configs"],
        ["name", "slack_configs", "webhook_configs"],
        ["name", "webhook_configs"],
    ]


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=BedrockRunawayLoop", "severity=page"], "pages"),
        (["alertname=BedrockTokenRateHigh", "severity=ticket"], "tickets"),
        (["alertname=BedrockWatchdog", "severity=none"], "watchdog"),
    ],
)
def test_an_alert_goes_to_who_should_have_it(tools: Path, labels: list[str], receiver: str) -> None:
    config = f"--config.file={COLLECTOR / 'alertmanager.yaml'}"
    assert run(tools / "amtool", "config", "routes", "test", config, *labels).strip() == receiver
