"""The connected parts: one delay for all of them, and counters that tell the truth."""

from __future__ import annotations

import numpy as np
import pytest

from engine.clock import ManualClock
from engine.media import SAMPLE_RATE_HZ, ChunkSpec
from engine.settings import SessionSettings
from engine.stream.graph import Graph
from engine.stream.listener import CAPTURE_S


@pytest.fixture
def clock():
    return ManualClock(50.0)


@pytest.fixture
def build(clock, scene_of, plain_generator, plain_source):
    """A live graph around a plain microphone: (graph, source, presented frames)."""

    def make(**options):
        presented, source = [], plain_source()
        graph = Graph(
            scene_of(plain_generator(**options)),
            SessionSettings(portrait="unused"),
            clock,
            present=presented.append,
            on_failure=lambda error: pytest.fail(str(error)),
        )
        graph.go_live(source)
        return graph, source, presented

    return make


def _speak(graph, source, clock, blocks, level=0.5):
    """Blocks of 10 ms, each heard when it has just been captured, with the generator at work."""
    for _ in range(blocks):
        source.say(np.full(160, level), clock.now())
        clock.advance(0.010)
        graph.listener.step()
        while graph.runner.step():
            pass
        graph.pacer.tick(clock.now())


def test_delay_is_what_the_generator_needs(build):
    graph, _, _ = build(frames=4, lookahead_samples=640)
    sound_s = 4 / 25 + 0.040 + CAPTURE_S
    assert sound_s + 0.010 <= graph.delay_s <= sound_s + 0.020, "and the time it takes, with a margin"


def test_frame_of_a_sample_is_presented_one_delay_after_it(build, clock):
    graph, source, presented = build()
    _speak(graph, source, clock, 50)
    first = presented[0]
    assert first.due_s == pytest.approx(50.0 + first.tick / 25 + graph.delay_s)
    assert first.frame == first.tick


def test_stats_count_what_happened(build, clock):
    graph, source, presented = build()
    _speak(graph, source, clock, 300)
    stats = graph.stats(None)
    assert stats.time_s == pytest.approx(3.0) and stats.presented == len({f.frame for f in presented}) > 60
    assert stats.ticks == graph.pacer.next_tick
    assert (stats.held, stats.dropped, stats.late, stats.skipped_samples, stats.missing_samples) == (0, 0, 0, 0, 0)
    assert stats.delay_ms == round(1000 * graph.delay_s, 1)
    assert stats.latency_ms == pytest.approx(stats.delay_ms, abs=11), "a step of the clock"
    assert stats.level_dbfs == pytest.approx(-6.0, abs=0.1) and stats.is_speaking
    assert stats.av_offset_ms is None and stats.voice_queue_ms == 0.0


def test_sound_that_never_came_is_in_the_stats(build, clock):
    graph, source, _ = build()
    _speak(graph, source, clock, 20)
    for _ in range(100):
        clock.advance(0.010)
        graph.listener.step()
    missing = graph.stats(None).missing_samples
    assert missing == graph.listener.missing_samples
    assert missing == pytest.approx((1.0 - CAPTURE_S) * SAMPLE_RATE_HZ, abs=170)


def test_fps_is_measured_over_whole_seconds(build, clock):
    graph, source, _ = build()
    assert graph.stats(None).fps == 0.0
    _speak(graph, source, clock, 300)
    graph.stats(None)
    _speak(graph, source, clock, 200)
    assert graph.stats(None).fps == pytest.approx(25.0, abs=0.5)


def test_queues_are_told_in_milliseconds(build, clock):
    graph, source, _ = build(frames=5)
    for _ in range(10):
        source.say(np.zeros(160), clock.now())
        clock.advance(0.010)
        graph.listener.step()
    assert graph.stats(None).audio_queue_ms == 100.0
    source.say(np.zeros(1600), clock.now())
    graph.listener.step()
    assert graph.runner.step()
    stats = graph.stats(None)
    assert (stats.audio_queue_ms, stats.frame_queue_ms) == (0.0, 200.0)


def test_mute_silences_what_has_not_been_shown_and_nothing_else(build, clock):
    graph, source, _ = build(frames=50)
    for _ in range(100):
        source.say(np.full(160, 0.5), clock.now())
        clock.advance(0.010)
        graph.listener.step()
    clock.advance(graph.delay_s - 0.5)
    graph.silence_unpresented()
    spec = graph.runner.scene.generator.spec.chunk
    samples = graph.timeline.chunk(0, spec, is_discontinuous=True).samples
    assert (samples[:8000] == 0.5).all() and not samples[8000:16_000].any()


def test_a_sample_is_shown_one_frame_after_it_was_due(build, clock):
    graph, _, _ = build()
    clock.advance(graph.delay_s + 1.0)
    assert graph.is_shown(15_200) and not graph.is_shown(15_500)


