"""A request that another generator take over, on its way to the thread that makes frames; and those that made way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import Cancelled, GeneratorError, StandinError
from engine.generators.base import Generator

logger = logging.getLogger(__name__)

_SOON_S = 0.02
"""Most generators are closed in less."""


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


class Handover:
    """Brings swaps from whoever asks to the thread that makes frames, which is told with `wake`. One asks at a time."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._pending: Swap | None = None
        self._has_ended = False

    @property
    def is_waiting(self) -> bool:
        """Whether a swap has not been taken yet."""
        return self._pending is not None

    @property
    def has_ended(self) -> bool:
        """Whether nothing is taken any more."""
        return self._has_ended

    def ask(self, swap: Swap, timeout_s: float) -> None:
        """Wait until it is done. Raises `GeneratorError` if it is not taken within that time, what it was refused
        with, or `Cancelled` after `end`."""
        with self._lock:
            if self._has_ended:
                raise Cancelled("The session has ended.")
            self._pending = swap
        self._wake()
        if swap.wait(timeout_s):
            return
        with self._lock:
            is_waiting = self._pending is swap
            if is_waiting:
                self._pending = None  # the caller closes its scenes: they must not take over later
        if is_waiting or not swap.wait(timeout_s):
            raise GeneratorError(
                f"The new picture could not take over within {timeout_s:g} seconds.", code="generator.busy"
            )

    def take(self) -> Swap | None:
        """What has been asked for; the taker answers it."""
        with self._lock:
            swap, self._pending = self._pending, None
        return swap

    def end(self) -> None:
        """Nothing is taken any more: whoever waits is told."""
        with self._lock:
            self._has_ended = True
            swap, self._pending = self._pending, None
        if swap is not None:
            swap.answer(Cancelled("The session has ended."))


class Retired:
    """Generators that have made way, until they are closed; of the thread that makes frames."""

    def __init__(self) -> None:
        self._generators: list[Generator] = []
        self._closers: list[threading.Thread] = []

    def add(self, scene: Scene) -> None:
        """Its generator will be closed, once."""
        if all(scene.generator is not retired for retired in self._generators):
            self._generators.append(scene.generator)

    def close_beside(self) -> None:
        """Close them now, without waiting for what takes long: the processes of one that has died may need seconds to
        give a GPU back, and somebody waits for the next picture."""
        self._closers = [closer for closer in self._closers if closer.is_alive()]
        retired, self._generators = self._generators, []
        for generator in retired:
            closer = threading.Thread(target=_close, args=(generator,), name="generator-close", daemon=True)
            closer.start()
            closer.join(_SOON_S)
            self._closers.append(closer)

    def close(self) -> None:
        """Close them, and wait for all that is still being closed."""
        self.close_beside()
        for closer in self._closers:
            closer.join()


def _close(generator: Generator) -> None:
    try:
        generator.close()
    except Exception:  # one that failed may not even end properly; the session goes on
        logger.exception("the generator %s could not be closed", generator.spec.name)
