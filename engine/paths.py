"""Where Standin keeps things on this machine (platformdirs); nothing is created until it is needed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO

import platformdirs

_APP = "standin"


def data_folder() -> Path:
    """Models, portraits and what is stored with them."""
    return Path(platformdirs.user_data_dir(_APP, appauthor=False))


def cache_folder() -> Path:
    """What can be made again."""
    return Path(platformdirs.user_cache_dir(_APP, appauthor=False))


def log_folder() -> Path:
    """Log files, rotated."""
    return Path(platformdirs.user_log_dir(_APP, appauthor=False))


def recordings_folder() -> Path:
    """The user's Videos folder, or the home folder where a system has none."""
    videos = Path(platformdirs.user_videos_dir())
    return videos if videos.is_dir() else Path.home()


def annotations_folder() -> Path:
    """Face geometry and handles, one JSON file per portrait and generator."""
    return data_folder() / "portraits" / "annotations"


def models_folder() -> Path:
    """Downloaded models, one folder each; see `engine.model_store`."""
    return data_folder() / "models"


def expanded(path: str | Path) -> Path:
    """`path` with the user's folder for a leading `~`; as it is where there is no such user (`Path.expanduser` would
    raise RuntimeError)."""
    return Path(os.path.expanduser(path))


def private_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it for this user alone; one of ours that is there already is closed to
    others. Windows keeps others out of a profile by itself. Raises `OSError`."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    own = (data_folder(), cache_folder(), log_folder(), Path(platformdirs.user_config_dir(_APP, appauthor=False)))
    if any(folder.is_relative_to(place) for place in own):
        with contextlib.suppress(OSError):  # a shared cache may belong to somebody else
            folder.chmod(0o700)


def open_private(path: Path) -> IO[str]:
    """`path` for writing UTF-8 from its beginning, readable by this user alone. Raises `OSError`."""
    path.unlink(missing_ok=True)  # an older one would keep its rights
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(handle, "w", encoding="utf-8")


def write_private(path: Path, text: str) -> None:
    """Put `text` in the place of what `path` holds, whole or not at all, for this user alone. Raises `OSError`."""
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    private_folder(path.parent)
    try:
        with open_private(draft) as file:
            file.write(text)
        os.replace(draft, path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
