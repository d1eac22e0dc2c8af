"""Commands to rank 0 and its answers, each to whoever waits for it; a thread reads the line."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from engine.errors import StandinError
from engine.media import Notice
from engine.worker.channel import Channel, LineClosed
from engine.worker.fate import Fate
from engine.worker.messages import (
    Beat,
    Discard,
    Done,
    Fault,
    Opened,
    Refused,
    Working,
    fault_of,
    notices_from_data,
)

_LISTEN_EVERY_S = 0.1
_LOOK_EVERY_S = 0.02
"""Whoever waits for a frame of ranks that are gone must know it before the camera has shown those that it has."""


class Dialogue:
    """Any thread may ask, also while another one waits for its answer. Lives until the group ends or the line does."""

    def __init__(self, channel: Channel, fate: Fate) -> None:
        self._channel, self._fate = channel, fate
        self._guard = threading.Lock()
        self._number = 0
        self._waiting: dict[int, queue.SimpleQueue[Any]] = {}
        self._unwanted: list[int] = []
        self._heard_s = 0.0
        fate.has_line = True
        self._reader = threading.Thread(target=self._listen, name="ranks-line", daemon=True)
        self._reader.start()

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self._waiting

    def next_number(self) -> int:
        """For the next command: every command has its own, in the order of sending."""
        with self._guard:
            self._number += 1
            return self._number

    def discard(self, stream: int) -> None:
        """The ranks are told with the next command that `stream` is of no more use. Never waits."""
        with self._guard:
            self._unwanted.append(stream)

    def withdraw(self, stream: int) -> None:
        """The ranks are told now. Raises what has become of them."""
        self.discard(stream)
        self._send_unwanted()

    def send(self, message: Any) -> None:
        """Raises what has become of the ranks."""
        try:
            self._channel.send(message)
        except LineClosed:
            raise self._fate.explained() from None

    def try_to_send(self, message: Any) -> None:
        """The same; what it means that the line is closed is found out when nothing more has come."""
        with contextlib.suppress(LineClosed):
            self._channel.send(message)

    def ask(
        self,
        command: Any,
        limit_s: Callable[[], float],
        take: Callable[[Any], None],
        *,
        tell: Callable[[], None] | None = None,
        heard_after: Callable[[float], None] | None = None,
    ) -> list[Notice]:
        """Give rank 0 a command and `take` what comes until it is carried out; the notices that it ends with.

        `limit_s` is how long rank 0 may be silent, asked again and again; `tell` is called all the while and may
        cancel; `heard_after` gets the seconds between one answer and the next. Raises `Refusal`, what has become of
        the ranks, and what the callbacks raise."""
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._guard:
            self._waiting[command.number] = answers
        try:
            self._send_unwanted()
            self.send(command)
            began_s = before_s = time.monotonic()
            while True:
                if tell is not None:
                    tell()
                message = self._next_answer(answers, began_s, limit_s)
                if message is None:
                    continue
                now_s = time.monotonic()
                if heard_after is not None:
                    heard_after(now_s - before_s)
                before_s = now_s
                if isinstance(message, Refused):
                    raise Refusal(message.fault.as_error())
                if isinstance(message, Done | Opened):
                    return notices_from_data(message.notices) if isinstance(message, Done) else []
                take(message)
        finally:
            with self._guard:
                del self._waiting[command.number]

    def join(self) -> None:
        """Wait until the line is closed; not for the thread that reads it."""
        if self._reader is not threading.current_thread():
            self._reader.join()

    def _next_answer(self, answers: queue.SimpleQueue[Any], began_s: float, limit_s: Callable[[], float]) -> Any:
        """The next message, None if there is none yet. Raises what has happened to the ranks, once all that they had
        sent before has been taken: frames that were finished are shown."""
        try:
            return answers.get(timeout=_LOOK_EVERY_S)
        except queue.Empty:
            pass
        try:
            self._fate.check(max(began_s, self._heard_s) + limit_s(), limit_s())
        except StandinError:
            if answers.empty():
                raise
            return answers.get()
        return None

    def _send_unwanted(self) -> None:
        with self._guard:
            unwanted, self._unwanted = self._unwanted, []
        for stream in unwanted:
            self.send(Discard(number=self.next_number(), stream=stream))

    def _listen(self) -> None:
        """Hand out what comes; the thread that reads is the one that hangs up."""
        try:
            while self._fate.is_usable:
                if not self._channel.poll(_LISTEN_EVERY_S):
                    continue
                message = self._channel.receive()
                self._heard_s = time.monotonic()
                if isinstance(message, Fault):
                    self._fate.fault = message
                    break
                self._hand_out(message)
        except LineClosed:
            pass
        except StandinError as error:
            self._fate.fault = fault_of(error)
        finally:
            self._fate.is_lost.set()
            self._channel.close()

    def _hand_out(self, message: Any) -> None:
        if isinstance(message, Beat):
            return
        with self._guard:
            if isinstance(message, Working):
                for answers in self._waiting.values():
                    answers.put(message)
            elif message.number in self._waiting:
                self._waiting[message.number].put(message)


class Refusal(Exception):
    """A further stream was refused by the ranks or withdrawn; the group goes on."""

    def __init__(self, error: StandinError) -> None:
        super().__init__(str(error))
        self.error = error
