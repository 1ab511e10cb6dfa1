"""How many pixels wide the red cells of an image are: the scale of everything else.

One image tells it to 12 % (standard deviation), two dozen of one microscope to 2 or 3 %.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from wbc_helpers.cells import BOX
from wbc_helpers.errors import InvalidParameter, UnreadableImage
from wbc_helpers.pixels.images import pixels_of, resample, size_of
from wbc_helpers.pixels.stain import (
    WHITE,
    absorbance,
    absorbances,
    chromatin,
    largest_width,
    whiten,
)

RED_CELL = 52.0
"""Diameter of a red cell, in pixels, at the scale at which nuclei are looked for. In the 364
annotated photographs, at half size, the boxes of red cells inside the frame measure 52.0 (median
of the photographs' medians, standard deviation 3.1)."""

SMALLEST_RED_CELL, LARGEST_RED_CELL = 10, 1_000
"""Pixels. Below, no nucleus can be told; above, a photograph shows less than a cell."""

N_FOR_SCALE = 24
"""Photographs that `estimate_scale` looks at."""

ALIKE = 8
"""Images of one size in pixels from which on they are taken for those of one microscope."""


def widths_of(
    images: Sequence[str | Path | np.ndarray], red_cell: float | None = None, skip: bool = False
) -> np.ndarray:
    """Tell how wide the red cells of each image are, (n_images,) float64, in pixels.

    As given, or the median over up to 64 images of the same size, where `ALIKE` or more have it;
    else over all images. InvalidParameter is raised as by `red_cell_of`. Files that cannot be read
    are left to whoever reads them, if told to `skip` them.
    """
    if red_cell is not None or not len(images):
        return np.full(len(images), check_red_cell(RED_CELL if red_cell is None else red_cell))
    shapes = [_shape_of(image) for image in images]
    widths = np.full(len(images), np.nan)
    for shape in set(shapes):
        alike = [place for place, of_image in enumerate(shapes) if of_image == shape]
        if len(alike) >= ALIKE:
            widths[alike] = red_cell_diameter_of([images[place] for place in alike], skip=skip)
    if np.isnan(widths).any():
        left = [image for image, width in zip(images, widths, strict=True) if np.isnan(width)]
        everywhere = red_cell_diameter_of(left, default=np.nan, skip=skip)
        widths[np.isnan(widths)] = RED_CELL if skip and np.isnan(everywhere) else everywhere
    if np.isnan(widths).any():
        return np.full(len(images), red_cell_of(images))
    return np.clip(widths, SMALLEST_RED_CELL, LARGEST_RED_CELL)


def _shape_of(image: str | Path | np.ndarray) -> tuple[int, ...]:
    """Height and width; of a file that cannot be opened, none."""
    try:
        return image.shape[:2] if isinstance(image, np.ndarray) else size_of(image)
    except UnreadableImage:
        return ()


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
    images: Iterable[str | Path | np.ndarray],
    n_images: int = 64,
    default: float = RED_CELL,
    skip: bool = False,
) -> float:
    """Estimate the diameter of the red cells of images of one magnification: the median, in pixels.

    `n_images` of them, spread evenly, are looked at; where too few red cells are seen, it is
    `default`. UnreadableImage is raised if a file is not a complete image, unless told to `skip`
    it.
    """
    estimates = list(_estimates(list(images), n_images, pixels_of, skip))
    return float(np.median(estimates)) if estimates else default


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
    usable = [
        estimate
        for estimate in _estimates(paths, n_photographs, read, skip=True)
        if SMALLEST_RED_CELL <= estimate <= LARGEST_RED_CELL
    ]
    return (float(np.median(usable)), len(usable)) if usable else (None, 0)


def _estimates(
    images: Sequence, n_images: int, read: Callable[[Any], np.ndarray], skip: bool
) -> Iterator[float]:
    """Estimate it of so many images, spread evenly, those that tell something."""
    for image in _spread(images, n_images):
        try:
            estimate = red_cell_diameter(read(image))
        except UnreadableImage:
            if not skip:
                raise
            continue
        if np.isfinite(estimate):
            yield estimate


def _spread(images: Sequence, n_images: int) -> list:
    """Choose so many, spread evenly from the first to the last."""
    places = np.linspace(0, len(images) - 1, min(n_images, len(images))).round().astype(int)
    return [images[place] for place in places]


def boxed_red_cell(boxes: pd.DataFrame) -> float:
    """Diameter of the red cells as people boxed them in photographs of one scale (pixels).

    The median over the photographs of the median side of boxes inside the frame; InvalidParameter
    is raised if there is none. For the table see `annotations.Annotations.boxes`.
    """
    red = sides_inside(boxes, boxes["width"], boxes["height"])
    if red.empty:
        raise InvalidParameter(
            "No red cell is boxed in the training photographs, from which to take the scale. "
            "Expected RBC boxes that do not touch the frame."
        )
    return float(red.groupby(boxes["photograph"]).median().median())


