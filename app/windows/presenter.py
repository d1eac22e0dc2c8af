"""Joins the main window to the controllers: what a person does goes down, what happens comes up as words."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import platformdirs
from PySide6.QtCore import QByteArray, QObject
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QFileDialog, QMessageBox

from app.controllers.broadcast import FIRST_SAMPLE, BroadcastController
from app.controllers.portrait_library import FILE_FILTER, PortraitLibrary
from app.controllers.push_to_talk import PushToTalk
from app.controllers.tuning import TuningController
from app.engine_client.client import EngineClient
from app.engine_client.preview_reader import PreviewReader
from app.settings.uses import offers
from app.theme import Theme
from app.widgets.device_picker import NONE
from app.windows.doctor_dialog import DoctorDialog
from app.windows.face_editing import FaceEditing
from app.windows.main_window import MainWindow
from app.windows.model_offer import ModelOffer
from app.windows.session_presenter import SessionPresenter
from app.windows.settings_dialog import SettingsDialog
from app.windows.sync_testing import SyncTesting
from engine.settings import VIRTUAL_MICROPHONE

CONSENT = "Use only pictures that you have the right to use. Do you have it for the pictures you add?"


class Presenter(QObject):
    """Lives as long as the window; all on the GUI thread."""

    def __init__(
        self, window: MainWindow, client: EngineClient, broadcast: BroadcastController, library: PortraitLibrary,
        reader: PreviewReader, theme: Theme,
    ) -> None:  # fmt: skip
        super().__init__(window)
        self._window, self._client, self._broadcast = window, client, broadcast
        self._library, self._theme = library, theme
        self._session = SessionPresenter(window, client, broadcast, reader)
        self._push_to_talk = PushToTalk(window)
        self._push_to_talk.talking_changed.connect(self._on_talking)
        self._doctor: DoctorDialog | None = None
        self._faces = FaceEditing(window, broadcast, library, theme)
        self._tuning = TuningController(broadcast, self)
        self._sync = SyncTesting(window, client, broadcast)
        self._models = ModelOffer(window, client, broadcast)
        self._models.asked.connect(self.open_models)
        self._models.download.changed.connect(self._show_offer)
        self._entries = {}
        self._cameras, self._cameras_reason = [], None
        self.dialog = None
        self._connect_window()
        self._connect_engine()
        self._fill()

    def _connect_window(self) -> None:
        w = self._window
        w.gallery.portrait_picked.connect(lambda ref: self._broadcast.change(portrait=ref))
        w.gallery.files_dropped.connect(self.add_files)
        w.gallery.image_dropped.connect(lambda image: self._may_add() and self._library.add_image(image))
        w.gallery.removal_asked.connect(self._on_remove)
        w.add_button.clicked.connect(self._on_add)
        w.paste_button.clicked.connect(w.gallery.paste)
        w.remove_button.clicked.connect(lambda: self._on_remove(self._broadcast.settings.portrait))
        w.adjust_button.clicked.connect(self._on_adjust)
        w.mirror_box.toggled.connect(self._on_mirror)
        w.microphone.picked.connect(self._on_microphone)
        w.voice_out.picked.connect(self._on_voice_out)
        w.mute_button.toggled.connect(self._on_mute)
        w.sync_button.clicked.connect(self._on_sync)
        w.record_button.clicked.connect(self._on_record)
        w.snapshot_button.clicked.connect(lambda: self._broadcast.snapshot(_new_file("png")))
        w.settings_button.clicked.connect(self._on_settings)
        w.start_button.clicked.connect(self._on_start)
        w.closing.connect(self._on_closing)
        QShortcut(QKeySequence("F5"), w, self._broadcast.list_devices)
        QShortcut(QKeySequence("F1"), w, self.open_doctor)
        self._theme.changed.connect(w.set_colours)

    def _connect_engine(self) -> None:
        self._client.devices_listed.connect(self._on_devices)
        self._client.portrait_analysed.connect(self._on_analysed)
        self._client.examined.connect(self._on_examined)
        self._broadcast.failed.connect(self._on_failed)
        self._broadcast.settings_changed.connect(self._on_settings_changed)
        self._library.added.connect(self._on_added)
        self._library.refused.connect(lambda message, hint: self._window.banner.tell("error", message, hint))
        self._library.thumbnail_ready.connect(self._window.gallery.set_thumbnail)

    def _fill(self) -> None:
        w, now = self._window, self._broadcast.settings
        for entry in self._library.entries():
            self._show(entry)
        if now.portrait not in self._entries:
            self._broadcast.change(portrait=next(iter(self._entries)))
        w.gallery.select(self._broadcast.settings.portrait)
        w.mirror_box.setChecked(now.is_preview_mirrored)
        w.preview.set_mirrored(now.is_preview_mirrored)
        w.microphone.choose((now.microphone, now.microphone_host) if now.has_microphone else NONE)
        w.voice_out.set_special("Virtual microphone", (VIRTUAL_MICROPHONE, ""))
        w.voice_out.choose((now.voice_out, now.voice_out_host) if now.has_voice_out else NONE)
        w.sync_button.setEnabled(now.has_voice_out)
        self._set_push_to_talk(now.is_push_to_talk)
        if now.geometry:
            w.restoreGeometry(QByteArray.fromBase64(now.geometry.encode()))

    def _show(self, entry) -> None:
        self._entries[entry.ref] = entry
        self._window.gallery.add(entry.ref, entry.title)
        self._library.request_thumbnail(entry)

    # -------------------------------------------------------------------------------- what a person does

    def ask_consent(self) -> bool:
        """The one question of the first run; tests put an answer in its place."""
        yes = QMessageBox.StandardButton.Yes
        return QMessageBox.question(self._window, "Pictures of people", CONSENT) == yes

    def add_files(self, paths: list[str]) -> None:
        """Take pictures into the library."""
        if self._may_add():
            for path in paths:
                self._library.add_file(path)

    def _may_add(self) -> bool:
        if not self._broadcast.settings.has_consented and self.ask_consent():
            self._broadcast.change(has_consented=True)
        return self._broadcast.settings.has_consented

    def _on_add(self) -> None:
        paths, _filter = QFileDialog.getOpenFileNames(self._window, "Add portraits", "", FILE_FILTER)
        if paths:
            self.add_files(paths)

    def _on_added(self, entry) -> None:
        self._show(entry)
        self._window.gallery.select(entry.ref)
        self._broadcast.change(portrait=entry.ref)
        self._broadcast.analyse(entry.ref)

    def _on_remove(self, ref: str) -> None:
        entry = self._entries.get(ref)
        if entry is None or entry.is_sample:
            self._window.banner.tell("info", "The samples stay; only pictures you added can be removed.")
            return
        del self._entries[ref]
        self._window.gallery.remove(ref)
        first = next(iter(self._entries))
        self._window.gallery.select(first)
        self._broadcast.change(portrait=first)
        self._library.remove(ref)
        self._window.banner.tell(
            "info", f"{entry.title} was removed.", action="Undo", on_action=lambda: self._library.restore(ref)
        )

    def _on_adjust(self) -> None:
        entry = self._entries.get(self._broadcast.settings.portrait)
        if entry:
            self.dialog = self._faces.open(entry)

    def _on_mirror(self, is_mirrored: bool) -> None:
        self._window.preview.set_mirrored(is_mirrored)
        self._broadcast.change(is_preview_mirrored=is_mirrored)

    def _on_microphone(self, choice) -> None:
        name, host = ("", "") if choice == NONE else choice
        self._broadcast.change(has_microphone=choice != NONE, microphone=name, microphone_host=host)

    def _on_voice_out(self, choice) -> None:
        name, host = ("", "") if choice == NONE else choice
        self._broadcast.change(has_voice_out=choice != NONE, voice_out=name, voice_out_host=host)
        self._window.sync_button.setEnabled(choice != NONE)

    def _on_sync(self) -> None:
        self.dialog = self._sync.open()

    def _on_mute(self, is_muted: bool) -> None:
        self._window.set_muted(is_muted)
        self._broadcast.set_muted(is_muted)

    def _on_record(self, is_on: bool) -> None:
        self._broadcast.record(_new_file("mp4") if is_on else "")

    def _on_settings(self) -> None:
        self.dialog = SettingsDialog(self._broadcast.settings, self._cameras, offers(), self._window)
        self.dialog.measurement_asked.connect(self._tuning.begin)
        self._tuning.found.connect(self.dialog.show_offers)
        self._tuning.failed.connect(self.dialog.show_problem)
        self.dialog.set_measuring(self._tuning.is_running)
        self.dialog.changed.connect(self._on_setting)
        self.dialog.doctor_asked.connect(self.open_doctor)
        self.dialog.model_asked.connect(self.open_models)
        self._show_offer()
        self.dialog.open()

    def _on_setting(self, changes: dict[str, object]) -> None:
        self._broadcast.change(**changes)
        if "theme" in changes:
            self._theme.choose(str(changes["theme"]))
        if "is_push_to_talk" in changes:
            self._set_push_to_talk(bool(changes["is_push_to_talk"]))

    def _set_push_to_talk(self, is_on: bool) -> None:
        self._push_to_talk.set_on(is_on)
        self._window.set_talking(False if is_on else None)

    def _on_talking(self, is_talking: bool) -> None:
        self._broadcast.set_talking(is_talking)
        self._window.set_talking(is_talking if self._push_to_talk.is_on else None)

    def open_doctor(self) -> None:
        """The page that says what works on this computer."""
        if isinstance(self.dialog, SettingsDialog):
            self.dialog.accept()
        self._doctor = self.dialog = DoctorDialog(self._theme.colours, self._window)
        self._doctor.examination_asked.connect(self._broadcast.examine)
        self._doctor.fix_asked.connect(self._broadcast.apply_fix)
        self._doctor.open()
        self._broadcast.examine()

    def open_models(self) -> None:
        """The page of FlashTalk's download."""
        if isinstance(self.dialog, SettingsDialog):
            self.dialog.accept()
        self.dialog = self._models.open()

    def _show_offer(self) -> None:
        if isinstance(self.dialog, SettingsDialog):
            self.dialog.show_model(self._models.action)

    def _on_start(self) -> None:
        if self._broadcast.is_camera_wanted:
            self._broadcast.set_camera(False)
            return
        # Asked of the engine each time: a driver may have been installed since the devices were listed.
        self._broadcast.set_camera(True)
        self._session.warn_of_silence()

    def _on_closing(self) -> None:
        self._broadcast.change(geometry=bytes(self._window.saveGeometry().toBase64().data()).decode())
        self._tuning.stop()
        if self.dialog:
            self.dialog.close()

    # -------------------------------------------------------------------------------------- what happens

    def _on_settings_changed(self, settings) -> None:
        ref = next(iter(self._entries)) if settings.portrait == FIRST_SAMPLE else settings.portrait
        if ref in self._entries:
            self._window.gallery.select(ref)

    def _on_devices(self, event) -> None:
        self._cameras, self._cameras_reason = event.cameras, event.cameras_reason
        w = self._window
        w.microphone.set_devices([(d.name, d.host_api, d.is_default) for d in event.microphones])
        if event.virtual_microphone:
            w.voice_out.set_special(f"{event.virtual_microphone} (virtual)", (VIRTUAL_MICROPHONE, ""))
        w.voice_out.set_devices([(d.name, d.host_api, d.is_default) for d in event.voice_outs])

    def _on_examined(self, event) -> None:
        if self._doctor is not None:
            self._doctor.show_findings(event.findings)

    def _on_failed(self, part: str, reason) -> None:
        if part == "doctor" and self._doctor is not None:
            self._doctor.show_failed(reason)

    def _on_analysed(self, event) -> None:
        if self._faces.takes(event):
            return
        if not event.has_face:
            self._window.banner.tell(
                "warn", "No face was found in this portrait.", "Place the marks of the face by hand.",
                action="Adjust face...", on_action=self._on_adjust,
            )  # fmt: skip
        elif event.advice:
            self._session.tell("warn", event.advice[0])


def _new_file(suffix: str) -> str:
    folder = platformdirs.user_videos_dir() if suffix == "mp4" else platformdirs.user_pictures_dir()
    target = Path(folder) / "Standin"
    with contextlib.suppress(OSError):  # the engine says what is wrong with the folder when it writes there
        target.mkdir(parents=True, exist_ok=True)
    return str(target / f"standin-{time.strftime('%Y%m%d-%H%M%S')}.{suffix}")
