"""A real Kafka broker for a test: one process on loopback, its data in the test's folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from fleet import Fleet
from stack import StackError, ToolsMissing, free_ports

POM = Path(__file__).parent / "kafka_broker" / "pom.xml"
PROPERTIES = """
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{broker},CONTROLLER://{controller}
controller.quorum.bootstrap.servers={controller}
controller.listener.names=CONTROLLER
log.dirs={data}
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""


def fetch() -> Path:
    """Return the folder of the broker's jars, fetched by Maven where they are not there yet."""
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if missing:
        raise ToolsMissing(f"the Kafka tests need Java 17 and Maven: no {' and no '.join(missing)}")
    named = os.environ.get("OTEL_BEDROCK_TOOLS")
    cache = Path(named) if named else Path.home() / ".cache" / "otel-bedrock" / "tools"
    folder = cache / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:16]}"
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        goal = (
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={part}",
        )
        done = subprocess.run(
            ["mvn", "-q", "-B", "-f", str(POM), *goal], capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise ToolsMissing(f"Maven could not fetch the Kafka broker: {done.stdout[-2000:]}")
        if folder.exists():  # another run was faster
            shutil.rmtree(part)
        else:
            part.rename(folder)
    return folder


class WithKafka(Fleet):
    """A broker that makes topics of four partitions as they are asked for."""

    def start(self) -> None:
        jars = fetch()
        broker, controller = (f"127.0.0.1:{port}" for port in free_ports(2))
        self.brokers = broker
        properties = self.folder / "kafka.properties"
        properties.write_text(
            PROPERTIES.format(broker=broker, controller=controller, data=self.folder / "kafka")
        )
        java = [shutil.which("java") or "java", "-Xmx256m", "-XX:TieredStopAtLevel=1"]
        java += ["-cp", f"{jars}/*"]
        format_ = [*java, "kafka.tools.StorageTool", "format", "--standalone"]
        done = subprocess.run(
            [*format_, "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(properties)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise StackError(f"kafka: storage not formatted: {done.stdout}{done.stderr}")
        self.run(java[0], [*java[1:], "kafka.Kafka", str(properties)], {}, name="kafka")
        self._await_broker()

    def _await_broker(self) -> None:
        deadline = time.monotonic() + 90
        host, _, port = self.brokers.rpartition(":")
        while not _listens(host, int(port)):
            if self.running["kafka"].poll() is not None or time.monotonic() > deadline:
                raise StackError(f"kafka did not start. Its last words:\n{self.log('kafka')}")
            time.sleep(0.1)


def _listens(host: str, port: int) -> bool:

    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
