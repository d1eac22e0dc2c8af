"""`standin serve`: the engine for the window, controlled over standard input and output."""

from __future__ import annotations

import argparse


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    commands.add_parser(
        "serve",
        help="run the engine for another program (JSON lines on standard input and output)",
        description="Commands come as JSON lines on standard input, events leave on standard output; end of input "
        "ends the engine. docs/protocol.md describes both.",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until end of input."""
    from engine.server import serve_on_stdio

    return serve_on_stdio()
