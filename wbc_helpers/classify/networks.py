"""The networks that name white cells: one small builder a recipe; how to load them.

How each is trained stands in `runs.recipes`.
"""

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wbc_helpers import cells
from wbc_helpers.errors import BrokenRun, DownloadFailed, InvalidParameter, check_choice
from wbc_helpers.pixels.images import PixelStatistics
from wbc_helpers.runs.backend import keras
from wbc_helpers.runs.folders import Run
from wbc_helpers.runs.recipes import RECIPES

layers = keras.layers


def build(
    recipe: str, image_size: tuple[int, int], statistics: PixelStatistics | None
) -> keras.Model:
    """Build the network of a recipe, a key of `recipes.RECIPES`; it is not compiled.

    It leads from (n, height, width, 3) uint8 RGB to (n, 4) probabilities in the order of
    `cells.NAMES`. The recipe's `readings` fill what its source leaves open. `image_size` is
    (height, width) in pixels; `statistics`, which only `paper` and `lenet` need, are those of the
    training part alone, at the same size. Raises `InvalidParameter` if there is no such recipe, or
    it needs larger images.
    """
    check_choice("recipe", recipe, tuple(BUILDERS))
    return BUILDERS[recipe](image_size, statistics, readings=RECIPES[recipe].readings)


def paper_cnn(
    image_size: tuple[int, int],
    statistics: PixelStatistics,
    readings: Mapping[str, Any] = RECIPES["paper"].readings,
) -> keras.Model:
    """Build the network of Singh et al. [1]_, as far as the paper fixes it.

    What the paper says: the mean image is subtracted and the standard-deviation image divides;
    "convolution, RELU, Batch Normalization, Dropout, and pooling"; "four Convolution layers …
    using three distinct filters with 16, 8 and 4"; after flattening "three dense hidden layers
    of 32, 16 and 8", an output of 4; RMSprop; batches of 128; 200 epochs.

    What it leaves open, and how it is read here:

    - *Image size*: 48 × 64 pixels, the smallest tried.
    - *Kernels*: 3 × 3, with zero padding.
    - *Which filter number occurs twice*: the first, 16, 16, 8, 4.
    - *Order*: as the sentence has it, in each of the four blocks: convolution, ReLU, batch
      normalisation, dropout, then max pooling over 2 × 2.
    - *Dropout*: 0.1. With 0.25 in every block, so few filters hardly begin to learn.
    - *Dense layers*: ReLU, without dropout or normalisation, which the paper names for
      convolutions only.

    Tried beside it, for 14 to 16 epochs with one seed on one grouped validation fold of TRAIN:
    60 × 80 pixels, 5 × 5 kernels, filters 16, 8, 8, 4, and no dropout. All came to 53 to 60 % in
    the mean of the last five epochs, a range no wider than that between epochs, so the cheapest
    was taken. `benchmarks/paper_readings.py` repeats the comparison; TEST has no part in it.

    Images have at least 16 pixels each way, for four poolings. See `build`; `readings` are
    `filters` (four numbers), `kernel` (pixels) and `dropout` (rate, 0–1).

    References
    ----------
    .. [1] I. Singh, N. P. Singh, H. Singh, S. Bawankar, A. Ngom, "Blood Cell Types
       Classification Using CNN", IWBBIO 2020, LNCS 12108, 727–738 (2020).
    """
    smears = keras.Input((*image_size, 3), dtype="uint8", name="smears")
    hidden = standardization(statistics)(smears)
    for filters in readings["filters"]:
        hidden = layers.Conv2D(filters, readings["kernel"], padding="same")(hidden)
        hidden = layers.ReLU()(hidden)
        hidden = layers.BatchNormalization()(hidden)
        hidden = layers.Dropout(readings["dropout"])(hidden)
        hidden = layers.MaxPooling2D()(hidden)
    hidden = layers.Flatten()(hidden)
    for units in (32, 16, 8):
        hidden = layers.Dense(units, activation="relu")(hidden)
    cell_type = layers.Dense(len(cells.NAMES), activation="softmax", name="cell_type")(hidden)
    return keras.Model(smears, cell_type, name="paper_cnn")


def compact_cnn(
    image_size: tuple[int, int],
    statistics: PixelStatistics | None = None,
    readings: Mapping[str, Any] = RECIPES["compact"].readings,
) -> keras.Model:
    """Build the network of the `compact` recipe, which looks at a white cell cut out.

    A convolution of 5 × 5 in steps of two, then convolutions of 3 × 3, each with batch
    normalisation and ReLU, halved by max pooling in between; the average over the field that is
    left, so that the cell's place in it does not matter; dropout; one dense layer. It needs no
    statistics, since the crops' background is white already, see `stain.balance`.

    See `build`; `readings` are `filters` (a number a convolution) and `dropout` (rate, 0–1).
    """
    crops = keras.Input((*image_size, 3), dtype="uint8", name="crops")
    hidden = layers.Rescaling(1 / 128, offset=-1)(crops)
    first, *others = readings["filters"]
    hidden = _normalised(layers.Conv2D(first, 5, 2, padding="same", use_bias=False)(hidden))
    for place, filters in enumerate(others):
        if place:
            hidden = layers.MaxPooling2D()(hidden)
        hidden = _normalised(layers.Conv2D(filters, 3, padding="same", use_bias=False)(hidden))
    hidden = layers.GlobalAveragePooling2D()(hidden)
    hidden = layers.Dropout(readings["dropout"])(hidden)
    cell_type = layers.Dense(len(cells.NAMES), activation="softmax", name="cell_type")(hidden)
    return keras.Model(crops, cell_type, name="compact_cnn")


