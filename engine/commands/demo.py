"""`standin demo`: the sample portrait speaks the sample speech through the real live pipeline, in real time."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path

from engine.assets import asset_path
from engine.commands.console import sentence
from engine.commands.live import run_session
from engine.paths import expanded, recordings_folder
from engine.settings import CameraSettings, FileSource, SessionSettings

_CLOSING = """
Here is the clip: {path}

What to do next:
  standin                                              open the window
  standin live --portrait YOUR.jpg --mic default       be your own portrait in the next call
  standin devices                                      the names of microphones and cameras
  standin doctor                                       what is missing, and how to get it"""


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="the sample portrait speaks the sample speech",
        description="Shows everything at work without a microphone: into the virtual camera if there is one, and "
        "into an MP4 with sound.",
    )
    parser.add_argument("--out", metavar="FILE.mp4", help="where the clip goes (default: your Videos folder)")
    parser.add_argument("--portrait", default="sample:", metavar="P", help="a picture, or sample:ID")
    parser.add_argument("--audio", metavar="FILE", help="a sound file instead of the sample speech")


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration and say what to do next."""
    path = expanded(arguments.out) if arguments.out else _free_name(recordings_folder())
    settings = SessionSettings(
        portrait=arguments.portrait,
        source=FileSource(path=arguments.audio or str(asset_path("speech/welcome.flac"))),
        camera=_camera_if_any(),
        recording=str(path),
    )
    status = run_session(settings, seconds=None)
    print(_CLOSING.format(path=path))
    return status


def _camera_if_any() -> CameraSettings | None:
    from engine.sinks.virtual_camera import list_cameras

    cameras, reason = list_cameras()
    for camera in cameras:
        if camera.problem is None:
            return CameraSettings(device=camera.device, backend=camera.backend)
    why = reason or next((camera.problem for camera in cameras if camera.problem is not None), None)
    if why is not None:
        print(f"No virtual camera can be used now, so only the clip is made. {sentence(why)}")
    return None


def _free_name(folder: Path) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d %H.%M.%S")
    return folder / f"Standin {stamp}.mp4"
