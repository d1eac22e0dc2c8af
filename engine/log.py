"""One logging set-up for every process: warnings on standard error, everything in a rotated file."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

_FORMAT = "%(asctime)s %(levelname)s %(processName)s/%(threadName)s %(name)s: %(message)s"


def set_up_logging(*, verbose: bool = False, folder: Path | None = None) -> None:
    """Configure the root logger once, at a program's start. A log file that cannot be written is done without."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.DEBUG if verbose else logging.WARNING)
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    root.addHandler(console)
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.handlers.RotatingFileHandler(
            folder / "standin.log", maxBytes=1_000_000, backupCount=3, encoding="utf-8"
        )
    except OSError as error:
        root.warning("No log file can be written in %s: %s.", folder, error)
        return
    file.setFormatter(logging.Formatter(_FORMAT))
    root.addHandler(file)
