"""What a director tells its session, and progress that ends when nobody wants its work any more."""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import Cancelled, StandinError
from engine.generators.base import Progress
from engine.media import Notice
from engine.stream.swap import Scene


class Stage:
    """What a director tells its session; called from any thread."""

    def on_notices(self, notices: list[Notice]) -> None:
        """Something that a person should know."""
        raise NotImplementedError

    def on_error(self, error: StandinError) -> None:
        """Something failed; the picture goes on."""
        raise NotImplementedError

    def on_standby(self, code: str, message: str, hint: str) -> None:
        """The standby is shown, or the last picture where there is none."""
        raise NotImplementedError

    def on_ready(self) -> None:
        """The wanted generator makes the picture."""
        raise NotImplementedError

    def presented(self) -> int:
        """Frames shown so far."""
        raise NotImplementedError

    def may_return(self, scene: Scene) -> float:
        """Whether a generator that rests, measured again just now, is quick enough: 0, or the seconds to wait until
        the next try."""
        raise NotImplementedError

    def on_size_refused(self) -> None:
        """The size that was asked for cannot be had; the one before is loaded again where nothing runs."""
        raise NotImplementedError


class Unless:
    """Passes progress on, and cancels the work once `is_void` says that nobody wants it any more."""

    def __init__(self, progress: Progress, is_void: Callable[[], bool]) -> None:
        self._progress, self._is_void = progress, is_void

    def check(self) -> None:
        """Raises `Cancelled` if so."""
        if self._is_void():
            raise Cancelled("The settings changed meanwhile.")

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """See `Progress`."""
        self.check()
        self._progress.update(stage, done, total, unit)
