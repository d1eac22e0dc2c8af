"""`standin doctor`: what works on this computer, what does not, and the one thing to do about it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from engine.doctor import examine
from engine.server import list_devices

_MARKS = {"good": "ok", "limited": "limited", "bad": "PROBLEM"}


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "doctor",
        help="say what works on this computer, and what to do about what does not",
        description="Examines microphone, camera, GPU, models and disk; changes nothing. Exit status 1 if something fails.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Examine and print; 1 if something will not work."""
    findings = examine(list_devices)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{_MARKS[finding.state]:8s} {finding.name}: {finding.message}")
            if finding.hint:
                print(f"         {finding.hint}")
    return 1 if any(finding.state == "bad" for finding in findings) else 0
