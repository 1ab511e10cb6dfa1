"""A trained network to ask: from image files to cell types, with the weights that ship.

    from wbc_helpers.classify import classifier
    classifier.load().classify(["smear.jpg"])

What it was trained on, how well it does and what it is not for stands in its model card,
`wbc_helpers/weights/broad.md`, and of BCCD's own in `compact.md`.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.cells import BOX
from wbc_helpers.classify import teaching
from wbc_helpers.errors import DataNotFound, InvalidParameter, RunExists, UnreadableImage
from wbc_helpers.evaluate import confidence
from wbc_helpers.pixels import scale, stain, white_cells
from wbc_helpers.pixels.images import find_photographs, pixels_of
from wbc_helpers.runs import answering, folders
from wbc_helpers.runs.recipes import RECIPES

AT_A_TIME = 256
"""Images that are held in memory at once."""


_AT_ONCE = 32  # views that the network is shown together: more are no faster, and take memory


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network, from crops to probabilities, with all that it takes to answer for an image file.

    `about` says what the network is: `recipe`, `image_size`, `temperature`, `threshold`, and where
    it comes from. `learned`, where there is such, says what cells the features of its last layer
    are like, and that layer answers; with `about["unlike"]`, how unlike a cell may be that is
    answered for. `laboratory` is what it was taught, see `teaching`; `moved`, (n_features,), how
    far the cells of a folder lie beside those learned from, see `adapted`.
    """

    model: Any
    about: dict[str, Any]
    learned: teaching.Learned | None = None
    laboratory: teaching.Laboratory | None = None
    moved: np.ndarray | None = None

    @property
    def answers(self) -> tuple[str, ...]:
        """What the network can answer, in the order of its probabilities."""
        return RECIPES[self.about["recipe"]].answers

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
            One row an image: `file` (empty for an array), `found`, `cell_type`, `probability`, a
            column `p_…` for each of `answers`, `answered`, `foreign` and `cells.BOX`; see
            `classify_all`.

        Raises
        ------
        UnreadableImage
            If a file is not a complete image.
        InvalidParameter
            If `red_cell` is no usable number, or neither red cells nor a nucleus tell the scale.
        """
        check_several(images)
        images = [image if isinstance(image, str | Path) else checked(image) for image in images]
        widths = scale.widths_of(images, red_cell)
        table, _ = self.classify_all(images, widths, progress, stop=True)
        return (
            table[~table["file_number"].duplicated()]
            .drop(columns="file_number")
            .reset_index(drop=True)
        )

    def classify_all(
        self,
        images: Sequence[str | Path | np.ndarray],
        widths: np.ndarray,
        progress: bool = False,
        stop: bool = False,
    ) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
        """Name all white cells of images, as `classify` does one of each.

        `widths`, (n_images,), are those of each image's red cells, see `scale.widths_of`. Goes on
        after files that cannot be read, unless told to `stop`.

        Returns
        -------
        table : DataFrame
            One row a white cell, the largest nucleus of an image first. `file`; `file_number`, from
            0; `found`: whether a white cell was found; if not, all that follows is missing.
            `cell_type`, the most probable, and `probability`; a column `p_…` for each of
            `answers`; `answered`: whether the answer may be taken, or the question is better left
            to a haematologist; `foreign`, 0–1: how unlike all cells it is that were learned from;
            or, of a network that does not know, how far its answers differ when the cell is turned
            and flipped; `cells.BOX`, in pixels of the file.
        failures : list of (file, what was wrong)
        """
        tables, failures = [], []
        with tqdm(total=len(images), desc="naming", unit="image", disable=not progress) as bar:
            for start in range(0, len(images), AT_A_TIME):
                rows = range(start, min(start + AT_A_TIME, len(images)))
                cells_of, crops, failed = self._cut_at_once(images, rows, widths, stop)
                tables.append(self._tabulate(cells_of, self.name(crops)))
                failures += failed
                bar.update(len(rows))
        if not tables:
            nothing = np.zeros((0, self._size, self._size, 3), np.uint8)
            return self._tabulate([], self.name(nothing)), failures
        return pd.concat(tables, ignore_index=True), failures

    @property
    def threshold(self) -> float:
        """Probability from which on an answer may be taken, 0–1."""
        return self.about["threshold"] if self.laboratory is None else self.laboratory.threshold

    @property
    def _size(self) -> int:
        return self.about["image_size"][0]

    def _light(self, image: np.ndarray) -> np.ndarray:
        """Bring an image to the light, and for some recipes the stain, that was learned."""
        balanced = RECIPES[self.about["recipe"]].balanced
        return stain.balance(image) if balanced else stain.whiten(image)

    def classify_adapted(
        self, images: Sequence[str | Path | np.ndarray], widths: np.ndarray, progress: bool = False
    ) -> tuple["Classifier", pd.DataFrame, list[tuple[str, str]]]:
        """Adapt to images of one folder, see `adapted`, and name all their white cells.

        What it adapts to are up to `AT_A_TIME` of the images, evenly spread. Returns the network
        that named them, and table and failures as `classify_all`.
        """
        self.check_adapts()
        n = min(len(images), AT_A_TIME)
        rows = np.linspace(0, len(images) - 1, n).astype(int).tolist()
        cells_of, crops, failures = self._cut_at_once(images, rows, widths, False, progress)
        features = self.features(crops)
        network = self.adapted(features)
        if n < len(images):
            return network, *network.classify_all(images, widths, progress)
        return network, network._tabulate(cells_of, network.name_by(features)), failures

    def crops_of(self, images: Sequence[str | Path | np.ndarray], widths: np.ndarray) -> np.ndarray:
        """Cut out all white cells of images that can be read, (n, size, size, 3) uint8.

        `widths`: see `classify_all`. All images are held in memory at once.
        """
        return self._cut_at_once(images, range(len(images)), widths, stop=False)[1]

    def _cut_at_once(
        self,
        images: Sequence,
        rows: Sequence[int],
        widths: np.ndarray,
        stop: bool,
        progress: bool = False,
    ) -> tuple[
        list[tuple[str, int, white_cells.WhiteCell | None]], np.ndarray, list[tuple[str, str]]
    ]:
        def look_at(row: int) -> list[tuple[white_cells.WhiteCell, np.ndarray]] | UnreadableImage:
            try:
                pixels = pixels_of(images[row])
            except UnreadableImage as error:
                if stop:
                    raise
                return error
            white = white_cells.locate(pixels, widths[row])
            light = self._light(pixels) if white else pixels
            crops = white_cells.cut_out_all(light, white, self._size, widths[row])
            return list(zip(white, crops, strict=True))

        # Pillow and OpenCV release Python's lock while they work.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            looked = pool.map(look_at, rows)
            seen = list(tqdm(looked, "adapting", len(rows), unit="image", disable=not progress))
        failures: list[tuple[str, str]] = []
        cells_of: list[tuple[str, int, white_cells.WhiteCell | None]] = []
        crops: list[np.ndarray] = []
        for row, of_image in zip(rows, seen, strict=True):
            image = images[row]
            file = str(image) if isinstance(image, str | Path) else ""
            if isinstance(of_image, UnreadableImage):
                failures.append((file, f"{type(of_image).__name__}: {of_image}"))
                continue
            cells_of += [(file, row, cell) for cell, _ in of_image] or [(file, row, None)]
            crops += [crop for _, crop in of_image]
        stacked = np.stack(crops) if crops else np.zeros((0, self._size, self._size, 3), np.uint8)
        return cells_of, stacked, failures

    def cut_boxed(self, photograph: np.ndarray, boxes: np.ndarray, red_cell: float) -> np.ndarray:
        """Cut boxed white cells out of a photograph, as this network learned to see them.

        Each crop is centred on the nucleus that lies nearest to the middle of its box, since crops
        to learn from are centred on nuclei; on that middle, where no nucleus lies in the box. From
        RGB, (height, width, 3) uint8, boxes, (n, 4) with columns `cells.BOX`, and the diameter of
        the red cells, all in pixels, to (n, size, size, 3) uint8.
        """
        if not len(boxes):
            return np.empty((0, self._size, self._size, 3), np.uint8)
        light, located = self._light(photograph), white_cells.locate(photograph, red_cell)
        cells_meant = [white_cells.meant(located, box) for box in np.asarray(boxes, float)]
        return white_cells.cut_out_all(light, cells_meant, self._size, red_cell)

    def probabilities(self, crops: np.ndarray) -> np.ndarray:
        """Calibrated probabilities for crops, (n, n_answers) float64, in the order of `answers`.

        Their temperature was fitted on photographs which the network had not seen. Crops are (n,
        size, size, 3) uint8, see `white_cells.cut_out`.
        """
        return self._looked_at(crops)[0]

    def features(self, crops: np.ndarray) -> np.ndarray:
        """Ask what the last layer goes by, of each way to look: (n_ways, n, n_features) float32."""
        if not len(crops):
            assert self.learned is not None
            return np.zeros((1, 0, len(self.learned.centre)), np.float32)
        recipe = RECIPES[self.about["recipe"]]
        return answering.look(answering.featured(self.model), crops, recipe.turned, _AT_ONCE)

    def _looked_at(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated probabilities, and how foreign each crop is, 0–1: see `classify_all`."""
        if not len(crops):
            return np.zeros((0, len(self.answers))), np.zeros(0)
        if self.learned is None:
            ways = answering.look(self.model, crops, RECIPES[self.about["recipe"]].turned, _AT_ONCE)
            mean = ways.mean(axis=0)
            foreign = np.abs(ways - mean).sum(axis=2).mean(axis=0) / 2
            return confidence.apply_temperature(mean, self.about["temperature"]), foreign
        return self._weighed(self.features(crops))

    def _weighed(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Say of features what `_looked_at` says of crops."""
        assert self.learned is not None
        if self.laboratory is not None:
            own = features.mean(axis=0)
            return self.laboratory.probabilities(own), self.laboratory.unlike(own, self.learned)
        if self.moved is not None:
            features = features - self.moved
        mean = self.learned.probabilities(features).mean(axis=0)
        foreign = self.learned.unlike(features.mean(axis=0))
        return confidence.apply_temperature(mean, self.about["temperature"]), foreign

    @property
    def adapts(self) -> bool:
        """Whether it can be adapted to a folder: `broad` can, where it was not taught."""
        return self.learned is not None and self.laboratory is None

    def adapted(self, features: np.ndarray) -> "Classifier":
        """Move what is answered for cells of one folder to where those learned from lay.

        Without labels, and only where that is safe, see `teaching.Learned.shift`; `features` are of
        that folder's cells, see `features`. Raises `InvalidParameter` unless it `adapts`.
        """
        self.check_adapts()
        assert self.learned is not None
        return replace(self, moved=self.learned.shift(features.mean(axis=0)))

    def check_adapts(self) -> None:
        """Raise `InvalidParameter` unless it `adapts`."""
        if not self.adapts:
            raise InvalidParameter(
                "Only the network `broad`, and only where it was not taught a laboratory, adapts "
                "to a folder. Leave adapt out."
            )

    def name(self, crops: np.ndarray) -> pd.DataFrame:
        """Name crops: `cell_type`, `probability`, `p_…`, `answered`, `foreign`.

        For the columns see `classify_all`. What is called `other` is none of the types, and never
        `answered`.
        """
        return self._table(*self._looked_at(crops))

    def name_by(self, features: np.ndarray) -> pd.DataFrame:
        """Name crops by their `features` as `name` does, where something is `learned`."""
        return self._table(*self._weighed(features))

    def _table(self, probabilities: np.ndarray, foreign: np.ndarray) -> pd.DataFrame:
        """Make the table of `name`."""
        table = pd.DataFrame(probabilities, columns=[f"p_{answer}" for answer in self.answers])
        best = probabilities.argmax(axis=1)
        table.insert(0, "cell_type", pd.array(np.array(self.answers)[best], dtype="string"))
        table.insert(1, "probability", probabilities.max(axis=1, initial=0))
        table["answered"] = (
            table["probability"].ge(self.threshold)
            & table["cell_type"].ne(cells.OTHER)
            & (foreign <= self.about.get("unlike", 1))
        ).astype("boolean")
        table["foreign"] = foreign
        return table

    def _tabulate(
        self, cells_of: list[tuple[str, int, white_cells.WhiteCell | None]], named: pd.DataFrame
    ) -> pd.DataFrame:
        """One row a located cell, as `named` in this order, and one an image without."""
        table = pd.DataFrame(
            {
                "file": pd.array([file for file, _, _ in cells_of], dtype="string"),
                "file_number": [number for _, number, _ in cells_of],
                "found": [cell is not None for _, _, cell in cells_of],
            }
        )
        for edge in BOX:
            named[edge] = [float(getattr(cell, edge)) for _, _, cell in cells_of if cell]
        named.index = table.index[table["found"].astype(bool)]
        probabilities = [f"p_{answer}" for answer in self.answers]
        columns = ["cell_type", "probability", *probabilities, "answered", "foreign", *BOX]
        return table.join(named[columns])


CONTRADICTED = 1.5
"""Times that a given width of red cells may differ from the measured one, unquestioned."""


@dataclass(frozen=True, eq=False)
class FolderAnswers:
    """The answers for a folder, and what is to be said of them.

    Attributes
    ----------
    table : DataFrame
        As written: `Classifier.classify_all` without `file_number`, `p_…` last.
    out : Path
    failures : list of (file, what was wrong)
    red_cell : float
        Median diameter of the red cells, in pixels, at which the images were read.
    measured : float
        The same, as measured of those whose width was given; NaN where none was, or the images do
        not tell it.
    is_foreign : bool
        Whether too few of the white cells are answered for, see `confidence.looks_foreign`.
    is_adapted : bool
        Whether the answers were moved to the folder, see `Classifier.adapted`.
    """

    table: pd.DataFrame
    out: Path
    failures: list[tuple[str, str]]
    red_cell: float
    measured: float
    is_foreign: bool
    is_adapted: bool

    @property
    def went_well(self) -> bool:
        """Whether every file was read."""
        return not self.failures

    def __str__(self) -> str:
        """Say what was found, as the terminal shows it."""
        cells_found = self.table[self.table["found"].astype(bool)]
        answered = cells_found[cells_found["answered"].fillna(False).astype(bool)]
        n_files = self.table["file"].nunique()
        lines = [
            f"{n_files:,} images, {len(cells_found):,} white cells, {len(answered):,} answered for "
            f"(red cells {self.red_cell:.0f} pixels wide)"
        ]
        if self.is_adapted:
            lines.append(confidence.ADAPTED)
        if self.is_foreign:
            lines.append(confidence.FOREIGN)
        else:
            counts = answered["cell_type"].value_counts()
            lines += [f"  {name:12}{counts[name]:6,}" for name in counts.index]
        if abs(np.log(self.red_cell / self.measured)) > np.log(CONTRADICTED):
            lines.append(
                f"Red cells were said to be {self.red_cell:.0f} pixels wide; they look "
                f"{self.measured:.0f} wide. If that is right, leave --red-cell out."
            )
        if self.failures:
            lines.append(f"{len(self.failures)} files could not be read:")
            lines += [storage.visible(f"  {file}: {why}") for file, why in self.failures[:10]]
        return "\n".join([*lines, f"Table: {self.out}"])


def classify_folder(
    network: Classifier,
    path: str | Path,
    out: str | Path,
    red_cell: float | None = None,
    progress: bool = True,
    adapt: bool | None = None,
) -> FolderAnswers:
    """Name the white cells of all images of a folder, or of one image, and write the table.

    `out` is a CSV file. For `adapt` see `Classifier.classify_adapted`; by default it is done where
    the network can, of `confidence.FEW_TO_ADAPT` images or more. Where the folder looks foreign, no
    cell is `answered`. Raises `RunExists` if the file is there and holds another table;
    `DataNotFound` if there are no images; `InvalidParameter` as `Classifier.classify`.
    """
    out = storage.absolute(out)
    folder, names, _ = find_photographs(path)
    files = [folder / name for name in names]
    columns = ["file", "found", "cell_type", "probability", "answered", "foreign", *BOX]
    if out.exists() and (
        out.is_dir() or not out.read_bytes()[:200].startswith(",".join(columns).encode())
    ):
        raise RunExists(
            f"{out} exists and is no table of answers. Nothing was changed; give another --out."
        )
    widths = scale.widths_of(files, red_cell, skip=True)
    if network.adapts and len(files) >= confidence.FEW_TO_ADAPT if adapt is None else adapt:
        network, table, failures = network.classify_adapted(files, widths, progress)
    else:
        table, failures = network.classify_all(files, widths, progress)
    columns += [f"p_{answer}" for answer in network.answers]
    table = table[columns]
    white = table[table["found"].astype(bool)]
    n_answered = int(white["answered"].fillna(False).sum())
    taught = network.laboratory is not None
    is_foreign = confidence.looks_foreign(n_answered, len(white), taught)
    if is_foreign:
        table["answered"] = table["answered"].where(table["answered"].isna(), False)
    with storage.atomic_file(out) as partial:
        named = table.assign(file=table["file"].map(storage.plain))
        named.to_csv(partial, index=False, float_format="%.4g", errors="surrogateescape")
    measured = float("nan")
    if red_cell is not None:
        measured = scale.red_cell_diameter_of(files, 24, default=np.nan, skip=True)
    return FolderAnswers(
        table, out, failures, float(np.median(widths)), measured, is_foreign,
        network.moved is not None,
    )  # fmt: skip


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


def load(
    name: str = "broad", keras: bool = False, laboratory: str | Path | None = None
) -> Classifier:
    """Load a network whose weights ship with the package: `broad`, or BCCD's own `compact`.

    It answers through ONNX Runtime; as a model of `keras`, it can be trained on and looked into.
    With a `laboratory`, it answers as it was taught there, see `teaching.open_laboratory`, which
    also says what is raised. Raises `InvalidParameter` if no such weights ship.
    """
    model, about = answering.load_shipped(name, "recipe", _build if keras else None)
    learned = teaching.shipped(name)
    taught = None if laboratory is None else teaching.open_laboratory(laboratory, name, about)
    return Classifier(model, about, learned, taught)


def _build(about: dict[str, Any]) -> Any:
    from wbc_helpers.classify import networks

    return networks.build(about["recipe"], tuple(about["image_size"]), None)


def of_run(run: folders.Run, keras: bool = False) -> Classifier:
    """Make a classifier of a complete run that looks at white cells.

    It answers through the run's export, where it has one, see `answering.export`, unless it shall
    be a model of `keras`; and it answers every question: a run has no threshold of its own. Its
    temperature is that of its `calibration.json`; 1, if it was not evaluated. Raises
    `InvalidParameter` if its recipe looks at whole images, and `BrokenRun`, see `networks.load`.
    """
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
    network = None if keras else answering.exported(run, "model.keras")
    if network is None:
        from wbc_helpers.classify import networks

        network = networks.load(run)
    return Classifier(network, about)


def ship(classifier: Classifier, folder: Path, name: str = "compact") -> None:
    """Write a classifier as it ships; `about` is what its JSON will hold. See `answering.ship`."""
    answering.ship(classifier.model, classifier.about, _build, folder, name)
