"""`standin sync`: are voice and picture together on this machine? Measured, told with its sign, and made good."""

from __future__ import annotations

import argparse
import json

from engine.audio.virtual_microphone import VIRTUAL
from engine.commands.console import ProgressLine
from engine.commands.options import voice_out_name
from engine.errors import UsageError
from engine.protocol.messages import SyncMeasured, plain
from engine.settings import MicrophoneSource, VoiceOutSettings
from engine.stream.sync_test import LEAST_SECONDS, SyncTest

EARLY_MS, LATE_MS = 45.0, -125.0
"""What people notice, ITU-R BT.1359-1; sound early is above 0."""

_EPILOG = """examples:
  standin sync                                          the virtual microphone, heard at its own other end
  standin sync --voice-out "CABLE Input" --mic "CABLE Output"
  standin sync --voice-out default --mic default        loudspeaker and microphone: hold one to the other

Clicks are played, delayed as your voice is, and compared with the frames that were made of them. The next
`standin live` with that output applies what was found; --no-store only tells."""


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "sync",
        help="test whether voice and picture are together, and make it so",
        description="Play clicks at the voice out, hear them again, and compare them with the picture.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--voice-out", default="virtual", metavar="NAME", help='the output to test (default: "virtual")'
    )
    parser.add_argument("--voice-out-api", default="", metavar="API", help="its host API, if its name is there twice")
    parser.add_argument("--mic", metavar="NAME", help="what hears it (default: the virtual microphone's other end)")
    parser.add_argument("--mic-api", default="", metavar="API", help="its host API, if its name is there twice")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="N", help="for how long (default: 8)")
    parser.add_argument("--no-store", action="store_true", help="only tell, change nothing")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and tell. Raises what `SyncTest.run` raises."""
    if not LEAST_SECONDS <= arguments.seconds <= 600:
        raise UsageError(
            f"A sync test of {arguments.seconds:g} seconds is not possible.", hint=f"Choose {LEAST_SECONDS:g} to 600."
        )
    voice_out = VoiceOutSettings(name=voice_out_name(arguments.voice_out), host_api=arguments.voice_out_api)
    microphone = _microphone(arguments, voice_out)
    line = ProgressLine(is_quiet=arguments.json)
    try:
        test = SyncTest(voice_out, microphone, seconds=arguments.seconds, is_stored=not arguments.no_store)
        measured = test.run(line)
    finally:
        line.end()
    print(json.dumps(plain(measured), indent=2) if arguments.json else told(measured))
    return 0


def _microphone(arguments: argparse.Namespace, voice_out: VoiceOutSettings) -> MicrophoneSource | None:
    if arguments.mic is None:
        return None if voice_out.name == VIRTUAL else MicrophoneSource()
    return MicrophoneSource(name="" if arguments.mic == "default" else arguments.mic, host_api=arguments.mic_api)


def told(measured: SyncMeasured) -> str:
    """What was found, for a person."""
    offset_ms = measured.offset_ms
    side = "in time" if abs(offset_ms) < 0.5 else "early" if offset_ms > 0 else "late"
    verdict = "nobody notices that" if LATE_MS < offset_ms < EARLY_MS else "people would notice"
    text = f"Lip sync: {offset_ms:+.0f} ms (the sound is {side}; {verdict}). "
    text += f"{measured.heard} of {measured.played} clicks heard, spread {measured.spread_ms:.1f} ms.\n"
    moved = f"{abs(measured.correction_ms):.0f} ms {'later' if measured.correction_ms >= 0 else 'sooner'}"
    if measured.is_stored:
        return text + f"Stored: from now on this output plays the voice {moved} than without a correction."
    return text + f"Not stored: the voice would have to be played {moved} than without a correction."
