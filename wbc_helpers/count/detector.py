"""Finding every red cell, white cell and platelet of a smear, and naming the white ones.

    from wbc_helpers.count import detector
    detector.load().detect(["smear.jpg"])
    detector.load_reader().read([photograph], red_cell=104)

The weights ship with the package. What they were trained on, how well they do and what they are not
for stands in their model cards, `detector.md` and `compact.md` in `wbc_helpers/weights/`.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from wbc_helpers import cells, errors
from wbc_helpers.cells import BOX
from wbc_helpers.classify import classifier
from wbc_helpers.classify.classifier import Classifier
from wbc_helpers.count.network import N_KINDS, drop_doubles, find_boxes
from wbc_helpers.errors import BrokenRun
from wbc_helpers.pixels import scale, stain
from wbc_helpers.pixels.images import read_image
from wbc_helpers.pixels.scale import RED_CELL
from wbc_helpers.runs import answering, folders

DEEPEST = 16
"""The network halves what it is shown up to four times: both sides have to be divisible by this."""

TILE, MARGIN = 768, 128
"""Side of what the network is shown of a wide field at a time, and by how much these parts reach
into each other, in pixels; both are divisible by `DEEPEST`. A white cell fits into the margin."""

LOWEST = 0.02
"""Score below which a box is not worth telling."""

COLUMNS = ["photograph", "kind", *BOX, "score"]
_FLIPS = ((), (2,), (1,), (1, 2))  # axes of (n, height, width, 3)


@dataclass(frozen=True, eq=False)
class Detector:
    """A network with all that it takes to find the cells of an image file.

    Attributes
    ----------
    model : answering.Network
        See `network.centre_network`.
    about : dict
        What the network is: `filters`, `blocks`; `gain`, see `show`; `ways`, in how many it looks
        at each photograph (1; 2, mirrored, too; 4, upside down, too, and both), to answer with the
        mean; `iou`, see `network.drop_doubles`; `thresholds`, the score of each kind from which
        on a box is counted; and where it comes from.
    """

    model: Any
    about: dict[str, Any]

    def detect(
        self, images: Iterable[str | Path | np.ndarray], red_cell: float | None = None
    ) -> pd.DataFrame:
        """Find the cells of photographs: the tables of `detect_each`, one below the other."""
        tables = list(self.detect_each(images, red_cell))
        return pd.concat(tables, ignore_index=True) if tables else _tabulate("", [], [], [])

    def detect_each(
        self, images: Iterable[str | Path | np.ndarray], red_cell: float | None = None
    ) -> Iterator[pd.DataFrame]:
        """Find the cells of photographs, one after the other, in memory that does not grow.

        Parameters
        ----------
        images : iterable of path, or of (height, width, 3) ndarray of uint8
            RGB photographs of one magnification.
        red_cell : float, optional
            Diameter of the red cells in pixels; 104 in the BCCD photographs. By default it is
            estimated: of a single photograph to 12 %, of a few dozen to 2 %.

        Yields
        ------
        DataFrame
            Of each photograph one row a box, the unsure ones too: `photograph`, the file's name
            without suffix, or the place of an array in the order given; `kind`; `cells.BOX`
            in pixels of the photograph, clipped to it; `score`, 0–1. For counting take the boxes
            whose score reaches `about["thresholds"]`, see `counted`.

        Raises
        ------
        UnreadableImage
            If a file is not a complete image.
        InvalidParameter
            If `red_cell` is no usable number, or too few red cells are seen to estimate it.
        """
        classifier.check_several(images)
        if red_cell is None:
            # Of files, only the names are held.
            images = list(images)
            red_cell = scale.red_cell_of(images)
        scale.check_red_cell(red_cell)
        find, numbered = partial(self._find, red_cell=red_cell), enumerate(images)
        n_threads = _n_threads(self.model)
        with ThreadPoolExecutor(n_threads) as pool:
            while few := list(itertools.islice(numbered, n_threads)):
                yield from pool.map(find, few)

    def _find(self, numbered: tuple[int, str | Path | np.ndarray], red_cell: float) -> pd.DataFrame:
        """Find the cells of one: a batch is no faster, and takes as many times the memory."""
        place, image = numbered
        if isinstance(image, str | Path):
            name, pixels = Path(image).stem, read_image(image)
        else:
            name, pixels = str(place), classifier.checked(image)
        shown = show(pixels, red_cell, self.about.get("gain", True))
        corners, kinds, scores = self._read(shown)
        width_height = np.array(pixels.shape[1::-1])
        zoom = np.array(_scaled(pixels.shape[:2], red_cell)[::-1]) / width_height
        corners = np.clip(corners / np.tile(zoom, 2), 0, np.tile(width_height, 2))
        is_inside = (corners[:, :2] < corners[:, 2:]).all(axis=1)
        return _tabulate(name, kinds[is_inside], corners[is_inside], scores[is_inside])

    def _read(self, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read the boxes of (height, width, 3) uint8, of wide fields part by part."""
        iou = self.about["iou"]
        parts = [_parts(side) for side in shown.shape[:2]]
        boxes = []
        for (top, *lines), (left, *columns) in itertools.product(*parts):
            tile = shown[np.newaxis, top : top + TILE, left : left + TILE]
            corners, kinds, scores = find_boxes(self.maps(tile)[0], iou, LOWEST)
            corners += np.tile([left, top], 2)
            x, y = (corners[:, :2] + corners[:, 2:]).T / 2
            is_own = (x >= columns[0]) & (x < columns[1]) & (y >= lines[0]) & (y < lines[1])
            boxes.append((corners[is_own], kinds[is_own], scores[is_own]))
        return boxes[0] if len(boxes) == 1 else _joined(boxes, iou)

    def maps(self, shown: np.ndarray) -> np.ndarray:
        """Ask the network about (n, height, width, 3) uint8, see `show`.

        Returns (n, height / STRIDE, width / STRIDE, N_KINDS + 4) float32.
        """
        answers = []
        for axes in _FLIPS[: self.about.get("ways", 1)]:
            flipped = np.ascontiguousarray(np.flip(shown, axes))
            maps = self.model.predict_on_batch(flipped)
            maps = np.flip(maps, axes).copy()
            # What lay to the right of a place lies to the left of it in the flipped photograph.
            maps[..., N_KINDS + 2] *= -1 if 2 in axes else 1
            maps[..., N_KINDS + 3] *= -1 if 1 in axes else 1
            answers.append(maps)
        return np.mean(answers, axis=0)

    def counted(self, boxes: pd.DataFrame) -> pd.DataFrame:
        """Choose the boxes of `detect` whose score reaches the threshold of their kind."""
        return boxes[_above_threshold(boxes, self) >= 0].reset_index(drop=True)


