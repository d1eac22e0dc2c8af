"""`python -m app` opens the window."""

from __future__ import annotations

import sys


def main() -> int:
    """Exit status 0 when the window was closed."""
    from app.bootstrap import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
