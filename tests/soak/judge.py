"""What the watchers noted, against what is promised."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import marks
import numpy as np
from measure import growths
from session import FPS, Happened, Recording, Session
from witness import LATE_S, REAL_TIME

RATE_BOUND = 0.01
GAP_BOUND_S = 0.120
"""But for the time that a core of the machine itself stood still inside of the gap."""

BURST_WINDOW_S, BURST_BOUND = 0.100, 5
"""Three pictures belong into a tenth of a second, four at times; more in a row are one that was made up for."""

BACK_WITHIN_S = {"camera reader stuck": 3.0, "suspended": 3.0, "engine killed": 15.0}
OFFSET_BOUND_MS = 20.0
OFFSETS_BOUND_MS = (-125.0, 45.0)
"""Of the median, and of those of ten seconds: what people notice (ITU-R BT.1359-1; above 0 the sound is early)."""

OFFSET_WINDOW_S, OFFSET_SETTLE_S = 10.0, 12.0
QUIET_BOUND_MB, ROUND_BOUND_MB, ROUNDS_BOUND_MB, FILES_BOUND = 12.0, 128.0, 96.0, 4
"""Of memory: while nothing happens; over one round of faults, in which each way is taken for the first time; from the
end of the first round to that of the last one."""

_EFFECT_S, _RELOAD_S = 15.0, 110.0
"""What a fault changes has come to rest by then; a generator that was too slow is loaded again a minute after it."""

_RECORDING_MB = 30.0
"""What a recording takes that is begun between the faults."""

_CARD_S = 1.0
UNACCOUNTED_BOUND = 0.005
CUT_BOUND_S, FULL_BOUND_S, WHOLE_BOUND_S = 5.0, 2.5, 0.75
"""Of recordings: what a full disk or kill -9 may cost; what still finds room on a disk that was full but for its last
pieces; and by how much a whole one may be longer or shorter than the time between the two commands."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    found: str
    bound: str
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """As they came to the one who watched: float64 seconds, int numbers (-1: unreadable), int brightness."""

    at_s: np.ndarray
    number: np.ndarray
    click: np.ndarray

    def between(self, start_s: float, end_s: float) -> Pictures:
        """Those of that time."""
        chosen = (self.at_s >= start_s) & (self.at_s < end_s)
        return Pictures(at_s=self.at_s[chosen], number=self.number[chosen], click=self.click[chosen])


def read_pictures(path: Path) -> Pictures:
    """The camera watcher's log; a last line that is cut off is left out."""
    rows = [line.split() for line in path.read_text().split("\n")[:-1]]
    table = np.array([[float(word) for word in row] for row in rows if len(row) == 3]).reshape(-1, 3)
    return Pictures(at_s=table[:, 0], number=table[:, 1].astype(int), click=table[:, 2].astype(int))


def read_clicks(path: Path) -> np.ndarray:
    """When clicks were heard, in s."""
    return np.array([float(line) for line in path.read_text().split("\n")[:-1]])


@dataclass(frozen=True, kw_only=True)
class Witness:
    """When a core stood still: float64 seconds when it ended, and how long it was. `problem` says why nobody looked."""

    at_s: np.ndarray
    late_s: np.ndarray
    problem: str = ""

    def still_s(self, start_s: float, end_s: float) -> float:
        """The longest that a core stood still at once in that time; two cores at once count as one."""
        inside_s = np.minimum(self.at_s, end_s) - np.maximum(self.at_s - self.late_s, start_s)
        return float(inside_s[self.late_s > LATE_S].max(initial=0.0))


def no_witness(problem: str) -> Witness:
    """Who has seen nothing, and excuses nothing."""
    return Witness(at_s=np.zeros(0), late_s=np.zeros(0), problem=problem)


