"""Sets Standin up and starts it, on a machine that has nothing but Python.

    python3 packaging/bootstrap.py run             set up, then open the window (no display: the demonstration)
    python3 packaging/bootstrap.py test [ARGS]     set up for development, then the test suite, or pytest with ARGS
    python3 packaging/bootstrap.py setup [--test]  the set-up alone

Standard library only. This file also parses on the Pythons it refuses, so that they get a sentence and no traceback.
"""

import shutil
import subprocess
import sys

OLDEST = (3, 10)
NEWEST = (3, 13)


def find_supported_python():
    """The command of another Python on this machine that Standin can use, or None."""
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which("python3.%d" % minor)  # noqa: UP031 - f-strings are unknown to the oldest Pythons
        if found and _runs(found):
            return found
    return None


def _runs(python):
    """A command that is there may still be a stub that starts nothing."""
    try:
        return subprocess.call([python, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def main():
    """Run on this Python if it will do, else on another one that will; returns the exit status."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        import setup_commands

        return setup_commands.main(sys.argv[1:])
    version = ".".join(str(part) for part in sys.version_info[:2])
    other = find_supported_python()
    if other:
        print("This is Python " + version + "; using " + other + " instead.")
        sys.stdout.flush()
        return subprocess.call([other] + sys.argv)  # noqa: RUF005
    print(
        "Standin needs Python 3.10 to 3.13 and this is " + version + ". Install Python 3.12, then run: "
        "python3.12 packaging/bootstrap.py " + " ".join(sys.argv[1:]),
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
