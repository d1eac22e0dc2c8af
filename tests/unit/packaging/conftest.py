"""The set-up's modules, which are scripts beside each other and no package."""

import importlib
import sys
from pathlib import Path

import pytest

PACKAGING = Path(__file__).resolve().parents[3] / "packaging"


@pytest.fixture
def setup_module(monkeypatch):
    """Imports one of them by name, as bootstrap.py does."""
    monkeypatch.syspath_prepend(str(PACKAGING))
    names = [path.stem for path in PACKAGING.glob("*.py")]
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)
