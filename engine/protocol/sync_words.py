"""What a sync test has found, in words; the same on the command line and in the window."""

from __future__ import annotations

from engine.protocol.messages import SyncMeasured

EARLY_MS, LATE_MS = 45.0, -125.0
"""What people notice, ITU-R BT.1359-1; sound early is above 0."""


def told(measured: SyncMeasured) -> str:
    """What was found, for a person."""
    offset_ms = measured.offset_ms
    side = "in time" if abs(offset_ms) < 0.5 else "early" if offset_ms > 0 else "late"
    verdict = "nobody notices that" if LATE_MS < offset_ms < EARLY_MS else "people would notice"
    text = f"Lip sync: {offset_ms:+.0f} ms (the sound is {side}; {verdict}). "
    text += f"{measured.heard} of {measured.played} clicks heard, spread {measured.spread_ms:.1f} ms.\n"
    moved = f"{abs(measured.correction_ms):.0f} ms {'later' if measured.correction_ms >= 0 else 'sooner'}"
    if measured.is_stored:
        return text + f"Stored: from now on this output plays the voice {moved} than without a correction."
    return text + f"Not stored: the voice would have to be played {moved} than without a correction."
