"""A generator whose work is done by ranks: the same protocol, with processes behind it instead of a model."""

from __future__ import annotations

import importlib.util
import itertools
import threading
from collections.abc import Callable

from engine.errors import GeneratorError, UsageError
from engine.generators.base import FrameWriter, GeneratorSpec, Progress
from engine.media import AudioChunk, Notice, Portrait
from engine.worker.group import RankProcesses
from engine.worker.group_settings import GroupSettings

_stream_numbers = itertools.count(1)


class _Pool:
    """Groups by the settings that were wanted: another portrait while live must not load the model a second time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[GroupSettings, tuple[RankProcesses, set[int]]] = {}
        self._leaving: list[threading.Event] = []

    def find(self, wanted: GroupSettings) -> RankProcesses | None:
        """The group that can be used, if there is one."""
        group, _ = self._groups.get(wanted, (None, set()))
        return group if group is not None and group.is_usable else None

    def take(self, wanted: GroupSettings, stream: int, decide: Callable[[], GroupSettings]) -> RankProcesses:
        """A group that can be used, made now if there is none, with the settings of `decide`. Those before it have
        ended by then: their memory on the GPUs is free. Others are not held up by either."""
        group = self._joined(wanted, stream)
        if group is not None:
            return group
        before, _ = self._groups.get(wanted, (None, set()))
        if before is not None:
            before.wait_ended()
        for has_left in tuple(self._leaving):
            has_left.wait()
        settings = decide()
        with self._lock:
            group, streams = self._groups.get(wanted, (None, set()))
            if group is None or not group.is_usable:
                group, streams = RankProcesses(settings), set()
                self._groups[wanted] = group, streams
            streams.add(stream)
            return group

    def _joined(self, wanted: GroupSettings, stream: int) -> RankProcesses | None:
        with self._lock:
            group, streams = self._groups.get(wanted, (None, set()))
            if group is None or not group.is_usable:
                return None
            streams.add(stream)
            return group

    def give_back(self, wanted: GroupSettings, group: RankProcesses, stream: int) -> None:
        """The stream ends, and with the last one the group."""
        has_left = threading.Event()
        with self._lock:
            known, streams = self._groups.get(wanted, (None, set()))
            if known is group:
                streams.discard(stream)
                if streams and group.is_usable:
                    group.discard(stream)
                    return
                del self._groups[wanted]
            self._leaving.append(has_left)
        try:
            group.close()
        finally:
            has_left.set()
            self._leaving.remove(has_left)


_POOL = _Pool()


class RankedGenerator:
    """Implements `engine.generators.base.Generator` for the generator that `settings` name, in as many ranks.

    Its picture size must be known before it is prepared. `close` may be called while another thread is in `generate`,
    which then raises. Raises `UsageError` for settings that cannot be.
    """

    def __init__(self, settings: GroupSettings) -> None:
        if settings.ranks < 1:
            raise UsageError(f"{settings.ranks} ranks cannot make a picture.", hint="Choose 1 or more.")
        self._settings = settings
        self._stream = next(_stream_numbers)
        self._group: RankProcesses | None = None
        self._notices: list[Notice] = []

    @property
    def spec(self) -> GeneratorSpec:
        """Known from the start."""
        return self._settings.spec

    @property
    def pids(self) -> dict[int, int]:
        """Process numbers by rank, of ranks that were started on this machine and run."""
        return {} if self._group is None else self._group.pids

    def check(self) -> None:
        """Whether ranks could be started at all. Raises `GeneratorError`."""
        if self._settings.ranks_at or self._is_running():
            return
        _check_library()

    def _is_running(self) -> bool:
        """Whether ranks with these settings run already, so that nothing needs to be decided."""
        return _POOL.find(self._settings) is not None

    def _decided(self) -> GroupSettings:
        """What to start when nothing runs yet: the place to choose GPUs. Raises what `prepare` raises."""
        if not self._settings.ranks_at:
            _check_library()
        return self._settings

    def prepare(self, portrait: Portrait, size: tuple[int, int], progress: Progress) -> list[Notice]:
        """Start the ranks, or join those that run already with the same settings; see `Generator.prepare`."""
        self._group = _POOL.take(self._settings, self._stream, self._decided)
        return self._group.prepare(self._stream, portrait, size, progress)

    def generate(self, chunk: AudioChunk, frames: FrameWriter) -> None:
        """See `Generator.generate`. After an error the ranks are gone; another object can be prepared at once."""
        if self._group is None:
            raise GeneratorError("The ranks were asked for frames before they had a portrait.")
        self._notices += self._group.generate(self._stream, chunk, frames)

    def take_notices(self) -> list[Notice]:
        """What happened while generating, since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def reset(self) -> None:
        """See `Generator.reset`; does nothing where there are no ranks (any more)."""
        if self._group is not None and self._group.is_usable:
            self._group.reset(self._stream)

    def close(self) -> None:
        """End the stream, and the ranks unless others use them. Safe to call twice."""
        group, self._group = self._group, None
        if group is not None:
            _POOL.give_back(self._settings, group, self._stream)


def _check_library() -> None:
    if importlib.util.find_spec("torch") is None:
        raise GeneratorError(
            "The ranks need the library torch, which is not installed.",
            code="generator.not_installed",
            hint='Install it with: pip install "standin[gpu]".',
        )
