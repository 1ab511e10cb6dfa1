"""White cells found by the colour of their nuclei, and crops around them, alike whatever the slide.

The red cells around are the reference. An image is resampled so that a red cell is `RED_CELL`
pixels wide, as in the published images of 320×240, before nuclei are looked for. The side of a crop
is counted in red cells, so that magnification drops out and the size of the white cell, which tells
a lymphocyte from a monocyte, stays. Light and stain drop out by `stain.balance`, but for how
nucleus and granules differ from red cells, which tells an eosinophil.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from wbc_helpers.pixels.images import (
    pixels_of,
    read_image,
    resample,
    resize,
    scaled_size,
    warp,
)
from wbc_helpers.pixels.scale import RED_CELL
from wbc_helpers.pixels.stain import SMALLEST_NUCLEUS, WHITE, balance, find_nuclei, hulls, is_fill

CYTOPLASM = 13
"""Pixels at that scale from the hull of the nucleus to the edge of the cell. On 344 photographs
whose one white cell the BCCD set annotates, the box around the cell so found and the annotated one
share 79 % of their union on average; with 10 or 16 pixels, 79 and 76 %."""


@dataclass(frozen=True)
class WhiteCell:
    """A white cell of an image.

    Attributes
    ----------
    x, y : float
        Centre of the nucleus's hull, in pixels of the image; (0, 0) is the centre of the upper left
        pixel.
    x_min, y_min, x_max, y_max : float
        Edges of the cell's box, clipped to the image, in pixels from its upper left corner.
    nucleus_area : float
        In square pixels of the image.
    cut : bool
        Whether the edge of the image, or the black fill of a rotated one, cuts the nucleus: less
        of the cell is seen than there is.
    """

    x: float
    y: float
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    nucleus_area: float
    cut: bool


def locate(image: np.ndarray, red_cell: float = RED_CELL) -> list[WhiteCell]:
    """Find the white cells of an RGB image of any size, the largest nucleus first.

    `red_cell` is the diameter of its red cells in pixels, see `scale`; by default that of the
    published images.

    Examples
    --------
    >>> smear = np.full((240, 320, 3), (225, 220, 228), np.uint8)
    >>> nucleus = cv2.circle(smear, (200, 90), 24, (110, 70, 180), -1)
    >>> [(round(cell.x), round(cell.y)) for cell in locate(smear)]
    [(200, 90)]
    """
    return _locate(image, RED_CELL / red_cell, SMALLEST_NUCLEUS)


def meant(located: list[WhiteCell], box: Sequence[float]) -> WhiteCell:
    """Choose the located cell that a box means: of those in it the nearest to its middle.

    Where none is, a cell in the middle of the box. `box` has the columns `cells.BOX`.
    """
    x_min, y_min, x_max, y_max = box
    x, y = (x_min + x_max - 1) / 2, (y_min + y_max - 1) / 2
    inside = [cell for cell in located if x_min <= cell.x <= x_max and y_min <= cell.y <= y_max]
    middle = WhiteCell(x, y, x_min, y_min, x_max, y_max, 0.0, False)
    return min(inside, key=lambda cell: np.hypot(cell.x - x, cell.y - y), default=middle)


def locate_one(image: np.ndarray, red_cell: float = RED_CELL) -> tuple[WhiteCell, bool]:
    """Find the white cell of an image that is known to show one, at least in part; see `locate`.

    The one with the largest nucleus, and True. Where none was found it is a guess, and False: the
    largest piece of chromatin of any size, or where there is none either, the middle of the image.
    """
    scale = RED_CELL / red_cell
    if cells := _locate(image, scale, SMALLEST_NUCLEUS):
        return cells[0], True
    if pieces := _locate(image, scale, smallest=1):
        return pieces[0], False
    height, width = image.shape[:2]
    middle = ((width - 1) / 2, (height - 1) / 2)
    return WhiteCell(*middle, 0.0, 0.0, float(width), float(height), 0.0, True), False


def _locate(image: np.ndarray, scale: float, smallest: int) -> list[WhiteCell]:
    """Find them in an image that this scale brings to red cells of `RED_CELL` pixels."""
    height, width = image.shape[:2]
    resampled = resample(image, scale)
    nuclei = find_nuclei(resampled, smallest, 9 if smallest > 1 else 1)
    # Scale of each axis as it came out in whole pixels.
    across, down = resampled.shape[1] / width, resampled.shape[0] / height
    outside: np.ndarray = np.pad(np.zeros(nuclei.shape, np.uint8), 1, constant_values=1)
    outside[1:-1, 1:-1] = cv2.dilate(is_fill(resampled).astype(np.uint8), np.ones((13, 13)))
    outside = cv2.dilate(outside, np.ones((3, 3)))[1:-1, 1:-1]
    cells = []
    for nucleus, hull in hulls(nuclei):
        x, y = _centre(hull)
        left, top, hull_width, hull_height = cv2.boundingRect(hull)
        cells.append(
            WhiteCell(
                x=(x + 0.5) / across - 0.5,
                y=(y + 0.5) / down - 0.5,
                x_min=max((left - CYTOPLASM) / across, 0.0),
                y_min=max((top - CYTOPLASM) / down, 0.0),
                x_max=min((left + hull_width + CYTOPLASM) / across, float(width)),
                y_max=min((top + hull_height + CYTOPLASM) / down, float(height)),
                nucleus_area=float(nucleus.sum() / (across * down)),
                cut=bool(outside[nucleus].any()),
            )
        )
    return sorted(cells, key=lambda cell: -cell.nucleus_area)


def _centre(hull: np.ndarray) -> tuple[float, float]:
    """Centre of gravity of a hull, or of its corners where it has no area."""
    moments = cv2.moments(hull)
    if moments["m00"] > 0:
        return moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    x, y = hull.reshape(-1, 2).mean(axis=0)
    return x, y


def outline(image: np.ndarray, red_cell: float = RED_CELL) -> np.ndarray:
    """Mark the white cells of an image: (height, width) bool, all False where none was found.

    Each nucleus is filled to its convex hull, and grown by the usual breadth of the cytoplasm:
    an outline of the cell that is right to some pixels, not a segmentation. For the parameters see
    `locate`.
    """
    nuclei = find_nuclei(resample(image, RED_CELL / red_cell))
    marked = np.zeros(nuclei.shape, np.uint8)
    for _, hull in hulls(nuclei):
        cv2.fillConvexPoly(marked, hull, 255)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * CYTOPLASM + 1,) * 2)
    return resize(cv2.dilate(marked, disc), image.shape[:2]) > 127


def outlines(
    images: Iterable[str | Path | np.ndarray],
    size: tuple[int, int],
    progress: bool = True,
    red_cell: float = RED_CELL,
) -> np.ndarray:
    """Mark the white cells of many images, or files, at a size of choice: (n, height, width) bool.

    They are looked at in full size, where colours are clearest, see `outline`;
    `masks.any(axis=(1, 2))` tells in which images a cell was found.
    """
    masks = []
    for image in tqdm(images, desc="white cells", unit="image", disable=not progress):
        marked = outline(pixels_of(image), red_cell)
        masks.append(resize(marked.astype(np.uint8) * 255, size) > 127)
    return np.array(masks, bool).reshape(-1, *size)


VERSION = 2
"""Of how crops are made. To be raised with any change of their pixels, so that crops that were kept
on disk are made anew."""

SIDE = 3.1
"""Side of a crop in diameters of a red cell, about 23 µm: a monocyte and its neighbours."""


def cut_out(
    image: np.ndarray, cell: WhiteCell, size: int, red_cell: float = RED_CELL, side: float = SIDE
) -> np.ndarray:
    """Cut a square around a white cell out of a balanced image, (size, size, 3) uint8.

    The cell's centre becomes that of the crop, whose `side` is in diameters of a red cell,
    `red_cell` that diameter in pixels of the image. What lies beyond the image's edge is
    background.
    """
    return cut_out_all(image, [cell], size, red_cell, side)[0]


def cut_out_all(
    image: np.ndarray,
    cells: Sequence[WhiteCell],
    size: int,
    red_cell: float = RED_CELL,
    side: float = SIDE,
) -> np.ndarray:
    """Cut out several, (n_cells, size, size, 3) uint8, see `cut_out`, resampling the image once."""
    crops = np.empty((len(cells), size, size, 3), np.uint8)
    if not len(cells):
        return crops
    resampled = resize(image, scaled_size(image.shape, size / (side * red_cell)))
    for crop, cell in zip(crops, cells, strict=True):
        x = (cell.x + 0.5) * resampled.shape[1] / image.shape[1] - 0.5
        y = (cell.y + 0.5) * resampled.shape[0] / image.shape[0] - 0.5
        moved = np.array([[1, 0, (size - 1) / 2 - x], [0, 1, (size - 1) / 2 - y]], np.float32)
        crop[:] = warp(resampled, moved, (size, size), WHITE)
    return crops


def read_crop(
    path: str | Path, size: tuple[int, int], red_cell: float = RED_CELL, side: float = SIDE
) -> np.ndarray:
    """Read an image and cut its white cell out: from file to what the network sees.

    The image shows one white cell, at least in part; of several the largest is taken. `size` is
    (height, width), both alike; for the rest see `cut_out`, for what is raised `images.read_image`.
    """
    image = read_image(path)
    cell, _ = locate_one(image, red_cell)
    return cut_out(balance(image), cell, size[0], red_cell, side)
