"""How the set-up speaks to a person: progress lines, and one sentence when it cannot go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class SetupError(Exception):
    """What is wrong and what to do about it, in a sentence; `output` is what a failed program said last."""

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output


def say(line: str) -> None:
    """One progress line, visible at once."""
    print(f"standin: {line}", flush=True)


def run_quietly(command: Sequence[str], *, log: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program, show its newest line on a terminal only, and return all it said.

    Raises `subprocess.CalledProcessError` with that output when it fails, and OSError when it cannot be started.
    """
    lines = []
    try:
        with subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=dict(env) if env is not None else None,
        ) as process:
            # On Ctrl-C, which reaches the child too, leaving the block waits for it to put its things away.
            for line in process.stdout or ():
                lines.append(line)
                _show_newest(line)
            status = process.wait()
    finally:
        _show_newest("")
        if log is not None:
            log.write_text("".join(lines), encoding="utf-8")
    output = "".join(lines)
    if status:
        raise subprocess.CalledProcessError(status, list(command), output=output)
    return output


def _show_newest(line: str) -> None:
    if sys.stdout.isatty():
        print("\r\x1b[K" + line.strip()[:100], end="", flush=True)


def last_lines(output: str, count: int = 15) -> str:
    """The end of a program's output, where the reason usually is."""
    return "\n".join(output.strip().splitlines()[-count:])
