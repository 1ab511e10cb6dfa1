"""A network that has seen everyday photographs before it sees blood: fine-tuning on few cells."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from keras import layers

from wbc_helpers import cells
from wbc_helpers.errors import DownloadFailed, InvalidParameter
from wbc_helpers.images import PixelStatistics
from wbc_helpers.recipes import RECIPES

WEIGHTS_VARIABLE = "WBC_BACKBONE_WEIGHTS"
"""Environment variable that names a file of the backbone's weights, used instead of a download."""

SMALLEST = 32
"""Pixels each way that the backbone's five halvings need."""


def pretrained_cnn(
    image_size: tuple[int, int],
    statistics: PixelStatistics,
    weights: str | Path | None = "imagenet",
    readings: Mapping[str, Any] = RECIPES["pretrained"].readings,
) -> keras.Model:
    """Build MobileNetV3 small [1]_ with weights learned on ImageNet, and a new head for four types.

    Taken because it is small (939,120 parameters, 4 MB), scales 0–255 pixels itself and runs on
    every backend. All of its convolutions are fine-tuned, which wants a learning rate ten times
    lower than training from nothing. Its batch normalisation stays as ImageNet left it: statistics
    of a few dozen smears would shift every layer at once.

    Parameters
    ----------
    image_size : (height, width)
        Pixels; at least 32 each.
    statistics : PixelStatistics
        Not used: the backbone expects the scaling that it was trained with.
    weights : "imagenet", path or None
        `imagenet` takes the file that the environment variable `WBC_BACKBONE_WEIGHTS` names, else
        downloads the weights (4 MB, once; Keras keeps them in `~/.keras`, or `KERAS_HOME`). A path
        is read; None begins at random, for trials without network.
    readings : mapping
        `dropout` (rate, 0–1) before the last layer.

    Returns
    -------
    keras.Model
        From (n, height, width, 3) uint8 RGB to (n, 4) probabilities in the order of
        `cells.NAMES`. Not compiled.

    Raises
    ------
    DownloadFailed
        If there is no network and no file.
    InvalidParameter
        If the images are too small, or the file is missing or holds other weights.

    References
    ----------
    .. [1] A. Howard et al., "Searching for MobileNetV3", ICCV 2019, 1314–1324.
    """
    smears = keras.Input((*image_size, 3), dtype="uint8", name="smears")
    features = backbone(smears, weights)
    for layer in features.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    hidden = layers.Dropout(readings["dropout"])(features.output)
    cell_type = layers.Dense(len(cells.NAMES), activation="softmax", name="cell_type")(hidden)
    # Layers, not a model within the model, so that Grad-CAM finds the last convolution.
    return keras.Model(smears, cell_type, name="pretrained_cnn")


def backbone(smears: Any, weights: str | Path | None = "imagenet") -> keras.Model:
    """Build the backbone on an input, and load its weights.

    Parameters
    ----------
    smears : keras.KerasTensor
        A `keras.Input` of (height, width, 3) uint8.
    weights : "imagenet", path or None
        As for `pretrained_cnn`.

    Returns
    -------
    keras.Model
        From the input to (n, 576) features, the mean over the last layer's map.

    Raises
    ------
    DownloadFailed, InvalidParameter
        See `pretrained_cnn`.
    """
    height, width = smears.shape[1:3]
    if min(height, width) < SMALLEST:
        raise InvalidParameter(
            f"image_size={height}×{width} is too small for the recipe `pretrained`. Expected at "
            f"least {SMALLEST} pixels each way."
        )
    if weights == "imagenet":
        weights = os.environ.get(WEIGHTS_VARIABLE) or weights
    if weights is None:
        return _mobilenet(smears, None)
    if weights != "imagenet":
        return _with_weights_of(Path(weights).expanduser(), _mobilenet(smears, None))
    try:
        return _mobilenet(smears, "imagenet")
    except Exception as error:  # `Exception` itself is what Keras raises when a download fails
        raise DownloadFailed(
            f"The weights learned on ImageNet could not be downloaded ({error}). Connect this "
            "machine and start again, or fetch the file that the message names elsewhere and set "
            f"{WEIGHTS_VARIABLE} to its path."
        ) from error


def _mobilenet(smears: Any, weights: str | None) -> keras.Model:
    with warnings.catch_warnings():
        # That the weights were learned at 224 × 224 is no news: convolutions take any size.
        warnings.filterwarnings("ignore", message=".*224.*")
        return keras.applications.MobileNetV3Small(
            input_tensor=smears,
            include_top=False,
            include_preprocessing=True,
            pooling="avg",
            weights=weights,
        )


def _with_weights_of(path: Path, features: keras.Model) -> keras.Model:
    """Load a file of weights, in Keras's format (`.weights.h5`) or the older one (`.h5`)."""
    if not path.is_file():
        raise InvalidParameter(
            f"{path} is no file. Expected the weights of MobileNetV3 small without its top, as "
            f"Keras distributes them; correct or unset {WEIGHTS_VARIABLE}."
        )
    try:
        features.load_weights(path)
    except Exception as error:  # Keras raises whatever a foreign file makes it meet
        raise InvalidParameter(
            f"{path} does not fit ({type(error).__name__}: {str(error).splitlines()[0]}). Expected "
            "the weights of MobileNetV3 small without its top (`include_top=False`), as `.h5` or "
            "`.weights.h5`."
        ) from error
    return features
