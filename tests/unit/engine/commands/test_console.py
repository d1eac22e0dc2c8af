"""What the commands say, on a terminal and in a log."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from engine.commands import console
from engine.commands.console import ProgressLine, listing, notice, sentence
from engine.errors import StandinError
from engine.media import Notice
from engine.protocol.messages import Reason


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """The console's time, moved by hand."""
    time_s = [100.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: time_s[0]))
    return time_s


@pytest.mark.parametrize("told", [Reason, Notice, StandinError])
def test_sentence_of_everything_that_can_be_told(told):
    kind = {"code": "x"}
    make = (lambda **k: told(k.pop("message"), **k)) if told is StandinError else told
    assert sentence(make(message="It is so.", hint="Do this.", **kind)) == "It is so. Do this."
    assert sentence(make(message="It is so.", **kind)) == "It is so."


def test_notice_is_marked():
    told = Notice(code="x", message="It is so.", hint="Do this.")
    assert notice(told) == "Note: It is so. Do this."
    assert notice(told, is_error=True) == "Error: It is so. Do this."


def test_listing_is_indented_and_says_why_it_is_empty():
    assert listing("Cameras", ["a", "b"]) == "Cameras\n  a\n  b"
    assert listing("Cameras", ["a"], "None.") == "Cameras\n  a"
    assert listing("Cameras", [], "None.") == "Cameras\n  None."
    assert listing("Cameras", []) == "Cameras"


def test_terminal_line_is_rewritten_and_shorter_text_leaves_no_rest(now):
    out = Terminal()
    line = ProgressLine(stream=out)
    line.show("a long text")
    line.show("short")
    line.end()
    line.end()
    assert out.getvalue() == "\ra long text\rshort      \n"


def test_terminal_is_not_flooded_but_sees_the_end(now):
    out = Terminal()
    line = ProgressLine(stream=out)
    for done in range(1001):
        now[0] += 0.001
        line.update("frames", done, 1000)
    shown = out.getvalue().split("\r")
    assert 9 <= len(shown) - 1 <= 13 and "100 %" in shown[-1]


def test_log_gets_a_line_every_few_seconds(now):
    out = io.StringIO()
    line = ProgressLine(stream=out)
    for done in range(201):
        now[0] += 0.1
        line.update("frames", done, 200)
    line.end()
    lines = out.getvalue().splitlines()
    assert 4 <= len(lines) <= 6 and "\r" not in out.getvalue() and "100 %" in lines[-1]


def test_another_stage_is_shown_at_once(now):
    out = Terminal()
    line = ProgressLine(stream=out)
    line.update("load", 1, 10)
    line.update("warm-up", 0, 3)
    assert "load" in out.getvalue() and "warm-up" in out.getvalue()


def test_speed_and_time_left(now):
    out = Terminal()
    line = ProgressLine(stream=out)
    line.update("frames", 0, 100, "frames")
    now[0] += 2.0
    line.update("frames", 50, 100, "frames")
    assert "50/100 frames, 25 a second, 2 s left" in out.getvalue()


@pytest.mark.parametrize(("done", "total"), [(0, 0), (5, 0), (11, 10)])
def test_odd_totals_do_not_fail(now, done, total):
    out = Terminal()
    ProgressLine(stream=out).update("frames", done, total, "frames")
    assert "%" in out.getvalue()


def test_show_often_is_rare_in_a_log(now):
    log, terminal = io.StringIO(), Terminal()
    lines = ProgressLine(stream=log), ProgressLine(stream=terminal)
    for _ in range(100):
        now[0] += 0.25
        for line in lines:
            line.show_often("25 fps")
    assert log.getvalue().count("25 fps") == 5 and terminal.getvalue().count("25 fps") == 100


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_quiet_says_nothing(now, make):
    out = make()
    line = ProgressLine(is_quiet=True, stream=out)
    line.update("frames", 1, 1)
    line.show("text")
    line.end()
    assert out.getvalue() == ""
