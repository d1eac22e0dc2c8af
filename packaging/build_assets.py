"""Makes the pictures in `assets` from their SVG sources: portraits, their person masks, the application's icon.

Needs librsvg's `rsvg-convert` (Debian: librsvg2-bin) and, for small files, the Python package `pyoxipng`.

Usage: python packaging/build_assets.py [portraits | icon] [--only NAME]
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ASSETS = Path(__file__).resolve().parent.parent / "assets"
ICON_SIZES_PX = (16, 24, 32, 48, 64, 128, 256, 512)


def render_svg(text: str, size_px: int) -> Image.Image:
    """`text` drawn at size_px x size_px as RGBA. Raises CalledProcessError when the renderer refuses it."""
    command = ["rsvg-convert", "--width", str(size_px), "--height", str(size_px), "--unlimited", "--format", "png"]
    done = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True)
    return Image.open(io.BytesIO(done.stdout)).convert("RGBA")


def only_figure(text: str) -> str:
    """The drawing without its background layer, so that its alpha is the person mask."""
    without, count = re.subn(r'<g id="background">.*?\n</g>\n', "", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError("the drawing needs exactly one layer called background")
    return without


def coarsen_texture(image: Image.Image) -> Image.Image:
    """Rounds colours to multiples of four where there is fine texture (hair), which cannot be seen there and makes the
    file a fifth smaller; smooth shading stays exact."""
    pixels = np.asarray(image)
    gray = pixels.astype(np.float32).mean(axis=2)
    spread = np.sqrt(np.maximum(cv2.blur(gray * gray, (7, 7)) - cv2.blur(gray, (7, 7)) ** 2, 0))
    coarse = np.minimum((pixels.astype(np.int16) + 2) // 4 * 4, 255).astype(np.uint8)
    return Image.fromarray(np.where((spread > 7)[..., None], coarse, pixels))


def save_png(image: Image.Image, path: Path) -> None:
    image.save(path, optimize=True)
    try:
        import oxipng
    except ImportError:
        print("  (pyoxipng is not installed: the file stays larger)")
    else:
        oxipng.optimize(path, level=5)
    print(f"{path.relative_to(ASSETS)}: {path.stat().st_size / 1024:.0f} KB")


def build_portraits(only: str | None) -> None:
    for source in sorted((ASSETS / "portraits").glob("*.svg")):
        if only and source.stem != only:
            continue
        text = source.read_text(encoding="utf-8")
        picture = coarsen_texture(render_svg(text, 1024).convert("RGB"))
        save_png(picture, source.with_suffix(".png"))
        save_png(render_svg(only_figure(text), 1024).getchannel("A"), source.with_suffix(".mask.png"))


def build_icon(only: str | None) -> None:
    text = (ASSETS / "icon" / "standin.svg").read_text(encoding="utf-8")
    for size_px in ICON_SIZES_PX:
        if not only or only == str(size_px):
            save_png(render_svg(text, size_px), ASSETS / "icon" / f"standin-{size_px}.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("portraits", "icon"))
    parser.add_argument("--only", metavar="NAME", help="one portrait, or one icon size")
    options = parser.parse_args()
    if options.what in (None, "portraits"):
        build_portraits(options.only)
    if options.what in (None, "icon"):
        build_icon(options.only)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
