"""Push-to-talk and gate on the command line, with a real terminal."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import pytest

from engine.commands.talk import TalkKeys, add_sound_options, sound_settings
from engine.errors import UsageError


def _settings(*words):
    parser = argparse.ArgumentParser()
    add_sound_options(parser)
    return sound_settings(parser.parse_args(words))


def test_gate_options():
    assert _settings().gate.mode == "auto" and not _settings().is_push_to_talk
    assert _settings("--gate", "off").gate.mode == "off"
    gate = _settings("--gate=-42.5", "--gate-voice").gate
    assert (gate.mode, gate.level_dbfs, gate.is_heard) == ("level", -42.5, True)
    assert _settings("--push-to-talk").is_push_to_talk


@pytest.mark.parametrize("gate", ["loud", "3", "nan", ""])
def test_gates_that_are_none(gate):
    with pytest.raises(UsageError):
        _settings("--gate", gate)


class Session:
    def __init__(self):
        self.calls, self.is_over = [], False

    def set_talking(self, is_talking):
        if self.is_over:
            raise UsageError("No session is running.")
        self.calls.append(("talk", is_talking))

    def set_muted(self, is_muted):
        self.calls.append(("mute", is_muted))


def test_keys_toggle():
    session = Session()
    keys = TalkKeys(session)
    for key in " x\nmM ":
        keys.press(key)
    assert session.calls == [("talk", True), ("talk", False), ("mute", True), ("mute", False), ("talk", True)]
    session.is_over = True
    keys.press(" ")
    assert keys.is_talking, "nothing has changed"


_READER = """
import sys, threading
from engine.commands.keys import keys_read
got, enough = [], threading.Event()
def take(key):
    got.append(key)
    if len(got) == 3:
        enough.set()
print("ready", flush=True)
with keys_read(take):
    enough.wait(20)
print(repr("".join(got)), flush=True)
"""


def test_lines_where_there_is_no_terminal():
    done = subprocess.run(
        [sys.executable, "-c", _READER], input=" \nm", capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == repr(" \nm")


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are another thing there")
def test_single_keys_on_a_terminal_which_is_then_as_it_was():
    import pty
    import termios

    terminal, inside = pty.openpty()
    before = termios.tcgetattr(inside)
    own_terminal = "import os, fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    child = subprocess.Popen(
        [sys.executable, "-c", own_terminal + _READER],
        stdin=inside, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == "ready\n"
        deadline_s = time.monotonic() + 20
        while termios.tcgetattr(inside)[3] & termios.ICANON:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        os.write(terminal, b" m ")
        assert child.stdout.readline() == repr(" m ") + "\n"
        assert child.wait(10) == 0
        assert termios.tcgetattr(inside) == before
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        os.close(terminal)
        os.close(inside)
