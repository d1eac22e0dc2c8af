"""Fetches one file: resumes, tries again, checks size and hash, and only then gives the file its name."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from engine.errors import ModelFilesError
from engine.model_store.hub import Hub, Interrupted
from engine.model_store.manifest import FileRecord
from engine.model_store.meter import Meter

logger = logging.getLogger(__name__)

PART = ".part"
"""Ends the name of what is not complete: a file, or the folder of a model."""

_READ_BYTES = 1 << 20
_ATTEMPTS = 5
LOOK_UP_ATTEMPTS = 2
"""Before anything is fetched, someone waits for an answer."""

_LONGEST_PAUSE_S = 30.0
_LONGEST_WAIT_S = 120.0
"""A server that asks for more patience than this is believed, and the user told."""

_Answer = TypeVar("_Answer")


class Patience:
    """How often to try again: up to `attempts` times without any new byte, after 1, 2, 4, 8 and 16 s (`pause_s` scales
    it) or as long as the server asks for."""

    def __init__(self, meter: Meter, pause_s: float, attempts: int = _ATTEMPTS) -> None:
        self._meter = meter
        self._pause_s = pause_s
        self._attempts = attempts
        self._failures = 0
        self._reached_bytes = -1

    def after(self, interrupted: Interrupted, what: str) -> None:
        """Wait before the next attempt. Raises `ModelFilesError` when there is none, `Cancelled`."""
        if self._meter.done_bytes > self._reached_bytes:
            self._reached_bytes, self._failures = self._meter.done_bytes, 0
        asked_s = interrupted.retry_after_s
        if asked_s is not None and asked_s > _LONGEST_WAIT_S:
            raise ModelFilesError(
                f"The download cannot go on now: {interrupted.reason}, and it asks to wait {_minutes(asked_s)}.",
                code="models.busy",
                hint="What has arrived is kept; the same command goes on with it.",
            ) from interrupted
        self._failures += 1
        if self._failures > self._attempts:
            raise _given_up(interrupted, what, has_begun=self._meter.done_bytes > 0) from interrupted
        pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 2 ** (self._failures - 1))
        logger.info("%s: %s; trying again", what, interrupted.reason)
        self._meter.wait(pause_s if asked_s is None else asked_s)


def _given_up(interrupted: Interrupted, what: str, *, has_begun: bool) -> ModelFilesError:
    if has_begun:
        message = f"The download of {what} broke off: {interrupted.reason.rstrip('.')}."
        hint = "What has arrived is kept; the same command goes on with it."
    else:
        message = f"{what} cannot be fetched: {interrupted.reason.rstrip('.')}."
        hint = "See that this computer is online and the server's address is right; what has arrived before is kept."
    return ModelFilesError(message, code="models.connection", hint=hint)


def persistently(ask: Callable[[], _Answer], patience: Patience, what: str) -> _Answer:
    """The answer, after as many attempts as `patience` allows."""
    while True:
        try:
            return ask()
        except Interrupted as interrupted:
            patience.after(interrupted, what)


def fetch(
    hub: Hub, repository: str, commit: str, record: FileRecord, folder: Path, meter: Meter, patience: Patience
) -> FileRecord:
    """Bring `record` into `folder`, going on where an earlier attempt stopped.

    The bytes are hashed as they are written; the file gets its name once size and hash agree. Returns the record with
    its SHA-256. Raises `ModelFilesError` (a wrong file is removed first) or `Cancelled` (what has arrived stays).
    """
    destination = folder / record.path
    part = destination.with_name(destination.name + PART)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with part.open("a+b") as file:
            digest = _resume(file, record, meter)
            while digest.length < record.size_bytes:
                try:
                    _receive(hub, repository, commit, record, file, digest, meter)
                except Interrupted as interrupted:
                    if interrupted.starts_over:
                        _start_over(file, digest, meter)
                    patience.after(interrupted, record.path)
            file.flush()
            os.fsync(file.fileno())
        sha256 = _agreed(part, record, digest, meter)
        os.replace(part, destination)
    except OSError as error:
        raise disk_error(error, folder) from error
    return replace(record, sha256=sha256)


class Digest:
    """Size, SHA-256 and git's blob SHA-1 of what passed by; `size_bytes` is of the whole file, for git."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self.restart()

    def restart(self) -> None:
        """Forget what passed by."""
        self.length = 0
        self._sha256 = hashlib.sha256()
        self._git_sha1 = hashlib.sha1(b"blob %d\0" % self._size_bytes, usedforsecurity=False)

    def add(self, piece: bytes) -> None:
        """Take in the next bytes."""
        self.length += len(piece)
        self._sha256.update(piece)
        if self._size_bytes < _READ_BYTES * 16:
            # Large files have a SHA-256 at the hub; git's is for the small ones.
            self._git_sha1.update(piece)

    @property
    def sha256(self) -> str:
        """In hex."""
        return self._sha256.hexdigest()

    def agrees(self, record: FileRecord) -> bool:
        """Whether this is the file that `record` describes, by its best hash, or by size if it has none."""
        if self.length != record.size_bytes:
            return False
        if record.sha256:
            return self.sha256 == record.sha256
        if record.git_sha1 and self._size_bytes < _READ_BYTES * 16:
            return self._git_sha1.hexdigest() == record.git_sha1
        return True


