"""Hours on real devices, in minutes: the whole product under a script of faults, measured from outside.

    python3 tests/soak/run.py --minutes N [--figures FILE] [--keep FOLDER] [--judge FOLDER]

First `standin live` with a microphone, a virtual microphone, a PipeWire camera and a recording; then the window with
its engine. A real program watches the camera and another one listens to the virtual microphone all along. Ends with
one table and status 0 if all held, 1 if not; where there are no sound or camera servers, it says so and ends with 0.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
LEAST_MINUTES = 2.5


def main() -> int:
    """The exit status."""
    # In the background of a shell it is ignored, and so it would be by the product, which is asked to end that way.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description="Run the whole product under faults for a while.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, start and end included")
    parser.add_argument("--figures", type=Path, help="keep what was measured there, as JSON")
    parser.add_argument("--keep", type=Path, help="keep every log and recording in this folder")
    parser.add_argument("--judge", type=Path, metavar="FOLDER", help="only judge again what was kept there")
    arguments = parser.parse_args()
    if arguments.minutes < LEAST_MINUTES:
        parser.error(f"the faults need {LEAST_MINUTES:g} minutes")
    if PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
        os.execv(str(PYTHON), [str(PYTHON), *sys.argv])
    if arguments.judge is not None:
        import report
        from session import kept_run

        return report.tell(kept_run(arguments.judge), arguments.figures)
    return soak(arguments.minutes, arguments.figures, arguments.keep)


def soak(minutes: float, figures: Path | None, keep: Path | None) -> int:
    """Run, judge, tell."""
    try:
        import report
        from session import ProductFailed, Soak
        from stage import CannotRun, check_computer

        check_computer()
    except ModuleNotFoundError as error:
        print(f"skipped: {error.name} is not installed: python3 packaging/bootstrap.py setup --test")
        return 0
    except CannotRun as reason:
        print(f"skipped: {reason}")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="standin-soak"))  # short: a socket's path has 107 letters at most
    run = Soak(folder, minutes)
    try:
        run.run()
        return report.tell(run, figures)
    except CannotRun as reason:
        print(f"skipped: {reason}")
        return 0
    except ProductFailed as reason:
        report.tell(run, figures)
        print(f"failed: {reason}")
        return 1
    finally:
        if keep is not None:
            run.keep(keep)
        run.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
