"""docs/models.md says what the program does."""

from __future__ import annotations

import re
from pathlib import Path

from engine import cli
from engine.model_store.catalog import CATALOGUE
from engine.model_store.meter import size_text

DOCS = Path(__file__).resolve().parents[3] / "docs" / "models.md"


def test_every_command_and_option_in_the_docs_is_one():
    text = DOCS.read_text(encoding="utf-8")
    commands = re.findall(r"^standin (models .+?)(?: {2,}.*)?$", text, re.MULTILINE)
    assert len(commands) >= 5
    parser = cli._parser()
    for command in commands:
        assert parser.parse_args(command.split()).command == "models"
    operands = {"--mirror": "x", "--revision": "x", "--from-dir": "x"}
    options = set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE))
    assert options == {"--mirror", "--revision", "--from-dir", "--offline"}
    for option in options:
        parser.parse_args(["models", "download", "x", option, *filter(None, [operands.get(option)])])


def test_every_model_is_in_the_docs_with_its_size():
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for entry in CATALOGUE.values():
        row = next(line for line in rows if f"`{entry.name}`" in line)
        assert entry.page in row and size_text(entry.size_bytes) in row
