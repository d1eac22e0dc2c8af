"""The three commands of bootstrap.py, and the order in which their steps come."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import face_models
import python_environment
import system_libraries
from setup_report import SetupError, say

ROOT = Path(__file__).resolve().parent.parent
_MOST_WORKERS = 4
"""Each takes up to 1.5 GB."""
_PASSED, _FAILED = 0, 1
"""How pytest ends when all tests ran."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; a failure is one sentence on standard error and exit status 1."""
    chosen, pytest_arguments = _parse(arguments)
    try:
        if chosen.command == "run":
            return run()
        if chosen.command == "test":
            return test(pytest_arguments)
        set_up(for_tests=chosen.test, for_window=True)
        say("ready. Start with: python3 packaging/bootstrap.py run")
        return 0
    except SetupError as error:
        if error.output:
            print(error.output, file=sys.stderr)
        print(f"standin: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstandin: stopped; the same command goes on from here.", file=sys.stderr)
        return 1


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="bootstrap.py", description="Set Standin up and start it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="set up, then open the window (or the demonstration, without a display)")
    commands.add_parser("test", help="set up for development, then the tests; more arguments go to pytest")
    setup = commands.add_parser("setup", help="the set-up alone")
    setup.add_argument("--test", action="store_true", help="with everything that the tests need")
    chosen, rest = parser.parse_known_args(arguments)
    if rest and chosen.command != "test":
        parser.error(f"unknown argument: {rest[0]}")
    return chosen, rest[1:] if rest[:1] == ["--"] else rest


def set_up(*, for_tests: bool, for_window: bool) -> Path:
    """Everything in place, or `SetupError`. Returns the Python of the environment.

    System libraries come first: nothing is downloaded for a machine on which it could not run.
    """
    is_new = not python_environment.is_whole(python_environment.venv_python(ROOT / ".venv"))
    system_libraries.ensure(for_tests=for_tests, for_window=for_window, for_new_environment=is_new)
    python = python_environment.ensure(ROOT, for_tests=for_tests)
    face_models.ensure(python)
    return python


def run() -> int:
    """The window where there is a display, the headless demonstration elsewhere."""
    window = has_display(os.environ, sys.platform)
    python = set_up(for_tests=False, for_window=window)
    if window:
        say("opening the window")
        return _call([str(python), "-m", "app"])
    say("there is no display here, so the sample portrait speaks into a clip instead of a window")
    return _call([str(python), "-m", "engine.cli", "demo"])


def test(pytest_arguments: Sequence[str]) -> int:
    """The whole test suite, or what the arguments say; pytest's own exit status, of the first part that fails."""
    python = set_up(for_tests=True, for_window=True)
    say("running the tests")
    first = 0
    pytest = [str(python), "-m", "pytest"]
    for command in [[*pytest, *pytest_arguments]] if pytest_arguments else _parts(pytest, os.cpu_count() or 1):
        status = _call(command, folder=ROOT)
        first = first or status
        if status not in (_PASSED, _FAILED):
            break
    return first


def _parts(pytest: list[str], cores: int) -> list[list[str]]:
    """The whole suite's two runs: what may run side by side, then what lives by the clock. With more workers than cores
    it takes no less: ranks are last in line for the processor."""
    beside = ["-n", str(min(cores, _MOST_WORKERS)), "--max-worker-restart=0", "-m", "not serial"]
    return [[*pytest, *beside], [*pytest, "tests/integration", "-m", "serial"]]


def has_display(environment: os._Environ[str] | dict[str, str], platform: str) -> bool:
    """Whether a window could be seen by somebody."""
    if platform in ("win32", "darwin"):
        return not (environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"))
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def _call(command: Sequence[str], folder: Path | None = None) -> int:
    """Run the job itself with our own terminal; Ctrl-C is the job's to handle."""
    process = subprocess.Popen(list(command), cwd=folder)
    while True:
        try:
            return _exit_status(process.wait())
        except KeyboardInterrupt:
            continue


def _exit_status(status: int) -> int:
    """A job ended by a signal has a negative status, which an exit status cannot be."""
    return 128 - status if status < 0 else status
