"""`standin live`: the portrait says what the microphone hears, now."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import threading
import time
from pathlib import Path

from engine.commands.console import ProgressLine, notice, sentence
from engine.commands.keys import keys_read
from engine.commands.options import add_picture_options, canvas_settings, generator_settings, voice_out_name
from engine.commands.talk import HINT, TalkKeys, add_sound_options, sound_settings
from engine.errors import UsageError
from engine.media import SAMPLE_RATE_HZ
from engine.paths import expanded
from engine.protocol.messages import (
    CameraChanged,
    Event,
    Noticed,
    Progressed,
    SessionState,
    StateChanged,
    Stats,
    VoiceOutChanged,
    plain,
)
from engine.settings import (
    CameraSettings,
    FileSource,
    MicrophoneSource,
    SessionSettings,
    SilentSource,
    Source,
    VoiceOutSettings,
)
from engine.sinks.files import check_writable, output_error
from engine.stream.broadcast import Broadcast

_CTRL_C_EVERY_S = 0.2

_EPILOG = """examples:
  standin live --portrait me.jpg --mic "Blue Yeti"                       into the first virtual camera there is
  standin live --portrait sample: --mic default --voice-out virtual      and the voice, in sync, into a microphone
  standin live --portrait me.jpg --audio talk.wav --record talk.mp4 --no-camera

