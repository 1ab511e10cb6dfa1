"""One training shared by several processes, on one machine or many: Keras on JAX, batch by batch.

Each process (see `processes`) holds the whole network and feeds its own part of every batch; JAX
adds up the gradients, so that all take the same step. Process 0 alone writes the run folder.
"""

import io
import json
import os
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from wbc_helpers import errors, runs
from wbc_helpers.errors import InvalidParameter, ProcessesApart, WbcError
from wbc_helpers.processes import VARIABLES, check_count, gather, position


def own_part(batch: np.ndarray) -> np.ndarray:
    """Take this process's part of a batch: from such parts Keras puts the batch together.

    Parameters
    ----------
    batch : ndarray, (n, ...)
        The whole batch, the same in every process; n is a multiple of their number.

    Returns
    -------
    ndarray, (n / processes, ...)
        The whole batch for a process that works alone.
    """
    index, count = position()
    length = len(batch) // count
    return batch[index * length : (index + 1) * length]


def check_batch_size(batch_size: int, n_devices: int) -> None:
    """Refuse batches that do not divide evenly among the devices.

    Parameters
    ----------
    batch_size : int
        Images a step.
    n_devices : int
        Devices of all processes together.

    Raises
    ------
    InvalidParameter
        If some devices would get more images than others.
    """
    if batch_size % n_devices:
        raise InvalidParameter(
            f"batch_size={batch_size} does not divide evenly among {n_devices} devices. Expected a "
            f"multiple of {n_devices}, such as {-(-batch_size // n_devices) * n_devices}."
        )


@contextmanager
def run_folder(name: str, runs_dir: str | Path, settings: dict[str, Any]) -> Iterator[runs.Run]:
    """Begin a run, or go on with it, so that process 0 alone writes its folder.

    The others work on a private copy of what training needs to go on, which is gone afterwards:
    they need no access to `runs_dir`.

    Parameters
    ----------
    name, runs_dir, settings
        As for `runs.start`.

    Yields
    ------
    runs.Run
        To train.

    Raises
    ------
    ProcessesApart
        In every process, if they were started with other settings or other data.
    WbcError
        In every process, whatever `runs.start` refuses in process 0.
    """
    index, count = position()
    if count == 1:
        yield runs.start(name, runs_dir, settings)
        return
    run, refusal = None, None
    if index == 0:
        try:
            run = runs.start(name, runs_dir, settings)
        except WbcError as error:
            refusal = error
    _agree(name, settings, refusal)
    packed = gather(_pack(run.folder) if run else b"")[0]
    if run:
        yield run
        return
    with tempfile.TemporaryDirectory(prefix="wbc-") as private:
        zipfile.ZipFile(io.BytesIO(packed)).extractall(Path(private) / name)
        yield runs.open_run(name, private)


def _agree(name: str, settings: dict[str, Any], refusal: WbcError | None) -> None:
    """Raise in all processes what one has to object, so that none waits for one that left."""
    wanted = {
        "run": name,
        **settings["training"],
        "digest of the data": settings["data"]["digest"],
    }
    said = {"wanted": wanted, "refusal": refusal and [type(refusal).__name__, str(refusal)]}
    everyone = [json.loads(each) for each in gather(json.dumps(said).encode())]
    if refusal:
        raise refusal
    if first := everyone[0]["refusal"]:
        raise getattr(errors, first[0])(first[1])
    for index, other in enumerate(everyone):
        differences = [
            f"{key} is {other['wanted'].get(key)!r} in process {index} and {value!r} in process 0"
            for key, value in everyone[0]["wanted"].items()
            if other["wanted"].get(key) != value
        ]
        if differences:
            raise ProcessesApart(
                f"{'; '.join(differences)}. Expected the same command and the same data in every "
                "process. Nothing was trained."
            )


def _pack(folder: Path) -> bytes:
    """Put what training goes on from into an archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for pattern in ("settings.json", "history.csv", "model.keras", "checkpoint-*.weights.h5"):
            for path in folder.glob(pattern):
                archive.write(path, path.name)
    return packed.getvalue()


def launch(command: list[str], n_processes: int) -> int:
    """Run a command in several processes of this machine that share one training.

    Parameters
    ----------
    command : list of str
        The program and its arguments; it must call `runtime.choose`.
    n_processes : int
        How many; only the first one's output is shown, and the errors of all.

    Returns
    -------
    int
        Exit status: 0 if all went well, else that of the first that failed; the others are ended.

    Raises
    ------
    InvalidParameter
        If the number is out of range.
    """
    check_count("processes", n_processes)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    running = [
        subprocess.Popen(
            command,
            env={
                # One process drives all GPUs of a machine; several would fight for them.
                "JAX_PLATFORMS": "cpu",
                **os.environ,
                **dict(zip(VARIABLES, (coordinator, str(n_processes), str(index)), strict=True)),
            },
            stdout=None if index == 0 else subprocess.DEVNULL,
        )
        for index in range(n_processes)
    ]
    try:
        while True:
            statuses = [process.poll() for process in running]
            if failed := [status for status in statuses if status]:
                return failed[0] if failed[0] > 0 else 1
            if None not in statuses:
                return 0
            time.sleep(0.2)
    except KeyboardInterrupt:
        # Ctrl-C reaches them, too; give them the time to end by themselves.
        deadline = time.monotonic() + 10
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            time.sleep(0.2)
        raise
    finally:
        # Those that wait for one that failed; what is on disk is whole at any moment.
        for process in running:
            process.kill()
            process.wait()
