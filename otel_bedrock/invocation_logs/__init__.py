"""Model invocation logs: the calls that this process did not see, read from Bedrock's own logs.

>>> from otel_bedrock.invocation_logs import open_source, read_logs
>>> for record in read_logs([open_source("AWSLogs/")]):
...     print(record.model_id, record.read_usage())
"""

from otel_bedrock.invocation_logs.reading import (
    LogObject,
    Reading,
    Skipped,
    Source,
    SourceError,
    read_logs,
)
from otel_bedrock.invocation_logs.record import ORIGIN, Record
from otel_bedrock.invocation_logs.sources import open_source

__all__ = [
    "ORIGIN",
    "LogObject",
    "Reading",
    "Record",
    "Skipped",
    "Source",
    "SourceError",
    "open_source",
    "read_logs",
]
