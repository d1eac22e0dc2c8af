"""How long each output's sound was on its way when it was too slow, so that the next session's delay leaves room."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import msgspec

from engine.paths import cache_folder, write_private
from engine.settings import VoiceOutSettings
from engine.stream.timeline import CAPTURE_S

logger = logging.getLogger(__name__)

USUAL_S = 0.050
"""Of an output that nothing is known of; what the virtual microphone asks for."""

_MOST_S = 2.0
_QUEUED_S = 0.030
_RESERVE_S = 0.010
"""A session differs from the next by some ms; the same would not be told again."""

_SAME_S = 0.001


class _Output(msgspec.Struct):
    """Seconds from the delay line until its sound is heard, and the correction with which it was last used."""

    output_s: float = USUAL_S
    correction_s: float = 0.0


def delay_for(wanted: VoiceOutSettings, correction_s: float | None = None) -> float:
    """Seconds of delay with which the voice on this output can be in time, so much later than the picture; as the last
    time where that is not given and not set. Looks at no device."""
    known = _known(wanted)
    if correction_s is None:
        correction_s = known.correction_s if wanted.offset_ms is None else 1e-3 * wanted.offset_ms
    return CAPTURE_S + known.output_s + max(0.0, -correction_s) + _QUEUED_S


def remember(wanted: VoiceOutSettings, needed_s: float, correction_s: float) -> None:
    """Keep that the voice needed so much delay there."""
    output_s = needed_s + correction_s - CAPTURE_S - _QUEUED_S + _RESERVE_S
    _keep(wanted, _Output(output_s=round(max(0.0, output_s), 3), correction_s=round(correction_s, 4)))


def remember_correction(wanted: VoiceOutSettings, correction_s: float) -> None:
    """Keep with which correction it is used."""
    known = _known(wanted)
    if abs(known.correction_s - correction_s) >= _SAME_S:
        _keep(wanted, msgspec.structs.replace(known, correction_s=round(correction_s, 4)))


def _known(wanted: VoiceOutSettings) -> _Output:
    try:
        known = msgspec.convert(_read().get(_key(wanted), {}), _Output)
    except msgspec.ValidationError:
        return _Output()
    is_possible = 0.0 <= known.output_s <= _MOST_S and abs(known.correction_s) <= _MOST_S
    return known if is_possible else _Output()


def _keep(wanted: VoiceOutSettings, output: _Output) -> None:
    """A disk that is full only costs being told again."""
    try:
        write_private(_path(), json.dumps({**_read(), _key(wanted): msgspec.to_builtins(output)}))
    except OSError as error:
        logger.warning("the delay of the sound output could not be stored in %s: %s", _path(), error)


def _read() -> dict[str, object]:
    try:
        return msgspec.json.decode(_path().read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError):
        return {}


def _path() -> Path:
    return cache_folder() / "outputs.json"


def _key(wanted: VoiceOutSettings) -> str:
    return f"{wanted.host_api}/{wanted.name}"
