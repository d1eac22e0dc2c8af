"""Everything that moves without being said: blinks, glances, sway, breath, nods.

All of it follows from a seed, the frame number and how loudly somebody speaks, so that the same voice gives the same
picture. Every curve is smooth and starts from the portrait's own pose. Lengths are in iod, angles in radians (see
`Expression`).
"""

from __future__ import annotations

import math
import random

from engine.generators.puppet.expression import Expression

_FADE_IN_S = 1.2
_SWAY = {"tx": 0.034, "ty": 0.014, "roll": 0.018, "yaw": 0.085, "pitch": 0.05, "zoom": 0.006}
"""How far the head wanders, per value of `Expression`."""


class Motion:
    """Blinks, gaze, brows and head of one stream; advanced once per frame, in order."""

    def __init__(self, *, seed: int, fps: int = 25, amount: float = 1.0) -> None:
        self._seed = seed
        self._fps = fps
        self._amount = amount
        self.reset()

    def reset(self) -> None:
        """Back to the first frame."""
        self._frame = 0
        self._activity = _Smoother(rise_s=0.25, fall_s=0.9)
        self._blinks = Blinks(random.Random(f"{self._seed} blinks"), self._fps)
        self._gaze = Gaze(random.Random(f"{self._seed} gaze"))
        self._sway = Sway(random.Random(f"{self._seed} sway"))
        self._posture = Posture(random.Random(f"{self._seed} posture"))
        self._emphasis = Emphasis()

    def advance(self, expression: Expression, loudness: float, is_speaking: bool) -> None:
        """Write the next frame's lids, gaze, brows and head into `expression`; leaves the mouth alone."""
        step_s = 1.0 / self._fps
        time_s = self._frame * step_s
        activity = self._activity.advance(min(1.0, 1.3 * loudness) if is_speaking else 0.0, step_s)
        nod, brow = self._emphasis.advance(loudness, step_s)
        looked_away = self._gaze.advance(expression, time_s, step_s, activity)
        expression.blink = self._blinks.advance(is_speaking, looked_away)
        fade = self._amount * _smoothstep(time_s / _FADE_IN_S)
        self._sway.write(expression, time_s, fade * (0.55 + 0.6 * activity))
        self._posture.advance(expression, is_speaking, step_s, fade)
        expression.ty += 0.06 * nod * self._amount
        expression.pitch += 0.08 * nod * self._amount
        expression.brow = max(-1.0, min(1.0, brow + 0.10 * fade * math.sin(0.61 * time_s + 1.0)))
        self._frame += 1


class Blinks:
    """Lids: every 1.4 to 7.4 s, likelier when somebody has just stopped speaking, now and then two in a row."""

    CLOSE_S, HOLD_S, OPEN_S = 0.070, 0.030, 0.140

    def __init__(self, rng: random.Random, fps: int) -> None:
        self._rng = rng
        self._fps = fps
        self._frame = 0
        self._start = self._next_start()
        self._pause_frames = 1_000_000

    def advance(self, is_speaking: bool, looked_away: bool) -> float:
        """How far the lids are closed in the next frame, 0..1."""
        self._pause_frames = 0 if is_speaking else self._pause_frames + 1
        since_s = (self._frame - self._start) / self._fps
        if since_s >= self.CLOSE_S + self.HOLD_S + self.OPEN_S:
            is_double = self._rng.random() < 0.06
            self._start = self._frame + (int(0.12 * self._fps) if is_double else self._next_start())
            since_s = -1.0
        elif since_s < -0.2 and self._has_reason(looked_away):
            self._start = self._frame + 1
            since_s = -1.0
        self._frame += 1
        return self.lid(since_s)

    def _has_reason(self, looked_away: bool) -> bool:
        """A pause after speech or a wide glance brings the next blink forward, if the last one is some time ago."""
        just_stopped = 1 <= self._pause_frames <= self._fps // 5 and self._rng.random() < 0.15
        glanced = looked_away and self._rng.random() < 0.35
        return (just_stopped or glanced) and self._frame - self._last_start > 1.4 * self._fps

    def _next_start(self) -> int:
        self._last_start = self._frame
        wait_s = 1.4 + min(self._rng.expovariate(1 / 2.6), 6.0)
        return max(1, round(wait_s * self._fps))

    @classmethod
    def lid(cls, since_s: float) -> float:
        """Lid closure this long after a blink began."""
        if since_s < 0.0:
            return 0.0
        if since_s < cls.CLOSE_S:
            return _smoothstep(since_s / cls.CLOSE_S)
        return 1.0 - _smoothstep((since_s - cls.CLOSE_S - cls.HOLD_S) / cls.OPEN_S)


