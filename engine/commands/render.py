"""`standin render`: a talking clip from a portrait and a sound file, faster than real time."""

from __future__ import annotations

import argparse
import json
import time

from engine.audio.audio_file import AudioFile
from engine.commands.console import ProgressLine, notice
from engine.commands.options import add_picture_options, canvas_settings, generator_settings
from engine.portrait.load import load_portrait
from engine.sinks.recorder import Recorder
from engine.stream.offline import render_clip

_EPILOG = """examples:
  standin render --portrait me.jpg --audio talk.wav --out talk.mp4
  standin render --portrait sample: --audio talk.mp3 --out talk.mp4 --canvas 1920x1080 --fill crop --force"""


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "render",
        help="make a clip from a portrait and a sound file",
        description="Make an MP4 of the portrait saying what is in the sound file. Same inputs and seed, same clip.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_picture_options(parser)
    parser.add_argument("--audio", required=True, metavar="A", help="speech: WAV, FLAC, MP3, OGG, M4A ...")
    parser.add_argument("--out", required=True, metavar="O.mp4", help="the clip to write")
    parser.add_argument("--force", action="store_true", help="replace the clip if it exists")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON, and no progress")


def run(arguments: argparse.Namespace) -> int:
    """Render; 1 if it was interrupted (the clip so far is complete)."""
    canvas, generator = canvas_settings(arguments), generator_settings(arguments)
    portrait = load_portrait(arguments.portrait)
    audio = AudioFile(arguments.audio)
    recorder = Recorder(arguments.out, may_replace=arguments.force, title=portrait.name)
    line = ProgressLine(is_quiet=arguments.json)
    started_s = time.monotonic()
    try:
        clip = render_clip(
            portrait, audio, recorder, canvas=canvas, generator=generator, fps=arguments.fps, progress=line
        )
    finally:
        line.end()
    elapsed_s = time.monotonic() - started_s
    if arguments.json:
        print(json.dumps(_as_json(clip, elapsed_s)))
        return 0 if clip.is_complete else 1
    for told in clip.notices:
        print(notice(told))
    if not clip.is_complete:
        print(f"Stopped. The first {clip.duration_s:.1f} seconds are in {clip.path}.")
        return 1
    speed = clip.duration_s / max(elapsed_s, 1e-3)
    print(f"{clip.path}: {clip.duration_s:.1f} seconds, made in {elapsed_s:.1f} s ({speed:.1f} times real time).")
    return 0


def _as_json(clip, elapsed_s: float) -> dict:
    return {
        "path": str(clip.path),
        "frames": clip.frames,
        "duration_s": clip.duration_s,
        "elapsed_s": round(elapsed_s, 3),
        "is_complete": clip.is_complete,
        "notices": [{"code": n.code, "message": n.message, "hint": n.hint} for n in clip.notices],
    }
