"""What the window remembers survives, and damage costs nothing."""

import stat
import sys
from dataclasses import replace

import pytest

from app.settings.schema import AppSettings
from app.settings.store import SettingsStore


def test_keeps_every_field_between_runs(tmp_path):
    path = tmp_path / "folder" / "window.toml"
    wanted = replace(AppSettings(), microphone='Mic "ä" \\ 2', theme="dark", fps=30, has_microphone=False)
    SettingsStore(path).save(wanted)
    assert SettingsStore(path).settings == wanted


def test_unreadable_file_is_kept_aside(tmp_path):
    path = tmp_path / "window.toml"
    path.write_text("portrait = [", encoding="utf-8")
    store = SettingsStore(path)
    assert store.settings == AppSettings()
    assert (tmp_path / "window.unreadable.toml").read_text(encoding="utf-8") == "portrait = ["
    assert "defaults" in store.problem


def test_settings_of_the_future_are_kept_aside(tmp_path):
    path = tmp_path / "window.toml"
    path.write_text("version = 99\n", encoding="utf-8")
    assert SettingsStore(path).problem


def test_impossible_value_falls_back_alone(tmp_path):
    path = tmp_path / "window.toml"
    path.write_text('version = 1\nfps = 26\ntheme = "dark"\n', encoding="utf-8")
    settings = SettingsStore(path).settings
    assert (settings.fps, settings.theme) == (25, "dark")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps profiles apart by itself")
def test_the_file_is_private(tmp_path):
    path = tmp_path / "standin" / "window.toml"
    SettingsStore(path).save(AppSettings(fps=30))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["a\x7fb", 'quote " and \\', "half \ud800", "two\nlines"])
def test_any_name_of_a_device_can_be_kept(tmp_path, name):
    path = tmp_path / "window.toml"
    SettingsStore(path).save(AppSettings(fps=30, microphone=name))
    again = SettingsStore(path)
    assert again.problem == "" and again.settings.fps == 30
    assert again.settings.microphone == name.replace("\ud800", "?")


def test_settings_nested_too_deeply_are_put_aside(tmp_path):
    path = tmp_path / "window.toml"
    path.write_text("a = " + "[" * 5000 + "]" * 5000)
    assert SettingsStore(path).settings == AppSettings() and not path.exists()