class Gaze:
    """Small jumps of the eyes every 0.7 to 2.6 s that mostly come back to the camera, with a slow drift between."""

    _JUMP_S = 0.05

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._target = (0.0, 0.0)
        self._now = (0.0, 0.0)
        self._next_s = 0.8 + rng.random()

    def advance(self, expression: Expression, time_s: float, step_s: float, activity: float) -> bool:
        """Write the gaze; true when a wide glance begins."""
        is_wide = False
        if time_s >= self._next_s:
            self._next_s = time_s + self._rng.uniform(0.7, 2.6)
            is_wide = self._choose_target(activity)
        share = 1.0 - math.exp(-step_s / self._JUMP_S * 1.6)
        self._now = tuple(n + share * (t - n) for n, t in zip(self._now, self._target, strict=True))  # type: ignore[assignment]
        expression.gaze_x = self._now[0] + 0.03 * math.sin(1.9 * time_s)
        expression.gaze_y = self._now[1] + 0.03 * math.sin(1.3 * time_s)
        return is_wide

    def _choose_target(self, activity: float) -> bool:
        kind = self._rng.random()
        away = 0.16 + 0.10 * activity
        if kind < away:
            self._target = (self._rng.choice((-1, 1)) * self._rng.uniform(0.45, 0.85), self._rng.uniform(-0.45, 0.35))
            return True
        reach = 0.10 if kind < 0.6 else 0.30
        self._target = (self._rng.uniform(-reach, reach), 0.6 * self._rng.uniform(-reach, reach))
        return False


class Sway:
    """Slow wandering of the head and breathing: two sines of unrelated periods in every direction."""

    def __init__(self, rng: random.Random) -> None:
        self._waves = {
            name: [
                (share * amplitude, 2 * math.pi * rng.uniform(low, high), rng.uniform(0.0, 2 * math.pi))
                for share, low, high in ((0.62, 0.090, 0.125), (0.38, 0.135, 0.180))
            ]
            for name, amplitude in _SWAY.items()
        }
        self._breath_phase = rng.uniform(0.0, 2 * math.pi)

    def write(self, expression: Expression, time_s: float, gain: float) -> None:
        """Set the head's pose and the breath."""
        for name, waves in self._waves.items():
            value = sum(amplitude * math.sin(omega * time_s + phase) for amplitude, omega, phase in waves)
            setattr(expression, name, gain * value)
        breath = 2 * math.pi * 0.24 * time_s + self._breath_phase
        expression.breath = 0.018 * gain / 0.85 * math.sin(breath + 0.35 * math.sin(breath))


class Posture:
    """A new carriage of the head for every phrase, taken up within half a second; back to the middle in silence."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._springs = {name: _Spring(stiffness=22.0, damping=9.4) for name in ("roll", "yaw", "pitch", "tx")}
        self._targets = dict.fromkeys(self._springs, 0.0)
        self._eased = {name: _Smoother(rise_s=0.15, fall_s=0.15) for name in self._springs}
        self._silence_s = 10.0
        self._phrase_s = 0.0

    def advance(self, expression: Expression, is_speaking: bool, step_s: float, gain: float) -> None:
        """Add to the head's pose."""
        if is_speaking and (self._silence_s > 0.25 or self._phrase_s > 2.8):
            self._begin_phrase()
        self._silence_s = 0.0 if is_speaking else self._silence_s + step_s
        self._phrase_s += step_s
        rest = 0.25 if self._silence_s > 0.8 else 1.0
        for name, spring in self._springs.items():
            value = spring.advance(self._eased[name].advance(rest * self._targets[name], step_s), step_s)
            setattr(expression, name, getattr(expression, name) + gain * value)

    def _begin_phrase(self) -> None:
        self._phrase_s = self._rng.uniform(-0.8, 0.4)
        side = self._rng.uniform(-1.0, 1.0)
        self._targets = {
            "roll": 0.016 * self._rng.uniform(-1.0, 1.0),
            "yaw": 0.045 * side,
            "pitch": 0.03 * self._rng.uniform(-1.0, 0.6),
            "tx": 0.012 * side,
        }


class Emphasis:
    """Nods and raised brows on stressed syllables: where the voice is louder than its last second."""

    def __init__(self) -> None:
        self._mean = _Smoother(rise_s=0.9, fall_s=0.9)
        self._excess = _Smoother(rise_s=0.12, fall_s=0.5)
        self._nod = _Spring(stiffness=60.0, damping=14.0)
        self._brow = _Spring(stiffness=110.0, damping=20.0)

    def advance(self, loudness: float, step_s: float) -> tuple[float, float]:
        """Nod (0 rest, about 1 strong) and brow (0..1)."""
        mean = self._mean.advance(loudness, step_s)
        stress = self._excess.advance(max(0.0, min(1.0, (loudness - mean - 0.25) / 0.5)), step_s)
        return self._nod.advance(stress, step_s), self._brow.advance(min(1.0, 1.3 * stress), step_s)


class _Smoother:
    """A first-order low pass with its own time to rise and to fall."""

    def __init__(self, *, rise_s: float, fall_s: float) -> None:
        self._rise_s, self._fall_s = rise_s, fall_s
        self._value = 0.0

    def advance(self, target: float, step_s: float) -> float:
        time_s = self._rise_s if target > self._value else self._fall_s
        self._value += (1.0 - math.exp(-step_s / time_s)) * (target - self._value)
        return self._value


class _Spring:
    """A damped spring of unit mass, semi-implicit Euler; stable for the steps used here (1/25 s)."""

    def __init__(self, *, stiffness: float, damping: float) -> None:
        self._stiffness, self._damping = stiffness, damping
        self._position = self._velocity = 0.0

    def advance(self, target: float, step_s: float) -> float:
        pull = self._stiffness * (target - self._position)
        self._velocity = (self._velocity + step_s * pull) / (1.0 + step_s * self._damping)
        self._position += step_s * self._velocity
        return self._position


def _smoothstep(x: float) -> float:
    x = 0.0 if x < 0.0 else 1.0 if x > 1.0 else x
    return x * x * (3.0 - 2.0 * x)
