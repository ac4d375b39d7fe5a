"""Arguments: values that several commands take, for argparse; importing it needs no extra."""

from __future__ import annotations

import argparse


def port_number(text: str) -> int:
    """Read a port, for argparse."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)
