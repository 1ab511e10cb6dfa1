"""New views of a white cell, drawn from its photograph while the network trains.

A cell can lie in any direction, at either side of the glass, a little off the middle, cut by the
edge of the frame, out of focus, under another stain, lamp or camera. Each view is drawn from the
photograph itself, not from an image that was augmented before.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from wbc_helpers.crops import WHITE

MARGIN = 1.9
"""Side of a patch from which views are drawn, in sides of the view: room for a view that is turned,
zoomed out and shifted."""

SHARPNESS = 1.5
"""Pixels of a patch per pixel of a view, so that a view that is zoomed in is not blurred."""

ABSORBANCE = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
"""Of each grey level, to the base e (Beer and Lambert)."""


@dataclass(frozen=True)
class Views:
    """How far views of a cell may differ from its photograph.

    Attributes
    ----------
    zoom : float
        Magnification differs by up to exp(±zoom).
    shear : float
        Radians; the aspect ratio differs by as much.
    shift : float
        Standard deviation of the cell's place, in sides of the view.
    cut : float
        Part of the views in which the edge of a frame cuts something off, 0–1.
    stain : float
        How strongly the stain's colours, its strength and the background's tint may differ; 0
        leaves them alone. Most views differ little and some much, so that the stain at hand is
        learned best and others are known.
    blur : float
        Part of the views that are out of focus, 0–1.
    noise : float
        Largest standard deviation of the camera's noise, in grey levels.
    """

    zoom: float = 0.15
    shear: float = 0.2
    shift: float = 0.04
    cut: float = 0.15
    stain: float = 0.3
    blur: float = 0.3
    noise: float = 6.0


def patch_size(size: int) -> int:
    """Side, in pixels, of the patch from which views of `size` pixels are drawn."""
    return round(size * MARGIN * SHARPNESS)


def draw(patch: np.ndarray, size: int, views: Views, rng: np.random.Generator) -> np.ndarray:
    """Draw one view of a white cell.

    Parameters
    ----------
    patch : ndarray, (side, side, 3) uint8
        RGB, balanced, the cell in its middle, see `patch_size`.
    size : int
        Side of the view in pixels.
    views : Views
        What is drawn from.
    rng : numpy.random.Generator
        The same state gives the same view.

    Returns
    -------
    ndarray, (size, size, 3) uint8
    """
    view = _warp(patch, size, views, rng)
    if rng.random() < views.cut:
        view[_beyond_an_edge(size, rng)] = WHITE
    view = stain(view, views.stain * rng.random() ** 2, rng)
    if rng.random() < views.blur:
        view = cv2.GaussianBlur(view, (0, 0), rng.uniform(0.3, 1.3) * size / 64)
    spread = np.float32(rng.uniform(0, views.noise))
    view = view + spread * rng.standard_normal(view.shape, dtype=np.float32)
    return np.clip(view, 0, 255).astype(np.uint8)


def _warp(patch: np.ndarray, size: int, views: Views, rng: np.random.Generator) -> np.ndarray:
    """Turn, flip, shear, zoom and shift: the map from patch to view."""
    angle = rng.uniform(0, 2 * np.pi)
    shear, aspect = rng.uniform(-views.shear, views.shear, 2)
    scale = np.exp(rng.uniform(-views.zoom, views.zoom)) / SHARPNESS
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    sheared = np.array(
        [[np.exp(aspect / 2), np.sin(shear)], [0, np.cos(shear) * np.exp(-aspect / 2)]]
    )
    flipped = np.diag([rng.choice([-1, 1]), 1])
    linear = scale * turned @ sheared @ flipped
    middle = (np.array(patch.shape[:2]) - 1) / 2
    offset = (size - 1) / 2 + rng.normal(0, views.shift, 2) * size - linear @ middle
    return cv2.warpAffine(
        patch, np.column_stack([linear, offset]), (size, size), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(WHITE,) * 3,
    )  # fmt: skip


def _beyond_an_edge(size: int, rng: np.random.Generator) -> np.ndarray:
    """Mark what lies beyond a straight edge that leaves at least the middle, (size, size) bool."""
    direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.5) * size
    along = np.arange(size) - (size - 1) / 2
    return np.add.outer(np.sin(direction) * along, np.cos(direction) * along) > distance


def stain(view: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Mix the channels' absorbances as another dye, lamp or camera would.

    Parameters
    ----------
    view : ndarray, (height, width, 3) uint8
        RGB.
    strength : float
        See `Views.stain`.
    rng : numpy.random.Generator
        The same state gives the same colours.

    Returns
    -------
    ndarray, (height, width, 3) float32
        In 0–255 units.
    """
    if not strength:
        return view.astype(np.float32)
    gains = rng.normal(0, 0.175 * strength, 3) + rng.normal(0, 0.3 * strength)
    mixing = np.diag(np.exp(gains)) + rng.normal(0, 0.12 * strength, (3, 3))
    tint = np.abs(rng.normal(0, 0.12 * strength, 3)) * (rng.random() < 0.7)
    absorbance = ABSORBANCE[view] @ mixing.astype(np.float32) + tint.astype(np.float32)
    return np.clip(256 * np.exp(-absorbance) - 1, 0, 255)
