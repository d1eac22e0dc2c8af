"""Where Standin keeps things on this machine (platformdirs); nothing is created until it is needed."""

from __future__ import annotations

from pathlib import Path

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
