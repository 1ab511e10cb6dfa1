"""Finding every red cell, white cell and platelet of a smear, and naming the white ones.

    from wbc_helpers.count import detector
    detector.load().detect(["smear.jpg"])
    detector.load_reader().read([photograph], red_cell=104)

The weights ship with the package. What they were trained on, how well they do and what they are not
for stands in their model cards, `detector.md` and `compact.md` in `wbc_helpers/weights/`.

The network answers with maps, which have a place for every `STRIDE` pixels of what it is shown. Of
each kind of cell they tell how surely a centre lies there; of the cell in whose middle a place
lies, also its width, its height and how far off its centre is (Zhou et al. [1]_). Maps are drawn
from boxes to train the network, and boxes are read from those it answers. Keras is loaded only when
the network is built.

References
----------
.. [1] X. Zhou, D. Wang, P. Krähenbühl, Objects as points, arXiv:1904.07850 (2019).
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd

from wbc_helpers import cells, errors
from wbc_helpers.cells import BOX
from wbc_helpers.classify import classifier
from wbc_helpers.classify.classifier import Classifier
from wbc_helpers.errors import BrokenRun
from wbc_helpers.pixels import scale, stain
from wbc_helpers.pixels.images import read_image
from wbc_helpers.pixels.scale import RED_CELL
from wbc_helpers.runs import answering, folders

if TYPE_CHECKING:
    import keras

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
        See `centre_network`.
    about : dict
        What the network is: `filters`, `blocks`; `gain`, see `show`; `ways`, in how many it looks
        at each photograph (1; 2, mirrored, too; 4, upside down, too, and both), to answer with the
        mean; `iou`, see `drop_doubles`; `thresholds`, the score of each kind from which
        on a box is counted; `numbers`, if not float32; and where it comes from.
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
        self,
        images: Iterable[str | Path | np.ndarray],
        red_cell: float | None = None,
        lowest: float = LOWEST,
    ) -> Iterator[pd.DataFrame]:
        """Find the cells of photographs, one after the other, in memory that does not grow.

        Parameters
        ----------
        images : iterable of path, or of (height, width, 3) ndarray of uint8
            RGB photographs of one magnification.
        red_cell : float, optional
            Diameter of the red cells in pixels; 104 in the BCCD photographs. By default it is
            estimated: of a single photograph to 12 %, of a few dozen to 2 %.
        lowest : float
            Score below which no box is told.

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
        find = partial(self._find, red_cell=red_cell, lowest=lowest)
        numbered = enumerate(images)
        n_threads = _n_threads(self.model)
        with ThreadPoolExecutor(n_threads) as pool:
            while few := list(itertools.islice(numbered, n_threads)):
                yield from pool.map(find, few)

    def _find(
        self, numbered: tuple[int, str | Path | np.ndarray], red_cell: float, lowest: float
    ) -> pd.DataFrame:
        """Find the cells of one: a batch is no faster, and takes as many times the memory."""
        place, image = numbered
        if isinstance(image, str | Path):
            name, pixels = Path(image).stem, read_image(image)
        else:
            name, pixels = str(place), classifier.checked(image)
        shown = show(pixels, red_cell, self.about.get("gain", True))
        corners, kinds, scores = self._read(shown, lowest)
        width_height = np.array(pixels.shape[1::-1])
        zoom = np.array(_scaled(pixels.shape[:2], red_cell)[::-1]) / width_height
        corners = np.clip(corners / np.tile(zoom, 2), 0, np.tile(width_height, 2))
        is_inside = (corners[:, :2] < corners[:, 2:]).all(axis=1)
        return _tabulate(name, kinds[is_inside], corners[is_inside], scores[is_inside])

    def _read(self, shown: np.ndarray, lowest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read the boxes of (height, width, 3) uint8, of wide fields part by part."""
        iou = self.about["iou"]
        parts = [_parts(side) for side in shown.shape[:2]]
        boxes = []
        for (top, *lines), (left, *columns) in itertools.product(*parts):
            tile = shown[np.newaxis, top : top + TILE, left : left + TILE]
            corners, kinds, scores = find_boxes(self.maps(tile)[0], iou, lowest)
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


def load(name: str = "detector", keras: bool = False, exact: bool = False) -> Detector:
    """Load a network whose weights ship with the package; raise `InvalidParameter` if none do.

    It answers through ONNX Runtime, in whole numbers of 8 bits, which `about["numbers"]` says; an
    `exact` one in float32, in twice the time, its scores some hundredths apart. As a model of
    `keras`, it can be trained on.
    """
    build = _build if keras else None
    return Detector(*answering.load_shipped(name, "thresholds", build, exact))


def _build(about: dict[str, Any]) -> Any:
    return centre_network(about["filters"], about.get("blocks", 1))


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
    "kind", "cell_type", *BOX, "score", "type_probability", "answered", "counted", "unsure",
    "probabilities",
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
            threshold, below which the cell is better left to a haematologist; `probabilities`, a
            list of those of all `Classifier.answers`, to four digits. NA for others.

        Raises
        ------
        InvalidParameter, UnreadableImage
            See `Detector.detect_each`.
        """
        # What is less sure than any that counts, by far, is no double of one that does.
        lowest = min(self.detector.about["thresholds"].values()) - UNSURE
        found = self.detector.detect_each(photographs, red_cell, max(lowest, LOWEST))
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
            likely = named.filter(regex="^p_").round(4).to_numpy().tolist()
            table.loc[white, "probabilities"] = pd.Series(likely, table.index[white])
        return table

    def _judge(self, boxes: pd.DataFrame) -> pd.DataFrame:
        """Tell which boxes are counted and which unsure; leave out those that are neither."""
        above = _above_threshold(boxes, self.detector).to_numpy()
        rows = np.flatnonzero(above > -UNSURE)
        nothing = [None] * len(rows)
        columns: dict[str, Any] = {name: boxes[name].to_numpy()[rows] for name in (*BOX, "score")}
        columns |= {
            "kind": boxes["kind"].array[rows],
            "counted": above[rows] >= 0,
            "unsure": np.abs(above[rows]) < UNSURE,
            "cell_type": pd.array(nothing, dtype="string"),
            "type_probability": np.full(len(rows), np.nan),
            "answered": pd.array(nothing, dtype="boolean"),
            "probabilities": pd.Series(nothing, dtype=object),
        }
        return pd.DataFrame(columns, columns=READ_COLUMNS)


def load_reader(
    ways: int | None = None, laboratory: str | Path | None = None, exact: bool = False
) -> SmearReader:
    """Load the detector and the classifier whose weights ship with the package.

    `ways`, 1, 2 or 4, is how often the detector looks at each photograph, see `Detector`; fewer are
    faster and a little less accurate. By default as was chosen for it; of another,
    `InvalidParameter` is raised. The classifier answers as a `laboratory` taught, see
    `classifier.load`; for an `exact` detector see `load`.
    """
    if ways is not None:
        errors.check_choice("ways", ways, (1, 2, 4))
    shipped = load(exact=exact)
    about = shipped.about if ways is None else {**shipped.about, "ways": ways}
    named = classifier.load(laboratory=laboratory)
    loaded_by = {"ways": ways, "laboratory": laboratory, "exact": exact}
    return SmearReader(Detector(shipped.model, about), named, loaded_by)


# Maps, drawn from boxes and read

STRIDE = 2
"""Pixels of what the network is shown, per place of a map."""

N_KINDS = len(cells.KIND_NAMES)
SPREAD = 0.09
"""Standard deviation of the hill around a centre, in sides of its box. A box that is off by as much
along one side still shares 0.83 of its union with the true one: so near a miss is no mistake."""

LEAST_SPREAD = 0.7
"""The same, in places: no hill is narrower, or the next place would count as background."""

MIDDLE = 0.5
"""Height of the hill from which on a place learns the size of the box."""

SMALLEST = 10
"""Side of the smallest box of a platelet, in pixels of what the network is shown."""

_HILL = 3  # standard deviations that are drawn


def draw_maps(
    corners: np.ndarray, kinds: np.ndarray, unsure: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Draw the maps that a perfect detector would answer with.

    `corners`, (n_boxes, 4) float, have the columns `cells.BOX`, in pixels of what the network is
    shown; `kinds`, (n_boxes,) int, index `cells.KIND_NAMES`; `unsure`, (n_boxes,) bool, are cells
    so little of which shows that it is as well to find as to miss them; `size` is height and width
    of what the network is shown, in pixels.

    Returns (height / STRIDE, width / STRIDE, N_KINDS + 5) float32: of each kind a hill for each
    box, 1 at its centre, and -1 around unsure ones; then the logarithms of width and height in red
    cells, see `scale.RED_CELL`; how many places right and down of this one the centre lies; and how
    much this place counts for the box, 1 in the sum over a box that no other covers.
    """
    height, width = size[0] // STRIDE, size[1] // STRIDE
    maps = np.zeros((height, width, N_KINDS + 5), np.float32)
    best = np.zeros((height, width), np.float32)
    # Unsure ones first: what is sure is drawn over them.
    for row in np.argsort(~np.asarray(unsure, bool), kind="stable"):
        x_min, y_min, x_max, y_max = corners[row]
        x, y = (x_min + x_max) / 2 / STRIDE, (y_min + y_max) / 2 / STRIDE
        column, line = min(int(x), width - 1), min(int(y), height - 1)
        spread_x = max(SPREAD * (x_max - x_min) / STRIDE, LEAST_SPREAD)
        spread_y = max(SPREAD * (y_max - y_min) / STRIDE, LEAST_SPREAD)
        left, right = max(column - round(_HILL * spread_x), 0), column + round(_HILL * spread_x) + 1
        top, bottom = max(line - round(_HILL * spread_y), 0), line + round(_HILL * spread_y) + 1
        columns, lines = np.arange(left, min(right, width)), np.arange(top, min(bottom, height))
        hill = np.exp(
            -(((lines - line) / spread_y) ** 2)[:, np.newaxis] / 2
            - ((columns - column) / spread_x) ** 2 / 2
        ).astype(np.float32)
        patch = maps[top:bottom, left:right]
        of_kind = patch[..., kinds[row]]
        if unsure[row]:
            of_kind[...] = -1
            continue
        np.maximum(of_kind, hill, out=of_kind)
        nearest = best[top:bottom, left:right]
        mine = (hill >= MIDDLE) & (hill > nearest)
        nearest[mine] = hill[mine]
        counts = hill / hill[hill >= MIDDLE].sum()
        off_x = np.broadcast_to(x - columns - 0.5, hill.shape)
        off_y = np.broadcast_to((y - lines - 0.5)[:, np.newaxis], hill.shape)
        patch[mine, N_KINDS] = np.log((x_max - x_min) / RED_CELL)
        patch[mine, N_KINDS + 1] = np.log((y_max - y_min) / RED_CELL)
        patch[mine, N_KINDS + 2] = off_x[mine]
        patch[mine, N_KINDS + 3] = off_y[mine]
        patch[mine, N_KINDS + 4] = counts[mine]
    return maps


def find_boxes(
    maps: np.ndarray, iou: float, lowest: float = 0.01, most: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read boxes out of maps: at each summit, less those that stand for the cell of a surer one.

    `maps`, (height, width, at least N_KINDS + 4) float32, are as `draw_maps` draws and the network
    answers them. Below the score `lowest`, 0–1, nothing is read; of each kind the `most` surest
    boxes are, by default as many as platelets could lie side by side in the field. `iou` is that of
    `drop_doubles`.

    Returns corners, (n_boxes, 4) float64, not clipped, and kinds, (n_boxes,) int, as in
    `draw_maps`; and scores, (n_boxes,) float64, falling within each kind.
    """
    of_kinds = []
    if most is None:
        most = max(round(maps.shape[0] * maps.shape[1] / (SMALLEST / STRIDE) ** 2), 1)
    for kind in range(N_KINDS):
        height = np.ascontiguousarray(maps[..., kind])
        summits = (height >= lowest) & (height == cv2.dilate(height, np.ones((3, 3), np.uint8)))
        lines, columns = np.nonzero(summits)
        scores = height[lines, columns].astype(float)
        surest = np.argsort(-scores, kind="stable")[:most]
        lines, columns, scores = lines[surest], columns[surest], scores[surest]
        of_box = maps[lines, columns, N_KINDS : N_KINDS + 4].astype(float)
        # What no hand ever boxed need not overflow either.
        half = np.exp(np.clip(of_box[:, :2], -5, 5)) * RED_CELL / 2
        centres = (np.column_stack([columns, lines]) + 0.5 + of_box[:, 2:]) * STRIDE
        corners = np.hstack([centres - half, centres + half])
        single = drop_doubles(corners, scores, iou)
        of_kinds.append((corners[single], np.full(len(single), kind), scores[single]))
    corners, kinds, scores = (np.concatenate(parts) for parts in zip(*of_kinds, strict=True))
    return corners, kinds, scores


def drop_doubles(corners: np.ndarray, scores: np.ndarray, iou: float) -> np.ndarray:
    """Choose the boxes that stand for a cell of their own, the surest first; return their rows.

    Of equally sure ones the first counts. Boxes, (n_boxes, 4) of one kind with the columns
    `cells.BOX`, that share more than `iou` of their union with a surer one that was chosen are
    doubles of it.
    """
    rectangles = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    return np.array(cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), 0, iou), int)


