"""Plain neighbours for the parts of a stream, runners on a clock of their own, directors and whole sessions."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest
from PIL import Image

from engine.generators import factory
from engine.settings import GeneratorSettings, SessionSettings
from engine.stream import director as director_module
from engine.stream import pace_memory, swap
from engine.stream import scene as scene_module
from engine.stream.patience import Patience
from engine.stream.swap import Scene


@pytest.fixture(scope="session")
def plain_parts(fixture_module):
    """Generators, a canvas and a microphone that do exactly as told."""
    return fixture_module("plain_parts")


@pytest.fixture
def plain_generator(plain_parts):
    """The class, so that a test can make several."""
    return plain_parts.PlainGenerator


@pytest.fixture
def plain_source(plain_parts):
    """The class of a microphone."""
    return plain_parts.PlainSource


@pytest.fixture
def scene_of(plain_parts):
    """Makes a scene of a generator."""

    def make(generator, generate_s=0.008, canvas=plain_parts.PlainCanvas):
        return Scene(generator=generator, canvas=canvas, generate_s=generate_s, first_frame_s=generate_s)

    return make


@pytest.fixture(autouse=True)
def closed_at_once(monkeypatch, request):
    """Generators of these tests close in no time: also on a busy computer they have before the next chunk."""
    if request.path.name != "test_retired.py":
        monkeypatch.setattr(swap, "_SOON_S", 20.0)


@pytest.fixture(scope="session")
def runner_rig(fixture_module):
    """Makes rigs: runners on a clock that only moves when it is told to."""
    return fixture_module("runner_rig")


@pytest.fixture
def rig(runner_rig, scene_of, plain_generator):
    """A rig with a generator that needs a look-ahead."""
    return runner_rig.Rig(scene_of(plain_generator(frames=2, lookahead_samples=100)))


@pytest.fixture
def pair(runner_rig, scene_of, plain_generator):
    """A rig whose generator runs with a standby: (rig, wanted, standby)."""
    wanted, standby = plain_generator(frames=2, name="wanted"), plain_generator(name="standby")
    made = runner_rig.Rig(scene_of(wanted), standby=scene_of(standby))
    made.work(1.0)
    return made, wanted, standby


@pytest.fixture
def cast(plain_parts, monkeypatch, tmp_path):
    """Generators "slow" and "quick" in the registry; measured paces are kept in an empty folder."""
    made = plain_parts.Cast()
    module = SimpleNamespace(
        slow=lambda *, seed, fps, size="": made.make_slow(seed=seed, fps=fps, size=size),
        quick=lambda *, seed, fps: made.make_quick(seed=seed, fps=fps),
    )
    monkeypatch.setitem(sys.modules, "plain_generators", module)
    names = {"slow": "plain_generators:slow", "quick": "plain_generators:quick"}
    monkeypatch.setattr(factory, "_GENERATORS", names)
    monkeypatch.setattr(factory, "_STANDBY", {"slow": "quick"})
    monkeypatch.setattr(pace_memory, "cache_folder", lambda: tmp_path / "cache")
    yield made
    made.may_load.set()


@pytest.fixture
def portraits(tmp_path):
    """Two pictures and one that is none."""
    paths = [str(tmp_path / name) for name in ("red.png", "blue.png", "none.png")]
    for path, colour in zip(paths, ("red", "blue"), strict=False):
        Image.new("RGB", (96, 64), colour).save(path)
    (tmp_path / "none.png").write_text("not a picture")
    return paths


@pytest.fixture(scope="session")
def plain_session(fixture_module):
    """Whole sessions, and directors with a real graph."""
    return fixture_module("plain_session")


@pytest.fixture
def session(plain_session, portraits, plain_generator, monkeypatch):
    """Makes sessions of the first picture; all stopped afterwards."""
    made = []

    def make(**settings):
        made.append(plain_session.LiveSession(plain_generator, **{"portrait": portraits[0], **settings}))
        monkeypatch.setattr(scene_module, "create_generator", made[-1].create)
        return made[-1]

    yield make
    for each in made:
        each.broadcast.stop()


@pytest.fixture
def live_of(plain_session, portraits, cast):
    """Makes sessions of the first picture with the generators of `cast`; all stopped afterwards."""
    made = []

    def make(**settings):
        settings = {"portrait": portraits[0], "generator": GeneratorSettings(name="slow"), **settings}
        made.append(plain_session.LiveSession(None, **settings))
        return made[-1]

    yield make
    for each in made:
        each.broadcast.stop()
    assert all(g.closed == 1 for g in cast.all)


@pytest.fixture
def show(plain_session, cast, portraits):
    """Makes directors of "slow" with a graph; in the end each generator that was made has been closed exactly once."""
    made = []

    def make(**settings):
        settings = {"portrait": portraits[0], "generator": GeneratorSettings(name="slow"), **settings}
        made.append(plain_session.Show(SessionSettings(canvas=plain_session.SMALL, **settings)))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert [(g.spec.name, g.closed) for g in cast.all] == [(g.spec.name, 1) for g in cast.all]


@pytest.fixture
def live_show(show):
    """Makes shows whose wanted generator has taken over: (show, it)."""

    def make(**settings):
        live = show(**settings).begin()
        live.until_said("ready", "")
        live.until_makes(live.running)
        return live, live.running

    return make


class _Waits(list):
    """Seconds; `recovered` counts how often there was no more need to wait."""

    recovered = 0


@pytest.fixture
def waits(monkeypatch):
    """Loads that failed are tried again at once; the waits that would have been."""
    kept = _Waits()

    class Impatient(Patience):
        def failed(self, frame):
            kept.append(super().failed(frame))
            return 0.0

        def recovered(self, frame):
            kept.recovered += 1
            super().recovered(frame)

    monkeypatch.setattr(director_module, "Patience", Impatient)
    return kept


@pytest.fixture
def no_new_threads():
    """Says whether all threads have ended that began during the test."""
    before = set(threading.enumerate())
    return lambda: {thread.name for thread in threading.enumerate() if thread not in before} == set()
