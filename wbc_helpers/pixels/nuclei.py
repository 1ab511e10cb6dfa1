"""Nuclei of white cells, by what they absorb: of red light as much as red cells let through."""

from collections.abc import Iterator

import cv2
import numpy as np

from wbc_helpers.pixels.stain import ABSORBANCE, WHITE, absorbance, whiten

SMALLEST = 800
"""Pixels, where a red cell is 52 wide. What platelets leave there is smaller."""

WIDEST_FIELD = 2.5
"""Red cells, beside 52 pixels each: the neighbourhood whose lightest place counts as empty."""

_THRESHOLDS = (0.38, 0.9)
"""Between what the palest nuclei absorb and what red cells may. Between them Otsu's choice holds;
in a field without a white cell it would split the background."""


def azure(white: np.ndarray, blur: float = 1.5) -> np.ndarray:
    """Measure how much azure dye, which chromatin takes up, lies in each pixel.

    Absorbance (base e) of red light, and of green beyond that of blue: (height, width) float32, 0
    in the background. Red cells absorb hardly any red, and of green no more than of blue.
    `white` is RGB uint8, see `stain.whiten`; `blur` is in pixels.
    """
    light = cv2.GaussianBlur(white, (0, 0), blur) if blur else white
    red, green, blue = cv2.split(ABSORBANCE[light] - np.float32(absorbance(WHITE)))
    return red + green - blue


def chromatin(
    white: np.ndarray, widest: float = WIDEST_FIELD * 52, blur: float = 1.5
) -> np.ndarray:
    """Tell chromatin from all else, (height, width) bool, of a white-balanced RGB image.

    What absorbs clearly more azure than the lightest place within `widest` pixels, so that a field
    tinted unevenly counts as empty.
    """
    dye = azure(white, blur)
    dye -= np.maximum(_opened(dye, widest), 0)
    upper_half = dye[dye > np.median(dye)]
    if not upper_half.size:
        return np.zeros(dye.shape, bool)
    levels = np.rint(100 * np.clip(upper_half, 0, 2.5)).astype(np.uint8).reshape(1, -1)
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    # Nuclei that the frame cuts are paler than others.
    return dye > np.clip(0.95 * otsu / 100, *_THRESHOLDS)


def _opened(dye: np.ndarray, widest: float) -> np.ndarray:
    """Take away what is narrower than so many pixels, at a quarter of the resolution."""
    height, width = dye.shape
    coarse = cv2.resize(
        dye, (max(width // 4, 1), max(height // 4, 1)), interpolation=cv2.INTER_AREA
    )
    side = max(round(widest / 4), 1)
    opened = cv2.morphologyEx(
        coarse, cv2.MORPH_OPEN, np.ones((side, side)), borderType=cv2.BORDER_REPLICATE
    )
    return cv2.resize(opened, (width, height))


def find_nuclei(image: np.ndarray, smallest: int = SMALLEST, thinnest: int = 9) -> np.ndarray:
    """Find the nuclei of white cells by their colour: numbered from 1, (height, width) int32.

    Of an RGB image, uint8, whose red cells are about 52 pixels wide, under any usual stain and
    light: the background is made white first. Lobes of one nucleus are counted together; what is
    thinner than `thinnest` pixels, such as a dark edge of a red cell, or has fewer pixels than
    `smallest`, is none. On the 364 photographs that the BCCD set annotates see `make locate`.
    """
    return _numbered(whiten(image), smallest, thinnest)


def _numbered(white: np.ndarray, smallest: int, thinnest: int) -> np.ndarray:
    """Give each nucleus of a white-balanced image a number."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thinnest, thinnest))
    marked = cv2.morphologyEx(chromatin(white).astype(np.uint8), cv2.MORPH_OPEN, disc)
    _, parts = cv2.connectedComponents(cv2.dilate(marked, np.ones((9, 9))))
    parts = np.where(marked > 0, parts, 0)
    large = np.bincount(parts.ravel()) >= smallest
    large[0] = False
    return np.where(large, np.cumsum(large), 0).astype(np.int32)[parts]


def hulls(nuclei: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each numbered nucleus where it is, (height, width) bool, and its convex hull."""
    for number in range(1, int(nuclei.max(initial=0)) + 1):
        nucleus = nuclei == number
        yield nucleus, cv2.convexHull(cv2.findNonZero(nucleus.astype(np.uint8)))


def largest_width(white: np.ndarray) -> float:
    """Width of the largest nucleus of a white-balanced image of any scale: that of a disc as large.

    In pixels; NaN where none is seen, or only what is too small or too large to be one.
    """
    nuclei = _numbered(white, 60, 3)
    if not nuclei.max():
        return float("nan")
    areas = np.bincount(nuclei.ravel())
    areas[0] = 0
    order = np.argsort(-areas)[: int(nuclei.max())]
    for number in order:
        hull = cv2.convexHull(cv2.findNonZero((nuclei == number).astype(np.uint8)))
        width = float(np.sqrt(4 / np.pi * max(cv2.contourArea(hull), 1)))
        if 14 <= width <= 0.95 * min(nuclei.shape):
            return width
    return float("nan")