def broad_cnn(
    image_size: tuple[int, int],
    statistics: PixelStatistics | None = None,
    readings: Mapping[str, Any] = RECIPES["broad"].readings,
) -> keras.Model:
    """Build the network of the `broad` recipe, which is to travel to other laboratories.

    What it sees are absorbances, of each crop and channel brought to mean 0 and standard deviation
    1, so that strength and tint of a stain drop out. The convolutions are those of `compact_cnn`,
    wider; after the first two, `MixedStyle`. It answers with the five types and `other`.

    See `build`; `readings` are `filters` (a number a convolution), `dropout` and `mixed` (0–1), the
    part of the batches whose styles are mixed.
    """
    crops = keras.Input((*image_size, 3), dtype="uint8", name="crops")
    light = layers.Rescaling(1 / 256, offset=1 / 256)(crops)
    absorbances = -keras.ops.log(light)
    mean = keras.ops.mean(absorbances, axis=(1, 2), keepdims=True)
    spread = keras.ops.std(absorbances, axis=(1, 2), keepdims=True)
    hidden = (absorbances - mean) / (spread + 0.05)
    first, *others = readings["filters"]
    hidden = _normalised(layers.Conv2D(first, 5, 2, padding="same", use_bias=False)(hidden))
    hidden = MixedStyle(readings["mixed"])(hidden)
    for place, filters in enumerate(others):
        if place:
            hidden = layers.MaxPooling2D()(hidden)
        hidden = _normalised(layers.Conv2D(filters, 3, padding="same", use_bias=False)(hidden))
        if not place:
            hidden = MixedStyle(readings["mixed"])(hidden)
    hidden = layers.GlobalAveragePooling2D(name="features")(hidden)
    hidden = layers.Dropout(readings["dropout"])(hidden)
    answer = layers.Dense(len(RECIPES["broad"].answers), activation="softmax", name="cell_type")
    return keras.Model(crops, answer(hidden), name="broad_cnn")


@keras.saving.register_keras_serializable("wbc_helpers")
class MixedStyle(keras.layers.Layer):
    """Mixes each image's mean and spread of features with another image's, while training.

    MixStyle [1]_: what tells laboratories apart lies largely in these two. `part` (0–1) is that of
    the batches in which it happens; of a mixture the shares follow Beta(0.2, 0.2).

    References
    ----------
    .. [1] K. Zhou, Y. Yang, Y. Qiao and T. Xiang, Domain generalization with MixStyle, ICLR (2021).
    """

    def __init__(self, part: float, **others):
        super().__init__(**others)
        self.part = part
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, features, training=None):
        """Mix, if this is training."""
        ops = keras.ops
        if not training:
            return features
        mean = ops.mean(features, axis=(1, 2), keepdims=True)
        spread = ops.sqrt(ops.var(features, axis=(1, 2), keepdims=True) + 1e-4)
        share = keras.random.beta(
            (ops.shape(features)[0], 1, 1, 1), 0.2, 0.2, seed=self.seed_generator
        )
        happens = keras.random.uniform((1, 1, 1, 1), seed=self.seed_generator) < self.part
        share = ops.where(happens, share, 1.0)
        # Batches come in random order: the third neighbour is any other image.
        other_mean, other_spread = ops.roll(mean, 3, axis=0), ops.roll(spread, 3, axis=0)
        mixed_spread = share * spread + (1 - share) * other_spread
        mixed_mean = share * mean + (1 - share) * other_mean
        return (features - mean) / spread * mixed_spread + mixed_mean

    def get_config(self):
        """Give out what `__init__` takes."""
        return {**super().get_config(), "part": self.part}


def _normalised(hidden: Any) -> Any:
    # Weights change fast in a training of a thousand steps: with Keras's own momentum of 0.99 the
    # mean that validation uses would lag a hundred steps behind them.
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(hidden))