def _resume(file: BinaryIO, record: FileRecord, meter: Meter) -> Digest:
    """Hash what an earlier attempt left; the file is then at its end."""
    digest = Digest(record.size_bytes)
    file.seek(0, os.SEEK_END)
    if file.tell() > record.size_bytes:
        file.truncate(0)
    file.seek(0)
    while piece := file.read(_READ_BYTES):
        digest.add(piece)
        meter.add(len(piece))
    return digest


def _receive(
    hub: Hub, repository: str, commit: str, record: FileRecord, file: BinaryIO, digest: Digest, meter: Meter
) -> None:
    """One connection's worth; raises `Interrupted` if it does not bring the rest of the file."""
    with hub.body(repository, commit, record.path, offset=digest.length) as body:
        if body.offset != digest.length:
            _start_over(file, digest, meter)
        for piece in body.pieces:
            if digest.length + len(piece) > record.size_bytes:
                # Kept going, this could fill the disk.
                meter.add(-digest.length)
                file.truncate(0)
                raise _wrong_bytes(record.path, "it is longer than the server said")
            file.write(piece)
            digest.add(piece)
            meter.add(len(piece))
    if digest.length < record.size_bytes:
        raise Interrupted("the connection ended early")


def _start_over(file: BinaryIO, digest: Digest, meter: Meter) -> None:
    file.truncate(0)
    meter.add(-digest.length)
    digest.restart()


def _agreed(part: Path, record: FileRecord, digest: Digest, meter: Meter) -> str:
    """The SHA-256; if the file is not the expected one it is removed, and `ModelFilesError` raised."""
    if digest.agrees(record):
        if not (record.sha256 or record.git_sha1):
            logger.warning("%s: the server names no hash, only its size could be compared", record.path)
        return digest.sha256
    part.unlink()
    meter.add(-digest.length)
    raise _wrong_bytes(record.path, "its hash differs from the published one")


def _wrong_bytes(path: str, why: str) -> ModelFilesError:
    return ModelFilesError(
        f"{path} did not arrive as it was published: {why}.",
        code="models.wrong_bytes",
        hint="It was removed. Try again; if this repeats, use another mirror or none.",
    )


def disk_error(error: OSError, folder: Path) -> ModelFilesError:
    """What went wrong with the disk, for a person."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return ModelFilesError(
            f"The disk is full: {folder} takes no more.",
            code="models.disk_full",
            hint="Free some space; the same command then goes on with what has arrived.",
        )
    return ModelFilesError(
        f"{error.filename or folder} cannot be written: {error.strerror or error}.",
        code="models.folder",
        hint="See that the folder is yours to write, and no other program holds its files.",
    )


def _minutes(duration_s: float) -> str:
    minutes = round(duration_s / 60)
    return f"{minutes} minutes" if minutes > 1 else f"{duration_s:.0f} s"
