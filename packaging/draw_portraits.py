"""Draws the sample portraits: assets/portraits/*.svg. Run `build_assets.py` afterwards for the pictures.

Usage: python packaging/draw_portraits.py [NAME ...]
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PORTRAITS = HERE.parent / "assets" / "portraits"
NAMES = ("maya", "theo", "ingrid")


def main(names: list[str]) -> int:
    sys.path.insert(0, str(HERE / "portrait_art"))
    for name in names or NAMES:
        drawing = importlib.import_module(name).draw()
        path = PORTRAITS / f"{name}.svg"
        path.write_text(drawing.svg(), encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size // 1024} KB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
