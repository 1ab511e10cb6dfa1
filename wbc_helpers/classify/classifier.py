"""A trained network to ask: from image files to cell types, with the weights that ship.

    from wbc_helpers.classify import classifier
    classifier.load().classify(["smear.jpg"])

What it was trained on, how well it does and what it is not for stands in its model card,
`wbc_helpers/weights/compact.md`.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers import cells
from wbc_helpers.errors import DataNotFound, InvalidParameter, UnreadableImage
from wbc_helpers.evaluate import confidence
from wbc_helpers.evaluate.classification import PROBABILITIES
from wbc_helpers.pixels import scale, stain, white_cells
from wbc_helpers.pixels.images import read_image
from wbc_helpers.runs import folders
from wbc_helpers.runs.recipes import RECIPES

AT_A_TIME = 256
"""Images that are held in memory at once."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network, from crops to probabilities, with all that it takes to answer for an image file.

    `about` says what the network is: `recipe`, `image_size`, `temperature`, `threshold`, and where
    it comes from.
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
            Diameter of the red cells in pixels. By default it is estimated, to 12 % (standard
            deviation) of a single image, of many more closely.

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
        check_several(images)
        images = [image if isinstance(image, str | Path) else checked(image) for image in images]
        red_cell = scale.red_cell_of(images, red_cell)
        tables = []
        with tqdm(total=len(images), desc="naming", unit="image", disable=not progress) as bar:
            for start in range(0, len(images), AT_A_TIME):
                at_once = images[start : start + AT_A_TIME]
                tables.append(self._classify_at_once(at_once, red_cell))
                bar.update(len(at_once))
        if not tables:
            return self._tabulate([], np.zeros((0, len(cells.NAMES))), np.zeros(0, bool))
        return pd.concat(tables, ignore_index=True)

    def _classify_at_once(self, images: list, red_cell: float) -> pd.DataFrame:
        size = self.about["image_size"][0]
        crops = np.zeros((len(images), size, size, 3), np.uint8)
        has_cell = np.zeros(len(images), bool)

        def look_at(row: int) -> None:
            image = images[row]
            pixels = read_image(image) if isinstance(image, str | Path) else image
            if white := white_cells.locate(pixels, red_cell):
                crops[row] = white_cells.cut_out(stain.balance(pixels), white[0], size, red_cell)
                has_cell[row] = True

        # Pillow and OpenCV release Python's lock while they work.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(look_at, range(len(images))))
        return self._tabulate(images, self.probabilities(crops), has_cell)

    def cut_boxed(self, photograph: np.ndarray, boxes: np.ndarray, red_cell: float) -> np.ndarray:
        """Cut boxed white cells out of a photograph, as this network learned to see them.

        Each crop is centred on the nucleus that lies nearest to the middle of its box, since crops
        to learn from are centred on nuclei; on that middle, where no nucleus lies in the box. From
        RGB, (height, width, 3) uint8, boxes, (n, 4) with columns `cells.BOX`, and the diameter of
        the red cells, all in pixels, to (n, size, size, 3) uint8.
        """
        size = self.about["image_size"][0]
        crops = np.empty((len(boxes), size, size, 3), np.uint8)
        if not len(boxes):
            return crops
        balanced, located = stain.balance(photograph), white_cells.locate(photograph, red_cell)
        for row, (x_min, y_min, x_max, y_max) in enumerate(np.asarray(boxes, float)):
            x, y = (x_min + x_max - 1) / 2, (y_min + y_max - 1) / 2
            inside = [
                cell for cell in located if x_min <= cell.x <= x_max and y_min <= cell.y <= y_max
            ]
            middle = white_cells.WhiteCell(x, y, x_min, y_min, x_max, y_max, 0.0, False)
            apart = [np.hypot(cell.x - x, cell.y - y) for cell in inside]
            cell = inside[int(np.argmin(apart))] if inside else middle
            crops[row] = white_cells.cut_out(balanced, cell, size, red_cell)
        return crops

    def probabilities(self, crops: np.ndarray) -> np.ndarray:
        """Calibrated probabilities for crops, (n, 4) float64, in the order of `cells.NAMES`.

        Their temperature was fitted on photographs which the network had not seen. Crops are (n,
        size, size, 3) uint8, see `white_cells.cut_out`.
        """
        from wbc_helpers.classify import networks

        if not len(crops):
            return np.zeros((0, len(cells.NAMES)))
        return confidence.apply_temperature(
            networks.answer(self.about["recipe"], self.model, crops), self.about["temperature"]
        )

    def _tabulate(
        self, images: list, probabilities: np.ndarray, has_cell: np.ndarray
    ) -> pd.DataFrame:
        files = [str(image) if isinstance(image, str | Path) else "" for image in images]
        table = pd.DataFrame({"file": files}, dtype="string")
        table["found"] = has_cell
        best = probabilities.argmax(axis=1)
        table["cell_type"] = pd.array(np.array(cells.NAMES)[best], dtype="string")
        table["probability"] = probabilities.max(axis=1, initial=0)
        table[list(PROBABILITIES)] = probabilities
        answered = table["probability"] >= self.about["threshold"]
        table["answered"] = answered.astype("boolean")
        unknown = ["cell_type", "probability", *PROBABILITIES, "answered"]
        table.loc[~has_cell, unknown] = pd.NA
        return table


def check_several(images: object) -> None:
    """Raise `InvalidParameter` where a single image, or its path, stands for several."""
    if isinstance(images, str | Path | np.ndarray):
        raise InvalidParameter(
            f"One {type(images).__name__} was given. Expected several images: put a single one "
            "into a list."
        )


def checked(image: Any) -> np.ndarray:
    """Raise `UnreadableImage` unless this is a (height, width, 3) array of uint8; make it dense."""
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
    """Load a network whose weights ship with the package: `compact`.

    Raises `InvalidParameter` if no such weights ship.
    """
    return Classifier(*folders.load_shipped(name, "recipe", _build))


def _build(about: dict[str, Any]) -> Any:
    from wbc_helpers.classify import networks

    return networks.build(about["recipe"], tuple(about["image_size"]), None)


def of_run(run: folders.Run) -> Classifier:
    """Make a classifier of a complete run that looks at white cells.

    It answers every question: a run has no threshold of its own. Its temperature is that of its
    `calibration.json`; 1, if it was not evaluated. Raises `InvalidParameter` if its recipe looks at
    whole images, and `BrokenRun`, see `networks.load`.
    """
    from wbc_helpers.classify import networks

    training = run.settings["training"]
    if RECIPES[training["recipe"]].sees != "cell":
        raise InvalidParameter(
            f"The run {run.name!r} looks at whole images of the published set. Expected a run "
            "whose recipe cuts the white cell out, such as compact."
        )
    try:
        temperature = confidence.read_calibration(run.folder).temperature
    except DataNotFound:
        temperature = 1.0
    facts = {key: training[key] for key in ("recipe", "image_size")}
    about = {**facts, "temperature": temperature, "threshold": 0.0}
    return Classifier(networks.load(run), about)


def ship(classifier: Classifier, folder: Path, name: str = "compact") -> None:
    """Write a classifier as it ships; `about` is what its JSON will hold. See `folders.ship`."""
    folders.ship(classifier.model, classifier.about, _build, folder, name)
