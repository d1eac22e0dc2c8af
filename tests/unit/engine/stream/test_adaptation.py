"""What the ladder decides is done, told and undone: a whole graph on a clock that is moved by hand."""

from __future__ import annotations

import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from engine.audio.sources import Silence
from engine.clock import ManualClock
from engine.errors import PortraitError
from engine.generators.base import GeneratorSpec, SmallerSize
from engine.media import ChunkSpec
from engine.protocol.messages import Noticed
from engine.settings import GeneratorSettings, SessionSettings
from engine.stream import adaptation as adaptation_module
from engine.stream.adaptation import Adaptation
from engine.stream.graph import Graph
from engine.stream.reporter import Reporter
from engine.stream.swap import Scene

FPS = 25
SIZES = [SmallerSize(name="512x320", cost=0.42, options={"size": "512x320"})]
SHARES = (1.0, 0.79, 0.59)
CARD = np.full((36, 64, 3), 7, np.uint8)


class Scripted:
    """A generator whose chunks take `cost_s(now)` for its full work, during which the others go on."""

    def __init__(self, studio, cost_s, *, name, frames=1, economies=(), share=1.0):
        self.spec = GeneratorSpec(
            name=name, width=64, height=36, chunk=ChunkSpec(fps=FPS, frames=frames), follows_canvas=False,
            economies=economies,
        )  # fmt: skip
        self._studio, self.cost_s, self.share = studio, cost_s, share
        self.economies, self.resets, self.closed = [], 0, 0

    def generate(self, chunk, frames):
        self.economies.append(chunk.economy)
        self._studio.run(self.took_s(chunk.economy), generates=False)
        for frame in range(chunk.first_frame, chunk.first_frame + chunk.frames):
            frames.next_image()[:] = 100 + len(self.spec.economies)
            frames.commit(frame)

    def took_s(self, economy=0):
        return self.share * SHARES[economy] * self.cost_s(self._studio.clock.now())

    def take_notices(self):
        return []

    def reset(self):
        self.resets += 1

    def close(self):
        self.closed += 1


class Studio:
    """Audio every 10 ms, the pacer at its deadlines, the generator in between; with the adaptation, and a director
    that only notes what it is asked for."""

    def __init__(self, *, wanted_s, standby_s=0.008, has_standby=True, make_card=lambda settings: CARD):
        self.clock = ManualClock(100.0)
        self.times, self.frames, self.events, self.rested, self.resized = [], [], [], [], []
        self.longest = {"audio": 0.0, "frames": 0.0}
        self.settings = SessionSettings(portrait="x", generator=GeneratorSettings(name="big"))
        self.wanted = self.make_wanted(wanted_s)
        self.puppet = Scripted(self, lambda _: standby_s, name="puppet")
        standby = self.scene(self.puppet) if has_standby else None
        self.director = SimpleNamespace(
            settings=self.settings,
            standby=standby,
            rest=lambda *args: self.rested.append(args),
            resize=lambda size, resting=None: self.resized.append(size),
        )
        scene = self.scene(self.wanted)
        self.adaptation = None
        self.graph = Graph(
            scene, self.settings, self.clock, present=self._present, on_failure=print, standby=standby,
            on_pace=lambda pace: self.adaptation.on_pace(pace),
        )  # fmt: skip
        self.adaptation = Adaptation(
            self.graph.runner, self.graph.pacer, self.director, Reporter(self.events.append), make_card=make_card
        )
        source = Silence()
        source.start(self.clock)
        self.graph.go_live(source)
        self._hear_s = self._pace_s = self.clock.now()

    def make_wanted(self, cost_s, share=1.0):
        return Scripted(self, cost_s, name="big", frames=28, economies=("3 steps", "2 steps"), share=share)

    @staticmethod
    def scene(generator):
        took_s = generator.cost_s(100.0)
        return Scene(
            generator=generator,
            canvas=SimpleNamespace(compose=lambda image: image),
            generate_s=took_s,
            first_frame_s=took_s,
        )

    def _present(self, frame):
        self.times.append(self.clock.now())
        self.frames.append((frame.frame, int(frame.image[0, 0, 0])))

    def run(self, seconds, *, generates=True):
        end_s = self.clock.now() + seconds
        while self.clock.now() < end_s:
            now_s = self.clock.now()
            if now_s >= self._hear_s:
                self.graph.listener.step()
                self._hear_s = max(self._hear_s + 0.010, now_s)
            if now_s >= self._pace_s:
                self._pace_s = self.graph.pacer.tick(now_s)
                if len(self.times) % 5 == 0:
                    self._look()
            if generates and self.graph.runner.step():
                continue
            self.clock.advance(max(0.001, min(self._hear_s, self._pace_s, end_s) - self.clock.now()))

    def _look(self):
        stats = self.graph.stats(None)
        self.longest["audio"] = max(self.longest["audio"], stats.audio_queue_ms)
        self.longest["frames"] = max(self.longest["frames"], stats.frame_queue_ms)

    def swap(self, scene):
        """Let `scene` take over, as the thread that loads it would."""
        thread = threading.Thread(target=self.graph.runner.swap, args=(scene,))
        thread.start()
        while thread.is_alive():
            self.graph.runner.step()
            thread.join(0.001)

    @property
    def told(self):
        return [event.reason.message for event in self.events if isinstance(event, Noticed)]

    @property
    def step(self):
        return self.adaptation.stats().step

    def assert_every_tick_was_shown(self):
        gaps = np.diff(self.times)
        assert gaps.max() < 0.0601 and gaps.min() > 0.019, (gaps.min(), gaps.max())
        assert self.graph.pacer.late == 0


