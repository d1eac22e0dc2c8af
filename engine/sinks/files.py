"""Files that the user asked for: checked before work begins, explained when they cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from engine.errors import OutputError

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
"""No space on the disk, or none left of the user's share of it (Windows knows no such error)."""


def check_writable(path: Path, *, may_replace: bool) -> None:
    """Raise `OutputError` unless a file can be made at `path` now."""
    try:
        _check_place(path, may_replace=may_replace)
        probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
        # Asking the system for permission bits is not enough: read-only and full disks show only when written to.
        with probe.open("wb"):
            pass
        probe.unlink()
        if path.exists():
            path.open("ab").close()
    except OSError as error:
        raise output_error(path, error) from error
    except ValueError as error:  # a null character, say
        raise OutputError(
            f"{str(path)!r} is no name for a file.",
            code="output.failed",
            hint="Choose another name.",
            detail=str(error),
        ) from error


def _check_place(path: Path, *, may_replace: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", code="output.folder", hint="Give the name of a file in it.")
    if path.exists() and not may_replace:
        raise OutputError(
            f"{path} exists already.",
            code="output.exists",
            hint="Choose another name, or allow replacing it.",
        )
    if not path.parent.is_dir():
        raise OutputError(
            f"The folder {path.parent} does not exist.",
            code="output.no_folder",
            hint="Create it, or choose another.",
        )


def output_error(path: Path, error: OSError) -> OutputError:
    """The sentence for a failed write to `path`."""
    if error.errno in _FULL:
        return OutputError(
            f"The disk is full, so {path.name} could not be completed.",
            code="output.disk_full",
            hint=f"Free some space on the disk of {path.parent}, or choose another folder.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(
            f"{path.parent} may not be written to.", code="output.permission", hint="Choose another folder."
        )
    why = error.strerror or str(error)
    return OutputError(f"{path} could not be written: {why}.", code="output.failed", hint="Choose another folder.")
