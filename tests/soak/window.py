"""Standin's window without a screen, in front of the engine of `product.py`: told by lines on standard input.

    window.py FOLDER        settings, and the log of what the engine says (FOLDER/window.jsonl)

Lines: `record PATH`, `record` (end it), `quit`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from PySide6.QtCore import QSocketNotifier
from PySide6.QtWidgets import QApplication

from app.bootstrap import Application
from engine.protocol.messages import plain

HERE = Path(__file__).resolve().parent
_SETTINGS = """version = 1
has_consented = true
portrait = "sample:"
has_microphone = true
microphone = "fakemic"
gate = "off"
has_voice_out = true
voice_out = "standin:virtual"
fill = "crop"
canvas = "640x360"
camera_backend = "pipewire"
"""


def main() -> int:
    """Until told to quit."""
    folder = Path(sys.argv[1])
    settings = folder / "window.toml"
    settings.write_text(_SETTINGS, encoding="utf-8")
    qt = QApplication(sys.argv[:1])
    command = [sys.executable, str(HERE / "product.py"), "serve"]
    application = Application(settings_path=settings, library_folder=folder / "portraits", command=command)
    application.closed.connect(qt.quit)
    log = (folder / "window.jsonl").open("w", buffering=1)
    client = application.client

    def note(event: object) -> None:
        log.write(f"{time.monotonic():.3f} {json.dumps(plain(event))}\n")

    def note_loss(reason, _pause_ms: int) -> None:
        log.write(f"{time.monotonic():.3f} {json.dumps({'type': 'lost', 'reason': plain(reason)})}\n")

    for signal in (client.stats_received, client.noticed, client.state_changed, client.camera_changed):
        signal.connect(note)
    client.lost.connect(note_loss)
    listening = QSocketNotifier(sys.stdin.fileno(), QSocketNotifier.Type.Read)
    listening.activated.connect(lambda: _obey(sys.stdin.readline().split(), application))
    application.open()
    application.broadcast.set_camera(True)
    status = qt.exec()
    application.finish()
    return status


def _obey(words: list[str], application: Application) -> None:
    match words:
        case ["record", *path]:
            application.broadcast.record(path[0] if path else "")
        case ["quit"] | []:
            application.close()


if __name__ == "__main__":
    sys.exit(main())
