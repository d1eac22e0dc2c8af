"""Another portrait or canvas while a director loads, shows or repairs."""

from __future__ import annotations

import threading

import pytest

from engine.errors import GeneratorError, PortraitError
from engine.settings import CanvasSettings
from engine.stream.patience import Patience
from engine.stream.runner import GeneratorRunner

MIRRORED = CanvasSettings(width=640, height=360, fill="solid", is_mirrored=True)


def test_another_portrait_while_loading_begins_the_load_anew(show, cast, portraits):
    cast.may_load.clear()
    live = show().begin()
    live.until(lambda: len(cast.slow) == 2)
    live.director.change(portrait=portraits[1])
    live.until(lambda: len(cast.slow) == 3)
    assert cast.slow[1].closed == 1 and cast.slow[1].portrait.name == "red"
    live.until_makes(cast.quick[1])
    assert live.running is cast.quick[1] and cast.quick[1].portrait.name == "blue" and cast.quick[0].closed == 1
    cast.may_load.set()
    live.until_said("ready", "")
    assert live.running is cast.slow[2] and live.running.portrait.name == "blue"
    assert len([word for word in live.stage.said if word[0] == "error"]) == 0


def test_another_canvas_while_loading_goes_on_with_the_load(show, cast):
    cast.may_load.clear()
    live = show().begin()
    live.until(lambda: len(cast.slow) == 2)
    live.director.change(canvas=MIRRORED)
    live.until_makes(cast.quick[1])
    cast.may_load.set()
    live.until_said("ready", "")
    assert len(cast.slow) == 2 and live.running is cast.slow[1]
    assert live.graph.runner.scene.canvas.settings == MIRRORED


def test_another_canvas_keeps_a_generator_that_does_not_follow_it(live_show, cast):
    live, wanted = live_show()
    live.director.change(canvas=MIRRORED)
    assert live.running is wanted and len(cast.slow) == 2 and live.graph.runner.scene.canvas.settings == MIRRORED
    wanted.break_down()
    live.until_makes(cast.quick[1])
    assert live.director.standby.canvas.settings == MIRRORED and cast.quick[0].closed == 1


def test_another_portrait_while_live_reaches_both(live_show, cast, portraits, waits, caplog):
    live, wanted = live_show()
    live.director.change(portrait=portraits[1])
    live.until(lambda: wanted.closed == cast.quick[0].closed == 1)  # just after the change has been answered
    assert live.running.portrait.name == "blue"
    live.until_makes(live.running)
    cast.may_load.clear()
    live.running.break_down()
    live.until_makes(cast.quick[1])
    cast.may_load.set()
    live.until_said("ready", "")
    assert live.running.portrait.name == "blue" and live.director.settings.portrait == portraits[1]


def test_another_portrait_while_failed_does_not_wait_for_its_turn(live_show, cast, portraits, monkeypatch, caplog):
    monkeypatch.setattr(Patience, "failed", lambda *_: 3600.0)
    live, wanted = live_show()
    wanted.break_down()
    live.until_said("standby", "session.fallback")
    live.director.change(portrait=portraits[1])
    live.until_said("ready", "")
    assert live.running.portrait.name == "blue"


@pytest.mark.parametrize("step", ["unreadable", "standby", "wanted", "wanted breaks", "swap"])
def test_change_that_fails_leaves_everything_as_it_was(live_show, cast, portraits, step, monkeypatch):
    live, wanted = live_show()
    before = (live.director.settings, live.director.standby, live.graph.runner.scene, list(live.stage.said))
    expected, portrait = GeneratorError, portraits[1]
    if step == "unreadable":
        expected, portrait = PortraitError, portraits[2]
    elif step == "standby":
        expected, cast.standby_error = PortraitError, PortraitError("No face.")
    elif step == "swap":
        monkeypatch.setattr(
            GeneratorRunner, "swap", lambda *_, **__: (_ for _ in ()).throw(GeneratorError("It is busy."))
        )
    else:
        error = GeneratorError("It does not fit.") if step == "wanted" else RuntimeError("CUDA error")
        expected, cast.load_errors = type(error), [error]
    with pytest.raises(expected) as caught:
        live.director.change(portrait=portrait)
    if step == "unreadable":
        assert caught.value.code != "portrait.no_standby", "the reason is that it cannot be read"
    assert before == (live.director.settings, live.director.standby, live.graph.runner.scene, live.stage.said)
    assert [g.closed for g in cast.all if g not in (wanted, cast.quick[0])] == [1] * (len(cast.all) - 2)
    live.until_makes(wanted)


def test_canvas_change_that_meets_a_failure_shows_no_closed_generator(live_show, cast, waits, caplog):
    """The running generator breaks in the very chunk that the change waits for."""
    live, wanted = live_show()
    in_chunk, may_break = threading.Event(), threading.Event()

    def during():
        in_chunk.set()
        may_break.wait(20)
        raise ValueError("out of beans")

    wanted.during = during
    assert in_chunk.wait(20)
    thread = threading.Thread(target=live.director.change, kwargs={"canvas": MIRRORED})
    thread.start()
    live.until(lambda: live.graph.runner._handover.is_waiting)
    may_break.set()
    thread.join(20)
    live.until(lambda: not live.graph.runner.needs_another)
    live.until_makes(live.running)
    assert live.running is not wanted and wanted.closed == 1 and live.running.closed == 0
    assert live.graph.runner.scene.canvas.settings == MIRRORED
    live.until_said("ready", "")
