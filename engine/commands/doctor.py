"""`standin doctor`: what works on this computer, what does not, and the one thing to do about it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from engine.diagnosis.catalogue import Finding
from engine.diagnosis.fixes import Fix, fix_for
from engine.doctor import examine
from engine.errors import UsageError
from engine.paths import log_folder

_MARKS = {"good": "ok", "limited": "limited", "bad": "PROBLEM"}
_INDENT = " " * 9


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "doctor",
        help="say what works on this computer, and what to do about what does not",
        description="Examines microphone, camera, GPU, models and disk; changes nothing unless --fix asks for it. "
        "Exit status 1 if something fails.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--fix", metavar="CODE", help="do what can be done about this finding; asks first")
    parser.add_argument("--yes", action="store_true", help="with --fix, do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Examine and print; 1 if something will not work."""
    if arguments.fix is not None:
        return _fix(arguments.fix, is_agreed=arguments.yes)
    findings = examine()
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            _tell(finding)
        print(f"Logs: {log_folder()}")
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def _tell(finding: Finding) -> None:
    print(f"{_MARKS[finding.state]:8s} {finding.name}: {finding.message}")
    if finding.hint:
        print(f"{_INDENT}{finding.hint}")
    if finding.fix == "automatic":
        print(f"{_INDENT}Standin can do that: standin doctor --fix {finding.code}")
    elif finding.code:
        print(f"{_INDENT}({finding.code})")


def _fix(code: str, *, is_agreed: bool) -> int:
    finding = next((finding for finding in examine() if finding.code == code), None)
    if finding is None:
        print(f"There is nothing to fix: {code} was not found on this computer.")
        return 0
    print(finding.message)
    if finding.fix == "command":
        print(f"This needs your own hand, because it changes the system. Type:\n\n    {finding.command}\n")
        return 1
    fix = fix_for(code)
    if not is_agreed and not _is_wanted(fix):
        print("Nothing was changed.")
        return 1
    print(fix.apply())
    return 0


def _is_wanted(fix: Fix) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("There is nobody to ask.", hint="Add --yes if it is to be done.")
    return input(f"{fix.what}? [y/N] ").strip().lower() in ("y", "yes")
