"""Which photographs show the same field, and whether they show the same white cell.

A slide is moved under the microscope without turning it: two photographs of one field differ by
a shift. Every pair is correlated at every shift at once, by Fourier transform [1]_, and the best
shift is confirmed at twice the resolution.

References
----------
.. [1] D. Padfield, Masked object registration in the Fourier domain, IEEE Trans. Image
   Process. 21(5), 2706–2718 (2012).
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers import images
from wbc_helpers.errors import DataNotFound
from wbc_helpers.white_cells import SMALLEST_NUCLEUS, find_nuclei

SMALLEST_OVERLAP = 0.06
"""Part of the photograph that two must share. Smaller corners, often one red cell's edge, look
alike by chance."""

MIN_DISTINCTNESS = 2.0
"""Correlation at the best shift over that at any other, each times the square root of the number
of pixels that overlap. Of the known data set's 66,795 pairs, the 47 that overlap reach 2.1 to
over 10; others, if their fine detail correlates as it must, at most 1.7, and 1.8 in drawn
photographs, whose round cells fit each other in many places."""

MIN_CORRELATION = 0.7
"""Correlation of the shared part at half size, fine detail only. The 47 pairs reach 0.76 to
0.96."""

_LEAST_PEAK = 20  # of the correlation times √pixels: chance alone reaches that in most pairs

_COLUMNS = ["first", "second", "shift_x", "shift_y", "shared", "distinctness", "correlation"]


def read_photographs(folder: str | Path, progress: bool = True) -> dict[str, np.ndarray]:
    """Read all photographs at half size, the size of the images made from them.

    Parameters
    ----------
    folder : path
        Holds `JPEGImages`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict of str to (height, width, 3) uint8 ndarray
        RGB, averaged over 2×2 pixels, by the photograph's name, in the order of names.

    Raises
    ------
    DataNotFound
        If there are no photographs.
    UnreadableImage
        If one of them is not a complete image.
    """
    paths = sorted(
        path
        for path in (Path(folder) / "JPEGImages").glob("*")
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and not path.name.startswith(".")
    )
    if not paths:
        raise DataNotFound(
            f"{folder} holds no photographs. Expected JPEG files in its folder JPEGImages, as in "
            "the dataset-master part of the blood-cells archive; without them nothing can be "
            "said about where the images come from."
        )
    bar = tqdm(paths, desc="photographs", unit="photograph", disable=not progress)
    return {path.stem: _halve(images.read_image(path)) for path in bar}


def _halve(photograph: np.ndarray) -> np.ndarray:
    return cv2.resize(photograph, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def find_overlaps(
    photographs: Mapping[str, np.ndarray], progress: bool = True, workers: int = 2
) -> pd.DataFrame:
    """Find every pair of photographs that show a part of the same field.

    Parameters
    ----------
    photographs : mapping of str to (height, width, 3) uint8 ndarray
        At half size, as `read_photographs` returns them. Photographs of different sizes are
        taken for different microscopes and not compared.
    progress : bool
        Show a progress bar.
    workers : int
        Threads.

    Returns
    -------
    DataFrame
        One row a pair. `first`, `second`: names. `shift_x`, `shift_y` (int): what lies at x, y
        in the first lies at x + shift_x, y + shift_y in the second, in pixels at half size.
        `shared`: part of the frame that both show, 0–1. `distinctness` and `correlation`: the
        evidence, see `MIN_DISTINCTNESS` and `MIN_CORRELATION`. `same_cell` (bool): whether a white
        cell's nucleus lies in the shared part, at the same place in both.
    """
    names = list(photographs)
    pairs = []
    for shape in sorted({photograph.shape for photograph in photographs.values()}):
        alike = [name for name in names if photographs[name].shape == shape]
        finder = _ShiftFinder([photographs[name] for name in alike])
        with ThreadPoolExecutor(workers) as pool:
            rows = tqdm(
                pool.map(finder.find, range(len(alike))),
                total=len(alike),
                desc="overlaps",
                unit="photograph",
                disable=not progress,
            )
            pairs += [(alike[i], alike[j], *found) for row in rows for i, j, *found in row]
    overlaps = pd.DataFrame(sorted(pairs), columns=_COLUMNS)
    nuclei = {
        name: find_nuclei(photographs[name]) for name in set(overlaps[["first", "second"]].stack())
    }
    overlaps["same_cell"] = [
        _share_nucleus(nuclei[pair.first], nuclei[pair.second], pair.shift_x, pair.shift_y)
        for pair in overlaps.itertuples()
    ]
    return overlaps.astype({"same_cell": bool})


class _ShiftFinder:
    """Correlates photographs of one size with each other."""

    def __init__(self, photographs: list[np.ndarray]) -> None:
        height, width = photographs[0].shape[:2]
        # A quarter of a photograph of 640×480; others come to the same height.
        self._scale = height / 120
        small = (round(width / self._scale), 120)
        self._padded = (240, 2 * small[0])
        ones = np.ones(small[::-1], np.float32)
        window = np.conj(np.fft.rfft2(ones, self._padded))
        n_shared = np.maximum(np.round(self._back(np.conj(window) * window)), 1)
        # Turns a sum of products into correlation × √pixels, and small overlaps into nothing.
        self._weight = np.where(n_shared >= SMALLEST_OVERLAP * ones.size, n_shared**-0.5, 0)
        self._weight = self._weight.astype(np.float32)
        self._spectra, self._inverse_rms, self._fine = [], [], []
        for photograph in photographs:
            gray = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY).astype(np.float32)
            self._fine.append(_without_shading(gray, 8))
            coarse = cv2.resize(gray, small, interpolation=cv2.INTER_AREA)
            coarse = _without_shading(coarse, 2)
            # Compressed, so that one dark nucleus or edge does not outweigh all the rest.
            coarse = np.sign(coarse) * np.sqrt(np.abs(coarse))
            coarse /= max(float(coarse.std()), 1e-6)
            self._spectra.append(np.fft.rfft2(coarse, self._padded))
            energy = self._back(np.fft.rfft2(coarse**2, self._padded) * window) / n_shared
            # An empty corner has next to no energy; its noise would correlate with anything.
            self._inverse_rms.append(1 / np.sqrt(np.maximum(energy, 0.05)))

    def _back(self, spectrum: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(spectrum, self._padded).astype(np.float32)

    def find(self, i: int) -> list[tuple[int, int, int, int, float, float, float]]:
        """Pairs of photograph `i` with those after it: i, j, and the columns of the result."""
        pairs = []
        weight = self._weight * self._inverse_rms[i]
        spectrum = np.conj(self._spectra[i])
        for j in range(i + 1, len(self._spectra)):
            strength = self._back(self._spectra[j] * spectrum)
            # The second photograph's shared part under a shift is what the opposite shift leaves
            # of it; np.roll takes shift 0 back to the first place.
            strength *= np.roll(weight[::-1, ::-1], (1, 1), (0, 1)) * self._inverse_rms[j]
            y, x = divmod(int(strength.argmax()), self._padded[1])
            peak = float(strength[y, x])
            if peak < _LEAST_PEAK:
                continue
            around = (np.arange(y - 7, y + 8) % strength.shape[0])[:, np.newaxis]
            strength[around, np.arange(x - 7, x + 8) % strength.shape[1]] = 0
            distinctness = peak / float(strength.max())
            if distinctness < MIN_DISTINCTNESS:
                continue
            y, x = (
                (place - size if place >= size // 2 else place) * self._scale
                for place, size in zip((y, x), self._padded, strict=True)
            )
            correlation, x, y = _confirm(self._fine[i], self._fine[j], round(x), round(y))
            if correlation >= MIN_CORRELATION:
                height, width = self._fine[i].shape
                shared = (1 - abs(x) / width) * (1 - abs(y) / height)
                found = (
                    round(shared, 3),
                    round(distinctness, 2),
                    round(correlation, 3),
                )
                pairs.append((i, j, x, y, *found))
        return pairs


def _without_shading(gray: np.ndarray, sigma: float) -> np.ndarray:
    """Detail finer than `sigma` pixels, its standard deviation 1: lamps and stains differ."""
    detail = gray - cv2.GaussianBlur(gray, (0, 0), sigma)
    return detail / max(float(detail.std()), 1e-6)


def _confirm(
    first: np.ndarray, second: np.ndarray, shift_x: int, shift_y: int, reach: int = 4
) -> tuple[float, int, int]:
    """Best correlation of the shared part within `reach` pixels of a shift, and that shift."""
    height, width = first.shape
    left, right = max(0, -shift_x) + reach, min(width, width - shift_x) - reach
    top, bottom = max(0, -shift_y) + reach, min(height, height - shift_y) - reach
    if right - left < 12 or bottom - top < 12:
        return -1.0, shift_x, shift_y
    around = second[
        top + shift_y - reach : bottom + shift_y + reach,
        left + shift_x - reach : right + shift_x + reach,
    ]
    scores = cv2.matchTemplate(around, first[top:bottom, left:right], cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    return best, shift_x + x - reach, shift_y + y - reach


def _share_nucleus(first: np.ndarray, second: np.ndarray, shift_x: int, shift_y: int) -> bool:
    """Whether a nucleus of the first photograph lies on one of the second."""
    moved = cv2.warpAffine(
        first.astype(np.float32),
        np.float32([[1, 0, shift_x], [0, 1, shift_y]]),
        first.shape[::-1],
        flags=cv2.INTER_NEAREST,
    )
    for nucleus in range(1, first.max() + 1):
        # Half a nucleus at the edge of the frame is the same cell too.
        covered = (moved == nucleus) & (second > 0)
        if covered.sum() >= max(0.5 * (moved == nucleus).sum(), SMALLEST_NUCLEUS / 4):
            return True
    return False


def group_sources(overlaps: pd.DataFrame, source_ids: Iterable[str]) -> pd.Series:
    """Join photographs that overlap, directly or through others, into groups.

    Parameters
    ----------
    overlaps : DataFrame
        With columns `first` and `second`, see `find_overlaps`.
    source_ids : iterable of str
        Names of all photographs.

    Returns
    -------
    Series of str
        The group of each photograph, by its name: the first name in the group.
    """
    parent = {name: name for name in sorted(set(source_ids))}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for first, second in zip(overlaps["first"], overlaps["second"], strict=True):
        if first in parent and second in parent:
            low, high = sorted((root(first), root(second)))
            parent[high] = low
    groups = {name: root(name) for name in parent}
    return pd.Series(groups, dtype=object, name="group_id").rename_axis("source_id")