@pytest.fixture
def studio(monkeypatch):
    """Makes studios; the wanted generator has one smaller size."""
    monkeypatch.setattr(
        adaptation_module, "smaller_sizes", lambda name, options, *, follows_canvas: SIZES if name == "big" else []
    )
    return Studio


def slow_between(first_s, last_s, factor, usual_s=0.8):
    """That many times the usual cost in between, in seconds since the beginning."""
    return lambda now_s: usual_s * (factor if first_s <= now_s - 100.0 < last_s else 1.0)


def test_steps_go_down_and_up_again_and_each_is_told(studio):
    made = studio(wanted_s=slow_between(20, 60, 1.8))
    made.run(30)
    assert made.step == "2 steps" and made.wanted.economies[-1] == 2
    made.run(110)
    stats = made.adaptation.stats()
    assert (stats.step, stats.kind, stats.changes) == ("full", "full", 3) and made.wanted.economies[-1] == 0
    assert made.told == [
        "The computer is too slow for full quality: big goes on with 2 steps.",
        "The computer keeps up again: big goes on with 3 steps.",
        "The computer keeps up again: big goes on with full quality.",
    ]
    assert [e.reason.code for e in made.events] == ["quality.lowered", "quality.raised", "quality.raised"]
    assert stats.reason == made.told[-1] and stats.budget_ms == 1120 and stats.chunk_ms == pytest.approx(800, abs=5)
    made.assert_every_tick_was_shown()


def test_slow_creep_is_answered_before_a_picture_is_held(studio):
    made = studio(wanted_s=lambda now_s: 0.8 + 0.002 * (now_s - 100.0))
    made.run(190)
    assert made.adaptation.stats().changes == 1 and made.step == "3 steps"
    assert made.graph.pacer.held == 0 and made.graph.runner.skipped_samples == 0


def test_hiccup_changes_nothing(studio):
    made = studio(wanted_s=lambda now_s: 2.4 if 30 < now_s - 100 < 31 else 0.8)
    made.run(60)
    assert made.told == [] and made.wanted.economies == [0] * len(made.wanted.economies)


def test_smaller_size_is_loaded_and_is_what_counts_from_then_on(studio):
    made = studio(wanted_s=slow_between(20, 100, 3.0))
    made.run(30)
    assert made.resized == SIZES and made.told == [
        "The computer is too slow for full quality: big goes on with 512x320."
    ]
    assert made.graph.runner.is_standing_in
    held = made.graph.pacer.held
    made.run(5)
    assert made.graph.pacer.held == held, "the puppet moves while the smaller one is loaded"
    assert len(made.told) == 1
    smaller = made.make_wanted(made.wanted.cost_s, share=0.42)
    made.swap(made.scene(smaller))
    made.run(60)
    assert smaller.economies[-1] == 2 and made.step == "512x320" and made.wanted.closed == 0
    made.run(100)
    assert made.resized == [*SIZES, None] and made.step == "2 steps"
    made.swap(made.scene(made.make_wanted(made.wanted.cost_s)))
    made.run(60)
    assert made.step == "full" and made.adaptation.stats().changes == 4


def test_size_that_cannot_be_had_leaves_the_standby(studio):
    made = studio(wanted_s=slow_between(10, 1000, 3.0))
    made.run(20)
    made.adaptation.on_size_refused()
    made.run(20)
    assert made.step == "puppet" and made.graph.runner.is_standing_in


