"""Pictures and sounds for the decoders: small valid files of every format, and pictures damaged knowingly."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from mutations import damaged_bytes

_LARGEST_WALK = 3_000
"""Blocks; a decoder that goes on for longer than any of the inputs could last is a finding."""


def pictures() -> list[bytes]:
    """72 x 80 px in each format that is read, with alpha, palettes, profiles, EXIF, 16 bits, CMYK and animation."""
    from PIL import Image, ImageCms, features

    rows, columns = np.mgrid[0:80, 0:72]
    rgb = Image.fromarray(np.stack([columns * 3, rows * 3, (rows * columns) % 256], axis=-1).astype(np.uint8))
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray((columns * 3).astype(np.uint8)))
    deep = Image.fromarray((rows * 700).astype(np.uint16))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        (rgb, "PNG", {"icc_profile": profile}), (rgba, "PNG", {"exif": exif}), (deep, "PNG", {}),
        (rgb.quantize(7), "PNG", {"transparency": 3}), (rgb, "PNG", {"save_all": True, "append_images": [rgba] * 2}),
        (rgb, "JPEG", {"exif": exif, "icc_profile": profile}), (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "JPEG", {"progressive": True}), (rgba, "WEBP", {"exif": exif}), (rgb, "WEBP", {"lossless": True}),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgba]}), (rgb, "BMP", {}), (rgb.quantize(4), "BMP", {}),
        (rgb, "GIF", {"save_all": True, "append_images": [rgba, rgb]}), (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"compression": "jpeg"}), (deep, "TIFF", {}), (rgb.convert("F"), "TIFF", {}),
        (rgb, "TIFF", {"save_all": True, "append_images": [rgba]}), (rgb, "PPM", {}), (rgba, "TGA", {"rle": True}),
        (rgba, "ICO", {"sizes": [(72, 72)]}), (rgba, "ICO", {"sizes": [(72, 72)], "bitmap_format": "bmp"}),
    ]  # fmt: skip
    if features.check("avif"):
        kinds.append((rgba, "AVIF", {"exif": exif}))
    found = []
    for picture, kind, options in kinds:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        found.append(file.getvalue())
    return found


def damaged_picture(rng: random.Random, data: bytes) -> bytes:
    """PNG chunks with checksums that hold most of the time; other formats as bytes."""
    if not data.startswith(b"\x89PNG") or rng.random() < 0.3:
        return damaged_bytes(rng, data)
    chunks = _chunks(data)
    if not chunks:
        return damaged_bytes(rng, data)
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(chunks))
        kind, body = chunks[at]
        what = rng.random()
        if kind == b"IHDR" and what < 0.5:
            sides = [rng.choice((1, 63, 64, 100, 8_000, 9_999, 30_000, 1 << 31)) for _ in range(2)]
            body = struct.pack(">II", *sides) + body[8:]
        elif kind == b"IDAT" and what < 0.4:
            body = zlib.compress(bytes(rng.choice((0, 1000, 1 << 20))))
        elif what < 0.85:
            body = damaged_bytes(rng, body)
        else:
            chunks.insert(rng.randrange(len(chunks)), (kind, body))
        chunks[at] = (kind, body)
    packed = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return data[:8] + b"".join(packed)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 12 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def run_portrait(data: bytes, folder: Path) -> None:
    """Upright 8-bit RGB of a bounded size."""
    from engine.portrait.load import KEPT_SIDE_PX, load_portrait

    path = folder / "portrait.png"
    path.write_bytes(data)
    portrait = load_portrait(str(path))
    height, width = portrait.image.shape[:2]
    assert portrait.image.shape == (height, width, 3) and portrait.image.dtype == np.uint8
    assert min(height, width) >= 1 and max(height, width) <= KEPT_SIDE_PX
    assert portrait.alpha is None or portrait.alpha.shape == (height, width)


def sounds() -> list[bytes]:
    """A fifth of a second in each common container and codec, mono and stereo, integers and floats."""
    import av

    codecs = [
        ("wav", "pcm_s16le", 16000, 1), ("wav", "pcm_f32le", 48000, 2), ("wav", "pcm_u8", 8000, 1),
        ("wav", "pcm_s24le", 44100, 6), ("flac", "flac", 44100, 2), ("mp3", "libmp3lame", 44100, 1),
        ("ogg", "libopus", 48000, 1), ("ogg", "libvorbis", 44100, 2), ("ipod", "aac", 44100, 2),
        ("aiff", "pcm_s16be", 22050, 1), ("matroska", "pcm_s16le", 16000, 1), ("caf", "alac", 44100, 1),
        ("au", "pcm_mulaw", 8000, 1), ("adts", "aac", 44100, 1),
    ]  # fmt: skip
    found = []
    for container, codec, rate_hz, channels in codecs:
        file = io.BytesIO()
        try:
            with av.open(file, "w", format=container) as out:
                stream = out.add_stream(codec, rate=rate_hz, layout={1: "mono", 2: "stereo", 6: "5.1"}[channels])
                tone = (8000 * np.sin(np.arange(rate_hz // 5) / 20)).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(np.repeat(tone, channels)[None], "s16", stream.layout.name)
                frame.sample_rate = rate_hz
                for packet in [*stream.encode(frame), *stream.encode(None)]:
                    out.mux(packet)
        except (av.error.FFmpegError, ValueError):
            continue  # an encoder that this build lacks
        found.append(file.getvalue())
    return found


def run_audio(data: bytes, folder: Path) -> None:
    """Blocks of float32 within [-1, 1], not many more than there are bytes."""
    from engine.audio.audio_file import AudioFile

    path = folder / "speech.wav"
    path.write_bytes(data)
    file = AudioFile(path)
    assert file.channels in (1, 2) and file.rate_hz > 0
    assert file.duration_s is None or file.duration_s >= 0
    for number, block in enumerate(file.blocks()):
        assert block.dtype == np.float32 and block.shape[1] == file.channels
        assert np.isfinite(block).all() and float(np.abs(block).max(initial=0.0)) <= 1.0
        assert number < _LARGEST_WALK
    file.notices()
