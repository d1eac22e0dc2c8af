"""Settings as a TOML file: written atomically; an unreadable one is kept aside and defaults are used."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

import platformdirs

from app.settings.migrations import migrate
from app.settings.schema import VERSION, AppSettings, from_values
from engine.paths import open_private, private_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

logger = logging.getLogger(__name__)

_LARGEST_BYTES = 1 << 20


def default_path() -> Path:
    """Where this user's settings are."""
    return Path(platformdirs.user_config_dir("standin", appauthor=False)) / "window.toml"


class SettingsStore:
    """Loads once, saves on each change. Raises nothing: a disk that fails costs memory between runs only."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        self.problem = ""
        self.settings = self._load()

    def save(self, settings: AppSettings) -> None:
        """Keep `settings`; the old file stays whole until the new one is."""
        if settings == self.settings and self.path.exists():
            return
        self.settings = settings
        lines = [f"version = {VERSION}"]
        lines += [f"{name} = {_toml(value)}" for name, value in asdict(settings).items()]
        partial = self.path.with_suffix(".partial")
        try:
            private_folder(self.path.parent)
            with open_private(partial) as file:
                file.write("\n".join(lines) + "\n")
            os.replace(partial, self.path)
        except OSError as error:
            logger.warning("settings cannot be kept: %s", error)

    def _load(self) -> AppSettings:
        try:
            with self.path.open("rb") as file:
                data = file.read(_LARGEST_BYTES)
        except FileNotFoundError:
            return AppSettings()
        except OSError as error:
            return self._put_aside(error)
        try:
            settings, bad = from_values(migrate(tomllib.loads(data.decode("utf-8"))))
        except (ValueError, RecursionError) as error:
            return self._put_aside(error)
        if bad:
            logger.info("settings that are not possible fell back: %s", ", ".join(bad))
        return settings

    def _put_aside(self, error: Exception) -> AppSettings:
        kept = self.path.with_suffix(".unreadable.toml")
        try:
            os.replace(self.path, kept)
            self.problem = f"The settings could not be read; they were kept as {kept} and defaults are used."
        except OSError:
            self.problem = f"The settings in {self.path} could not be read; defaults are used."
        logger.info("%s %s", self.problem, error)
        return AppSettings()


def _toml(value: object) -> str:
    """JSON's numbers and strings are TOML's, but for DEL, and for halves of characters, which UTF-8 does not have."""
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return text.encode("utf-8", "replace").decode("utf-8")