def _n_threads(model: Any) -> int:
    """How many threads ask a network: of several one decodes and reads while it looks for another.

    A model of Keras is asked by one alone.
    """
    is_onnx = isinstance(model, answering.OnnxNetwork)
    return min(answering.n_threads(), 4) if is_onnx else 1


def _above_threshold(boxes: pd.DataFrame, detector: Detector) -> pd.Series:
    """How far each box's score lies above the threshold of its kind."""
    thresholds = boxes["kind"].astype(str).map(detector.about["thresholds"])
    return boxes["score"] - thresholds.astype(float)


def _parts(side: int) -> list[tuple[int, float, float]]:
    """Cut a side into parts of at most `TILE`: of each its start, and between where its cells lie.

    Two neighbours share a strip in the middle of what both show, or a cell whose centre they place
    a little otherwise would be lost.
    """
    starts = [*range(0, side - TILE, TILE - 2 * MARGIN), max(side - TILE, 0)]
    seams = [(start + TILE + later) / 2 for start, later in itertools.pairwise(starts)]
    shared = 8
    lows, highs = [-np.inf, *(seam - shared for seam in seams)], [seam + shared for seam in seams]
    return list(zip(starts, lows, [*highs, np.inf], strict=True))


def _joined(boxes: list, iou: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put the boxes of parts together, those that two parts found once; as `find_boxes` does."""
    corners, kinds, scores = (np.concatenate(column) for column in zip(*boxes, strict=True))
    rows = []
    for kind in range(N_KINDS):
        of_kind = np.flatnonzero(kinds == kind)
        rows.append(of_kind[drop_doubles(corners[of_kind], scores[of_kind], iou)])
    single = np.concatenate(rows)
    return corners[single], kinds[single], scores[single]


def _scaled(size: Sequence[int], red_cell: float) -> list[int]:
    """Height and width at which red cells are `RED_CELL` pixels wide."""
    return [max(round(side * RED_CELL / red_cell), 1) for side in size]


def show(pixels: np.ndarray, red_cell: float, gain: bool = False) -> np.ndarray:
    """Make of a photograph, RGB, (height, width, 3) uint8, what the network is shown.

    That is of the same kind: balanced, with `gain` or without, see `stain.balance`; red cells,
    `red_cell` pixels wide before, `RED_CELL` wide; background added right and below until `DEEPEST`
    divides both sides.
    """
    height, width = _scaled(pixels.shape[:2], red_cell)
    smaller = red_cell > RED_CELL
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    resampled = cv2.resize(pixels, (width, height), interpolation=interpolation)
    return cv2.copyMakeBorder(
        stain.balance(resampled, gain), 0, -height % DEEPEST, 0, -width % DEEPEST,
        cv2.BORDER_CONSTANT, value=(stain.WHITE,) * 3,
    )  # fmt: skip


def _tabulate(name: str, kinds: Any, corners: Any, scores: Any) -> pd.DataFrame:
    names = np.array(cells.KIND_NAMES)[np.asarray(kinds, int)]
    table = pd.DataFrame(np.asarray(corners, float).reshape(-1, 4), columns=BOX)
    return table.assign(
        photograph=pd.array([name] * len(table), dtype="string"),
        kind=pd.Categorical(names, categories=list(cells.KIND_NAMES)),
        score=np.asarray(scores, float),
    )[COLUMNS]


def load(name: str = "detector", keras: bool = False) -> Detector:
    """Load a network whose weights ship with the package; raise `InvalidParameter` if none do.

    It answers through ONNX Runtime; as a model of `keras`, it can be trained on.
    """
    return Detector(*answering.load_shipped(name, "thresholds", _build if keras else None))


def _build(about: dict[str, Any]) -> Any:
    from wbc_helpers.count import network

    return network.centre_network(about["filters"], about.get("blocks", 1))


def of_run(run: folders.Run, about: dict[str, Any] | None = None, keras: bool = False) -> Detector:
    """Make a detector of a complete run, see `training.train`.

    `about` may hold `ways`, `iou` and `thresholds`, as chosen on validation photographs, see
    `training.choose_reading`; by default one way, an overlap of 0.5 and scores of 0.3. For `keras`
    see `classifier.of_run`. Raises
    `BrokenRun` if the run has not finished, is no detector's, or its weights cannot be read.
    """
    training, path = run.settings["training"], run.of_training("model.weights.h5")
    if training["recipe"] != "detector":
        raise BrokenRun(
            f"The run {run.name!r} is of recipe {training['recipe']!r}. Expected a detector's."
        )
    facts = {key: training[key] for key in ("blocks", "gain") if key in training}
    facts |= {"filters": list(training["filters"]), "ways": 1, "iou": 0.5}
    facts |= {"thresholds": dict.fromkeys(cells.KIND_NAMES, 0.3), **(about or {})}
    network = None if keras else answering.exported(run, path.name)
    if network is not None:
        return Detector(network, facts)
    model = _build(facts)
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise BrokenRun(
            f"{path} cannot be read ({error}). Expected the weights of this run. Train it anew "
            "under another name."
        ) from error
    return Detector(model, facts)


def ship(detector: Detector, folder: Path, name: str = "detector") -> None:
    """Write a detector as it ships; `about` is what its JSON will hold. See `answering.ship`."""
    answering.ship(detector.model, detector.about, _build, folder, name)


UNSURE = 0.05
"""A box whose score is no further than this from the threshold of its kind is unsure: it is worth a
look whether it was rightly counted, or rightly not."""

READ_COLUMNS = [
    "kind", "cell_type", *BOX, "score", "type_probability", "answered", "counted", "unsure"
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class SmearReader:
    """A detector, which finds the cells, and a classifier, which names the white ones.

    `loaded_by` are the arguments by which `load_reader` made it, so that a worker elsewhere can
    load its own; None of a reader that was put together otherwise.
    """

    detector: Detector
    classifier: Classifier
    loaded_by: dict[str, Any] | None = None

    def read(self, photographs: Sequence[np.ndarray], red_cell: float) -> list[pd.DataFrame]:
        """Find the cells of photographs, and name the white ones.

        Parameters
        ----------
        photographs : sequence of (height, width, 3) ndarray of uint8
            RGB, of one magnification; all are held in memory.
        red_cell : float
            Diameter of the red cells in pixels, see `scale.estimate_scale`.

        Returns
        -------
        list of DataFrame
            For each photograph one row a box: `kind`; `cells.BOX` in pixels; `score`, 0–1;
            `counted`: whether that reaches the detector's threshold; `unsure`: whether it is
            within `UNSURE` of it, or a white cell is not answered for; what is neither counted nor
            unsure is left out. Of white cells that are counted also `cell_type`, the most
            probable; `type_probability`, 0–1; `answered`: whether that reaches the classifier's
            threshold, below which the cell is better left to a haematologist. NA for others.

        Raises
        ------
        InvalidParameter, UnreadableImage
            See `Detector.detect_each`.
        """
        found = self.detector.detect_each(photographs, red_cell)
        name = partial(self._name, red_cell=red_cell)
        with ThreadPoolExecutor(_n_threads(getattr(self.classifier, "model", None))) as pool:
            return list(pool.map(name, photographs, found))

    def _name(self, photograph: np.ndarray, boxes: pd.DataFrame, red_cell: float) -> pd.DataFrame:
        """Judge the boxes of a photograph, and name its white cells."""
        table = self._judge(boxes)
        white = (table["kind"] == "WBC") & table["counted"]
        if white.any():
            of_white = table.loc[white, BOX].to_numpy()
            named = self.classifier.name(self.classifier.cut_boxed(photograph, of_white, red_cell))
            answered = named["answered"].to_numpy(bool)
            table.loc[white, "cell_type"] = named["cell_type"].to_numpy()
            table.loc[white, "type_probability"] = named["probability"].to_numpy()
            table.loc[white, "answered"] = answered
            table.loc[white, "unsure"] |= ~answered
        return table

    def _judge(self, boxes: pd.DataFrame) -> pd.DataFrame:
        """Tell which boxes are counted and which unsure; leave out those that are neither."""
        above = _above_threshold(boxes, self.detector)
        boxes = boxes.assign(counted=above >= 0, unsure=above.abs() < UNSURE)
        boxes = boxes[boxes["counted"] | boxes["unsure"]].reset_index(drop=True)
        return boxes.assign(
            cell_type=pd.array([pd.NA] * len(boxes), dtype="string"),
            type_probability=np.nan,
            answered=pd.array([pd.NA] * len(boxes), dtype="boolean"),
        )[READ_COLUMNS]


def load_reader(ways: int | None = None, laboratory: str | Path | None = None) -> SmearReader:
    """Load the detector and the classifier whose weights ship with the package.

    `ways`, 1, 2 or 4, is how often the detector looks at each photograph, see `Detector`; fewer are
    faster and a little less accurate. By default as was chosen for it; of another,
    `InvalidParameter` is raised. The classifier answers as a `laboratory` taught, see
    `classifier.load`.
    """
    if ways is not None:
        errors.check_choice("ways", ways, (1, 2, 4))
    shipped = load()
    about = shipped.about if ways is None else {**shipped.about, "ways": ways}
    named = classifier.load(laboratory=laboratory)
    return SmearReader(
        Detector(shipped.model, about), named, {"ways": ways, "laboratory": laboratory}
    )
