"""Push-to-talk by capture time."""

from __future__ import annotations

import numpy as np
import pytest

from engine.audio.talk import TalkKey

ONES = np.ones((1600, 2), np.float32)


def test_without_need_everything_passes():
    assert TalkKey().applied(ONES, 5.0, 16_000) is ONES


def test_what_was_captured_while_held_passes_whenever_it_arrives():
    key = TalkKey(is_needed=True)
    key.press(10.0)
    key.release(10.1)
    assert not key.is_held
    late = key.applied(ONES, 10.0, 16_000)  # arrives after the release
    assert (late[100:] == 1).all() and late[0, 0] == 0 and (np.diff(late[:100, 0]) >= 0).all()
    before = key.applied(ONES, 9.9, 16_000)
    assert not before.any(), "captured before, delivered after the key went down"


def test_last_sound_has_a_moment_and_then_silence_without_a_click():
    key = TalkKey(is_needed=True)
    key.press(0.0)
    key.release(1.0)
    out = np.concatenate([key.applied(ONES, 1.0 + 0.1 * n, 16_000) for n in range(3)])[:, 0]
    end = np.flatnonzero(out)[-1] / 16_000
    assert end == pytest.approx(0.150, abs=0.001) and np.abs(np.diff(out)).max() < 0.02


def test_repeated_presses_and_releases_change_nothing():
    key = TalkKey(is_needed=True)
    key.release(0.0)
    key.press(1.0)
    key.press(2.0)
    assert key.is_held and key.applied(ONES, 1.5, 16_000).all()
    key.release(3.0)
    key.release(9.0)
    assert not key.applied(ONES, 8.9, 16_000).any() and not key.applied(ONES, 3.5, 16_000).any()


def test_two_words_in_one_block():
    key = TalkKey(is_needed=True)
    for start_s in (0.0, 0.5):
        key.press(start_s)
        key.release(start_s + 0.05)
    out = key.applied(np.ones((16_000, 1), np.float32), 0.0, 16_000)[:, 0]
    assert out[1600] == 1 and out[8800] == 1 and not out[4000:7900].any() and not out[12_000:].any()


def test_forgotten_key_lets_no_tail_through():
    key = TalkKey(is_needed=True)
    key.press(0.0)
    key.forget()
    assert not key.is_held and not key.applied(ONES, 0.01, 16_000).any()