def test_standby_stands_in_and_the_other_one_is_asked_back(studio):
    made = studio(wanted_s=slow_between(20, 60, 12.0))
    made.run(50)
    ((scene, economy, wait_s),) = made.rested
    assert scene.generator is made.wanted and (economy, wait_s) == (2, 10.0) and made.wanted.closed == 0
    assert made.puppet.resets == 1 and made.frames[-1][1] == 100 and made.step == "puppet"
    assert made.told == ["The computer is too slow for big: the puppet stands in."]
    held = made.graph.pacer.held
    made.run(20)
    assert made.graph.pacer.held == held, "the puppet keeps up"
    slow = made.scene(made.wanted)
    assert (
        made.adaptation.may_return(Scene(generator=slow.generator, canvas=None, generate_s=1.0), made.clock.now()) == 10
    )
    assert made.adaptation.may_return(slow, made.clock.now()) == 0.0
    made.swap(slow)
    made.run(5)
    assert made.step == "2 steps" and made.wanted.economies[-1] == 2
    made.run(60)
    assert made.step == "full" and made.told[1] == "The computer keeps up again: big goes on with 2 steps."
    made.assert_every_tick_was_shown()


def test_card_where_not_even_the_standby_keeps_up_and_away_again(studio):
    made = studio(wanted_s=lambda _: 20.0, standby_s=0.1)
    made.run(50)
    assert made.adaptation.stats().kind == "card" and made.frames[-1][1] == CARD[0, 0, 0]
    assert made.told[-1] == "The computer is too slow even for the puppet: a standby card is shown."
    made.puppet.cost_s = lambda _: 0.008
    before = len(made.puppet.economies)
    made.run(5)
    assert len(made.puppet.economies) - before < 50, "it is only tried now and then"
    made.run(40)
    assert made.frames[-1][1] == 100 and made.graph.pacer.card is None and made.graph.runner.rest_s == 0
    assert made.told[-1] == "The computer keeps up again: puppet goes on with full quality."
    made.assert_every_tick_was_shown()


def test_card_that_cannot_be_made_leaves_the_last_picture(studio):
    def refuse(settings):
        raise PortraitError("It is gone.")

    made = studio(wanted_s=lambda _: 20.0, standby_s=0.1, make_card=refuse)
    made.run(50)
    assert made.adaptation.stats().kind == "card" and made.frames[-1][1] == 100
    made.assert_every_tick_was_shown()


def test_card_is_made_anew_of_another_portrait(studio):
    made = studio(wanted_s=lambda _: 20.0, standby_s=0.1, make_card=lambda s: CARD + len(s.portrait))
    made.run(50)
    assert made.frames[-1][1] == CARD[0, 0, 0] + 1
    made.director.settings = SessionSettings(portrait="another")
    made.run(3)
    assert made.frames[-1][1] == CARD[0, 0, 0] + len("another")


def test_without_a_standby_there_is_the_card(studio):
    made = studio(wanted_s=lambda _: 30.0, has_standby=False)
    made.run(120)
    assert made.adaptation.stats().kind == "card" and made.frames[-1][1] == CARD[0, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_chunks_cost_the_camera_has_every_tick_and_nothing_piles_up(studio, seed):
    """Any sequence of costs: the pacer is served on time, the queues stay within their bounds, and the picture is never
    shown later than the delay and one chunk."""
    rng = random.Random(seed)
    levels = [(rng.choice([0.3, 0.8, 1.1, 1.3, 2.5, 8.0]), rng.uniform(0, 0.5)) for _ in range(20)]

    def cost_s(now_s):
        level, spread = levels[int((now_s - 100.0) // 10) % len(levels)]
        return level * rng.uniform(1 - spread, 1 + spread)

    made = studio(wanted_s=cost_s, standby_s=rng.choice([0.008, 0.03, 0.06]))
    for _ in range(12):
        made.run(10)
        if made.graph.runner.is_standing_in:
            scene = made.scene(made.wanted)
            if made.adaptation.may_return(scene, made.clock.now()) == 0.0:
                made.swap(scene)
    made.assert_every_tick_was_shown()
    pacer, delay_ms = made.graph.pacer, 1000 * made.graph.delay_s
    assert pacer.ticks == pacer.presented + pacer.held + (made.frames[0][0] if made.frames[0][0] > 0 else 0)
    assert made.longest["frames"] <= delay_ms + 40
    assert made.longest["audio"] <= delay_ms + 2 * 1120 + 8000 * 1.5, "no more than waits during one chunk"
    frames = [frame for frame, _ in made.frames]
    assert frames == sorted(frames)
