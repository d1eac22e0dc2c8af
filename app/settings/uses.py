"""What `standin bench --recommend` has found for this computer, as choices for the settings page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from app.settings.schema import CHOICES
from engine.tuning.store import load

_TITLES = {
    "conversation": "Conversation: least delay",
    "balanced": "Balanced",
    "presentation": "Presentation: best picture",
}


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One use: its `title`, what it means here in `words`, and the settings that it `changes`."""

    use: str
    title: str
    words: str
    changes: dict[str, Any]


def offers(found: dict[str, Any] | None = None) -> list[Offer]:
    """Of `found`, by default of what was kept last; what cannot be read or set is left out."""
    best = (found if found is not None else load() or {}).get("best", {})
    if not isinstance(best, dict):
        return []
    made = [_offer(use, best[use]) for use in _TITLES if isinstance(best.get(use), dict)]
    return [offer for offer in made if offer is not None]


def _offer(use: str, estimate: dict[str, Any]) -> Offer | None:
    try:
        width, height = estimate["canvas"]
        changes = {
            "use": use,
            "generator": estimate["generator"],
            "generator_options": json.dumps(estimate["options"], sort_keys=True),
            "canvas": f"{width}x{height}",
            "fps": estimate["fps"],
        }
        words = _words(estimate)
    except (KeyError, TypeError, ValueError):
        return None
    is_possible = all(value in CHOICES.get(field, (value,)) for field, value in changes.items())
    return Offer(use=use, title=_TITLES[use], words=words, changes=changes) if is_possible else None


def _words(estimate: dict[str, Any]) -> str:
    words = str(estimate["words"])
    memory = estimate.get("memory_bytes")
    parts = [
        words[:1].upper() + words[1:],
        f"{1000 * float(estimate['delay_s']):.0f} ms behind you",
        f"up to {float(estimate['frames_per_s']):.0f} frames a second",
        *([] if memory is None else [f"{float(memory) / 1e9:.0f} GB of GPU memory"]),
    ]
    return ", ".join(parts) + ("." if estimate.get("is_measured") else " (predicted).")
