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


def pytest_configure(config) -> None:
    if IS_INSIDE:
        from run_again import RunAgain

        config.pluginmanager.register(RunAgain())


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


@pytest.fixture
def host_time():
    """`host_time()` counts from then on."""
    from host_time import HostTime

    return HostTime
