"""`standin sync`: are voice and picture together on this machine? Measured, told with its sign, and made good."""

from __future__ import annotations

import argparse
import json

from engine.commands.console import ProgressLine
from engine.commands.options import voice_out_name
from engine.errors import UsageError
from engine.protocol.messages import plain
from engine.protocol.sync_words import told
from engine.settings import VIRTUAL_MICROPHONE, MicrophoneSource, VoiceOutSettings
from engine.stream.sync_test import LEAST_SECONDS, SyncTest

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
        return None if voice_out.name == VIRTUAL_MICROPHONE else MicrophoneSource()
    return MicrophoneSource(name="" if arguments.mic == "default" else arguments.mic, host_api=arguments.mic_api)