def read_witness(path: Path) -> Witness:
    """The log of `witness.py`; a last line that is cut off is left out."""
    if not path.exists():
        return no_witness("there was no witness")
    head, *lines = path.read_text().split("\n")[:-1] or ["it has said nothing"]
    if not head.startswith(REAL_TIME):
        return no_witness(head)
    rows = [line.split() for line in lines]
    table = np.array([[float(word) for word in row] for row in rows if len(row) == 3]).reshape(-1, 3)
    return Witness(at_s=table[:, 0], late_s=table[:, 2])


def returned_s(happened: Happened, pictures: Pictures) -> float:
    """When the first picture came after a fault that takes the camera away (infinite: never)."""
    later = pictures.at_s[pictures.at_s > happened.end_s]
    return float(later[0]) if len(later) else float("inf")


def watched_spans(session: Session, pictures: Pictures) -> list[tuple[float, float]]:
    """The times in which there was a camera, and somebody who watched it."""
    spans, start_s = [], session.start_s
    for happened in session.happened:
        if happened.fault.is_gone:
            spans.append((start_s, happened.start_s))
            start_s = min(returned_s(happened, pictures), session.end_s)
    return [*spans, (start_s, session.end_s)]


def judge_pictures(session: Session, pictures: Pictures, witness: Witness) -> list[Row]:
    """Rate, gaps, bursts and returns of one session."""
    spans = watched_spans(session, pictures)
    parts = [pictures.between(*span) for span in spans]
    watched_s = sum(end - start for start, end in spans)
    count = sum(len(part.at_s) for part in parts)
    rate = count / watched_s
    burst = max((most_within(part.at_s, BURST_WINDOW_S) for part in parts), default=0)
    unreadable = sum(int((part.number < 0).sum()) for part in parts) - cards_shown(session, parts)
    rows = [
        Row(what="pictures a second at the camera", found=f"{rate:.3f} ({count} in {watched_s:.0f} s)",
            bound=f"{FPS} +-{100 * RATE_BOUND:.0f} %", holds=abs(rate / FPS - 1) <= RATE_BOUND),
        *judge_gaps(session, [*zip(spans, parts, strict=True)], witness),
        Row(what=f"most pictures within {1000 * BURST_WINDOW_S:.0f} ms", found=str(burst), bound=str(BURST_BOUND),
            holds=burst <= BURST_BOUND),
        Row(what="pictures that were not whole", found=str(unreadable), bound="0", holds=unreadable == 0),
    ]  # fmt: skip
    for happened in session.happened:
        if happened.fault.is_gone:
            took_s = returned_s(happened, pictures) - happened.end_s
            bound_s = BACK_WITHIN_S[happened.fault.name]
            rows.append(
                Row(what=f"picture again after: {happened.fault.name}", found=f"{took_s:.2f} s",
                    bound=f"{bound_s:g} s", holds=took_s <= bound_s)
            )  # fmt: skip
    return rows


def judge_gaps(session: Session, watched: list[tuple[tuple[float, float], Pictures]], witness: Witness) -> list[Row]:
    """The longest gap, without what the machine is to blame for: a core that stood still inside of it."""
    edges = [np.concatenate([[start], part.at_s, [end]]) for (start, end), part in watched]
    gaps = [(float(start), float(end)) for edge in edges for start, end in pairwise(edge)]
    longest_s = max(end - start for start, end in gaps)
    own_s = max(end - start - witness.still_s(start, end) for start, end in gaps)
    is_excused = longest_s > GAP_BOUND_S and own_s < longest_s
    excused = f", {1000 * own_s:.0f} ms but for cores that stood still" if is_excused else ""
    return [
        Row(what="longest gap", found=f"{1000 * longest_s:.0f} ms{excused}", bound=f"{1000 * GAP_BOUND_S:.0f} ms",
            holds=own_s <= GAP_BOUND_S),
        Row(what="longest that a core stood still", found=_still_told(session, witness), bound="no bound", holds=True),
    ]  # fmt: skip


