"""The `.venv` beside the checkout: made, mended, brought up to date, and left alone when it already is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setup_report import SetupError, last_lines, run_quietly, say

TORCH = "torch==2.13.0"
"""Pinned and installed before everything else: a plain torch takes the newest one with gigabytes of CUDA."""

RNNOISE = "pyrnnoise==0.4.5"
"""For the tests of noise suppression, of which the engine loads nothing but the library inside: alone it is 13 MB, with
what it asks for (plotting, reading of files) two or three times as much."""

_STAMP_NAME = "standin-setup.json"
_LOG_NAME = "standin-setup.log"
_NO_NETWORK = re.compile(
    r"name resolution|getaddrinfo failed|NewConnectionError|Failed to establish a new connection|"
    r"Network is unreachable|from versions: none|nodename nor servname|"
    r"ConnectTimeout|ProxyError|SSLError|Max retries exceeded"
)


def ensure(root: Path, *, for_tests: bool) -> Path:
    """Make the environment right and return its Python. Raises `SetupError` with a sentence."""
    folder = root / ".venv"
    python = venv_python(folder)
    extras = {"gui", "gpu", "test"} if for_tests else {"gui"}
    project = _project_key(root)
    done = _read_stamp(folder)
    if done.get("project") == project and extras <= set(done["extras"]) and is_whole(python):
        return python
    _make_or_mend(folder)
    extras |= set(done.get("extras", ()))
    # Without its stamp, an environment that is interrupted from here on is finished by the next run.
    (folder / _STAMP_NAME).unlink(missing_ok=True)
    if "test" in extras:
        say(f"installing {TORCH} (a few hundred megabytes, once)")
        _pip_install(folder, TORCH)
    say(f"installing Standin and its libraries ({', '.join(sorted(extras))}) into {folder}")
    _pip_install(folder, "--editable", f"{root}[{','.join(sorted(extras))}]")
    if "test" in extras:
        _install_if_possible(folder, RNNOISE)
    _write_stamp(folder, {"project": project, "extras": sorted(extras)})
    return python


def venv_python(folder: Path) -> Path:
    """Where a virtual environment keeps its Python on this system."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def _project_key(root: Path) -> str:
    """Changes with the project's dependencies and with its folder, which the installed command names."""
    digest = hashlib.sha256((root / "pyproject.toml").read_bytes())
    digest.update(f"{TORCH} {RNNOISE}".encode())
    digest.update(str(root).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _read_stamp(folder: Path) -> dict:
    try:
        stamp = json.loads((folder / _STAMP_NAME).read_text(encoding="utf-8"))
        return {"project": str(stamp["project"]), "extras": [str(extra) for extra in stamp["extras"]]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_stamp(folder: Path, stamp: dict) -> None:
    temporary = folder / (_STAMP_NAME + ".part")
    temporary.write_text(json.dumps(stamp), encoding="utf-8")
    os.replace(temporary, folder / _STAMP_NAME)


def is_whole(python: Path) -> bool:
    """Whether the environment starts, has pip, and is of a Python that Standin supports.

    A system upgrade can pull the interpreter away from under it, an interrupted set-up can leave it without pip.
    """
    probe = (
        "import sys, importlib.util as u; "
        "sys.exit(not ((3, 10) <= sys.version_info[:2] <= (3, 13) and u.find_spec('pip')))"
    )
    try:
        status = subprocess.call([str(python), "-c", probe], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return status == 0


def _make_or_mend(folder: Path) -> None:
    if is_whole(venv_python(folder)):
        return
    is_broken = folder.exists()
    say(f"{'mending' if is_broken else 'making'} the environment {folder}")
    try:
        if is_broken:
            shutil.rmtree(folder)
        run_quietly([sys.executable, "-m", "venv", str(folder)])
    except subprocess.CalledProcessError as error:
        raise SetupError(f"The environment {folder} could not be made.", output=last_lines(error.output)) from error
    except OSError as error:
        raise SetupError(f"The environment {folder} could not be made: {error}.") from error


def _pip_install(folder: Path, *what: str) -> None:
    command = [str(venv_python(folder)), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *what]
    try:
        run_quietly(command, log=folder / _LOG_NAME, env=pip_environment())
    except subprocess.CalledProcessError as error:
        raise explain_pip(error.output, folder / _LOG_NAME) from error


def _install_if_possible(folder: Path, package: str) -> None:
    """Alone, without what it asks for. Where there is none for this system, its tests are skipped."""
    try:
        _pip_install(folder, "--no-deps", "--only-binary=:all:", package)
    except SetupError as error:
        say(f"{package} is left out, and its tests are skipped: {error}")


def pip_environment() -> dict[str, str]:
    """The user's settings for pip, less those that would send packages elsewhere or in another language."""
    dropped = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**environment, "PYTHONIOENCODING": "utf-8"}


def explain_pip(output: str, log: Path | None = None) -> SetupError:
    """The sentence for what pip said when it failed."""
    if "No space left on device" in output:
        return SetupError("The disk is full. Free about 2 GB, then run the same command again.")
    if _NO_NETWORK.search(output):
        return SetupError(
            "The Python packages cannot be downloaded: their index is out of reach. "
            "Check the network (and proxy settings), then run the same command again; it goes on from here."
        )
    where = f" All of its output is in {log}." if log else ""
    return SetupError(f"pip could not install what Standin needs.{where}", output=last_lines(output))
