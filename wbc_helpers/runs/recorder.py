"""Keeps a training on disk, epoch by epoch, so that one that was cut off goes on."""

import resource
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from wbc_helpers import storage
from wbc_helpers.errors import BrokenRun
from wbc_helpers.runs import backend, folders


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


class Recorder(keras.callbacks.Callback):
    """Puts every finished epoch on disk, and tells the batches which epoch begins.

    Parameters
    ----------
    run : folders.Run
        Where to write.
    history : DataFrame
        Epochs that an interrupted run had finished.
    batches : keras.utils.PyDataset
        The training batches; their `seed` and `epoch` decide what they draw.
    columns : sequence of str
        Of `history.csv`.
    """

    def __init__(self, run, history, batches, columns=folders.HISTORY_COLUMNS):
        super().__init__()
        self.run, self.batches, self.columns = run, batches, list(columns)
        self.rows = history.to_dict("records")

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
        checkpoint = _checkpoint(self.run, epoch + 1)
        with storage.atomic_file(checkpoint) as partial:
            self.model.save_weights(partial, overwrite=True)
        folders.write_history(self.run, pd.DataFrame(self.rows, columns=self.columns))
        for old in self.run.folder.glob("checkpoint-*.weights.h5"):
            if old != checkpoint:
                old.unlink()


def _checkpoint(run: folders.Run, epoch: int) -> Path:
    return run.folder / f"checkpoint-{epoch:05d}.weights.h5"


def restore(model: keras.Model, run: folders.Run) -> pd.DataFrame:
    """Load the newest whole epoch of an interrupted run, optimizer included.

    Parameters
    ----------
    model : keras.Model
        Compiled; as it was when the run was interrupted.
    run : folders.Run
        Of which it is.

    Returns
    -------
    DataFrame
        Its history up to that epoch; empty for a run that has only begun.

    Raises
    ------
    BrokenRun
        If the checkpoint cannot be read.
    """
    history = run.history
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


def finish(model: keras.Model, run: folders.Run) -> None:
    """Save the model of a run that went through, and remove its checkpoints.

    Parameters
    ----------
    model : keras.Model
        After the last epoch.
    run : folders.Run
        Receives `model.weights.h5` and `model.keras`.
    """
    for name in ("model.weights.h5", "model.keras"):
        with storage.atomic_file(run.folder / name) as partial:
            save = model.save if name.endswith(".keras") else model.save_weights
            save(partial, overwrite=True)
    for checkpoint in run.folder.glob("checkpoint-*.weights.h5"):
        checkpoint.unlink()


def warm_cosine(rate: float, n_steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Warm up over the first tenth of a training, then fall along a cosine to a hundredth.

    Parameters
    ----------
    rate : float
        The highest learning rate.
    n_steps : int
        Batches of the whole training.

    Returns
    -------
    keras.optimizers.schedules.LearningRateSchedule
    """
    n_warm = max(n_steps // 10, 1)
    return keras.optimizers.schedules.CosineDecay(
        rate / 20, max(n_steps - n_warm, 1), alpha=0.01, warmup_target=rate, warmup_steps=n_warm
    )
