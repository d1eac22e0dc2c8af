"""One logging set-up for every process: warnings on standard error, everything in a rotated file."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import sys
from pathlib import Path

from engine.paths import private_folder

_FORMAT = "%(asctime)s %(levelname)s %(processName)s/%(threadName)s %(name)s: %(message)s"

_TALKATIVE = ("PIL", "filelock", "httpcore", "httpx", "huggingface_hub", "requests", "urllib3")
"""Libraries that tell every request, whose address or headers may carry a signature or a token."""


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A log names portraits and devices, which is nobody else's business."""

    def _open(self):
        stream = super()._open()
        with contextlib.suppress(OSError):
            Path(self.baseFilename).chmod(0o600)
        return stream


def set_up_logging(*, verbose: bool = False, folder: Path | None = None) -> None:
    """Configure the root logger once, at a program's start. A log file that cannot be written is done without."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.WARNING)
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.DEBUG if verbose else logging.WARNING)
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    root.addHandler(console)
    if folder is None:
        return
    try:
        private_folder(folder)
        file = _PrivateFile(folder / "standin.log", maxBytes=1_000_000, backupCount=3, encoding="utf-8")
    except OSError as error:
        root.warning("No log file can be written in %s: %s.", folder, error)
        return
    file.setFormatter(logging.Formatter(_FORMAT))
    root.addHandler(file)
