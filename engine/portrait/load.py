"""A picture file, or the name of a sample, to an upright RGB portrait; every bad file gets its own sentence."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from engine.errors import PortraitError
from engine.media import Notice, Portrait
from engine.paths import expanded
from engine.portrait.annotations import load_annotations
from engine.portrait.samples import SAMPLE_PREFIX, SamplePortrait, sample_portrait

MAX_FILE_BYTES = 256 << 20
MAX_PIXELS = 80_000_000
MIN_SIDE_PX = 64
KEPT_SIDE_PX = 2048
"""Longer pictures are reduced to this: twice what the largest canvas shows of a portrait."""

BACKDROP = (232, 234, 238)
"""Light neutral grey behind transparent pictures."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM", "TGA", "ICO")

_ORIENTATION = 0x0112
"""The EXIF tag."""
_BAND_ROWS = 256

_USE_ANOTHER = "Choose a PNG, JPEG or WebP picture of a face."


def load_portrait(reference: str) -> Portrait:
    """The portrait at a path, or the sample named by `sample:ID`, upright and at most 2048 px on its longer side.

    Colour profiles are applied, 16-bit and CMYK pictures become 8-bit RGB, transparent ones lie on light grey and
    keep their alpha, of an animation the first picture is taken. Raises `PortraitError`.
    """
    if reference.startswith(SAMPLE_PREFIX):
        sample = sample_portrait(reference[len(SAMPLE_PREFIX) :])
        return _with_sample_data(_load_file(sample.picture, sample.title), sample)
    return _load_file(expanded(reference), Path(reference).stem)


def _with_sample_data(portrait: Portrait, sample: SamplePortrait) -> Portrait:
    notes = dict(portrait.annotations)
    if sample.geometry is not None and "puppet" not in notes:
        notes["puppet"] = json.dumps({"geometry": json.loads(sample.geometry.read_text(encoding="utf-8"))})
    mask = portrait.person_mask
    if sample.mask is not None:
        with Image.open(sample.mask) as picture:
            mask = np.array(picture.convert("L"))
    return replace(portrait, name=sample.title, person_mask=mask, annotations=notes)