def test_delay_is_made_for_the_generator_that_is_still_to_come(scene_of, plain_generator, clock):
    standby = scene_of(plain_generator(lookahead_samples=640))

    def graph(coming):
        settings = SessionSettings(portrait="unused")
        return Graph(standby, settings, clock, present=print, on_failure=print, standby=standby, coming=coming)

    chunk = ChunkSpec(fps=25, frames=28, lookahead_samples=0)
    for first_frame_s in (0.2, 0.7, 3.0):
        made = graph((chunk, first_frame_s))
        assert made.delay_s == pytest.approx(28 / 25 + CAPTURE_S + 1.25 * first_frame_s)
        assert made.runner.delay_s == made.pacer.delay_s == made.delay_s
    assert graph((ChunkSpec(fps=25, frames=1), 0.0)).delay_s == graph(None).delay_s, "never less than what runs needs"


def test_frames_of_the_whole_delay_find_room(scene_of, plain_generator, clock):
    """A standby may have to make all of them at once before a slow generator takes over."""
    scene = scene_of(plain_generator())
    settings = SessionSettings(portrait="unused")
    coming = (ChunkSpec(fps=25, frames=28), 4.0)
    graph = Graph(scene, settings, clock, present=print, on_failure=print, standby=scene, coming=coming)
    for frame in range(int(graph.delay_s * 25)):
        graph.queue.next_image()
        graph.queue.commit(frame)
    assert graph.queue.dropped == 0


def test_stats_name_the_generator_that_runs(build, clock):
    graph, source, _ = build(name="quick")
    _speak(graph, source, clock, 10)
    assert graph.stats(None).generator == "quick"


@pytest.mark.parametrize(("least_delay_s", "is_more"), [(0.0, False), (0.050, False), (0.400, True)])
def test_delay_is_no_less_than_the_voice_out_needs(scene_of, plain_generator, clock, least_delay_s, is_more):
    settings, scene = SessionSettings(portrait="unused"), scene_of(plain_generator())
    plain = Graph(scene, settings, clock, present=print, on_failure=print)
    made = Graph(scene, settings, clock, present=print, on_failure=print, least_delay_s=least_delay_s)
    assert made.delay_s == (least_delay_s if is_more else plain.delay_s)
    assert made.runner.delay_s == made.pacer.delay_s == made.delay_s


class Voice:
    """A delay line that is `offset_s` early."""

    queue_s = late_s = 0.0

    def __init__(self, offset_s):
        self._offset_s = offset_s

    def steer(self, delay_s, origin_s):
        return self._offset_s


def test_offset_is_that_of_the_picture_as_it_was_shown(build, clock):
    """Each picture is shown 10 ms late or more: the voice, 5 ms early of its own, is early by that, too."""
    graph, source, _ = build()
    voice = Voice(0.005)
    assert graph.stats(voice).av_offset_ms is None, "before any sound"
    for _ in range(200):
        source.say(np.full(160, 0.5), clock.now())
        clock.advance(0.010)
        graph.listener.step()
        graph.steer(voice)
        while graph.runner.step():
            pass
        if clock.now() >= graph.pacer.due_s(graph.pacer.next_tick) + 0.010:
            graph.pacer.tick(clock.now())
    late_ms = 1000 * (graph.pacer.latency_s() - graph.delay_s)
    assert late_ms >= 10
    assert graph.stats(voice).av_offset_ms == pytest.approx(5.0 + late_ms, abs=0.1)
    assert graph.stats(None).av_offset_ms is None


def test_voice_that_is_too_slow_is_told_with_the_delay_that_it_needs(scene_of, plain_generator, clock):
    notices, settings, voice = [], SessionSettings(portrait="unused"), Voice(-0.085)
    graph = Graph(
        scene_of(plain_generator()), settings, clock, present=print, on_failure=print, on_notice=notices.append
    )
    voice.late_s = 0.085
    assert graph.look(None) is None and graph.look(voice) is None
    clock.advance(3.0)
    assert graph.look(voice) == pytest.approx(graph.delay_s + 0.085)
    assert [notice.code for notice in notices] == ["voice_out.too_slow"]
    clock.advance(30.0)
    assert graph.look(voice) is None and len(notices) == 1


def test_slow_microphone_is_in_the_latency_and_told(scene_of, plain_generator, plain_source, clock):
    notices, settings, source = [], SessionSettings(portrait="unused"), plain_source()
    graph = Graph(
        scene_of(plain_generator()), settings, clock, present=print, on_failure=print, on_notice=notices.append
    )
    graph.go_live(source)
    clock.advance(0.200)
    missing = []
    for _ in range(600):
        source.say(np.full(160, 0.5), clock.now() - 0.200)
        clock.advance(0.010)
        graph.listener.step()
        while graph.runner.step():
            pass
        graph.pacer.tick(clock.now())
        graph.look(None)
        missing.append(graph.listener.missing_samples)
    extra_ms = 1000 * graph.listener.way.extra_s
    assert extra_ms == pytest.approx(170, abs=2)
    assert graph.stats(None).latency_ms == pytest.approx(1000 * graph.delay_s + extra_ms, abs=11)
    assert [notice.code for notice in notices] == ["microphone.slow"] and "170 ms" in notices[0].message
    assert missing[-1] == missing[320], "since it is known, nothing is lost"
