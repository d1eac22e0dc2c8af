"""Threads that other programs' work must not hold up: those that a picture passes every 40 ms, and sound every 10 ms.

Sound servers do the same for theirs. A priority among the ordinary ones (`nice`) would do little: on desktops Linux
shares the processors out among sessions or services first, and a priority counts only inside of one.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import threading

logger = logging.getLogger(__name__)

_LINUX_PRIORITY = 4
"""Below the sound servers, whose own default is 5 (PulseAudio) or more (PipeWire)."""

_NICE = -11
_RTTIME_US = 200_000
"""RealtimeKit's conditions (its README): no nice value below -15, and that a thread which computes for longer than
0.2 s without waiting for anything is ended, with its process."""

_KIT = "org.freedesktop.RealtimeKit1"
_ANSWERS_IN_S = 2.0

_WINDOWS_PRIORITY_HIGHEST = 2
_WINDOWS_TIMER_MS = 1
"""For the process, until it ends: by itself Windows ends waits only 64 times a second."""
_MACOS_USER_INTERACTIVE = 0x21


def ask_for_real_time(*, is_replaceable: bool = False) -> bool:
    """Let the calling thread have a processor as soon as it wants one. For threads that compute for some milliseconds
    at most and then wait; never waits itself.

    True if that is so now. Linux allows it to root and to those whose limits do (`ulimit -r`, as audio groups have it);
    for others RealtimeKit, which desktops have, is asked in another thread: for real time if the process
    `is_replaceable`, since it may be ended for what it does with it, else for a higher priority among the ordinary
    ones. Threads and processes that the calling thread starts later are ordinary ones.
    """
    if _have_real_time():
        return True
    if sys.platform.startswith("linux"):
        arguments = (threading.get_native_id(), is_replaceable)
        threading.Thread(target=_ask_the_kit, args=arguments, name="real time", daemon=True).start()
    return False


def has_real_time() -> bool:
    """Whether a thread that asks gets a priority, of either kind; takes as long as RealtimeKit's answer."""
    found: list[bool] = []

    def ask() -> None:
        found.append(_have_real_time() or _ask_the_kit(threading.get_native_id(), is_replaceable=False))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join()
    return any(found)


def _have_real_time() -> bool:
    if sys.platform == "win32":
        ctypes.windll.winmm.timeBeginPeriod(_WINDOWS_TIMER_MS)
        kernel = ctypes.windll.kernel32
        return bool(kernel.SetThreadPriority(kernel.GetCurrentThread(), _WINDOWS_PRIORITY_HIGHEST))
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, AttributeError):
            return ctypes.CDLL(None).pthread_set_qos_class_self_np(_MACOS_USER_INTERACTIVE, 0) == 0
        return False
    try:
        # 0 is the calling thread.
        if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK in (os.SCHED_FIFO, os.SCHED_RR):
            return True
        # Round robin: several of ours at once share a processor.
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(_LINUX_PRIORITY))
    except OSError:
        return False
    return True


def _ask_the_kit(thread: int, is_replaceable: bool) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        from jeepney import AuthenticationError, DBusAddress, DBusErrorResponse, new_method_call
        from jeepney.io.blocking import open_dbus_connection
        from jeepney.wrappers import unwrap_msg
    except ImportError as error:
        logger.info("no real-time priority for thread %d: %s", thread, error)
        return False
    kit = DBusAddress(f"/{_KIT.replace('.', '/')}", bus_name=_KIT, interface=_KIT)
    if is_replaceable:
        _accept_its_condition()
        call = new_method_call(kit, "MakeThreadRealtime", "tu", (thread, _LINUX_PRIORITY))
    else:
        call = new_method_call(kit, "MakeThreadHighPriority", "ti", (thread, _NICE))
    try:
        with open_dbus_connection("SYSTEM", auth_timeout=_ANSWERS_IN_S) as bus:
            unwrap_msg(bus.send_and_get_reply(call, timeout=_ANSWERS_IN_S))
    except (OSError, ValueError, RuntimeError, AuthenticationError, DBusErrorResponse) as error:
        # The last but two: an address in the environment that is none, or of a kind that jeepney does not know.
        logger.info("no real-time priority for thread %d: %s", thread, error)
        return False
    return True


def _accept_its_condition() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    limit = _RTTIME_US if hard == resource.RLIM_INFINITY else min(hard, _RTTIME_US)
    resource.setrlimit(resource.RLIMIT_RTTIME, (limit, limit))
