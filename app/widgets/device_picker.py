"""A list of sound devices by name; one that is not there now stays chosen and says so."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox

from engine.device_names import same_device

NONE = "none"
Choice = str | tuple[str, str]
"""`NONE`, or (name, host API)."""


class DevicePicker(QComboBox):
    """Entries are None-like ("none"), the system's default ("", "") and (name, host API) pairs. An output that the
    engine makes itself (`set_special`) stands before the devices."""

    picked = Signal(object)

    def __init__(self, name: str, none_text: str, default_text: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self._none_text, self._default_text = none_text, default_text
        self._choice: Choice = NONE
        self._special: tuple[str, Choice] | None = None
        self.set_devices([])
        self.activated.connect(self._on_activated)

    @property
    def choice(self) -> Choice:
        """NONE, or (name, host API)."""
        return self._choice

    def choose(self, choice: Choice) -> None:
        """Choose without telling anybody."""
        self._choice = choice
        self.set_devices(self._devices)

    def set_special(self, text: str, choice: Choice) -> None:
        """Offer `choice` as `text`, first among the devices; shown with the next `set_devices`."""
        self._special = text, choice

    def set_devices(self, devices: list[tuple[str, str, bool]]) -> None:
        """(name, host API, is default) of what there is now."""
        self._devices = devices
        names = [name for name, _host, _default in devices]
        self.clear()
        self.addItem(self._none_text, NONE)
        default = next((name for name, _host, is_default in devices if is_default), "")
        self.addItem(f"{self._default_text} ({default})" if default else self._default_text, ("", ""))
        if self._special is not None:
            self.addItem(*self._special)
        for name, host, _default in devices:
            self.addItem(f"{name} ({host})" if names.count(name) > 1 else name, (name, host))
        if self._index_of(self._choice) < 0:
            self.addItem(f"{self._choice[0]} (not connected)", self._choice)
        self.setCurrentIndex(self._index_of(self._choice))

    def _index_of(self, choice: Choice) -> int:
        choices = [self._data(i) for i in range(self.count())]
        if choice in choices or choice == NONE:
            return choices.index(choice) if choice in choices else -1
        name, host = choice
        there = [entry for entry in choices if entry != NONE and (not host or entry[1] == host)]
        meant = same_device(name, (entry[0] for entry in there))
        return next((choices.index(entry) for entry in there if entry[0] == meant), -1)

    def _data(self, index: int) -> Choice:
        data = self.itemData(index)
        return data if data == NONE else tuple(data)

    def _on_activated(self, index: int) -> None:
        self._choice = self._data(index)
        self.picked.emit(self._choice)
