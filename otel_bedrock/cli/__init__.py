"""The command line: `otel-bedrock`, or `python -m otel_bedrock`."""
