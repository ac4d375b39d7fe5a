"""`python -m otel_bedrock` is `otel-bedrock`."""

import sys

from otel_bedrock.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
