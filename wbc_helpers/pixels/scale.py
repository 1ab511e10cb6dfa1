"""How many pixels wide the red cells of an image are: the scale of everything else.

One image tells it to 12 % (standard deviation), two dozen of one microscope to 2 or 3 %.
"""

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from wbc_helpers.errors import InvalidParameter, UnreadableImage
from wbc_helpers.pixels.images import pixels_of, resample
from wbc_helpers.pixels.stain import is_fill

RED_CELL = 52.0
"""Diameter of a red cell, in pixels, at the scale at which nuclei are looked for. In the 364
annotated photographs, at half size, the boxes of red cells inside the frame measure 52.0 (median
of the photographs' medians, standard deviation 3.1)."""

SMALLEST_RED_CELL, LARGEST_RED_CELL = 10, 1_000
"""Pixels. Below, no nucleus can be told; above, a photograph shows less than a cell."""

N_FOR_SCALE = 24
"""Photographs that `estimate_scale` looks at."""


def red_cell_of(images: Sequence[str | Path | np.ndarray], red_cell: float | None = None) -> float:
    """Take the diameter of the red cells as given, or estimate it over images of one magnification.

    Without any image, `RED_CELL` is as good as another. InvalidParameter is raised if the given one
    is no usable number, or too few red cells are seen to estimate it.

    Examples
    --------
    >>> red_cell_of(["a.jpg", "b.jpg"], red_cell=104)
    104
    """
    if red_cell is None:
        red_cell = red_cell_diameter_of(images, default=np.nan) if images else RED_CELL
        if np.isnan(red_cell):
            raise InvalidParameter(
                f"Too few red cells are seen in {len(images)} images to tell their scale. "
                "Expected at least three in one of them; else give their diameter in pixels "
                "as red_cell."
            )
    return check_red_cell(red_cell)


def check_red_cell(red_cell: Any) -> float:
    """Refuse (InvalidParameter) a diameter outside `SMALLEST_RED_CELL` to `LARGEST_RED_CELL`."""
    is_number = isinstance(red_cell, Real) and not isinstance(red_cell, bool)
    if not is_number or not SMALLEST_RED_CELL <= red_cell <= LARGEST_RED_CELL:
        raise InvalidParameter(
            f"red_cell={red_cell!r} is not usable. Expected the diameter of a red cell in "
            f"pixels, {SMALLEST_RED_CELL} to {LARGEST_RED_CELL}, such as 52 for the published "
            "images of 320×240; None estimates it."
        )
    return red_cell


def red_cell_diameter_of(
    images: Iterable[str | Path | np.ndarray], n_images: int = 64, default: float = RED_CELL
) -> float:
    """Estimate the diameter of the red cells of images of one magnification: the median, in pixels.

    `n_images` of them, spread evenly, are looked at; where too few red cells are seen, it is
    `default`. UnreadableImage is raised if a file is not a complete image.
    """
    estimates = [red_cell_diameter(pixels_of(image)) for image in _spread(list(images), n_images)]
    finite = [estimate for estimate in estimates if np.isfinite(estimate)]
    return float(np.median(finite)) if finite else default


def estimate_scale(
    paths: Sequence[str | Path],
    n_photographs: int = N_FOR_SCALE,
    read: Callable[[Any], np.ndarray] = pixels_of,
) -> tuple[float | None, int]:
    """Estimate the diameter of the red cells in a folder of which some files may be no smears.

    Returns the median over `n_photographs` of them, spread evenly, in pixels, and how many told
    something. Files that cannot be read, or show too few red cells, are passed over; where none
    tells anything, it is None. `read` makes RGB pixels of a path.
    """
    estimates = []
    for path in _spread(paths, n_photographs):
        try:
            estimates.append(red_cell_diameter(read(path)))
        except UnreadableImage:
            continue
    usable = [each for each in estimates if SMALLEST_RED_CELL <= each <= LARGEST_RED_CELL]
    return (float(np.median(usable)), len(usable)) if usable else (None, 0)


def _spread(images: Sequence, n_images: int) -> list:
    """Choose so many, spread evenly from the first to the last."""
    places = np.linspace(0, len(images) - 1, min(n_images, len(images))).round().astype(int)
    return [images[place] for place in places]


