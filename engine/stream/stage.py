"""What a director tells its session, in which words, and progress that ends when nobody wants its work any more."""

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


class Announcer:
    """Tells a stage who makes the picture; whoever calls sees to it that one tells at a time. A standby is named, or
    the empty text where there is none."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.is_ready = False
        """Whether it has been told that the wanted generator makes it, and not that it does not any more."""

    def ready(self) -> None:
        """The wanted generator makes the picture."""
        self.is_ready = True
        self._stage.on_ready()

    def loading(self, standby: str, wanted: str) -> None:
        """The standby makes it while the wanted one is loaded."""
        message = f"The {standby} is shown until {wanted} is ready."
        self._not_ready("session.standby", message, "It takes over by itself.")

    def failed(self, standby: str) -> None:
        """The wanted one failed and is loaded again; its standby makes the picture."""
        message = "The generator failed and is being started again."
        if standby:
            message = f"The generator failed; the {standby} stands in while it starts again."
        self._not_ready("session.fallback", message, "Please wait.")

    def too_slow(self, standby: str, wanted: str) -> None:
        """The wanted one rests, and its standby makes the picture."""
        message = f"The {standby or 'last picture'} stands in while {wanted} is too slow."
        self._not_ready("session.too_slow", message, "It returns by itself when the computer keeps up.")

    def hopeless(self, standby: str, wanted: str) -> None:
        """The wanted one cannot be loaded, and that is not tried again."""
        message = f"{wanted} could not be started, so the {standby} stays."
        self._stage.on_standby("session.standby_stays", message, "Change it and start again.")

    def _not_ready(self, code: str, message: str, hint: str) -> None:
        self.is_ready = False
        self._stage.on_standby(code, message, hint)


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
