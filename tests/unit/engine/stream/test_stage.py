"""What a director says of who makes the picture, and work that ends once nobody wants it."""

from __future__ import annotations

import pytest

from engine.errors import Cancelled
from engine.stream.stage import Announcer, Stage, Unless


class Recorder(Stage):
    def __init__(self):
        self.said = []

    def on_standby(self, code, message, hint):
        assert hint
        self.said.append((code, message))

    def on_ready(self):
        self.said.append(("ready", ""))


@pytest.mark.parametrize(
    ("tell", "arguments", "code", "message"),
    [
        ("loading", ("puppet", "flashtalk"), "session.standby", "The puppet is shown until flashtalk is ready."),
        ("failed", ("toy",), "session.fallback", "The generator failed; the toy stands in while it starts again."),
        ("failed", ("",), "session.fallback", "The generator failed and is being started again."),
        ("too_slow", ("puppet", "x"), "session.too_slow", "The puppet stands in while x is too slow."),
        ("too_slow", ("", "x"), "session.too_slow", "The last picture stands in while x is too slow."),
    ],
)
def test_who_stands_in_and_why(tell, arguments, code, message):
    stage = Recorder()
    announcer = Announcer(stage)
    announcer.ready()
    assert announcer.is_ready
    getattr(announcer, tell)(*arguments)
    assert stage.said == [("ready", ""), (code, message)] and not announcer.is_ready


def test_a_load_that_is_given_up_says_nothing_of_what_runs():
    stage = Recorder()
    announcer = Announcer(stage)
    announcer.ready()
    announcer.hopeless("puppet", "flashtalk")
    assert stage.said[-1] == ("session.standby_stays", "flashtalk could not be started, so the puppet stays.")
    assert announcer.is_ready


def test_progress_ends_once_the_work_is_void():
    told, is_void = [], [False]

    class Progress:
        def update(self, stage, done, total, unit=""):
            told.append((stage, done, total, unit))

    progress = Unless(Progress(), lambda: is_void[0])
    progress.update("load", 1, 2, "files")
    is_void[0] = True
    with pytest.raises(Cancelled):
        progress.update("load", 2, 2, "files")
    assert told == [("load", 1, 2, "files")]
