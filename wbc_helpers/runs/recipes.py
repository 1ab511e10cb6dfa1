"""The training recipes in one table, and the settings of a run, checked before any work starts."""

import platform
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Protocol

from wbc_helpers import __version__
from wbc_helpers.cells import LEUKOCYTES, NAMES, OTHER
from wbc_helpers.errors import InvalidParameter, check_choice, check_fraction, check_whole
from wbc_helpers.pixels.images import check_size
from wbc_helpers.pixels.views import Views
from wbc_helpers.runs.backend import Runtime


@dataclass(frozen=True)
class Recipe:
    """A network, built by `classify.networks`, and how it is trained unless told otherwise.

    What `TrainingSettings` has too is its default there.

    Attributes
    ----------
    name, title : str
        Short name, as in `RECIPE=`, and one for people.
    readings : dict
        How the recipe fills what its source leaves open.
    sees : str
        What the network is shown: the whole `image`, or the white `cell` cut out of it.
    views, images_per_epoch
        How training draws new views of each cell from its photograph; None shows the images as
        they are. Views drawn an epoch; None: as many as there are images.
    schedule, weight_decay
        Of the learning rate: `constant`, or `cosine`, which warms up and ends near zero; and of the
        optimizer, decoupled from the gradient.
    label_smoothing : float
        Part of each label that is spread over all types, 0–1: some published labels are doubtful.
    smallest : int
        Pixels of the smallest side that the network can be shown.
    answers : tuple of str
        What the network can answer, in the order of its outputs.
    balanced : bool
        Whether crops are brought to one strength of stain, see `stain.balance`; else their
        background is made white, and no more.
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
    answers: tuple[str, ...] = NAMES
    balanced: bool = True
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
    "broad": Recipe(
        name="broad",
        title="broad: several laboratories",
        epochs=12,
        batch_size=128,
        learning_rate=0.003,
        optimizer="adamw",
        image_size=(80, 80),
        validation="grouped",
        validation_fraction=0.1,
        readings={"filters": (32, 64, 96, 128, 160), "dropout": 0.3, "mixed": 0.5},
        sees="cell",
        views=Views(
            zoom=0.3,
            stain=1.0,
            blur=0.35,
            most_blur=1.6,
            sharpen=0.3,
            recolor=0.4,
            transfer=0.5,
            sharpness=1.0,
        ),
        images_per_epoch=6_400,
        schedule="cosine",
        weight_decay=0.001,
        label_smoothing=0.1,
        answers=(*LEUKOCYTES, OTHER),
        balanced=False,
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
VALIDATION_SPLITS = {
    "random": "A random part of TRAIN is set aside, as in the paper. That split leaks: TRAIN shows "
    "each photographed cell about 36 times, so that nearly every validation image has a sister in "
    "the training part. Read the validation accuracy as: how well are these photographs recognised "
    "again?",
    "grouped": "Whole photographs of TRAIN are set aside, overlapping ones together, so that no "
    "validation image shows a cell to train on.",
}
"""How validation images are chosen, and what that means for their scores."""
_WITHOUT_TRAINING = (
    "answers",
    "smallest",
    "turned",
)  # what of a recipe leaves the trained network alone
OF_ONE_DATA_SET = tuple(name for name, recipe in RECIPES.items() if recipe.answers == NAMES)
"""Recipes that a single set of images is enough for; `broad` learns from several laboratories."""
FROM_RECIPE: Any = None  # of settings, until they are filled in


class Settings(Protocol):
    """What decides how a run comes out, beside the data and the machine."""

    def to_dict(self) -> dict[str, Any]:
        """Give out all of it, ready for JSON, among it `recipe`, `epochs`, `batch_size`, `seed`."""


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides how a run of a recipe comes out, beside the data and the machine.

    Left out, a value is that of the `recipe`, a key of `RECIPES`; none is None afterwards. One of a
    wrong type or outside its range raises `InvalidParameter`.

    Attributes
    ----------
    epochs, batch_size : int
        Passes over the training images, 1 to 10,000; images a step, 1 to 4,096.
    image_size : (height, width)
        Pixels, each 16 to 1,024.
    learning_rate, validation_fraction : float
        Above 0, at most 1; and the part of TRAIN that is set aside, above 0 and below 1.
    validation : str
        `random`, the paper's, which is leaky; or `grouped`, by photograph.
    seed : int
        Of the split, the initial weights, the order of the images and the dropout; 0 to 2³²−1.

    Examples
    --------
    >>> TrainingSettings("compact", seed=1).image_size
    (64, 64)
    """

    recipe: str = "paper"
    epochs: int = FROM_RECIPE
    batch_size: int = FROM_RECIPE
    image_size: tuple[int, int] = FROM_RECIPE
    learning_rate: float = FROM_RECIPE
    validation: str = FROM_RECIPE
    validation_fraction: float = FROM_RECIPE
    seed: int = 0

    def __post_init__(self):
        """Fill in the recipe's own values, then check all."""
        check_choice("recipe", self.recipe, tuple(RECIPES))
        recipe = RECIPES[self.recipe]
        values = {
            name: getattr(recipe, name) if value is None else value
            for name, value in vars(self).items()
        }
        for name, low, high in (
            ("epochs", 1, 10_000), ("batch_size", 1, 4_096), ("seed", 0, 2**32 - 1),
        ):  # fmt: skip
            values[name] = check_whole(name, values[name], low, high)
        check_fraction("learning_rate", values["learning_rate"], includes_one=True)
        check_fraction("validation_fraction", values["validation_fraction"])
        check_choice("validation", values["validation"], tuple(VALIDATION_SPLITS))
        values["image_size"] = height, width = check_size(values["image_size"])
        if min(height, width) < recipe.smallest or (recipe.sees == "cell" and height != width):
            raise InvalidParameter(
                f"image_size={(height, width)} is not usable with recipe={self.recipe!r}. Expected "
                + ("a square, since a cell can lie in any direction, " if recipe.sees == "cell"
                   else "sides ")
                + f"of at least {recipe.smallest} pixels, such as {recipe.image_size}."
            )  # fmt: skip
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def default_name(self, source: str) -> str:
        """Name a run after what makes it differ: recipe, data, epochs, and a seed other than 0."""
        seed = f"-seed{self.seed}" if self.seed else ""
        usual = RECIPES[self.recipe].validation
        validation = "" if self.validation == usual else f"-{self.validation}"
        return f"{self.recipe}-{source}-{self.epochs}{validation}{seed}"

    def to_dict(self) -> dict[str, Any]:
        """Give out the settings, and of the recipe `optimizer`, `readings` and what is special.

        A run whose recipe has changed since is then known as another, and not gone on with.
        """
        recipe = RECIPES[self.recipe]
        special = {
            attribute.name: getattr(recipe, attribute.name)
            for attribute in fields(recipe)
            if attribute.default is not MISSING
            and getattr(recipe, attribute.name) != attribute.default
            and attribute.name not in _WITHOUT_TRAINING
        }
        if "views" in special:
            special["views"] = asdict(special["views"])
        return {
            **asdict(self),
            "image_size": list(self.image_size),
            "optimizer": recipe.optimizer,
            "readings": {
                name: list(reading) if isinstance(reading, tuple) else reading
                for name, reading in recipe.readings.items()
            },
            **special,
        }


def describe(settings: Settings, data: dict[str, Any], runtime: Runtime | None) -> dict[str, Any]:
    """Put together what `settings.json` records of a run, ready for JSON.

    Of TrainingSettings or DetectorSettings, of the data set's `source`, `title`, `drawn`, `digest`,
    `n_images` and `folder`, and of what it runs on, under `training`, `data` and `runtime`; with
    `created` and `versions`.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "training": settings.to_dict(),
        "data": data,
        "runtime": asdict(runtime) if runtime else None,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of everything that a result depends on, by name; without what is not installed."""
    installed = {
        "wbc_helpers": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "pillow"):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