def lenet(
    image_size: tuple[int, int],
    statistics: PixelStatistics,
    readings: Mapping[str, Any] = RECIPES["lenet"].readings,
) -> keras.Model:
    """Build a network in the manner of LeNet: a plain baseline, larger than the paper's.

    The like of it is often trained on these images, by D. Parthasarathy beside the data set [1]_:
    three times convolution, ReLU and max pooling, one dense layer, dropout. Most of its parameters
    lie in the dense layer, so that their number follows the image size. Pixels are standardised;
    divided by 255 alone, as there, the network was still guessing after four epochs.

    Images have at least 22 pixels each way, for three convolutions without padding and three
    poolings. See `build`; `readings` are `filters` (one number a convolution), `kernel` (pixels),
    `units` of the dense layer and `dropout` (rate, 0–1).

    References
    ----------
    .. [1] https://github.com/dhruvp/wbc-classification, `notebooks/binary_training.ipynb` (2017).
    """
    smallest = 1
    for _ in readings["filters"]:
        smallest = 2 * smallest + readings["kernel"] - 1
    if min(image_size) < smallest:
        raise InvalidParameter(
            f"image_size={image_size[0]}×{image_size[1]} leaves the recipe `lenet` nothing to look "
            f"at after its convolutions. Expected at least {smallest} pixels each way."
        )
    smears = keras.Input((*image_size, 3), dtype="uint8", name="smears")
    hidden = standardization(statistics)(smears)
    for filters in readings["filters"]:
        hidden = layers.Conv2D(filters, readings["kernel"])(hidden)
        hidden = layers.ReLU()(hidden)
        hidden = layers.MaxPooling2D()(hidden)
    hidden = layers.Flatten()(hidden)
    hidden = layers.Dense(readings["units"], activation="relu")(hidden)
    hidden = layers.Dropout(readings["dropout"])(hidden)
    cell_type = layers.Dense(len(cells.NAMES), activation="softmax", name="cell_type")(hidden)
    return keras.Model(smears, cell_type, name="lenet")


def standardization(statistics: PixelStatistics) -> keras.layers.Normalization:
    """Make the layer that subtracts a mean image and divides by a standard-deviation image.

    It is Keras's own `Normalization`, so that a saved model loads without this package; built, from
    uint8 images to float32.
    """
    layer = layers.Normalization(axis=(1, 2, 3), name="mean_and_std_image")
    layer.build((None, *statistics.mean.shape))
    # A pixel that hardly varies (drawn smears, tiny subsets) must not be blown up: one grey
    # level is the smallest spread that 8-bit images can show.
    variance = np.maximum(statistics.std, 1.0) ** 2
    layer.set_weights([statistics.mean, variance, np.array(statistics.n_images)])
    layer.finalize_state()
    return layer


WEIGHTS_VARIABLE = "WBC_BACKBONE_WEIGHTS"
"""Environment variable that names a file of the backbone's weights, used instead of a download."""

SMALLEST = 32
"""Pixels each way that the backbone's five halvings need."""


def pretrained_cnn(
    image_size: tuple[int, int],
    statistics: PixelStatistics | None,
    weights: str | Path | None = "imagenet",
    readings: Mapping[str, Any] = RECIPES["pretrained"].readings,
) -> keras.Model:
    """Build MobileNetV3 small [1]_ with weights learned on ImageNet, and a new head for four types.

    Taken because it is small (939,120 parameters, 4 MB), scales 0–255 pixels itself and runs on
    every backend; no `statistics` are used. All of its convolutions are fine-tuned, which wants a
    learning rate ten times lower than training from nothing. Its batch normalisation stays as
    ImageNet left it: statistics of a few dozen smears would shift every layer at once.

    Of `weights`, `imagenet` takes the file that the environment variable `WBC_BACKBONE_WEIGHTS`
    names, else downloads them (4 MB, once; Keras keeps them in `~/.keras`, or `KERAS_HOME`). A path
    is read; None begins at random, for trials without network. Raises `DownloadFailed` if there is
    no network and no file, and `InvalidParameter` if the images are too small, or the file is
    missing or holds other weights.

    Images have at least 32 pixels each way. See `build`; `readings` are `dropout` (rate, 0–1)
    before the last layer.

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
    """Build the backbone on a `keras.Input`, and load its weights: see `pretrained_cnn`.

    It answers with (n, 576) features, the mean over the last layer's map.
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


BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "paper": paper_cnn,
    "lenet": lenet,
    "compact": compact_cnn,
    "broad": broad_cnn,
    "pretrained": pretrained_cnn,
}


def load(run: Run) -> keras.Model:
    """Load the model of a complete run, in Keras's safe mode: no code in the file is executed.

    Raises `BrokenRun` if the run has not finished, or its file cannot be read, holds code, or holds
    a network of other inputs or outputs.
    """
    path = run.of_training("model.keras")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever a damaged or foreign file makes it meet
        raise BrokenRun(
            f"{path} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Expected a model saved by this project, without code of its own. Train the run anew "
            "under another name."
        ) from error
    shapes = (model.input_shape, model.output_shape)
    answers = RECIPES[run.settings["training"]["recipe"]].answers
    expected = ((None, *run.settings["training"]["image_size"], 3), (None, len(answers)))
    if shapes != expected:
        raise BrokenRun(
            f"{path} holds a network from {shapes[0]} to {shapes[1]}; the run's settings ask for "
            f"{expected[0]} to {expected[1]}. It is not this run's model."
        )
    return model


def count_trainable(model: keras.Model) -> int:
    """Count the parameters that training changes; the mean and the std image are none."""
    return sum(int(np.prod(weights.shape)) for weights in model.trainable_weights)
