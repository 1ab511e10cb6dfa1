"""How many pixels wide the red cells of an image are: the scale of everything else."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from wbc_helpers.pixels.images import is_fill, pixels_of, resample

RED_CELL = 52.0
"""Diameter of a red cell, in pixels, at the scale at which nuclei are looked for. In the 364
annotated photographs, at half size, the boxes of red cells inside the frame measure 52.0 (median
of the photographs' medians, standard deviation 3.1)."""

_TOUCH_PERCENTILE, _RADIUS_PER_DIAMETER = 80, 0.395
"""Peaks of the distance to the nearest background are radii of red cells, less what the blurred
edge takes off and what clumps and halves add. On the 364 photographs their 80th percentile is
0.395 of the annotated diameter (standard deviation 0.049; of their median it is 0.074)."""


# The red cells around, whose size is the scale


def red_cell_diameter(image: np.ndarray) -> float:
    """Estimate how many pixels wide the red cells of an image are.

    The smear is told from the background by Otsu's threshold in green, which haemoglobin absorbs;
    pale centres are filled, nuclei left out; the distance to the nearest background peaks at the
    radius of each cell.

    Parameters
    ----------
    image : ndarray, (height, width, 3) uint8
        RGB, of any size.

    Returns
    -------
    float
        Pixels; NaN where fewer than three red cells are seen. On single photographs it errs by
        12 % (standard deviation): take the median of several, see `red_cell_diameter_of`.
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


def _diameter(image: np.ndarray) -> float:
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
    return cv2.dilate(chromatin.astype(np.uint8), np.ones((9, 9))) > 0


def red_cell_diameter_of(
    images: Iterable[str | Path | np.ndarray], n_images: int = 64, default: float = RED_CELL
) -> float:
    """Estimate the diameter of the red cells of many images of one microscope.

    Parameters
    ----------
    images : iterable of path, or of (height, width, 3) ndarray of uint8
        All taken at one magnification.
    n_images : int
        So many of them, spread evenly, are looked at.
    default : float
        What to return where too few red cells are seen.

    Returns
    -------
    float
        The median over the images, in pixels.

    Raises
    ------
    UnreadableImage
        If a file is not a complete image.
    """
    images = list(images)
    chosen = np.unique(np.linspace(0, len(images) - 1, n_images).round().astype(int))
    estimates = [red_cell_diameter(pixels_of(images[i])) for i in chosen if len(images)]
    known = [estimate for estimate in estimates if np.isfinite(estimate)]
    return float(np.median(known)) if known else default
