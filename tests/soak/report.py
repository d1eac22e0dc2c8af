"""The one table, and the figures as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from account import judge_account, notable_moments
from judge import (
    Row,
    judge_end,
    judge_pictures,
    judge_processes,
    judge_recording,
    judge_sound,
    read_clicks,
    read_pictures,
    read_witness,
)
from session import KeptRun, Session, Soak

_MOST_MOMENTS = 60


def tell(run: Soak | KeptRun, figures: Path | None) -> int:
    """Print the table and keep the figures; 1 if something did not hold, or a session was broken off."""
    pictures, clicks_s = read_pictures(run.camera_log), read_clicks(run.sound_log)
    witness = read_witness(run.witness_log)
    tables = []
    for session in run.sessions:
        if not session.end_s:
            continue
        rows = judge_pictures(session, pictures, witness) + judge_sound(session, pictures, clicks_s)
        if session.name == "standin live":
            rows += judge_account(session, pictures)
        rows.append(judge_end(session))
        rows += judge_processes(session) + [judge_recording(one) for one in session.recordings]
        tables.append((session, rows))
    is_whole = len(tables) == len(run.sessions) == 2
    holds = is_whole and all(row.holds for _, rows in tables for row in rows)
    for session, rows in tables:
        _print_table(session, rows)
        if not all(row.holds for row in rows):
            print("\n".join(["notable moments:", *notable_moments(session, pictures)[:_MOST_MOMENTS]]))
    for note in run.notes:
        print(f"note: {note}")
    print(f"load {os.getloadavg()[0]:.1f}; {'all held' if holds else 'NOT ALL HELD'}")
    if figures is not None:
        figures.write_text(json.dumps([_plain(*table) for table in tables], indent=1) + "\n")
    return 0 if holds else 1


def _print_table(session: Session, rows: list[Row]) -> None:
    print(
        f"\n{session.name}, {session.end_s - session.start_s:.0f} s: "
        + ", ".join(h.fault.name for h in session.happened)
    )
    widths = [max(len(getattr(row, name)) for row in rows) for name in ("what", "found", "bound")]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip((row.what, row.found, row.bound), widths, strict=True)]
        print("  ".join([*cells, "" if row.holds else "<-- NO"]).rstrip())


def _plain(session: Session, rows: list[Row]) -> dict:
    faults = [
        {"name": h.fault.name, "at_s": round(h.start_s - session.start_s, 1), "seconds": round(h.end_s - h.start_s, 1)}
        for h in session.happened
    ]
    samples = [
        [round(s.at_s - session.start_s), s.role, s.pid, round(s.memory_mb, 1), s.files] for s in session.samples
    ]
    rows_told = [asdict(row) for row in rows]
    return {"session": session.name, "faults": faults, "rows": rows_told, "processes": samples}
