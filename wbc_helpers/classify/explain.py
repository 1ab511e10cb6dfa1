"""Where the network looks: Grad-CAM, and whether its maps tell the truth: a test by occlusion.

Maps of this kind can look convincing and say little about the network. If it reads the white cell,
its answer should go with the cell blanked, and stay with as much of the background blanked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from wbc_helpers import cells
from wbc_helpers.classify import networks
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.pixels.stain import is_fill
from wbc_helpers.runs.backend import keras

layers, ops = keras.layers, keras.ops

_CONVOLUTIONS = (
    layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2DTranspose,
)  # fmt: skip
_ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)


def grad_cam(
    model: keras.Model,
    pixels: np.ndarray,
    class_indices: ArrayLike | None = None,
    layer: str | None = None,
    batch_size: int = 128,
) -> np.ndarray:
    """Map what in an image raised the network's score of a cell type (Grad-CAM [1]_).

    The score is the logit, not the probability: where the network is sure, softmax is flat and its
    gradient vanishes. A network that ends in something else than softmax or logits is followed by a
    logarithm. Raises `InvalidParameter` if there is no such layer, it gives no maps, a path leads
    past it, a class is unknown, or Keras runs on a backend without gradients.

    Parameters
    ----------
    model, pixels
        Functional or sequential, channels last, on TensorFlow, JAX or PyTorch; and RGB, (n, height,
        width, 3) uint8, at the model's size.
    class_indices : (n,) array_like of int, or int, optional
        Whose score, as an index into `cells.NAMES`; the most probable type of each by default.
    layer : str, optional
        Name of the layer whose output is mapped. By default the last convolution, after its
        activation; where a shortcut leads past it, the first layer after it at which all paths have
        met.

    Returns
    -------
    ndarray, (n, height, width) float32
        0–1, each map divided by its maximum, resized bilinearly from the layer's own, coarser grid;
        for the `paper` recipe at 48×64 that has 6×8 fields. All zero where nothing in the layer
        spoke for the type.

    References
    ----------
    .. [1] R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
       Gradient-Based Localization", ICCV 2017, 618–626.
    """
    stem, head = _cut(model, layer)
    n_types = model.output_shape[-1]
    if class_indices is None:
        class_indices = networks.predict(model, pixels, batch_size).argmax(axis=1)
    class_indices = np.broadcast_to(np.asarray(class_indices), len(pixels))
    if (
        class_indices.dtype.kind not in "iu"
        or ((class_indices < 0) | (class_indices >= n_types)).any()
    ):
        raise InvalidParameter(
            f"class_indices holds {np.unique(class_indices)[:5].tolist()}. Expected whole numbers "
            f"from 0 to {n_types - 1}, one an image or one for all."
        )
    of_types = np.eye(n_types, dtype=np.float32)[class_indices]
    height, width = pixels.shape[1:3]
    cams = np.zeros((len(pixels), height, width), np.float32)
    for start in range(0, len(pixels), batch_size):
        batch = slice(start, start + batch_size)
        features = stem(ops.convert_to_tensor(np.ascontiguousarray(pixels[batch])), training=False)
        chosen = ops.convert_to_tensor(of_types[batch])

        def score(maps: Any, of: Any = chosen) -> Any:
            return ops.sum(head(maps) * of)

        slope = _gradient(score, features)
        maps = ops.convert_to_numpy(features).astype(np.float32)
        # The paper's equations 1 and 2: average the gradient over the map, weigh, keep what
        # speaks for the type.
        weights = slope.mean(axis=(1, 2), keepdims=True)
        for i, coarse in enumerate(np.maximum((weights * maps).sum(axis=-1), 0), start=start):
            cam = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
            cams[i] = cam / cam.max() if cam.max() > 0 else 0
    return cams


def _gradient(score: Callable[[Any], Any], features: Any) -> np.ndarray:
    """Gradient of a number by features, on whatever backend Keras runs."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(features)
            value = score(features)
        slope = tape.gradient(value, features)
    elif backend == "jax":
        import jax

        slope = jax.grad(score)(features)
    elif backend == "torch":
        import torch

        features = features.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(score(features), features)
    else:
        raise InvalidParameter(
            f"Keras runs on {backend!r}, which has no gradients. Expected tensorflow, jax or "
            "torch; set KERAS_BACKEND before Python starts."
        )
    return ops.convert_to_numpy(slope).astype(np.float32)


def _cut(model: keras.Model, name: str | None) -> tuple[keras.Model, Callable[[Any], Any]]:
    """Cut a model in two: from pixels to a layer's maps, and from there to the logits."""
    if name is not None:
        candidates = [layer for layer in model.layers if layer.name == name]
    else:
        candidates = _candidates(model)
    candidates = [layer for layer in candidates if len(getattr(layer.output, "shape", ())) == 4]
    output, to_logits = _logits(model)
    for layer in candidates:
        try:
            rest = keras.Model(layer.output, output)
        except ValueError:  # a shortcut leads past this layer
            continue
        return (
            keras.Model(model.inputs, layer.output),
            lambda maps, rest=rest: to_logits(rest(maps, training=False)),
        )
    maps = [layer.name for layer in model.layers if len(getattr(layer.output, "shape", ())) == 4]
    raise InvalidParameter(
        f"{model.name} cannot be mapped at {'its last convolution' if name is None else repr(name)}"
        ": there is no such layer, or not all paths lead through it. Expected the name of a layer "
        f"that gives maps and that every path passes; those that give maps: {', '.join(maps)}."
    )


