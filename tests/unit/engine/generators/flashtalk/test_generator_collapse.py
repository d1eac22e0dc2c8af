"""FlashTalk's picture collapses: what is shown then, what is told, and how it begins anew."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.portrait_tensor import cover_and_crop  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_folders")


def _spoil(monkeypatch, generator, change, chunks=None):
    """Change the groups of the chunks numbered `chunks` (all): `change(group number, raw, matched)`."""
    real, count = generator._stream.frames, iter(range(10**6))

    def frames(latents):
        number = next(count)
        for index, (raw, matched) in enumerate(real(latents)):
            if chunks is None or number in chunks:
                yield change(index, raw.clone(), matched.clone())
            else:
                yield raw, matched

    monkeypatch.setattr(generator._stream, "frames", frames)


def _noise(_, raw, matched):
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(raw.shape, generator=generator) * 2 - 1
    return noise.sign() * torch.ones_like(raw), matched


def _nan_in_the_third_group(index, raw, matched):
    if index == 2:
        raw[0, 0, 1, 3, 3] = float("nan")
        matched.fill_(float("nan"))
    return raw, matched


def test_pictures_that_are_no_numbers_are_never_shown(rig, make, monkeypatch):
    """The last good frame stands in for the spoilt group, the stream begins anew, and it is told once."""
    generator = make()
    clean = rig.run(make(), 0, 1)
    _spoil(monkeypatch, generator, _nan_in_the_third_group, chunks={1})
    images = rig.run(generator, 0, 1)
    spoilt = slice(28 + 8, 28 + 12)
    assert np.array_equal(np.delete(images, np.r_[spoilt], axis=0), np.delete(clean, np.r_[spoilt], axis=0))
    assert all(np.array_equal(image, clean[27]) for image in images[spoilt])
    assert generator.recoveries == 1 and generator._stream.motion.shape[1] == 1
    (notice,) = generator.take_notices()
    assert notice.code == "flashtalk.recovered" and "anew" in notice.message
    assert generator.take_notices() == []
    rig.run(generator, 2)
    assert generator.recoveries == 1 and generator.take_notices() == []


def test_before_any_good_picture_the_portrait_stands_in(rig, make, monkeypatch, portrait):
    generator = make()
    _spoil(monkeypatch, generator, lambda _, raw, matched: (raw * float("nan"), matched * float("nan")))
    images = rig.run(generator, 0, 1)
    still = cover_and_crop(portrait.image, *rig.SIDES)
    assert all(np.array_equal(image, still) for image in images)
    assert generator.recoveries == 2 and len(generator.take_notices()) == 1


def test_spoilt_motion_heals_within_a_chunk(rig, make):
    """A stream whose memory is no numbers would stay so for ever."""
    generator = make()
    rig.run(generator, 0)
    generator._stream._motion = torch.full_like(generator._stream._motion, float("nan"))
    assert generator._stream.chunk_latents is not None
    images = rig.run(generator, 1)
    assert generator.recoveries == 1 and generator._stream.motion.isfinite().all()
    assert all(np.array_equal(image, images[0]) for image in images)
    after = rig.run(generator, 2)
    assert generator.recoveries == 1 and not np.array_equal(after[0], after[-1])


def test_a_collapsed_chunk_begins_anew_and_is_counted(rig, make, monkeypatch):
    generator = make()
    _spoil(monkeypatch, generator, _noise, chunks={1, 4})
    told = []
    for number in range(6):
        rig.run(generator, number)
        told.append(len(generator.take_notices()))
        assert generator._stream.motion.shape[1] == (1 if number in (1, 4) else 2)
    assert told == [0, 1, 0, 0, 1, 0] and generator.recoveries == 2


def test_a_collapse_that_lasts_is_told_once_and_tried_every_time(rig, make, monkeypatch):
    generator = make()
    _spoil(monkeypatch, generator, _noise, chunks={0, 1, 2})
    told = []
    for number in range(4):
        rig.run(generator, number)
        told += generator.take_notices()
    assert generator.recoveries == 3 and len(told) == 1


def test_half_a_chunk_out_of_bounds_is_let_pass(rig, make, monkeypatch):
    """A hand before the camera is no collapse; what does not pass will fill the next chunk."""
    generator = make()
    _spoil(monkeypatch, generator, lambda n, raw, matched: _noise(n, raw, matched) if n < 4 else (raw, matched))
    rig.run(generator, 0)
    assert generator.recoveries == 0 and generator._stream.motion.shape[1] == 2


def test_after_a_recovery_the_picture_is_again_near_the_portrait(rig, make, monkeypatch):
    """The chunk after it continues from the portrait as the first one did."""
    generator = make()
    _spoil(monkeypatch, generator, _noise, chunks={0})
    rig.run(generator, 0)
    assert torch.equal(generator._stream.motion, generator._stream._anchor.motion)


def test_reset_forgets_collapses_too(rig, make, monkeypatch, portrait):
    generator = make()
    _spoil(monkeypatch, generator, lambda _, raw, matched: (raw * float("nan"), matched), chunks={1, 2})
    rig.run(generator, 0, 1)
    generator.reset()
    assert generator.recoveries == 0 and generator.take_notices() == []
    # Nor does an old stream's picture stand in for the new one's.
    assert np.array_equal(rig.run(generator, 0)[0], cover_and_crop(portrait.image, *rig.SIDES))
    assert len(generator.take_notices()) == 1
