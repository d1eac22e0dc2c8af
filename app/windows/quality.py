"""What the picture makes do with on a computer that is too slow for all of it, in words."""

from __future__ import annotations

from app.widgets.status_note import StatusNote
from engine.protocol import messages as m

_TITLES = {"standby": "Lower quality: the {step} stands in", "card": "Lower quality: a still picture is shown"}
_BACK = "It gets better by itself as soon as the computer keeps up; closing other programs helps."


def show_quality(note: StatusNote, quality: m.QualityStats) -> None:
    """The present step, for as long as it is not the full one: what, why, and how to get back."""
    if quality.kind == "full":
        note.clear()
        return
    title = _TITLES.get(quality.kind, "Lower quality: {step}").format(step=quality.step)
    note.tell("warn", title, f"{quality.reason} {_BACK}".strip())


def pace_words(quality: m.QualityStats) -> str:
    """How long the picture takes of the time that there is for it; empty where nobody measures that."""
    if quality.budget_ms <= 0 or quality.chunk_ms <= 0:
        return ""
    return f"   made in {quality.chunk_ms:.0f} of {quality.budget_ms:.0f} ms"
