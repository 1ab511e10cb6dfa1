"""The training recipes in one declarative table; `models` builds the networks."""

from dataclasses import dataclass, field
from typing import Any

from wbc_helpers.augmentation import Views


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained unless told otherwise.

    Attributes
    ----------
    name, title : str
        Short name, as in `RECIPE=`, and one for people.
    epochs, batch_size, learning_rate, optimizer
        What training uses by default.
    image_size : (height, width)
        Pixels to which images are resampled.
    validation : str
        How validation images are set aside: `random` (leaky) or `grouped`.
    validation_fraction : float
        Part of TRAIN that is set aside.
    readings : dict
        How the recipe fills what its source leaves open.
    sees : str
        What the network is shown: the whole `image`, or the white `cell` cut out of it.
    views : Views or None
        How training draws new views of each cell from its photograph; None shows the images as
        they are.
    images_per_epoch : int or None
        Views drawn an epoch; None: every image once.
    schedule : str
        Of the learning rate: `constant`, or `cosine`, which warms up and ends near zero.
    weight_decay : float
        Of the optimizer, decoupled from the gradient.
    label_smoothing : float
        Part of each label that is spread over all types, 0–1: some published labels are doubtful.
    smallest : int
        Pixels of the smallest side that the network can be shown.
    turned : bool
        Whether an answer is the mean over the eight ways to turn and flip what is shown.
    """

    name: str
    title: str
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str
    image_size: tuple[int, int]
    validation: str
    validation_fraction: float
    readings: dict[str, Any] = field(default_factory=dict)
    sees: str = "image"
    views: Views | None = None
    images_per_epoch: int | None = None
    schedule: str = "constant"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    smallest: int = 16
    turned: bool = False


RECIPES = {
    "paper": Recipe(
        name="paper",
        title="Singh et al. 2020",
        epochs=200,
        batch_size=128,
        learning_rate=0.001,
        optimizer="rmsprop",
        image_size=(48, 64),
        validation="random",
        validation_fraction=0.1,
        readings={"filters": (16, 16, 8, 4), "kernel": 3, "dropout": 0.1},
    ),
    "compact": Recipe(
        name="compact",
        title="compact",
        epochs=15,
        batch_size=32,
        learning_rate=0.003,
        optimizer="adamw",
        image_size=(64, 64),
        validation="grouped",
        validation_fraction=0.1,
        readings={"filters": (16, 32, 64, 96), "dropout": 0.3},
        sees="cell",
        views=Views(),
        images_per_epoch=2_400,
        schedule="cosine",
        weight_decay=0.001,
        label_smoothing=0.1,
        turned=True,
    ),
    "lenet": Recipe(
        name="lenet",
        title="LeNet-like baseline",
        epochs=16,
        batch_size=32,
        learning_rate=0.001,
        optimizer="adam",
        image_size=(120, 160),
        validation="grouped",
        validation_fraction=0.2,
        readings={"filters": (16, 32, 64), "kernel": 3, "units": 64, "dropout": 0.2},
        smallest=22,
    ),
    "pretrained": Recipe(
        name="pretrained",
        title="MobileNetV3 small, pretrained on ImageNet",
        epochs=10,
        batch_size=32,
        learning_rate=0.0001,
        optimizer="adam",
        image_size=(128, 128),
        validation="grouped",
        validation_fraction=0.2,
        readings={"dropout": 0.2},
        sees="cell",
        views=Views(),
        images_per_epoch=2_400,
        label_smoothing=0.1,
        smallest=32,
    ),
}
