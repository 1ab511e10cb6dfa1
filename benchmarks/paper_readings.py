"""Compare readings of what the paper leaves open, on one grouped validation fold of TRAIN.

    python benchmarks/paper_readings.py --source blood-cells.zip --epochs 16

Prints, for each reading: the accuracy on the training part after the last epoch, and on the
validation photographs the mean and the range over the last five epochs. TEST is not touched.
"""

import argparse
import time
from pathlib import Path

from wbc_helpers.data import catalog, sources
from wbc_helpers.pixels import images
from wbc_helpers.runs import backend

ROOT = Path(__file__).resolve().parents[1]

READINGS = {
    "48×64, as chosen": ((48, 64), {}),
    "60×80": ((60, 80), {}),
    "16, 8, 8, 4 filters": ((48, 64), {"filters": (16, 8, 8, 4)}),
    "5×5 kernels": ((48, 64), {"kernel": 5}),
    "no dropout": ((48, 64), {"dropout": 0.0}),
    "dropout 0.25": ((48, 64), {"dropout": 0.25}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="auto")
    parser.add_argument("--data-dir", default=str(ROOT / "data"))
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(backend.choose())
    import keras
    import numpy as np

    from wbc_helpers.classify import networks, training
    from wbc_helpers.data import splits
    from wbc_helpers.runs.recipes import RECIPES

    table = catalog.find_images(sources.fetch(options.source, options.data_dir))
    table = table[table["split"] == "TRAIN"].reset_index(drop=True)
    table = splits.add_provenance(table)
    part = splits.split_validation(table, "grouped", 0.2, options.seed)
    rows = [np.flatnonzero(part == name) for name in ("train", "validation")]
    cell_types = training.one_hot(table["cell_type"])

    class NextOrder(keras.callbacks.Callback):
        """Give the images in another order every epoch, as `training.train` does."""

        def __init__(self, given):
            super().__init__()
            self.given = given

        def on_epoch_begin(self, epoch, logs=None):
            self.given.epoch = epoch

    print(f"{len(rows[0]):,} training images, {len(rows[1]):,} of other photographs to validate")
    for name, (size, reading) in READINGS.items():
        pixels = images.decode(table["path"], size, Path(options.data_dir) / "cache")
        statistics = images.mean_and_std_image(pixels[row] for row in rows[0])
        keras.utils.set_random_seed(options.seed)
        network = networks.paper_cnn(size, statistics, RECIPES["paper"].readings | reading)
        network.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
        given = [training.Batches(pixels, cell_types, each, 128, seed=s)
                 for each, s in zip(rows, (options.seed, None), strict=True)]  # fmt: skip
        started = time.perf_counter()
        history = network.fit(
            given[0],
            validation_data=given[1],
            epochs=options.epochs,
            shuffle=False,
            callbacks=[NextOrder(given[0])],
            verbose=0,
        ).history
        last = history["val_accuracy"][-5:]
        print(
            f"{name:22} training {history['accuracy'][-1]:.3f}, validation {np.mean(last):.3f} "
            f"({min(last):.3f}–{max(last):.3f}), "
            f"{(time.perf_counter() - started) / options.epochs:.1f} s an epoch",
            flush=True,
        )


if __name__ == "__main__":
    main()
