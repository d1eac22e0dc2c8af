"""Single keys from the terminal while a session runs; whole lines where there is no terminal."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator

OnKey = Callable[[str], None]
"""Called with one character from the reading thread ("\\n" for an empty line)."""

_POLL_S = 0.1


@contextlib.contextmanager
def keys_read(on_key: OnKey) -> Iterator[None]:
    """Read keys inside the block; the terminal is as it was afterwards, whatever ends it. Ctrl-C works as ever."""
    ended = threading.Event()
    with _single_keys() as read:
        thread = threading.Thread(target=_pass_on, args=(read, on_key, ended), name="keys", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(2 * _POLL_S)


def _pass_on(read: Callable[[], str | None], on_key: OnKey, ended: threading.Event) -> None:
    while not ended.is_set():
        text = read()
        if text is None:
            return
        for character in text:
            on_key(character)


@contextlib.contextmanager
def _single_keys() -> Iterator[Callable[[], str | None]]:
    """What reads: the keys since the last time, "" for none within a moment, None at the end."""
    if sys.stdin is None or sys.stdin.closed:
        yield lambda: None
    elif sys.platform == "win32":
        yield _read_windows if sys.stdin.isatty() else _read_line
    else:
        with _unbuffered_terminal(sys.stdin.fileno()):
            yield _read_posix


if sys.platform == "win32":

    def _read_windows() -> str:
        import msvcrt

        if not msvcrt.kbhit():
            threading.Event().wait(_POLL_S)
            return ""
        return msvcrt.getwch().replace("\r", "\n")


def _read_line() -> str | None:
    line = sys.stdin.readline()
    return line if line else None


def _read_posix() -> str | None:
    try:
        ready, _, _ = select.select([sys.stdin.fileno()], [], [], _POLL_S)
        if not ready:
            return ""
        data = os.read(sys.stdin.fileno(), 64)
    except (OSError, ValueError):
        return None
    return data.decode("utf-8", "ignore") if data else None


@contextlib.contextmanager
def _unbuffered_terminal(descriptor: int) -> Iterator[None]:
    """Each key at once and unseen, if this is a terminal and we are in its foreground (else the system would stop us
    for touching it)."""
    import termios
    import tty

    if not os.isatty(descriptor) or os.tcgetpgrp(descriptor) != os.getpgrp():
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
