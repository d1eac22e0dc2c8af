"""Nothing on the way from the microphone to the camera grows without a bound, whoever stops taking from it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engine.audio.delay_line import DelayLine
from engine.audio.ring import SampleRing
from engine.audio.sources import Silence
from engine.clock import ManualClock
from engine.media import CanvasFormat
from engine.settings import SessionSettings
from engine.sinks.base import PresentedFrame
from engine.sinks.mailbox import Mailbox
from engine.sinks.recorder import Recorder
from engine.stream.graph import Graph

FPS = 25


@pytest.mark.parametrize("frames", [1, 28])
def test_sound_and_frames_of_a_session_whose_generator_stops(plain_generator, scene_of, frames):
    """A minute in which nobody makes a frame: the timeline keeps what it keeps, and afterwards what is late is skipped
    at once, down to the delay and two chunks."""
    clock = ManualClock(10.0)
    generator = plain_generator(frames=frames)
    graph = Graph(
        scene_of(generator, generate_s=0.5 * frames / FPS), SessionSettings(portrait=""), clock,
        present=lambda frame: None, on_failure=print,
    )  # fmt: skip
    source = Silence()
    source.start(clock)
    graph.go_live(source)
    kept = len(graph.timeline._samples)
    for _ in range(6000):
        clock.advance(0.010)
        graph.listener.step()
    assert len(graph.timeline._samples) == kept
    while graph.runner.step():
        pass
    chunk_ms = 1000 * frames / FPS
    assert graph.stats(None).audio_queue_ms <= 1000 * graph.delay_s + 2 * max(chunk_ms, 80)


@pytest.mark.parametrize("frames", [1, 28])
def test_frames_of_a_session_whose_pacer_stops(plain_generator, scene_of, frames):
    """The delay's worth of frames, and no fewer than those of two chunks."""
    clock = ManualClock(10.0)
    graph = Graph(
        scene_of(plain_generator(frames=frames)), SessionSettings(portrait=""), clock,
        present=lambda frame: None, on_failure=print,
    )  # fmt: skip
    source = Silence()
    source.start(clock)
    graph.go_live(source)
    for _ in range(3000):
        clock.advance(0.010)
        graph.listener.step()
        while graph.runner.step():
            pass
        assert len(graph.queue) <= max(16, 2 * frames, graph.delay_s * FPS + 1)
    assert graph.queue.dropped > 500


@pytest.mark.parametrize(("slots", "most_ms"), [(1, 40), (25, 1000)])
def test_pictures_for_a_sink_that_hangs(slots, most_ms):
    """Of the camera and the preview one waits, of the recording a second's."""
    may_end = threading.Event()

    class Hanging:
        name = "hanging"

        def open(self, canvas):
            pass

        def send(self, frame):
            may_end.wait(20)

        def close(self):
            pass

    box = Mailbox(Hanging(), CanvasFormat(width=64, height=36, fps=FPS), slots=slots)
    try:
        for tick in range(200):
            box.put(PresentedFrame(image=np.zeros((36, 64, 3), np.uint8), tick=tick, frame=tick, due_s=0.0))
            assert box.stats().queue_ms <= most_ms
        assert box.stats().dropped >= 200 - slots - 2
    finally:
        may_end.set()
        box.close()


def test_sound_for_a_recording_whose_disk_hangs(tmp_path):
    recorder = Recorder(tmp_path / "a.mp4")
    for block in range(6000):
        recorder.write_audio(np.zeros((480, 2), np.float32), 480 * block, 48_000)
    assert sum(len(samples) for samples, _, _ in recorder._blocks) / 48_000 <= 20.02


def test_microphone_that_nobody_reads_and_output_that_takes_nothing():
    ring = SampleRing(2 * 48_000)
    line = DelayLine(48_000)
    for block in range(2000):
        samples = np.zeros((480, 1), np.float32)
        ring.write(samples)
        line.write(samples, 48_000, block * 0.010)
    assert len(ring) / 48_000 == 2.0 and ring.overflows == 18 * 48_000
    assert line.queue_s <= 6.0
