"""The window's parts on a fake engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("PySide6", reason="the window needs the gui extra")

from pytestqt.qtbot import QtBot

from app.controllers.broadcast import BroadcastController
from app.engine_client.client import EngineClient, Timeouts
from app.engine_client.process import EngineProcess
from app.settings.store import SettingsStore
from engine.protocol import messages as m
from engine.protocol.codec import decode_command

QUICK = Timeouts(
    first_pause_ms=20, longest_pause_ms=160, healthy_after_ms=60_000, hello_within_ms=60_000, ping_every_ms=60_000,
    silent_pings=2,
)  # fmt: skip
"""Restarts at once; nothing else happens by itself unless a test asks for it."""

STOP_WITHIN_MS = (500, 300, 5_000)
_WAIT_MS = 30_000
"""A fake engine is a Python process, and on a busy computer it takes seconds to start one."""


class Commands:
    """What the fake engine was told, all its lives together."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[m.Command]:
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        return [decode_command(line) for line in lines]

    def of(self, kind: type[m.Command]) -> list:
        return [command for command in self.all() if isinstance(command, kind)]


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Who waits without a limit of its own waits longer than pytest-qt would."""
    for wait in (QtBot.waitUntil, QtBot.waitSignal, QtBot.waitSignals):
        monkeypatch.setitem(wait.__kwdefaults__, "timeout", _WAIT_MS)


@pytest.fixture
def commands(tmp_path) -> Commands:
    return Commands(tmp_path / "commands.jsonl")


@pytest.fixture
def fake_command(tmp_path, monkeypatch):
    """The command line of a fake engine in a mode."""
    root = Path(__file__).resolve().parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    script = Path(__file__).with_name("fake_engine.py")
    return lambda mode: [sys.executable, str(script), mode, str(tmp_path / "commands.jsonl")]


@pytest.fixture
def make_client(qapp, fake_command):
    """Clients of fake engines, not started yet; ended with the test."""
    made = []

    def make(mode: str = "obedient", timeouts: Timeouts = QUICK) -> EngineClient:
        made.append(EngineClient(EngineProcess(fake_command(mode), stop_within_ms=STOP_WITHIN_MS), timeouts=timeouts))
        return made[-1]

    yield make
    for client in made:
        client.finish()


@pytest.fixture
def make_broadcast(make_client, tmp_path):
    """A controller on a fake engine that has not been started yet, with a quick second begin."""

    def make(mode: str = "obedient", settings: str = "has_microphone = false\n", **pauses: int):
        (tmp_path / "window.toml").write_text(f"version = 1\n{settings}", encoding="utf-8")
        client = make_client(mode)
        pauses = {"again_after_ms": 20, "trusted_after_ms": 60_000} | pauses
        return client, BroadcastController(client, SettingsStore(tmp_path / "window.toml"), **pauses)

    return make


@pytest.fixture
def make_window(qtbot, fake_command, tmp_path, monkeypatch):
    """The whole window on a fake engine, shown; ended with the test."""
    from app.bootstrap import Application

    made = []
    monkeypatch.setattr("app.engine_client.process._STOP_WITHIN_MS", STOP_WITHIN_MS)

    def make(mode: str = "obedient", settings: str = "has_microphone = false\n", *, is_open: bool = True):
        (tmp_path / "window.toml").write_text(f"version = 1\n{settings}", encoding="utf-8")
        application = Application(
            settings_path=tmp_path / "window.toml", library_folder=tmp_path / "portraits", command=fake_command(mode)
        )
        made.append(application)
        qtbot.addWidget(application.window)
        if is_open:
            application.open()
        return application

    yield make
    for application in made:
        application.finish()
