"""Finds the pictures and sounds that come with Standin, in a checkout and in an installed copy alike."""

from __future__ import annotations

from pathlib import Path

from engine.errors import StandinError

_PACKAGE_FOLDER = Path(__file__).resolve().parent


def asset_path(name: str) -> Path:
    """The file or folder `name` ("portraits/index.json", forward slashes) under `assets`.

    Raises `StandinError` (code `assets.missing`) when it is not there, and ValueError for a name that leaves the
    folder. The path is a real one: an installed copy is never a zip file.
    """
    folder = _assets_folder()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise ValueError(f"{name!r} is outside the assets folder")
    if not path.exists():
        raise StandinError(
            f"A file that belongs to Standin is missing: {path}.",
            code="assets.missing",
            hint="Install Standin again.",
        )
    return path


def _assets_folder() -> Path:
    """A wheel carries the assets inside the package (pyproject.toml), a checkout keeps them beside it."""
    installed = _PACKAGE_FOLDER / "_assets"
    return installed if installed.is_dir() else _PACKAGE_FOLDER.parent / "assets"
