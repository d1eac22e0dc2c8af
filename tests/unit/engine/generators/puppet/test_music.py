"""Music beside the microphone, from strings (Karplus and Strong, 1983) and pipes: the mouth is not to sing along."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from engine.generators.puppet.voice import LOOKAHEAD_SAMPLES, VoiceAnalyser

RATE_HZ, FRAME = 16_000, 640
NOTES = (52, 59, 64, 55, 67, 62, 57, 71, 69, 60, 65, 50)


def jaws_of(samples: np.ndarray) -> np.ndarray:
    analyser = VoiceAnalyser()
    analyser.push(np.concatenate([samples, np.zeros(LOOKAHEAD_SAMPLES)]).astype(np.float32))
    return np.array([analyser.take().jaw for _ in range(len(samples) // FRAME)])


def plucked(pitch_hz: float, seconds: float) -> np.ndarray:
    period = int(RATE_HZ / pitch_hz - 0.5)
    excitation = np.zeros(int(seconds * RATE_HZ))
    excitation[:period] = np.random.default_rng(period).uniform(-1, 1, period)
    loop = np.zeros(period + 2)
    loop[[0, period, period + 1]] = 1.0, -0.498, -0.498
    return lfilter([1.0], loop, excitation)


def piped(pitch_hz: float, seconds: float) -> np.ndarray:
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    swell = np.clip(np.minimum(time_s / 0.02, (seconds - time_s) / 0.03), 0, 1)
    return swell * sum(np.sin(2 * np.pi * pitch_hz * k * time_s) / k for k in range(1, 7))


def melody(tone, seconds: float, *, every_s: float, length_s: float, level_db: float = -24.0) -> np.ndarray:
    sound = np.zeros(int((seconds + length_s) * RATE_HZ) + 1)
    for i in range(int(seconds / every_s)):
        note = tone(440 * 2 ** ((NOTES[i % len(NOTES)] - 69) / 12), length_s)
        start = int(i * every_s * RATE_HZ)
        sound[start : start + len(note)] += note
    sound = sound[: int(seconds * RATE_HZ)]
    return sound / np.std(sound) * 10 ** (level_db / 20)


@pytest.mark.parametrize(
    ("tone", "every_s", "length_s", "bar"),
    [(plucked, 0.3, 1.2, 0.02), (plucked, 0.7, 2.5, 0.02), (plucked, 0.2, 1.0, 0.08), (piped, 0.5, 0.48, 0.02)],
)
def test_music_does_not_open_the_mouth(tone, every_s, length_s, bar):
    jaws = jaws_of(melody(tone, 10.0, every_s=every_s, length_s=length_s))
    assert jaws[100:].mean() < bar


@pytest.mark.parametrize(("pitch_hz", "gain_db"), [(110.0, 0), (220.0, 0), (150.0, -34)])
def test_a_long_held_vowel_stays_open(vowel, pitch_hz, gain_db):
    gap = np.zeros(RATE_HZ // 2)
    jaws = jaws_of(np.concatenate([gap, vowel(750.0, 1250.0, 3.0, pitch_hz=pitch_hz)]) * 10 ** (gain_db / 20))
    assert jaws[25:85].min() > 0.4


@pytest.mark.parametrize("below_db", [20, 12])
def test_a_voice_before_music_is_seen_at_once(speech, below_db):
    voice = speech("english").samples
    level_db = 20 * np.log10(np.std(voice)) - below_db
    music = melody(plucked, 5.0 + len(voice) / RATE_HZ, every_s=0.3, length_s=1.2, level_db=level_db)
    music[5 * RATE_HZ :][: len(voice)] += voice
    clear, mixed = jaws_of(voice), jaws_of(music)[125:]
    frames = min(len(clear), len(mixed))
    assert np.corrcoef(clear[:frames], mixed[:frames])[0, 1] > 0.85
    assert mixed[:50].mean() > 0.6 * clear[:50].mean()
