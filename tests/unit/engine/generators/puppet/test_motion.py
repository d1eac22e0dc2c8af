"""Blinks, glances, sway and nods: natural rates, smooth curves, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from engine.generators.puppet.expression import EXPRESSION_FIELDS, Expression
from engine.generators.puppet.motion import Blinks, Motion

MINUTES = 5
MOUTH = ("jaw", "wide", "round", "press", "close", "tuck")


def moved(seed: int, frames: int, *, fps: int = 25, speaks: bool = False, amount: float = 1.0) -> dict[str, np.ndarray]:
    """Values of every field over time; speech is syllables of 4 Hz in phrases of 2 s with pauses of 1 s."""
    motion, expression = Motion(seed=seed, fps=fps, amount=amount), Expression()
    rows = []
    for frame in range(frames):
        time_s = frame / fps
        is_speaking = speaks and time_s % 3.0 < 2.0
        motion.advance(expression, 0.55 + 0.45 * np.sin(8 * np.pi * time_s) if is_speaking else 0.0, is_speaking)
        rows.append(expression.as_tuple())
    return dict(zip(EXPRESSION_FIELDS, np.array(rows).T, strict=True))


def blinks_in(lids: np.ndarray) -> list[np.ndarray]:
    """The lids' values of every single blink."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (lids > 0).astype(int), [0]])))
    return [lids[a:b] for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("speaks", [False, True])
@pytest.mark.parametrize("fps", [25, 30])
def test_blinks_are_as_frequent_and_as_long_as_a_persons(seed, speaks, fps):
    found = blinks_in(moved(seed, MINUTES * 60 * fps, fps=fps, speaks=speaks)["blink"])
    assert 8 <= len(found) / MINUTES <= 25
    for lids in found:
        assert 0.12 <= len(lids) / fps <= 0.3
        assert lids.max() > 0.9


def test_lids_close_faster_than_they_open():
    times = np.arange(0.0, 0.3, 0.001)
    lids = np.array([Blinks.lid(t) for t in times])
    assert lids[0] == 0.0
    assert lids.max() == 1.0
    assert lids[-1] == 0.0
    assert np.argmax(lids == 1.0) < len(lids) - np.argmax(lids[::-1] > 0) - np.argmax(lids == 1.0)


def test_blinks_come_at_irregular_times():
    lids = moved(4, MINUTES * 60 * 25)["blink"]
    starts = np.flatnonzero((lids[1:] > 0) & (lids[:-1] == 0)) / 25
    assert np.std(np.diff(starts)) > 0.6


@pytest.mark.parametrize("speaks", [False, True])
def test_head_moves_smoothly_and_little(speaks):
    curves = moved(3, 60 * 25, speaks=speaks)
    reach = {"tx": 0.06, "ty": 0.06, "roll": 0.05, "yaw": 0.16, "pitch": 0.14, "zoom": 0.01, "breath": 0.03}
    for name, most in reach.items():
        assert np.abs(curves[name]).max() <= most, name
        assert np.abs(np.diff(curves[name])).max() <= 0.1 * most, name
        assert np.abs(np.diff(curves[name], 2)).max() <= 0.06 * most, name
    assert np.abs(np.diff(curves["brow"])).max() <= 0.2


def test_silence_is_alive_but_does_not_talk():
    curves = moved(0, 60 * 25)
    assert all(not curves[name].any() for name in MOUTH)
    for name in ("tx", "yaw", "breath", "gaze_x"):
        for start in range(50, 1500 - 250, 250):
            assert np.ptp(curves[name][start : start + 250]) > 0, name
    assert np.abs(curves["brow"]).max() <= 0.12


def test_speech_moves_more_than_silence():
    quiet, loud = moved(0, 60 * 25), moved(0, 60 * 25, speaks=True)
    for name in ("tx", "yaw", "pitch", "brow"):
        assert np.std(loud[name]) > 1.1 * np.std(quiet[name]), name


def test_starts_from_the_portrait_and_returns_there_on_reset():
    first = {name: values[0] for name, values in moved(5, 1).items()}
    assert max(abs(first[name]) for name in ("tx", "ty", "roll", "yaw", "pitch", "zoom", "breath", "blink")) == 0
    motion, expression = Motion(seed=5), Expression()
    seen = []
    for _ in range(2):
        motion.reset()
        for frame in range(200):
            motion.advance(expression, 0.5, frame % 50 < 30)
        seen.append(expression.as_tuple())
    assert seen[0] == seen[1]


def test_seed_decides():
    one, same, other = moved(1, 500, speaks=True), moved(1, 500, speaks=True), moved(2, 500, speaks=True)
    assert all(np.array_equal(one[name], same[name]) for name in EXPRESSION_FIELDS)
    assert not np.array_equal(one["yaw"], other["yaw"])
    assert not np.array_equal(one["blink"], other["blink"])


def test_amount_zero_keeps_the_head_still_but_blinks():
    curves = moved(1, 60 * 25, speaks=True, amount=0.0)
    assert not any(curves[name].any() for name in ("tx", "ty", "roll", "yaw", "pitch", "zoom", "breath"))
    assert curves["blink"].max() == 1.0


def test_mouth_is_left_alone():
    motion, expression = Motion(seed=0), Expression(jaw=0.4, wide=0.1, round=0.2, press=0.3, close=0.5, tuck=0.6)
    motion.advance(expression, 1.0, True)
    assert [getattr(expression, name) for name in MOUTH] == [0.4, 0.1, 0.2, 0.3, 0.5, 0.6]
