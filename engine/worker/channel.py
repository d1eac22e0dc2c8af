"""The line between the engine and rank 0: a socket in the file system (a named pipe on Windows), never the network."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from engine.errors import GeneratorError
from engine.worker.messages import MAX_MESSAGE_BYTES, Message, decode, encode

logger = logging.getLogger(__name__)

KEY_VARIABLE = "STANDIN_RANKS_KEY"
"""The environment variable with the secret of the line in hexadecimal. Without one, the folder's rights guard it."""
_FAMILY = "AF_PIPE" if sys.platform == "win32" else "AF_UNIX"
_LONGEST_PATH = 100
"""Bytes; a socket's path may have 103 on macOS and 107 on Linux."""


class LineClosed(Exception):
    """The other side is gone."""


class Channel:
    """One end of the line. Any thread may send; one thread receives."""

    def __init__(self, connection: Connection, receives: Any) -> None:
        self._connection, self._receives = connection, receives
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Raises `LineClosed`."""
        data = encode(message)
        try:
            with self._lock:
                self._connection.send_bytes(data)
        except OSError as error:
            raise LineClosed from error

    def poll(self, timeout_s: float) -> bool:
        """Whether `receive` would not wait, after at most `timeout_s`."""
        try:
            return self._connection.poll(timeout_s)
        except OSError:
            return True  # `receive` says that it is gone

    def receive(self) -> Any:
        """The next message; waits for it. Raises `LineClosed`, `ProtocolError`."""
        try:
            data = self._connection.recv_bytes(MAX_MESSAGE_BYTES)
        except (EOFError, OSError) as error:
            raise LineClosed from error
        return decode(data, self._receives)

    def close(self) -> None:
        """Hang up; not while another thread receives."""
        self._connection.close()


class Doorway:
    """Where rank 0 connects: `wait` gives the line to the first that knows the secret; nobody else comes in then.

    Raises `GeneratorError` if somebody else waits there."""

    def __init__(self, address: str, key: bytes | None, receives: Any) -> None:
        self.address, self._receives = address, receives
        with contextlib.ExitStack() as claim:
            if sys.platform != "win32":
                claim.enter_context(_claimed(address))
            self._listener = Listener(address, _FAMILY, authkey=key)
            self._claim = claim.pop_all()
        self._is_closing = False
        self._channel: Channel | None = None
        self._arrived = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="ranks-door", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> Channel | None:
        """The line, if it is there within `timeout_s`; then the door is closed."""
        if not self._arrived.wait(timeout_s):
            return None
        channel, self._channel = self._channel, None
        self.close()
        return channel

    def close(self) -> None:
        """Let nobody in any more; safe to call twice."""
        if self._is_closing:
            return
        self._is_closing = True
        if not self._arrived.is_set():
            _knock(self.address)
            self._thread.join(2.0)
        if self._channel is not None:
            self._channel.close()
        with contextlib.suppress(FileNotFoundError):  # somebody has cleared the folder
            self._listener.close()
        self._claim.close()

    def _accept(self) -> None:
        while not self._is_closing:
            try:
                connection = self._listener.accept()
            except (AuthenticationError, EOFError, OSError) as error:
                if not self._is_closing:
                    # Not the error itself: whoever keeps the record would keep the connection open with it.
                    logger.warning("somebody at the ranks' door was sent away: %s", repr(error))
                    time.sleep(0.1)
                continue
            if self._is_closing:
                connection.close()
                return
            self._channel = Channel(connection, self._receives)
            self._arrived.set()
            return


def connect(address: str, key: bytes | None, receives: Any, wait_s: float) -> Channel:
    """The line to the engine at `address`, which may come up to `wait_s` later. Raises `GeneratorError`."""
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            return Channel(Client(address, _FAMILY, authkey=key), receives)
        except AuthenticationError as error:
            raise GeneratorError(f"The engine at {address} has another secret.", code="worker.secret") from error
        except (OSError, EOFError) as error:
            if time.monotonic() > deadline_s:
                raise GeneratorError(
                    f"There is no engine at {address}.",
                    code="worker.no_engine",
                    hint="Start it with --ranks-at and the same path.",
                    detail=str(error),
                ) from error
        time.sleep(0.1)


def key_from_environment() -> bytes | None:
    """The secret that this process was given, if any."""
    return bytes.fromhex(os.environ.get(KEY_VARIABLE, "")) or None


def check_door(address: str) -> None:
    """Whether `address` can be a door without a secret: a path in a folder of ours that nobody else may enter, where
    nothing but a socket is in the way. Raises `GeneratorError`."""
    if sys.platform == "win32":
        return
    path = Path(address)
    if len(os.fsencode(address)) > _LONGEST_PATH:
        raise GeneratorError(f"The path {address} is too long for a socket.", code="worker.door", hint="Use /tmp.")
    try:
        folder = path.parent.stat()
    except OSError as error:
        raise GeneratorError(
            f"The folder {path.parent} for the ranks' socket is not there.",
            code="worker.door",
            hint=f"Make it with: mkdir -m 700 {path.parent}",
        ) from error
    if folder.st_uid != os.getuid() or folder.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise GeneratorError(
            f"The folder {path.parent} for the ranks' socket is open to others.",
            code="worker.door",
            hint=f"Use one of your own: chmod 700 {path.parent}",
        )
    if path.exists() and not path.is_socket():
        raise GeneratorError(f"{path} is there already and is no socket.", code="worker.door", hint="Choose another.")


if sys.platform != "win32":
    import fcntl

    @contextlib.contextmanager
    def _claimed(address: str) -> Iterator[None]:
        """A file beside the socket is locked meanwhile, which ends with this process at the latest: a socket that is
        there when the lock is had was left by an engine that was killed, and is removed.

        To try whether somebody answers there would not do: an engine that waits would take that for its rank 0.
        Raises `GeneratorError`."""
        path = f"{address}.lock"
        handle = _locked(path, address)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address)
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):  # somebody has cleared the folder
                os.unlink(path)  # before the lock is given back: whoever gets it then finds that it is of no use
            os.close(handle)

    def _locked(path: str, address: str) -> int:
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    return handle
            except FileNotFoundError:
                pass
            except OSError as error:
                os.close(handle)
                raise _not_locked(address, error) from error
            os.close(handle)  # its owner has just left and removed it

    def _not_locked(address: str, error: OSError) -> GeneratorError:
        if isinstance(error, BlockingIOError):
            return GeneratorError(
                f"Another engine waits for ranks at {address}.", code="worker.door", hint="Choose another path."
            )
        return GeneratorError(
            f"The ranks' socket {address} cannot be locked.",
            code="worker.door",
            hint="Choose a folder on a disk of this machine.",
            detail=str(error),
        )


def _knock(address: str) -> None:
    """Wake a thread that waits for somebody to come."""
    with contextlib.suppress(OSError, EOFError):
        if sys.platform == "win32":
            Client(address, _FAMILY).close()
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
            visitor.connect(address)
