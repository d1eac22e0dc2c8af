"""How many steps a chunk gets: what is calm and what is not, and how the choice follows."""

from __future__ import annotations

import numpy as np
import pytest

from engine.generators.flashtalk.effort import StepChooser, StepCounts, restlessness_db

RATE = 16_000
CHUNK = 28 * 640 + 640
TIME_S = np.arange(CHUNK) / RATE


def _noise(level: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(CHUNK) * level


def _syllables(count: int, level: float = 0.1) -> np.ndarray:
    """Bursts of a voice of harmonics on a quiet room, 0.15 s each."""
    sound, length = _noise(1e-4), int(0.15 * RATE)
    voice = sum(np.sin(2 * np.pi * 130 * k * TIME_S[:length]) / k for k in range(1, 30)) * np.hanning(length)
    for start in np.linspace(1000, CHUNK - length - 1000, count).astype(int):
        sound[start : start + length] += level * voice
    return sound


HUM = 0.1 * sum(np.sin(2 * np.pi * 120 * k * TIME_S) / k for k in range(1, 20))
CALM = {
    "silence": np.zeros(CHUNK), "a quiet room": _noise(1e-3), "a loud room": _noise(1e-2), "a fan": _noise(5e-2),
    "a tone": 0.1 * np.sin(2 * np.pi * 220 * TIME_S), "a hum": HUM, "offset": np.full(CHUNK, 0.3),
}  # fmt: skip


@pytest.mark.parametrize("name", CALM)
@pytest.mark.parametrize("frames", [28, 12])
def test_what_is_steady_is_calm(name, frames):
    assert restlessness_db(CALM[name][: (frames + 1) * 640]) < 1.5


@pytest.mark.parametrize("count", [2, 3, 5])
def test_speech_is_not_even_a_little_of_it(count):
    assert restlessness_db(_syllables(count)) > 3.0


@pytest.mark.parametrize(("level", "is_calm"), [(0.3, False), (0.1, False), (0.02, False), (1e-4, True)])
def test_speech_counts_as_long_as_it_is_heard(level, is_calm):
    assert (restlessness_db(_syllables(4, level)) < 1.5) == is_calm


def test_the_floor_is_at_60_db_below_full_scale():
    """A tone whose half falls into the second window, with as much power there as the floor: 3 dB in one band of 7."""
    tone = 2e-3 * np.sin(2 * np.pi * 300 * np.arange(1920) / RATE)
    tone[:1280] = 0
    assert restlessness_db(tone) == pytest.approx(10 * np.log10(2) / 7, rel=0.05)


@pytest.mark.parametrize("length", [0, 1, 640, 1919])
def test_too_little_sound_says_nothing(length):
    assert restlessness_db(np.ones(length)) == 0.0


QUIET, LOUD = np.zeros(CHUNK), _syllables(5)


def _chosen(*sounds: np.ndarray, counts=(4, 3, 2)) -> list[int]:
    chooser = StepChooser(counts)
    return [chooser.choose(sound) for sound in sounds]


def test_speech_gets_full_work_always():
    assert _chosen(*[LOUD] * 6) == [4] * 6


def test_silence_goes_down_level_by_level_after_a_beginning_of_full_work():
    assert _chosen(*[QUIET] * 6) == [4, 4, 3, 2, 2, 2]


def test_speech_is_followed_at_once_and_silence_a_chunk_later():
    assert _chosen(*[QUIET] * 4, LOUD, QUIET, QUIET, QUIET, LOUD) == [4, 4, 3, 2, 4, 4, 3, 2, 4]


def test_a_pause_of_one_chunk_changes_nothing():
    assert _chosen(*[LOUD, LOUD, QUIET] * 3) == [4] * 9


def test_at_a_bound_it_does_not_swing(monkeypatch):
    from engine.generators.flashtalk import effort

    levels = iter([9, 9, 2.9, 2.9, 3.1, 2.9, 3.9, 2.9, 4.1, 2.9, 2.9])
    monkeypatch.setattr(effort, "restlessness_db", lambda _: next(levels))
    assert _chosen(*[QUIET] * 11) == [4, 4, 4, 3, 3, 3, 3, 3, 4, 4, 3]


def test_from_the_cheapest_a_middling_chunk_goes_to_the_middle(monkeypatch):
    from engine.generators.flashtalk import effort

    levels = iter([0, 0, 0, 0, 1.9, 2.1, 0, 0])
    monkeypatch.setattr(effort, "restlessness_db", lambda _: next(levels))
    assert _chosen(*[QUIET] * 8) == [4, 4, 3, 2, 2, 3, 3, 2]


def test_reset_begins_with_full_work_again():
    chooser = StepChooser((4, 3, 2))
    for _ in range(5):
        chooser.choose(QUIET)
    chooser.reset()
    assert [chooser.choose(QUIET) for _ in range(4)] == [4, 4, 3, 2]


def test_two_counts_are_enough():
    assert _chosen(*[QUIET] * 5, LOUD, counts=(3, 2)) == [3, 3, 2, 2, 2, 3]


def test_counts_for_people():
    counts = StepCounts()
    assert str(counts) == "none"
    counts.chunks.update({4: 6, 2: 2})
    assert str(counts) == "75 % in 4, 25 % in 2"
