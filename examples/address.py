"""Where the examples listen and connect: `--host` and `--port` on their command lines."""

from __future__ import annotations

import argparse


def parser(description: str | None) -> argparse.ArgumentParser:
    """Give a parser that knows `--host` and `--port`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="localhost", help="localhost, unless told otherwise")
    parser.add_argument("--port", default=8000, type=int, help="8000, unless told otherwise")
    return parser
