"""The product's own counters against what the one who watched has seen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from judge import UNACCOUNTED_BOUND, Pictures, Row, watched_spans
from marks import SAMPLES
from session import Session

_MARGIN_S = 1.0
_COUNTERS = ("presented", "held", "dropped", "late", "skipped_samples", "camera_dropped")


class Counters:
    """The counters of a session's statistics at any moment, in between linearly."""

    def __init__(self, session: Session) -> None:
        stats = [(at_s, event) for at_s, event in session.events if event.get("type") == "stats"]
        self._at_s = np.array([at_s for at_s, _ in stats])
        self._values = {name: np.array([_value(event, name) for _, event in stats], float) for name in _COUNTERS}

    def between(self, start_s: float, end_s: float) -> dict[str, float]:
        """How much each has grown."""
        return {
            name: float(np.interp(end_s, self._at_s, values) - np.interp(start_s, self._at_s, values))
            for name, values in self._values.items()
        }


def _value(event: dict, name: str) -> int:
    if name == "camera_dropped":
        return event.get("sinks", {}).get("camera", {}).get("dropped", 0)
    return event.get(name, 0)


def judge_account(session: Session, pictures: Pictures) -> list[Row]:
    """Every picture that was held, dropped or lost, in the time that somebody watched."""
    counters = Counters(session)
    told = dict.fromkeys(_COUNTERS, 0.0)
    seen = repeated = skipped = spans = 0
    for start_s, end_s in watched_spans(session, pictures):
        start_s, end_s = start_s + _MARGIN_S, end_s - _MARGIN_S
        if end_s - start_s < 2 * _MARGIN_S:
            continue
        spans += 1
        part = pictures.between(start_s, end_s)
        steps = np.diff(part.number)
        seen += len(part.number)
        repeated += int((steps == 0).sum())
        skipped += int((steps[steps > 1] - 1).sum())
        for name, value in counters.between(start_s, end_s).items():
            told[name] += value
    handed = told["presented"] + told["held"]
    lost = told["camera_dropped"]
    not_shown = told["dropped"] + told["skipped_samples"] / SAMPLES
    tolerance = max(UNACCOUNTED_BOUND * handed, 6 * spans)
    return [
        _row("handed over, less those the camera missed", handed - lost, "seen", seen, tolerance),
        _row("held", told["held"], "seen again", repeated, tolerance),
        _row("never shown (late, dropped, missed)", not_shown + lost, "numbers missing", skipped, tolerance),
    ]


def _row(what: str, told: float, seen_as: str, seen: int, tolerance: float) -> Row:
    return Row(
        what=f"pictures {what}", found=f"{told:.0f} told, {seen} {seen_as}", bound=f"+-{tolerance:.0f}",
        holds=abs(told - seen) <= tolerance,
    )  # fmt: skip


_NOTABLE_GAP_S, _NOTABLE_PICTURES = 0.09, 6


def notable_moments(session: Session, pictures: Pictures) -> list[str]:
    """Longer gaps, stretches of one picture and jumps of the numbers, each with its time and the fault before it."""
    part = pictures.between(session.start_s, session.end_s)
    gaps_s, steps = np.diff(part.at_s), np.diff(part.number)
    changes = np.flatnonzero(np.concatenate([[True], steps != 0, [True]]))
    told = [
        (int(index) + 1, f"a gap of {1000 * gaps_s[index]:.0f} ms") for index in np.flatnonzero(gaps_s > _NOTABLE_GAP_S)
    ]
    is_jump = (np.abs(steps - 1) > _NOTABLE_PICTURES) & (steps != 0)
    told += [(int(index) + 1, f"from number {part.number[index]} to {part.number[index + 1]}")
             for index in np.flatnonzero(is_jump)]  # fmt: skip
    told += [(int(start), f"{end - start} times number {part.number[start]}")
             for start, end in pairwise(changes) if end - start > _NOTABLE_PICTURES]  # fmt: skip
    return [_moment(session, float(part.at_s[index]), what) for index, what in sorted(told)]


def _moment(session: Session, at_s: float, what: str) -> str:
    before = [h for h in session.happened if h.start_s <= at_s]
    after = f", {at_s - before[-1].start_s:.2f} s into or after: {before[-1].fault.name}" if before else ""
    return f"{at_s - session.start_s:7.2f} s: {what}{after}"
