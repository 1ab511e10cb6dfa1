"""Training a detector on boxed photographs, choosing how its maps are read, and judging it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wbc_helpers import cells, errors
from wbc_helpers.audit import overlaps
from wbc_helpers.cells import BOX
from wbc_helpers.count.detector import (
    BLOCKS,
    FILTERS,
    Detector,
    centre_loss,
    centre_network,
    draw_maps,
)
from wbc_helpers.data import splits
from wbc_helpers.data.annotations import Annotations
from wbc_helpers.data.identity import Identity
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.evaluate import detection
from wbc_helpers.evaluate.detection import BoxMatches, DetectionScores
from wbc_helpers.pixels import stain
from wbc_helpers.pixels.images import read_image
from wbc_helpers.pixels.scale import RED_CELL, boxed_red_cell
from wbc_helpers.pixels.views import STILL, SmearViews, draw_smear
from wbc_helpers.runs import backend, folders, recorder
from wbc_helpers.runs.backend import keras
from wbc_helpers.runs.recipes import describe

FRAME = (240, 320)
"""Height and width in which validation shows a photograph, in pixels. One of BCCD fills it when its
red cells are `RED_CELL` pixels wide; a Barcelona or Raabin one is a little smaller."""

VIEW = (240, 240)
"""Height and width of the views that training shows, in pixels."""

HISTORY_COLUMNS = ("epoch", "loss", "val_loss", "seconds", "peak_memory_bytes")
EVERY = 5
"""Epochs from one validation to the next."""


@dataclass(frozen=True)
class DetectorSettings:
    """Everything that decides how a detector comes out, beside the data and the machine.

    Attributes
    ----------
    epochs : int
        Passes over the training photographs, 1 to 10,000.
    batch_size : int
        Photographs a step, 1 to 256.
    learning_rate : float
        The highest, above 0 and at most 1, see `recorder.warm_cosine`.
    weight_decay : float
        Of AdamW, 0 to below 1.
    filters, blocks : tuple of int, int
        See `detector.centre_network`.
    gain : bool
        Whether the stain of each photograph, too, is brought to a standard, see `stain.balance`. A
        network that learns on many stains does without.
    train_on : tuple of str
        Of `splits.PARTS`, those whose photographs are learned from.
    without : tuple of str
        Laboratories none of whose photographs is learned from.
    seed : int
        Of the initial weights, the order of the photographs and the views; 0 to 2³²−1.

    Raises
    ------
    InvalidParameter
        If a value has a wrong type or lies outside its range.
    """

    epochs: int = 80
    batch_size: int = 8
    learning_rate: float = 0.003
    weight_decay: float = 0.0005
    filters: tuple[int, ...] = FILTERS
    blocks: int = BLOCKS
    gain: bool = False
    train_on: tuple[str, ...] = ("train",)
    without: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self):
        """Check all."""
        errors.check_whole("epochs", self.epochs, 1, 10_000)
        errors.check_whole("batch_size", self.batch_size, 1, 256)
        errors.check_whole("blocks", self.blocks, 1, 8)
        errors.check_whole("seed", self.seed, 0, 2**32 - 1)
        errors.check_fraction("learning_rate", self.learning_rate, includes_one=True)
        if self.weight_decay != 0:
            errors.check_fraction("weight_decay", self.weight_decay)
        if not 2 <= len(self.filters) <= len(FILTERS):
            raise InvalidParameter(
                f"filters={self.filters!r} are not usable. Expected two to "
                f"{len(FILTERS)} numbers, one a stage."
            )
        for n_filters in self.filters:
            errors.check_whole("filters", n_filters, 1, 1024)
        if not self.train_on or not set(self.train_on) <= set(splits.PARTS):
            raise InvalidParameter(
                f"train_on={self.train_on!r} is not usable. Expected one or more of "
                f"{', '.join(splits.PARTS)}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Give out all of it for `recipes.describe`."""
        return {"recipe": "detector", **asdict(self)}


