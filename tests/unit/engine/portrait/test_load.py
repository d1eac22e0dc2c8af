"""Every kind of picture file, good and bad, through `load_portrait`."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from engine.errors import PortraitError
from engine.portrait.load import KEPT_SIDE_PX, load_portrait


@pytest.fixture(autouse=True)
def private_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.portrait.load.load_annotations", lambda digest: {})


@pytest.fixture
def ramp():
    """RGB gradient, 200 wide and 120 high, different in every corner."""
    y, x = np.mgrid[0:120, 0:200]
    return np.stack([x, y * 2, (x + y) // 2], axis=-1).astype(np.uint8)


def _code(path) -> str:
    with pytest.raises(PortraitError) as caught:
        load_portrait(str(path))
    assert caught.value.message.endswith(".") and "\n" not in caught.value.message
    return caught.value.code


def test_png_comes_back_exactly(tmp_path, ramp):
    path = tmp_path / "a.png"
    Image.fromarray(ramp).save(path)
    portrait = load_portrait(str(path))
    assert np.array_equal(portrait.image, ramp)
    assert portrait.image.flags.c_contiguous and portrait.alpha is None
    assert portrait.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_missing_empty_folder_and_garbage(tmp_path):
    (tmp_path / "zero.png").touch()
    (tmp_path / "text.jpg").write_text("hello " * 100)
    assert _code(tmp_path / "nothing.png") == "portrait.missing"
    assert _code(tmp_path / "zero.png") == "portrait.empty"
    assert _code(tmp_path) == "portrait.folder"
    assert _code(tmp_path / "text.jpg") == "portrait.not_an_image"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_files_are_damaged(tmp_path, ramp, kind):
    path = tmp_path / f"cut.{kind.lower()}"
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(path, format=kind)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert _code(path) in ("portrait.damaged", "portrait.not_an_image")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path, ramp):
    path = tmp_path / "secret.png"
    Image.fromarray(ramp).save(path)
    path.chmod(0)
    assert _code(path) == "portrait.permission"


def test_exif_rotation_is_applied(tmp_path, ramp):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    Image.fromarray(ramp).save(path, exif=exif)
    assert np.array_equal(load_portrait(str(path)).image, np.rot90(ramp, k=-1))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 100 * 100).reshape(100, 100).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    grey = load_portrait(str(path)).image[..., 0].astype(int)
    assert np.abs(grey - values / 257.0).max() <= 1


def test_cmyk_looks_like_the_rgb_it_came_from(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("RGB", (100, 100), (200, 120, 40)).convert("CMYK").save(path, quality=95)
    colour = load_portrait(str(path)).image.mean(axis=(0, 1))
    assert np.abs(colour - (200, 120, 40)).max() < 12


def test_transparency_lies_on_grey_and_is_kept_as_mask(tmp_path):
    rgba = np.zeros((100, 100, 4), np.uint8)
    rgba[20:80, 20:80] = (10, 200, 30, 255)
    path = tmp_path / "cutout.png"
    Image.fromarray(rgba).save(path)
    portrait = load_portrait(str(path))
    assert tuple(portrait.image[50, 50]) == (10, 200, 30)
    assert portrait.image[0, 0].min() > 220
    assert portrait.person_mask is not None and portrait.person_mask[50, 50] == 255 and portrait.person_mask[0, 0] == 0


def test_palette_with_transparent_colour(tmp_path, ramp):
    path = tmp_path / "palette.gif"
    Image.fromarray(ramp).quantize(16).save(path, transparency=0)
    portrait = load_portrait(str(path))
    assert portrait.image.shape == ramp.shape and portrait.alpha is not None


def test_animation_gives_its_first_image_and_says_so(tmp_path, ramp):
    path = tmp_path / "moving.gif"
    frames = [Image.fromarray(np.full_like(ramp, v)) for v in (30, 120, 220)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    portrait = load_portrait(str(path))
    assert abs(int(portrait.image.mean()) - 30) <= 2
    assert [notice.code for notice in portrait.notices] == ["portrait.animated"]


def test_one_pixel_is_too_small(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert _code(tmp_path / "dot.png") == "portrait.too_small"


def test_huge_picture_is_refused_before_decoding(tmp_path, monkeypatch):
    """A 30000 x 30000 PNG whose data would fill gigabytes: only its header may be looked at."""
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert _code(path) == "portrait.too_large"


def test_large_picture_is_reduced(tmp_path):
    path = tmp_path / "large.jpg"
    Image.new("RGB", (5000, 3000), (9, 99, 199)).save(path)
    portrait = load_portrait(str(path))
    assert max(portrait.image.shape[:2]) == KEPT_SIDE_PX
    assert abs(portrait.image.shape[1] / portrait.image.shape[0] - 5 / 3) < 0.01


def test_unknown_sample_names_the_choices():
    with pytest.raises(PortraitError) as caught:
        load_portrait("sample:nobody")
    assert caught.value.code == "portrait.no_such_sample" and caught.value.hint.startswith("Choose one of: ")


def test_a_large_picture_is_reduced_before_it_is_converted(tmp_path):
    """Colours and orientation are those of the whole; 16 bits a sample, too."""
    halves = np.zeros((6400, 400), np.uint16)
    halves[3200:] = 65535
    Image.fromarray(halves).save(tmp_path / "grey.png")
    grey = load_portrait(str(tmp_path / "grey.png")).image
    assert grey.shape == (2048, 128, 3) and grey[:1000].max() == 0 and grey[1050:].min() == 255
    exif = Image.Exif()
    exif[0x0112] = 6
    colours = Image.new("RGBA", (6400, 400), (255, 0, 0, 255))
    colours.paste((0, 0, 255, 0), (3200, 0, 6400, 400))
    colours.save(tmp_path / "colours.png", exif=exif)
    turned = load_portrait(str(tmp_path / "colours.png"))
    assert turned.image.shape == (2048, 128, 3)
    assert tuple(turned.image[100, 64]) == (255, 0, 0) and tuple(turned.image[-100, 64]) == (232, 234, 238)
    assert turned.alpha[100, 64] == 255 and turned.alpha[-100, 64] == 0
