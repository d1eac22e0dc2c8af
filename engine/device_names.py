"""Names of sound devices that mean the same device, though the system has changed them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CARD = re.compile(r" \(hw:\d+,\d+\)$")
_CUT_AT = 20
"""MME cuts names at 31 characters; shorter ones are whole."""


def bare(name: str) -> str:
    """Without the number of the card, which ALSA gives anew at each start of the computer: "Yeti (hw:2,0)"."""
    return _CARD.sub("", name)


def same_device(wanted: str, names: Iterable[str]) -> str | None:
    """That of `names` which means the wanted device, or None.

    The same name; else the only one that is the same but for the card's number; else one that a host API has cut off;
    else the only one that goes on after the wanted words.
    """
    found = list(dict.fromkeys(names))
    if not wanted or wanted in found:
        return wanted or None
    short = bare(wanted)
    for fits in (
        [name for name in found if bare(name) == short],
        [name for name in found if len(name) > _CUT_AT and wanted.startswith(name)][:1],
        [name for name in found if _begins_with(bare(name), short)],
    ):
        if fits:
            return fits[0] if len(fits) == 1 else None
    return None


def _begins_with(name: str, words: str) -> bool:
    """Whole words: "Web" is no "Webcam"."""
    return name.startswith(words) and not words.endswith(" ") and not name[len(words) : len(words) + 1].isalnum()
