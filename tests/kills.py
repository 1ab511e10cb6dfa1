"""What is killed goes on as if it had not been: `make kills KILLS=20`.

Training, counting, unpacking and decoding run in processes that are killed (SIGKILL) at random
moments of their work and started again, until one comes through. What it leaves is compared with
what an uninterrupted one leaves: the same to the byte, and nothing else.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from written_files import below

ROOT = Path(__file__).resolve().parents[1]
N_FILES = 48


def begun():
    """Tell the process that kills that the work begins now."""
    print("begun", flush=True)


# The work, each in a process of its own. `given` is what all get, `folder` is to be filled.


def count(given, folder):
    import plain_smears
    import pytest

    from wbc_helpers.count import smears

    plain_smears.take_for_fit(pytest.MonkeyPatch())
    shown = [("RBC", 0, 0, 0.9), ("WBC", 20, 10, 0.95)]
    reader = plain_smears.reader_of(dict.fromkeys(range(256), shown))
    begun()
    smears.count_folder(
        given / "smears", folder / "out", reader, plain_smears.RED_CELL, progress=False
    )


def unpack(given, folder):
    from wbc_helpers.data import archives

    begun()
    archives.unpack_once(given / "a.zip", folder, "local", bool, "files", progress=False)


def decode(given, folder):
    from wbc_helpers.pixels import images

    begun()
    images.decode(sorted((given / "smears").iterdir()), (960, 1280), folder / "cache", False)


def train(given, folder):
    from wbc_helpers.runs import backend, folders, recorder

    keras = backend.keras

    class Batches(keras.utils.PyDataset):
        seed, epoch = 3, 0

        def __len__(self):
            return 4

        def __getitem__(self, index):
            rng = np.random.default_rng((self.seed, self.epoch, index))
            x = rng.normal(size=(16, 8)).astype("float32")
            return x, x[:, :1]

    def make_model():
        layers = [keras.Input((8,)), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile("adam", "mse", metrics=["accuracy"])
        return model

    settings = {
        "created": "2026-01-01T00:00:00+00:00",
        "training": {"epochs": 12, "batch_size": 16, "seed": 0},
        "data": {"digest": ""}, "runtime": None, "versions": {},
    }  # fmt: skip
    begun()
    run = folders.start("run", folder, settings)
    if not run.is_complete:
        recorder.fit(run, make_model, Batches(), Batches(), verbose=0)


def left(folder, kind):
    """What a work left: its files' contents, hidden ones too; of a training what decides it."""
    files = below(folder)
    if kind != "train":
        return {
            # When it was unpacked differs.
            name: len(content) if name.endswith((".fetched.json", "settings.json")) else content
            for name, content in files.items()
        }
    import h5py
    import pandas as pd

    history = pd.read_csv(folder / "run" / "history.csv").drop(
        columns=["seconds", "peak_memory_bytes"]
    )
    arrays = {}
    with h5py.File(folder / "run" / "model.weights.h5") as weights:
        weights.visititems(
            lambda name, item: arrays.update({name: item[()].tobytes()})
            if isinstance(item, h5py.Dataset) else None
        )  # fmt: skip
    return {**dict.fromkeys(files), "history": history.to_csv(), "weights": arrays}


# Killing it


def start(kind, given, folder):
    command = [sys.executable, __file__, "--work", kind, str(given), str(folder)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    if process.stdout.readline() != b"begun\n":
        raise SystemExit(f"{kind} did not begin:\n{process.stderr.read().decode()}")
    return process


def finish(process, kind):
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{kind} ended with {process.returncode}:\n{errors.decode()}")


def kill_often(kind, given, n_kills, rng):
    """Compare a work that was killed so many times with one that was not; what to say of it."""
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place, "whole")
        whole.mkdir()
        process, begin = start(kind, given, whole), time.monotonic()
        finish(process, kind)
        lasts = time.monotonic() - begin
        expected = left(whole, kind)
        n_done, n_runs = 0, 0
        while n_done < n_kills:
            n_runs += 1
            folder = Path(place, f"killed-{n_runs}")
            folder.mkdir()
            for _ in range(3):
                process = start(kind, given, folder)
                time.sleep(rng.uniform(0, lasts))
                n_done += process.poll() is None
                process.kill()
                process.communicate()
            finish(start(kind, given, folder), kind)
            found = left(folder, kind)
            if found != expected:
                names = sorted(
                    name for name in found.keys() | expected.keys()
                    if found.get(name) != expected.get(name)
                )  # fmt: skip
                raise SystemExit(f"{kind} differs after a kill in {', '.join(names[:10])}")
    return f"{kind}: killed {n_done} times in {n_runs} runs of {lasts:.1f} s, nothing differs"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", default=12, type=int, help="of each work, at the least")
    parser.add_argument("--only", choices=WORKS)
    parser.add_argument("--seed", default=random.randrange(10**6), type=int)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        kind, given, folder = options.work
        return WORKS[kind](Path(given), Path(folder))
    print(f"seed {options.seed}", flush=True)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        given = Path(place)
        (given / "smears").mkdir()
        with zipfile.ZipFile(given / "a.zip", "w") as archive:
            for number in range(N_FILES):
                image = given / "smears" / f"{number:03}.png"
                Image.new("RGB", (80, 60), (number, number, number)).save(image)
                archive.writestr(f"d/{number:03}.bin", bytes([number]) * 1_000_000)
        for kind in [options.only] if options.only else WORKS:
            print(kill_often(kind, given, options.kills, rng), flush=True)
    return 0


WORKS = {"unpack": unpack, "decode": decode, "count": count, "train": train}

if __name__ == "__main__":
    sys.exit(main())
