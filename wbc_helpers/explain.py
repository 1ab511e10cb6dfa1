"""Where the network looks: Grad-CAM, and how much of its weight falls on the white cell.

Maps of this kind can look convincing and say little about the network; `occlusion` puts them to
the test.
"""

from collections.abc import Callable
from typing import Any

import cv2
import keras
import numpy as np
import pandas as pd
from keras import layers, ops
from numpy.typing import ArrayLike

from wbc_helpers import models
from wbc_helpers.errors import InvalidParameter

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

    The score is the logit, not the probability: where the network is sure, softmax is flat and
    its gradient vanishes. A network that ends in something else than softmax or logits is
    followed by a logarithm.

    Parameters
    ----------
    model : keras.Model
        Functional or sequential, channels last; on TensorFlow, JAX or PyTorch.
    pixels : ndarray, (n, height, width, 3) uint8
        RGB at the model's size.
    class_indices : (n,) array_like of int, or int, optional
        Whose score, as an index into `cells.NAMES`; the most probable type of each by default.
    layer : str, optional
        Name of the layer whose output is mapped. By default the last convolution, after its
        activation; where a shortcut leads past it, the first layer after it at which all paths
        have met.
    batch_size : int
        Images at a time.

    Returns
    -------
    ndarray, (n, height, width) float32
        0–1, each map divided by its maximum, resized bilinearly from the layer's own, coarser
        grid; for the `paper` recipe at 48×64 that has 6×8 fields. All zero where nothing in the
        layer spoke for the type.

    Raises
    ------
    InvalidParameter
        If there is no such layer, it gives no maps, a path leads past it, a class is unknown, or
        Keras runs on a backend without gradients.

    References
    ----------
    .. [1] R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
       Gradient-Based Localization", ICCV 2017, 618–626.
    """
    stem, head = _cut(model, layer)
    n_types = model.output_shape[-1]
    if class_indices is None:
        class_indices = models.predict(model, pixels, batch_size).argmax(axis=1)
    class_indices = np.broadcast_to(np.asarray(class_indices), len(pixels))
    if (
        class_indices.dtype.kind not in "iu"
        or ((class_indices < 0) | (class_indices >= n_types)).any()
    ):
        raise InvalidParameter(
            f"class_indices holds {np.unique(class_indices)[:5].tolist()}. Expected whole numbers "
            f"from 0 to {n_types - 1}, one an image or one for all."
        )
    wanted = np.eye(n_types, dtype=np.float32)[class_indices]
    height, width = pixels.shape[1:3]
    cams = np.zeros((len(pixels), height, width), np.float32)
    for start in range(0, len(pixels), batch_size):
        batch = slice(start, start + batch_size)
        features = stem(ops.convert_to_tensor(np.ascontiguousarray(pixels[batch])), training=False)
        chosen = ops.convert_to_tensor(wanted[batch])
        slope = _gradient(lambda maps, of=chosen: ops.sum(head(maps) * of), features)
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
    maps = [each.name for each in model.layers if len(getattr(each.output, "shape", ())) == 4]
    raise InvalidParameter(
        f"{model.name} cannot be mapped at {'its last convolution' if name is None else repr(name)}"
        ": there is no such layer, or not all paths lead through it. Expected the name of a layer "
        f"that gives maps and that every path passes; those that give maps: {', '.join(maps)}."
    )


def _candidates(model: keras.Model) -> list[layers.Layer]:
    """List the last convolution's activation, itself, then what follows it at the same size."""

    def convolves(layer: layers.Layer) -> bool:
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
    """Measure how much of each map lies on the white cell.

    Parameters
    ----------
    cams : ndarray, (n, height, width) float
        See `grad_cam`.
    masks : ndarray, (n, height, width) bool
        See `white_cells.outlines`.

    Returns
    -------
    DataFrame
        One row a map. `weight`: part of the map's sum on the cell, 0–1; `area`: part of the
        image that the cell takes, what a map spread evenly would reach; `peak` (boolean):
        whether the map is highest on the cell. Missing where no cell was found; `weight` and
        `peak` where the map is all zero, too.

    Raises
    ------
    InvalidParameter
        If maps and masks differ in shape.
    """
    check_masks(cams, masks)
    found = masks.any(axis=(1, 2))
    total = cams.sum(axis=(1, 2), dtype=np.float64)
    known = found & (total > 0)
    on_cell = (cams * masks).sum(axis=(1, 2), dtype=np.float64)
    weight = np.divide(on_cell, total, out=np.full(len(cams), np.nan), where=known)
    highest = cams.reshape(len(cams), -1).argmax(axis=1)
    peak = pd.array(masks.reshape(len(masks), -1)[np.arange(len(masks)), highest], dtype="boolean")
    peak[~known] = pd.NA
    area = np.where(found, masks.mean(axis=(1, 2)), np.nan)
    return pd.DataFrame({"weight": weight, "area": area, "peak": peak})


def check_masks(images: np.ndarray, masks: np.ndarray) -> None:
    """Raise `InvalidParameter` unless there is a mask of the right size for each image."""
    if masks.shape != images.shape[:3] or masks.dtype != bool:
        raise InvalidParameter(
            f"The masks have shape {masks.shape} and type {masks.dtype}; expected "
            f"{images.shape[:3]} and bool, as white_cells.outlines gives them for these images."
        )
