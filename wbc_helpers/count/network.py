"""Maps in which a detector says where cells are, and the network that learns to draw them.

A map has a place for every `STRIDE` pixels of what the network is shown. Of each kind of cell it
tells how surely a centre lies there; of the cell in whose middle a place lies, also its width,
its height and how far off its centre is (Zhou et al. [1]_). Maps are drawn from boxes to train the
network, and boxes are read from those it answers. Keras is loaded only when the network is built.

References
----------
.. [1] X. Zhou, D. Wang, P. Krähenbühl, Objects as points, arXiv:1904.07850 (2019).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from wbc_helpers import cells
from wbc_helpers.pixels.scale import RED_CELL

if TYPE_CHECKING:
    import keras

STRIDE = 2
"""Pixels of what the network is shown, per place of a map."""

N_KINDS = len(cells.KIND_NAMES)
SPREAD = 0.09
"""Standard deviation of the hill around a centre, in sides of its box. A box that is off by as much
along one side still shares 0.83 of its union with the true one: so near a miss is no mistake."""

LEAST_SPREAD = 0.7
"""The same, in places: no hill is narrower, or the next place would count as background."""

MIDDLE = 0.5
"""Height of the hill from which on a place learns the size of the box."""

SMALLEST = 10
"""Side of the smallest box of a platelet, in pixels of what the network is shown."""

_HILL = 3  # standard deviations that are drawn


def draw_maps(
    corners: np.ndarray, kinds: np.ndarray, unsure: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Draw the maps that a perfect detector would answer with.

    `corners`, (n_boxes, 4) float, have the columns `cells.BOX`, in pixels of what the network is
    shown; `kinds`, (n_boxes,) int, index `cells.KIND_NAMES`; `unsure`, (n_boxes,) bool, are cells
    so little of which shows that it is as well to find as to miss them; `size` is height and width
    of what the network is shown, in pixels.

    Returns (height / STRIDE, width / STRIDE, N_KINDS + 5) float32: of each kind a hill for each
    box, 1 at its centre, and -1 around unsure ones; then the logarithms of width and height in red
    cells, see `scale.RED_CELL`; how many places right and down of this one the centre lies; and how
    much this place counts for the box, 1 in the sum over a box that no other covers.
    """
    height, width = size[0] // STRIDE, size[1] // STRIDE
    maps = np.zeros((height, width, N_KINDS + 5), np.float32)
    best = np.zeros((height, width), np.float32)
    # Unsure ones first: what is sure is drawn over them.
    for row in np.argsort(~np.asarray(unsure, bool), kind="stable"):
        x_min, y_min, x_max, y_max = corners[row]
        x, y = (x_min + x_max) / 2 / STRIDE, (y_min + y_max) / 2 / STRIDE
        column, line = min(int(x), width - 1), min(int(y), height - 1)
        spread_x = max(SPREAD * (x_max - x_min) / STRIDE, LEAST_SPREAD)
        spread_y = max(SPREAD * (y_max - y_min) / STRIDE, LEAST_SPREAD)
        left, right = max(column - round(_HILL * spread_x), 0), column + round(_HILL * spread_x) + 1
        top, bottom = max(line - round(_HILL * spread_y), 0), line + round(_HILL * spread_y) + 1
        columns, lines = np.arange(left, min(right, width)), np.arange(top, min(bottom, height))
        hill = np.exp(
            -(((lines - line) / spread_y) ** 2)[:, np.newaxis] / 2
            - ((columns - column) / spread_x) ** 2 / 2
        ).astype(np.float32)
        patch = maps[top:bottom, left:right]
        of_kind = patch[..., kinds[row]]
        if unsure[row]:
            of_kind[...] = -1
            continue
        np.maximum(of_kind, hill, out=of_kind)
        nearest = best[top:bottom, left:right]
        mine = (hill >= MIDDLE) & (hill > nearest)
        nearest[mine] = hill[mine]
        counts = hill / hill[hill >= MIDDLE].sum()
        off_x = np.broadcast_to(x - columns - 0.5, hill.shape)
        off_y = np.broadcast_to((y - lines - 0.5)[:, np.newaxis], hill.shape)
        patch[mine, N_KINDS] = np.log((x_max - x_min) / RED_CELL)
        patch[mine, N_KINDS + 1] = np.log((y_max - y_min) / RED_CELL)
        patch[mine, N_KINDS + 2] = off_x[mine]
        patch[mine, N_KINDS + 3] = off_y[mine]
        patch[mine, N_KINDS + 4] = counts[mine]
    return maps


