"""Music told from speech: notes keep their pitch, voices never do.

What is compared is the fine structure of the spectrum, the comb of partials without its envelope, now and 80 ms before.
While a note sounds it stays as it is, however fast the note dies away; in speech the pitch glides, and the higher
partials with it by many times as much. It works for several notes at once, for which there is no one pitch to follow.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from engine.generators.puppet.voice_features import HopFeatures

_BACK_HOPS = 8
_LIKE, _SAME = 0.55, 0.85
"""Likeness of two fine structures from which they may be one note's, and at which they surely are."""

_MEMORY_HOPS = 110.0
_FEW, _MOST = 0.19, 0.29
"""Share of steady hops, of those with a pitch, from which it may be music, and at which it surely is. Over the last
second it is 0.0 to 0.16 in most speech and 0.25 to 0.9 in music."""

_NOTES_MEMORY_HOPS = 800.0
_SOME_NOTES, _MANY_NOTES = 1.5, 2.6
"""One held tone may be somebody's long "aah"; music has several, counted over about eight seconds."""

_OTHER_NOTE = 0.3
"""Likeness below which a note is another than the one before; a held voice that wavers stays above."""

_DECAY_DB = 0.02
_ABOVE_DB = 3.0


class MusicDetector:
    """How much of what is heard is music, and how loud that is; fed with every hop (10 ms)."""

    def __init__(self) -> None:
        self._fine: deque[np.ndarray] = deque(maxlen=_BACK_HOPS)
        self._levels_db: deque[float] = deque(maxlen=_BACK_HOPS)
        self._share = 0.0
        self._hops = 0
        self._notes = 0.0
        self._note: np.ndarray | None = None
        self._level_db = -120.0

    def update(self, hop: HopFeatures, has_pitch: bool) -> float:
        """Take one hop; 0 .. 1."""
        steady = 0.0
        if has_pitch and len(self._fine) == _BACK_HOPS:
            likeness = float(np.dot(hop.fine, self._fine[0]))
            steady = min(max((likeness - _LIKE) / (_SAME - _LIKE), 0.0), 1.0)
            self._hops += 1
            self._share += (steady - self._share) / min(self._hops, _MEMORY_HOPS)
        self._notes -= self._notes / _NOTES_MEMORY_HOPS
        self._level_db -= _DECAY_DB
        self._fine.append(hop.fine)
        self._levels_db.append(hop.level_db)
        if steady > 0.5:
            self._hear_note(hop.fine)
        several = min(max((self._notes - _SOME_NOTES) / (_MANY_NOTES - _SOME_NOTES), 0.0), 1.0)
        return several * min(max((self._share - _FEW) / (_MOST - _FEW), 0.0), 1.0)

    def _hear_note(self, fine: np.ndarray) -> None:
        """A note has been sounding for 80 ms; a voice before the music does not come here, nor its level."""
        self._level_db = max(self._level_db, *self._levels_db)
        if self._note is None or float(np.dot(fine, self._note)) < _OTHER_NOTE:
            self._notes += 1.0
            self._note = fine

    def edge_db(self) -> float:
        """Level that a voice before this music exceeds."""
        return self._level_db + _ABOVE_DB
