"""What the doctor can find: the code of each cause with its texts, read from `assets/texts/doctor.LANGUAGE.json`.

A text may differ from system to system: "camera.no_driver@win32" goes before "camera.no_driver" on Windows. Another
language is another file with the same codes; what it lacks is said in English.
"""

from __future__ import annotations

import json
import locale
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from engine.assets import asset_path
from engine.errors import StandinError

STATES = ("good", "limited", "bad")
_TEXTS = "texts/doctor.{}.json"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One answer. `name` is what was examined, `state` "good", "limited" (works with less) or "bad" (something will
    not work), `code` names the cause, `message` says it, `hint` is the one thing to do. `fix` says who does it:
    "automatic" (`engine.diagnosis.fixes`), "command" (`command` is to be typed), or "" (by hand)."""

    name: str
    state: str
    message: str
    hint: str = ""
    code: str = ""
    title: str = ""
    fix: str = ""
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cause: texts with {placeholders}."""

    state: str
    title: str
    message: str
    action: str


class Catalogue:
    """All entries in one language for one system."""

    def __init__(self, platform: str, language: str = "en") -> None:
        self._platform = "linux" if platform.startswith("linux") else platform
        self._texts: dict[str, Mapping[str, str]] = dict(_texts("en"))
        if language != "en":
            for code, texts in _texts(language).items():
                if code in self._texts:
                    self._texts[code] = {**self._texts[code], **texts}

    def codes(self) -> list[str]:
        """Every code that can be found on this system."""
        plain = {code.partition("@")[0] for code in self._texts}
        return sorted(code for code in plain if self._key(code) in self._texts)

    def entry(self, code: str) -> Entry:
        """KeyError for what is not in the catalogue."""
        return Entry(**self._texts[self._key(code)])

    def found(self, area: str, code: str, /, *, state: str = "", command: str = "", **values: Any) -> Finding:
        """The finding in words; `values` fill the placeholders."""
        entry = self.entry(code)
        message, action = (text.format_map(_Filled(values, command=command)) for text in (entry.message, entry.action))
        state = state or entry.state
        return Finding(
            name=area, state=state, code="" if state == "good" else code, title=entry.title, message=message,
            hint=action, command=command,
        )  # fmt: skip

    def _key(self, code: str) -> str:
        special = f"{code}@{self._platform}"
        return special if special in self._texts else code


class _Filled(dict[str, Any]):
    """A placeholder without a value is left out rather than failing the doctor."""

    def __missing__(self, key: str) -> str:
        return "?"


@lru_cache(maxsize=4)
def _texts(language: str) -> dict[str, dict[str, str]]:
    try:
        path = asset_path(_TEXTS.format(language))
    except StandinError:
        if language == "en":
            raise
        return {}
    return json.loads(path.read_text(encoding="utf-8"))["texts"]


def preferred_language() -> str:
    """Two letters, from the user's locale."""
    try:
        name = locale.getlocale(getattr(locale, "LC_MESSAGES", locale.LC_CTYPE))[0] or "en"
    except ValueError:
        return "en"
    language = name.partition("_")[0].lower()
    return language if len(language) == 2 else "en"
