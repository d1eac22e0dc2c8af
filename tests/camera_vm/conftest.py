"""Tests that run inside the small machine (see run.py); elsewhere pytest passes over them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

IS_INSIDE = "STANDIN_CAMERA_VM" in os.environ
collect_ignore_glob = [] if IS_INSIDE else ["test_*.py"]

if IS_INSIDE:
    sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def is_old_driver() -> bool:
    """Debian 12's v4l2loopback 0.12.7, which has no /sys/class/video4linux/*/state yet."""
    return os.environ["STANDIN_CAMERA_VM"].startswith("0.12.")


@pytest.fixture
def only_with(is_old_driver):
    """`only_with("0.12")` skips what takes long with the other driver, unless everything is asked for."""

    def check(version: str) -> None:
        if is_old_driver != version.startswith("0.12") and not os.environ.get("STANDIN_CAMERA_VM_ALL"):
            pytest.skip(f"runs with v4l2loopback {version} only (STANDIN_CAMERA_VM_ALL=1: with each)")

    return check


@pytest.fixture
def figure(request):
    """Keeps a figure of this run for docs/reliability.md: `figure(name, value)`."""

    def keep(name: str, value) -> None:
        entry = {"driver": os.environ["STANDIN_CAMERA_VM"], "test": request.node.name, "name": name, "value": value}
        print(json.dumps(entry))
        with open("/out/figures.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    return keep


@pytest.fixture
def produce():
    """Starts producers (see consumers.Producer) and leaves none behind."""
    from consumers import Producer

    started = []

    def start(through: str, device: str, *options: str) -> Producer:
        started.append(Producer(through, device, *options))
        return started[-1]

    yield start
    for producer in started:
        producer.close()


class HostTime:
    """What the computer around this machine had to spare since this was made. Where it had little, rates say nothing
    about the product."""

    def __init__(self) -> None:
        self._before = len(host_times())

    def was_free(self) -> bool:
        """Whether it had a tenth of its time to spare, all in all."""
        times = host_times()[max(0, self._before - 1) :]
        share = idle_share(times[0], times[-1]) if times else 1.0
        print(f"the computer around was idle for {share:.0%}")
        return share > 0.1

    def was_always_free(self) -> bool:
        """Whether it had that in every two seconds."""
        times = host_times()[max(0, self._before - 1) :]
        least = min((idle_share(*pair) for pair in zip(times, times[4:], strict=False)), default=1.0)
        print(f"the computer around was idle for {least:.0%} of its worst two seconds")
        return least > 0.1


@pytest.fixture
def host_time():
    """`host_time()` counts from then on."""
    return HostTime


def idle_share(before: tuple[float, float], after: tuple[float, float]) -> float:
    idle, total = (now - then for now, then in zip(after, before, strict=True))
    return idle / total if total else 1.0


def host_times() -> list[tuple[float, float]]:
    """(idle, all) seconds of the host's cores so far, twice a second, as run.py writes them."""
    try:
        lines = Path("/out/host_times").read_text().splitlines()
    except OSError:
        return []
    return [(float(idle), float(total)) for idle, total in (line.split() for line in lines)]
