"""Batches of what a network learns from: images as they are, or views drawn from photographs.

Their order and their views depend on seed and epoch alone, so that a training that was interrupted
goes on as it would have.
"""

import keras
import numpy as np
import pandas as pd

from wbc_helpers import augmentation, cells, inputs
from wbc_helpers.recipes import RECIPES


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
            [
                augmentation.draw(self.patches[self.rows[i]], self.size, self.views, rng)
                for i in chosen
            ]
        )
        return views, self.cell_types[chosen]
