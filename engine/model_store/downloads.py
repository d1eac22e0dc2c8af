"""Downloads asked for by the window: what one would fetch, fetching it beside the picture, and how far it is."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from engine.errors import Cancelled, StandinError, UsageError
from engine.model_store.catalog import entry_named
from engine.model_store.plan import DownloadPlan
from engine.model_store.store import ModelStore
from engine.protocol.codec import reason_of
from engine.protocol.messages import Event, ModelDownloaded, ModelPart, ModelPlanned, ModelProgressed, Reason

logger = logging.getLogger(__name__)

_TOLD_EVERY_S = 0.25


class Downloads:
    """One download at a time, on a thread of its own. Methods return at once and may be called from any thread; what
    comes of them is told by `emit`, from those threads."""

    def __init__(self, emit: Callable[[Event], None], make_store: Callable[[], ModelStore] = ModelStore) -> None:
        self._emit, self._make_store = emit, make_store
        self._lock = threading.Lock()
        self._stopping: threading.Event | None = None

    def plan(self, name: str) -> None:
        """`ModelPlanned` follows. Raises `UsageError` for a model that there is not."""
        entry_named(name)
        threading.Thread(target=self._plan, args=(name,), name="model plan", daemon=True).start()

    def begin(self, name: str) -> None:
        """`ModelProgressed` and `ModelDownloaded` follow. Raises `UsageError` while another download runs, or for a
        model that there is not."""
        entry_named(name)
        with self._lock:
            if self._stopping is not None:
                raise UsageError("A model is being downloaded already.", code="models.downloading", hint="Wait for it.")
            stopping = self._stopping = threading.Event()
        threading.Thread(target=self._download, args=(name, stopping), name="download", daemon=True).start()

    def stop(self) -> None:
        """End a download soon; what has arrived stays."""
        with self._lock:
            if self._stopping is not None:
                self._stopping.set()

    def _plan(self, name: str) -> None:
        try:
            planned = _planned(name, self._make_store().plan(name, _Unheard()))
        except Exception as error:  # noqa: BLE001 - the edge of a thread: told and logged
            planned = ModelPlanned(name=name, error=_reason(error))
        self._emit(planned)

    def _download(self, name: str, stopping: threading.Event) -> None:
        error = None
        try:
            self._make_store().download(name, _Told(name, self._emit, stopping))
        except Exception as caught:  # noqa: BLE001 - the edge of a thread: told and logged
            error = _reason(caught)
        with self._lock:
            self._stopping = None
        self._emit(ModelDownloaded(name=name, error=error))


class _Unheard:
    """A `Progress` that nobody looks at."""

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        pass


class _Told:
    """A `Progress` told as events, a few a second, ended once `stopping` is set."""

    def __init__(self, name: str, emit: Callable[[Event], None], stopping: threading.Event) -> None:
        self._name, self._emit, self._stopping = name, emit, stopping
        self._stage, self._told_s = "", 0.0

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """See `Progress`."""
        if self._stopping.is_set():
            raise Cancelled("The download was stopped.", hint="What has arrived is kept.")
        now_s = time.monotonic()
        if stage == self._stage and now_s - self._told_s < _TOLD_EVERY_S and done < total:
            return
        self._stage, self._told_s = stage, now_s
        self._emit(ModelProgressed(name=self._name, stage=stage, done_bytes=int(done), total_bytes=int(total)))


def _planned(name: str, plan: DownloadPlan) -> ModelPlanned:
    parts = [
        ModelPart(
            name=model.entry.name,
            title=model.entry.title,
            licence=model.licence,
            page=model.entry.page,
            size_bytes=model.manifest.size_bytes,
            missing_bytes=model.missing_bytes,
        )
        for model in plan.models
    ]
    return ModelPlanned(
        name=name,
        parts=parts,
        folder=os.fsencode(plan.folder).decode("utf-8", "backslashreplace"),
        missing_bytes=plan.needed_bytes,
        free_bytes=plan.free_bytes,
    )


def _reason(error: Exception) -> Reason:
    if not isinstance(error, StandinError):
        logger.error("a download failed", exc_info=error)
        error = StandinError(f"That failed because of an internal error: {error}.", code="internal")
    return reason_of(error)
