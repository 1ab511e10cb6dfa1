"""Training the networks that name white cells, and cross-validating them.

The order of images and the views drawn of them depend on seed and epoch alone, and every epoch is
on disk before the next begins, so that a training that was interrupted goes on as it would have.
Cross-validation deals photographs into folds and judges each by a network that never saw it: TEST
shows 71 photographs, four of monocytes, and is left alone while a recipe is chosen on TRAIN.
"""

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wbc_helpers import cells, storage
from wbc_helpers.classify import inputs, networks
from wbc_helpers.classify.inputs import Prepared
from wbc_helpers.data.identity import Identity
from wbc_helpers.data.splits import grouped_folds
from wbc_helpers.errors import DataNotFound, InvalidParameter, RunExists
from wbc_helpers.evaluate import classification, uncertainty
from wbc_helpers.pixels import stain
from wbc_helpers.pixels.views import draw
from wbc_helpers.runs import answering, backend, folders, recorder
from wbc_helpers.runs.backend import keras
from wbc_helpers.runs.recipes import RECIPES, TrainingSettings, describe


def train_new(
    settings: TrainingSettings,
    identity: Identity,
    name: str,
    data_dir: str | Path,
    runs_dir: str | Path,
    verbose: int = 2,
) -> folders.Run:
    """Do all that the notebook `03_train` does, in one call.

    A run of that `name` that exists with the same settings is gone on with. Decoded images are kept
    in `data_dir`, the run goes into `runs_dir`; for `verbose` see `recorder.fit`.
    """
    runtime = backend.choose()
    prepared = inputs.prepare(identity.folder, settings, Path(data_dir) / "cache")
    return train(prepared, start(settings, identity, name, runs_dir), runtime.n_devices, verbose)


def start(
    settings: TrainingSettings, identity: Identity, name: str, runs_dir: str | Path
) -> folders.Run:
    """Begin a run on these data and this machine, or find it to go on with, see `folders.start`.

    Without a `name` it is called by `TrainingSettings.default_name`.
    """
    record = describe(settings, identity.to_dict(), backend.choose())
    return folders.start(name or settings.default_name(identity.source.name), runs_dir, record)


def train(
    prepared: Prepared, run: folders.Run, n_devices: int = 1, verbose: int = 2
) -> folders.Run:
    """Train the network of a run, from the start or from where an interruption left it.

    What is given back is complete, with `split.csv`. For `verbose` see `recorder.fit`, for the
    other parameters, and errors, `begin`.
    """
    batches, validation = begin(prepared, run, n_devices)
    if run.is_complete:
        return run
    return recorder.fit(
        run,
        lambda: compiled_model(run.settings["training"], prepared, len(batches)),
        batches,
        validation,
        n_devices,
        verbose=verbose,
    )


def begin(
    prepared: Prepared, run: folders.Run, n_devices: int = 1
) -> tuple[keras.utils.PyDataset, keras.utils.PyDataset]:
    """Write which image a run trains on, and give out its batches: to train, and to validate.

    `prepared` comes from `inputs.prepare`, `run` from `folders.start`; for `n_devices` see
    `recorder.fit`. Raises `InvalidParameter` if images and catalog do not belong together, a part
    is empty, or devices would get unequal parts of a batch.
    """
    settings, catalog, part = run.settings["training"], prepared.catalog, prepared.part
    recorder.check_divides(settings["batch_size"], n_devices)
    expected = (len(catalog), *settings["image_size"], 3)
    if prepared.pixels.shape != expected or len(part) != len(catalog):
        raise InvalidParameter(
            f"The images have shape {prepared.pixels.shape} and {len(part)} parts; the catalog and "
            f"the run's settings ask for {expected}. Decode the same catalog at that size."
        )
    if (prepared.patches is None) != (RECIPES[settings["recipe"]].views is None):
        raise InvalidParameter(
            f"Training the recipe {settings['recipe']!r} was given "
            f"{'no patches' if prepared.patches is None else 'patches'} to draw views from. "
            "Expected what inputs.cut_patches returns for it."
        )
    rows = {name: np.flatnonzero(part == name) for name in ("train", "validation")}
    if not all(map(len, rows.values())):
        raise InvalidParameter(
            f"{len(rows['train'])} images are left for training and {len(rows['validation'])} for "
            "validation. Expected some of both; choose another validation_fraction."
        )
    if not run.is_complete:
        folders.write_split(run, catalog["file"], part)
    shown = (prepared.pixels, one_hot(catalog["cell_type"]))
    divided = (settings["batch_size"], n_devices)
    validation = Batches(*shown, rows["validation"], *divided)
    if prepared.patches is None:
        return Batches(*shown, rows["train"], *divided, settings["seed"]), validation
    return views_of(prepared.patches, catalog[part == "train"], settings), validation


