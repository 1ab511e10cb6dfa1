"""Images made of photographs by maps that are known."""

import numpy as np
from PIL import Image

from wbc_helpers.data import sample

CORNERS = np.array([[0, 0, 1], [319, 0, 1], [0, 239, 1], [319, 239, 1]]).T


def corner_error(found, true) -> float:
    """Farthest distance, in pixels, between where two maps put a corner of a photograph."""
    difference = np.asarray(found, float).reshape(2, 3) - np.asarray(true, float).reshape(2, 3)
    return np.linalg.norm(difference @ CORNERS, axis=0).max()


def augmented(photograph: np.ndarray, affine: np.ndarray) -> np.ndarray:
    picture = sample.augment(Image.fromarray(photograph), np.vstack([affine[:2], [0, 0, 1]]))
    return np.asarray(picture)


MAPS = {
    "as it is": np.eye(3),
    "left to right": np.array([[-1, 0, 319], [0, 1, 0], [0, 0, 1.0]]),
    "top to bottom": np.array([[1, 0, 0], [0, -1, 239], [0, 0, 1.0]]),
    "both ways": np.array([[-1, 0, 319], [0, -1, 239], [0, 0, 1.0]]),
    "turned, shifted, sheared": np.array([[0.95, 0.25, -30.5], [-0.3, 0.98, 61.25], [0, 0, 1]]),
    "and mirrored": np.array([[-0.95, 0.25, 280.0], [0.3, 0.98, -20.0], [0, 0, 1]]),
}


def crop(field: np.ndarray, x: int, y: int) -> np.ndarray:
    return np.ascontiguousarray(field[y : y + 240, x : x + 320])
