"""What a session tells: its state, its events, the progress of long work; from any thread, one event at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from engine.errors import Cancelled, StandinError
from engine.media import Notice
from engine.protocol.codec import reason_of
from engine.protocol.messages import Event, Noticed, Progressed, Reason, SessionState, StateChanged

logger = logging.getLogger(__name__)

Emit = Callable[[Event], None]


class Reporter:
    """One session's. All methods may be called from any thread."""

    def __init__(self, emit: Emit) -> None:
        self._emit_now = emit
        self._emit_lock = threading.Lock()
        self._state_lock = threading.RLock()
        self._state = SessionState.IDLE

    @property
    def state(self) -> SessionState:
        """Where the session stands."""
        return self._state

    def emit(self, event: Event) -> None:
        """Tell it now."""
        with self._emit_lock:
            self._emit_now(event)

    def note(self, reason: Reason, *, is_error: bool = False) -> None:
        """Something that the user should know."""
        self.emit(Noticed(reason=reason, is_error=is_error))

    def fail(self, error: StandinError) -> None:
        """Something was given up; the session goes on."""
        self.note(reason_of(error), is_error=True)

    def pass_on(self, notices: list[Notice]) -> None:
        """What generators want to be told."""
        for notice in notices:
            self.note(Reason(code=notice.code, message=notice.message, hint=notice.hint))

    def enter(self, state: SessionState, reason: Reason) -> None:
        """The session is in another state now."""
        with self._state_lock:
            self._state = state
            logger.info("session %s: %s", state.value, reason.message)
            self.emit(StateChanged(state=state, reason=reason))

    def move(self, state: SessionState, reason: Reason, *, only_from: SessionState | None = None) -> None:
        """Enter a state of the running session; not once it is being stopped, nor from any but `only_from`."""
        with self._state_lock:
            if self._state in (SessionState.STOPPING, SessionState.IDLE) or only_from not in (None, self._state):
                return
            self.enter(state, reason)


class ReportedProgress:
    """A `Progress` told as events, ended once `cancelled` is set."""

    def __init__(self, reporter: Reporter, cancelled: threading.Event) -> None:
        self._reporter, self._cancelled = reporter, cancelled

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """See `Progress`."""
        if self._cancelled.is_set():
            raise Cancelled("Stopped before it was ready.")
        self._reporter.emit(Progressed(stage=stage, done=done, total=total, unit=unit))
