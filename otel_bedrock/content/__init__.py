"""Content: prompts and completions, behind one gate that is shut unless `capture_content`.

`open_gate` decides. Where it returns None nobody looks at any content, and nothing of this
package is imported; no other module asks what the setting says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_bedrock.config import Config
from otel_bedrock.setting_values import NO_CONTENT

if TYPE_CHECKING:
    from otel_bedrock.content.gate import Gate


def open_gate(config: Config) -> Gate | None:
    """Return what lets content through, None where none may be looked at."""
    if config.capture_content == NO_CONTENT:
        return None
    from otel_bedrock.content.gate import Gate

    return Gate(config)