def sides_inside(boxes: pd.DataFrame, width: Any, height: Any) -> pd.Series:
    """Mean of width and height of the boxes of red cells that do not touch the frame, in pixels.

    `width` and `height` are the photograph's, a number or one for each box.
    """
    x_min, y_min, x_max, y_max = boxes[BOX].to_numpy(float).T
    inside = (boxes["kind"] == "RBC") & (x_min > 2) & (y_min > 2)
    inside &= (x_max < width - 2) & (y_max < height - 2)
    return pd.Series((x_max - x_min + y_max - y_min) / 2, boxes.index)[inside]


def red_cell_diameter(image: np.ndarray) -> float:
    """Estimate the diameter of the red cells of one RGB image of any size, in pixels.

    The smear is told from the background by Otsu's threshold in green, which haemoglobin absorbs,
    nuclei left out and pale centres filled; the distance to the nearest background peaks at the
    radius of each cell. How wide the largest nucleus is tells where to begin, and is taken itself,
    divided by `NUCLEUS`, where no red cells are seen that agree with it to two thirds: one cell cut
    out alone has a scale, too. NaN where neither nucleus nor three red cells are seen.
    """
    white = whiten(image)
    # As many pixels as the published images have; where a field is so wide that its cells are lost
    # then, twice and four times as many each way.
    usual = float(np.sqrt(320 * 240 / (image.shape[0] * image.shape[1])))
    scales = [usual, 2 * usual, 4 * usual]
    widths = (largest_width(resample(white, scale)) / scale for scale in scales)
    expected = next(filter(np.isfinite, widths), np.nan) / NUCLEUS
    if np.isnan(expected):
        estimates = ((_diameter(white, RED_CELL / scale), scale) for scale in scales)
        first, scale = next((pair for pair in estimates if np.isfinite(pair[0])), (np.nan, usual))
        # If red cells come out much larger or smaller, once more at the scale that was found.
        is_near = 0.8 < first * scale / RED_CELL < 1.25
        return first if is_near else _diameter(white, first)
    for factor in (1.0, 0.7, 1.45):
        first = _diameter(white, expected * factor)
        second = _diameter(white, first)
        if abs(np.log(second / first)) < 0.25 and 0.6 < second / expected < 2.2:
            return second
    return expected


NUCLEUS = 1.35
"""Width of a disc as large as a white cell's nucleus, its bays filled, in diameters of a red cell:
the median over three laboratories; of single types it lies between 1.2 and 1.8."""

_SHARE, _RADIUS_PER_DIAMETER = 0.65, 0.41
"""Peaks of the distance to the nearest background are radii of red cells, less what the blurred
edge takes off and what clumps and halves add. Large ones count more, by their area; so counted,
the peak below which that share of them lies is 0.41 of the annotated diameter."""


def _diameter(white: np.ndarray, expected: float) -> float:
    """Estimate it, in pixels of a white-balanced image, where about so much is expected."""
    # Of cells a few pixels wide, as noise pretends, nothing could be told but at a huge scale.
    if not expected >= SMALLEST_RED_CELL / 2:
        return float("nan")
    scaled = resample(white, RED_CELL / expected)
    nuclei = _grown(chromatin(scaled, blur=1.0), 2)
    green = absorbances(cv2.GaussianBlur(scaled, (0, 0), 1)[..., 1])
    green -= absorbance(WHITE)
    if (~nuclei).sum() < 200:
        return float("nan")
    levels = np.clip(green[~nuclei] / 0.8 * 255, 0, 255).astype(np.uint8).reshape(1, -1)
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    stained = ((green > max(otsu / 255 * 0.8, 0.04)) & ~nuclei).astype(np.uint8)
    stained = cv2.morphologyEx(stained, cv2.MORPH_CLOSE, np.ones((5, 5))) * ~nuclei
    _fill_pale_centres(stained, nuclei)
    stained = cv2.morphologyEx(stained, cv2.MORPH_OPEN, np.ones((3, 3)))
    radius = cv2.distanceTransform(np.pad(stained, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    radius = cv2.GaussianBlur(radius, (0, 0), 1)
    summits = (radius == cv2.dilate(radius, np.ones((21, 21)))) & (radius > 7)
    radii = np.sort(radius[summits & ~_grown(nuclei, 4)])
    if len(radii) < 3:
        return float("nan")
    share = np.cumsum(radii**2) / np.sum(radii**2)
    typical = float(radii[np.searchsorted(share, _SHARE)])
    return typical / _RADIUS_PER_DIAMETER * expected / RED_CELL


def _fill_pale_centres(stained: np.ndarray, nuclei: np.ndarray) -> None:
    """Fill, in place, holes that are round and smaller than a red cell, or small."""
    contours, hierarchy = cv2.findContours(stained, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0] if contours else (), strict=True):
        area, around = cv2.contourArea(contour), cv2.arcLength(contour, True)
        if parent < 0 or area >= 1300 or (area >= 200 and 4 * np.pi * area < 0.6 * around**2):
            continue
        left, top, width, height = cv2.boundingRect(contour)
        box = np.s_[top : top + height, left : left + width]
        hole = np.zeros((height, width), np.uint8)
        cv2.drawContours(hole, [contour], -1, 1, -1, offset=(-left, -top))
        if not (nuclei[box] & (hole > 0)).any():
            stained[box] |= hole


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Widen a mask by so many pixels."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1,) * 2)) > 0


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
