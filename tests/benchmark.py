"""Speed and memory, side by side in one run on one machine: `make bench SOURCE=...`.

Every way of doing a thing is measured in a process of its own, several times in turn, so that
neither a warm cache nor a neighbour's load favours one of them. Printed: median, and the range.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1e6


# What is measured. Each function runs in a fresh process and returns what it measured.


def pixels_ours(folder: str, size: tuple[int, int]) -> dict:
    """Decode with the decoder's own scaling, on all cores."""
    from wbc_helpers import catalog, images

    paths = catalog.find_images(folder)["path"].tolist()
    images.decode(paths[:50], size, progress=False)
    started = time.perf_counter()
    array = images.decode(paths, size, progress=False)
    return {"images/s": len(array) / (time.perf_counter() - started)}


def pixels_pillow_loop(folder: str, size: tuple[int, int]) -> dict:
    """Open, convert and resize one image after the other."""
    import numpy as np
    from PIL import Image

    from wbc_helpers import catalog

    paths = catalog.find_images(folder)["path"].tolist()
    started = time.perf_counter()
    array = np.empty((len(paths), *size, 3), np.uint8)
    for index, path in enumerate(paths):
        array[index] = Image.open(path).convert("RGB").resize(size[::-1], Image.Resampling.BOX)
    return {"images/s": len(array) / (time.perf_counter() - started)}


def pixels_keras_dataset(folder: str, size: tuple[int, int]) -> dict:
    """Keras's `image_dataset_from_directory`, into one array."""
    import keras
    import numpy as np

    from wbc_helpers import catalog

    root = catalog.images_folder(folder)
    started = time.perf_counter()
    parts = [
        np.concatenate(
            [
                batch.numpy().astype(np.uint8)
                for batch in keras.utils.image_dataset_from_directory(
                    root / split, labels=None, image_size=size, batch_size=128, shuffle=False,
                    interpolation="area", verbose=False,
                )
            ]
        )
        for split in ("TRAIN", "TEST", "TEST_SIMPLE")
    ]  # fmt: skip
    return {"images/s": sum(map(len, parts)) / (time.perf_counter() - started)}


def epoch_ours(folder: str, size: tuple[int, int]) -> dict:
    """Two epochs of the paper recipe as the notebooks train it; the second one counts."""
    from wbc_helpers import settings, sources, training

    chosen = settings.TrainingSettings(recipe="paper", epochs=2, image_size=size)
    with tempfile.TemporaryDirectory() as scratch:
        identity = sources.identify(folder)
        run = training.train_new(chosen, identity, "bench", scratch, scratch, verbose=0)
        seconds = run.history["seconds"].iloc[-1]
    return {"s/epoch": float(seconds), "peak MB": peak_megabytes()}


