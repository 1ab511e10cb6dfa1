"""Crops around white cells, alike in scale and in light whatever slide they come from.

The side of a crop is counted in red cells, so that magnification drops out and the size of the
white cell, which tells a lymphocyte from a monocyte, stays. The background of the smear is made
white, so that the lamp and the camera's white balance drop out and the stain stays.
"""

from pathlib import Path

import cv2
import numpy as np

from wbc_helpers import white_cells
from wbc_helpers.images import is_fill, read_image
from wbc_helpers.white_cells import RED_CELL, WhiteCell

SIDE = 3.1
"""Side of a crop in diameters of a red cell, about 23 µm: a monocyte and its neighbours."""

WHITE = 235
"""Grey level to which the background is brought, in 0–255 units."""

_USUAL_BACKGROUND = (220.0, 215.0, 225.0)  # where an image shows none
_FEWEST = 20  # pixels whose median is worth anything


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
    """Make the background white and give black fill the same colour.

    Each channel is multiplied by one number, as a colour filter in front of the lamp would do: the
    absorbance of the stain, which carries the cell type, is left as it is.

    Parameters
    ----------
    image : ndarray, (height, width, 3) uint8
        RGB.

    Returns
    -------
    ndarray, (height, width, 3) uint8
        RGB, the background at `WHITE` in all channels.
    """
    gains = WHITE / np.maximum(background(image), 1)
    levels = np.clip(np.rint(np.outer(np.arange(256), gains)), 0, 255).astype(np.uint8)
    balanced = cv2.LUT(image, levels[:, np.newaxis])
    # JPEG speckles the smear along the fill's edge.
    fill = cv2.dilate(is_fill(image).astype(np.uint8), np.ones((7, 7)))
    balanced[fill > 0] = WHITE
    return balanced


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