def boxed_red_cell(boxes: pd.DataFrame) -> float:
    """Diameter of the red cells as people boxed them in photographs of one scale (pixels).

    The median over the photographs of the median side of boxes inside the frame; InvalidParameter
    is raised if there is none. For the table see `annotations.Annotations.boxes`.
    """
    inside = (boxes[["x_min", "y_min"]] > 2).all(axis=1)
    inside &= (boxes["x_max"] < boxes["width"] - 2) & (boxes["y_max"] < boxes["height"] - 2)
    red = boxes[inside & (boxes["kind"] == "RBC")]
    if red.empty:
        raise InvalidParameter(
            "No red cell is boxed in the training photographs, from which to take the scale. "
            "Expected RBC boxes that do not touch the frame."
        )
    sides = (red["x_max"] - red["x_min"] + red["y_max"] - red["y_min"]) / 2
    return float(sides.groupby(red["photograph"]).median().median())


def red_cell_diameter(image: np.ndarray) -> float:
    """Estimate the diameter of the red cells of one RGB image of any size, in pixels.

    The smear is told from the background by Otsu's threshold in green, which haemoglobin absorbs;
    pale centres are filled, nuclei left out; the distance to the nearest background peaks at the
    radius of each cell. NaN where fewer than three red cells are seen.
    """
    height, width = image.shape[:2]
    # As many pixels as the published images have; where a field is so wide that its red cells are
    # lost then, twice and four times as many each way.
    for finer in (1, 2, 4):
        scale = finer * float(np.sqrt(320 * 240 / (height * width)))
        diameter = _diameter(resample(image, scale)) / scale
        if np.isfinite(diameter):
            break
    # If red cells come out much larger or smaller than in the published images, once more at the
    # scale that was found.
    if np.isfinite(diameter) and not 0.8 < diameter * scale / RED_CELL < 1.25:
        scale = RED_CELL / diameter
        diameter = _diameter(resample(image, scale)) / scale
    return diameter


_TOUCH_PERCENTILE, _RADIUS_PER_DIAMETER = 80, 0.395
"""Peaks of the distance to the nearest background are radii of red cells, less what the blurred
edge takes off and what clumps and halves add. On the 364 photographs their 80th percentile is
0.395 of the annotated diameter (standard deviation 0.049; of their median it is 0.074)."""


def _diameter(image: np.ndarray) -> float:
    """Estimate it in an image whose red cells are about `RED_CELL` pixels wide."""
    blurred = cv2.GaussianBlur(image, (0, 0), 1)
    red, green, blue = np.moveaxis(blurred.astype(np.int16), 2, 0)
    smear = ~is_fill(image)
    if not smear.any():
        return float("nan")
    otsu, _ = cv2.threshold(
        blurred[..., 1][smear].reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU
    )
    stained = ((green <= otsu) & smear).astype(np.uint8)
    contours, hierarchy = cv2.findContours(stained, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0] if contours else (), strict=True):
        # A hole smaller than half a red cell is its pale centre.
        if parent >= 0 and cv2.contourArea(contour) < 600:
            cv2.drawContours(stained, [contour], -1, 1, -1)
    radius = cv2.distanceTransform(np.pad(stained, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    radius = cv2.GaussianBlur(radius, (0, 0), 1)
    summits = (radius == cv2.dilate(radius, np.ones((15, 15)))) & (radius > 5)
    peaks = summits & ~_grown(blue > red + 5)
    if peaks.sum() < 3 and (background := smear & (green > otsu)).any():
        # Under a bluish stain or lamp red cells are bluer than red, too: a second look, in white
        # light, at what is not a nucleus, where blue far exceeds green.
        white = blurred * (235 / np.maximum(np.median(blurred[background], axis=0), 1))
        peaks = summits & ~_grown(white[..., 2] > white[..., 1] + 30)
    if peaks.sum() < 3:
        return float("nan")
    return float(np.percentile(radius[peaks], _TOUCH_PERCENTILE)) / _RADIUS_PER_DIAMETER


def _grown(chromatin: np.ndarray) -> np.ndarray:
    """Widen a mask by four pixels."""
    return cv2.dilate(chromatin.astype(np.uint8), np.ones((9, 9))) > 0


def check_photograph(photograph: np.ndarray, red_cell: float | None) -> None:
    """Refuse a photograph in which no cell could be told.

    Raises
    ------
    UnreadableImage
        If it is smaller than a red cell.
    InvalidParameter
        If `red_cell`, their diameter in pixels, is not known.
    """
    height, width = photograph.shape[:2]
    if min(height, width) < (red_cell or SMALLEST_RED_CELL):
        raise UnreadableImage(
            f"{width}×{height} pixels are less than a red cell"
            + (f", which is {red_cell:.0f} pixels wide here" if red_cell else "")
            + ". Expected a photograph of a smear."
        )
    if red_cell is None:
        raise InvalidParameter(
            "Too few red cells are seen to tell the scale. Expected at least three in one of the "
            "photographs; else give their diameter in pixels as red_cell, such as 104 for those of "
            "the BCCD data set."
        )