def _still_told(session: Session, witness: Witness) -> str:
    is_inside = (witness.at_s >= session.start_s) & (witness.at_s < session.end_s)
    if witness.problem or not is_inside.any():
        return f"not known: {witness.problem or 'the witness said nothing'}"
    late_s = witness.late_s[is_inside]
    return f"{1000 * late_s.max():.0f} ms (over {1000 * LATE_S:.0f} ms: {int((late_s > LATE_S).sum())})"


def cards_shown(session: Session, parts: list[Pictures]) -> int:
    """Pictures without a row because the product showed its standby card, being too slow for anything else."""
    stats = [(at_s, event) for at_s, event in session.events if event.get("type") == "stats"]
    spans = [
        (at_s - _CARD_S, at_s + _CARD_S) for at_s, event in stats if event.get("quality", {}).get("kind") == "card"
    ]
    if not spans:
        return 0
    at_s = np.concatenate([part.at_s[part.number < 0] for part in parts])
    return sum(any(start <= one <= end for start, end in spans) for one in at_s)


def judge_end(session: Session) -> Row:
    """`standin live` says with its status whether something was lost on the way, as it was."""
    good = (0, 1)
    return Row(what="ended when asked, with status", found=str(session.status), bound="0 or 1",
               holds=session.status in good)  # fmt: skip


def most_within(times_s: np.ndarray, window_s: float) -> int:
    """The most times in any window of that length."""
    if not len(times_s):
        return 0
    return int((np.searchsorted(times_s, times_s + window_s) - np.arange(len(times_s))).max())


# ---------------------------------------------------------------------------------------------- sound and picture


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """Of each click that was both seen and heard: when, and by how many ms it was seen later than heard."""

    at_s: np.ndarray
    ms: np.ndarray


def offsets_of(session: Session, pictures: Pictures, clicks_s: np.ndarray) -> Offsets:
    """Outside of the faults that part sound and picture, and the time that they have to find each other again."""
    part = pictures.between(session.start_s, session.end_s)
    is_flash = (part.click > marks.GREY / 2) & (part.number >= 0)
    is_flash[1:] &= part.number[1:] != part.number[:-1]
    flashes_s = part.at_s[is_flash] + [marks.click_in_frame_s(c) for c in part.click[is_flash]]
    heard_s = clicks_s[(clicks_s > session.start_s) & (clicks_s < session.end_s)]
    for happened in session.happened:
        if happened.fault.is_gone or happened.fault.shifts_sound:
            settled_s = happened.end_s + OFFSET_SETTLE_S
            heard_s = heard_s[(heard_s < happened.start_s) | (heard_s > settled_s)]
    if not len(heard_s) or not len(flashes_s):
        return Offsets(at_s=np.zeros(0), ms=np.zeros(0))
    late_ms = np.array([1000 * (flashes_s[np.abs(flashes_s - at_s).argmin()] - at_s) for at_s in heard_s])
    is_pair = np.abs(late_ms) < 300
    return Offsets(at_s=heard_s[is_pair], ms=late_ms[is_pair])


