"""A trained network to ask: from image files to cell types, with the weights that ship.

    from wbc_helpers import classifier
    load().classify(["smear.jpg"])

What it was trained on, how well it does and what it is not for stands in its model card,
`wbc_helpers/weights/compact.md`.
"""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.errors import BrokenRun, DataNotFound, InvalidParameter, UnreadableImage
from wbc_helpers.evaluate import calibration
from wbc_helpers.evaluate.classification import PROBABILITIES
from wbc_helpers.pixels import scale, stain, white_cells
from wbc_helpers.pixels.images import read_image
from wbc_helpers.runs import backend, folders
from wbc_helpers.runs.recipes import RECIPES

AT_A_TIME = 256
"""Images that are held in memory at once."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network with all that it takes to answer for an image file.

    Attributes
    ----------
    model : keras.Model
        From crops to probabilities.
    about : dict
        What the network is: `recipe`, `image_size`, `temperature`, `threshold`, and where it
        comes from.
    """

    model: Any
    about: dict[str, Any]

    def classify(
        self,
        images: Iterable[str | Path | np.ndarray],
        red_cell: float | None = None,
        progress: bool = False,
    ) -> pd.DataFrame:
        """Name the white cell of each image.

        Parameters
        ----------
        images : iterable of path, or of (height, width, 3) ndarray of uint8
            RGB images of one magnification, each with one white cell; of several the largest is
            named.
        red_cell : float, optional
            Diameter of the red cells in pixels. By default it is estimated, of a single image to
            12 % (standard deviation), of many more closely.
        progress : bool
            Show a progress bar.

        Returns
        -------
        DataFrame
            One row an image. `file` (empty for an array), `found`: whether a white cell was found;
            if not, all else but `file` is missing. `cell_type`, the most probable, and
            `probability`; one column for each of `classification.PROBABILITIES`; `answered`:
            whether the probability reaches the threshold below which the question is better left to
            a haematologist.

        Raises
        ------
        UnreadableImage
            If a file is not a complete image.
        InvalidParameter
            If `red_cell` is no usable number, or too few red cells are seen to estimate it.
        """
        if isinstance(images, str | Path | np.ndarray):
            raise InvalidParameter(
                f"One {type(images).__name__} was given. Expected several images: put a single one "
                "into a list."
            )
        images = [each if isinstance(each, str | Path) else checked(each) for each in images]
        red_cell = scale.red_cell_of(images, red_cell)
        tables = []
        with tqdm(total=len(images), desc="naming", unit="image", disable=not progress) as bar:
            for start in range(0, len(images), AT_A_TIME):
                some = images[start : start + AT_A_TIME]
                tables.append(self._classify_some(some, red_cell))
                bar.update(len(some))
        if not tables:
            return self._tabulate([], np.zeros((0, len(cells.NAMES))), np.zeros(0, bool))
        return pd.concat(tables, ignore_index=True)

    def _classify_some(self, images: list, red_cell: float) -> pd.DataFrame:
        size = self.about["image_size"][0]
        shown = np.zeros((len(images), size, size, 3), np.uint8)
        found = np.zeros(len(images), bool)

        def look_at(row: int) -> None:
            image = images[row]
            pixels = read_image(image) if isinstance(image, str | Path) else image
            if seen := white_cells.locate(pixels, red_cell):
                shown[row] = white_cells.cut_out(stain.balance(pixels), seen[0], size, red_cell)
                found[row] = True

        # Pillow and OpenCV release Python's lock while they work.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(look_at, range(len(images))))
        return self._tabulate(images, self.probabilities(shown), found)

    def cut_boxed(self, photograph: np.ndarray, boxes: np.ndarray, red_cell: float) -> np.ndarray:
        """Cut boxed white cells out of a photograph, as this network learned to see them.

        Parameters
        ----------
        photograph : ndarray, (height, width, 3) uint8
            RGB.
        boxes : ndarray, (n, 4) float
            Columns `cells.BOX`, in pixels.
        red_cell : float
            Diameter of the red cells in pixels.

        Returns
        -------
        ndarray, (n, size, size, 3) uint8
            For `probabilities`. Each is centred on the nucleus that lies nearest to the middle of
            its box, since crops to learn from are centred on nuclei; on that middle, where no
            nucleus lies in the box.
        """
        size = self.about["image_size"][0]
        crops_of_boxes = np.empty((len(boxes), size, size, 3), np.uint8)
        if not len(boxes):
            return crops_of_boxes
        balanced, located = stain.balance(photograph), white_cells.locate(photograph, red_cell)
        for row, (x_min, y_min, x_max, y_max) in enumerate(np.asarray(boxes, float)):
            x, y = (x_min + x_max - 1) / 2, (y_min + y_max - 1) / 2
            inside = [
                cell for cell in located if x_min <= cell.x <= x_max and y_min <= cell.y <= y_max
            ]
            middle = white_cells.WhiteCell(x, y, x_min, y_min, x_max, y_max, 0.0, False)
            apart = [np.hypot(cell.x - x, cell.y - y) for cell in inside]
            cell = inside[int(np.argmin(apart))] if inside else middle
            crops_of_boxes[row] = white_cells.cut_out(balanced, cell, size, red_cell)
        return crops_of_boxes

    def probabilities(self, shown: np.ndarray) -> np.ndarray:
        """Calibrated probabilities for crops.

        Parameters
        ----------
        shown : ndarray, (n, size, size, 3) uint8
            See `white_cells.cut_out`.

        Returns
        -------
        ndarray, (n, 4) float64
            In the order of `cells.NAMES`, at the temperature that was fitted on photographs
            which the network had not seen.
        """
        from wbc_helpers.classify import networks

        if not len(shown):
            return np.zeros((0, len(cells.NAMES)))
        return calibration.apply_temperature(
            networks.answer(self.about["recipe"], self.model, shown), self.about["temperature"]
        )

    def _tabulate(self, images: list, probabilities: np.ndarray, found: np.ndarray) -> pd.DataFrame:
        table = pd.DataFrame(
            {"file": [str(each) if isinstance(each, str | Path) else "" for each in images]},
            dtype="string",
        )
        table["found"] = found
        best = probabilities.argmax(axis=1)
        table["cell_type"] = pd.array(np.array(cells.NAMES)[best], dtype="string")
        table["probability"] = probabilities.max(axis=1, initial=0)
        table[list(PROBABILITIES)] = probabilities
        answered = table["probability"] >= self.about["threshold"]
        table["answered"] = answered.astype("boolean")
        unknown = ["cell_type", "probability", *PROBABILITIES, "answered"]
        table.loc[~found, unknown] = pd.NA
        return table


