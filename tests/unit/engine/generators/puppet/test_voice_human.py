"""Human voices from the shared folder (never committed), and what the analysis costs."""

from __future__ import annotations

import time

import numpy as np
import pytest
import soundfile
import soxr
from scipy.signal import butter, sosfiltfilt

from engine.generators.puppet.expression import Expression
from engine.generators.puppet.motion import Motion
from engine.generators.puppet.voice import LOOKAHEAD_SAMPLES, VoiceAnalyser

RATE_HZ, FRAME = 16_000, 640


def read(path) -> np.ndarray:
    samples, rate_hz = soundfile.read(path, dtype="float32")
    return soxr.resample(samples, rate_hz, RATE_HZ).astype(np.float32)


def jaws_of(samples: np.ndarray) -> np.ndarray:
    analyser = VoiceAnalyser()
    analyser.push(np.concatenate([samples, np.zeros(LOOKAHEAD_SAMPLES, np.float32)]))
    return np.array([analyser.take().jaw for _ in range(len(samples) // FRAME)])


def envelope(samples: np.ndarray, frames: int) -> np.ndarray:
    band = sosfiltfilt(butter(4, [200, 4000], "bandpass", fs=RATE_HZ, output="sos"), samples)
    return np.sqrt((band[: frames * FRAME].reshape(frames, FRAME) ** 2).mean(axis=1))


@pytest.mark.parametrize(
    ("name", "bar"), [("dwarven_blacksmith", 0.9), ("kitchen_grandmother", 0.88), ("sichuan_16k", 0.77)]
)
def test_mouth_follows_human_speech_and_rests_in_its_pauses(shared_data, name, bar):
    samples = read(shared_data / f"{name}.flac")
    jaws = jaws_of(samples)
    loudness = envelope(samples, len(jaws))
    lags = range(-3, 4)
    scores = [np.corrcoef(np.roll(jaws, -lag)[3:-3], loudness[3:-3])[0, 1] for lag in lags]
    assert max(scores) >= bar
    assert lags[int(np.argmax(scores))] == 0
    silent = loudness < 10 ** (-50 / 20)
    deep = [f for f in range(5, len(jaws) - 1) if silent[f - 4 : f + 2].all()]
    assert len(deep) > 10
    assert not jaws[deep].any()


@pytest.mark.benchmark
def test_cost_of_voice_and_motion(speech):
    samples = speech("english").samples
    analyser, motion, expression = VoiceAnalyser(), Motion(seed=0), Expression()
    costs_ms = []
    for start in range(0, len(samples), FRAME):
        began_s = time.thread_time()
        analyser.push(samples[start : start + FRAME])
        if (mouth := analyser.take()) is not None:
            motion.advance(expression, mouth.loudness, mouth.is_speaking)
        costs_ms.append(1000 * (time.thread_time() - began_s))
    print(f"\nvoice and motion: median {np.median(costs_ms):.2f} ms, p95 {np.percentile(costs_ms, 95):.2f} ms a frame")
    assert len(costs_ms) > 50