def _candidates(model: keras.Model) -> list[keras.layers.Layer]:
    """List the last convolution's activation, itself, then what follows it at the same size."""

    def convolves(layer: keras.layers.Layer) -> bool:
        return isinstance(layer, _CONVOLUTIONS) or any(map(convolves, getattr(layer, "layers", ())))

    places = [place for place, layer in enumerate(model.layers) if convolves(layer)]
    if not places:
        return []
    last, *after = model.layers[places[-1] :]
    size = last.output.shape[1:3]
    after = [layer for layer in after if layer.output.shape[1:3] == size]
    # A map before its ReLU is negative where the unit is silent, and a negative weight would
    # turn that silence into heat.
    if getattr(last, "activation", None) not in (None, keras.activations.linear):
        return [last, *after]
    activations = [layer for layer in after if isinstance(layer, _ACTIVATIONS)]
    return [*activations, last, *after]


def _logits(model: keras.Model) -> tuple[Any, Callable[[Any], Any]]:
    """Find the tensor from which a function makes the logits, without touching the model."""
    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    softmax = activation is keras.activations.softmax
    if isinstance(last, layers.Softmax) or (isinstance(last, layers.Activation) and softmax):
        return last.input, lambda scores: scores
    if isinstance(last, layers.Dense) and softmax:
        bias = last.bias if last.use_bias else 0.0
        return last.input, lambda hidden: ops.matmul(hidden, last.kernel) + bias
    if activation is keras.activations.linear:
        return model.output, lambda scores: scores
    return model.output, lambda probabilities: ops.log(probabilities + 1e-7)


