"""Crops around white cells, alike in scale, light and stain whatever slide they come from.

The red cells around are the reference. The side of a crop is counted in their diameters, so that
magnification drops out and the size of the white cell, which tells a lymphocyte from a monocyte,
stays. The background is made white, so that the lamp and the camera's white balance drop out; then
each channel's absorbance is scaled so that red cells have their usual one, and the stain drops out,
too, but for how nucleus and granules differ from red cells, which tells an eosinophil.
"""

from pathlib import Path

import cv2
import numpy as np

from wbc_helpers import white_cells
from wbc_helpers.images import is_fill, read_image
from wbc_helpers.white_cells import RED_CELL, WhiteCell

VERSION = 1
"""Of how crops are made. To be raised with any change of their pixels, so that crops that were kept
on disk are made anew."""

SIDE = 3.1
"""Side of a crop in diameters of a red cell, about 23 µm: a monocyte and its neighbours."""

WHITE = 235
"""Grey level to which the background is brought, in 0–255 units."""

RED_CELL_ABSORBANCE = (0.098, 0.238, 0.201)
"""Of red, green and blue light, to the base e, beyond that of the background: the median over the
366 photographs of the known data set, whose standard deviations are 0.019, 0.031 and 0.041. No
label has a part in it."""

_ABSORBANCE = -np.log((np.arange(256) + 1) / 256)  # of each grey level, to the base e
_GAINS = (0.5, 2.0)  # beyond them, what was taken for red cells is something else
_USUAL_BACKGROUND = (220.0, 215.0, 225.0)  # where an image shows none
_FEWEST, _FEWEST_OF_RED_CELLS = 20, 150  # pixels whose median is worth anything


def background(image: np.ndarray) -> np.ndarray:
    """Estimate the colour of the empty background of a smear.

    Parameters
    ----------
    image : ndarray, (height, width, 3) uint8
        RGB; black fill is left out.

    Returns
    -------
    ndarray, (3,) float32
        RGB in 0–255 units: the median of what Otsu's threshold in green calls bright.
    """
    # Every third pixel of every third row tells as much.
    sampled = np.ascontiguousarray(image[::3, ::3])
    smear = sampled[~is_fill(sampled)]
    if len(smear) < _FEWEST:
        return np.float32(_USUAL_BACKGROUND)
    green = np.ascontiguousarray(smear[:, 1])
    otsu, _ = cv2.threshold(green.reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = smear[green > otsu]
    if len(bright) < _FEWEST:
        return np.float32(_USUAL_BACKGROUND)
    return np.median(bright, axis=0).astype(np.float32)


def balance(image: np.ndarray) -> np.ndarray:
    """Bring light and stain to a common standard, and give black fill the background's colour.

    Each channel's light is multiplied by one number, as a colour filter in front of the lamp would
    do, then its absorbance by another, as a longer or shorter bath in the dye would do.

    Parameters
    ----------
    image : ndarray, (height, width, 3) uint8
        RGB.

    Returns
    -------
    ndarray, (height, width, 3) uint8
        RGB, the background at `WHITE` in all channels, red cells of `RED_CELL_ABSORBANCE`. Where
        no red cells are seen, the stain is left as it is.
    """
    # Transmitted light, as a part of what the background transmits.
    light = np.outer(np.arange(256) + 1, 1 / (background(image) + 1))
    levels = _levels(light)
    seen = _red_cells(cv2.LUT(np.ascontiguousarray(image[::2, ::2]), levels))
    if len(seen):
        found = np.median(_ABSORBANCE[seen], axis=0) - _ABSORBANCE[WHITE]
        gains = np.clip(RED_CELL_ABSORBANCE / np.maximum(found, 0.02), *_GAINS)
        levels = _levels(light**gains)
    balanced = cv2.LUT(image, levels)
    # JPEG speckles the smear along the fill's edge.
    fill = cv2.dilate(is_fill(image).astype(np.uint8), np.ones((7, 7)))
    balanced[fill > 0] = WHITE
    return balanced


def _levels(light: np.ndarray) -> np.ndarray:
    """Table from the grey levels of an image to balanced ones, for `cv2.LUT`."""
    levels = np.clip(np.rint((WHITE + 1) * light - 1), 0, 255).astype(np.uint8)
    return levels[:, np.newaxis]


def _red_cells(balanced: np.ndarray) -> np.ndarray:
    """Grey levels of the pixels of red cells, (n, 3) uint8; none where they are too few."""
    blurred = cv2.GaussianBlur(balanced, (0, 0), 1)
    red, green, blue = cv2.split(blurred)
    smear = ~is_fill(balanced)
    # Red cells are redder than blue, as a rule. Under another stain it takes a second look, at what
    # is not a nucleus, where blue far exceeds green and which may draw the threshold to itself.
    reddish = ~_grown(cv2.add(blue, 5) > red)
    no_nucleus = smear & ~_grown(cv2.subtract(blue, green) > 30)
    for compared, allowed in ((smear, smear & reddish), (no_nucleus, no_nucleus)):
        if allowed.sum() < _FEWEST_OF_RED_CELLS:
            continue
        levels = green[compared].reshape(1, -1)
        otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        seen = blurred[allowed & (green <= otsu) & (green < WHITE - 5)]
        if len(seen) >= _FEWEST_OF_RED_CELLS:
            return seen
    return blurred[:0, 0]


def _grown(mask: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0


def cut_out(
    image: np.ndarray, cell: WhiteCell, size: int, red_cell: float = RED_CELL, side: float = SIDE
) -> np.ndarray:
    """Cut a square around a white cell out of a balanced image.

    Parameters
    ----------
    image : ndarray, (height, width, 3) uint8
        RGB, see `balance`.
    cell : WhiteCell
        Its centre becomes that of the crop.
    size : int
        Pixels of the crop's side.
    red_cell : float
        Diameter of the image's red cells in pixels.
    side : float
        Side of the crop in diameters of a red cell.

    Returns
    -------
    ndarray, (size, size, 3) uint8
        What lies beyond the image's edge is background.
    """
    scale = size / (side * red_cell)
    height, width = image.shape[:2]
    shape = (max(round(width * scale), 1), max(round(height * scale), 1))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resampled = cv2.resize(image, shape, interpolation=interpolation)
    x = (cell.x + 0.5) * shape[0] / width - 0.5
    y = (cell.y + 0.5) * shape[1] / height - 0.5
    moved = np.float32([[1, 0, (size - 1) / 2 - x], [0, 1, (size - 1) / 2 - y]])
    return cv2.warpAffine(
        resampled, moved, (size, size), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(WHITE,) * 3,
    )  # fmt: skip


def read_crop(
    path: str | Path, size: tuple[int, int], red_cell: float = RED_CELL, side: float = SIDE
) -> np.ndarray:
    """Read an image and cut its white cell out: from file to what the network sees.

    Parameters
    ----------
    path : path
        An image that shows one white cell, at least in part; of several the largest is taken.
    size : (height, width)
        Pixels of the crop, both alike.
    red_cell, side : float
        See `cut_out`.

    Returns
    -------
    ndarray, (height, width, 3) uint8

    Raises
    ------
    UnreadableImage
        See `images.read_image`.
    """
    image = read_image(path)
    cell, _ = white_cells.locate_one(image, red_cell)
    return cut_out(balance(image), cell, size[0], red_cell, side)