def find_boxes(
    maps: np.ndarray, iou: float, lowest: float = 0.01, most: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read boxes out of maps: at each summit, less those that stand for the cell of a surer one.

    `maps`, (height, width, at least N_KINDS + 4) float32, are as `draw_maps` draws and the network
    answers them. Below the score `lowest`, 0–1, nothing is read; of each kind the `most` surest
    boxes are, by default as many as platelets could lie side by side in the field. `iou` is that of
    `drop_doubles`.

    Returns corners, (n_boxes, 4) float64, not clipped, and kinds, (n_boxes,) int, as in
    `draw_maps`; and scores, (n_boxes,) float64, falling within each kind.
    """
    of_kinds = []
    if most is None:
        most = max(round(maps.shape[0] * maps.shape[1] / (SMALLEST / STRIDE) ** 2), 1)
    for kind in range(N_KINDS):
        height = np.ascontiguousarray(maps[..., kind])
        summits = (height >= lowest) & (height == cv2.dilate(height, np.ones((3, 3), np.uint8)))
        lines, columns = np.nonzero(summits)
        scores = height[lines, columns].astype(float)
        surest = np.argsort(-scores, kind="stable")[:most]
        lines, columns, scores = lines[surest], columns[surest], scores[surest]
        of_box = maps[lines, columns, N_KINDS : N_KINDS + 4].astype(float)
        # What no hand ever boxed need not overflow either.
        half = np.exp(np.clip(of_box[:, :2], -5, 5)) * RED_CELL / 2
        centres = (np.column_stack([columns, lines]) + 0.5 + of_box[:, 2:]) * STRIDE
        corners = np.hstack([centres - half, centres + half])
        single = drop_doubles(corners, scores, iou)
        of_kinds.append((corners[single], np.full(len(single), kind), scores[single]))
    corners, kinds, scores = (np.concatenate(parts) for parts in zip(*of_kinds, strict=True))
    return corners, kinds, scores


def drop_doubles(corners: np.ndarray, scores: np.ndarray, iou: float) -> np.ndarray:
    """Choose the boxes that stand for a cell of their own, the surest first; return their rows.

    Of equally sure ones the first counts. Boxes, (n_boxes, 4) of one kind with the columns
    `cells.BOX`, that share more than `iou` of their union with a surer one that was chosen are
    doubles of it.
    """
    rectangles = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    return np.array(cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), 0, iou), int)


# The network and its loss

FILTERS = (32, 64, 128, 160)
"""Of the network's stages, each at half the resolution of the one before."""

BLOCKS = 2
"""Pairs of convolutions at the lowest resolution, where a place sees farthest."""


def centre_network(filters: Sequence[int] = FILTERS, blocks: int = BLOCKS) -> "keras.Model":
    """Build a network that looks at a smear and draws the maps of this module.

    Stages of convolutions go down to a sixteenth of the resolution, where a place sees whole cells
    and their neighbours; on the way back up each is added to what the stage of that resolution
    saw, so that what is known of the cell meets where exactly it lies (Lin et al. [1]_).

    Parameters
    ----------
    filters : sequence of int
        Of the stages, the finest first.
    blocks : int
        See `BLOCKS`.

    Returns
    -------
    keras.Model
        From (n, height, width, 3) uint8 RGB, balanced, red cells `RED_CELL` pixels wide, sides
        divisible by `DEEPEST`, to (n, height / STRIDE, width / STRIDE, N_KINDS + 4) float32, see
        `find_boxes`. Not compiled.

    References
    ----------
    .. [1] T.-Y. Lin et al., Feature pyramid networks for object detection, CVPR (2017).
    """
    from wbc_helpers.runs.backend import keras

    layers = keras.layers
    smears = keras.Input((None, None, 3), dtype="uint8", name="smears")
    hidden = layers.Rescaling(1 / 128, offset=-1)(smears)
    stages = [_convolved(hidden, filters[0], strides=2)]
    for number, n_filters in enumerate(filters[1:], start=2):
        hidden = _convolved(stages[-1], n_filters, strides=2)
        for _ in range(blocks if number == len(filters) else 1):
            inner = _convolved(_convolved(hidden, n_filters), n_filters, activate=False)
            hidden = layers.ReLU()(layers.Add()([hidden, inner]))
        stages.append(hidden)
    hidden = stages.pop()
    for stage in reversed(stages):
        hidden = layers.Conv2D(stage.shape[-1], 1, use_bias=False)(hidden)
        hidden = layers.UpSampling2D()(hidden)
        hidden = _convolved(layers.Add()([hidden, stage]), stage.shape[-1])
    hidden = _convolved(hidden, filters[0])
    # So few places hold a centre that at first none should be believed to.
    unsure = keras.initializers.Constant(-4)
    surely = layers.Conv2D(
        N_KINDS, 1, activation="sigmoid", bias_initializer=unsure, dtype="float32"
    )(hidden)
    boxes = layers.Conv2D(4, 1, dtype="float32")(hidden)
    maps = layers.Concatenate(dtype="float32", name="maps")([surely, boxes])
    return keras.Model(smears, maps, name="centre_network")


def _convolved(hidden: Any, filters: int, strides: int = 1, activate: bool = True) -> Any:
    from wbc_helpers.runs.backend import keras

    layers = keras.layers
    hidden = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(hidden)
    # Keras's own momentum of 0.99 would remember the first steps of a short training.
    hidden = layers.BatchNormalization(momentum=0.9)(hidden)
    return layers.ReLU()(hidden) if activate else hidden


def centre_loss(truth: Any, maps: Any) -> Any:
    """How far a network's maps are from those drawn of the true boxes, (n,).

    Centres by the focal loss of Law and Deng [1]_: places near a centre count little as background,
    and what is surely right already counts little at all. Boxes by the generalised overlap of
    Rezatofighi et al. [2]_, which is what they are judged by, and by the distance of sides and
    offsets as parts of the box's side, which tells the way where nothing overlaps yet.

    `truth`, (n, height, width, N_KINDS + 5), is that of `draw_maps`; `maps`, with one less, is
    what the network answered. The mean of what is returned is the loss per cell in the batch.

    References
    ----------
    .. [1] H. Law, J. Deng, CornerNet: detecting objects as paired keypoints, ECCV (2018).
    .. [2] H. Rezatofighi et al., Generalized intersection over union, CVPR (2019).
    """
    from wbc_helpers.runs.backend import keras

    ops = keras.ops
    hill = truth[..., :N_KINDS]
    surely = ops.clip(maps[..., :N_KINDS], 1e-4, 1 - 1e-4)
    is_centre = ops.cast(hill > 0.999, surely.dtype)
    is_background = ops.cast(hill >= 0, surely.dtype) * (1 - is_centre)
    missed = -is_centre * (1 - surely) ** 2 * ops.log(surely)
    false = -is_background * (1 - ops.maximum(hill, 0)) ** 4 * surely**2 * ops.log(1 - surely)
    sides, true_sides = maps[..., N_KINDS : N_KINDS + 2], truth[..., N_KINDS : N_KINDS + 2]
    # In places, like the offsets.
    half, true_half = (
        ops.exp(ops.clip(logarithm, -5, 5)) * (RED_CELL / STRIDE / 2)
        for logarithm in (sides, true_sides)
    )
    off, true_off = maps[..., N_KINDS + 2 : N_KINDS + 4], truth[..., N_KINDS + 2 : N_KINDS + 4]
    apart = ops.sum(
        ops.abs(sides - true_sides) + ops.abs(off - true_off) / (2 * true_half), axis=-1
    )
    unlike = 1 - _generalised_overlap(off, half, true_off, true_half)
    of_boxes = truth[..., N_KINDS + 4] * (apart / 2 + 2 * unlike)
    total = ops.sum(missed + false, axis=(1, 2, 3)) + ops.sum(of_boxes, axis=(1, 2))
    n_cells = ops.maximum(ops.sum(is_centre), 1)
    return total * ops.cast(ops.shape(total)[0], total.dtype) / n_cells


def _generalised_overlap(middle: Any, half: Any, true_middle: Any, true_half: Any) -> Any:
    """Overlap of boxes, less the part of what encloses both that neither fills: −1 to 1."""
    from wbc_helpers.runs.backend import keras

    ops = keras.ops
    low, high = middle - half, middle + half
    true_low, true_high = true_middle - true_half, true_middle + true_half
    shared = ops.maximum(ops.minimum(high, true_high) - ops.maximum(low, true_low), 0)
    around = ops.maximum(high, true_high) - ops.minimum(low, true_low)
    both, enclosing = ops.prod(shared, axis=-1), ops.prod(around, axis=-1)
    union = ops.prod(2 * half, axis=-1) + ops.prod(2 * true_half, axis=-1) - both
    return both / union - (enclosing - union) / enclosing
