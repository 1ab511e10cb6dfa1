"""New views drawn while a network trains: of a white cell, and of a whole smear with its boxes.

A cell can lie in any direction, at either side of the glass, a little off the middle, cut by the
edge of the frame, out of focus, under another stain, lamp or camera. Each view is drawn from the
photograph itself, not from an image that was augmented before. Of a smear only what leaves the
edges of boxes upright is drawn, eight ways of lying on the stage among it, so that boxes stay as
exact as the hand that drew them.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from wbc_helpers.pixels.images import warp
from wbc_helpers.pixels.stain import WHITE, transfer_stain, vary_stain

MARGIN = 1.9
"""Side of a patch from which views are drawn, in sides of the view: room for a view that is turned,
zoomed out and shifted."""

SHARPNESS = 1.5
"""Pixels of a patch per pixel of a view, so that a view that is zoomed in is not blurred."""


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
    most_blur : float
        Standard deviation of the strongest blur, in 64ths of the view's side.
    sharpen : float
        Part of the views that are sharpened instead, as cameras do, 0–1.
    recolor : float
        Part of the views whose hue is turned, and of those whose saturation changes, 0–1; five
        eighths as many lose their colour altogether.
    transfer : float
        Part of the views that take on the stain of another cell, 0–1.
    sharpness : float
        Pixels of a patch per pixel of a view.
    """

    zoom: float = 0.15
    shear: float = 0.2
    shift: float = 0.04
    cut: float = 0.15
    stain: float = 0.3
    blur: float = 0.3
    noise: float = 6.0
    most_blur: float = 1.3
    sharpen: float = 0.0
    recolor: float = 0.0
    transfer: float = 0.0
    sharpness: float = SHARPNESS


def patch_size(size: int, sharpness: float = SHARPNESS) -> int:
    """Side, in pixels, of the patch from which views of `size` pixels are drawn."""
    return round(size * MARGIN * sharpness)


