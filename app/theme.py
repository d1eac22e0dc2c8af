"""Colours, sizes and the style sheet: light and dark, following the system or chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QByteArray, QObject, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QGuiApplication, QIcon, QPainter, QPalette, QPixmap
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication

from engine.assets import asset_path


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The colours of one appearance, as #rrggbb."""

    is_dark: bool
    window: str
    card: str
    raised: str
    line: str
    text: str
    dim: str
    accent: str
    accent_hover: str
    on_accent: str
    on_air: str
    good: str
    warn: str
    warn_back: str
    error_back: str
    well: str


LIGHT = Palette(
    is_dark=False, window="#f3f4f7", card="#ffffff", raised="#f0f1f5", line="#dcdfe6", text="#1a1d24", dim="#5d6473",
    accent="#4a50d8", accent_hover="#3b41c4", on_accent="#ffffff", on_air="#d4293d", good="#1f8a55",
    warn="#8a5a00", warn_back="#fdf3dc", error_back="#fde8ea", well="#e7e9ef",
)  # fmt: skip
DARK = Palette(
    is_dark=True, window="#14161b", card="#1d2027", raised="#282c36", line="#343945", text="#f0f1f5", dim="#a1a8b8",
    accent="#7a80f5", accent_hover="#9196f9", on_accent="#101228", on_air="#f0505f", good="#4cc38a",
    warn="#f2c063", warn_back="#382e18", error_back="#3d2025", well="#0d0f13",
)  # fmt: skip


class Theme(QObject):
    """Applies an appearance to the application; `changed` lets widgets that paint themselves follow."""

    changed = Signal(object)

    def __init__(self, choice: str = "system", parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._choice = choice
        self.colours = LIGHT
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._apply)
        self._apply()

    def choose(self, choice: str) -> None:
        """ "system", "light" or "dark"."""
        self._choice = choice
        self._apply()

    def _apply(self) -> None:
        is_dark = self._choice == "dark" or (
            self._choice == "system" and QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Dark
        )
        self.colours = DARK if is_dark else LIGHT
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        app.setPalette(_qt_palette(self.colours))
        app.setStyleSheet(_style_sheet(self.colours))
        self.changed.emit(self.colours)


def icon(name: str, colour: str, size_px: int = 24, gap_px: int = 0) -> QIcon:
    """A symbol of assets/icon/ui in `colour`, sharp up to 300 % scale; `gap_px` of nothing on its right keep it off a
    button's text (styled buttons have no setting for that)."""
    text = Path(asset_path(f"icon/ui/{name}.svg")).read_text(encoding="utf-8").replace("#000", colour)
    renderer = QSvgRenderer(QByteArray(text.encode()))
    result = QIcon()
    for scale in (1, 2, 3):
        pixmap = QPixmap((size_px + gap_px) * scale, size_px * scale)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        renderer.render(painter, QRectF(0, 0, size_px * scale, size_px * scale))
        painter.end()
        pixmap.setDevicePixelRatio(scale)
        result.addPixmap(pixmap)
    return result


def _qt_palette(c: Palette) -> QPalette:
    palette = QPalette()
    roles = {
        QPalette.ColorRole.Window: c.window, QPalette.ColorRole.Base: c.card, QPalette.ColorRole.Text: c.text,
        QPalette.ColorRole.WindowText: c.text, QPalette.ColorRole.Button: c.raised,
        QPalette.ColorRole.ButtonText: c.text, QPalette.ColorRole.Highlight: c.accent,
        QPalette.ColorRole.HighlightedText: c.on_accent, QPalette.ColorRole.ToolTipBase: c.raised,
        QPalette.ColorRole.ToolTipText: c.text, QPalette.ColorRole.PlaceholderText: c.dim,
        QPalette.ColorRole.Link: c.accent, QPalette.ColorRole.LinkVisited: c.accent,
    }  # fmt: skip
    for role, colour in roles.items():
        palette.setColor(role, QColor(colour))
    palette.setColor(QPalette.ColorGroup.Disabled, QPalette.ColorRole.Text, QColor(c.dim))
    return palette