def train_new(
    settings: DetectorSettings,
    identity: Identity,
    name: str,
    runs_dir: str | Path,
    parts: pd.Series | None = None,
    verbose: int = 2,
) -> folders.Run:
    """Train a detector from a folder of boxed photographs, in one call.

    A run of that name with the same settings is gone on with; it is in `folders.DETECTORS` of
    `runs_dir`, the folder of all runs. `parts`, by photograph, are by default those of `deal`: the
    lists that come with the data, or where there are none, a split that keeps overlapping
    photographs together; `verbose` is that of `recorder.fit`.

    Raises as `splits.read_boxed`, `train` and `folders.start`.
    """
    runtime = backend.choose()
    boxed = splits.read_boxed(identity.folder)
    if parts is None:
        parts = deal(identity.folder, boxed)
    record = describe(settings, identity.to_dict(), runtime)
    run = folders.start(name, Path(runs_dir) / folders.DETECTORS, record)
    return train(boxed, parts, run, runtime.n_devices, verbose)


def deal(folder: str | Path, boxed: Annotations) -> pd.Series:
    """Deal the photographs of a data set: by the lists that come with it, else by overlap.

    Of several laboratories, see `splits.read_boxed`, by `splits.deal`. Returns
    `splits.PARTS` by photograph.
    """
    if "group" in boxed.photographs:
        return splits.deal(boxed)
    if splits.has_lists(folder):
        return splits.read_lists(folder)
    return splits.split_photographs(boxed, overlaps.find_smear_pairs(folder, progress=False))


def train(
    boxed: Annotations, parts: pd.Series, run: folders.Run, n_devices: int = 1, verbose: int = 2
) -> folders.Run:
    """Train the detector of a run, from the start or from where an interruption left it.

    `boxed` comes from `splits.read_boxed`, `run` from `folders.start`; what is in no
    part, by `parts`, that the run trains on, nor in `val`, is not looked at; `n_devices` and
    `verbose` are those of `recorder.fit`. Where `boxed.photographs` tell the `laboratory`, each is
    shown as often as another. The run comes back complete, with `split.csv`.

    Raises `InvalidParameter` if there is nothing to train on, or no red cell to take the scale
    from; `UnreadableImage` if a photograph is not a complete image; and as `recorder.fit`.
    """
    settings = run.settings["training"]
    if run.is_complete:
        return run
    names = boxed.photographs["photograph"]
    part = names.map(parts)
    is_elsewhere = _laboratories(boxed.photographs).isin(settings["without"])
    is_learned = part.isin(settings["train_on"]) & ~is_elsewhere
    learned, validated = (boxed.photographs[rows] for rows in (
        is_learned, part.eq("val") & ~is_learned & ~is_elsewhere
    ))  # fmt: skip
    if not len(learned):
        raise InvalidParameter(
            f"No annotated photograph is in {', '.join(settings['train_on'])}. Expected one at "
            f"least of the {len(names)} there; give their parts, see splits.split_photographs."
        )
    folders.write_split(run, names, part.fillna(""))
    batch_size, gain = settings["batch_size"], settings["gain"]
    batches = SmearBatches(boxed, learned, batch_size, SmearViews(), settings["seed"], gain)
    validation = SmearBatches(boxed, validated, batch_size, gain=gain) if len(validated) else None

    def compiled() -> keras.Model:
        model = centre_network(settings["filters"], settings["blocks"])
        rate = recorder.warm_cosine(settings["learning_rate"], settings["epochs"] * len(batches))
        model.compile(
            keras.optimizers.AdamW(rate, weight_decay=settings["weight_decay"], clipnorm=10.0),
            loss=centre_loss,
        )
        return model

    return recorder.fit(
        run, compiled, batches, validation, n_devices, HISTORY_COLUMNS, verbose,
        validation_freq=EVERY,
    )  # fmt: skip


def _laboratories(photographs: pd.DataFrame) -> pd.Series:
    """Laboratory of each photograph; all of one where it is not told."""
    if "laboratory" in photographs:
        return photographs["laboratory"].astype(str)
    return pd.Series("", photographs.index)


def _alike(boxed: Annotations, photographs: Sequence[str]) -> list[pd.DataFrame]:
    """Rows of `boxed.photographs`, a table for each laboratory and size: those of one scale."""
    rows = boxed.photographs[boxed.photographs["photograph"].isin(set(photographs))]
    keys = [_laboratories(rows), *((rows[side] / 20).round() for side in ("width", "height"))]
    return [table for _, table in rows.groupby(keys, sort=False)]


