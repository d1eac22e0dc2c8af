"""The whole product: a voice goes into one end of ALSA's loopback card, ffmpeg watches the camera, the delayed voice
comes out of the card. Delay and lip sync are measured from outside, with nothing of the product's own clocks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from consumers import FfmpegReader, wait_for_pictures

CAMERA = "/dev/video0"
CARD = "Loopback: PCM (hw:0,0)"
MICROPHONE, SPEAKER = "card_microphone", "card_speaker"
"""The product's end of the card, see asound.conf."""
RATE_HZ = 44100
FPS = 25
LEAD_S, SPOKEN_S = 2.0, 16.0
WIDTH, HEIGHT, CELL = 640, 360, 8
GRID_S = 0.01
SPEECH = Path(__file__).parents[1] / "data" / "speech" / "english.flac"

pytestmark = pytest.mark.timeout(600)


def spoken_words() -> np.ndarray:
    """Float32 mono: silence, then pieces of speech of uneven length with uneven pauses, so that only one delay fits."""
    import soundfile
    import soxr

    speech, rate_hz = soundfile.read(SPEECH, dtype="float32", always_2d=True)
    speech = soxr.resample(speech[:, 0], rate_hz, RATE_HZ)
    speech = np.tile(speech, int(np.ceil(SPOKEN_S * RATE_HZ / len(speech))) + 1)
    sound = np.zeros(int((LEAD_S + SPOKEN_S) * RATE_HZ), np.float32)
    rng = np.random.default_rng(5)
    at = int(LEAD_S * RATE_HZ)
    while at < len(sound):
        length = int(rng.uniform(0.4, 1.1) * RATE_HZ)
        piece = sound[at : at + length]
        piece[:] = speech[at : at + len(piece)]
        at += length + int(rng.uniform(0.5, 1.0) * RATE_HZ)
    return sound * (0.5 / np.abs(sound).max())


class Card:
    """Our end of the loopback card: speaks `sound` into the product's microphone and records its voice."""

    def __init__(self, sound: np.ndarray) -> None:
        import sounddevice

        self._sound, self._at = np.round(sound * 32767).astype(np.int16), 0
        self._played: list[tuple[float, int]] = []
        self._heard: list[tuple[float, np.ndarray]] = []
        self.has_ended = threading.Event()
        self._stream = sounddevice.Stream(
            device=(CARD, CARD), samplerate=RATE_HZ, channels=(2, 2), dtype="int16",
            blocksize=882, latency=0.2, callback=self._callback,
        )  # fmt: skip
        self._stream.start()

    def _callback(self, heard, played, frames, times, _status) -> None:
        ahead_s = time.monotonic() - times.currentTime  # PortAudio's clock need not be Python's
        self._played.append((times.outputBufferDacTime + ahead_s, self._at))
        self._heard.append((times.inputBufferAdcTime + ahead_s, heard[:, 0] / np.float32(32768)))
        piece = self._sound[self._at : self._at + frames]
        played[: len(piece)] = piece[:, None]
        played[len(piece) :] = 0
        self._at += frames
        if self._at > len(self._sound) + RATE_HZ:
            self.has_ended.set()

    def stop(self) -> None:
        self._stream.close()

    def result(self) -> tuple[float, float, np.ndarray]:
        """(monotonic time of the first sample played, of the first recorded, the recording)."""
        starts = [at_s - position / RATE_HZ for at_s, position in self._played]
        recording = np.concatenate([block for _, block in self._heard])
        positions = np.cumsum([0] + [len(block) for _, block in self._heard[:-1]])
        heard = [at_s - position / RATE_HZ for (at_s, _), position in zip(self._heard, positions, strict=True)]
        return float(np.median(starts)), float(np.median(heard)), recording