def _style_sheet(c: Palette) -> str:
    check = asset_path("icon/ui/check.svg").as_posix()
    chevron = asset_path("icon/ui/chevron-down.svg").as_posix()
    return f"""
* {{ font-size: 13px; }}
QMainWindow, QDialog, #root, QMessageBox {{ background: {c.window}; color: {c.text}; }}
QLabel {{ color: {c.text}; background: transparent; }}
#card {{ background: {c.card}; border: 1px solid {c.line}; border-radius: 12px; }}
#plain {{ background: transparent; border: none; }}
#title {{ font-size: 18px; font-weight: 700; }}
#heading {{ font-size: 14px; font-weight: 700; }}
#label {{ font-weight: 600; }}
#dim {{ color: {c.dim}; font-size: 12px; }}
#onAir {{ color: {c.on_accent if c.is_dark else "#ffffff"}; background: {c.on_air}; border-radius: 12px;
  padding: 4px 12px; font-weight: 700; }}
#offAir {{ color: {c.dim}; background: {c.well}; border-radius: 12px; padding: 4px 12px; font-weight: 600; }}
QPushButton {{ background: {c.raised}; color: {c.text}; border: 1px solid {c.line}; border-radius: 8px;
  padding: 7px 12px; font-weight: 600; }}
QPushButton:default {{ background: {c.accent}; color: {c.on_accent}; border-color: {c.accent}; }}
QPushButton:default:hover {{ background: {c.accent_hover}; }}
QPushButton:default:focus {{ border-color: {c.text}; }}
QPushButton:hover {{ border-color: {c.accent}; }}
QPushButton:pressed, QPushButton:checked {{ background: {c.well}; border-color: {c.accent}; }}
QPushButton:focus {{ border: 2px solid {c.accent}; padding: 6px 11px; }}
QPushButton:disabled {{ color: {c.dim}; background: {c.card}; border-color: {c.line}; }}
#primary {{ background: {c.accent}; color: {c.on_accent}; border: none; border-radius: 10px; font-size: 15px;
  font-weight: 700; padding: 13px 24px; min-width: 200px; }}
#primary:hover {{ background: {c.accent_hover}; }}
#primary:focus {{ border: 2px solid {c.text}; padding: 11px 22px; }}
#primary[isLive="true"] {{ background: {c.on_air}; color: {"#1a0508" if c.is_dark else "#ffffff"}; }}
#primary:disabled {{ background: {c.well}; color: {c.dim}; }}
#quiet {{ background: transparent; border: 1px solid transparent; padding: 6px; }}
#quiet:hover {{ background: {c.raised}; }}
#quiet:focus {{ border: 2px solid {c.accent}; padding: 5px; }}
QComboBox {{ background: {c.raised}; color: {c.text}; border: 1px solid {c.line}; border-radius: 8px;
  padding: 7px 10px; min-height: 18px; }}
QComboBox:hover {{ border-color: {c.accent}; }}
QComboBox:focus {{ border: 2px solid {c.accent}; padding: 6px 9px; }}
QComboBox::drop-down {{ border: none; width: 28px; }}
QComboBox::down-arrow {{ image: url({chevron}); width: 14px; height: 14px; }}
QComboBox QAbstractItemView {{ background: {c.card}; color: {c.text}; border: 1px solid {c.line}; outline: 0;
  selection-background-color: {c.accent}; selection-color: {c.on_accent}; padding: 4px; }}
QCheckBox {{ color: {c.text}; spacing: 8px; background: transparent; border: 2px solid transparent;
  border-radius: 8px; padding: 3px 6px 3px 4px; }}
QCheckBox:focus {{ border-color: {c.accent}; }}
QCheckBox::indicator {{ width: 18px; height: 18px; border: 1px solid {c.dim}; border-radius: 5px; }}
QCheckBox::indicator {{ background: {c.card}; }}
QCheckBox::indicator:hover {{ border: 2px solid {c.accent}; width: 16px; height: 16px; }}
QCheckBox::indicator:checked {{ background: {c.accent}; border-color: {c.accent}; image: url({check}); }}
#banner {{ border-radius: 10px; border: 1px solid {c.line}; background: {c.raised}; }}
#banner[kind="warn"] {{ background: {c.warn_back}; border-color: {c.warn}; }}
#banner[kind="error"] {{ background: {c.error_back}; border-color: {c.on_air}; }}
QListWidget {{ background: transparent; border: none; outline: 0; }}
QScrollBar:vertical {{ background: transparent; width: 10px; margin: 0; }}
QScrollBar::handle:vertical {{ background: {c.line}; border-radius: 5px; min-height: 32px; }}
QScrollBar::add-line, QScrollBar::sub-line {{ height: 0; }}
QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
QProgressBar {{ background: {c.well}; border: none; border-radius: 2px; max-height: 4px; min-height: 4px; }}
QProgressBar::chunk {{ background: {c.accent}; border-radius: 2px; }}
QToolTip {{ background: {c.raised}; color: {c.text}; border: 1px solid {c.line}; padding: 4px; }}
"""
