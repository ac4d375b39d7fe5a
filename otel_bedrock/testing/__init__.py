"""For tests of code that calls Amazon Bedrock: a fake Bedrock with a bill, and what calls tell."""

from otel_bedrock.testing.bill import Billed, Totals
from otel_bedrock.testing.capture import Captured, Point, capture
from otel_bedrock.testing.server import FakeBedrock

__all__ = ["Billed", "Captured", "FakeBedrock", "Point", "Totals", "capture"]
