"""Plain neighbours for the parts of a stream: a generator, a canvas and a microphone that do exactly as told; and whole
sessions of them."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engine.generators import factory
from engine.generators.base import GeneratorSpec
from engine.media import AudioBlock, ChunkSpec, Notice
from engine.protocol.messages import Noticed, StateChanged
from engine.settings import CanvasSettings, GeneratorSettings, SessionSettings
from engine.stream import pace_memory
from engine.stream import scene as scene_module
from engine.stream.broadcast import Broadcast
from engine.stream.swap import Scene

_SMALL = CanvasSettings(width=640, height=360, fill="solid")


class PlainGenerator:
    """Keeps the chunks it gets and writes each frame's number into its picture; `during` runs inside `generate`."""

    def __init__(
        self, *, fps=25, frames=1, lookahead_samples=0, size=(8, 4), name="plain", follows_canvas=True, economies=()
    ):
        self.spec = GeneratorSpec(
            name=name,
            width=size[0],
            height=size[1],
            chunk=ChunkSpec(fps=fps, frames=frames, lookahead_samples=lookahead_samples),
            follows_canvas=follows_canvas,
            economies=economies,
        )
        self.chunks, self.closed, self.during, self.notices = [], 0, lambda: None, []
        self.wanted_size = None

    def check(self):
        pass

    def prepare(self, portrait, size, progress):
        progress.update("prepare", 0, 1)
        self.portrait = portrait
        return []

    def generate(self, chunk, frames):
        self.chunks.append(chunk)
        self.during()
        for frame in range(chunk.first_frame, chunk.first_frame + chunk.frames):
            frames.next_image()[:] = frame % 251
            frames.commit(frame)

    def take_notices(self):
        taken, self.notices = self.notices, []
        return taken

    def reset(self):
        pass

    def close(self):
        self.closed += 1


class Cast:
    """The registry with two generators: "slow", in chunks of 5 frames, and its standby "quick". Each that is made is
    kept; slow ones wait in `prepare` until `may_load`, then raise the first of `load_errors` if any is left."""

    def __init__(self):
        self.slow, self.quick, self.economies = [], [], ()
        self.may_load, self.is_deaf = threading.Event(), False
        self.may_load.set()
        self.check_error, self.load_errors, self.standby_error = None, [], None
        self.dress = lambda generator: None

    @property
    def all(self):
        return [*self.slow, *self.quick]

    def make_slow(self, *, seed, fps, size=""):
        generator = PlainGenerator(fps=fps, frames=5, name="slow", follows_canvas=False, economies=self.economies)
        generator.check, generator.wanted_size = self._check, size
        generator.prepare = lambda portrait, size, progress: self._load(generator, portrait, progress)
        self.slow.append(generator)
        self.dress(generator)
        return generator

    def make_quick(self, *, seed, fps):
        generator = PlainGenerator(fps=fps, lookahead_samples=160, name="quick")
        prepare = generator.prepare
        generator.prepare = lambda *args: self._raise(self.standby_error) or prepare(*args)
        self.quick.append(generator)
        self.dress(generator)
        return generator

    def _check(self):
        self._raise(self.check_error)

    @staticmethod
    def _raise(error):
        if error is not None:
            raise error

    def _load(self, generator, portrait, progress):
        generator.portrait = portrait
        while not self.may_load.wait(0.005):
            if not self.is_deaf:
                progress.update("load", 0, 1)
        if self.load_errors:
            raise self.load_errors.pop(0)
        return [Notice(code="slow.loaded", message="It is loaded.")]


class PlainCanvas:
    """Shows the picture as it is."""

    @staticmethod
    def compose(image):
        return image


class PlainSource:
    """A microphone that delivers the blocks it is given, one for each `read`."""

    channels, label, has_ended, overflows = 1, "plain", False, 0

    def __init__(self, rate_hz=16_000):
        self.rate_hz = rate_hz
        self.blocks, self.stopped, self._position = [], 0, 0

    def say(self, samples, captured_at_s):
        """Queue float32 (n,) or (n, channels), captured then."""
        samples = np.asarray(samples, np.float32)
        samples = samples[:, None] if samples.ndim == 1 else samples
        self.blocks.append(
            AudioBlock(first_sample=self._position, samples=samples, rate_hz=self.rate_hz, captured_at_s=captured_at_s)
        )
        self._position += len(samples)

    def start(self, clock):
        pass

    def read(self):
        return self.blocks.pop(0) if self.blocks else None

    def stop(self):
        self.stopped += 1


class Session:
    """A broadcast with plain generators, and everything it told. What a busy computer is too slow for is no subject of
    most tests, so it does not adapt unless told to."""

    def __init__(self, generator_class, **settings):
        self.events, self.generators = [], []
        self._generator_class = generator_class
        self.prepare_error = None
        settings = {"canvas": _SMALL, "adaptive": False, **settings}
        self.broadcast = Broadcast(SessionSettings(**settings), self.events.append)

    def create(self, name, *, seed, fps, options):
        generator = self._generator_class(fps=fps)
        self.generators.append(generator)
        error = self.prepare_error
        if error is not None:
            generator.prepare = lambda *_: (_ for _ in ()).throw(error)
        return generator

    @property
    def states(self):
        return [e.state for e in self.events if isinstance(e, StateChanged)]

    def codes(self, kind=Noticed):
        return [e.reason.code for e in self.events if isinstance(e, kind) and e.reason is not None]

    def until(self, condition):
        """Wait for what another thread is about to do; a bound, not a measurement."""
        deadline_s = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline_s, f"still not so; the last events: {self.events[-3:]}"
            time.sleep(0.005)

    def until_presented(self, count=1):
        seen = self.broadcast.stats().presented
        self.until(lambda: self.broadcast.stats().presented >= seen + count)


@pytest.fixture
def plain_generator():
    """The class, so that a test can make several."""
    return PlainGenerator


@pytest.fixture
def plain_source():
    """The class of a microphone."""
    return PlainSource


@pytest.fixture
def scene_of():
    """Makes a scene of a generator."""

    def make(generator, generate_s=0.008, canvas=PlainCanvas):
        return Scene(generator=generator, canvas=canvas, generate_s=generate_s, first_frame_s=generate_s)

    return make


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
def cast(monkeypatch, tmp_path):
    """Generators "slow" and "quick" in the registry; measured paces are kept in an empty folder."""
    made = Cast()
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
    """Two pictures."""
    paths = [tmp_path / "red.png", tmp_path / "blue.png"]
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        Image.new("RGB", (96, 64), colour).save(path)
    return paths


@pytest.fixture
def session(portraits, plain_generator, monkeypatch):
    """Makes sessions of the first picture; all stopped afterwards."""
    made = []

    def make(**settings):
        made.append(Session(plain_generator, **{"portrait": str(portraits[0]), **settings}))
        monkeypatch.setattr(scene_module, "create_generator", made[-1].create)
        return made[-1]

    yield make
    for each in made:
        each.broadcast.stop()


@pytest.fixture
def live_of(portraits, cast):
    """Makes sessions of the first picture with the generators of `cast`; all stopped afterwards."""
    made = []

    def make(**settings):
        made.append(
            Session(None, **{"portrait": str(portraits[0]), "generator": GeneratorSettings(name="slow"), **settings})
        )
        return made[-1]

    yield make
    for each in made:
        each.broadcast.stop()
    assert all(g.closed == 1 for g in cast.all)


@pytest.fixture
def no_new_threads():
    """Says whether all threads have ended that began during the test."""
    before = set(threading.enumerate())
    return lambda: {thread.name for thread in threading.enumerate() if thread not in before} == set()
