"""The network that looks at a smear and draws maps of centres, and the loss that it learns by."""

from collections.abc import Sequence
from typing import Any

from wbc_helpers.count.maps import N_KINDS, STRIDE
from wbc_helpers.pixels.scale import RED_CELL
from wbc_helpers.runs.backend import keras

layers, ops = keras.layers, keras.ops

FILTERS = (24, 48, 96, 128)
"""Of the network's stages, each at half the resolution of the one before."""


def centre_network(filters: Sequence[int] = FILTERS) -> keras.Model:
    """Build a network that looks at a smear and draws the maps of `count.maps`.

    Stages of convolutions go down to a sixteenth of the resolution, where a place sees whole cells
    and their neighbours; on the way back up each is added to what the stage of that resolution
    saw, so that what is known of the cell meets where exactly it lies (Lin et al. [1]_).

    Parameters
    ----------
    filters : sequence of int
        Of the stages, the finest first.

    Returns
    -------
    keras.Model
        From (n, height, width, 3) uint8 RGB, balanced, red cells `RED_CELL` pixels wide, sides
        divisible by `DEEPEST`, to (n, height / STRIDE, width / STRIDE, N_KINDS + 4) float32, see
        `maps.find_boxes`. Not compiled.

    References
    ----------
    .. [1] T.-Y. Lin et al., Feature pyramid networks for object detection, CVPR (2017).
    """
    smears = keras.Input((None, None, 3), dtype="uint8", name="smears")
    hidden = layers.Rescaling(1 / 128, offset=-1)(smears)
    stages = [_convolved(hidden, filters[0], strides=2)]
    for n_filters in filters[1:]:
        hidden = _convolved(stages[-1], n_filters, strides=2)
        inner = _convolved(_convolved(hidden, n_filters), n_filters, activate=False)
        stages.append(layers.ReLU()(layers.Add()([hidden, inner])))
    hidden = stages.pop()
    for stage in reversed(stages):
        hidden = layers.Conv2D(stage.shape[-1], 1, use_bias=False)(hidden)
        hidden = layers.UpSampling2D()(hidden)
        hidden = _convolved(layers.Add()([hidden, stage]), stage.shape[-1])
    hidden = _convolved(hidden, filters[0])
    # So few places hold a centre that at first none should be believed to.
    unsure = keras.initializers.Constant(-4)
    surely = layers.Conv2D(N_KINDS, 1, activation="sigmoid", bias_initializer=unsure)(hidden)
    boxes = layers.Conv2D(4, 1)(hidden)
    maps = layers.Concatenate(dtype="float32", name="maps")([surely, boxes])
    return keras.Model(smears, maps, name="centre_network")


def _convolved(hidden: Any, filters: int, strides: int = 1, activate: bool = True) -> Any:
    hidden = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(hidden)
    # Keras's own momentum of 0.99 would remember the first steps of a short training.
    hidden = layers.BatchNormalization(momentum=0.9)(hidden)
    return layers.ReLU()(hidden) if activate else hidden


def centre_loss(truth: Any, maps: Any) -> Any:
    """How far a network's maps are from those drawn of the true boxes, (n,).

    Centres by the focal loss of Law and Deng [1]_: places near a centre count little as background,
    and what is surely right already counts little at all. Sides and offsets by their distance as
    parts of the box's side, since that is what costs overlap.

    `truth`, (n, height, width, N_KINDS + 5), is that of `maps.draw_maps`; `maps`, with one less, is
    what the network answered. The mean of what is returned is the loss per cell in the batch.

    References
    ----------
    .. [1] H. Law, J. Deng, CornerNet: detecting objects as paired keypoints, ECCV (2018).
    """
    hill = truth[..., :N_KINDS]
    surely = ops.clip(maps[..., :N_KINDS], 1e-4, 1 - 1e-4)
    is_centre = ops.cast(hill > 0.999, surely.dtype)
    is_background = ops.cast(hill >= 0, surely.dtype) * (1 - is_centre)
    missed = -is_centre * (1 - surely) ** 2 * ops.log(surely)
    false = -is_background * (1 - ops.maximum(hill, 0)) ** 4 * surely**2 * ops.log(1 - surely)
    sides, true_sides = maps[..., N_KINDS : N_KINDS + 2], truth[..., N_KINDS : N_KINDS + 2]
    off, true_off = maps[..., N_KINDS + 2 : N_KINDS + 4], truth[..., N_KINDS + 2 : N_KINDS + 4]
    apart = ops.abs(sides - true_sides) + ops.abs(off - true_off) * STRIDE / (
        RED_CELL * ops.exp(true_sides)
    )
    of_boxes = truth[..., N_KINDS + 4 :] * apart
    total = ops.sum(missed + false, axis=(1, 2, 3)) + ops.sum(of_boxes, axis=(1, 2, 3))
    n_cells = ops.maximum(ops.sum(is_centre), 1)
    return total * ops.cast(ops.shape(total)[0], total.dtype) / n_cells
