"""The puppet judged by its pictures: the opening between the lips in rendered frames against the sound beside them."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from engine.assets import asset_path
from engine.audio.audio_file import AudioFile, to_mono
from engine.audio.gate import NoiseGate
from engine.generators.factory import create_generator
from engine.media import SAMPLE_RATE_HZ
from engine.portrait.load import load_portrait
from engine.settings import GateSettings
from engine.stream.offline import ProgressFunction, chunks_of

FPS = 25


class Watcher:
    """A `FrameWriter` that notes the opening and how much the picture changed."""

    def __init__(self, generator):
        spec = generator.spec
        self._generator = generator
        self._image = np.empty((spec.height, spec.width, 3), np.uint8)
        self._before = None
        self.openings, self.changes = [], []

    def next_image(self):
        return self._image

    def commit(self, frame):
        self.openings.append(self._generator._renderer.mouth_hole_area())
        small = self._image[::4, ::4].astype(np.int16)
        self.changes.append(0.0 if self._before is None else float(np.abs(small - self._before).mean()))
        self._before = small


def _speak(portrait, sound: np.ndarray, size=(384, 384)) -> Watcher:
    generator = create_generator("puppet", seed=3, fps=FPS)
    generator.prepare(portrait, size, ProgressFunction(lambda *_: None))
    watcher = Watcher(generator)
    for chunk in chunks_of(iter([sound]), generator.spec.chunk):
        generator.generate(chunk, watcher)
    generator.close()
    return watcher


def _sound(path) -> np.ndarray:
    file = AudioFile(path)
    return soxr.resample(to_mono(file.read_all()), file.rate_hz, SAMPLE_RATE_HZ).astype(np.float32)


def _envelope(sound: np.ndarray, frames: int) -> np.ndarray:
    """RMS of the 200 to 4000 Hz band per frame, in a compressed scale as loudness is heard (square root)."""
    spectrum = np.fft.rfft(sound)
    hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ)
    spectrum[(hz < 200) | (hz > 4000)] = 0
    band = np.fft.irfft(spectrum, len(sound))
    padded = np.pad(band, (0, max(0, frames * 640 - len(band))))[: frames * 640]
    return np.sqrt(np.sqrt((padded.reshape(frames, 640) ** 2).mean(axis=1)))


def _best(openings: np.ndarray, envelope: np.ndarray) -> tuple[float, int]:
    """(correlation, lag in ms; positive: the mouth is late)."""
    found = []
    for lag in range(-4, 5):
        mouth, sound = (
            (openings[lag:], envelope[: len(envelope) - lag]) if lag >= 0 else (openings[:lag], envelope[-lag:])
        )
        found.append((float(np.corrcoef(mouth, sound)[0, 1]), lag * 40))
    return max(found)


@pytest.mark.parametrize("name", ["maya", "theo", "ingrid"])
def test_sample_portraits_follow_the_sample_speech(name, record_property):
    sound = _sound(asset_path("speech/welcome.flac"))
    watcher = _speak(load_portrait(f"sample:{name}"), sound)
    openings = np.array(watcher.openings)
    likeness, lag_ms = _best(np.sqrt(openings), _envelope(sound, len(openings)))
    record_property("correlation", likeness)
    assert likeness >= 0.75 and abs(lag_ms) <= 60, (likeness, lag_ms)
    assert max(watcher.changes) < 8, "no jumps"


@pytest.mark.parametrize("voice", ["kitchen_grandmother.flac", "dwarven_blacksmith.flac", "sichuan_16k.flac"])
def test_human_voices(shared_data, voice, record_property):
    sound = _sound(shared_data / voice)[: 12 * SAMPLE_RATE_HZ]
    watcher = _speak(load_portrait("sample:maya"), sound, size=(256, 256))
    openings = np.array(watcher.openings)
    likeness, lag_ms = _best(np.sqrt(openings), _envelope(sound, len(openings)))
    record_property("correlation", likeness)
    assert likeness >= 0.75 and abs(lag_ms) <= 60, (likeness, lag_ms)


def test_portraits_of_others_follow_speech(shared_data, astronaut, tmp_path):
    from PIL import Image

    Image.fromarray(astronaut).save(tmp_path / "astronaut.png")
    sound = _sound(asset_path("speech/welcome.flac"))[: 7 * SAMPLE_RATE_HZ]
    for path in (tmp_path / "astronaut.png", *sorted(shared_data.glob("*.jpg"))):
        openings = np.array(_speak(load_portrait(str(path)), sound, size=(256, 256)).openings)
        likeness, lag_ms = _best(np.sqrt(openings), _envelope(sound, len(openings)))
        assert likeness >= 0.75 and abs(lag_ms) <= 60, (path.name, likeness, lag_ms)


def test_mouth_closes_within_160_ms_and_silence_is_calm():
    sound = _sound(asset_path("speech/welcome.flac"))
    stop = 5 * SAMPLE_RATE_HZ
    loud = int(np.abs(sound[stop - 1600 : stop]).argmax()) + stop - 1600
    cut = np.concatenate([sound[:loud], np.zeros(4 * SAMPLE_RATE_HZ, np.float32)])
    watcher = _speak(load_portrait("sample:maya"), cut)
    first_silent = loud // 640 + 1
    assert max(watcher.openings[first_silent + 4 :]) <= 0.001
    assert max(watcher.changes[first_silent + 10 :]) < 4, "blinks and breathing only"
    assert np.median(watcher.changes[first_silent + 10 :]) > 0, "alive"


def test_quiet_microphone_speaks_too():
    sound = _sound(asset_path("speech/welcome.flac"))[: 7 * SAMPLE_RATE_HZ]
    full = np.array(_speak(load_portrait("sample:maya"), sound, size=(256, 256)).openings)
    quiet = np.array(_speak(load_portrait("sample:maya"), sound * 10 ** (-34 / 20), size=(256, 256)).openings)
    assert np.corrcoef(full[50:], quiet[50:])[0, 1] >= 0.85


def test_noise_does_not_speak():
    rng = np.random.default_rng(0)
    white = rng.normal(0, 10 ** (-30 / 20), 5 * SAMPLE_RATE_HZ)
    fan = np.convolve(white, np.ones(24) / 8, mode="same").astype(np.float32)
    openings = _speak(load_portrait("sample:maya"), fan, size=(256, 256)).openings
    assert np.mean(openings) < 0.005


@pytest.mark.parametrize("noise_dbfs", [None, -50])
def test_noise_gate_in_front_takes_nothing_away(noise_dbfs, record_property):
    """The puppet has a gate of its own: two of them must not shut each other, nor open for the room."""
    sound = _sound(asset_path("speech/welcome.flac"))
    noise = 0.0 if noise_dbfs is None else 10 ** (noise_dbfs / 20) * np.random.default_rng(0).normal(size=len(sound))
    heard, gate = (sound + noise).astype(np.float32), NoiseGate(GateSettings(), SAMPLE_RATE_HZ)
    gated = []
    for start in range(0, len(heard), 160):
        redo, out = gate.push(heard[start : start + 160])
        gated.append(out[redo:])  # the puppet takes each frame at once, so it never hears what is replaced
    watcher = _speak(load_portrait("sample:maya"), np.concatenate(gated), size=(256, 256))
    openings = np.array(watcher.openings)
    likeness, lag_ms = _best(np.sqrt(openings), _envelope(sound, len(openings)))
    record_property("correlation", likeness)
    assert likeness >= 0.85 and abs(lag_ms) <= 60, (likeness, lag_ms)
