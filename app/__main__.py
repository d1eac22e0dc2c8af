"""`python -m app` opens the window."""

from __future__ import annotations

import sys

from engine.log import set_up_logging
from engine.paths import log_folder

_NO_QT = (
    "standin: the window cannot be opened because PySide6 is missing. "
    'Run python3 packaging/bootstrap.py setup, or: pip install "standin[gui]".'
)


def main() -> int:
    """Exit status 0 when the window was closed, 1 with one sentence where Qt is missing."""
    set_up_logging(folder=log_folder(), name="window")
    try:
        from app.bootstrap import run
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] not in ("PySide6", "shiboken6"):
            raise
        sys.stderr.write(f"{_NO_QT}\n")
        return 1
    return run()


if __name__ == "__main__":
    sys.exit(main())
