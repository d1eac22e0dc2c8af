"""How the commands speak to a person: sentences, lists, and progress on one line that is rewritten (or a line now and
then where output is not a terminal)."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol, TextIO

_BAR = 24
_PLAIN_EVERY_S = 5.0


class Told(Protocol):
    """What can be said to a person: a `Reason`, a `Notice`, a `StandinError`."""

    @property
    def message(self) -> str: ...
    @property
    def hint(self) -> str: ...


def sentence(told: Told) -> str:
    """What is so, and what to do about it, in one line."""
    return f"{told.message} {told.hint}".strip()


def notice(told: Told, *, is_error: bool = False) -> str:
    """A line about something that happened on the way."""
    return ("Error: " if is_error else "Note: ") + sentence(told)


def listing(title: str, lines: Sequence[str], why_empty: str = "") -> str:
    """A title with indented lines below it; `why_empty` in their place where there are none."""
    return "\n".join([title, *(f"  {line}" for line in lines or ([why_empty] if why_empty else []))])


class ProgressLine:
    """A `Progress` on standard error. `is_quiet` shows nothing (scripts)."""

    def __init__(self, *, is_quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_quiet = is_quiet
        self._is_terminal = self._stream.isatty()
        self._stage = ""
        self._started_s = self._shown_s = time.monotonic()
        self._width = 0

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """See `engine.generators.base.Progress`."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._started_s, self._shown_s = stage, now, 0.0
        is_last = done >= total
        wait_s = 0.1 if self._is_terminal else _PLAIN_EVERY_S
        if not is_last and now - self._shown_s < wait_s:
            return
        self._shown_s = now
        self.show(_line(stage, done, total, unit, now - self._started_s))

    def show(self, text: str) -> None:
        """Put `text` on the line."""
        if self._is_quiet:
            return
        if self._is_terminal:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def show_often(self, text: str) -> None:
        """Put `text` on the line: at once on a terminal, every few seconds elsewhere."""
        now = time.monotonic()
        if self._is_terminal or now - self._shown_s >= _PLAIN_EVERY_S:
            self._shown_s = now
            self.show(text)

    def end(self) -> None:
        """Leave the line, so that other output begins on its own."""
        if self._is_terminal and self._width and not self._is_quiet:
            self._stream.write("\n")
            self._stream.flush()
        self._width = 0


def _line(stage: str, done: float, total: float, unit: str, elapsed_s: float) -> str:
    share = min(1.0, done / total) if total > 0 else 0.0
    bar = ("#" * round(share * _BAR)).ljust(_BAR, ".")
    text = f"{stage:8s} [{bar}] {100 * share:3.0f} %"
    if unit and elapsed_s > 0.5 and done > 0:
        left_s = (total - done) * elapsed_s / done
        text += f"  {done:.0f}/{total:.0f} {unit}, {done / elapsed_s:.0f} a second, {left_s:.0f} s left"
    return text
