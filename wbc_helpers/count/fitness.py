"""Whether a photograph is fit to be counted, and how wide its own red cells are.

A photograph is judged by its pixels at the scale of its red cells, and by what was counted in it.
The thresholds lie between what photographs of four laboratories reach and what the same ones do
when they are blurred, over-exposed and so on, see `benchmarks/fitness.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd

from wbc_helpers.pixels import stain
from wbc_helpers.pixels.images import resize, scaled_size
from wbc_helpers.pixels.scale import (
    LARGEST_RED_CELL,
    RED_CELL,
    SMALLEST_RED_CELL,
    red_cell_diameter,
    sides_inside,
)

if TYPE_CHECKING:
    from wbc_helpers.count.detector import SmearReader

NO_SMEAR, NO_CELL = "no smear", "no cell"
OUT_OF_FOCUS, OVER_EXPOSED, UNDER_EXPOSED = "out of focus", "over-exposed", "under-exposed"
TOO_SMALL = "magnification too low for cell types"
WRONG_WIDTH = "red cells of another width than given"

ADVICE = {
    NO_SMEAR: "Its colours are not those of stained blood.",
    NO_CELL: "No cell was found: an empty field, or a stain that the network does not know.",
    OUT_OF_FOCUS: "Cells run into each other, and chromatin is not seen. Focus and take it again.",
    OVER_EXPOSED: "Red cells are burnt out to white. Take it again with less light.",
    UNDER_EXPOSED: "Too few grey levels are left to tell cells apart. Take it with more light.",
    WRONG_WIDTH: "Leave the width of red cells out, or measure one.",
    TOO_SMALL: "Cells are counted, white cells are not named. Take it with a stronger objective.",
}
"""What each reason means, and what to do."""

SMALLEST_TO_NAME = 24
"""Pixels of a red cell's width below which white cells are not named."""


@dataclass(frozen=True)
class Looks:
    """What is measured of a photograph; each but `brightness` does not hang on its magnification.

    Attributes
    ----------
    brightness : float
        Of the background's brightest channel, 0–255: nine tenths of the pixels are darker.
    burnt, burnt_cells : float
        Part of all pixels that are white beyond the camera's range; part of the stained ones in
        which at least one channel is.
    contrast : float
        Of the strongest structures: difference of absorbance (base e) within 0.3 red cells.
    edge : float
        Width of the steepest edges, in 52nds of a red cell.
    foreign, colour : float
        Of what absorbs light, the part in colours that no blood stain has (it would look green,
        yellow or brown), 0–1; and how far it is from grey, 0 up.
    density : float
        Absorbance (base e) of what is stained: median.
    """

    brightness: float
    burnt: float
    burnt_cells: float
    contrast: float
    edge: float
    foreign: float
    colour: float
    density: float