`standin devices` lists the names. Ctrl-C ends it; recordings are complete then."""


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "live",
        help="be the portrait, live",
        description="Feed a virtual camera with the portrait saying what the microphone hears.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_picture_options(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--mic", metavar="NAME", help='a microphone by name ("default": the system\'s)')
    source.add_argument("--audio", metavar="FILE", help="a sound file instead, spoken once in real time")
    parser.add_argument(
        "--mic-api", default="", metavar="API", help="the microphone's host API, if its name is there twice"
    )
    add_sound_options(parser)
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--camera", default="", metavar="DEV", help="which virtual camera (default: the first free one)"
    )
    camera.add_argument("--no-camera", action="store_true", help="without a virtual camera")
    parser.add_argument(
        "--camera-backend", default="", metavar="NAME", help="v4l2, pipewire, pyvirtualcam or pyvirtualcam:NAME"
    )
    parser.add_argument(
        "--voice-out",
        metavar="NAME",
        help='play the voice, delayed to match, on this output ("virtual": a microphone for the call)',
    )
    parser.add_argument(
        "--voice-out-api", default="", metavar="API", help="the output's host API, if its name is there twice"
    )
    parser.add_argument("--record", metavar="FILE.mp4", help="record picture and sound")
    parser.add_argument("--force", action="store_true", help="replace the recording if it exists")
    parser.add_argument(
        "--no-standby",
        action="store_true",
        help="load a slow generator before going live, instead of showing the puppet until it is ready",
    )
    parser.add_argument(
        "--fixed-quality",
        action="store_true",
        help="never make do with less while the computer is too slow (fewer steps, a smaller size, the puppet)",
    )
    parser.add_argument("--seconds", type=float, metavar="N", help="end after N seconds")
    parser.add_argument("--stats", metavar="FILE.json", help="write the session's figures there at the end")
    parser.add_argument("--json", action="store_true", help="print every event as a line of JSON")


def run(arguments: argparse.Namespace) -> int:
    """Until the file ends, the time is over, or Ctrl-C."""
    settings = _settings(arguments)
    stats_path = expanded(arguments.stats) if arguments.stats else None
    if stats_path is not None:
        check_writable(stats_path, may_replace=True)
    return run_session(settings, seconds=arguments.seconds, stats_path=stats_path, as_json=arguments.json)


def run_session(
    settings: SessionSettings, *, seconds: float | None, stats_path: Path | None = None, as_json: bool = False
) -> int:
    """Start, tell, wait, stop; shared with `standin demo`. 1 if something was given up on the way."""
    teller = _Teller(as_json=as_json, is_push_to_talk=settings.sound.is_push_to_talk)
    broadcast = Broadcast(settings, teller.tell)
    wake = broadcast.has_ended
    restore = _end_on_signals(wake, broadcast)
    try:
        broadcast.start()
        with keys_read(TalkKeys(broadcast).press) if settings.sound.is_push_to_talk else contextlib.nullcontext():
            _wait(wake, seconds)
        stats = broadcast.stats()
        broadcast.stop()
    finally:
        restore()
        teller.end()
        broadcast.stop()
    if stats_path is not None:
        _write_stats(stats_path, stats)
    if not as_json:
        _summarise(settings, stats)
    return 1 if teller.has_given_up else 0


def _settings(arguments: argparse.Namespace) -> SessionSettings:
    camera = None if arguments.no_camera else CameraSettings(device=arguments.camera, backend=arguments.camera_backend)
    voice_out = None
    if arguments.voice_out is not None:
        voice_out = VoiceOutSettings(name=voice_out_name(arguments.voice_out), host_api=arguments.voice_out_api)
    if arguments.seconds is not None and not arguments.seconds > 0:  # not a number is no time, either
        raise UsageError(f"{arguments.seconds:g} seconds are no time.", hint="Give a number above 0.")
    return SessionSettings(
        portrait=arguments.portrait,
        source=_source(arguments),
        generator=generator_settings(arguments),
        canvas=canvas_settings(arguments),
        fps=arguments.fps,
        camera=camera,
        voice_out=voice_out,
        sound=sound_settings(arguments),
        recording=arguments.record or "",
        may_replace_recording=arguments.force,
        has_standby=not arguments.no_standby,
        adaptive=not arguments.fixed_quality,
    )


def _source(arguments: argparse.Namespace) -> Source:
    if arguments.audio is not None:
        return FileSource(path=arguments.audio)
    if arguments.mic == "none":
        return SilentSource()
    name = "" if arguments.mic in (None, "default") else arguments.mic
    return MicrophoneSource(name=name, host_api=arguments.mic_api)


def _wait(wake: threading.Event, seconds: float | None) -> None:
    """Until `wake` or for `seconds`; in short waits, because on Windows Ctrl-C does not end a long one."""
    end_s = math.inf if seconds is None else time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0 and not wake.wait(min(left_s, _CTRL_C_EVERY_S)):
        pass


def _end_on_signals(wake: threading.Event, broadcast: Broadcast):
    """Ctrl-C and a polite kill end the session as its own end does; returns what puts the old handlers back."""

    def end(_number, _frame) -> None:
        broadcast.cancel()
        wake.set()

    old = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in old.items():
            signal.signal(number, handler)

    return restore


class _Teller:
    """Events to a person, or to a program as JSON lines."""

    def __init__(self, *, as_json: bool, is_push_to_talk: bool = False) -> None:
        self._as_json = as_json
        self._is_push_to_talk = is_push_to_talk
        self._line = ProgressLine(is_quiet=as_json)
        self.has_given_up = False

    def tell(self, event: Event) -> None:
        if isinstance(event, Noticed) and event.is_error:
            self.has_given_up = True
        if self._as_json:
            print(json.dumps(plain(event)), flush=True)
        elif isinstance(event, Progressed):
            self._line.update(event.stage, event.done, event.total, event.unit)
        elif isinstance(event, Stats):
            self._line.show_often(self._talk_word(event) + _stats_line(event))
        elif isinstance(event, Noticed):
            self._say(notice(event.reason, is_error=event.is_error))
        elif isinstance(event, CameraChanged) and event.is_open:
            self._say(f'Camera on: pick "{event.label}" in your call ({event.device}).')
        elif isinstance(event, VoiceOutChanged) and event.microphone:
            self._say(f'Voice on: pick the microphone "{event.microphone}" in your call.')
        elif isinstance(event, StateChanged) and event.state is SessionState.LIVE:
            self._say("Live. Ctrl-C ends it." + (f" {HINT}" if self._is_push_to_talk else ""))
        elif isinstance(event, StateChanged) and event.state in (SessionState.HOLDING, SessionState.FALLBACK):
            self._say(sentence(event.reason))

    def end(self) -> None:
        self._line.end()

    def _talk_word(self, stats: Stats) -> str:
        return "" if not self._is_push_to_talk else "TALKING  " if stats.is_talking else "silent   "

    def _say(self, text: str) -> None:
        self._line.end()
        print(text, flush=True)


def _stats_line(stats: Stats) -> str:
    minutes, seconds = divmod(int(stats.time_s), 60)
    meter = "#" * max(0, min(12, round((stats.level_dbfs + 60) / 5)))
    text = (
        f"{minutes:02d}:{seconds:02d}  {stats.fps:4.1f} fps  {stats.latency_ms:3.0f} ms behind you  "
        f"held {stats.held}  dropped {stats.dropped}  late {stats.late}  [{meter:12s}]"
    )
    if stats.av_offset_ms is not None:
        text += f"  lip sync {stats.av_offset_ms:+.0f} ms"
    return text


def _summarise(settings: SessionSettings, stats: Stats) -> None:
    print(
        f"{stats.presented} frames in {stats.time_s:.1f} s; held {stats.held}, dropped {stats.dropped}, "
        f"late {stats.late}; {stats.latency_ms:.0f} ms from voice to picture."
    )
    if stats.missing_samples:
        print(f"The microphone left out {stats.missing_samples / SAMPLE_RATE_HZ:.1f} s of sound.")
    if settings.recording and expanded(settings.recording).exists():
        print(f"Recorded: {settings.recording}")


def _write_stats(path: Path, stats: Stats) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(json.dumps(plain(stats), indent=2) + "\n", encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise output_error(path, error) from error
