"""The voice on its way to the output: as late as the picture, whatever the clocks of the two devices do."""

from __future__ import annotations

from collections import deque

import numpy as np
import soxr

from engine.audio.ring import SampleRing

MAX_CORRECTION = 0.005
"""Half a percent of speed: nobody hears it, and it makes good 5 ms a second."""

REALIGN_S = 0.060
"""Beyond this the voice has to jump to its place, in a pause of the speaker if there is one."""

_REALIGN_SOON_S, _SOON_S = 0.015, 10.0
"""So much is enough soon after the voice has begun or has been torn, in pauses only: a device that starts has put it
somewhere, and half a percent of speed would take ten seconds."""

_SETTLE_S = 0.3
"""An output fills its buffers when it starts; what it says of their delay before that is of no use."""

_AT_ONCE_S = 0.250
_PATIENCE_S = 6.0
"""Past the first, or after the second without a pause, it jumps anyway: it would be noticed more than the jump."""

_CORRECTION_PER_S = 0.2
_WINDOW_S = 1.0
"""Output callbacks come some ms early and late, on a busy machine many. Corrections made from a single one would be
heard as wow, so the median of so long counts."""

_LEAST_QUEUE_S = 0.020
"""What must still wait after each callback of a voice that cannot be in time: playing sooner than that, an output would
run empty again and again."""

_ROOM_S, _PARTS = 3.0, 4
_ROOM_MOST, _ROOM_LEAST = 0.8, 0.1
"""A voice is too late for its place only if the output has run empty in each part of that time, and there was too
little room in nearly all of it: an output that starts, or a stall, moves nothing. Then the worst tenth does not count.
"""

_ROOM_HYSTERESIS_S = 0.015
"""Two clocks that differ meet blocks of 10 ms now at their beginning, now at their end; the voice need not follow."""

_ORIGIN_S = 0.2
_MEASURE_S = 0.3
_FADE_S = 0.005
_SLEW_S = 0.1
_JUMP_S = 0.002
_LONGEST_GAP_S = 1.0
_RING_S = 6.0
_QUIET = 0.01
_QUIET_S = 0.030
"""A pause: this long below -40 dBFS. What is cut out or put in there is not heard."""