class Viewer(threading.Thread):
    """ffmpeg on the camera: the mean luma of every cell of every picture, with its time of arrival."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.cells: list[np.ndarray] = []
        self.times_s: list[float] = []
        self._reader = FfmpegReader(CAMERA, WIDTH, HEIGHT)
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.is_set():
            try:
                luma = self._reader.picture()[:HEIGHT]
            except AssertionError:  # no more pictures: what there is must do
                return
            self.times_s.append(time.monotonic())
            cells = luma.reshape(HEIGHT // CELL, CELL, WIDTH // CELL, CELL).mean(axis=(1, 3))
            self.cells.append(cells.astype(np.float32))

    def stop(self) -> None:
        self._is_over.set()
        self._reader.kill()
        self.join(10)
        self._reader.close()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.times_s), np.stack(self.cells)


def loudness(sound: np.ndarray, first_s: float, grid_s: np.ndarray) -> np.ndarray:
    """Mean power in 40 ms around each moment of the grid, as a decibel-like number from 0 on."""
    width = int(0.04 * RATE_HZ)
    power = np.convolve(sound.astype(np.float64) ** 2, np.ones(width) / width, "same")
    level = np.log10(1 + power * 1e5)
    return np.interp(grid_s, first_s + np.arange(len(sound)) / RATE_HZ, level, left=0.0, right=0.0)


def lag_of(later: np.ndarray, earlier: np.ndarray, longest_s: float) -> tuple[float, float]:
    """(delay in seconds at which `later` fits `earlier` best, correlation there), both on the grid."""
    best = (0.0, -1.0)
    for steps in range(int(longest_s / GRID_S)):
        fit = np.corrcoef(later[steps:], earlier[: len(earlier) - steps])[0, 1]
        if fit > best[1]:
            best = (steps * GRID_S, float(fit))
    return best


def mouth_of(times_s: np.ndarray, cells: np.ndarray, spoken: np.ndarray, grid_s: np.ndarray) -> tuple[float, float]:
    """(delay, correlation) of the cell that moves most like the voice: how far it is from how it rests in silence."""
    resting = np.median(cells[times_s < grid_s[0] + LEAD_S - 0.3], axis=0)
    away = np.abs(cells - resting).reshape(len(cells), -1)
    likely = np.argsort(away.std(axis=0))[-40:]
    found = [lag_of(np.interp(grid_s, times_s, away[:, cell]), spoken, 1.2) for cell in likely]
    return max(found, key=lambda lag: lag[1])


def test_a_voice_becomes_a_talking_picture_in_sync(figure, host_time, only_with, tmp_path):
    only_with("0.12")
    host = host_time()
    measured = measure(tmp_path)
    wrong = faults_of(measured, host.was_free())
    figure("picture behind voice, ms (fit)", [round(measured["picture_s"] * 1000), round(measured["picture_fit"], 2)])
    figure("sound behind voice, ms (fit)", [round(measured["voice_s"] * 1000), round(measured["voice_fit"], 2)])
    figure("pictures a second; longest gap, ms", [round(measured["fps"], 2), round(measured["gap_s"] * 1000)])
    figure("what the product says itself", measured["own"])
    assert not wrong, measured


def measure(folder: Path) -> dict:
    """One session of `standin live` with a voice at its microphone, seen and heard from outside."""
    stats_path = folder / "stats.json"
    places = {"HOME": str(folder), "ALSA_CONFIG_PATH": str(Path(__file__).with_name("asound.conf"))}
    live = subprocess.Popen(
        [
            sys.executable, "-m", "engine", "live", "--portrait", "sample:", "--mic", MICROPHONE, "--voice-out",
            SPEAKER, "--camera", CAMERA, "--canvas", f"{WIDTH}x{HEIGHT}", "--stats", str(stats_path), "--json",
        ],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], env={**os.environ, **places},
    )  # fmt: skip
    events: list[dict] = []
    is_live = threading.Event()
    threading.Thread(target=follow, args=(live.stdout, events, is_live), daemon=True).start()
    with contextlib.ExitStack() as ends:
        ends.callback(end, live)
        assert is_live.wait(120), events[-5:]
        wait_for_pictures(CAMERA)
        viewer = Viewer()
        ends.callback(viewer.stop)
        viewer.start()
        time.sleep(1.0)
        sound = spoken_words()
        card = Card(sound)
        ends.callback(card.stop)
        assert card.has_ended.wait(len(sound) / RATE_HZ + 100)
    spoken_s, heard_s, heard = card.result()
    times_s, cells = viewer.result()
    stats = json.loads(stats_path.read_text())
    grid_s = spoken_s + np.arange(0, len(sound) / RATE_HZ + 1, GRID_S)
    spoken = loudness(sound, spoken_s, grid_s)
    picture_s, picture_fit = mouth_of(times_s, cells, spoken, grid_s)
    voice_s, voice_fit = lag_of(loudness(heard, heard_s, grid_s), spoken, 1.2)
    gaps_s = np.diff(times_s)
    own = {name: stats[name] for name in ("latency_ms", "delay_ms", "av_offset_ms", "held", "dropped", "late", "ticks")}
    return {
        "picture_s": picture_s, "picture_fit": picture_fit, "voice_s": voice_s, "voice_fit": voice_fit,
        "fps": float(len(gaps_s) / gaps_s.sum()), "gap_s": float(gaps_s.max()), "own": own,
        "errors": [event for event in events if event.get("is_error")],
    }  # fmt: skip


def faults_of(measured: dict, was_free: bool) -> list[str]:
    """What of it must not be; how often pictures came and how well they fit counts where the computer had the time."""
    rules = {
        "the session told of an error": not measured["errors"],
        "no part of the picture moves with the voice": measured["picture_fit"] > (0.5 if was_free else 0.3),
        "the voice that comes out is not the voice that went in": measured["voice_fit"] > (0.7 if was_free else 0.4),
        "the picture comes at no sensible time": 0 < measured["picture_s"] < 0.8,
        "picture and voice are apart": abs(measured["picture_s"] - measured["voice_s"]) < 0.12,
        "not 25 pictures a second": not was_free or measured["fps"] == pytest.approx(FPS, rel=0.06),
    }
    return [what for what, holds in rules.items() if not holds]


def end(live: subprocess.Popen) -> None:
    live.terminate()
    try:
        live.wait(60)
    finally:
        live.kill()
        live.stdout.close()


def follow(lines, events: list[dict], is_live: threading.Event) -> None:
    for line in lines:
        event = json.loads(line)
        events.append(event)
        if event.get("state") == "live":
            is_live.set()