def measure(photograph: np.ndarray, red_cell: float) -> Looks:
    """Measure a photograph, RGB uint8, whose red cells are `red_cell` pixels wide.

    Of a wide field, its middle: as much as 12 by 9 red cells.
    """
    height, width = photograph.shape[:2]
    down, across = (round(min(n * red_cell, side)) for n, side in ((9, height), (12, width)))
    top, left = (height - down) // 2, (width - across) // 2
    middle = photograph[top : top + down, left : left + across]
    scale = min(RED_CELL / red_cell, 1.5)
    image = resize(middle, scaled_size(middle.shape, scale))
    contrast, edge = _sharpness(image[..., 1])
    # Colours need half the resolution.
    image = np.ascontiguousarray(cv2.GaussianBlur(image, (0, 0), 1)[::2, ::2])
    light = stain.absorbance(stain.background(image))
    channels = cv2.split(image)
    red, green, blue = (
        stain.absorbances(levels) - light[place] for place, levels in enumerate(channels)
    )
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    levels = np.clip(green * 170, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(levels.reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    stained = most > np.clip(otsu / 170, 0.04, 0.12)
    weights = np.where(stained, np.clip(most, 0, 1), 0)
    weights /= max(float(weights.sum()), 1e-6)
    margin = 0.1 * most + 0.03
    is_foreign = blue > np.maximum(red, green) + margin
    is_foreign |= green < np.minimum(red, blue) - margin
    lightest = np.maximum(np.maximum(channels[0], channels[1]), channels[2])
    darkest = np.minimum(np.minimum(channels[0], channels[1]), channels[2])
    return Looks(
        brightness=float(np.percentile(lightest, 90)),
        burnt=float((darkest >= _BURNT).mean()),
        burnt_cells=float((lightest[stained] >= _BURNT).mean()) if stained.any() else 0.0,
        contrast=contrast,
        edge=edge * RED_CELL / (red_cell * scale),
        foreign=float(weights[is_foreign].sum()),
        colour=float((weights * (most - least) / np.maximum(most, 1e-6)).sum()),
        density=float(np.median(most[stained])) if stained.any() else 0.0,
    )


def _sharpness(levels: np.ndarray) -> tuple[float, float]:
    """Contrast of the strongest structures, and width in pixels of the steepest edges."""
    absorbed = cv2.GaussianBlur(stain.absorbances(levels), (0, 0), 0.7)
    slope = np.hypot(
        cv2.Sobel(absorbed, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(absorbed, cv2.CV_32F, 0, 1, scale=1 / 8),
    )
    window = np.ones((15, 15))
    contrast = cv2.dilate(absorbed, window) - cv2.erode(absorbed, window)
    steep = slope >= np.percentile(slope, 98)
    edge = float(np.median(contrast[steep] / np.maximum(slope[steep], 1e-6)))
    return float(np.percentile(contrast, 98)), edge


_BURNT = 253  # grey level; JPEG leaves what is burnt out not quite at 255


def judge(looks: Looks) -> list[str]:
    """Say why a photograph that looks like this is not worth reading: at most one reason.

    Reasons are keys of `ADVICE`.
    """
    if looks.brightness < 20:
        return [UNDER_EXPOSED]
    if looks.contrast < 0.06:
        return [OVER_EXPOSED if looks.burnt > 0.5 else NO_CELL]
    if looks.colour < 0.25:
        return [NO_CELL if looks.edge > _BLURRED else NO_SMEAR]
    return [NO_SMEAR] if looks.foreign > 0.6 or looks.density > 1.5 else []


def judge_reading(looks: Looks, red_cell: float, boxes: pd.DataFrame) -> list[str]:
    """Say why a photograph that was read is not fit to be counted, or its cells not to be named.

    `red_cell` is the width of its red cells in pixels, `boxes` what `SmearReader.read` makes of it.
    Returns reasons, keys of `ADVICE`; of a fit photograph none.
    """
    reasons = []
    if looks.burnt > 0.2 and looks.burnt_cells > 0.2:
        reasons.append(OVER_EXPOSED)
    if looks.brightness < 60:
        reasons.append(UNDER_EXPOSED)
    if looks.edge > _BLURRED and red_cell >= SMALLEST_TO_NAME:
        reasons.append(OUT_OF_FOCUS)
    if not (boxes["counted"] & boxes["kind"].isin(["RBC", "WBC"])).any():
        reasons.append(NO_CELL)
    if red_cell < SMALLEST_TO_NAME and not reasons:
        reasons.append(TOO_SMALL)
    return reasons


_BLURRED = 11.0  # 52nds of a red cell; in photographs of four laboratories edges reach 10


def is_fit(reasons: Sequence[str]) -> bool:
    """Tell whether cells may be counted in spite of these reasons."""
    return not set(reasons) - {TOO_SMALL}


# The surround of an eyepiece


def fill_surround(photograph: np.ndarray) -> tuple[np.ndarray, float]:
    """Give the dark surround of an eyepiece's round field the colour of the smear's background.

    So it has no part in light, stain and scale. Returns RGB like the photograph, and the part of
    the photograph that was filled, 0–1; where there is no surround, the photograph itself and 0.
    """
    height, width = photograph.shape[:2]
    scale = min(240 / max(height, width), 1.0)
    small = resize(photograph, scaled_size(photograph.shape, scale))
    brightness = cv2.medianBlur(np.ascontiguousarray(small.max(axis=2)), 5)
    dark = (brightness < 0.5 * np.percentile(brightness, 95)).astype(np.uint8)
    _, parts = cv2.connectedComponents(dark)
    corners = {int(parts[y, x]) for y in (0, -1) for x in (0, -1)} - {0}
    n_corners = sum(int(parts[y, x]) in corners for y in (0, -1) for x in (0, -1))
    surround = np.isin(parts, list(corners))
    if n_corners < 2 or not 0.03 < surround.mean() < 0.95:
        return photograph, 0.0
    lit = _largest(~surround)
    contours, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(max(contours, key=cv2.contourArea))
    whole = cv2.fillConvexPoly(np.zeros_like(lit), hull, 1)
    # A field of view is round; what is dark in two corners of a smear is not.
    if lit.sum() < 0.93 * whole.sum():
        return photograph, 0.0
    # Its rim is blurred.
    reach = max(round(0.02 * np.sqrt(whole.sum())), 2)
    inside = np.pad(whole, 1, mode="edge")
    inside = cv2.erode(inside, np.ones((2 * reach + 1,) * 2))[1:-1, 1:-1]
    mask = resize(inside * 255, (height, width)) > 127
    filled = photograph.copy()
    filled[~mask] = stain.background(photograph[mask][np.newaxis])
    return filled, float(1 - mask.mean())


def _largest(mask: np.ndarray) -> np.ndarray:
    """Keep the largest part of a mask and fill its holes: uint8."""
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    filled = np.zeros(mask.shape, np.uint8)
    return cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, -1)


# A photograph's own scale


FEWEST_TO_MEASURE = 5
"""Red cells inside the frame, whose boxes tell their width."""

AGREES, CONTRADICTS = 0.15, 0.29
"""Differences of the logarithm of widths: one as small is within what boxes tell; one larger, by a
third, is another magnification."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What was counted in a photograph, and at which scale.

    Attributes
    ----------
    boxes : DataFrame
        See `SmearReader.read`.
    red_cell : float
        Diameter of the red cells, in pixels, at which it was read.
    measured : float
        The same as the boxes of its red cells tell it; NaN where they are too few.
    """

    boxes: pd.DataFrame
    red_cell: float
    measured: float


def read_at_own_scale(
    reader: "SmearReader", photograph: np.ndarray, boxes: pd.DataFrame, red_cell: float
) -> Reading:
    """Read a photograph again, as often as it takes, until its boxes agree with the scale.

    `boxes` are those read at `red_cell` pixels. From 0.4 to 2.5 times the true width the boxes are
    nearer to it than what they were read at; where they are too few to tell, another beginning is
    made where `scale.red_cell_diameter` contradicts. Of the readings that cover at least half as
    much of the photograph with red cells as any does, that is taken which agrees best with its
    scale.
    """
    size = photograph.shape[:2]
    readings = [Reading(boxes, red_cell, measured_red_cell(boxes, size))]
    following = readings[0].measured
    if np.isnan(following):
        following = red_cell_diameter(photograph)
        if not abs(np.log(following / red_cell)) > CONTRADICTS:
            return readings[0]
    for _ in range(_MOST_READINGS):
        at = readings[-1].red_cell
        if not SMALLEST_RED_CELL <= following <= min(LARGEST_RED_CELL, *size):
            break
        if abs(np.log(following / at)) <= AGREES:
            break
        (boxes,) = reader.read([photograph], following)
        readings.append(Reading(boxes, following, measured_red_cell(boxes, size)))
        following = readings[-1].measured
    if len(readings) == 1:
        return readings[0]
    least = 0.5 * max(_evidence(reading.boxes) for reading in readings)
    likely = [reading for reading in readings if _evidence(reading.boxes) >= least]
    return min(likely, key=_disagreement)


def _disagreement(reading: Reading) -> float:
    """How far boxes differ in width from the scale that they were read at, as a logarithm."""
    disagreement = abs(np.log(reading.measured / reading.red_cell))
    return float(disagreement) if np.isfinite(disagreement) else np.inf


_MOST_READINGS = 5


def first_guess(photograph: np.ndarray) -> float:
    """Guess the width of red cells, in pixels, where no other photograph tells it.

    As `scale.red_cell_diameter` estimates it; failing that, as in a field of 640 × 480 pixels
    under an immersion objective.
    """
    estimate = red_cell_diameter(photograph)
    if SMALLEST_RED_CELL <= estimate <= min(LARGEST_RED_CELL, *photograph.shape[:2]):
        return estimate
    return max(min(photograph.shape[:2]) / 4.6, SMALLEST_RED_CELL)


def measured_red_cell(boxes: pd.DataFrame, size: Sequence[int]) -> float:
    """Width of the red cells by the boxes inside of a photograph of (height, width): the median.

    In pixels; NaN where there are fewer than `FEWEST_TO_MEASURE`.
    """
    red = sides_inside(boxes, size[1], size[0])
    return float(red.median()) if len(red) >= FEWEST_TO_MEASURE else float("nan")


def _evidence(boxes: pd.DataFrame) -> float:
    """Area of the red cells' boxes, each as sure as it is."""
    red = boxes[boxes["kind"] == "RBC"]
    area = (red["x_max"] - red["x_min"]) * (red["y_max"] - red["y_min"])
    return float((area * red["score"]).sum())
