"""The `standin` command: parse, dispatch, explain failures in one sentence.

Exit status: 0 done, 1 a failure that has been explained, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module

from engine.errors import StandinError, UsageError
from engine.log import set_up_logging
from engine.paths import log_folder

_COMMANDS = ("render", "live", "demo", "devices", "sync", "doctor", "models", "bench", "serve")
"""Each is a module in `engine.commands` with `add_to(subparsers)` and `run(arguments) -> int`."""

_MAY_BE_LEFT_BEHIND = ("generator", "loader")

_EPILOG = """examples:
  standin                                                     open the window
  standin live --portrait me.jpg --mic "Blue Yeti"            be me.jpg in your next call
  standin render --portrait me.jpg --audio talk.wav --out talk.mp4
  standin doctor                                              what is missing, and how to get it

`standin COMMAND --help` explains one command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; no arguments open the window."""
    status = _run(arguments)
    if _left_behind():
        atexit.register(_leave_without_them, status)
    return status


def _run(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    set_up_logging(verbose=chosen.verbose, folder=log_folder())
    try:
        if chosen.command is None:
            return _open_window()
        return int(import_module(f"engine.commands.{chosen.command}").run(chosen))
    except StandinError as error:
        _explain(error, as_json=getattr(chosen, "json", False))
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output went away (`standin devices | head`): nothing is wrong, nothing more to say.
        sys.stderr.close()
        return 0


def _left_behind() -> list[threading.Thread]:
    """Threads that a session could not wait for, because a library of the generator's holds them."""
    return [thread for thread in threading.enumerate() if thread.daemon and thread.name in _MAY_BE_LEFT_BEHIND]


def _leave_without_them(status: int) -> None:
    """Python would end such a thread inside that library, and C++ then aborts the process."""
    if _left_behind():
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # whoever reads may have gone
                stream.flush()
        os._exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="standin",
        description="A talking portrait where your webcam would be.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more about what happens, on standard error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name in _COMMANDS:
        import_module(f"engine.commands.{name}").add_to(commands)
    return parser


def _open_window() -> int:
    """The window is a program of its own: the engine never loads Qt."""
    status = subprocess.call([sys.executable, "-m", "app"])
    return 1 if status else 0


def _explain(error: StandinError, *, as_json: bool) -> None:
    logging.getLogger(__name__).debug("failed", exc_info=error)
    if as_json:
        reason = {"code": error.code, "message": error.message, "hint": error.hint}
        print(json.dumps({"error": reason}))
    print(f"standin: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
