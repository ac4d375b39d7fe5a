"""What every test has: no AWS account, no telemetry of the environment, and no hidden bugs."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import context

from otel_bedrock import shield

ROOT = Path(__file__).parent.parent

# Telemetry bugs raise here, so that none can hide behind the shield that protects users.
os.environ[shield.RAISE_VARIABLE] = "1"
os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    AWS_EC2_METADATA_DISABLED="true",
)
for _name in list(os.environ):
    if _name.startswith(("OTEL_", "AWS_ENDPOINT")) and _name not in (
        shield.RAISE_VARIABLE,
        "OTEL_BEDROCK_RECORDINGS",
        "OTEL_BEDROCK_TOOLS",
        "OTEL_BEDROCK_REQUIRE_E2E",
    ):
        del os.environ[_name]
# What a shell runs in the background ignores Ctrl-C, and so would the programs that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_context():
    """No span is current but the test's own: one that breaks `leave` on purpose leaves its own."""
    token = context.attach(context.Context())
    yield
    context.detach(token)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    """Loopback is reached directly, whatever the machine's proxies."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Alarm:
    """A time limit, as Celery has one: the handler of a signal, which raises."""

    class Late(Exception):
        """What it raises."""

    def __init__(self):
        self.is_due = True

    def ring(self, signum, frame):
        raise self.Late

    def before(self, work):
        """Return a function that does `work`, but the first time the limit is over before."""

        def done(*args, **kwargs):
            if self.is_due:
                self.is_due = False
                signal.raise_signal(signal.SIGALRM)
            return work(*args, **kwargs)

        return done


@pytest.fixture
def alarm(monkeypatch):
    """A time limit that is the user's, and no bug of ours."""
    monkeypatch.delenv(shield.RAISE_VARIABLE)
    alarm = Alarm()
    before = signal.signal(signal.SIGALRM, alarm.ring)
    yield alarm
    signal.signal(signal.SIGALRM, before)
    shield.reset()


@pytest.fixture(scope="session")
def auto_environment():
    """An environment of its own with the AWS CLI and otel-bedrock[auto]; made once."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode())
    folder = ROOT / f".venv-auto-{wanted.hexdigest()[:12]}"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
        subprocess.run(
            [
                folder / "bin/python",
                "-m",
                "pip",
                "install",
                "-q",
                "-e",
                f"{ROOT}[auto]",
                "awscli<2",
            ],
            check=True,
            timeout=600,
            cwd=ROOT,
        )
        (folder / "ready").touch()
    return folder / "bin"