# The network that answers with maps, and its loss

FILTERS = (32, 64, 128, 160)
"""Of the network's stages, each at half the resolution of the one before."""

BLOCKS = 2
"""Pairs of convolutions at the lowest resolution, where a place sees farthest."""


def centre_network(filters: Sequence[int] = FILTERS, blocks: int = BLOCKS) -> "keras.Model":
    """Build a network that looks at a smear and draws the maps of this module.

    Stages of convolutions go down to a sixteenth of the resolution, where a place sees whole cells
    and their neighbours; on the way back up each is added to what the stage of that resolution
    saw, so that what is known of the cell meets where exactly it lies (Lin et al. [1]_).

    Parameters
    ----------
    filters : sequence of int
        Of the stages, the finest first.
    blocks : int
        See `BLOCKS`.

    Returns
    -------
    keras.Model
        From (n, height, width, 3) uint8 RGB, balanced, red cells `RED_CELL` pixels wide, sides
        divisible by `DEEPEST`, to (n, height / STRIDE, width / STRIDE, N_KINDS + 4) float32, see
        `find_boxes`. Not compiled.

    References
    ----------
    .. [1] T.-Y. Lin et al., Feature pyramid networks for object detection, CVPR (2017).
    """
    from wbc_helpers.runs.backend import keras

    layers = keras.layers
    smears = keras.Input((None, None, 3), dtype="uint8", name="smears")
    hidden = layers.Rescaling(1 / 128, offset=-1)(smears)
    stages = [_convolved(hidden, filters[0], strides=2)]
    for number, n_filters in enumerate(filters[1:], start=2):
        hidden = _convolved(stages[-1], n_filters, strides=2)
        for _ in range(blocks if number == len(filters) else 1):
            inner = _convolved(_convolved(hidden, n_filters), n_filters, activate=False)
            hidden = layers.ReLU()(layers.Add()([hidden, inner]))
        stages.append(hidden)
    hidden = stages.pop()
    for stage in reversed(stages):
        hidden = layers.Conv2D(stage.shape[-1], 1, use_bias=False)(hidden)
        hidden = layers.UpSampling2D()(hidden)
        hidden = _convolved(layers.Add()([hidden, stage]), stage.shape[-1])
    hidden = _convolved(hidden, filters[0])
    # So few places hold a centre that at first none should be believed to.
    unsure = keras.initializers.Constant(-4)
    surely = layers.Conv2D(
        N_KINDS, 1, activation="sigmoid", bias_initializer=unsure, dtype="float32"
    )(hidden)
    boxes = layers.Conv2D(4, 1, dtype="float32")(hidden)
    maps = layers.Concatenate(dtype="float32", name="maps")([surely, boxes])
    return keras.Model(smears, maps, name="centre_network")


