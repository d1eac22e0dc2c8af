"""Noise suppression in front of the generator by RNNoise (Valin, 2018), from the optional package pyrnnoise.

Only its shared library is loaded, through RNNoise's own C interface: the package's Python side brings plotting and file
reading along, and rounds to 16 bit.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UsageError

RATE_HZ = 48_000
_FRAME = 480
_FULL_SCALE = 32_768.0
"""RNNoise's floats have the range of 16-bit samples."""

LAG = 960
"""RNNoise gives out each sample two frames later (measured: its windows overlap, and it looks a frame ahead)."""

HELD_S = (LAG + _FRAME) / RATE_HZ
"""How long a sample waits inside at most: the lag, and the frame that has to be full."""

_NAMES = {"darwin": "librnnoise.dylib", "win32": "rnnoise.dll"}


def check_suppression(find: Callable[[str], Any] = find_spec) -> None:
    """Raises `UsageError` where it is not installed or cannot be loaded."""
    _library(_library_path(find))


class Suppressor:
    """Mono float32 at 48 kHz in, the same without noise out, each sample in its place: the lag is cut off the
    beginning. One thread."""

    def __init__(self) -> None:
        """Raises `UsageError`."""
        self._library = _library(_library_path(find_spec))
        self._state = ctypes.c_void_p(self._library.rnnoise_create(None))
        self._waiting = np.zeros(0, np.float32)
        self._to_cut = LAG

    def push(self, samples: np.ndarray) -> np.ndarray:
        """What is ready; some 20 ms stay inside."""
        self._waiting = np.concatenate([self._waiting, samples])
        count = len(self._waiting) // _FRAME
        frames = np.ascontiguousarray(self._waiting[: count * _FRAME] * np.float32(_FULL_SCALE), np.float32)
        self._waiting = self._waiting[count * _FRAME :]
        for start in range(0, len(frames), _FRAME):
            address = ctypes.cast(frames.ctypes.data + 4 * start, ctypes.POINTER(ctypes.c_float))
            self._library.rnnoise_process_frame(self._state, address, address)
        cut = min(self._to_cut, len(frames))
        self._to_cut -= cut
        return frames[cut:] / np.float32(_FULL_SCALE)

    def __del__(self) -> None:
        state, self._state = getattr(self, "_state", None), None
        if state:
            self._library.rnnoise_destroy(state)


def _library_path(find: Callable[[str], Any]) -> Path:
    spec = find("pyrnnoise")
    if spec is None or not spec.origin:
        raise UsageError(
            "Noise suppression is not installed.",
            code="sound.no_suppression",
            hint='Install it: pip install "standin[denoise]", or switch it off.',
        )
    return Path(spec.origin).with_name(_NAMES.get(sys.platform, "librnnoise.so"))


@lru_cache(maxsize=1)
def _library(path: Path) -> Any:
    try:
        library = ctypes.CDLL(str(path))
        library.rnnoise_create.restype = ctypes.c_void_p
        library.rnnoise_create.argtypes = [ctypes.c_void_p]
        library.rnnoise_destroy.argtypes = [ctypes.c_void_p]
        library.rnnoise_process_frame.restype = ctypes.c_float
        floats = ctypes.POINTER(ctypes.c_float)
        library.rnnoise_process_frame.argtypes = [ctypes.c_void_p, floats, floats]
        size = int(library.rnnoise_get_frame_size())
    except (OSError, AttributeError) as error:
        raise UsageError(
            "Noise suppression cannot be loaded.", code="sound.no_suppression", hint="Switch it off.", detail=str(error)
        ) from error
    if size != _FRAME:
        raise UsageError("Noise suppression is of an unknown kind.", code="sound.no_suppression", hint="Switch it off.")
    return library
