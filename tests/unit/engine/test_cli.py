"""How the command ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import atexit, sys, threading, time
from engine import cli
atexit.register(print, "and finalized")
threading.Thread(target=time.sleep, args=(60,), name=sys.argv[1], daemon=True).start()
cli._run = lambda arguments: 3
print("done")
sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    ("thread", "expected"), [("loader", "done\n"), ("generator", "done\n"), ("other", "done\nand finalized\n")]
)
def test_thread_that_a_library_holds_does_not_take_the_exit_status_with_it(thread, expected):
    """Finalizing Python under a thread that is inside torch aborts the process."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, thread], stdout=subprocess.PIPE, timeout=60, check=False, text=True
    )
    assert (done.returncode, done.stdout) == (3, expected)
