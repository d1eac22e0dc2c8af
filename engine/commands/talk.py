"""`--gate`, `--push-to-talk` and the keys that go with them."""

from __future__ import annotations

import argparse

from engine.audio.suppression import check_suppression
from engine.errors import UsageError
from engine.settings import GateSettings, SoundSettings
from engine.stream.broadcast import Broadcast

HINT = "Space or Enter: talk, and again: be silent. M: mute, which also drops what is on its way."


def add_sound_options(parser: argparse.ArgumentParser) -> None:
    """What is done with the microphone's sound."""
    parser.add_argument(
        "--gate",
        default="auto",
        metavar="G",
        help="noise gate in front of the lips: auto (above the room's noise), off, or a level in dBFS such as -45",
    )
    parser.add_argument("--gate-voice", action="store_true", help="gate what others hear, too")
    parser.add_argument(
        "--noise-suppression", action="store_true", help="take noise away from what the lips follow (extra: denoise)"
    )
    parser.add_argument("--push-to-talk", action="store_true", help="silent until Space is pressed; M mutes")


def sound_settings(arguments: argparse.Namespace) -> SoundSettings:
    """Raises `UsageError` for a gate that is none, and for noise suppression that is not installed."""
    if arguments.noise_suppression:
        check_suppression()
    return SoundSettings(
        gate=_gate(arguments.gate, is_heard=arguments.gate_voice),
        has_noise_suppression=arguments.noise_suppression,
        is_push_to_talk=arguments.push_to_talk,
    )


def _gate(text: str, *, is_heard: bool) -> GateSettings:
    if text == "off":
        return GateSettings(mode="off")
    if text == "auto":
        return GateSettings(is_heard=is_heard)
    try:
        return GateSettings(mode="level", level_dbfs=float(text), is_heard=is_heard)
    except ValueError:
        raise UsageError(f'"{text}" is no noise gate.', hint="Give auto, off, or a level such as -45.") from None


class TalkKeys:
    """What the keys do to a session."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self.is_talking = self.is_muted = False

    def press(self, key: str) -> None:
        """Keys that mean nothing are ignored, and so is any key before the session and after it."""
        try:
            if key in (" ", "\n", "\r"):
                self._broadcast.set_talking(not self.is_talking)
                self.is_talking = not self.is_talking
            elif key in ("m", "M"):
                self._broadcast.set_muted(not self.is_muted)
                self.is_muted = not self.is_muted
        except UsageError:
            pass