def compiled_model(settings: dict[str, Any], prepared: Prepared, n_steps: int = 1) -> keras.Model:
    """Build a recipe's network on the statistics of its training images, ready to fit.

    `settings` are the `training` part of a run's settings; of `prepared` the training part is
    measured; `n_steps`, batches an epoch, time a schedule.
    """
    size, statistics = tuple(settings["image_size"]), prepared.statistics()
    model = networks.build(settings["recipe"], size, statistics)
    compile_model(model, settings, n_steps)
    return model


def compile_model(model: keras.Model, settings: dict[str, Any], n_steps: int = 1) -> None:
    """Give a network its recipe's optimizer and loss, see `compiled_model`."""
    recipe, rate = RECIPES[settings["recipe"]], settings["learning_rate"]
    if recipe.schedule == "cosine":
        rate = recorder.warm_cosine(rate, settings["epochs"] * n_steps)
    config = {"learning_rate": rate}
    if settings["optimizer"] == "adamw":
        config["weight_decay"] = recipe.weight_decay
    optimizer = keras.optimizers.get({"class_name": settings["optimizer"], "config": config})
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    model.compile(optimizer, loss=loss, metrics=["accuracy"])


def one_hot(cell_types: pd.Series, answers: tuple[str, ...] = cells.NAMES) -> np.ndarray:
    """Put cell types into (n, n_answers) float32, a one in each row, columns as in `answers`."""
    places = [answers.index(cell_type) for cell_type in cell_types]
    return np.eye(len(answers), dtype=np.float32)[places]


