"""Training a detector on photographs whose cells are boxed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from wbc_helpers import (
    annotations,
    centre_maps,
    centre_network,
    crops,
    runs,
    runtime,
    settings,
    smear_identity,
    smear_splits,
    smear_views,
    storage,
)
from wbc_helpers.annotations import BOX, Annotations
from wbc_helpers.batches import n_workers
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.images import read_image
from wbc_helpers.recorder import Recorder, finish, restore, warm_cosine
from wbc_helpers.smear_views import STILL, SmearViews
from wbc_helpers.white_cells import RED_CELL

FRAME = (240, 320)
"""Height and width of the views that training shows, in pixels; quarter turns exchange them. A
BCCD photograph fills it when its red cells are `RED_CELL` pixels wide."""

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
    filters : tuple of int
        See `centre_network.centre_network`.
    train_on : tuple of str
        Of `smear_splits.PARTS`, those whose photographs are learned from.
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
    filters: tuple[int, ...] = centre_network.FILTERS
    train_on: tuple[str, ...] = ("train",)
    seed: int = 0

    def __post_init__(self):
        """Check all."""
        settings.check_whole("epochs", self.epochs, 1, 10_000)
        settings.check_whole("batch_size", self.batch_size, 1, 256)
        settings.check_whole("seed", self.seed, 0, 2**32 - 1)
        settings.check_fraction("learning_rate", self.learning_rate, includes_one=True)
        if self.weight_decay != 0:
            settings.check_fraction("weight_decay", self.weight_decay)
        if not 2 <= len(self.filters) <= len(centre_network.FILTERS):
            raise InvalidParameter(
                f"filters={self.filters!r} are not usable. Expected two to "
                f"{len(centre_network.FILTERS)} numbers, one a stage."
            )
        for n_filters in self.filters:
            settings.check_whole("filters", n_filters, 1, 1024)
        if not self.train_on or not set(self.train_on) <= set(smear_splits.PARTS):
            raise InvalidParameter(
                f"train_on={self.train_on!r} is not usable. Expected one or more of "
                f"{', '.join(smear_splits.PARTS)}."
            )


def describe(
    chosen: DetectorSettings, data: dict[str, Any], in_use: runtime.Runtime | None
) -> dict[str, Any]:
    """Put together what `settings.json` records of a detector's run, see `settings.describe`."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "training": {"recipe": "detector", **asdict(chosen)},
        "data": data,
        "runtime": asdict(in_use) if in_use else None,
        "versions": settings.versions(),
    }


def train_new(
    chosen: DetectorSettings,
    identity: smear_identity.SmearIdentity,
    name: str,
    runs_dir: str | Path,
    parts: pd.Series | None = None,
    verbose: int = 2,
) -> runs.Run:
    """Train a detector from a folder of boxed photographs, in one call.

    Parameters
    ----------
    chosen : DetectorSettings
        What to train.
    identity : smear_identity.SmearIdentity
        The data set.
    name : str
        Name of the run; one that exists with the same settings is gone on with.
    runs_dir : path
        Folder of all runs; this one goes to its `runs.DETECTORS`.
    parts : Series of str, optional
        Part by photograph, see `smear_splits`; by default the lists that come with the data, or
        where there are none, a split that keeps overlapping photographs together.
    verbose : int
        As for `keras.Model.fit`.

    Returns
    -------
    runs.Run
        Complete.

    Raises
    ------
    DataNotFound, DataMismatch
        See `annotations.read_annotations`.
    InvalidParameter, BrokenRun, RunExists
        See `train` and `runs.start`.
    """
    in_use = runtime.choose()
    boxed = annotations.read_annotations(identity.folder)
    if parts is None:
        parts = deal(identity.folder, boxed)
    described = describe(chosen, identity.to_dict(), in_use)
    run = runs.start(name, Path(runs_dir) / runs.DETECTORS, described)
    return train(boxed, parts, run, in_use.n_devices, verbose)


def deal(folder: str | Path, boxed: Annotations) -> pd.Series:
    """Part of each photograph: by the lists that come with the data, else dealt by overlap.

    Parameters
    ----------
    folder : path
        As `smear_sources.fetch_smears` returns it.
    boxed : Annotations
        Of that folder.

    Returns
    -------
    Series of str
        `smear_splits.PARTS` by photograph.
    """
    lists = smear_identity.smears_folder(folder) / "ImageSets" / "Main"
    if lists.is_dir():
        return smear_splits.read_lists(folder)
    return smear_splits.split_photographs(boxed, smear_splits.find_pairs(folder, progress=False))