def weight_on_cell(cams: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    """Measure how much of each map, see `grad_cam`, lies on the white cell.

    Masks are (n, height, width) bool, see `white_cells.outlines`; `InvalidParameter` is raised if
    maps differ from them in shape. One row a map: `weight`, part of the map's sum on the cell, 0–1;
    `area`, part of the image that the cell takes, what a map spread evenly would reach; `peak`
    (boolean), whether the map is highest on the cell. Missing where no cell was found; `weight` and
    `peak` where the map is all zero, too.

    Examples
    --------
    >>> cams, masks = np.eye(4)[np.newaxis], np.zeros((1, 4, 4), bool)
    >>> masks[:, :2] = True
    >>> weight_on_cell(cams, masks)["weight"].tolist()
    [0.5]
    """
    check_masks(cams, masks)
    has_cell = masks.any(axis=(1, 2))
    total = cams.sum(axis=(1, 2), dtype=np.float64)
    mapped = has_cell & (total > 0)
    on_cell = (cams * masks).sum(axis=(1, 2), dtype=np.float64)
    weight = np.divide(on_cell, total, out=np.full(len(cams), np.nan), where=mapped)
    highest = cams.reshape(len(cams), -1).argmax(axis=1)
    peak = pd.array(masks.reshape(len(masks), -1)[np.arange(len(masks)), highest], dtype="boolean")
    peak[~mapped] = pd.NA
    area = np.where(has_cell, masks.mean(axis=(1, 2)), np.nan)
    return pd.DataFrame({"weight": weight, "area": area, "peak": peak})


def check_masks(images: np.ndarray, masks: np.ndarray) -> None:
    """Raise `InvalidParameter` unless there is a mask of the right size for each image."""
    if masks.shape != images.shape[:3] or masks.dtype != bool:
        raise InvalidParameter(
            f"The masks have shape {masks.shape} and type {masks.dtype}; expected "
            f"{images.shape[:3]} and bool, as white_cells.outlines gives them for these images."
        )


CONDITIONS = ("untouched", "background blanked", "cell blanked")
_MOST_FILL = 0.05  # part of a background patch that may lie on the black fill of a rotated image


@dataclass(frozen=True, eq=False)
class Occluded:
    """Images of which once the cell is blanked, and once as much of the background.

    Of `n_images` given, `rows`, (n_used,) int, could be used; `cell` and `background`, (n_used,
    height, width, 3) uint8, are those, blanked. In `n_without_cell` no white cell was found; in
    `n_without_room` it leaves no room for a patch of its shape beside it.
    """

    rows: np.ndarray
    cell: np.ndarray
    background: np.ndarray
    n_images: int
    n_without_cell: int
    n_without_room: int


def occlude(pixels: np.ndarray, masks: np.ndarray, seed: int = 0) -> Occluded:
    """Blank the white cell, and for comparison a patch of the same shape beside it.

    Both are filled with the image's mean colour off the cell and off the black fill. The patch is
    the cell's mask, shifted at random (`seed`) to where it lies whole in the image, off every white
    cell, and at most 5 % on black fill. What no blanking hides is the outline: its size and shape
    remain. For `pixels` see `grad_cam`, for `masks` and errors `weight_on_cell`.
    """
    check_masks(pixels, masks)
    generator = np.random.default_rng(seed)
    rows, without_cell = [], 0
    blanked: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for row, (image, mask) in enumerate(zip(pixels, masks, strict=True)):
        if not mask.any():
            without_cell += 1
            continue
        fill = is_fill(image)
        patch = _beside(mask, fill, generator)
        if patch is None:
            continue
        rows.append(row)
        color = image[~(mask | fill)].mean(axis=0).round().astype(np.uint8)
        for images, where in zip(blanked, (mask, patch), strict=True):
            images.append(np.where(where[..., np.newaxis], color, image))
    cell, background = (
        np.array(images, np.uint8).reshape(-1, *pixels.shape[1:]) for images in blanked
    )
    without_room = len(pixels) - without_cell - len(rows)
    return Occluded(np.array(rows, int), cell, background, len(pixels), without_cell, without_room)


def _beside(
    mask: np.ndarray, fill: np.ndarray, generator: np.random.Generator
) -> np.ndarray | None:
    """Shift a mask off itself, or return None where there is no room."""
    ys, xs = np.nonzero(mask)
    shape = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    template = shape.astype(np.float32)

    def covered(area: np.ndarray) -> np.ndarray:
        return cv2.matchTemplate(area.astype(np.float32), template, cv2.TM_CCORR)

    # Sums of products of zeros and ones, up to rounding.
    free = (covered(mask) < 0.5) & (covered(fill) <= _MOST_FILL * shape.sum() + 0.5)
    places = np.argwhere(free)
    if not len(places):
        return None
    y, x = places[generator.integers(len(places))]
    patch = np.zeros_like(mask)
    patch[y : y + shape.shape[0], x : x + shape.shape[1]] = shape
    return patch


def answers_to(
    model: keras.Model,
    pixels: np.ndarray,
    true_types: ArrayLike,
    occluded: Occluded,
    batch_size: int = 128,
) -> pd.DataFrame:
    """Ask the network about the same images untouched and blanked.

    `model`, `pixels` and `batch_size` are those of `grad_cam`, the images those given to `occlude`;
    of `true_types`, (n,) array_like of str, each is one of `cells.NAMES`.

    One row for each usable image under each of `CONDITIONS`: `image` (int, its row in `pixels`),
    `condition` (categorical), `cell_type` (the true one), `original` (what the network says of the
    untouched image), `predicted`, `probability` (of `original`, 0–1). Raises `InvalidParameter` if
    these do not belong together, or no image is usable.
    """
    names, true_types = np.array(cells.NAMES), np.asarray(true_types).astype(str)
    if len(true_types) != len(pixels) or occluded.n_images != len(pixels):
        raise InvalidParameter(
            f"There are {len(pixels)} images, {len(true_types)} true types, and "
            f"{occluded.n_images} images were blanked. Expected the same images in all three."
        )
    if not len(occluded.rows):
        raise InvalidParameter(
            f"None of {occluded.n_images} images can be used: in {occluded.n_without_cell} no "
            f"white cell was found, {occluded.n_without_room} leave no room beside it. Expected "
            "images as the data set has them; look at the masks of white_cells.outlines."
        )
    tables, original = [], None
    by_condition = (pixels[occluded.rows], occluded.background, occluded.cell)
    for condition, images in zip(CONDITIONS, by_condition, strict=True):
        probabilities = networks.predict(model, images, batch_size)
        predicted = probabilities.argmax(axis=1)
        original = predicted if original is None else original
        answers = {
            "image": occluded.rows,
            "condition": condition,
            "cell_type": true_types[occluded.rows],
            "original": names[original],
            "predicted": names[predicted],
            "probability": probabilities[np.arange(len(images)), original],
        }
        tables.append(pd.DataFrame(answers))
    table = pd.concat(tables, ignore_index=True)
    table["condition"] = pd.Categorical(table["condition"], CONDITIONS, ordered=True)
    return table


def summarise(answers: pd.DataFrame) -> pd.DataFrame:
    """Sum up what blanking does to the answers, see `answers_to`.

    Rows are `CONDITIONS`. `n_images`; `accuracy`; `kept`: part of the answers that are still those
    of the untouched image; `probability`: mean of that of the original answer. All 0–1.
    """
    measured = answers.assign(
        accuracy=answers["predicted"] == answers["cell_type"],
        kept=answers["predicted"] == answers["original"],
    )
    summary = measured.groupby("condition", observed=False)[["accuracy", "kept", "probability"]]
    return summary.mean().assign(n_images=summary.size())[
        ["n_images", "accuracy", "kept", "probability"]
    ]
