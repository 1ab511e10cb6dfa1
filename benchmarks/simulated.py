"""Laboratories that a network has never seen, simulated: other stain, lamp, focus, magnification.

A network judged on slides of its own laboratory alone says little about others. Until slides of
others are at hand, these fixed changes of the images say how far its answers hang on the colours
and the scale that it was trained on. They are no substitute for real slides: a simulated stain
colours every structure alike, a real one does not.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from wbc_helpers.pixels.images import resize, scaled_size
from wbc_helpers.pixels.stain import absorbances, is_fill


@dataclass(frozen=True)
class Laboratory:
    """How a laboratory's images differ from those at hand.

    Attributes
    ----------
    name : str
        For tables and figures.
    mixing : tuple of tuple of float
        3 × 3: absorbance of red, green and blue here (columns) by those at hand (rows), to the
        base e.
    tint : (red, green, blue)
        Absorbance of the empty background, on top.
    blur : float
        Standard deviation of the focus, in pixels of an image 320 pixels wide.
    magnification : float
        Pixels here by pixels at hand.
    """

    name: str
    mixing: tuple[tuple[float, float, float], ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    tint: tuple[float, float, float] = (0, 0, 0)
    blur: float = 0.0
    magnification: float = 1.0


LABORATORIES = (
    Laboratory("pale stain", ((0.65, 0, 0), (0, 0.65, 0), (0, 0, 0.65))),
    Laboratory("strong stain", ((1.4, 0, 0), (0, 1.4, 0), (0, 0, 1.4))),
    Laboratory(
        "bluish stain", ((1.25, 0.05, 0), (0, 1, -0.05), (0, 0.05, 0.8)), tint=(0.15, 0.1, 0)
    ),
    Laboratory("pinkish stain", ((0.75, 0, 0.05), (0, 1.1, 0), (0, 0, 1.15)), tint=(0, 0.1, 0.08)),
    Laboratory("yellow lamp", tint=(0.02, 0.1, 0.4)),
    Laboratory("out of focus", blur=1.6),
    Laboratory("lower magnification", magnification=0.6),
    Laboratory("higher magnification", magnification=1.6),
)
"""Chosen before any network was judged by them, and never drawn from in training, where stains are
random around the one at hand. They were looked at while the `compact` recipe was made: what it
scores on them is no test."""


def simulate(image: np.ndarray, laboratory: Laboratory) -> np.ndarray:
    """Show an image as another laboratory's camera would have taken it.

    Parameters
    ----------
    image : ndarray, (height, width, 3) uint8
        RGB; black fill stays black.
    laboratory : Laboratory
        One of `LABORATORIES`, or your own.

    Returns
    -------
    ndarray, (height, width, 3) uint8
        `magnification` times as high and as wide.
    """
    mixed = absorbances(image) @ np.float32(laboratory.mixing) + np.float32(laboratory.tint)
    taken = np.rint(np.clip(256 * np.exp(-mixed) - 1, 0, 255)).astype(np.uint8)
    if laboratory.blur:
        taken = cv2.GaussianBlur(taken, (0, 0), laboratory.blur * image.shape[1] / 320)
    taken[is_fill(image)] = 0
    if laboratory.magnification == 1:
        return taken
    return resize(taken, scaled_size(image.shape, laboratory.magnification))
