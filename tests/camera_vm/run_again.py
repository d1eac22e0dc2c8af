"""A pytest plugin: what fails while other programs take the computer around is run again."""

from __future__ import annotations

import time

import pytest
from _pytest.runner import runtestprotocol
from host_time import HostTime

ATTEMPTS = 3
AGAIN_S = 200.0
"""Nothing is run again after so long in one boot, which has an end (BOOT_TIMEOUT_S in run.py)."""


class RunAgain:
    """The driver has two buffers: pictures that a starved watcher reads late have been written over by then, so that
    they are torn, or come in another order. What fails on a computer that was free has failed; every failure is
    shown."""

    def __init__(self) -> None:
        self._spent_s = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem) -> bool:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for attempt in range(1, ATTEMPTS + 1):
            host, started_s = HostTime(), time.monotonic()
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            failed = [report for report in reports if report.failed]
            is_last = attempt == ATTEMPTS or self._spent_s > AGAIN_S
            if not failed or is_last or host.was_always_free():
                break
            self._spent_s += time.monotonic() - started_s
            show(item, attempt, failed)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True


def show(item, attempt: int, failed: list) -> None:
    terminal = item.config.pluginmanager.get_plugin("terminalreporter")
    terminal.write_line("")
    terminal.write_line(f"{item.nodeid}: attempt {attempt} failed while the computer was busy; it is run again")
    for report in failed:
        terminal.write_line(report.longreprtext)