class Batches(keras.utils.PyDataset):
    """Batches of decoded images, in an order that depends on seed and epoch alone.

    `pixels`, (n_images, height, width, 3) uint8, are all images and may be memory-mapped; for their
    `cell_types` see `one_hot`. Those of `rows` are given out, `batch_size` at a time, and the last
    batch is cut so that it divides evenly among `n_devices`: at most `n_devices` − 1 images wait
    for another epoch's order. Without a seed the order is that of `rows`.
    """

    def __init__(self, pixels, cell_types, rows, batch_size, n_devices=1, seed=None):
        super().__init__(workers=recorder.n_workers())
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

    Of `pixels`, (n_patches, side, side, 3) uint8, each comes as often as `weights` (sum 1) say;
    `answers`, (n_patches, n_answers) float32, see `one_hot`. `settings` are the `training` part of
    a run's settings. Where the recipe's views transfer stains, any patch lends its own.
    """

    def __init__(self, pixels, answers, weights, settings, n_images=None):
        super().__init__(workers=recorder.n_workers())
        recipe = RECIPES[settings["recipe"]]
        self.patches, self.answers, self.weights = pixels, answers, weights
        self.views = recipe.views
        self.size, self.seed = settings["image_size"][0], settings["seed"]
        self.batch_size = settings["batch_size"]
        self.n_batches = -(-(recipe.images_per_epoch or n_images) // self.batch_size)
        self.stains = None
        if self.views.transfer:
            middle = slice(pixels.shape[1] // 4, -(pixels.shape[1] // 4))
            self.stains = [stain.statistics(patch[middle, middle]) for patch in pixels]
        self.epoch = 0

    def __len__(self):
        """Count the batches of an epoch."""
        return self.n_batches

    def __getitem__(self, index):
        """Draw one batch: uint8 views and float32 answers."""
        rng = np.random.default_rng((self.seed, self.epoch, index))
        chosen = rng.choice(len(self.patches), self.batch_size, p=self.weights)
        donors = [None] * self.batch_size
        if self.stains:
            lenders = rng.choice(len(self.patches), self.batch_size, p=self.weights)
            donors = [self.stains[lender] for lender in lenders]
        views = np.stack(
            [
                draw(self.patches[patch], self.size, self.views, rng, donor)
                for patch, donor in zip(chosen, donors, strict=True)
            ]
        )
        return views, self.answers[chosen]


def views_of(
    patches: inputs.Patches, training_images: pd.DataFrame, settings: dict[str, Any]
) -> DrawnViews:
    """Draw views of the patches that training may see: all types alike, all photographs of a type.

    `training_images`, rows of the catalog, are those that it may see: an image that stands for its
    photograph must be one of them itself.
    """
    sources = set(inputs.source_ids(training_images))
    stands_in = patches.table["file"]
    allowed = patches.table["source_id"].isin(sources) & (
        stands_in.isna() | stands_in.isin(set(training_images["file"]))
    )
    table = patches.table[allowed]
    pixels = patches.pixels[np.flatnonzero(allowed)]
    weights = inputs.balanced_weights(table)
    answers = one_hot(table["cell_type"])
    return DrawnViews(pixels, answers, weights, settings, len(training_images))


def cross_validate(
    settings: TrainingSettings,
    identity: Identity,
    name: str,
    data_dir: str | Path,
    runs_dir: str | Path,
    n_folds: int = 5,
    splits: tuple[str, ...] = ("TRAIN",),
    verbose: int = 0,
    workers: backend.Workers = backend.Workers(),  # noqa: B008 (a frozen value)
) -> pd.DataFrame:
    """Train once a fold, and gather the answers to the images that were held out.

    The folder `runs_dir/name` receives `fold-0` …, each a run of its own with which an interrupted
    cross-validation goes on, then `predictions.csv` and `crossval.json`. Gives the out-of-fold
    answers, see `classification.tabulate`; for parameters not named here see `train_new`.

    Parameters
    ----------
    settings : TrainingSettings
        Its `validation` and `validation_fraction` are not used: each fold validates on what it
        holds out.
    n_folds : int
        At least 2.
    splits : tuple of str
        Whose images take part: `TRAIN` to choose a recipe; `TRAIN` and `TEST` to judge it by all
        photographs of one white cell.
    workers : Workers
        Who trains, a fold at a time; others see the same folders.

    Raises
    ------
    InvalidParameter
        If the photographs are not known, or too few for so many folds.
    RunExists
        If a fold exists with other settings or data, or the folder holds something else.
    NoWorkers, PackageMissing
        See `Workers.share`.
    """
    folder = _folder_for(name, runs_dir)
    cache = storage.absolute(data_dir) / "cache"
    identity = replace(identity, folder=identity.folder.absolute())
    # Before it is shared: what is decoded here, workers find decoded.
    dealt = _deal(identity, settings, cache, splits, n_folds)
    work = functools.partial(
        _train_fold, folder=folder, settings=settings, identity=identity, cache=cache,
        splits=splits, n_folds=n_folds, verbose=verbose, dealt=None if workers else dealt,
    )  # fmt: skip
    tables = {}
    for number, table, words in workers.share(work, range(n_folds)):
        tables[number] = table
        print(words, flush=True)
    table = pd.concat([tables[number] for number in range(n_folds)], ignore_index=True)
    classification.write_predictions(folder, table)
    record = describe_fold(settings, identity, None, n_folds, splits)
    scores = {"training": record["training"], "data": record["data"], **summarise(table)}
    storage.write_json(folder / "crossval.json", folders.finite(scores))
    return table


def _deal(
    identity: Identity, settings: TrainingSettings, cache: Path, splits: tuple, n_folds: int
) -> Prepared:
    """Deal the photographs into folds, and decode what networks are shown of them."""
    return inputs.prepare(
        identity.folder, settings, cache, splits,
        deal=lambda rows, settings: grouped_folds(rows, n_folds, settings.seed),
    )  # fmt: skip


def _train_fold(
    number: int, folder: Path, settings: TrainingSettings, identity: Identity, cache: Path,
    splits: tuple, n_folds: int, verbose: int, dealt: Prepared | None,
) -> tuple[int, pd.DataFrame, str]:  # fmt: skip
    """Train without one fold, and judge on it: its answers, and a sentence of them."""
    runtime = backend.choose()
    dealt = dealt or _deal(identity, settings, cache, splits, n_folds)
    held_out = dealt.part == number
    part = held_out.map({True: "validation", False: "train"}).rename("part")
    record = describe_fold(settings, identity, runtime, n_folds, splits)
    run = folders.start(f"fold-{number}", folder, record)
    train(replace(dealt, part=part), run, runtime.n_devices, verbose)
    judged, pixels = dealt.catalog[held_out], dealt.pixels[held_out.to_numpy()]
    probabilities = answering.answer(networks.load(run), pixels, RECIPES[settings.recipe].turned)
    table = classification.tabulate(judged, probabilities)
    accuracy = (table["predicted"] == table["cell_type"]).mean()
    return number, table, (
        f"fold {number}: {len(judged):,} images of {judged['source_id'].nunique()} "
        f"photographs, accuracy {accuracy:.1%}, {run.history['seconds'].sum():.0f} s"
    )  # fmt: skip


def describe_fold(
    settings: TrainingSettings,
    identity: Identity,
    runtime: backend.Runtime | None = None,
    n_folds: int = 5,
    splits: tuple[str, ...] = ("TRAIN",),
) -> dict[str, Any]:
    """Put together what each fold's `settings.json` records, as `recipes.describe` does of a run.

    It serves `folders.start`, and `folders.find`, which tells whether a fold was made alike.
    """
    record = describe(settings, identity.to_dict(), runtime)
    record["training"] |= {"validation": "grouped", "splits": list(splits), "folds": n_folds}
    del record["training"]["validation_fraction"]
    return record


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
    """Score out-of-fold answers, see `cross_validate`, by image and by photograph.

    Returns `images` and `photographs`, each see `classification.summary`, with `intervals`: 95 %,
    drawn by photograph.
    """
    by_image = classification.evaluate_table(table)
    by_photograph = classification.by_photograph(by_image, table["source_id"])
    looks: dict[str, tuple[classification.Evaluation, Any]] = {
        "images": (by_image, table["source_id"]),
        # Each photograph is a unit of its own.
        "photographs": (by_photograph, list(map(str, range(by_photograph.n_images)))),
    }
    summary = {}
    for look, (judged, units) in looks.items():
        interval = uncertainty.intervals(judged, units)
        summary[look] = classification.summary(judged) | {
            "intervals": {
                score: [float(interval[end].loc[score]) for end in ("low", "high")]
                for score in ("accuracy", "balanced_accuracy", "macro_f1")
            }
        }
    return summary


def report(table: pd.DataFrame) -> str:
    """Put the scores of a cross-validation, see `summarise`, into two lines."""
    lines = []
    for look, scores in summarise(table).items():
        accuracies = ", ".join(
            f"{score.replace('_', ' ')} {scores[score]:.1%} "
            f"({scores['intervals'][score][0]:.1%}–{scores['intervals'][score][1]:.1%})"
            for score in ("accuracy", "balanced_accuracy")
        )
        recalls = ", ".join(
            f"{name} {of_type['recall']:.0%}"
            for name, of_type in scores["per_class"].items()
            if of_type["recall"] is not None
        )
        lines.append(f"{look} (n = {scores['n_images']:,}): {accuracies}; recall: {recalls}")
    return "\n".join(lines)


def read(name: str, runs_dir: str | Path, data: dict[str, Any] | None = None) -> pd.DataFrame:
    """Read the out-of-fold answers of a finished cross-validation.

    If `data`, those at hand as `Identity.to_dict` gives them, are not those it was made from,
    `DataMismatch` is raised; `DataNotFound` if there is none of this name, or it has not finished;
    and `BrokenRun` if one of its files is damaged.
    """
    folder = folders.folder_of(name, runs_dir)
    hint = (
        "Start the cross-validation again under the same name: folds that are finished are not "
        "trained again."
    )
    try:
        made = storage.read_record(folder / "crossval.json", hint)
    except FileNotFoundError as error:
        raise DataNotFound(
            f"{folder} holds no finished cross-validation. Make one: `make crossval RUN={name}`."
        ) from error
    if data is not None:
        folders.check_data(folders.Run(folder, made), data)
    return classification.read_predictions(folder)