class SmearBatches(keras.utils.PyDataset):
    """Batches of views of smears with the maps that belong to them.

    Parameters
    ----------
    boxed : Annotations
        Boxes of all photographs. Its `photographs` may tell the `laboratory` of each, from which
        its scale and how often it is shown are taken, and `incomplete`: the kinds, parted by
        spaces, of which people boxed only some.
    photographs : DataFrame
        Rows of `boxed.photographs` to give out; read into memory at once.
    batch_size : int
        Views a batch.
    views : SmearViews, optional
        What is drawn from; by default each photograph as it is, in order, the last batch smaller.
    seed : int
        With the epoch and the place in it, it decides what is drawn.
    gain : bool
        See `DetectorSettings`.
    """

    def __init__(self, boxed, photographs, batch_size, views=STILL, seed=0, gain=False):
        super().__init__(workers=recorder.n_workers())
        with ThreadPoolExecutor(recorder.n_workers()) as pool:
            self.pixels = list(
                pool.map(lambda path: stain.balance(read_image(path), gain), photographs["path"])
            )
        names = photographs["photograph"].reset_index(drop=True)
        rows_of = boxed.boxes.groupby("photograph", observed=True).indices
        rows = [rows_of.get(name, []) for name in names]
        corners, kinds = boxed.boxes[BOX].to_numpy(float), boxed.boxes["kind"].cat.codes.to_numpy()
        self.corners, self.kinds = [corners[row] for row in rows], [kinds[row] for row in rows]
        self.scales = np.ones(len(names))
        for table in _alike(boxed, names):
            alike = names.isin(set(table["photograph"])).to_numpy()
            self.scales[alike] = RED_CELL / boxed_red_cell(_truth(boxed, names[alike].tolist()))
        incomplete = photographs.get("incomplete", pd.Series("", photographs.index))
        self.incomplete = [
            [cells.KIND_NAMES.index(kind) for kind in kinds.split()] for kinds in incomplete
        ]
        laboratories = pd.factorize(_laboratories(photographs))[0]
        self.by_laboratory = [
            np.flatnonzero(laboratories == number) for number in range(laboratories.max() + 1)
        ]
        self.batch_size, self.views, self.seed = batch_size, views, seed
        self.epoch = 0

    def __len__(self):
        """Count the batches of an epoch: what does not fill one waits for another epoch's order."""
        n_photographs = len(self.pixels)
        if self.views is STILL:
            return -(-n_photographs // self.batch_size)
        return max(n_photographs // self.batch_size, 1)

    def _order(self):
        """Rows of an epoch, as many as there are photographs, each laboratory's evenly."""
        n_photographs, n_laboratories = len(self.pixels), len(self.by_laboratory)
        if self.views is STILL:
            return np.arange(n_photographs)
        rng = np.random.default_rng((self.seed, self.epoch))
        n_each = -(-n_photographs // n_laboratories)
        rows = [
            np.concatenate([rng.permutation(rows) for _ in range(-(-n_each // len(rows)))])[:n_each]
            for rows in self.by_laboratory
        ]
        return rng.permutation(np.concatenate(rows))[:n_photographs]

    def __getitem__(self, index):
        """Give out one batch: uint8 views, and maps for `detector.centre_loss`."""
        order, size = self._order(), FRAME if self.views is STILL else VIEW
        places = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        places = places[places < len(order)]
        shown, maps = [], []
        for place, row in zip(places, order[places], strict=True):
            rng = np.random.default_rng((self.seed, self.epoch, place))
            turned = self.views is not STILL and rng.random() < 0.5
            view, rows, corners, unsure = draw_smear(
                self.pixels[row], self.corners[row], size, self.scales[row], self.views, rng, turned
            )
            drawn = draw_maps(corners, self.kinds[row][rows], unsure, size)
            for kind in self.incomplete[row]:
                # What nobody boxed may be a cell or none.
                drawn[..., kind][drawn[..., kind] < 1] = -1
            shown.append(view)
            maps.append(drawn)
        return np.stack(shown), np.stack(maps)


@dataclass(frozen=True, eq=False)
class Judged:
    """How well boxes stand for the cells of some photographs.

    Attributes
    ----------
    scores : DetectionScores
        Of all boxes, see `detection.intervals` for how far they could be off.
    matches : BoxMatches
        Of the boxes that are counted.
    true_counts, counts : DataFrame of int
        Rows are photographs, columns kinds: cells that people boxed, and boxes that are counted;
        see `detection.count_agreement`.
    """

    scores: DetectionScores
    matches: BoxMatches
    true_counts: pd.DataFrame
    counts: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """By kind, `BoxMatches.counts` and `detection.count_agreement` side by side."""
        matched = self.matches.counts.reindex(cells.KIND_NAMES)
        return matched.join(detection.count_agreement(self.true_counts, self.counts))

    @property
    def by_cut(self) -> pd.DataFrame:
        """Whole cells and those that the frame cuts, apart, see `detection.cut_edges`.

        Rows are kinds and `whole` or `cut`. Cells that people boxed, `true`, and `counted`;
        `recall`; `mae` and `bias` a photograph.
        """
        rows = {}
        truth, counted = (
            table.assign(
                cut=detection.cut_edges(table, table["width"], table["height"]).any(axis=1)
            )
            for table in (self.matches.truth, self.matches.predictions)
        )
        for kind in cells.KIND_NAMES:
            for what, is_cut in (("whole", False), ("cut", True)):
                true, ours = (
                    table[table["kind"].eq(kind) & table["cut"].eq(is_cut)]
                    for table in (truth, counted)
                )
                counts = [
                    table["photograph"].value_counts().reindex(self.counts.index, fill_value=0)
                    for table in (true, ours)
                ]
                difference = counts[1] - counts[0]
                rows[kind, what] = {
                    "true": len(true), "counted": len(ours), "recall": true["match"].ge(0).mean(),
                    "mae": difference.abs().mean(), "bias": difference.mean(),
                }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["kind", "cells"])

    @property
    def mistakes(self) -> pd.Series:
        """False boxes and missed cells of each photograph."""
        wrong = [
            table.loc[table["match"] < 0, "photograph"]
            for table in (self.matches.predictions, self.matches.truth)
        ]
        return pd.concat(wrong).value_counts().reindex(self.counts.index, fill_value=0)


WORTH = 0.005
"""Of mAP@0.5, for which it is worth to look at photographs in more ways."""


def choose_reading(
    detector: Detector,
    boxed: Annotations,
    photographs: Sequence[str],
    ious: Sequence[float] = (0.45, 0.55, 0.65),
    ways: Sequence[int] = (1, 2, 4),
) -> tuple[Detector, pd.DataFrame]:
    """Choose, on validation photographs, how a network is asked and how its maps are read.

    Parameters
    ----------
    detector : Detector
        Trained.
    boxed : Annotations
        The truth.
    photographs : sequence of str
        Names of the validation photographs.
    ious : sequence of float
        Overlaps to choose from, see `detector.drop_doubles`: that of the highest mAP@0.5 is
        taken, looking in the first of `ways`.
    ways : sequence of int
        In how many ways to look at each photograph, see `Detector`: what to choose from, rising.
        Of more ways, each of which takes its time, mAP@0.5 has to be higher by `WORTH`.

    Returns
    -------
    chosen : Detector
        With `iou`, `ways`, and for each kind the threshold at which counts are right on average,
        or half the score from which on most boxes are right, if that is higher.
    tried : DataFrame
        A row each that was tried: `ways`, `iou`, `map_50`.
    """
    tried: list[tuple[int, float, float]] = []

    def look(n_ways: int, iou: float) -> tuple[float, dict, pd.DataFrame]:
        about = {**detector.about, "ways": n_ways, "iou": iou}
        boxes = _detect(Detector(detector.model, about), boxed, photographs)
        tried.append((n_ways, iou, _score(boxed, boxes, photographs).map_50))
        return tried[-1][2], about, boxes

    # Of equal scores the first counts.
    best = max((look(ways[0], iou) for iou in ious), key=lambda looked: looked[0])
    for n_ways in ways[1:]:
        looked = look(n_ways, best[1]["iou"])
        if looked[0] >= best[0] + WORTH:
            best = looked
    truth, boxes = (_complete(boxed, table) for table in (_truth(boxed, photographs), best[2]))
    matches = detection.match_boxes(truth, boxes)
    # Where cells are missed that no box stands for, as many boxes as cells would reach down to
    # scores at which most are wrong, and more so in photographs of another laboratory.
    least = detection.even_thresholds(matches) / 2
    thresholds = detection.fair_thresholds(matches).clip(lower=least).reindex(cells.KIND_NAMES)
    # A kind of which no box was right is not counted; JSON knows no infinity.
    about = {**best[1], "thresholds": thresholds.fillna(1.1).clip(upper=1.1).to_dict()}
    chosen = Detector(detector.model, about)
    return chosen, pd.DataFrame(tried, columns=["ways", "iou", "map_50"])


def judge(detector: Detector, boxed: Annotations, photographs: Sequence[str]) -> Judged:
    """Judge a detector, its reading chosen, on photographs that it did not learn from.

    See `choose_reading`.
    """
    boxes = _detect(detector, boxed, photographs)
    return judge_boxes(boxed, photographs, boxes, detector.counted(boxes))


def judge_each(detector: Detector, boxed: Annotations, photographs: Sequence[str]) -> pd.DataFrame:
    """Judge a detector laboratory by laboratory, see `judge`.

    Rows are laboratories and kinds. `n_photographs`; `ap_50`, `ap_50_95`; cells that people boxed,
    `true`, and `counted`, with `of_boxed`, their quotient; `mae` and `bias` a photograph.
    """
    rows = boxed.photographs[boxed.photographs["photograph"].isin(set(photographs))]
    tables = {}
    for laboratory, of_one in rows.groupby(_laboratories(rows)):
        judged = judge(detector, boxed, of_one["photograph"].tolist())
        table = judged.scores.per_kind[["ap_50", "ap_50_95"]].join(
            judged.table[["true", "counted", "mae", "bias"]]
        )
        table.insert(0, "n_photographs", len(of_one))
        table.insert(5, "of_boxed", table["counted"] / table["true"])
        tables[laboratory] = table
    return pd.concat(tables, names=["laboratory"])


def judge_boxes(
    boxed: Annotations,
    photographs: Sequence[str],
    boxes: pd.DataFrame,
    counted: pd.DataFrame | None = None,
) -> Judged:
    """Judge boxes, however they were found, against the truth, `boxed`.

    `boxes` are all in these photographs, the unsure ones too, see `Detector.detect`; `counted`
    those that are sure enough to be counted, by default all.
    """
    truth = _complete(boxed, _truth(boxed, photographs))
    sizes = boxed.photographs.set_index("photograph")[["width", "height"]]
    counted = _complete(boxed, boxes if counted is None else counted)
    counted = counted.drop(columns=list(sizes), errors="ignore").join(sizes, on="photograph")
    return Judged(
        _score(boxed, boxes, photographs),
        detection.match_boxes(truth, counted.reset_index(drop=True)),
        detection.count_cells(truth, photographs),
        detection.count_cells(counted, photographs),
    )


def _detect(detector: Detector, boxed: Annotations, photographs: Sequence[str]) -> pd.DataFrame:
    """Find the cells of photographs, those of one laboratory and size at one scale."""
    alike = _alike(boxed, photographs)
    return pd.concat(
        [detector.detect(table["path"].tolist()) for table in alike], ignore_index=True
    )


def _truth(boxed: Annotations, photographs: Sequence[str]) -> pd.DataFrame:
    return boxed.boxes[boxed.boxes["photograph"].isin(set(photographs))].reset_index(drop=True)


def _complete(boxed: Annotations, table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the boxes of kinds of which people boxed only some, see `SmearBatches`."""
    if "incomplete" not in boxed.photographs:
        return table
    incomplete = boxed.photographs.set_index("photograph")["incomplete"].str.split()
    kinds = table["photograph"].map(incomplete)
    is_left = [kind in others for kind, others in zip(table["kind"], kinds, strict=True)]
    return table[~np.array(is_left, bool)].reset_index(drop=True)


def _score(boxed: Annotations, boxes: pd.DataFrame, names: Sequence[str]) -> DetectionScores:
    truth, boxes = (_complete(boxed, table) for table in (_truth(boxed, names), boxes))
    return detection.score_detections(truth, boxes, names)
