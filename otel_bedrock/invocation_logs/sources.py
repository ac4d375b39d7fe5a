"""TABLE: one row for each kind of source, by how it is written on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from otel_bedrock.invocation_logs.batch import WithBatches, ask_bedrock, split_model
from otel_bedrock.invocation_logs.reading import Source, SourceError


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: what a source begins with, what makes it, and what the help says of its form.

    `target` is `module:class`, imported only where it is used: files need no boto3.
    """

    prefix: str
    form: str
    target: str
    sentence: str

    def load(self) -> Callable[[str], Source]:
        """Import what makes such a source."""
        module, _, name = self.target.partition(":")
        made: Callable[[str], Source] = getattr(import_module(module), name)
        return made


_HERE = "otel_bedrock.invocation_logs"

# The first that fits.
KINDS = (
    Kind(
        "s3://",
        "s3://BUCKET/PREFIX",
        f"{_HERE}.s3:S3",
        "a bucket or a folder of it, of logs or of batch output",
    ),
    Kind(
        "cloudwatch:",
        "cloudwatch:GROUP",
        f"{_HERE}.cloudwatch:CloudWatch",
        "a log group of CloudWatch Logs, by name or ARN",
    ),
    Kind("", "PATH", f"{_HERE}.files:Files", "a file, a folder with all it holds, - for stdin"),
)


def open_source(text: str) -> Source:
    """Make the source that `text` names.

    Raises:
        SourceError: it is written wrongly.
    """
    if not text:
        raise SourceError("a source is empty; the folder that one is in is written as .")
    kind = next(kind for kind in KINDS if text.startswith(kind.prefix))
    text, model = split_model(text)
    return WithBatches(kind.load()(text), model, ask_bedrock)
