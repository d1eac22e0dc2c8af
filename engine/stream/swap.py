"""A request that another generator take over, on its way to the thread that makes frames."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from engine.errors import GeneratorError, StandinError
from engine.generators.base import Generator


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A prepared generator, what its frames are shown on (`canvas` travels with each frame), and how it did while it
    was warmed up: `generate_s` seconds per chunk, and `first_frame_s` seconds until its frames could be shown at their
    pace without waiting for one of them."""

    generator: Generator
    canvas: Any
    generate_s: float = 0.0
    first_frame_s: float = 0.0


class Swap:
    """What is to change between two chunks, all of it or nothing: another `scene`, another `standby` (which also takes
    over where the old one is running), or both. A `scene` that is the running generator on another canvas is refused
    once that generator does not run any more: `is_same_generator`. With `keeps_replaced`, the generator that made way
    is not closed, but handed to who asked, as `replaced`.

    One thread asks and waits, the other one answers once.
    """

    def __init__(
        self,
        scene: Scene | None,
        standby: Scene | None,
        *,
        is_same_generator: bool = False,
        keeps_replaced: bool = False,
    ) -> None:
        self.scene, self.standby, self.is_same_generator = scene, standby, is_same_generator
        self.keeps_replaced = keeps_replaced
        self.replaced: Scene | None = None
        self._answered = threading.Event()
        self._refusal: StandinError | None = None

    def is_outdated(self, running: Generator) -> bool:
        """Whether it was meant for another generator than the one that runs."""
        return self.is_same_generator and self.scene is not None and self.scene.generator is not running

    def answer(self, refusal: StandinError | None = None) -> None:
        """It has been done, or will never be."""
        self._refusal = refusal
        self._answered.set()

    def wait(self, timeout_s: float) -> bool:
        """Whether there was an answer within that time; raises it if it was a refusal."""
        if not self._answered.wait(timeout_s):
            return False
        if self._refusal is not None:
            raise self._refusal
        return True


class Outdated(GeneratorError):
    """The generator that was to be shown on another canvas does not run any more."""
