"""A live session whose ranks fail: the camera has its frames all the time, and the picture comes back by itself."""

from __future__ import annotations

import os
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.generators import factory
from engine.generators.base import GeneratorSpec
from engine.media import ChunkSpec
from engine.protocol.messages import Noticed, SessionState, StateChanged
from engine.settings import CameraSettings, CanvasSettings, GeneratorSettings, SessionSettings
from engine.sinks import virtual_camera
from engine.stream import pace_memory
from engine.stream.broadcast import Broadcast
from engine.worker.generator import RankedGenerator
from engine.worker.group import GroupSettings

pytest.importorskip("torch", reason="ranks are torch processes")

ROOT = Path(__file__).resolve().parents[2]
SPEC = GeneratorSpec(name="test", width=16, height=8, chunk=ChunkSpec(fps=25, frames=4), follows_canvas=False)


class Camera:
    """Remembers the numbers of the ticks whose frames it got."""

    name, backend, device, label = "camera", "test", "a", "A"

    def __init__(self) -> None:
        self.ticks: list[int] = []

    def open(self, canvas) -> None:
        pass

    def send(self, frame) -> None:
        self.ticks.append(frame.tick)

    def close(self) -> None:
        pass


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The generators in ranks, of which the last is the one that runs; the puppet stands in for them."""
    generators = []

    def ranked(*, seed, fps):
        options = (("folder", str(tmp_path)),)
        settings = GroupSettings(
            generator="rank_generators:Summing", seed=seed, fps=fps, options=options, spec=SPEC, ranks=2, timeout_s=3.0
        )
        generators.append(RankedGenerator(settings))
        return generators[-1]

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "fixtures"), str(ROOT)]))
    monkeypatch.setitem(sys.modules, "ranked_generators", SimpleNamespace(ranked=ranked))
    monkeypatch.setitem(factory._GENERATORS, "test", "ranked_generators:ranked")
    monkeypatch.setitem(factory._STANDBY, "test", "puppet")
    monkeypatch.setattr(pace_memory, "cache_folder", lambda: tmp_path / "cache")
    return generators


@pytest.fixture
def camera(monkeypatch):
    only = Camera()
    monkeypatch.setattr(virtual_camera, "open_camera", lambda settings: only)
    return only


class Live:
    """A session, and what it tells."""

    def __init__(self) -> None:
        self.events: list = []
        settings = SessionSettings(
            portrait="sample:",
            generator=GeneratorSettings(name="test"),
            canvas=CanvasSettings(width=640, height=360, fill="solid"),
            camera=CameraSettings(),
        )
        self.broadcast = Broadcast(settings, self.events.append)
        self.broadcast.start()

    @property
    def states(self) -> list[SessionState]:
        return [event.state for event in self.events if isinstance(event, StateChanged)]

    def errors(self) -> list[str]:
        return [event.reason.message for event in self.events if isinstance(event, Noticed) and event.is_error]

    def until(self, condition, timeout_s: float = 100.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.events[-5:]
            time.sleep(0.02)

    def until_ranks_show(self, times: int) -> None:
        """The ranks have taken over for the `times`th time, and have been shown for a while."""
        self.until(lambda: self.states.count(SessionState.LIVE) == times)
        presented = self.broadcast.stats().presented
        self.until(lambda: self.broadcast.stats().presented > presented + 20)
        assert self.broadcast.stats().generator == "test"


@pytest.mark.slow
def test_ranks_fail_in_many_ways_and_the_camera_never_waits(made, camera, tmp_path):
    live = Live()
    try:
        live.until_ranks_show(times=1)
        _killed(live, made)
        live.until_ranks_show(times=2)
        _stopped(live, made)
        live.until_ranks_show(times=3)
        stats = live.broadcast.stats()
    finally:
        live.broadcast.stop()
    assert live.errors() == ["Rank 1 was killed.", "One of the ranks has not answered for 3 seconds."]
    waits = [after - before for before, after in pairwise(camera.ticks)]
    assert max(waits) < 25, "in ticks of 40 ms: a rank that hangs is waited for three seconds, the camera is not"
    assert stats.presented + stats.held >= 0.9 * stats.ticks
    for event in live.events:
        if isinstance(event, StateChanged) and event.reason.code == "session.fallback":
            assert event.reason.message == "The generator failed; the puppet stands in while it starts again."


def _killed(live, made) -> None:
    os.kill(made[-1].pids[1], signal.SIGKILL)
    live.until(lambda: live.states[-1] is SessionState.FALLBACK)
    presented = live.broadcast.stats().presented
    live.until(lambda: live.broadcast.stats().presented > presented + 10)
    assert live.broadcast.stats().generator == "puppet"


def _stopped(live, made) -> None:
    """It is there, and says nothing."""
    os.kill(made[-1].pids[0], signal.SIGSTOP)
    ticks = live.broadcast.stats().ticks
    live.until(lambda: live.states[-1] is SessionState.FALLBACK)
    live.until(lambda: live.broadcast.stats().ticks > ticks + 100)
