"""Voices for the puppet's tests: recorded by a speech synthesizer with known phonemes, or made from formants."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import lfilter

SPEECH = Path(__file__).parents[4] / "data" / "speech"
RATE_HZ = 16_000


@dataclass(frozen=True)
class Speech:
    """`samples` float32 at 16 kHz; `phonemes` as (start in s, end in s, the synthesizer's name)."""

    samples: np.ndarray
    phonemes: list[tuple[float, float, str]]


@pytest.fixture(scope="session")
def speech() -> Callable[[str], Speech]:
    """Reads one of the clips in tests/data/speech."""
    index = json.loads((SPEECH / "phonemes.json").read_text("utf-8"))

    def read(name: str) -> Speech:
        samples, rate_hz = soundfile.read(SPEECH / f"{name}.flac", dtype="float32")
        assert rate_hz == RATE_HZ
        events = index[name]["phonemes"]
        spans = [(a / 1000, b / 1000, n) for (a, n), (b, _) in pairwise(events) if b > a]
        return Speech(samples, spans)

    return read


@pytest.fixture(scope="session")
def vowel() -> Callable[..., np.ndarray]:
    """A sung vowel from glottal pulses through resonators (Klatt's cascade), float32 at 16 kHz."""

    def make(f1_hz: float, f2_hz: float, seconds: float, *, pitch_hz: float = 120.0, level: float = 0.1) -> np.ndarray:
        count = int(seconds * RATE_HZ)
        phase = np.cumsum(pitch_hz * (1 + 0.02 * np.sin(np.arange(count) * 2 * np.pi * 5 / RATE_HZ)) / RATE_HZ)
        pulses = np.diff(np.floor(phase), prepend=0.0)
        sound = lfilter([1.0], [1.0, -0.97], pulses)
        for frequency_hz, width_hz in ((f1_hz, 70.0), (f2_hz, 100.0), (2600.0, 150.0), (3500.0, 200.0)):
            radius = np.exp(-np.pi * width_hz / RATE_HZ)
            angle = 2 * np.pi * frequency_hz / RATE_HZ
            poles = [1.0, -2 * radius * np.cos(angle), radius**2]
            sound = lfilter([sum(poles)], poles, sound)
        sound = np.diff(sound, prepend=0.0)
        return (sound * (level / np.sqrt(np.mean(sound**2)))).astype(np.float32)

    return make
