"""The noise gate: exact silence below it, whole words above it, no click on the way."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from engine.audio.gate import HeldBackGate, NoiseGate
from engine.audio.talk import TalkKey
from engine.errors import UsageError
from engine.settings import GateSettings

RATE = 16_000
AT_45 = GateSettings(mode="level", level_dbfs=-45.0)


def _noise(seconds, dbfs, seed=0):
    return (10 ** (dbfs / 20) * np.random.default_rng(seed).normal(size=int(seconds * RATE))).astype(np.float32)


def _tone(seconds, dbfs, hz=300):
    t = np.arange(int(seconds * RATE)) / RATE
    return (10 ** (dbfs / 20) * np.sqrt(2) * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def _through(gate, sound, block=160):
    """(what stands in the end, what a reader gets that takes each block at once)."""
    gate.forget()
    final, at_once = np.zeros(0, np.float32), []
    for start in range(0, len(sound), block):
        piece = sound[start : start + block]
        redo, out = gate.push(piece)
        assert 0 <= redo <= len(final) and len(out) == redo + len(piece)
        final = np.concatenate([final[: len(final) - redo], out])
        at_once.append(out[redo:])
    return final, np.concatenate(at_once)


@pytest.mark.parametrize("block", [1, 37, 160, 480, 1600])
def test_below_it_is_exactly_silent_and_above_it_untouched(block):
    sound = np.concatenate([_noise(1, -60), _tone(1, -20), _noise(2, -60)])
    final, at_once = _through(NoiseGate(AT_45, RATE), sound, block)
    assert len(final) == len(sound)
    assert not final[: RATE - 320 - 160].any() and not at_once[: RATE - 160].any()
    assert np.allclose(final[RATE : 2 * RATE], sound[RATE : 2 * RATE], rtol=0.001)
    assert np.array_equal(at_once[RATE + 160 : 2 * RATE], sound[RATE + 160 : 2 * RATE]), "at most a step late"
    closed = 2 * RATE + int((0.350 + 0.120 + 0.020) * RATE)
    assert np.array_equal(final[2 * RATE : 2 * RATE + int(0.34 * RATE)], sound[2 * RATE : 2 * RATE + int(0.34 * RATE)])
    assert not final[closed:].any(), "hold and release are over"


def test_fade_in_lies_before_the_sound_and_nothing_clicks():
    """A tone that is there all along, below and above the gate: neither edge may spread over the spectrum."""
    level = np.interp(np.arange(3 * RATE) / RATE, [0.0, 0.5, 1.5, 2.0, 3.0], [-48.0, -48.0, -40.0, -60.0, -60.0])
    sound = (_tone(3, 0) * 10 ** (level / 20)).astype(np.float32)
    final, _ = _through(NoiseGate(AT_45, RATE), sound)
    opens = int(np.flatnonzero(final)[0])
    loud = 0.5 + 3 / 8
    assert (loud - 0.035) * RATE < opens < (loud - 0.005) * RATE, "before it is loud enough"
    closes = int(np.flatnonzero(final)[-1])
    assert _click_db(final, opens) < -80 and _click_db(final, closes) < -80
    assert _click_db(final, closes - int(0.120 * RATE)) < -80
    # The same edge cut hard does spread: the measure sees clicks.
    peak = opens + int(np.abs(sound[opens : opens + 60]).argmax())
    assert _click_db(np.where(np.arange(len(sound)) < peak, 0, sound), peak) > -72


def _click_db(sound, edge):
    """The strongest part above 3 kHz within 0.2 s around `edge`, against the strongest of all."""
    spectrum = np.abs(np.fft.rfft(sound[edge - 1536 : edge + 1536] * np.hanning(3072)))
    return 20 * np.log10(spectrum[576:].max() / spectrum.max())


def test_pauses_between_words_stay_open_and_short_dips_do_not_count():
    gate = NoiseGate(AT_45, RATE)
    sound = np.concatenate([_tone(0.2, -20), _noise(0.3, -70), _tone(0.2, -20)])
    final, _ = _through(gate, sound)
    assert np.array_equal(final[:], sound) and gate.is_open


def test_between_the_thresholds_it_stays_as_it_is():
    """A voice that sinks to just below the level does not flutter."""
    gate = NoiseGate(AT_45, RATE)
    _through(gate, _tone(0.2, -20))
    final, _ = _through(gate, _tone(2, -47))
    assert gate.is_open and np.count_nonzero(final) > 0.99 * len(final)
    fresh = NoiseGate(AT_45, RATE)
    assert not _through(fresh, _tone(2, -47))[0].any()


@pytest.mark.parametrize("noise_dbfs", [-70, -55, -42])
def test_auto_learns_the_room_and_lets_speech_through(noise_dbfs):
    gate = NoiseGate(GateSettings(), RATE)
    # From -62 dBFS upwards at 4 dB a second.
    _through(gate, _noise(9, noise_dbfs))
    assert noise_dbfs + 5 < gate.threshold_dbfs < noise_dbfs + 12
    quiet, _ = _through(gate, _noise(3, noise_dbfs, seed=1))
    assert not quiet.any(), "the room alone never opens it"
    speech = _noise(1, noise_dbfs, seed=2) + _tone(1, noise_dbfs + 16)
    heard, _ = _through(gate, speech)
    assert np.array_equal(heard[400:], speech[400:])


def test_auto_lets_speech_through_from_the_first_word_on():
    """Nothing is known of the room yet: who speaks at once is heard at once, however long."""
    t = np.arange(12 * RATE) / RATE
    syllables = (0.5 + 0.5 * np.sin(2 * np.pi * 4 * t)) ** 2 * (np.mod(t, 2.5) < 2.2)
    speech = (_tone(12, -24) * syllables + _noise(12, -65)).astype(np.float32)
    final, _ = _through(NoiseGate(GateSettings(), RATE), speech)
    loud = np.abs(speech) > 0.01
    assert np.mean(final[loud] == speech[loud]) > 0.999


def test_auto_does_not_take_a_long_first_vowel_for_the_room():
    """Three seconds without a pause, from the first sample on."""
    gate = NoiseGate(GateSettings(), RATE)
    final, _ = _through(gate, _tone(3, -34))
    assert np.count_nonzero(final[160:]) > 0.99 * (len(final) - 160) and gate.is_open


def test_auto_forgets_a_noise_that_has_gone():
    gate = NoiseGate(GateSettings(), RATE)
    _through(gate, _noise(9, -45))
    _through(gate, _noise(1, -70))
    assert gate.threshold_dbfs < -58
    threshold = gate.threshold_dbfs
    _through(gate, np.zeros(RATE, np.float32))
    assert gate.threshold_dbfs == threshold, "and digital silence is not taken for a room"


def test_short_click_opens_it():
    gate = NoiseGate(AT_45, RATE)
    sound = _noise(1, -75)
    sound[8003:8035] += 0.5
    final, _ = _through(gate, sound)
    assert np.array_equal(final[8003:8035], sound[8003:8035])


def test_nothing_is_replaced_across_a_break():
    gate = NoiseGate(AT_45, RATE)
    gate.push(_noise(1, -70))
    gate.forget()
    redo, out = gate.push(_tone(0.01, -10))
    assert redo == 0 and len(out) == 160
    assert gate.push(_tone(0.01, -10))[0] == 0


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_held_back_gate_gives_final_stereo_in_order(rate_hz):
    gate = HeldBackGate(AT_45, rate_hz, 2)
    rng = np.random.default_rng(0)
    sound = (0.0005 * rng.normal(size=(2 * rate_hz, 2))).astype(np.float32)
    sound[rate_hz : rate_hz + rate_hz // 5, 0] += 0.2
    out, position = [], 0
    for start in range(0, len(sound), 441):
        held, part = gate.push(sound[start : start + 441])
        assert start - held == position, "each block begins where the one before ended"
        position += len(part)
        out.append(part)
    heard = np.concatenate(out)
    assert len(sound) - len(heard) == round(0.020 * rate_hz)
    loud = slice(rate_hz, rate_hz + rate_hz // 5)
    assert np.array_equal(heard[loud], sound[loud]), "both channels, from the first sample on"
    assert not heard[: rate_hz - rate_hz // 20].any() and not heard[-rate_hz // 10 :].any()
    before = heard[rate_hz - round(0.015 * rate_hz) : rate_hz, 0] / sound[rate_hz - round(0.015 * rate_hz) : rate_hz, 0]
    assert np.all(np.diff(before) > -1e-3) and 0 < before[0] < before[-1], "faded in before"


@pytest.mark.parametrize("wrong", [{"level_dbfs": 3.0}, {"attack_ms": 0.0}, {"hold_ms": -1.0}, {"release_ms": 1e9}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        GateSettings(**wrong)


def _open_s(gate, sound):
    """For how long of `sound` the gate was open."""
    opened = 0
    for start in range(0, len(sound), 160):
        gate.push(sound[start : start + 160])
        opened += gate.is_open
    return opened * 160 / RATE


def _ringing(sound):
    """As a resampler leaves it: both edges of silence are a little less than sharp."""
    return soxr.resample(soxr.resample(sound, RATE, 48_000), 48_000, RATE, quality="LQ").astype(np.float32)


@pytest.mark.parametrize("dbfs", [-65, -58, -52, -45])
@pytest.mark.parametrize("mute_s", [0.03, 0.3, 1.0, 5.0])
def test_auto_does_not_take_a_mute_for_the_room(dbfs, mute_s):
    gate = NoiseGate(GateSettings(), RATE)
    _open_s(gate, _noise(20, dbfs))
    before = gate.threshold_dbfs
    muted = np.zeros(int(mute_s * RATE), np.float32)
    sound = np.concatenate([_noise(0.5, dbfs, 1), muted, _noise(5, dbfs, 2), muted, _noise(5, dbfs, 3)])
    assert _open_s(gate, _ringing(sound)) == 0.0
    assert gate.threshold_dbfs == pytest.approx(before, abs=2)


def test_auto_does_not_take_an_unpressed_talk_key_for_the_room():
    gate, key, now_s = NoiseGate(GateSettings(), RATE), TalkKey(is_needed=True), 0.0
    opened_s = 0.0
    for press in range(8):
        for is_held, seconds in ((False, 2.0), (True, 3.0)):
            (key.press if is_held else key.release)(now_s)
            sound = key.applied(_noise(seconds, -57, press)[:, None], now_s, RATE)[:, 0]
            opened_s += _open_s(gate, sound)
            now_s += seconds
    assert opened_s == 0.0


def test_auto_begins_with_zeros_as_without():
    with_zeros, without = NoiseGate(GateSettings(), RATE), NoiseGate(GateSettings(), RATE)
    _open_s(with_zeros, np.zeros(2 * RATE, np.float32))
    assert with_zeros.threshold_dbfs == without.threshold_dbfs
    assert _open_s(with_zeros, _noise(8, -57)) == _open_s(without, _noise(8, -57)) == 0.0