def checked(image: Any) -> np.ndarray:
    """Refuse an array that is no image.

    Parameters
    ----------
    image : object
        Expected: (height, width, 3) ndarray of uint8.

    Returns
    -------
    ndarray
        The same, contiguous.

    Raises
    ------
    UnreadableImage
        If it is anything else.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        if image.ndim == 3 and image.shape[2] == 3 and min(image.shape) > 0:
            return np.ascontiguousarray(image)
        raise UnreadableImage(
            f"An array of shape {image.shape} is no colour image. Expected (height, width, 3)."
        )
    raise UnreadableImage(
        f"{type(image).__name__} {getattr(image, 'dtype', '')} is no image. Expected a path, or an "
        "RGB array of uint8."
    )


def load(name: str = "compact") -> Classifier:
    """Load a network whose weights ship with the package.

    Parameters
    ----------
    name : str
        `compact`.

    Returns
    -------
    Classifier

    Raises
    ------
    InvalidParameter
        If no such weights ship.
    """
    folder = resources.files("wbc_helpers") / "weights"
    if not isinstance(name, str) or not (folder / f"{name}.json").is_file():
        files = [each.name for each in folder.iterdir()] if folder.is_dir() else []
        shipped = ", ".join(sorted(each[:-5] for each in files if each.endswith(".json"))) or "none"
        raise InvalidParameter(
            f"No weights {name!r} ship with this package. Expected one of those that do: {shipped}."
        )
    # Before Keras is imported, which asks for its backend then.
    backend.choose()
    from wbc_helpers.classify import networks

    about = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    model = networks.build(about["recipe"], tuple(about["image_size"]), None)
    with resources.as_file(folder / f"{name}.weights.h5") as path:
        model.load_weights(path)
    return Classifier(model, about)


def of_run(run: folders.Run) -> Classifier:
    """Make a classifier of a trained run that looks at white cells.

    Parameters
    ----------
    run : Run
        Complete; its `calibration.json`, if it was evaluated, gives the temperature.

    Returns
    -------
    Classifier
        It answers every question: a run has no threshold of its own.

    Raises
    ------
    InvalidParameter
        If its recipe looks at whole images.
    BrokenRun
        See `networks.load`.
    """
    backend.choose()  # before Keras is imported, see `load`
    from wbc_helpers.classify import networks

    training = run.settings["training"]
    if RECIPES[training["recipe"]].sees != "cell":
        raise InvalidParameter(
            f"The run {run.name!r} looks at whole images of the published set. Expected a run "
            "whose recipe cuts the white cell out, such as compact."
        )
    try:
        temperature = calibration.read_calibration(run.folder).temperature
    except DataNotFound:
        temperature = 1.0
    about = {
        "recipe": training["recipe"], "image_size": training["image_size"],
        "temperature": temperature, "threshold": 0.0,
    }  # fmt: skip
    return Classifier(networks.load(run), about)


def ship(run: folders.Run, about: dict[str, Any], folder: Path, name: str = "compact") -> None:
    """Write a run's weights as they ship: `<name>.weights.h5` without the optimizer, and its facts.

    Parameters
    ----------
    run : Run
        Complete.
    about : dict
        `temperature`, `threshold`, and whatever else says where the weights come from.
    folder : Path
        Where to write.
    name : str
        Under which `load` shall find them.

    Raises
    ------
    BrokenRun
        If the saved weights do not give the run's answers.
    """
    from wbc_helpers.classify import networks

    model = networks.load(run)
    training = run.settings["training"]
    size = tuple(training["image_size"])
    probe = np.random.default_rng(0).integers(0, 256, (4, *size, 3), np.uint8)
    with storage.atomic_file(folder / f"{name}.weights.h5") as partial:
        model.save_weights(partial, overwrite=True)
        again = networks.build(training["recipe"], size, None)
        again.load_weights(partial)
        if not np.allclose(
            networks.predict(model, probe), networks.predict(again, probe), atol=1e-5
        ):
            raise BrokenRun(
                f"The weights of {run.name!r} give other answers after saving, so that nothing was "
                "shipped. Expected a run of this version's recipe; train it again."
            )
    facts = {"recipe": training["recipe"], "image_size": training["image_size"], **about}
    storage.write_json(folder / f"{name}.json", facts)
