"""Batches of what a network learns from: images as they are, or views drawn from photographs.

Their order and their views depend on seed and epoch alone, so that a training that was interrupted
goes on as it would have.

Training that can be relied on: every epoch is on disk before the next begins.

Grouped cross-validation: every photograph is judged by a network that never saw it.

TEST shows 71 photographs, four of monocytes. Dealt into folds, all photographs are judged once,
which says more, and leaves TEST alone while a recipe is chosen on TRAIN.
"""

import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from wbc_helpers import cells, storage
from wbc_helpers.classify import inputs, networks
from wbc_helpers.data import catalog, splits
from wbc_helpers.data.catalog import find_images
from wbc_helpers.data.identity import Identity
from wbc_helpers.data.splits import add_provenance, grouped_folds
from wbc_helpers.errors import BrokenRun, DataNotFound, InvalidParameter, RunExists
from wbc_helpers.evaluate import classification, uncertainty
from wbc_helpers.evaluate.classification import Evaluation
from wbc_helpers.pixels import images
from wbc_helpers.pixels.views import draw
from wbc_helpers.runs import backend, folders
from wbc_helpers.runs.recipes import RECIPES, TrainingSettings, describe
from wbc_helpers.runs.recorder import Recorder, finish, restore, warm_cosine


def n_workers() -> int:
    """Count the threads that make batches ready, for `keras.utils.PyDataset`.

    With one, Keras leaves reading ahead to TensorFlow's autotuning, whose own thread is waited for
    when an epoch ends (Keras 3.14, TensorFlow 2.21): it has slept for 10 ms, 20 ms, 40 ms … since
    the epoch began, so that one of 21 s lasted until the 41st. On the other backends, several
    threads would hand batches that were read ahead on to the next epoch.

    Returns
    -------
    int
        2 on TensorFlow, else 1.
    """
    return 2 if keras.backend.backend() == "tensorflow" else 1


def one_hot(cell_types: pd.Series) -> np.ndarray:
    """Put cell types into (n, 4) float32, a one in each row, columns as in `cells.NAMES`."""
    return np.eye(len(cells.NAMES), dtype=np.float32)[cell_types.map(cells.NAMES.index).to_numpy()]


class Batches(keras.utils.PyDataset):
    """Batches of decoded images, in an order that depends on seed and epoch alone.

    Parameters
    ----------
    pixels : ndarray, (n_images, height, width, 3) uint8
        All images; may be memory-mapped.
    cell_types : ndarray of float32, (n_images, 4)
        See `one_hot`.
    rows : ndarray of int
        The images to give out.
    batch_size : int
        Images a batch; the last may be smaller.
    n_devices : int
        The last batch is cut so that it divides evenly among them: at most `n_devices` − 1
        images wait for another epoch's order.
    seed : int or None
        Seed of the order; None keeps the order of `rows`.
    """

    def __init__(self, pixels, cell_types, rows, batch_size, n_devices=1, seed=None):
        super().__init__(workers=n_workers())
        self.pixels, self.cell_types, self.rows = pixels, cell_types, rows
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.n_images = len(rows) - len(rows) % n_devices

    def __len__(self):
        """Count the batches of an epoch."""
        return -(-self.n_images // self.batch_size)

    def __getitem__(self, index):
        """Give out one batch: uint8 images and float32 cell types."""
        order = self.rows
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)
        batch = order[: self.n_images][index * self.batch_size : (index + 1) * self.batch_size]
        return self.pixels[batch], self.cell_types[batch]


