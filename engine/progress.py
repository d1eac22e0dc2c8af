"""How long work says how far it is, in every layer."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of long work; raises `Cancelled` from `update` when the work should end."""

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """Say that `done` of `total` `unit` of `stage` is finished; called from the thread that works."""
        ...
