"""A generator that is too slow, in whole sessions with their threads: what stands in, and what comes back."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from engine.errors import DeviceError, GeneratorError
from engine.generators.base import SmallerSize
from engine.generators.puppet.render import PuppetRenderer
from engine.protocol.messages import SessionState, StateChanged
from engine.settings import CameraSettings, CanvasSettings, GeneratorSettings
from engine.sinks import virtual_camera
from engine.stream import adaptation as adaptation_module
from engine.stream import ladder as ladder_module

SMALL = SmallerSize(name="small", cost=0.1, options={"size": "small"})


class Camera:
    """A virtual camera that notes the ticks it is given."""

    name, backend, device, label = "camera", "test", "a", "A"

    def __init__(self):
        self.ticks = []

    def open(self, canvas):
        pass

    def send(self, frame):
        self.ticks.append(frame.tick)

    def close(self):
        pass


@pytest.fixture
def camera(monkeypatch):
    made = Camera()
    monkeypatch.setattr(virtual_camera, "open_camera", lambda settings: made)
    return made


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """What lasts minutes lasts a moment."""
    monkeypatch.setattr(ladder_module, "_SURPLUS_S", 0.2)
    monkeypatch.setattr(ladder_module, "_SURPLUS_TO_LOAD_S", 0.2)
    monkeypatch.setattr(ladder_module, "_KEPT_S", 0.5)


@pytest.fixture
def smaller(monkeypatch):
    """The wanted generator has one smaller size."""
    monkeypatch.setattr(
        adaptation_module, "smaller_sizes", lambda name, options, *, follows_canvas: [SMALL] if name == "slow" else []
    )


def _delayed(generator, seconds):
    """Chunks of 200 ms take so long from now on, or what a function of the last chunk says."""
    say = seconds if callable(seconds) else lambda chunk: seconds
    generator.during = lambda: time.sleep(say(generator.chunks[-1]))


def _live(live_of, **settings):
    live = live_of(**{"adaptive": True, **settings})
    live.broadcast.start()
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    live.until_presented(5)
    return live


def test_standby_makes_the_picture_of_one_three_times_too_slow_and_the_camera_has_every_tick(live_of, cast, camera):
    live = _live(live_of, camera=CameraSettings())
    _delayed(cast.slow[-1], 0.6)
    live.until(lambda: live.states[-1] is SessionState.FALLBACK)
    assert live.codes() == ["slow.loaded", "quality.lowered"]
    reasons = [event.reason for event in live.events if isinstance(event, StateChanged)]
    assert reasons[-1].code == "session.too_slow"
    live.until_presented(30)
    stats = live.broadcast.stats()
    assert stats.generator == "quick" and stats.quality.step == "quick" and stats.quality.kind == "standby"
    assert len(cast.slow) == 2 and cast.slow[-1].closed == 0, "it rests, and is not loaded again"
    _delayed(cast.slow[-1], 0.0)
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    live.until_presented(10)
    assert live.codes()[-1] == "quality.raised" and live.broadcast.stats().quality.changes == 2
    assert len(cast.slow) == 2 and live.broadcast.stats().generator == "slow"
    missed = sum(after - before - 1 for before, after in pairwise(camera.ticks))
    assert missed <= live.broadcast.stats().late + live.broadcast.stats().sinks["camera"].dropped


def test_cheaper_way_is_asked_for_first_and_given_up_again(live_of, cast):
    cast.economies = ("less",)
    live = _live(live_of)
    _delayed(cast.slow[-1], lambda chunk: 0.02 if chunk.economy else 0.215)
    live.until(lambda: live.broadcast.stats().quality.step == "less")
    live.until(lambda: cast.slow[-1].chunks[-1].economy == 1)
    assert SessionState.FALLBACK not in live.states[2:] and live.codes()[-1] == "quality.lowered"
    _delayed(cast.slow[-1], 0.0)
    live.until(lambda: cast.slow[-1].chunks[-1].economy == 0 and live.broadcast.stats().quality.step == "full")
    assert live.codes()[-1] == "quality.raised"


def test_who_wants_no_changes_gets_none(live_of, cast):
    cast.economies = ("less",)
    live = _live(live_of, adaptive=False)
    _delayed(cast.slow[-1], 0.5)
    live.until(lambda: live.broadcast.stats().skipped_samples > 16_000)
    assert {chunk.economy for chunk in cast.slow[-1].chunks} == {0} and live.codes() == ["slow.loaded"]
    assert live.broadcast.stats().quality.changes == 0


def test_smaller_one_is_loaded_beside_where_there_is_room(live_of, cast, smaller):
    live = _live(live_of)
    _delayed(cast.slow[-1], 0.6)
    first = cast.slow[-1]
    live.until(lambda: first.closed == 1)
    live.until(lambda: any(g.wanted_size == "small" and len(g.chunks) > 3 for g in cast.slow))
    live.until(lambda: live.broadcast._graph.runner.scene.generator.wanted_size == "")
    assert "quality.raised" in live.codes(), "the machine is quick again, so the larger one is loaded anew"


def test_smaller_one_takes_the_place_of_the_other_where_there_is_no_room_for_both(live_of, cast, smaller):
    """Memory is there only after the first one has ended; the standby is shown meanwhile."""
    live = _live(live_of)
    first = cast.slow[-1]
    order = []

    def full():
        order.append("looked")
        if first.closed == 0:
            raise DeviceError("There is not enough memory.")

    cast._check = full
    close = first.close
    first.close = lambda: (close(), order.append(live.broadcast.stats().generator))
    _delayed(first, 0.6)
    live.until(lambda: live.broadcast._graph.runner.scene.generator.wanted_size == "small")
    assert order == ["looked", "quick", "looked"]
    assert live.codes(StateChanged).count("session.standby") == 2, "at the beginning, and meanwhile"


def test_smaller_one_that_cannot_be_had_leaves_what_there_is(live_of, cast, smaller):
    live = _live(live_of)
    first = cast.slow[-1]
    cast.load_errors = [GeneratorError("It does not fit.")]
    _delayed(first, 0.6)
    live.until(lambda: live.broadcast.stats().quality.kind == "standby")
    assert [g.wanted_size for g in cast.slow].count("small") == 2 and live.broadcast.stats().generator == "quick"
    assert first.closed == 0, "it rests"


def test_stop_while_it_rests_closes_it(live_of, cast):
    live = _live(live_of)
    _delayed(cast.slow[-1], 0.6)
    live.until(lambda: live.states[-1] is SessionState.FALLBACK)
    live.broadcast.stop()
    assert [generator.closed for generator in cast.all] == [1] * len(cast.all)


def test_portrait_chosen_while_it_rests_is_shown_by_both(live_of, cast, portraits):
    live = _live(live_of)
    resting = cast.slow[-1]
    _delayed(resting, 0.6)
    live.until(lambda: live.states[-1] is SessionState.FALLBACK)
    live.broadcast.set_portrait(portraits[1])
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    live.until(lambda: resting.closed == 1)
    assert live.broadcast._graph.runner.scene.generator.portrait.name == "blue"


def test_failure_after_a_return_is_repaired_as_any(live_of, cast, caplog):
    live = _live(live_of)
    _delayed(cast.slow[-1], 0.6)
    live.until(lambda: live.states[-1] is SessionState.FALLBACK)
    _delayed(cast.slow[-1], 0.0)
    live.until(lambda: live.states[-1] is SessionState.LIVE)
    cast.slow[-1].during = lambda: 1 / 0
    live.until(lambda: "generator.internal" in live.codes())
    live.until(lambda: live.states[-1] is SessionState.LIVE and cast.slow[-1].closed == 0)
    assert cast.slow[-2].closed == 1, "the one that failed"


def test_puppet_too_slow_for_the_canvas_is_loaded_in_half_the_size(plain_session, monkeypatch):
    """It has no standby, and knows what it is only after it has been prepared."""
    render, height = PuppetRenderer.render, 360

    def slow(self, expression, out):
        time.sleep(0.06 if len(out) > height * 0.7 else 0.0)
        render(self, expression, out)

    monkeypatch.setattr(PuppetRenderer, "render", slow)
    wanted, canvas = GeneratorSettings(name="puppet"), CanvasSettings(width=640, height=height)
    live = plain_session.LiveSession(None, portrait="sample:", generator=wanted, canvas=canvas, adaptive=True)
    live.broadcast.start()
    try:
        live.until(lambda: live.broadcast._graph.runner.scene.generator.spec.height <= height // 2)
        assert live.codes()[0] == "quality.lowered" and "the puppet was asked" not in str(live.events).lower()
    finally:
        live.broadcast.stop()
