"""`python -m engine.audio.device_list`: the sound devices as they are now, as JSON; a process of its own, because
PortAudio sees devices that came later only when it starts."""

from __future__ import annotations

import json
import sys

import msgspec

from engine.audio.devices import list_audio_devices
from engine.errors import StandinError


def main() -> int:
    """Write the list, or why there is none."""
    try:
        microphones, outputs = list_audio_devices()
        answer = {"microphones": msgspec.to_builtins(microphones), "outputs": msgspec.to_builtins(outputs)}
    except StandinError as error:
        answer = {"error": {"message": error.message, "code": error.code, "hint": error.hint, "detail": error.detail}}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
