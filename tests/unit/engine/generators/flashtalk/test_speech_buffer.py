"""The rolling seconds of sound, against a plain list of everything that was heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.config import StreamShape  # noqa: E402
from engine.generators.flashtalk.loudness import normalize_loudness  # noqa: E402
from engine.generators.flashtalk.models import load_speech_encoder  # noqa: E402
from engine.generators.flashtalk.speech_buffer import SpeechBuffer  # noqa: E402
from engine.generators.flashtalk.speech_encoder import audio_window, encode_speech  # noqa: E402

CPU = torch.device("cpu")
SHAPE = StreamShape(height=32, width=32)


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: tuple[Path, Path]):
    folder = tiny_checkpoint[1]
    return load_speech_encoder(folder, folder / "pytorch_model.bin", CPU)


def _sound(samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.05).astype(np.float32)


def test_it_holds_the_last_eight_seconds(encoder):
    """Whatever the pieces are: empty, single samples, more than fits."""
    buffer, everything = SpeechBuffer(encoder, SHAPE, CPU), np.zeros(SHAPE.history_samples, np.float32)
    for number, samples in enumerate((17_920, 0, 1, 127_999, 5, 128_000, 200_000, 17_920, 17_920)):
        buffer.push(_sound(samples, number))
        everything = np.concatenate([everything, _sound(samples, number)])
        assert np.array_equal(buffer._samples, everything[-128_000:])
    for skipped in (3, 17_920, 10**9):
        buffer.skip(skipped)
        everything = np.concatenate([everything, np.zeros(min(skipped, 128_000), np.float32)])
        assert np.array_equal(buffer._samples, everything[-128_000:])


def test_the_pushed_sound_may_be_reused_by_its_owner(encoder):
    buffer, sound = SpeechBuffer(encoder, SHAPE, CPU), _sound(17_920)
    buffer.push(sound)
    before = buffer.embedding()
    sound.fill(1.0)
    assert torch.equal(buffer.embedding(), before)


def test_features_are_those_of_the_whole_normalised_history(encoder):
    """At the beginning that is silence and then sound; the slices are the last 33 frames' windows, regrouped."""
    buffer = SpeechBuffer(encoder, SHAPE, CPU)
    buffer.push(_sound(17_920))
    history = np.concatenate([np.zeros(128_000 - 17_920, np.float32), _sound(17_920)])
    loud = torch.from_numpy(np.asarray(normalize_loudness(history), np.float32))
    wanted = encode_speech(encoder, loud, 200)
    got = buffer.embedding()
    assert got.shape == (200, 12, 32) and got.dtype == torch.float32
    torch.testing.assert_close(got, wanted)
    windows = audio_window(wanted, 167, 200)[0]
    first, later = buffer.slices()
    torch.testing.assert_close(first, windows[:1])
    assert later.shape == (8, 8, 12, 32)
    for j in range(1, 9):
        a, b, c, d = windows[4 * j - 3 : 4 * j + 1]
        torch.testing.assert_close(later[j - 1], torch.cat((a[:3], b[2:3], c[2:3], d[2:])))


@pytest.mark.parametrize("error", [0.0, 1e-5, 0.01, float("nan")])
def test_encoding_beside_other_work_is_given_up_where_it_differs(encoder, error, caplog):
    """What a CUDA stream of its own would give is compared once; rounding is let pass."""
    buffer, made = SpeechBuffer(encoder, SHAPE, CPU), []
    buffer.push(_sound(17_920))
    plain = buffer.rows()

    def beside(side):
        made.append(side)
        return plain * (1 + error)

    buffer._side, buffer._rows_beside = "side", beside
    first, second = buffer.rows(), buffer.rows()
    is_kept = error in (0.0, 1e-5)
    assert len(made) == (2 if is_kept else 1) and ("beside" in caplog.text) != is_kept
    wanted = plain * (1 + error) if is_kept else plain
    assert torch.equal(first, wanted) and torch.equal(second, wanted)


def test_every_feature_hears_the_newest_sound(encoder):
    """The gain and the first layer's norm are over all eight seconds, and attention looks both ways: another last
    frame (40 ms) changes all rows, so that none can be made before a chunk is complete."""
    buffer = SpeechBuffer(encoder, SHAPE, CPU)
    buffer.push(_sound(100_000))
    before = buffer.embedding()
    buffer._samples[-640:] *= 3.0
    assert ((buffer.embedding() - before).abs().flatten(1).max(dim=1).values > 1e-4).all()


def test_two_buffers_do_not_share(encoder):
    one, other = SpeechBuffer(encoder, SHAPE, CPU), SpeechBuffer(encoder, SHAPE, CPU)
    silent = other.embedding()
    one.push(_sound(17_920))
    assert torch.equal(other.embedding(), silent) and not torch.equal(one.embedding(), silent)


def test_cleared_is_as_new(encoder):
    buffer = SpeechBuffer(encoder, SHAPE, CPU)
    silent = buffer.embedding()
    buffer.push(_sound(17_920))
    assert not torch.equal(buffer.embedding(), silent)
    buffer.clear()
    assert torch.equal(buffer.embedding(), silent) and silent.isfinite().all()
