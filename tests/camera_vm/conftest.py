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
