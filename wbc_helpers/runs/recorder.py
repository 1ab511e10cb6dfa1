"""Trains the network of a run, and keeps every epoch on disk, so that one cut off goes on."""

import random
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from wbc_helpers import storage
from wbc_helpers.errors import BrokenRun, InvalidParameter
from wbc_helpers.runs import backend, folders
from wbc_helpers.runs.backend import keras


def fit(
    run: folders.Run,
    make_model: Callable[[], keras.Model],
    batches: keras.utils.PyDataset,
    validation: keras.utils.PyDataset | None,
    n_devices: int = 1,
    columns: Sequence[str] = folders.HISTORY_COLUMNS,
    verbose: int = 2,
    **others: Any,
) -> folders.Run:
    """Train the network of a run, from the start or from where an interruption left it.

    After every epoch the weights, the optimizer's state and the history are on disk. The same seed
    on the same machine gives the same history, interrupted or not, on the CPU; a GPU adds numbers
    in no fixed order, so that there, only the split and the image order are the same. What is given
    back is complete: `model.keras`, `model.weights.h5` and `history.csv`, of these `columns`, are
    there.

    Parameters
    ----------
    run, make_model
        From `folders.start`, whose settings give `epochs`, `batch_size` and `seed`; and what builds
        and compiles the network, once the seed is set.
    batches, validation
        The batches' `seed` and `epoch` decide what they draw.
    n_devices : int
        Devices among which Keras splits each batch (see `backend.choose`).
    verbose : int
        As for `keras.Model.fit`, as are all others; 2 prints a line an epoch.

    Raises
    ------
    InvalidParameter
        If some devices would get more images of a batch than others.
    BrokenRun
        If the checkpoint of an interrupted run cannot be read.
    FolderInUse
        If another process trains the same run.
    """
    settings = run.settings["training"]
    check_divides(settings["batch_size"], n_devices)
    with storage.only_one(run.folder):
        with seeded(settings["seed"]):
            model = make_model()
        recorder = Recorder(run, model, batches, columns)
        model.fit(
            batches,
            validation_data=validation,
            initial_epoch=recorder.n_epochs,
            epochs=settings["epochs"],
            shuffle=False,  # the batches come shuffled, in an order that a resumed run repeats
            callbacks=[recorder],
            verbose=verbose,
            **others,
        )
    return run


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Set every seed, and let no other thread draw from what layers draw their first weights by.

    Keras draws those from Python's generator, of which the threads of one of Dask's workers draw,
    too. In here it has one of its own, with the same numbers.
    """
    keras.utils.set_random_seed(seed)
    with mock.patch("keras.src.random.seed_generator.python_random", random.Random(seed)):
        yield


def check_divides(batch_size: int, n_devices: int) -> None:
    """Raise `InvalidParameter` if some devices would get more images of a batch than others."""
    if batch_size % n_devices:
        raise InvalidParameter(
            f"batch_size={batch_size} does not divide evenly among {n_devices} devices. Expected a "
            f"multiple of {n_devices}, such as {-(-batch_size // n_devices) * n_devices}."
        )


class Recorder(keras.callbacks.Callback):
    """Puts every finished epoch of a run on disk, and tells the batches which epoch begins.

    Of a run that was interrupted, the newest whole epoch is loaded into the compiled `model`; of
    one that is complete, its weights. `n_epochs` says how many epochs are done: where `fit` begins.
    For the other parameters and errors see `fit`.
    """

    def __init__(
        self,
        run: folders.Run,
        model: keras.Model,
        batches: keras.utils.PyDataset,
        columns: Sequence[str] = folders.HISTORY_COLUMNS,
    ):
        super().__init__()
        self.run, self.batches, self.columns = run, batches, list(columns)
        history = _restore(model, run)
        self.rows, self.n_epochs = history.to_dict("records"), len(history)

    def on_epoch_begin(self, epoch, logs=None):
        """Set the epoch's randomness, so that a resumed run draws what it would have drawn."""
        self.batches.epoch = epoch
        # Keras saves weights and optimizer, but not the counters that its dropout draws from.
        generators = (v for v in self.model.variables if v.path.endswith("seed_generator_state"))
        for index, state in enumerate(generators):
            drawn = np.random.SeedSequence((self.batches.seed, epoch, index)).generate_state(2)
            state.assign(drawn.astype(state.dtype))
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Keep memory for the steps that follow: the data set that was just made forbade it."""
        if batch == 0:
            backend.keep_freed_memory()

    def on_epoch_end(self, epoch, logs=None):
        """Write weights and history, then remove the weights of the epoch before.

        Whenever this is cut off, the newest epoch that both know of is whole.
        """
        self.rows.append(
            {
                "epoch": epoch + 1,
                **{name: float(value) for name, value in logs.items()},
                "seconds": round(time.perf_counter() - self.started, 3),
                "peak_memory_bytes": peak_memory_bytes(),
            }
        )
        self.n_epochs = epoch + 1
        checkpoint = _checkpoint(self.run, epoch + 1)
        save_weights(self.model, checkpoint)
        folders.write_history(self.run, pd.DataFrame(self.rows, columns=self.columns))
        for old in _checkpoints(self.run):
            if old != checkpoint:
                old.unlink()

    def on_train_end(self, logs=None):
        """Write the model, which completes the run; a run that was complete is left alone."""
        if self.run.is_complete:
            return
        save_weights(self.model, self.run.folder / "model.weights.h5")
        with storage.atomic_file(self.run.folder / "model.keras") as partial:
            self.model.save(partial, overwrite=True)
        for checkpoint in _checkpoints(self.run):
            checkpoint.unlink()


def save_weights(model: keras.Model, target: Path) -> None:
    """Write weights and optimizer's state as Keras's `.weights.h5` does, whole or not at all.

    Where a disk is full, HDF5 ends the process. Into a `.keras` file, a zip archive, Keras puts the
    same bytes by way of memory. Raises as `storage.atomic_file`.
    """
    with storage.atomic_file(target) as partial, tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model.keras"
        model.save(whole)
        with (
            zipfile.ZipFile(whole) as parts,
            parts.open("model.weights.h5") as weights,
            partial.open("wb") as written,
        ):
            shutil.copyfileobj(weights, written)


def _checkpoint(run: folders.Run, epoch: int) -> Path:
    return run.folder / f"checkpoint-{epoch:05d}.weights.h5"


def _checkpoints(run: folders.Run) -> list[Path]:
    return list(run.folder.glob("checkpoint-*.weights.h5"))


def _restore(model: keras.Model, run: folders.Run) -> pd.DataFrame:
    """Load the newest whole epoch of a run; give out the history up to it."""
    history = run.history
    if run.is_complete:
        model.load_weights(run.folder / "model.weights.h5")
        return history
    for n_epochs in range(len(history), 0, -1):
        checkpoint = _checkpoint(run, n_epochs)
        if checkpoint.exists():
            # The optimizer's state is only loaded into variables that exist already.
            model.optimizer.build(model.trainable_variables)
            try:
                model.load_weights(checkpoint)
            except (OSError, ValueError, KeyError) as error:
                raise BrokenRun(
                    f"{checkpoint} cannot be read ({error}). Expected the weights after epoch "
                    f"{n_epochs}. Delete this file to begin the run anew, or give another name."
                ) from error
            print(f"Going on with run {run.name!r} after epoch {n_epochs}.", flush=True)
            return history[:n_epochs]
    return history[:0]


def warm_cosine(rate: float, n_steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Warm up to `rate`, the highest, over the first tenth of a training, then fall to a hundredth.

    `n_steps` are the batches of the whole training; what comes after the warm-up follows a cosine.
    """
    n_warm = max(n_steps // 10, 1)
    return keras.optimizers.schedules.CosineDecay(
        rate / 20, max(n_steps - n_warm, 1), alpha=0.01, warmup_target=rate, warmup_steps=n_warm
    )


def n_workers() -> int:
    """Count the threads that make batches ready, for `keras.utils.PyDataset`: 2 on TensorFlow.

    With one, Keras leaves reading ahead to TensorFlow's autotuning, whose own thread is waited for
    when an epoch ends (Keras 3.14, TensorFlow 2.21): it has slept for 10 ms, 20 ms, 40 ms … since
    the epoch began, so that one of 21 s lasted until the 41st. On the other backends, several
    threads would hand batches that were read ahead on to the next epoch.
    """
    return 2 if keras.backend.backend() == "tensorflow" else 1


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far; 0 where Python cannot tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024