def train(
    boxed: Annotations, parts: pd.Series, run: runs.Run, n_devices: int = 1, verbose: int = 2
) -> runs.Run:
    """Train the detector of a run, from the start or from where an interruption left it.

    After every epoch the weights, the optimizer's state and the history are on disk. The same
    seed on the same machine gives the same history, interrupted or not, on the CPU.

    Parameters
    ----------
    boxed : Annotations
        See `annotations.read_annotations`.
    parts : Series of str
        Part by photograph. What is in no part the run trains on, nor in `val`, is not looked at.
    run : runs.Run
        From `runs.start`.
    n_devices : int
        Devices among which Keras splits each batch; they divide `batch_size`.
    verbose : int
        As for `keras.Model.fit`; 2 prints a line an epoch.

    Returns
    -------
    runs.Run
        Complete: `model.keras`, `model.weights.h5`, `history.csv`, `split.csv`.

    Raises
    ------
    InvalidParameter
        If there is nothing to train on, no red cell to take the scale from, or batches do not
        divide evenly among the devices.
    BrokenRun
        If the checkpoint of an interrupted run cannot be read.
    UnreadableImage
        If a photograph is not a complete image.
    """
    chosen = run.settings["training"]
    if run.is_complete:
        return run
    names = boxed.photographs["photograph"]
    part = names.map(parts)
    in_training = boxed.photographs[part.isin(chosen["train_on"])]
    in_validation = boxed.photographs[part.eq("val") & ~part.isin(chosen["train_on"])]
    runtime.check_batch_size(chosen["batch_size"], n_devices)
    if not len(in_training):
        raise InvalidParameter(
            f"No annotated photograph is in {', '.join(chosen['train_on'])}. Expected one at least "
            f"of the {len(names)} there; give their parts, see smear_splits."
        )
    storage.write_text(
        run.folder / "split.csv",
        pd.DataFrame({"file": names, "part": part.fillna("")}).to_csv(index=False),
    )
    scale = RED_CELL / red_cell_in(boxed, in_training["photograph"])
    batches = SmearBatches(boxed, in_training, scale, chosen["batch_size"], SmearViews(),
                           chosen["seed"])  # fmt: skip
    validation = None
    if len(in_validation):
        validation = SmearBatches(boxed, in_validation, scale, chosen["batch_size"])

    keras.utils.set_random_seed(chosen["seed"])
    model = centre_network.centre_network(chosen["filters"])
    rate = warm_cosine(chosen["learning_rate"], chosen["epochs"] * len(batches))
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=chosen["weight_decay"], clipnorm=10.0),
        loss=centre_network.centre_loss,
    )
    history = restore(model, run)
    model.fit(
        batches,
        validation_data=validation,
        validation_freq=EVERY,
        initial_epoch=len(history),
        epochs=chosen["epochs"],
        shuffle=False,  # the batches come shuffled, in an order that a resumed run repeats
        callbacks=[Recorder(run, history, batches, HISTORY_COLUMNS)],
        verbose=verbose,
    )
    finish(model, run)
    return run


def red_cell_in(boxed: Annotations, photographs: Iterable[str]) -> float:
    """Diameter of the red cells as they are boxed, in pixels.

    Parameters
    ----------
    boxed : Annotations
        Of photographs of one magnification.
    photographs : iterable of str
        Names of those to look at.

    Returns
    -------
    float
        Median over the photographs of the median side of boxes inside the frame.

    Raises
    ------
    InvalidParameter
        If there is no such box.
    """
    boxes = boxed.boxes[boxed.boxes["photograph"].isin(set(photographs))]
    inside = (boxes[["x_min", "y_min"]] > 2).all(axis=1)
    inside &= (boxes["x_max"] < boxes["width"] - 2) & (boxes["y_max"] < boxes["height"] - 2)
    red = boxes[inside & (boxes["kind"] == "RBC")]
    if red.empty:
        raise InvalidParameter(
            "No red cell is boxed in the training photographs, from which to take the scale. "
            "Expected RBC boxes that do not touch the frame."
        )
    sides = (red["x_max"] - red["x_min"] + red["y_max"] - red["y_min"]) / 2
    return float(sides.groupby(red["photograph"]).median().median())


class SmearBatches(keras.utils.PyDataset):
    """Batches of views of smears with the maps that belong to them.

    Parameters
    ----------
    boxed : Annotations
        Boxes of all photographs.
    photographs : DataFrame
        Rows of `boxed.photographs` to give out; read into memory at once.
    scale : float
        Pixels of a view per pixel of a photograph, at which red cells are `RED_CELL` wide.
    batch_size : int
        Views a batch.
    views : SmearViews, optional
        What is drawn from; by default each photograph as it is, in order, the last batch smaller.
    seed : int
        With the epoch and the place in it, it decides what is drawn.
    """

    def __init__(self, boxed, photographs, scale, batch_size, views=STILL, seed=0):
        super().__init__(workers=n_workers())
        self.pixels = [crops.balance(read_image(path)) for path in photographs["path"]]
        boxes = boxed.boxes.groupby("photograph", observed=True)
        known = boxes.indices
        rows = [known.get(name, []) for name in photographs["photograph"]]
        corners, kinds = boxed.boxes[BOX].to_numpy(float), boxed.boxes["kind"].cat.codes.to_numpy()
        self.corners, self.kinds = [corners[row] for row in rows], [kinds[row] for row in rows]
        self.scale, self.batch_size, self.views, self.seed = scale, batch_size, views, seed
        self.epoch = 0

    def __len__(self):
        """Count the batches of an epoch: what does not fill one waits for another epoch's order."""
        n_photographs = len(self.pixels)
        if self.views is STILL:
            return -(-n_photographs // self.batch_size)
        return max(n_photographs // self.batch_size, 1)

    def __getitem__(self, index):
        """Give out one batch: uint8 views, and maps for `centre_network.centre_loss`."""
        order = np.arange(len(self.pixels))
        if self.views is not STILL:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        places = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        places = places[places < len(order)]
        # Every other batch stands upright, so that a quarter turn leaves no corner empty.
        turned = self.views is not STILL and index % 2 == 1
        size = FRAME[::-1] if turned else FRAME
        shown, maps = [], []
        for place, row in zip(places, order[places], strict=True):
            rng = np.random.default_rng((self.seed, self.epoch, place))
            view, rows, corners, unsure = smear_views.draw(
                self.pixels[row], self.corners[row], size, self.scale, self.views, rng, turned
            )
            shown.append(view)
            maps.append(centre_maps.draw_maps(corners, self.kinds[row][rows], unsure, size))
        return np.stack(shown), np.stack(maps)
