"""Version of the distribution `otel-bedrock`."""

__version__ = "0.1.0"
