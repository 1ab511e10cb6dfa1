"""What decides how a run comes out: its settings, checked before any work starts."""

import platform
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from wbc_helpers import __version__
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.images import check_size
from wbc_helpers.recipes import RECIPES
from wbc_helpers.runtime import Runtime

VALIDATION_SPLITS = ("random", "grouped")

_WITHOUT_TRAINING = ("smallest", "turned")  # what of a recipe leaves the trained network alone


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides how a run comes out, beside the data and the machine.

    Left out, a value is the recipe's own (see `recipes.RECIPES`).

    Attributes
    ----------
    recipe : str
        Key of `recipes.RECIPES`.
    epochs : int
        Passes over the training images, 1 to 10,000.
    batch_size : int
        Images a step, 1 to 4,096.
    image_size : (height, width)
        Pixels, each 16 to 1,024.
    learning_rate : float
        Above 0, at most 1.
    validation : str
        `random`, the paper's, which is leaky; or `grouped`, by photograph.
    validation_fraction : float
        Part of TRAIN set aside, above 0 and below 1.
    seed : int
        Of the split, the initial weights, the order of the images and the dropout; 0 to 2³²−1.

    Raises
    ------
    InvalidParameter
        If a value has a wrong type or lies outside its range.
    """

    recipe: str = "paper"
    epochs: int | None = None
    batch_size: int | None = None
    image_size: tuple[int, int] | None = None
    learning_rate: float | None = None
    validation: str | None = None
    validation_fraction: float | None = None
    seed: int = 0

    def __post_init__(self):
        """Fill in the recipe's own values, then check all."""
        if self.recipe not in RECIPES:
            raise InvalidParameter(
                f"recipe={self.recipe!r} is unknown. Expected one of {', '.join(RECIPES)}."
            )
        for setting in fields(self):
            if getattr(self, setting.name) is None:
                recipes_own = getattr(RECIPES[self.recipe], setting.name)
                object.__setattr__(self, setting.name, recipes_own)
        check_whole("epochs", self.epochs, 1, 10_000)
        check_whole("batch_size", self.batch_size, 1, 4_096)
        check_whole("seed", self.seed, 0, 2**32 - 1)
        check_fraction("learning_rate", self.learning_rate, includes_one=True)
        check_fraction("validation_fraction", self.validation_fraction)
        if self.validation not in VALIDATION_SPLITS:
            raise InvalidParameter(
                f"validation={self.validation!r} is unknown. Expected one of "
                f"{', '.join(VALIDATION_SPLITS)}."
            )
        object.__setattr__(self, "image_size", check_size(self.image_size))
        recipe = RECIPES[self.recipe]
        height, width = self.image_size
        if min(height, width) < recipe.smallest or (recipe.sees == "cell" and height != width):
            raise InvalidParameter(
                f"image_size={self.image_size} is not usable with recipe={self.recipe!r}. Expected "
                + ("a square, since a cell can lie in any direction, " if recipe.sees == "cell"
                   else "sides ")
                + f"of at least {recipe.smallest} pixels, such as {recipe.image_size}."
            )  # fmt: skip


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    """Refuse what is no whole number from `low` to `high`.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
        Expected: an int.
    low, high : int
        The range, both ends included.

    Raises
    ------
    InvalidParameter
        If it is anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidParameter(
            f"{name}={value!r} is not usable. Expected a whole number from {low:,} to {high:,}."
        )


def check_fraction(name: str, value: object, includes_one: bool = False) -> None:
    """Refuse what is no number between 0 and 1.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
        Expected: a number above 0 and below 1.
    includes_one : bool
        Allow 1, too.

    Raises
    ------
    InvalidParameter
        If it is anything else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (0 < value < 1 or (includes_one and value == 1)):
        raise InvalidParameter(
            f"{name}={value!r} is not usable. Expected a number above 0 and "
            f"{'at most' if includes_one else 'below'} 1."
        )


def check_choice(name: str, value: object, choices: Sequence[Any]) -> None:
    """Refuse what is none of the choices.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
        Expected: one of `choices`.
    choices : sequence
        What there is to choose from.

    Raises
    ------
    InvalidParameter
        If it is anything else.
    """
    if value not in choices:
        raise InvalidParameter(
            f"{name}={value!r} is not usable. Expected one of {', '.join(map(str, choices))}."
        )


def check_folder(name: str, value: object, root: Path) -> Path:
    """Check the name of a folder that a person gave.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    value : object
        Expected: a path; `~` stands for the home folder.
    root : Path
        Folder from which a relative path is meant.

    Returns
    -------
    Path
        Absolute. The folder need not exist.

    Raises
    ------
    InvalidParameter
        If it is no path, or a file stands there.
    """
    if not isinstance(value, str | Path) or not str(value).strip():
        raise InvalidParameter(
            f"{name}={value!r} is no folder. Expected a path, absolute or from the project's."
        )
    folder = (root / Path(value).expanduser()).absolute()
    if folder.exists() and not folder.is_dir():
        raise InvalidParameter(f"{name}={value!r} is a file. Expected a folder, or a new name.")
    return folder


def describe(
    settings: TrainingSettings, data: dict[str, Any], runtime: Runtime | None
) -> dict[str, Any]:
    """Put together what `settings.json` records of a run.

    Parameters
    ----------
    settings : TrainingSettings
        The training settings.
    data : dict
        `source`, `title`, `drawn`, `digest`, `n_images`, `folder` of the data set.
    runtime : Runtime or None
        What it runs on.

    Returns
    -------
    dict
        Keys `created`, `training`, `data`, `runtime`, `versions`; ready for JSON.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "training": with_recipe(settings),
        "data": data,
        "runtime": asdict(runtime) if runtime else None,
        "versions": versions(),
    }


def with_recipe(settings: TrainingSettings) -> dict[str, Any]:
    """Put training settings into a dictionary, with what else the recipe decides.

    A run whose recipe has changed since is then known as another, and not gone on with.

    Parameters
    ----------
    settings : TrainingSettings
        The training settings.

    Returns
    -------
    dict
        Ready for JSON. Of the recipe: `optimizer`, `readings`, and what differs from a recipe's
        defaults.
    """
    recipe = RECIPES[settings.recipe]
    special = {
        each.name: getattr(recipe, each.name)
        for each in fields(recipe)
        if each.default is not MISSING
        and getattr(recipe, each.name) != each.default
        and each.name not in _WITHOUT_TRAINING
    }
    if "views" in special:
        special["views"] = asdict(special["views"])
    return {
        **asdict(settings),
        "image_size": list(settings.image_size),
        "optimizer": recipe.optimizer,
        "readings": {
            name: list(reading) if isinstance(reading, tuple) else reading
            for name, reading in recipe.readings.items()
        },
        **special,
    }


def versions() -> dict[str, str]:
    """Versions of everything that a result depends on.

    Returns
    -------
    dict
        By distribution name; what is not installed is left out.
    """
    found = {
        "wbc_helpers": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "pillow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