class DelayLine:
    """Samples with their session times in, a stream at the output's rate out, steered to play each on time.

    `write`, `steer` and `clear` belong to the audio thread, `fill` to the output's callback. Offsets are in seconds;
    positive means that the voice is early. `offset_s` (any thread) plays it later still than the picture: what a sync
    test has found to be missing on the way to the listener; below 0 sooner. Where the sound comes too late for its
    place, the voice is played as soon as it is without gaps, and `late_s` says how much too late that is.
    """

    def __init__(self, rate_hz: int, offset_s: float = 0.0) -> None:
        self.rate_hz = rate_hz
        self.offset_s = offset_s
        self.underruns = 0
        self.realigned = 0
        self.late_s = 0.0
        """How far behind its place the voice has to stay; 0 where it can be in time."""
        self._ring = SampleRing(int(_RING_S * rate_hz))
        # The audio thread's.
        self._speed: _VariableSpeed | None = None
        self._given_s = 0.0  # session time at which the next block should begin
        self._end_s = 0.0  # session time of the next sample that the ring will get
        self._smooth_s = 0.0
        self._lately: deque[tuple[float, float]] = deque()
        self._rooms: deque[tuple[float, float, int]] = deque()
        self._has_news = False
        self._torn_jumps = -1  # running empty again and again, it jumps at once: that can only be better
        self._origins: deque[tuple[float, float]] = deque()
        self._measured: _Mark | None = None
        self._measured_since_s = 0.0
        self._astray_since_s: float | None = None
        self._torn_s = 0.0  # when the voice has begun or an underrun was seen last
        self._torn_count = 0
        # The callback's.
        self._fade = 0.5 - 0.5 * np.cos(
            np.linspace(0, np.pi, max(2, int(_FADE_S * rate_hz)), dtype=np.float32)[:, None]
        )
        self._has_begun = False
        self._is_fading_in = True
        self._last = 0.0
        self._quiet = 0
        self._wait = 0
        self._filled = 0
        # From one to the other, each replaced whole.
        self._jumps = 0
        self._mark: _Mark | None = None
        self._order: _Order | None = None
        self._clear_to = 0

    @property
    def queue_s(self) -> float:
        """Seconds of voice that wait."""
        return len(self._ring) / self.rate_hz

    # ------------------------------------------------------------------------------------------- audio thread

    def write(self, samples: np.ndarray, rate_hz: int, start_s: float) -> None:
        """Add float32 (n, channels) that begins at session time `start_s`."""
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
        if self._speed is None or self._speed.source_rate_hz != rate_hz:
            self._speed = _VariableSpeed(rate_hz, self.rate_hz)
            self._given_s = self._end_s = start_s
        gap_s = start_s - self._given_s
        if _JUMP_S < gap_s < _LONGEST_GAP_S:
            self._push(np.zeros(round(gap_s * rate_hz), np.float32))  # sound is missing; what follows keeps its time
        elif abs(gap_s) > _JUMP_S:
            self._end_s += gap_s
        self._given_s = start_s + len(mono) / rate_hz
        self._push(mono)
        self._has_news = True

    def _push(self, mono: np.ndarray) -> None:
        assert self._speed is not None
        out, consumed_s = self._speed.push(mono)
        self._ring.write(out[:, None])
        self._end_s += consumed_s

    def steer(self, delay_s: float, origin_s: float) -> float | None:
        """Compare what sounds with what should; adjust the speed. Returns the offset in s, None before any sound.

        The sample of session time t should sound at `origin_s + t + delay_s`, and `offset_s` later.
        """
        mark = self._mark
        if mark is None or self._speed is None:
            self._rooms.clear()
            return None
        jumps, read, sounds_at_s, waiting = mark
        session_s = self._end_s - (self._ring.written - read) / self.rate_hz
        offset_s = (origin_s + session_s + delay_s + self.offset_s) - sounds_at_s
        self._measure(offset_s, mark)
        if self._has_news:  # the mark is of just before, when least was waiting
            self._has_news = False
            was_late = self.late_s > 0.0
            self._find_room(sounds_at_s, waiting / self.rate_hz + offset_s)
            if self.late_s > 0.0 and not was_late:
                self._torn_jumps = jumps
        astray_s = self._smooth_s + self.late_s
        self._order = self._order_after(mark, astray_s)
        # Early voice must be slowed down: fewer samples of input for one of output.
        correction = -_CORRECTION_PER_S * astray_s - self._origin_speed(origin_s)
        self._speed.correct(float(np.clip(correction, -MAX_CORRECTION, MAX_CORRECTION)))
        return self._smooth_s

    def _find_room(self, now_s: float, room_s: float) -> None:
        """`room_s` of voice would be waiting now if it were in its place: that does not depend on where it is."""
        self._rooms.append((now_s, room_s - self.offset_s, self.underruns))
        while self._rooms[0][0] < now_s - _ROOM_S:
            self._rooms.popleft()
        if now_s - self._rooms[0][0] < 0.9 * _ROOM_S:
            return
        if self.late_s == 0.0 and not self._runs_empty_always():
            return
        rooms_s = sorted(room_s for _, room_s, _ in self._rooms)
        most_s, least_s = (rooms_s[int(share * len(rooms_s))] + self.offset_s for share in (_ROOM_MOST, _ROOM_LEAST))
        if self.late_s == 0.0 and most_s > _LEAST_QUEUE_S:
            return
        needed_s = _LEAST_QUEUE_S - least_s
        if not self.late_s - _ROOM_HYSTERESIS_S <= needed_s <= self.late_s:
            self.late_s = max(0.0, needed_s)

    def _runs_empty_always(self) -> bool:
        """Whether there were underruns in each part of the time that `_rooms` is about."""
        since_s, _, before = self._rooms[0]
        part_s = (self._rooms[-1][0] - since_s) / _PARTS
        for now_s, _, underruns in self._rooms:
            if now_s - since_s >= part_s:
                if underruns == before:
                    return False
                since_s, before = now_s, underruns
        return True

    def _origin_speed(self, origin_s: float) -> float:
        """Seconds that the origin has moved in each second lately. What the picture follows at once, the voice would
        otherwise come after by seconds."""
        self._origins.append((self._given_s, origin_s))
        while self._origins[0][0] < self._given_s - _ORIGIN_S:
            self._origins.popleft()
        first_s, before_s = self._origins[0]
        elapsed_s = self._given_s - first_s
        return (origin_s - before_s) / elapsed_s if elapsed_s > _ORIGIN_S / 2 else 0.0

    def _measure(self, offset_s: float, mark: _Mark) -> None:
        """The offset without the jitter of single callbacks; what was measured before a jump says nothing after it."""
        before, self._measured = self._measured, mark
        if before is None or before[0] != mark[0]:
            self._lately.clear()
            self._measured_since_s, self._astray_since_s = mark[2], None
        elif mark is before:
            return
        self._lately.append((mark[2], offset_s))
        while self._lately[0][0] < mark[2] - _WINDOW_S:
            self._lately.popleft()
        self._smooth_s = sorted(value for _, value in self._lately)[len(self._lately) // 2]

    def _order_after(self, mark: _Mark, astray_s: float) -> _Order | None:
        jumps, _, now_s, _ = mark
        samples = round(astray_s * self.rate_hz)
        if not self._has_begun or self._torn_count != self.underruns:
            self._torn_s, self._torn_count = now_s, self.underruns
        if not self._has_begun or jumps == self._torn_jumps:
            return jumps, samples, True
        if abs(astray_s) < REALIGN_S:
            self._astray_since_s = None
        elif self._astray_since_s is None:
            self._astray_since_s = now_s
        measured_s = now_s - self._measured_since_s
        if _REALIGN_SOON_S < abs(astray_s) < REALIGN_S and measured_s > _WINDOW_S and now_s - self._torn_s < _SOON_S:
            return jumps, samples, False
        if abs(astray_s) < REALIGN_S or measured_s < _MEASURE_S:
            return None
        is_lasting = self._astray_since_s is not None and now_s - self._astray_since_s > _PATIENCE_S
        return jumps, samples, is_lasting or abs(astray_s) > _AT_ONCE_S

    def clear(self) -> None:
        """Forget what waits: it must not be heard any more."""
        self._clear_to = self._ring.written

    # ----------------------------------------------------------------------------------------------- callback

    def fill(self, out: np.ndarray, sounds_at_s: float) -> None:
        """The callback: fill float32 (n, 1) with what is due; silence, faded, where nothing is."""
        count = len(out)
        if self._ring.position < self._clear_to:
            self._ring.skip(self._clear_to - self._ring.position)
            self._wait = 0
            self._jump()
        self._obey(len(out))
        if self._has_begun:
            self._play(out)
        else:
            out[:] = 0.0
        self._last = float(out[-1, 0])
        heard = float(max(out.max(), -out.min()))
        self._quiet = self._quiet + count if heard < _QUIET else 0
        self._filled += count
        if self._filled > _SETTLE_S * self.rate_hz:
            sounds_at_s += (count + self._wait) / self.rate_hz
            self._mark = (self._jumps, self._ring.position, sounds_at_s, len(self._ring) + self._wait)

    def restart(self) -> None:
        """By the callback's thread: the output has been opened anew, so begin in the right place again."""
        self._ring.skip(len(self._ring))
        self._has_begun = False
        self._wait = self._filled = 0
        self._mark = None
        self._jump()

    def _obey(self, block: int) -> None:
        """Jump as ordered: wait where the voice is early, leave out where it is late."""
        order = self._order
        if order is None or order[0] != self._jumps:
            return
        _, samples, is_urgent = order
        is_pause = self._quiet >= _QUIET_S * self.rate_hz
        if not is_urgent and not is_pause:
            return
        if samples >= 0:
            self._wait += samples
        elif is_urgent:
            self._ring.skip(-samples)
        elif not self._skip_quiet(-samples, block):
            return
        self.realigned += self._has_begun
        self._has_begun = True
        self._jump()

    def _jump(self) -> None:
        self._jumps += 1
        self._is_fading_in = True

    def _skip_quiet(self, samples: int, block: int) -> int:
        """Leave out up to `samples` that begin with a pause, in blocks; returns how many those were."""
        skipped = 0
        while skipped + block <= samples and self._ring.is_quieter(block, _QUIET):
            skipped += self._ring.skip(block)
        return skipped

    def _play(self, out: np.ndarray) -> None:
        wait = min(self._wait, len(out))
        self._wait -= wait
        out[:wait] = 0.0
        got = self._ring.read_into(out[wait:])
        end = wait + got
        out[end:] = 0.0
        if got and self._is_fading_in:
            rise = self._fade[:got]
            out[wait : wait + len(rise)] *= rise
        if self._is_fading_in or wait:
            self._fall(out[: len(self._fade)], self._last)
        self._is_fading_in = wait == len(out) or (self._is_fading_in and not got)
        if end < len(out):
            self.underruns += 1
            self._is_fading_in = True
            if got:
                self._fall(out[end : end + len(self._fade)], float(out[end - 1, 0]))

    def _fall(self, out: np.ndarray, last: float) -> None:
        """Let what was heard last die away over what comes, instead of breaking off."""
        if last:
            out += last * self._fade[::-1][: len(out)]


_Mark = tuple[int, int, float, int]
"""Jumps made before it, samples read, the time at which the next one sounds, and how many will be waiting then."""

_Order = tuple[int, int, bool]
"""The jumps after which it holds, samples to wait (below 0: to leave out), and whether it cannot wait for a pause."""


class _VariableSpeed:
    """Mono blocks of one rate to another, a little faster or slower than they came; knows what it has consumed."""

    def __init__(self, source_rate_hz: int, rate_hz: int) -> None:
        self.source_rate_hz = source_rate_hz
        self._rate_hz = rate_hz
        self._slew = int(_SLEW_S * rate_hz)
        top = source_rate_hz * (1 + 2 * MAX_CORRECTION)
        self._resampler = soxr.ResampleStream(top, rate_hz, 1, dtype="float32", vr=True)
        self._resampler.set_io_ratio(source_rate_hz, rate_hz, 0)
        self._from = self._to = 0.0
        self._since = self._slew

    def push(self, mono: np.ndarray) -> tuple[np.ndarray, float]:
        """Output for float32 (n,), and how many seconds of source it stands for (some ms stay inside)."""
        out = self._resampler.resample_chunk(np.ascontiguousarray(mono))
        before, self._since = self._since, self._since + len(out)
        return out, (len(out) + self._extra(self._since) - self._extra(before)) / self._rate_hz

    def correct(self, correction: float) -> None:
        """Change the speed to 1 + `correction`, over 0.1 s; ignored while an earlier change is under way."""
        if self._since < self._slew or abs(correction - self._to) < 1e-5:
            return
        self._from, self._to, self._since = self._to, correction, 0
        self._resampler.set_io_ratio(self.source_rate_hz * (1 + correction), self._rate_hz, self._slew)

    def _extra(self, count: int) -> float:
        """Integral of the correction over the first `count` output samples since it began to change."""
        ramp = min(count, self._slew)
        change = self._to - self._from
        return self._from * ramp + change * ramp * ramp / (2 * self._slew) + self._to * (count - ramp)
