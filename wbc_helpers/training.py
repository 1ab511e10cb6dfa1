"""Training that can be relied on: every epoch is on disk before the next begins."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from wbc_helpers import (
    batches,
    images,
    inputs,
    models,
    provenance,
    runs,
    runtime,
    storage,
)
from wbc_helpers import catalog as catalogs
from wbc_helpers.errors import InvalidParameter
from wbc_helpers.recipes import RECIPES
from wbc_helpers.recorder import Recorder, finish, restore, warm_cosine
from wbc_helpers.recorder import peak_memory_bytes as peak_memory_bytes  # notebooks ask here
from wbc_helpers.settings import TrainingSettings, describe
from wbc_helpers.sources import Identity


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
        training_catalog = provenance.add_provenance(training_catalog)
    return catalogs.split_validation(
        training_catalog, settings.validation, settings.validation_fraction, settings.seed
    )


def train_new(
    settings: TrainingSettings,
    identity: Identity,
    name: str,
    data_dir: str | Path,
    runs_dir: str | Path,
    verbose: int = 2,
) -> runs.Run:
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
    runs.Run
        Complete.
    """
    in_use = runtime.choose()
    all_images = provenance.add_provenance(catalogs.find_images(identity.folder))
    training_images = all_images[all_images["split"] == "TRAIN"].reset_index(drop=True)
    part = split(training_images, settings)
    seen = (settings.recipe, settings.image_size)
    kept = {"red_cell": inputs.red_cell_of(all_images), "cache_folder": Path(data_dir) / "cache"}
    pixels = inputs.decode(seen[0], training_images["path"], seen[1], **kept)
    patches = inputs.cut_patches(identity.folder, training_images, *seen, **kept)
    described = describe(settings, identity.to_dict(), in_use)
    run = runs.start(name, runs_dir, described)
    return train(training_images, pixels, part, run, patches, in_use.n_devices, verbose)


def train(
    catalog: pd.DataFrame,
    pixels: np.ndarray,
    part: pd.Series,
    run: runs.Run,
    patches: inputs.Patches | None = None,
    n_devices: int = 1,
    verbose: int = 2,
) -> runs.Run:
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
    run : runs.Run
        From `runs.start`.
    patches : inputs.Patches, optional
        For a recipe that draws views, see `inputs.cut_patches`; those of training photographs are
        used.
    n_devices : int
        Devices among which Keras splits each batch (see `runtime.choose`).
    verbose : int
        As for `keras.Model.fit`; 2 prints a line an epoch.

    Returns
    -------
    runs.Run
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
    cell_types = batches.one_hot(catalog["cell_type"])
    in_training, in_validation = (np.flatnonzero(part == name) for name in ("train", "validation"))
    if not len(in_training) or not len(in_validation):
        raise InvalidParameter(
            f"{len(in_training)} images are left for training and {len(in_validation)} for "
            "validation. Expected some of both; choose another validation_fraction."
        )
    batch_size, seed = settings["batch_size"], settings["seed"]
    runtime.check_batch_size(batch_size, n_devices)
    if patches is None:
        training = batches.Batches(pixels, cell_types, in_training, batch_size, n_devices, seed)
    else:
        training = batches.DrawnViews(patches, catalog[part == "train"], settings)
    validation = batches.Batches(pixels, cell_types, in_validation, batch_size, n_devices, None)

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
    model = models.build(settings["recipe"], tuple(settings["image_size"]), statistics)
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
