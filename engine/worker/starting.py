"""From settings to a line to rank 0: launches ranks, or waits for those of torchrun, and hears their first word."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from engine.errors import GeneratorError
from engine.worker import faults
from engine.worker.channel import Channel, LineClosed
from engine.worker.fate import Fate
from engine.worker.group_settings import GroupSettings
from engine.worker.launcher import AwaitedRanks, Launch, LocalRanks
from engine.worker.messages import WIRE_VERSION, Fault, Hello

logger = logging.getLogger(__name__)

START_S = 180.0
"""So long may ranks of this machine take until they have found each other."""
_LOOK_EVERY_S = 0.1


def launched(settings: GroupSettings) -> Launch:
    """The ranks on their way. Raises `GeneratorError` where they cannot come."""
    if settings.ranks_at:
        return AwaitedRanks(settings.ranks_at)
    return LocalRanks(
        ranks=settings.ranks,
        gpus=settings.gpus,
        timeout_s=settings.timeout_s,
        load_timeout_s=settings.load_timeout_s,
        still_s=settings.still_s,
        is_background=settings.is_background,
    )


def line_to_ranks(settings: GroupSettings, launch: Launch, fate: Fate, tell: Callable[[], None]) -> Channel:
    """The line to rank 0, once all ranks have found each other; `tell` is called all the while and may cancel.

    Raises what the ranks said, `GeneratorError`, or what `tell` raises."""
    wait_s = settings.load_timeout_s if settings.ranks_at else START_S
    deadline_s = time.monotonic() + wait_s
    channel: Channel | None = None
    try:
        while channel is None or not channel.poll(_LOOK_EVERY_S):
            if settings.ranks_at and channel is None and time.monotonic() > deadline_s:
                raise faults.nobody_came(wait_s)
            fate.check(deadline_s, wait_s)
            tell()
            channel = channel or launch.wait(_LOOK_EVERY_S)
        hello = _first_of(channel, fate)
    except BaseException:
        if channel is not None:
            channel.close()
        raise
    logger.info("%d ranks have started", hello.ranks)
    return channel


def _first_of(channel: Channel, fate: Fate) -> Hello:
    try:
        hello = channel.receive()
    except LineClosed:
        raise fate.explained() from None
    if isinstance(hello, Fault):
        raise fate.explained(hello)
    if not isinstance(hello, Hello) or hello.version != WIRE_VERSION:
        raise GeneratorError(
            "The ranks are of another version of Standin.",
            code="worker.version",
            hint="Install the same version everywhere.",
        )
    return hello
