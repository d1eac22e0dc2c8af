"""A generator that was too slow, kept as it is until it is quick enough or of no more use."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import Cancelled
from engine.generators.base import Progress
from engine.stream.scene import measured_again
from engine.stream.swap import Scene


@dataclass(frozen=True)
class _Kept:
    scene: Scene
    version: int
    economy: int


class Resting:
    """At most one. One thread may `keep` it while another one does the rest."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def keep(self, scene: Scene, version: int, economy: int) -> None:
        """It was made for `version` of the settings, and its n-th economy is what it is to be measured in."""
        self._kept = _Kept(scene, version, economy)

    def measured(self, version: int, progress: Progress) -> Scene | None:
        """It with what it takes now, if it is there and of that version; closed if that raises anything but
        `Cancelled`."""
        kept = self._kept
        if kept is None or kept.version != version:
            return None
        try:
            return measured_again(kept.scene, progress, kept.economy)
        except Cancelled:
            raise
        except BaseException:
            self.close()
            raise

    def release(self) -> None:
        """It is somebody else's now."""
        self._kept = None

    def close(self) -> None:
        """It is of no more use."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.scene.generator.close()
