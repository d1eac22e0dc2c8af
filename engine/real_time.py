"""Threads that other programs' work must not hold up: those that a picture passes every 40 ms.

Sound servers do the same for theirs. A priority among the ordinary ones (`nice`) would not do: on desktops Linux shares
the processors out among sessions or services first, and a priority counts only inside of one.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys

logger = logging.getLogger(__name__)

_LINUX_PRIORITY = 4
"""Below the sound servers, whose own default is 5 (PulseAudio) or more (PipeWire)."""

_WINDOWS_PRIORITY_HIGHEST = 2
_MACOS_USER_INTERACTIVE = 0x21


def ask_for_real_time() -> bool:
    """Let the calling thread have a processor as soon as it wants one; whether the system allows it.

    For threads that compute for some milliseconds at most and then wait. Linux allows it to root and to those whose
    limits do (`ulimit -r`, as audio groups have it). Threads and processes that the calling thread starts are ordinary
    ones.
    """
    if sys.platform == "win32":
        kernel = ctypes.windll.kernel32
        return bool(kernel.SetThreadPriority(kernel.GetCurrentThread(), _WINDOWS_PRIORITY_HIGHEST))
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, AttributeError):
            return ctypes.CDLL(None).pthread_set_qos_class_self_np(_MACOS_USER_INTERACTIVE, 0) == 0
        return False
    try:
        # 0 is the calling thread. Round robin: several of ours at once share a processor.
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(_LINUX_PRIORITY))
    except OSError as error:
        logger.debug("no real-time priority: %s", error)
        return False
    return True
