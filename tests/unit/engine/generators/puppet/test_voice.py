"""The voice analyser against speech with known phonemes, synthetic vowels and noises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from engine.generators.puppet.mouth_shapes import Mouth
from engine.generators.puppet.voice import LOOKAHEAD_SAMPLES, VoiceAnalyser

RATE_HZ, FRAME = 16_000, 640
A = (750.0, 1250.0)
VOWELS = {"a": A, "i": (280.0, 2250.0), "u": (310.0, 780.0)}
"""First two formants, Hz."""


def mouths_of(samples: np.ndarray, block: int = FRAME, fps: int = 25, **options: float) -> list[Mouth]:
    """Every frame that begins in `samples`; silence follows it."""
    analyser = VoiceAnalyser(fps=fps, **options)
    padded = np.concatenate([samples, np.zeros(RATE_HZ // fps + LOOKAHEAD_SAMPLES, np.float32)]).astype(np.float32)
    found = []
    for start in range(0, len(padded), block):
        analyser.push(padded[start : start + block])
        while (mouth := analyser.take()) is not None:
            found.append(mouth)
    return found[: len(samples) * fps // RATE_HZ]


def jaws_of(samples: np.ndarray, **options: float) -> np.ndarray:
    return np.array([mouth.jaw for mouth in mouths_of(samples, **options)])


def envelope(samples: np.ndarray, frames: int, lag_samples: int = 0) -> np.ndarray:
    """RMS between 200 and 4000 Hz in every frame, shifted: the independent measure of how much is said."""
    band = sosfiltfilt(butter(4, [200, 4000], "bandpass", fs=RATE_HZ, output="sos"), samples)
    padded = np.concatenate([np.zeros(3200), band, np.zeros(3200 + FRAME)])
    start = 3200 - lag_samples
    return np.sqrt((padded[start : start + frames * FRAME].reshape(frames, FRAME) ** 2).mean(axis=1))


def noise(kind: str, seconds: float, level_db: float) -> np.ndarray:
    count = int(seconds * RATE_HZ)
    time_s = np.arange(count) / RATE_HZ
    if kind == "hum":
        sound = sum(np.sin(2 * np.pi * 50 * k * time_s) / k for k in (1, 2, 3, 5))
    elif kind == "chord":
        sound = sum(np.sin(2 * np.pi * f * k * time_s + k) / k for f in (261.6, 329.6, 392.0) for k in range(1, 7))
    else:
        spectrum = np.fft.rfft(np.random.default_rng(3).standard_normal(count))
        slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
        frequency = np.maximum(np.fft.rfftfreq(count, 1 / RATE_HZ), 20.0)
        sound = np.fft.irfft(spectrum / frequency**slope, count)
    return (sound / np.std(sound) * 10 ** (level_db / 20)).astype(np.float32)


@pytest.mark.parametrize("name", ["english", "german", "spanish"])
def test_mouth_follows_the_envelope(speech, name):
    clip = speech(name)
    jaws = jaws_of(clip.samples)
    lags_ms = range(-150, 151, 10)
    scores = [np.corrcoef(jaws, envelope(clip.samples, len(jaws), lag * 16))[0, 1] for lag in lags_ms]
    best = int(np.argmax(scores))
    assert scores[best] >= 0.78
    assert abs(lags_ms[best]) <= 20


def test_lips_close_for_p_b_and_m(speech):
    clip = speech("lips")
    mouths = mouths_of(clip.samples)
    lowest = []
    for start_s, end_s, name in clip.phonemes:
        if name[0] in "pbm":
            frames = range(max(0, round(start_s * 25 - 0.9)), min(len(mouths), round(end_s * 25 + 0.4) + 1))
            lowest.append(min(mouths[f].jaw for f in frames))
    assert len(lowest) >= 8
    assert np.mean(np.array(lowest) < 0.12) >= 0.9
    assert max(mouth.jaw for mouth in mouths) > 0.5


def test_spanish_b_between_vowels_reads_as_closed(speech):
    clip = speech("spanish_b")
    jaws = jaws_of(clip.samples)
    spans = [(a, b) for a, b, name in clip.phonemes if name == "B"]
    lowest = [jaws[max(0, round(a * 25 - 0.9)) : round(b * 25 + 0.4) + 1].min() for a, b in spans]
    assert len(spans) >= 3
    assert np.mean(np.array(lowest) < 0.12) >= 0.75


def lowest_between_vowels(clip, jaws: np.ndarray, names: str) -> list[float]:
    """How far the mouth closes at each of the consonants `names` with a vowel on both sides."""
    lowest = []
    for (_, _, before), (start_s, end_s, name), (_, _, after) in zip(
        clip.phonemes, clip.phonemes[1:], clip.phonemes[2:], strict=False
    ):
        if name in names and before[0] in "aeiou" and after[0] in "aeiou":
            lowest.append(jaws[max(0, round(start_s * 25 - 0.9)) : round(end_s * 25 + 0.4) + 1].min())
    return lowest


def test_lips_close_for_b_between_vowels_and_stay_parted_for_n(speech):
    clip = speech("spanish_lips")
    jaws = jaws_of(clip.samples)
    lips, tongue = lowest_between_vowels(clip, jaws, "bB"), lowest_between_vowels(clip, jaws, "n")
    assert len(lips) >= 5 and len(tongue) >= 8
    assert np.mean(np.array(lips) < 0.12) >= 0.75
    assert np.median(lips) < np.median(tongue) - 0.05


def test_vowels_differ_in_width_and_opening(vowel):
    gap = np.zeros(RATE_HZ // 2, np.float32)
    seen = {}
    for name, formants in VOWELS.items():
        mouths = mouths_of(np.concatenate([gap, vowel(*A, 0.3), gap, vowel(*formants, 0.5), gap]))
        middle = [m for m in mouths if 1.45 <= m.frame / 25 <= 1.7]
        seen[name] = np.mean([m.jaw for m in middle]), np.mean([m.width for m in middle])
    assert seen["i"][1] - seen["u"][1] >= 0.8
    assert seen["i"][1] > seen["a"][1] + 0.3
    assert seen["u"][1] < -0.4
    assert seen["a"][0] - seen["i"][0] >= 0.25


@pytest.mark.parametrize("pitch_hz", [90.0, 120.0, 220.0])
def test_stop_and_murmur_between_vowels_close(vowel, pitch_hz):
    gap, a = np.zeros(RATE_HZ // 2, np.float32), vowel(*A, 0.3, pitch_hz=pitch_hz)
    time_s = np.arange(int(0.09 * RATE_HZ)) / RATE_HZ
    murmur = (0.02 * np.sin(2 * np.pi * pitch_hz * time_s) + 0.015 * np.sin(4 * np.pi * pitch_hz * time_s)).astype(
        np.float32
    )
    for consonant in (np.zeros(int(0.08 * RATE_HZ), np.float32), murmur):
        jaws = jaws_of(np.concatenate([gap, a, consonant, a, gap]))
        closed = jaws[round(0.8 * 25) - 1 : round(0.89 * 25) + 2]
        assert closed.min() < 0.12
        assert jaws[14:19].max() > 0.45
        assert jaws[24:28].max() > 0.45


def test_closed_soon_after_speech_ends(vowel, speech):
    gap = np.zeros(RATE_HZ // 2, np.float32)
    jaws = jaws_of(np.concatenate([gap, vowel(*A, 0.5), gap]))
    assert jaws[20:24].min() > 0.3
    assert not jaws[25 + 4 :].any()
    assert not jaws[: 12 - 2].any()
    clip = speech("english")
    loud = np.flatnonzero(np.abs(clip.samples) > 0.01 * np.abs(clip.samples).max())
    assert not jaws_of(clip.samples)[int(loud[-1] / FRAME + 1 + 4) :].any()


def test_digital_silence_is_exactly_closed():
    for mouth in mouths_of(np.zeros(RATE_HZ * 3, np.float32)):
        assert (mouth.jaw, mouth.tuck, mouth.loudness, mouth.is_speaking) == (0.0, 0.0, 0.0, False)


@pytest.mark.parametrize(
    ("kind", "level_db"),
    [("white", -26), ("white", -46), ("pink", -30), ("brown", -30), ("hum", -20), ("chord", -26)],
)
def test_steady_noise_from_the_start_does_not_move_the_mouth(kind, level_db):
    jaws = jaws_of(noise(kind, 6.0, level_db))
    assert jaws[:50].mean() < 0.02
    assert jaws[100:].mean() < 0.01


def test_a_fan_that_starts_later_is_learned():
    sound = noise("pink", 9.0, -30)
    sound[: 2 * RATE_HZ] *= 0.01
    assert jaws_of(sound)[150:].mean() < 0.01


@pytest.mark.parametrize("room", [None, "pink", "white"])
def test_speech_that_begins_at_once_is_shown(speech, room):
    samples = speech("english").samples[int(0.4 * RATE_HZ) :].copy()
    if room:
        samples += noise(room, len(samples) / RATE_HZ, -45)
    assert jaws_of(samples)[:12].max() > 0.3


def test_voiced_speech_without_a_pause_opens_the_mouth_from_the_start(vowel):
    syllables = [vowel(*VOWELS[name], 0.09) for name in "auiauiauiaui"]
    jaws = jaws_of(np.concatenate(syllables))
    assert jaws[5:15].max() > 0.2


@pytest.mark.parametrize(("gain_db", "bar"), [(-20, 0.95), (-34, 0.88), (12, 0.9)])
def test_quiet_and_loud_microphones_move_the_mouth_alike(speech, gain_db, bar):
    samples = speech("german").samples
    scaled = np.clip(samples * np.float32(10 ** (gain_db / 20)), -1, 1)
    normal, other = jaws_of(samples), jaws_of(scaled)
    assert np.corrcoef(normal, other)[0, 1] >= bar
    assert other[:50].mean() > 0.7 * normal[:50].mean()


@pytest.mark.parametrize(("snr_db", "bar"), [(20, 0.97), (10, 0.88)])
def test_noise_under_speech_changes_little(speech, snr_db, bar):
    samples = speech("english").samples
    level_db = 20 * np.log10(np.std(samples)) - snr_db
    noisy = samples + noise("pink", len(samples) / RATE_HZ + 1, level_db)[: len(samples)]
    assert np.corrcoef(jaws_of(samples), jaws_of(noisy))[0, 1] >= bar


@pytest.mark.parametrize("fps", [25, 30])
@pytest.mark.parametrize("block", [7, 160, 1000, 1_000_000])
def test_result_does_not_depend_on_block_sizes(speech, block, fps):
    samples = speech("spanish").samples[: 2 * RATE_HZ]
    assert mouths_of(samples, block, fps) == mouths_of(samples, RATE_HZ // fps, fps)


def test_frame_comes_with_its_sound_and_lookahead_and_not_before():
    analyser = VoiceAnalyser()
    analyser.push(np.zeros(FRAME + LOOKAHEAD_SAMPLES - 1, np.float32))
    assert analyser.take() is None
    analyser.push(np.zeros(1, np.float32))
    assert analyser.take().frame == 0
    assert analyser.take() is None


def test_restart_continues_the_count_and_reset_forgets_everything(speech):
    samples = speech("german").samples[: 2 * RATE_HZ]
    analyser = VoiceAnalyser(fps=30)
    analyser.push(samples)
    first = [analyser.take() for _ in range(40)]
    analyser.restart(1000)
    analyser.push(samples)
    assert analyser.take().frame == 1000
    analyser.reset()
    analyser.push(samples)
    assert [analyser.take() for _ in range(40)] == first


def test_bad_samples_do_no_harm(speech):
    samples = speech("english").samples[: 2 * RATE_HZ].copy()
    samples[8000:8100] = np.nan
    samples[9000:9010] = np.inf
    samples[20000:22000] *= 50
    mouths = mouths_of(samples)
    assert all(np.isfinite([m.jaw, m.width, m.closure, m.level_db, m.loudness]).all() for m in mouths)
    assert all(0 <= m.jaw <= 1 and -1 <= m.width <= 1 and 0 <= m.closure <= 1 for m in mouths)


def test_pushed_samples_are_copied(speech):
    samples = speech("english").samples[:RATE_HZ]
    analyser, block = VoiceAnalyser(), np.empty(FRAME, np.float32)
    found = []
    for start in range(0, RATE_HZ, FRAME):
        block[:] = samples[start : start + FRAME]
        analyser.push(block)
        block[:] = 1.0
        if (mouth := analyser.take()) is not None:
            found.append(mouth)
    assert found == mouths_of(samples)[: len(found)]


def test_sensitivity_opens_wider(speech):
    samples = speech("german").samples
    assert jaws_of(samples, sensitivity=1.4).mean() > 1.2 * jaws_of(samples).mean()


def test_movement_is_bounded(speech):
    for name in ("english", "german", "spanish", "spanish_lips"):
        jaws = jaws_of(speech(name).samples)
        assert np.abs(np.diff(jaws)).max() <= 0.601
        assert np.abs(np.diff(jaws, 2)).mean() <= 0.35


def test_meter_and_gate_values(vowel):
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    assert mouths_of(tone)[12].level_db == pytest.approx(-9.0, abs=0.5)
    gap = np.zeros(RATE_HZ, np.float32)
    speaking = [m.is_speaking for m in mouths_of(np.concatenate([gap, vowel(*A, 0.6), gap]))]
    assert not any(speaking[:22])
    assert all(speaking[26:40])
    assert not any(speaking[47:])
