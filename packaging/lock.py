"""Pins what a bundle is made of: `python packaging/lock.py` writes packaging/requirements/bundle.txt anew.

One file for all systems and Python 3.11 to 3.13, every version with the SHA-256 of each of its files, so that
`pip install --require-hashes -r packaging/requirements/bundle.txt` takes nothing else. Needs `pip install uv`, which
asks the package index for newer versions; look at the difference before it is committed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "packaging" / "requirements" / "bundle.txt"


def main() -> int:
    """uv's exit status; 2 where uv is missing."""
    uv = shutil.which("uv")
    if uv is None:
        print("uv is not here: pip install uv", file=sys.stderr)
        return 2
    LOCK.parent.mkdir(exist_ok=True)
    command = [uv, "pip", "compile", "pyproject.toml", "--extra", "gui", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--upgrade", "--no-annotate", "--quiet", "--output-file", str(LOCK)]
    environment = {**os.environ, "UV_CUSTOM_COMPILE_COMMAND": "python packaging/lock.py"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