def draw(
    patch: np.ndarray,
    size: int,
    views: Views,
    rng: np.random.Generator,
    donor: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Draw one view of a white cell, (size, size, 3) uint8.

    The patch is RGB, balanced, the cell in its middle, of the side that `patch_size` tells;
    `donor`, see `stain.statistics`, is the cell whose colours are transferred. The same state of
    `rng` gives the same view.

    Examples
    --------
    >>> patch = np.full((patch_size(64),) * 2 + (3,), WHITE, np.uint8)
    >>> draw(patch, 64, Views(), np.random.default_rng(0)).shape
    (64, 64, 3)
    """
    view = _turn(patch, size, views, rng)
    if rng.random() < views.cut:
        view[_beyond_an_edge(size, rng)] = WHITE
    strength = views.stain * rng.random() ** 2
    if donor is not None and rng.random() < views.transfer:
        view = transfer_stain(view, *donor, rng.uniform(0.3, 1))
    recoloring = _recoloring(views.recolor, rng) if views.recolor else None
    if views.sharpen and rng.random() < views.sharpen:
        view = vary_stain(view, strength, rng, recoloring)
        soft = cv2.GaussianBlur(view, (0, 0), size / 64)
        view = view + np.float32(rng.uniform(0.3, 1.5)) * (view - soft)
        return _noisy(view, views.noise, rng)
    return _expose(view, strength, views, views.most_blur, size / 64, rng, recoloring)


def _recoloring(part: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a change of hue and saturation, or the loss of colour: (3, 3), of absorbances."""
    if rng.random() < 0.625 * part:
        return np.tile(rng.dirichlet((2, 2, 2)), (3, 1))
    angle = rng.normal(0, 0.5) * (rng.random() < part)
    saturation = np.exp(rng.normal(0, 0.6) * (rng.random() < part))
    grey = np.full((3, 3), 1 / 3)
    turning = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    hue = grey + (np.eye(3) - grey) * np.cos(angle) + turning * np.sin(angle)
    return hue @ (grey + saturation * (np.eye(3) - grey))


def _expose(
    view: np.ndarray,
    strength: float,
    views: "Views | SmearViews",
    most: float,
    unit: float,
    rng: np.random.Generator,
    recoloring: np.ndarray | None = None,
) -> np.ndarray:
    """Vary stain, focus (a blur of up to `most` units of so many pixels) and noise."""
    view = vary_stain(view, strength, rng, recoloring)
    if rng.random() < views.blur:
        view = cv2.GaussianBlur(view, (0, 0), rng.uniform(0.3, most) * unit)
    return _noisy(view, views.noise, rng)


def _noisy(view: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    """Add a camera's noise, of a standard deviation of up to `most` grey levels: uint8."""
    if not most:
        return np.clip(np.rint(view), 0, 255).astype(np.uint8)
    spread, noise = rng.uniform(0, most), _film()
    start = rng.integers(len(noise) - view.size)
    noise = noise[start : start + view.size].reshape(view.shape)
    return cv2.addWeighted(view, 1, noise, spread, 0, dtype=cv2.CV_8U)


@cache
def _film() -> np.ndarray:
    """Draw normal noise once for all views: anew, it would take half of a view's time."""
    return np.random.default_rng(0).standard_normal(1 << 22, np.float32)


def _turn(patch: np.ndarray, size: int, views: Views, rng: np.random.Generator) -> np.ndarray:
    """Turn, flip, shear, zoom and shift: the map from patch to view."""
    angle = rng.uniform(0, 2 * np.pi)
    shear, aspect = rng.uniform(-views.shear, views.shear, 2)
    scale = np.exp(rng.uniform(-views.zoom, views.zoom)) / views.sharpness
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    sheared = np.array(
        [[np.exp(aspect / 2), np.sin(shear)], [0, np.cos(shear) * np.exp(-aspect / 2)]]
    )
    flipped = np.diag([rng.choice([-1, 1]), 1])
    linear = scale * turned @ sheared @ flipped
    middle = (np.array(patch.shape[:2]) - 1) / 2
    offset = (size - 1) / 2 + rng.normal(0, views.shift, 2) * size - linear @ middle
    return warp(patch, np.column_stack([linear, offset]), (size, size), WHITE)


def _beyond_an_edge(size: int, rng: np.random.Generator) -> np.ndarray:
    """Mark what lies beyond a straight edge that leaves at least the middle, (size, size) bool."""
    direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.5) * size
    along = np.arange(size) - (size - 1) / 2
    return np.add.outer(np.sin(direction) * along, np.cos(direction) * along) > distance


@dataclass(frozen=True)
class SmearViews:
    """How far views of a smear may differ from the photograph.

    Attributes
    ----------
    zoom : (least, most)
        Magnification, beside that at which red cells have their usual size.
    stretch : float
        Width is stretched by up to exp(±stretch), height shrunk by as much.
    shift : float
        How far beyond the edges of frame or photograph a view may be moved, in sides of the frame.
    flip : bool
        Flip at random along either axis.
    stain, noise : float
        See `Views`.
    light : float
        How far the light may differ, and fall off towards one side, as parts of it.
    blur : float
        Part of the views that are out of focus, 0–1; half as many are sharpened, as cameras do.
    """

    zoom: tuple[float, float] = (0.7, 1.4)
    stretch: float = 0.1
    shift: float = 0.1
    flip: bool = True
    stain: float = 1.0
    light: float = 0.12
    blur: float = 0.3
    noise: float = 6.0


STILL = SmearViews(
    zoom=(1, 1), stretch=0, shift=0, flip=False, stain=0, light=0, blur=0, noise=0
)  # fmt: skip
"""The photograph as it is."""

SEEN, UNSEEN = 0.3, 0.15
"""Part of a box in the frame from which on the cell is to be found, and below which it is not.
Between the two people box it or leave it: of the red cells of TXL-PBC that one edge of the frame
cuts, as many show a third of their diameter as two thirds, and next to none less than a fifth."""


def draw_smear(
    photograph: np.ndarray,
    corners: np.ndarray,
    size: tuple[int, int],
    scale: float,
    views: SmearViews,
    rng: np.random.Generator,
    turned: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw one view of a smear; the same state of `rng` gives the same view.

    Parameters
    ----------
    photograph : ndarray, (height, width, 3) uint8
        RGB, balanced, see `stain.balance`.
    corners : ndarray, (n_boxes, 4) float
        Columns `cells.BOX`, in pixels of the photograph.
    size : (height, width)
        Of the view.
    scale : float
        Pixels of a view per pixel of the photograph, before zooming.
    turned : bool
        Exchange rows and columns, which with flips makes quarter turns.

    Returns
    -------
    view : ndarray, (height, width, 3) uint8
    rows : ndarray of int
        The boxes of which enough is in the view.
    corners : ndarray, (n_rows, 4) float64
        Their edges, in pixels of the view and clipped to it.
    unsure : ndarray, (n_rows,) bool
        Whether less than `SEEN` of the box is in the view.
    """
    linear, offset = _place_smear(photograph.shape[:2], size, scale, views, rng, turned)
    # OpenCV counts from the middle of the upper left pixel, boxes from its corner.
    moved = offset + linear.sum(axis=1) / 2 - 0.5
    view = warp(photograph, np.column_stack([linear, moved]), size, WHITE)
    if views.light:
        view = _light(view, views.light, rng)
    if rng.random() < views.blur / 2:
        sharpened = 1 + rng.uniform(0.3, 1.5)
        soft = cv2.GaussianBlur(view, (0, 0), 1.2)
        view = cv2.addWeighted(view, sharpened, soft, 1 - sharpened, 0)
    view = _expose(view, views.stain * rng.random(), views, 2.0, 1, rng)
    points = np.asarray(corners, float).reshape(-1, 2, 2) @ linear.T + offset
    whole = np.hstack([points.min(axis=1), points.max(axis=1)])
    cut = np.clip(whole, 0, np.tile(np.array(size[::-1], float), 2))
    part = _area(cut) / np.maximum(_area(whole), 1e-9)
    rows = np.flatnonzero(part >= UNSEEN)
    return view, rows, cut[rows], part[rows] < SEEN


def _light(view: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Light a view more or less, and one side of it more than the other."""
    level, across, down = rng.uniform(-strength, strength, 3)
    height, width = view.shape[:2]
    fall = np.add.outer(np.linspace(-down, down, height), np.linspace(-across, across, width))
    light = np.exp(level + fall).astype(np.float32)
    return np.clip(view * light[..., np.newaxis], 0, 255).astype(np.uint8)


def _place_smear(
    whole: tuple[int, int],
    size: tuple[int, int],
    scale: float,
    views: SmearViews,
    rng: np.random.Generator,
    turned: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the map from photograph to view, (2, 2) and (2,), in pixels from the corner."""
    zoom = scale * np.exp(rng.uniform(*np.log(views.zoom)))
    stretch = np.exp(rng.uniform(-views.stretch, views.stretch))
    flips = rng.choice([-1, 1], 2) if views.flip else np.ones(2)
    linear = np.diag(flips * zoom * (stretch, 1 / stretch))
    if turned:
        linear = linear @ np.array([[0, 1], [1, 0]])
    frame = np.array(size[::-1])
    extent = np.abs(linear) @ np.array(whole[::-1])
    # Anywhere from flush at one edge to flush at the other, and a little beyond.
    reach = np.abs(extent - frame) / 2 * (views.shift > 0) + views.shift * frame
    middle = frame / 2 + rng.uniform(-1, 1, 2) * reach
    return linear, middle - linear @ (np.array(whole[::-1]) / 2)


def _area(corners: np.ndarray) -> np.ndarray:
    """Areas of boxes, 0 where edges have passed each other."""
    return np.clip(corners[:, 2:] - corners[:, :2], 0, None).prod(axis=1)