def _convolved(hidden: Any, filters: int, strides: int = 1, activate: bool = True) -> Any:
    from wbc_helpers.runs.backend import keras

    layers = keras.layers
    hidden = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(hidden)
    # Keras's own momentum of 0.99 would remember the first steps of a short training.
    hidden = layers.BatchNormalization(momentum=0.9)(hidden)
    return layers.ReLU()(hidden) if activate else hidden


def centre_loss(truth: Any, maps: Any) -> Any:
    """How far a network's maps are from those drawn of the true boxes, (n,).

    Centres by the focal loss of Law and Deng [1]_: places near a centre count little as background,
    and what is surely right already counts little at all. Boxes by the generalised overlap of
    Rezatofighi et al. [2]_, which is what they are judged by, and by the distance of sides and
    offsets as parts of the box's side, which tells the way where nothing overlaps yet.

    `truth`, (n, height, width, N_KINDS + 5), is that of `draw_maps`; `maps`, with one less, is
    what the network answered. The mean of what is returned is the loss per cell in the batch.

    References
    ----------
    .. [1] H. Law, J. Deng, CornerNet: detecting objects as paired keypoints, ECCV (2018).
    .. [2] H. Rezatofighi et al., Generalized intersection over union, CVPR (2019).
    """
    from wbc_helpers.runs.backend import keras

    ops = keras.ops
    hill = truth[..., :N_KINDS]
    surely = ops.clip(maps[..., :N_KINDS], 1e-4, 1 - 1e-4)
    is_centre = ops.cast(hill > 0.999, surely.dtype)
    is_background = ops.cast(hill >= 0, surely.dtype) * (1 - is_centre)
    missed = -is_centre * (1 - surely) ** 2 * ops.log(surely)
    false = -is_background * (1 - ops.maximum(hill, 0)) ** 4 * surely**2 * ops.log(1 - surely)
    sides, true_sides = maps[..., N_KINDS : N_KINDS + 2], truth[..., N_KINDS : N_KINDS + 2]
    # In places, like the offsets.
    half, true_half = (
        ops.exp(ops.clip(logarithm, -5, 5)) * (RED_CELL / STRIDE / 2)
        for logarithm in (sides, true_sides)
    )
    off, true_off = maps[..., N_KINDS + 2 : N_KINDS + 4], truth[..., N_KINDS + 2 : N_KINDS + 4]
    apart = ops.sum(
        ops.abs(sides - true_sides) + ops.abs(off - true_off) / (2 * true_half), axis=-1
    )
    unlike = 1 - _generalised_overlap(off, half, true_off, true_half)
    of_boxes = truth[..., N_KINDS + 4] * (apart / 2 + 2 * unlike)
    total = ops.sum(missed + false, axis=(1, 2, 3)) + ops.sum(of_boxes, axis=(1, 2))
    n_cells = ops.maximum(ops.sum(is_centre), 1)
    return total * ops.cast(ops.shape(total)[0], total.dtype) / n_cells


def _generalised_overlap(middle: Any, half: Any, true_middle: Any, true_half: Any) -> Any:
    """Overlap of boxes, less the part of what encloses both that neither fills: −1 to 1."""
    from wbc_helpers.runs.backend import keras

    ops = keras.ops
    low, high = middle - half, middle + half
    true_low, true_high = true_middle - true_half, true_middle + true_half
    shared = ops.maximum(ops.minimum(high, true_high) - ops.maximum(low, true_low), 0)
    around = ops.maximum(high, true_high) - ops.minimum(low, true_low)
    both, enclosing = ops.prod(shared, axis=-1), ops.prod(around, axis=-1)
    union = ops.prod(2 * half, axis=-1) + ops.prod(2 * true_half, axis=-1) - both
    return both / union - (enclosing - union) / enclosing