def _load_file(path: Path, name: str) -> Portrait:
    data = _read(path)
    image, alpha, notices = _pixels(data, path)
    digest = hashlib.sha256(data).hexdigest()
    has_cutout = alpha is not None and 0.05 < float((alpha > 127).mean()) < 0.98
    return Portrait(
        image=image,
        name=name,
        path=str(path),
        digest=digest,
        alpha=alpha,
        person_mask=alpha if has_cutout else None,
        annotations=load_annotations(digest),
        notices=tuple(notices),
    )


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise PortraitError(f"{path} is a folder, not a picture.", code="portrait.folder", hint=_USE_ANOTHER)
        if size == 0:
            raise PortraitError(
                f"The picture {path.name} is empty (0 bytes).", code="portrait.empty", hint=_USE_ANOTHER
            )
        if size > MAX_FILE_BYTES:
            raise PortraitError(
                f"The picture {path.name} has {size >> 20} MB; at most {MAX_FILE_BYTES >> 20} MB are read.",
                code="portrait.too_large",
                hint="Save a smaller copy and choose that.",
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PortraitError(
            f"There is no picture at {path}.",
            code="portrait.missing",
            hint="Check the path, or choose it again.",
        ) from error
    except PermissionError as error:
        raise PortraitError(
            f"The picture {path} may not be read.",
            code="portrait.permission",
            hint="Check the file's permissions.",
        ) from error
    except (OSError, ValueError) as error:
        raise PortraitError(f"The picture {path} cannot be read: {error}.", code="portrait.unreadable") from error


def _pixels(data: bytes, path: Path) -> tuple[np.ndarray, np.ndarray | None, list[Notice]]:
    try:
        picture, notices = _decode(data, path)
        return *_to_rgb(picture), notices
    except PortraitError:
        raise
    except UnidentifiedImageError as error:
        raise PortraitError(
            f"{path.name} is not a picture that Standin can read.",
            code="portrait.not_an_image",
            hint=_USE_ANOTHER,
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(path, "far too many pixels") from error
    except Exception as error:  # damaged data makes Pillow raise nearly anything, depending on the format
        raise PortraitError(
            f"The picture {path.name} is damaged or incomplete.",
            code="portrait.damaged",
            hint="Save or download it again, or choose another picture.",
            detail=f"{type(error).__name__}: {error}",
        ) from error


def _decode(data: bytes, path: Path) -> tuple[Image.Image, list[Notice]]:
    notices = []
    Image.init()  # AVIF is missing from some builds of Pillow
    known = [kind for kind in FORMATS if kind in Image.OPEN]
    picture = Image.open(io.BytesIO(data), formats=known)
    _check_size(picture.size, path)
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        notices.append(Notice(code="portrait.animated", message="This picture moves; its first image is used."))
    picture.draft("RGB", (KEPT_SIDE_PX, KEPT_SIDE_PX))  # lets JPEG decode at a reduced size
    picture.load()
    _check_size(picture.size, path)  # what is inside an ICO may be larger than it says
    orientation = picture.getexif().get(_ORIENTATION)
    smaller = _reduced(picture)
    if orientation is not None:
        smaller.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(smaller), notices


def _reduced(picture: Image.Image) -> Image.Image:
    """Still at least 1.5 times what is kept; conversions of 80 million pixels would take gigabytes."""
    factor = max(picture.size) * 2 // (3 * KEPT_SIDE_PX)
    if factor < 2 or picture.mode not in ("L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        return picture
    return picture.reduce((min(factor, picture.width), min(factor, picture.height)))


def _check_size(size: tuple[int, int], path: Path) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(path, f"{width} x {height} pixels")
    if min(width, height) < MIN_SIDE_PX:
        raise PortraitError(
            f"The picture {path.name} is only {width} x {height} pixels.",
            code="portrait.too_small",
            hint=f"Choose one of at least {MIN_SIDE_PX} x {MIN_SIDE_PX}; about 1000 x 1000 looks best.",
        )


def _too_many_pixels(path: Path, what: str) -> PortraitError:
    return PortraitError(
        f"The picture {path.name} has {what}; at most {MAX_PIXELS // 1_000_000} million are read.",
        code="portrait.too_large",
        hint="Save a smaller copy and choose that.",
    )


def _to_rgb(picture: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """8-bit RGB (h, w, 3) and alpha (h, w) or None, at most `KEPT_SIDE_PX` on the longer side."""
    picture = _eight_bit(picture)
    alpha = None
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = _reduced(picture.convert("RGBA"))
        picture = rgba
        mask = rgba.getchannel("A")
        if mask.getextrema() != (255, 255):
            alpha = mask
            ground = Image.new("RGBA", rgba.size, (*BACKDROP, 255))
            picture = Image.alpha_composite(ground, rgba)
    picture = _in_srgb(picture)
    size = _kept_size(picture.size)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        alpha = alpha.resize(size, Image.Resampling.LANCZOS) if alpha is not None else None
    return np.ascontiguousarray(picture), None if alpha is None else np.array(alpha)


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Grey pictures of 16 or 32 bits a sample, which Pillow would clip instead of scaling."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture)
    low = min(0.0, float(values.min(initial=0, where=np.isfinite(values))))
    top = float(values.max(initial=low, where=np.isfinite(values)))
    full = 65535.0 if picture.mode != "F" and top <= 65535 else max(top, 1e-9)
    grey = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _BAND_ROWS):
        band = values[row : row + _BAND_ROWS].astype(np.float64)
        scaled = (np.where(np.isfinite(band), band, 0.0) - low) / (full - low)
        grey[row : row + _BAND_ROWS] = np.clip(scaled, 0, 1) * 255 + 0.5
    return _reduced(Image.fromarray(grey))


def _in_srgb(picture: Image.Image) -> Image.Image:
    """Convert through the embedded colour profile (CMYK needs it most); a broken profile is ignored."""
    profile = picture.info.get("icc_profile")
    if profile and picture.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # the plain conversion below is what most viewers show then
    return picture.convert("RGB")


def _kept_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, KEPT_SIDE_PX / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