def epoch_usual(folder: str, size: tuple[int, int]) -> dict:
    """The usual Kaggle-notebook way: all images as one float32 array, resized in `fit`."""
    import keras
    import numpy as np
    from PIL import Image

    from wbc_helpers import catalog, cells, images, models

    table = catalog.find_images(folder)
    table = table[table["split"] == "TRAIN"]
    array = np.empty((len(table), 240, 320, 3), np.float32)
    for index, path in enumerate(table["path"]):
        array[index] = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    truth = np.eye(4, dtype=np.float32)[table["cell_type"].map(cells.NAMES.index).to_numpy(int)]
    flat = images.PixelStatistics(np.full((*size, 3), 0.6), np.full((*size, 3), 0.2), 1)
    small = models.build("paper", size, flat)
    photographs = keras.Input((240, 320, 3))
    network = keras.Model(photographs, small(keras.layers.Resizing(*size)(photographs)))
    network.compile("rmsprop", "categorical_crossentropy")
    order = np.random.default_rng(0)

    def generator():
        while True:
            rows = order.choice(len(array), 128, replace=False)
            yield array[rows], truth[rows]

    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        network.fit(generator(), steps_per_epoch=-(-len(array) * 9 // 10 // 128), verbose=0)
        seconds.append(time.perf_counter() - started)
    return {"s/epoch": seconds[-1], "peak MB": peak_megabytes()}


def importing(folder: str, size: tuple[int, int]) -> dict:
    """`import wbc_helpers` in a fresh Python."""
    started = time.perf_counter()
    import wbc_helpers  # noqa: F401

    return {"s": time.perf_counter() - started}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


GROUPS = {
    "Getting pixels: JPEG files to one uint8 array": {
        "wbc_helpers.images.decode": pixels_ours,
        "plain Pillow loop": pixels_pillow_loop,
        "image_dataset_from_directory": pixels_keras_dataset,
    },
    "One epoch of the paper recipe": {
        "uint8, decoded once, memory-mapped": epoch_ours,
        "usual: float32 at 240×320, resized in fit": epoch_usual,
    },
    "import wbc_helpers": {"import": importing},
}


def in_fresh_process(function: str, folder: Path, size: tuple[int, int]) -> dict:
    done = subprocess.run(
        [sys.executable, __file__, "--measure", function, "--source", str(folder), "--size",
         *map(str, size)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{function} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def whole_run(folder: Path) -> dict:
    """Seconds and peak memory, all processes together, of the main job with one epoch."""
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        job = subprocess.Popen(
            [sys.executable, "-m", "wbc_helpers", "run", "--source", str(folder), "--epochs", "1",
             "--data-dir", f"{scratch}/data", "--runs-dir", f"{scratch}/runs"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        peak = 0
        watched = psutil.Process(job.pid)
        while job.poll() is None:
            peak = max(peak, memory_of(watched))
            time.sleep(0.1)
        return {
            "s": time.perf_counter() - started,
            "peak MB": peak / MEGABYTE,
            "exit": job.returncode,
        }


def memory_of(process: psutil.Process) -> int:
    """Resident bytes of a process and all its descendants."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def show(name: str, measured: list[dict]) -> None:
    columns = []
    for key in measured[0]:
        values = sorted(each[key] for each in measured)
        digits = 2 if values[-1] < 100 else 0
        columns.append(
            f"{statistics.median(values):,.{digits}f} {key} "
            f"({values[0]:,.{digits}f}–{values[-1]:,.{digits}f})"
        )
    print(f"  {name:44} {';  '.join(columns)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="sample")
    parser.add_argument("--data-dir", default=str(ROOT / "data"))
    parser.add_argument("--size", type=int, nargs=2, default=None, help="height and width")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="groups whose title holds this, such as pixels")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    functions = {f.__name__: f for group in GROUPS.values() for f in group.values()}
    if options.measure:
        print(json.dumps(functions[options.measure](options.source, tuple(options.size))))
        return

    sys.path.insert(0, str(ROOT))
    from wbc_helpers import settings, sources
    from wbc_helpers.recipes import RECIPES

    size = tuple(options.size or RECIPES["paper"].image_size)
    folder = sources.fetch(options.source, options.data_dir)
    identity = sources.identify(folder)
    versions = settings.versions()
    named = ("python", "keras", "tensorflow", "numpy", "pillow")
    print(f"{identity.source.title}: {identity.n_images:,} images, to {size[0]}×{size[1]} pixels")
    software = ", ".join(f"{name} {versions[name]}" for name in named if name in versions)
    print(f"{platform.machine()}, {os.cpu_count()} cores; {software}")
    print(f"median (lowest–highest) of n = {options.repeats}, each in a fresh process\n")
    for title, group in GROUPS.items():
        if options.only not in title:
            continue
        print(title)
        measured = {name: [] for name in group}
        for _ in range(options.repeats):
            for name, function in group.items():
                measured[name].append(in_fresh_process(function.__name__, folder, size))
        for name, each in measured.items():
            show(name, each)
    title = "The main job, one epoch, all processes together"
    if options.only in title:
        print(title)
        show("python -m wbc_helpers run", [whole_run(folder)])


if __name__ == "__main__":
    main()