class DrawnViews(keras.utils.PyDataset):
    """Batches of views of white cells, drawn anew each epoch from their photographs.

    All cell types come equally often, and all photographs of a type.

    Parameters
    ----------
    patches : inputs.Patches
        Of all photographs.
    training_images : DataFrame
        Rows of the catalog that training may see; patches of other photographs are left out.
    settings : dict
        The `training` part of a run's settings.
    """

    def __init__(self, patches, training_images, settings):
        super().__init__(workers=n_workers())
        recipe = RECIPES[settings["recipe"]]
        known = training_images.get("source_id", training_images["file"])
        sources = set(known.fillna(training_images["file"]))
        # An image that stands for its photograph must be a training image itself.
        stands_in = patches.table["file"]
        allowed = patches.table["source_id"].isin(sources) & (
            stands_in.isna() | stands_in.isin(set(training_images["file"]))
        )
        self.rows = np.flatnonzero(allowed)
        table = patches.table.iloc[self.rows]
        self.weights = inputs.balanced_weights(table)
        self.cell_types = one_hot(table["cell_type"])
        self.patches, self.views = patches.pixels, recipe.views
        self.size, self.seed = settings["image_size"][0], settings["seed"]
        self.batch_size = settings["batch_size"]
        self.n_batches = -(-(recipe.images_per_epoch or len(training_images)) // self.batch_size)
        self.epoch = 0

    def __len__(self):
        """Count the batches of an epoch."""
        return self.n_batches

    def __getitem__(self, index):
        """Draw one batch: uint8 views and float32 cell types."""
        rng = np.random.default_rng((self.seed, self.epoch, index))
        chosen = rng.choice(len(self.rows), self.batch_size, p=self.weights)
        views = np.stack(
            [draw(self.patches[self.rows[i]], self.size, self.views, rng) for i in chosen]
        )
        return views, self.cell_types[chosen]


def split(training_catalog: pd.DataFrame, settings: TrainingSettings) -> pd.Series:
    """Set validation images aside in the way that the settings ask for.

    Parameters
    ----------
    training_catalog : DataFrame
        The TRAIN images, one row each.
    settings : TrainingSettings
        Its `validation`, `validation_fraction` and `seed` decide.

    Returns
    -------
    Series of str
        `train` or `validation` for each row.
    """
    if settings.validation == "grouped" and "group_id" not in training_catalog:
        training_catalog = splits.add_provenance(training_catalog)
    return splits.split_validation(
        training_catalog, settings.validation, settings.validation_fraction, settings.seed
    )


def train_new(
    settings: TrainingSettings,
    identity: Identity,
    name: str,
    data_dir: str | Path,
    runs_dir: str | Path,
    verbose: int = 2,
) -> folders.Run:
    """Do all that the notebook `03_train` does, in one call.

    Parameters
    ----------
    settings : TrainingSettings
        What to train.
    identity : sources.Identity
        The data set.
    name : str
        Name of the run; one that exists with the same settings is gone on with.
    data_dir, runs_dir : path
        Where decoded images are kept, and where the run goes.
    verbose : int
        As for `keras.Model.fit`.

    Returns
    -------
    folders.Run
        Complete.
    """
    in_use = backend.choose()
    all_images = splits.add_provenance(find_images(identity.folder))
    training_images = all_images[all_images["split"] == "TRAIN"].reset_index(drop=True)
    part = split(training_images, settings)
    seen = (settings.recipe, settings.image_size)
    kept = {"red_cell": inputs.red_cell_of(all_images), "cache_folder": Path(data_dir) / "cache"}
    pixels = inputs.decode(seen[0], training_images["path"], seen[1], **kept)
    patches = inputs.cut_patches(identity.folder, training_images, *seen, **kept)
    described = describe(settings, identity.to_dict(), in_use)
    run = folders.start(name, runs_dir, described)
    return train(training_images, pixels, part, run, patches, in_use.n_devices, verbose)


def train(
    catalog: pd.DataFrame,
    pixels: np.ndarray,
    part: pd.Series,
    run: folders.Run,
    patches: inputs.Patches | None = None,
    n_devices: int = 1,
    verbose: int = 2,
) -> folders.Run:
    """Train the network of a run, from the start or from where an interruption left it.

    After every epoch the weights, the optimizer's state and the history are on disk. The same
    seed on the same machine gives the same history, interrupted or not, on the CPU; a GPU adds
    numbers in no fixed order, so that there, only the split and the image order are the same.

    Parameters
    ----------
    catalog : DataFrame
        The TRAIN images, one row each.
    pixels : ndarray, (n_images, height, width, 3) uint8
        The same images in the same order, at the run's image size.
    part : Series of str
        `train` or `validation` for each row.
    run : folders.Run
        From `folders.start`.
    patches : inputs.Patches, optional
        For a recipe that draws views, see `inputs.cut_patches`; those of training photographs are
        used.
    n_devices : int
        Devices among which Keras splits each batch (see `backend.choose`).
    verbose : int
        As for `keras.Model.fit`; 2 prints a line an epoch.

    Returns
    -------
    folders.Run
        The run, complete: `model.keras`, `model.weights.h5`, `history.csv`, `split.csv`.

    Raises
    ------
    InvalidParameter
        If images and catalog do not belong together, a part is empty, or batches do not divide
        evenly among the devices.
    BrokenRun
        If the checkpoint of an interrupted run cannot be read.
    """
    settings = run.settings["training"]
    expected = (len(catalog), *settings["image_size"], 3)
    if pixels.shape != expected or len(part) != len(catalog):
        raise InvalidParameter(
            f"The images have shape {pixels.shape} and {len(part)} parts; the catalog and the "
            f"run's settings ask for {expected}. Decode the same catalog at that size."
        )
    if (patches is None) != (RECIPES[settings["recipe"]].views is None):
        raise InvalidParameter(
            f"Training the recipe {settings['recipe']!r} was given "
            f"{'no patches' if patches is None else 'patches'} to draw views from. Expected what "
            "inputs.cut_patches returns for it."
        )
    if run.is_complete:
        return run
    storage.write_text(
        run.folder / "split.csv",
        pd.DataFrame({"file": catalog["file"], "part": part}).to_csv(index=False),
    )
    cell_types = one_hot(catalog["cell_type"])
    in_training, in_validation = (np.flatnonzero(part == name) for name in ("train", "validation"))
    if not len(in_training) or not len(in_validation):
        raise InvalidParameter(
            f"{len(in_training)} images are left for training and {len(in_validation)} for "
            "validation. Expected some of both; choose another validation_fraction."
        )
    batch_size, seed = settings["batch_size"], settings["seed"]
    backend.check_batch_size(batch_size, n_devices)
    if patches is None:
        training = Batches(pixels, cell_types, in_training, batch_size, n_devices, seed)
    else:
        training = DrawnViews(patches, catalog[part == "train"], settings)
    validation = Batches(pixels, cell_types, in_validation, batch_size, n_devices, None)

    keras.utils.set_random_seed(settings["seed"])
    model = compiled_model(settings, pixels, part, len(training))
    history = restore(model, run)
    model.fit(
        training,
        validation_data=validation,
        initial_epoch=len(history),
        epochs=settings["epochs"],
        shuffle=False,  # the batches come shuffled, in an order that a resumed run repeats
        callbacks=[Recorder(run, history, training)],
        verbose=verbose,
    )
    finish(model, run)
    return run


def compiled_model(
    settings: dict[str, Any], pixels: np.ndarray, part: pd.Series, n_steps: int = 1
) -> keras.Model:
    """Build a recipe's network on the statistics of its training images, ready to fit.

    Parameters
    ----------
    settings : dict
        The `training` part of a run's settings.
    pixels : ndarray, (n_images, height, width, 3) uint8
        All images.
    part : Series of str
        `train` or `validation` for each image.
    n_steps : int
        Batches an epoch, by which a schedule is timed.

    Returns
    -------
    keras.Model
        Compiled with the recipe's optimizer and cross-entropy.
    """
    in_training = np.flatnonzero(part == "train")
    statistics = images.mean_and_std_image(pixels[row] for row in in_training)
    model = networks.build(settings["recipe"], tuple(settings["image_size"]), statistics)
    recipe, rate = RECIPES[settings["recipe"]], settings["learning_rate"]
    if recipe.schedule == "cosine":
        rate = warm_cosine(rate, settings["epochs"] * n_steps)
    config = {"learning_rate": rate}
    if settings["optimizer"] == "adamw":
        config["weight_decay"] = recipe.weight_decay
    optimizer = keras.optimizers.get({"class_name": settings["optimizer"], "config": config})
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    model.compile(optimizer, loss=loss, metrics=["accuracy"])
    return model


def cross_validate(
    settings: TrainingSettings,
    identity: Identity,
    name: str,
    data_dir: str | Path,
    runs_dir: str | Path,
    n_folds: int = 5,
    splits: tuple[str, ...] = ("TRAIN",),
    verbose: int = 0,
) -> pd.DataFrame:
    """Train once a fold, and gather the answers to the images that were held out.

    The folder `runs_dir/name` receives `fold-0` …, each a run of its own with which an interrupted
    cross-validation goes on, then `predictions.csv` and `crossval.json`.

    Parameters
    ----------
    settings : TrainingSettings
        Its `validation` and `validation_fraction` are not used: each fold validates on what it
        holds out.
    identity : sources.Identity
        The data set; its photographs must be known.
    name : str
        Of the folder, see `folders.check_name`.
    data_dir, runs_dir : path
        Where decoded images are kept, and where the folder goes.
    n_folds : int
        At least 2.
    splits : tuple of str
        Whose images take part: `TRAIN` to choose a recipe; `TRAIN` and `TEST` to judge it by all
        photographs of one white cell.
    verbose : int
        As for `keras.Model.fit`.

    Returns
    -------
    DataFrame
        Out-of-fold answers, see `classification.tabulate`.

    Raises
    ------
    InvalidParameter
        If the photographs are not known, or too few for so many folds.
    RunExists
        If a fold exists with other settings or data, or the folder holds something else.
    """
    folder = _folder_for(name, runs_dir)
    in_use = backend.choose()
    everything = add_provenance(catalog.find_images(identity.folder))
    rows = everything[everything["split"].isin(splits)].reset_index(drop=True)
    fold = grouped_folds(rows, n_folds, settings.seed)
    seen = (settings.recipe, settings.image_size)
    kept = {"red_cell": inputs.red_cell_of(everything), "cache_folder": Path(data_dir) / "cache"}
    pixels = inputs.decode(seen[0], rows["path"], seen[1], **kept)
    patches = inputs.cut_patches(identity.folder, rows, *seen, **kept)
    described = describe_fold(settings, identity, in_use, n_folds, splits)
    answers = []
    for number in range(n_folds):
        held_out = fold == number
        part = held_out.map({True: "validation", False: "train"}).rename("part")
        run = folders.start(f"fold-{number}", folder, described)
        train(rows, pixels, part, run, patches, in_use.n_devices, verbose)
        judged = rows[held_out]
        told = networks.answer(settings.recipe, networks.load(run), pixels[held_out.to_numpy()])
        answers.append(classification.tabulate(judged, told))
        accuracy = (answers[-1]["predicted"] == answers[-1]["cell_type"]).mean()
        print(
            f"fold {number}: {len(judged):,} images of {judged['source_id'].nunique()} "
            "photographs, "
            f"accuracy {accuracy:.1%}, {run.history['seconds'].sum():.0f} s",
            flush=True,
        )
    table = pd.concat(answers, ignore_index=True)
    classification.write_predictions(folder, table)
    told = {"training": described["training"], "data": described["data"], **summarise(table)}
    storage.write_json(folder / "crossval.json", folders.finite(told))
    return table


def describe_fold(
    settings: TrainingSettings,
    identity: Identity,
    in_use: backend.Runtime | None = None,
    n_folds: int = 5,
    splits: tuple[str, ...] = ("TRAIN",),
) -> dict[str, Any]:
    """Put together what each fold's `settings.json` records, as `recipes.describe` does of a run.

    Parameters
    ----------
    settings, identity, n_folds, splits
        See `cross_validate`.
    in_use : backend.Runtime, optional
        What it runs on.

    Returns
    -------
    dict
        For `folders.start`, and for `folders.find`, which tells whether a fold was made alike.
    """
    described = describe(settings, identity.to_dict(), in_use)
    described["training"] |= {"validation": "grouped", "splits": list(splits), "folds": n_folds}
    del described["training"]["validation_fraction"]
    return described


def _folder_for(name: str, runs_dir: str | Path) -> Path:
    """Find the folder of a cross-validation, and refuse one that holds something else."""
    folder = folders.folder_of(name, runs_dir)
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    own = re.compile(r"fold-\d+|predictions\.csv|crossval\.json|\..*")
    strangers = [entry for entry in entries if not own.fullmatch(entry)]
    if strangers:
        raise RunExists(
            f"{folder} exists and is no cross-validation (it holds {', '.join(strangers[:5])}). "
            "Nothing was changed. Give the cross-validation another name."
        )
    return folder


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Score out-of-fold answers by image and by photograph.

    Parameters
    ----------
    table : DataFrame
        See `cross_validate`.

    Returns
    -------
    dict
        `images` and `photographs`, each see `classification.summary`, with `intervals`: 95 %, drawn
        by photograph.
    """
    by_image = classification.evaluate_table(table)
    looks = {
        "images": (by_image, table["source_id"]),
        "photographs": _by_photograph(by_image, table["source_id"]),
    }
    summary = {}
    for look, (judged, units) in looks.items():
        interval = uncertainty.intervals(judged, units)
        summary[look] = classification.summary(judged) | {
            "intervals": {
                score: interval.loc[score, ["low", "high"]].tolist()
                for score in ("accuracy", "balanced_accuracy", "macro_f1")
            }
        }
    return summary


def _by_photograph(evaluation: Evaluation, source_ids: pd.Series) -> tuple[Evaluation, list[str]]:
    """Judge photographs, each a unit of its own."""
    judged = classification.by_photograph(evaluation, source_ids)
    return judged, [str(number) for number in range(judged.n_images)]


def report(table: pd.DataFrame) -> str:
    """Put the scores of a cross-validation into a few lines.

    Parameters
    ----------
    table : DataFrame
        See `cross_validate`.

    Returns
    -------
    str
        Accuracy and balanced accuracy by image and by photograph, each with its interval.
    """
    lines = []
    for look, scores in summarise(table).items():
        told = ", ".join(
            f"{score.replace('_', ' ')} {scores[score]:.1%} "
            f"({scores['intervals'][score][0]:.1%}–{scores['intervals'][score][1]:.1%})"
            for score in ("accuracy", "balanced_accuracy")
        )
        recalls = ", ".join(
            f"{name} {each['recall']:.0%}"
            for name, each in scores["per_class"].items()
            if each["recall"] is not None
        )
        lines.append(f"{look} (n = {scores['n_images']:,}): {told}; recall: {recalls}")
    return "\n".join(lines)


def read(name: str, runs_dir: str | Path, data: dict[str, Any] | None = None) -> pd.DataFrame:
    """Read the out-of-fold answers of a finished cross-validation.

    Parameters
    ----------
    name : str
        Of its folder.
    runs_dir : path
        Folder of all runs.
    data : dict, optional
        The data at hand, as `Identity.to_dict` gives them, which must be those it was made from.

    Returns
    -------
    DataFrame
        See `cross_validate`.

    Raises
    ------
    DataNotFound
        If there is none of this name, or it has not finished.
    DataMismatch
        If it was made from other data.
    BrokenRun
        If one of its files is damaged.
    """
    folder = folders.folder_of(name, runs_dir)
    if not (folder / "crossval.json").is_file():
        raise DataNotFound(
            f"{folder} holds no finished cross-validation. Make one: `make crossval RUN={name}`."
        )
    try:
        made = json.loads((folder / "crossval.json").read_text(encoding="utf-8"))
        made["data"]["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenRun(
            f"{folder / 'crossval.json'} is damaged ({error!r}). Start the cross-validation again "
            "under the same name: folds that are finished are not trained again."
        ) from error
    if data is not None:
        folders.check_data(folders.Run(folder, made), data)
    return classification.read_predictions(folder)
