"""A generator whose work is done by ranks: the same protocol, with processes behind it instead of a model."""

from __future__ import annotations

import importlib.util
import itertools
import threading

from engine.errors import GeneratorError, UsageError
from engine.generators.base import FrameWriter, GeneratorSpec, Progress
from engine.media import AudioChunk, Notice, Portrait
from engine.worker.group import GroupSettings, RankProcesses

_stream_numbers = itertools.count(1)


class _Pool:
    """Groups by what made them: another portrait while live must not load the model a second time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[GroupSettings, tuple[RankProcesses, set[int]]] = {}

    def take(self, settings: GroupSettings, stream: int) -> RankProcesses:
        """A group that can be used, made now if there is none."""
        with self._lock:
            group, streams = self._groups.get(settings, (None, set()))
            if group is None or not group.is_usable:
                group, streams = RankProcesses(settings), set()
                self._groups[settings] = group, streams
            streams.add(stream)
            return group

    def give_back(self, group: RankProcesses, stream: int) -> None:
        """The stream ends, and with the last one the group."""
        with self._lock:
            known, streams = self._groups.get(group.settings, (None, set()))
            if known is group:
                streams.discard(stream)
                if streams and group.is_usable:
                    group.discard(stream)
                    return
                del self._groups[group.settings]
        group.close()


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
        if self._settings.ranks_at:
            return
        if importlib.util.find_spec("torch") is None:
            raise GeneratorError(
                "The ranks need the library torch, which is not installed.",
                code="generator.not_installed",
                hint='Install it with: pip install "standin[gpu]".',
            )

    def prepare(self, portrait: Portrait, size: tuple[int, int], progress: Progress) -> list[Notice]:
        """Start the ranks, or join those that run already with the same settings; see `Generator.prepare`."""
        self._group = _POOL.take(self._settings, self._stream)
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
            _POOL.give_back(group, self._stream)
