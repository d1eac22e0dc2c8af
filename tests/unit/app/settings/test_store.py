"""What the window remembers survives, and damage costs nothing."""

from dataclasses import replace

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
