"""Clicks go into a real microphone, flashes come out of the camera, and clicks out of the virtual microphone.

The whole product lies in between; only the generator is another one, which flashes where it hears a click. Longer:
STANDIN_SYNC_MINUTES=10 python -m pytest -s tests/integration/test_lip_sync.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from engine.audio.pulse_stream import PulseRecording
from engine.generators import factory
from engine.generators.base import GeneratorSpec
from engine.media import ChunkSpec
from engine.protocol.messages import Stats
from engine.settings import (
    CameraSettings,
    CanvasSettings,
    GateSettings,
    GeneratorSettings,
    MicrophoneSource,
    SessionSettings,
    SoundSettings,
    VoiceOutSettings,
)
from engine.sinks import virtual_camera
from engine.stream import pace_memory
from engine.stream.broadcast import Broadcast

RATE_HZ = 48_000
SECONDS = 60 * float(os.environ.get("STANDIN_SYNC_MINUTES", "0.5"))
BOUND_MS = 20.0
WINDOW_S = 10.0
FRAME_SAMPLES = 640
GREY, GREYS = 90, 160
"""Where in its frame a click begins is told by how bright the flash is."""


class FlashGenerator:
    """Black, but for frames in which a click begins after silence."""

    def __init__(self, *, seed, fps):
        chunk = ChunkSpec(fps=fps, frames=1)
        self.spec = GeneratorSpec(name="flash", width=64, height=36, chunk=chunk)
        self._quiet = 0

    def check(self):
        pass

    def prepare(self, portrait, size, progress):
        width, height = size
        self.spec = GeneratorSpec(name="flash", width=width, height=height, chunk=self.spec.chunk)
        return []

    def generate(self, chunk, frames):
        loud = np.flatnonzero(np.abs(chunk.samples) > 0.2)
        has_begun = len(loud) > 0 and self._quiet + loud[0] > 3200
        self._quiet = FRAME_SAMPLES - 1 - loud[-1] if len(loud) else self._quiet + FRAME_SAMPLES
        frames.next_image()[:] = GREY + round(GREYS * loud[0] / FRAME_SAMPLES) if has_begun else 0
        frames.commit(chunk.first_frame)

    def take_notices(self):
        return []

    def reset(self):
        self._quiet = 0

    def close(self):
        pass


class Camera:
    """Notes when each flash is handed over, as the moment that it shows."""

    name, device, label, backend = "camera", "/dev/none", "Camera", "none"
    is_real_time = True  # as the virtual camera is

    def __init__(self):
        self.flashes_s = []
        self._last = 0

    def open(self, canvas):
        pass

    def send(self, frame):
        now_s = time.monotonic()
        grey = float(np.median(frame.image[frame.image.shape[0] // 2, :, 1]))
        if grey > GREY / 2 and frame.frame != self._last:
            self._last = frame.frame
            self.flashes_s.append(now_s + (grey - GREY) / GREYS * FRAME_SAMPLES / 16_000)

    def close(self):
        pass


class Listener(threading.Thread):
    """Notes when each click begins at a source."""

    def __init__(self, source):
        super().__init__(daemon=True)
        self.clicks_s, self.stopping = [], threading.Event()
        self._recording = PulseRecording(source, RATE_HZ)

    def run(self):
        quiet_s = 1.0
        while not self.stopping.is_set():
            samples, at_s = self._recording.read()
            loud = np.flatnonzero(np.abs(samples[:, 0]) > 0.2)
            if len(loud) and quiet_s > 0.2:
                self.clicks_s.append(at_s + loud[0] / RATE_HZ)
            quiet_s = 0.0 if len(loud) else quiet_s + len(samples) / RATE_HZ
        self._recording.close()


@pytest.fixture
def clicks(tmp_path):
    """Raw float32 mono: a click of 5 ms every 0.6 to 0.9 s, unevenly, so that none is taken for another."""
    sound = np.zeros(int((SECONDS + 2) * RATE_HZ), np.float32)
    rng, at = np.random.default_rng(0), RATE_HZ
    click = (0.5 * np.sign(np.sin(2 * np.pi * 1000 * (np.arange(240) + 0.5) / RATE_HZ))).astype(np.float32)
    while at + 240 < len(sound):
        sound[at : at + 240] = click
        at += int(rng.uniform(0.6, 0.9) * RATE_HZ)
    path = tmp_path / "clicks.f32"
    sound.tofile(path)
    return path


@pytest.fixture
def camera(monkeypatch, tmp_path):
    """In the virtual camera's place; "flash" is the generator."""
    made = Camera()
    monkeypatch.setattr(virtual_camera, "open_camera", lambda settings: made)
    monkeypatch.setitem(sys.modules, "flash_generator", SimpleNamespace(FlashGenerator=FlashGenerator))
    monkeypatch.setattr(factory, "_GENERATORS", {"flash": "flash_generator:FlashGenerator"})
    monkeypatch.setattr(pace_memory, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return made


@pytest.mark.timeout(3 * SECONDS + 240)
def test_flash_and_click_arrive_together(sound_server, clicks, camera, fixture_module):
    settings = SessionSettings(
        portrait="sample:",
        generator=GeneratorSettings(name="flash"),
        source=MicrophoneSource(name="fakemic"),
        voice_out=VoiceOutSettings(name="standin:virtual"),
        sound=SoundSettings(gate=GateSettings(mode="off")),
        camera=CameraSettings(),
        canvas=CanvasSettings(width=640, height=360, fill="crop"),
        adaptive=False,
    )

    def measure(spare) -> tuple[np.ndarray, list[float]]:
        camera.flashes_s.clear()
        live = Broadcast(settings, lambda _event: None)
        live.start()
        try:
            time.sleep(1.0)
            with spare:
                clicks_s = _heard_clicks(clicks)
            stats = live.stats()
        finally:
            live.stop()
        matched, medians = _offsets_ms(clicks_s, np.array(camera.flashes_s))
        _tell(matched, medians, stats)
        return matched, medians

    fixture_module("spare_time").judge_when_free(measure, _judge)


def _heard_clicks(clicks) -> list[float]:
    """When each click began in the virtual microphone; all are played."""
    heard = Listener("standin_microphone")
    heard.start()
    play = ["pacat", "--raw", "-d", "mic_feed", "--format=float32le", f"--rate={RATE_HZ}", "--channels=1"]
    with subprocess.Popen([*play, "--latency-msec=20", str(clicks)]) as player:
        player.wait(SECONDS + 60)
    time.sleep(1.0)
    heard.stopping.set()
    heard.join(5)
    return heard.clicks_s


def _offsets_ms(clicks_s: list[float], flashes_s: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """How much later than the clicks their flashes came, and the medians of successive windows."""
    offsets = np.array([(at_s, 1000 * float(flashes_s[np.abs(flashes_s - at_s).argmin()] - at_s)) for at_s in clicks_s])
    matched = offsets[np.abs(offsets[:, 1]) < 300]
    windows = ((matched[:, 0] - matched[0, 0]) // WINDOW_S).astype(int)
    medians = [float(np.median(matched[windows == w, 1])) for w in range(windows.max() + 1) if (windows == w).sum() > 3]
    return matched[:, 1], medians


def _tell(matched: np.ndarray, medians: list[float], stats: Stats) -> None:
    print(
        f"\n{len(matched)} clicks in {SECONDS:.0f} s: median {np.median(matched):+.1f} ms, "
        f"5 to 95 % {np.percentile(matched, 5):+.1f} to {np.percentile(matched, 95):+.1f} ms; "
        f"medians of {WINDOW_S:.0f} s {min(medians):+.1f} to {max(medians):+.1f} ms "
        f"({', '.join(f'{median:+.0f}' for median in medians[:6])} ...); "
        f"held {stats.held}, dropped {stats.dropped}, late {stats.late} of {stats.ticks} frames; "
        f"load {os.getloadavg()[0]:.1f}"
    )


def _judge(measured: tuple[np.ndarray, list[float]]) -> None:
    matched, medians = measured
    played = int(SECONDS / 0.75)
    assert len(matched) > 0.7 * played, "most clicks were both seen and heard"
    assert abs(np.median(matched)) <= BOUND_MS
    assert max(np.abs(medians)) <= BOUND_MS, medians
