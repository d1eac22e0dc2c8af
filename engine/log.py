"""One logging set-up for every process: warnings on standard error, everything (tracebacks, too) in a rotated file."""

from __future__ import annotations

import contextlib
import copy
import logging
import logging.handlers
import os
import sys
from io import TextIOWrapper
from pathlib import Path

from engine.paths import private_folder

_FORMAT = "%(asctime)s %(levelname)s %(process)d/%(threadName)s %(name)s: %(message)s"
_MOST_BYTES, _KEPT_FILES = 1_000_000, 3

_TALKATIVE = ("PIL", "filelock", "httpcore", "httpx", "huggingface_hub", "requests", "urllib3")
"""Libraries that tell every request, whose address or headers may carry a signature or a token."""


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A log names portraits and devices, which is nobody else's business. Made with its folder when there is something
    to write; one that cannot be written is told once, and done without."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_MOST_BYTES, backupCount=_KEPT_FILES, encoding="utf-8", delay=True)
        self._is_given_up = False

    def _open(self) -> TextIOWrapper:
        path = Path(self.baseFilename)
        private_folder(path.parent)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with contextlib.suppress(OSError):
            path.chmod(0o600)  # an older one
        return TextIOWrapper(os.fdopen(handle, "ab"), encoding=self.encoding)

    def doRollover(self) -> None:
        """Another process of ours may be doing the same: then what one of them would move is gone already."""
        with contextlib.suppress(FileNotFoundError):
            super().doRollover()

    def rotate(self, source: str, dest: str) -> None:
        """Windows renames nothing that another process of ours has open: then this file begins anew."""
        try:
            super().rotate(source, dest)
        except OSError:
            with contextlib.suppress(OSError), open(source, "r+b") as file:
                file.truncate(0)

    def emit(self, record: logging.LogRecord) -> None:
        """See `Handler.emit`."""
        if not self._is_given_up:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk must not fill the terminal, too."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._is_given_up = True
            logging.getLogger(__name__).warning("No log file can be written in %s: %s.", self.baseFilename, error)
        else:
            super().handleError(record)


def set_up_logging(*, verbose: bool = False, folder: Path | None = None, name: str = "standin") -> None:
    """Configure the root logger, at a program's start; what an earlier call has set up is taken away. The file is
    `folder`/`name`.log, at most four of 1 MB; without a folder there is none."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.WARNING)
    take_down_logging()
    console = _Console(sys.stderr)
    console.setLevel(logging.DEBUG if verbose else logging.WARNING)
    console.setFormatter((logging.Formatter if verbose else _Brief)("%(levelname)s: %(message)s"))
    root.addHandler(console)
    if folder is not None:
        file = _PrivateFile(folder / f"{name}.log")
        file.setFormatter(logging.Formatter(_FORMAT))
        root.addHandler(file)


def take_down_logging() -> None:
    """Undo `set_up_logging`, but for the level."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, (_Console, _PrivateFile))]:
        root.removeHandler(handler)
        handler.close()


class _Brief(logging.Formatter):
    """Without a traceback: that is for the file, and for those who ask for everything."""

    def format(self, record: logging.LogRecord) -> str:
        """See `Formatter.format`."""
        record = copy.copy(record)
        record.exc_info = record.exc_text = record.stack_info = None
        return super().format(record)


class _Console(logging.StreamHandler):
    """Ours, to be known again."""