def window_medians(offsets: Offsets) -> np.ndarray:
    """Of each ten seconds with more than five clicks."""
    window = (offsets.at_s // OFFSET_WINDOW_S).astype(int)
    return np.array([np.median(offsets.ms[window == w]) for w in np.unique(window) if (window == w).sum() > 5])


def judge_sound(session: Session, pictures: Pictures, clicks_s: np.ndarray) -> list[Row]:
    """Flashes seen at the camera against clicks heard at the virtual microphone."""
    offsets = offsets_of(session, pictures, clicks_s)
    medians = window_medians(offsets)
    if not len(medians):
        return [Row(what="clicks seen and heard", found="none", bound="some", holds=False)]
    low, high = np.percentile(offsets.ms, [5, 95])
    return [
        Row(what="picture after sound, median", found=f"{np.median(offsets.ms):+.1f} ms ({len(offsets.ms)} clicks, "
            f"5 to 95 %: {low:+.1f} to {high:+.1f})", bound=f"+-{OFFSET_BOUND_MS:g} ms",
            holds=abs(float(np.median(offsets.ms))) <= OFFSET_BOUND_MS),
        Row(what=f"the same, medians of {OFFSET_WINDOW_S:g} s",
            found=f"{medians.min():+.1f} to {medians.max():+.1f} ms",
            bound=f"{OFFSETS_BOUND_MS[0]:+g} to {OFFSETS_BOUND_MS[1]:+g} ms",
            holds=bool(medians.min() >= OFFSETS_BOUND_MS[0] and medians.max() <= OFFSETS_BOUND_MS[1])),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------- processes and files


def judge_processes(session: Session) -> list[Row]:
    """Memory and open files of each."""
    names = [happened.fault.name for happened in session.happened]
    again = next((index for index, name in enumerate(names) if name in names[:index]), None)
    round_end_s = session.happened[again].start_s if again is not None else session.start_s
    bound_mb = ROUND_BOUND_MB if again is None else ROUNDS_BOUND_MB
    busy = [
        (happened.start_s, happened.end_s + (_RELOAD_S if "slow" in happened.fault.name else _EFFECT_S))
        for happened in session.happened
    ]
    quiet_bound_mb = QUIET_BOUND_MB + (_RECORDING_MB if len(session.recordings) > 1 else 0.0)
    rows = []
    for one in growths(session.samples, busy, round_end_s):
        rows += [
            Row(what=f"memory of the {one.role}", found=f"{one.memory_mb:.0f} MB; {one.quiet_mb:+.1f} between faults, "
                f"{one.later_mb:+.1f} {'in all' if again is None else 'after the first round'}",
                bound=f"+{quiet_bound_mb:g}, +{bound_mb:g} MB",
                holds=one.quiet_mb <= quiet_bound_mb and one.later_mb <= bound_mb),
            Row(what=f"open files of the {one.role}", found=f"{one.files}; {one.files_later:+d}",
                bound=f"+{FILES_BOUND}", holds=one.files_later <= FILES_BOUND),
        ]  # fmt: skip
    return rows


def judge_recording(recording: Recording) -> Row:
    """Whether it plays to its end, and is as long as it was recorded."""
    wanted_s = recording.end_s - recording.start_s
    command = ["ffprobe", "-v", "error", "-show_entries", "format=duration:stream=codec_type,duration", "-of", "json"]
    done = subprocess.run([*command, str(recording.path)], capture_output=True, text=True)
    decoded = subprocess.run(
        ["ffmpeg", "-v", "error", "-nostdin", "-i", str(recording.path), "-c:v", "copy", "-f", "null", "-"],
        capture_output=True, text=True,
    )  # fmt: skip
    try:
        told = json.loads(done.stdout)
        kinds = {stream["codec_type"] for stream in told["streams"]}
        length_s = float(told["format"]["duration"])
    except (ValueError, KeyError):
        kinds, length_s = set(), 0.0
        print(f"ffprobe, {recording.path.name}: status {done.returncode}, {done.stdout!r} {done.stderr!r}")
    bound_s = CUT_BOUND_S if recording.is_cut else WHOLE_BOUND_S
    longer_s = FULL_BOUND_S if recording.is_cut else WHOLE_BOUND_S
    errors = 0 if recording.is_cut else len(decoded.stderr.splitlines()) + len(done.stderr.splitlines())
    holds = kinds == {"audio", "video"} and -bound_s <= length_s - wanted_s <= longer_s and not errors
    return Row(
        what=f"recording {recording.name}", found=f"{length_s:.1f} s of {wanted_s:.1f} s"
        f"{'' if kinds == {'audio', 'video'} else ', not both tracks'}{f', {errors} errors' if errors else ''}",
        bound=f"{-bound_s:+g} s, +{longer_s:g} s", holds=holds,
    )  # fmt: skip
