"""First two formants of short windows of speech, by linear prediction (autocorrelation method).

The autocorrelation is taken from the power spectrum below 4 kHz, which makes the decimation to 8 kHz exact, and lets
a noise estimate be subtracted before. Source of the method: Markel and Gray, Linear Prediction of Speech, 1976.
"""

from __future__ import annotations

import numpy as np

_ORDER = 10
_RATE_HZ = 8_000
_PRE_EMPHASIS = 0.9
_LAG_WINDOW_HZ = 60.0
_WHITE_FLOOR = 1.0001
_F_MIN_HZ, _F_MAX_HZ = 150.0, 3_600.0
_BANDWIDTH_MAX_HZ = 600.0
_F1_MAX_HZ = 1_150.0
NEUTRAL_F1_HZ, NEUTRAL_F2_HZ = 450.0, 1_500.0


class FormantEstimator:
    """F1 and F2 from power spectra whose bins reach 4 kHz at index `bins` - 1."""

    def __init__(self, bins: int) -> None:
        self._bins = bins
        omega = np.linspace(0.0, np.pi, bins)
        self._emphasis = np.abs(1.0 - _PRE_EMPHASIS * np.exp(-1j * omega)) ** 2
        lags = np.arange(_ORDER + 1)
        self._lag_window = np.exp(-0.5 * (2 * np.pi * _LAG_WINDOW_HZ * lags / _RATE_HZ) ** 2)
        self._lag_window[0] *= _WHITE_FLOOR
        self._cosines = _cosine_table(bins, _ORDER)

    def estimate(self, power: np.ndarray, f1_hz: np.ndarray, f2_hz: np.ndarray) -> None:
        """Fill `f1_hz` and `f2_hz` (n) from `power` (n, >= bins); neutral values where no formant is found."""
        shaped = power[:, : self._bins] * self._emphasis
        autocorrelation = (shaped @ self._cosines) * self._lag_window
        polynomial = _levinson(autocorrelation)
        roots = _roots(polynomial)
        angle = np.arctan2(roots.imag, roots.real)
        radius = np.maximum(np.abs(roots), 1e-6)
        frequency = angle * (_RATE_HZ / (2 * np.pi))
        bandwidth = -np.log(radius) * (_RATE_HZ / np.pi)
        is_formant = (frequency > _F_MIN_HZ) & (frequency < _F_MAX_HZ) & (bandwidth < _BANDWIDTH_MAX_HZ)
        found = np.sort(np.where(is_formant, frequency, np.inf), axis=1)
        _pick(found, f1_hz, f2_hz)


def _pick(found: np.ndarray, f1_hz: np.ndarray, f2_hz: np.ndarray) -> None:
    for row in range(len(found)):
        first, second = found[row, 0], found[row, 1]
        if first > _F1_MAX_HZ:  # also inf: the first formant was lost, what is seen is a later one
            f1_hz[row] = NEUTRAL_F1_HZ
            f2_hz[row] = first if np.isfinite(first) else NEUTRAL_F2_HZ
        else:
            f1_hz[row] = first
            f2_hz[row] = second if np.isfinite(second) else NEUTRAL_F2_HZ


def _cosine_table(bins: int, order: int) -> np.ndarray:
    """(bins, order + 1): the inverse real DFT of a power spectrum as a product, trapezoid weights at both ends."""
    weights = np.full(bins, 2.0)
    weights[[0, -1]] = 1.0
    phase = np.outer(np.linspace(0.0, np.pi, bins), np.arange(order + 1))
    return np.cos(phase) * weights[:, None] / (2 * (bins - 1))


def _levinson(autocorrelation: np.ndarray) -> np.ndarray:
    """Prediction polynomials (n, order + 1), leading one, of autocorrelations (n, order + 1)."""
    count, size = autocorrelation.shape
    polynomial = np.zeros((count, size))
    polynomial[:, 0] = 1.0
    error = autocorrelation[:, 0] + 1e-20
    for m in range(1, size):
        taps = polynomial[:, :m]
        reflection = -np.einsum("nk,nk->n", taps, autocorrelation[:, m:0:-1]) / error
        polynomial[:, 1 : m + 1] += reflection[:, None] * polynomial[:, m - 1 :: -1][:, :m].copy()
        error = error * np.maximum(1.0 - reflection * reflection, 1e-9)
    return polynomial


def _roots(polynomial: np.ndarray) -> np.ndarray:
    count, size = polynomial.shape
    companion = np.zeros((count, size - 1, size - 1))
    companion[:, 0, :] = -polynomial[:, 1:]
    companion[:, np.arange(1, size - 1), np.arange(size - 2)] = 1.0
    return np.linalg.eigvals(companion)
