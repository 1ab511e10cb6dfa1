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
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial, wraps
from pathlib import Path

import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 1e6


# What is measured. Each function runs in a fresh process and returns what it measured.


def pixels_ours(folder: str, size: tuple[int, int]) -> dict:
    """Decode with the decoder's own scaling, on all cores."""
    from wbc_helpers.data import catalog
    from wbc_helpers.pixels import images

    paths = catalog.find_images(folder)["path"].tolist()
    images.decode(paths[:50], size, progress=False)
    started = time.perf_counter()
    array = images.decode(paths, size, progress=False)
    return {"images/s": len(array) / (time.perf_counter() - started)}


def pixels_pillow_loop(folder: str, size: tuple[int, int]) -> dict:
    """Open, convert and resize one image after the other."""
    import numpy as np
    from PIL import Image

    from wbc_helpers.data import catalog

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

    from wbc_helpers.data import catalog

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
    from wbc_helpers.classify import training
    from wbc_helpers.data.identity import identify
    from wbc_helpers.runs import recipes

    chosen = recipes.TrainingSettings(recipe="paper", epochs=2, image_size=size)
    with tempfile.TemporaryDirectory() as scratch:
        identity = identify(folder)
        run = training.train_new(chosen, identity, "bench", scratch, scratch, verbose=0)
        seconds = run.history["seconds"].iloc[-1]
    return {"s/epoch": float(seconds), "peak MB": peak_megabytes()}


def epoch_usual(folder: str, size: tuple[int, int]) -> dict:
    """The usual Kaggle-notebook way: all images as one float32 array, resized in `fit`."""
    import keras
    import numpy as np
    from PIL import Image

    from wbc_helpers.classify import networks, training
    from wbc_helpers.data import catalog
    from wbc_helpers.pixels import images

    table = catalog.find_images(folder)
    table = table[table["split"] == "TRAIN"]
    array = np.empty((len(table), 240, 320, 3), np.float32)
    for index, path in enumerate(table["path"]):
        array[index] = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    truth = training.one_hot(table["cell_type"])
    flat = images.PixelStatistics(np.full((*size, 3), 0.6), np.full((*size, 3), 0.2), 1)
    small = networks.build("paper", size, flat)
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


def steps_on_views(folder: str, size: tuple[int, int], cores: int, recipe: str) -> dict:
    """Train on 2,048 views as they are drawn, and as often on a batch at hand, none drawn."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    import keras
    import numpy as np

    from wbc_helpers.classify import networks, training
    from wbc_helpers.data import catalog
    from wbc_helpers.pixels import images, views
    from wbc_helpers.runs import recipes

    settings, chosen = recipes.TrainingSettings(recipe), recipes.RECIPES[recipe]
    side = views.patch_size(settings.image_size[0], chosen.views.sharpness)
    paths = catalog.find_images(folder)["path"].head(400)
    patches = images.decode(paths, (side, side), progress=False)
    answers = np.eye(len(chosen.answers), dtype=np.float32)[np.arange(len(patches)) % 4]
    weights = np.full(len(patches), 1 / len(patches))
    drawn = training.DrawnViews(patches, answers, weights, settings.to_dict())
    drawn.n_batches = 2048 // drawn.batch_size

    class AtHand(keras.utils.PyDataset):
        batch = drawn[0]

        def __len__(self):
            return len(drawn)

        def __getitem__(self, index):
            return self.batch

    shape = (*settings.image_size, 3)
    flat = images.PixelStatistics(np.full(shape, 200.0), np.full(shape, 40.0), 1)
    seconds: dict[str, list[float]] = {"views": [], "steps": []}
    model = networks.build(recipe, settings.image_size, flat)
    training.compile_model(model, settings.to_dict(), len(drawn))
    model.fit(AtHand(), verbose=0)
    for _ in range(3):
        for what, batches in (("views", drawn), ("steps", AtHand())):
            started = time.perf_counter()
            model.fit(batches, verbose=0, shuffle=False)
            seconds[what].append(time.perf_counter() - started)
    views_s, steps_s = (statistics.median(each) for each in seconds.values())
    n_views = len(drawn) * drawn.batch_size
    return {
        "ms a view": 1e3 * views_s / n_views,
        "ms of its step alone": 1e3 * steps_s / n_views,
        "times": views_s / steps_s,
    }


def learning(folder: str, size: tuple[int, int], recipe: str, epochs: int | None = None) -> dict:
    """Train a recipe; accuracy on grouped validation against seconds of training."""
    from wbc_helpers.classify import training
    from wbc_helpers.data.identity import identify
    from wbc_helpers.runs import recipes

    chosen = recipes.TrainingSettings(
        recipe=recipe, epochs=epochs, validation="grouped", validation_fraction=0.2
    )
    with tempfile.TemporaryDirectory() as scratch:
        identity = identify(folder)
        started = time.perf_counter()
        run = training.train_new(chosen, identity, "bench", scratch, scratch, verbose=0)
        whole = time.perf_counter() - started
        history, n_validation = run.history, int((run.split == "validation").sum())
    seconds = history["seconds"].cumsum()
    return {
        "best validation": float(history["val_accuracy"].max()),
        "last validation": float(history["val_accuracy"].iloc[-1]),
        "s/epoch": float(history["seconds"].median()),
        "s": float(seconds.iloc[-1]),
        "s with decoding": whole,
        "peak MB": peak_megabytes(),
        "validation images": n_validation,
        "curve": [seconds.tolist(), history["val_accuracy"].tolist()],
    }


def learning_compact(folder: str, size: tuple[int, int]) -> dict:
    """Train the compact recipe."""
    return learning(folder, size, "compact")


def learning_lenet(folder: str, size: tuple[int, int]) -> dict:
    """Train a plain network of three convolutions on whole images of 120×160."""
    return learning(folder, size, "lenet")


def learning_paper(folder: str, size: tuple[int, int]) -> dict:
    """Train the paper's network, for a tenth of its epochs."""
    return learning(folder, size, "paper", epochs=20)


def answering(folder: str, size: tuple[int, int], cores: int, what: str) -> dict:
    """Time answers to single TEST images, from file to probabilities, and to all of TEST."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    import keras
    import numpy as np

    from wbc_helpers.classify import classifier, networks
    from wbc_helpers.data import catalog
    from wbc_helpers.pixels import images
    from wbc_helpers.runs import answering

    table = catalog.find_images(folder)
    paths = table.loc[table["split"] == "TEST", "path"].tolist()
    some = paths[:: max(len(paths) // 200, 1)]
    if what == "compact":
        ask = partial(classifier.load().classify, red_cell=52.0)
        one, many = (lambda path: ask([path])), partial(ask, paths)
    elif what == "lenet":
        flat = images.PixelStatistics(np.full((120, 160, 3), 150), np.full((120, 160, 3), 50), 1)
        model = networks.build("lenet", (120, 160), flat)
        one, many = (
            lambda path: answering.predict(model, images.read_image(path, (120, 160))[None]),
            lambda: answering.predict(model, images.decode(paths, (120, 160), progress=False)),
        )
    elif what == "decode":
        one, many = images.read_image, lambda: list(map(images.read_image, paths))
    else:
        network = classifier.load()
        shape = (len(paths), *network.about["image_size"], 3)
        crops = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        one, many = (
            (lambda _: network.probabilities(crops[:1])),
            partial(network.probabilities, crops),
        )
    for path in some[:20]:
        one(path)
    singles = []
    for path in some:
        started = time.perf_counter()
        one(path)
        singles.append(1e3 * (time.perf_counter() - started))
    started = time.perf_counter()
    many()
    seconds = time.perf_counter() - started
    keras.backend.clear_session()
    return {
        "ms an image": statistics.median(singles),
        "images/s": len(paths) / seconds,
        "s for TEST": seconds,
    }


def finding(folder: str, size: tuple[int, int], cores: int, what: str) -> dict:
    """Time the cells of whole photographs, from file to boxes, one by one and many together."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    from wbc_helpers.count import classical, detector
    from wbc_helpers.data import catalog
    from wbc_helpers.pixels import images, scale

    root = catalog.smears_folder(folder) / "JPEGImages"
    paths = sorted(root.glob("*.jp*g"))[:100]
    red_cell = scale.estimate_scale(paths)[0]
    reader = None if what == "classical" else detector.load_reader(exact=what == "exact")

    def read(some: list) -> None:
        if what == "classical":
            for path in some:
                classical.find_cells(images.read_image(path))
        elif what in ("detector", "exact"):
            reader.detector.detect(some, red_cell)
        else:
            reader.read([images.read_image(path) for path in some], red_cell)

    read(paths[:8])
    singles = []
    for path in paths[:20]:
        started = time.perf_counter()
        read([path])
        singles.append(1e3 * (time.perf_counter() - started))
    started = time.perf_counter()
    for start in range(0, len(paths), 8):
        read(paths[start : start + 8])
    seconds = time.perf_counter() - started
    return {
        "ms a photograph": statistics.median(singles),
        "photographs/s": len(paths) / seconds,
        "peak MB": peak_megabytes(),
    }


def from_the_shell(folder: str, size: tuple[int, int], cores: int, command: str, n: int) -> dict:
    """Run a command on so many photographs of a folder, Python's own start included.

    `cbc` is another project's; it counts the red cells alone, of one photograph.
    """
    from wbc_helpers.data import catalog

    photographs = sorted((catalog.smears_folder(folder) / "JPEGImages").glob("*.jp*g"))[:n]
    with tempfile.TemporaryDirectory() as scratch:
        shown = Path(scratch) / "photographs"
        shown.mkdir()
        for photograph in photographs:
            (shown / photograph.name).symlink_to(photograph)
        environment = dict(os.environ)
        if command == "cbc":
            (photograph,) = shown.iterdir()
            asked = [f"{PEERS}/bin/python", f"{PEERS}/cbc.py", str(photograph), "-r", "-CHT"]
            environment["TF_USE_LEGACY_KERAS"] = "1"
        else:
            _, what, *options = command.split()
            out = f"{scratch}/answers.csv" if what == "classify" else f"{scratch}/report"
            asked = [sys.executable, "-m", "wbc_helpers", what, str(shown), "--out", out, *options]
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
        started = time.perf_counter()
        job = subprocess.Popen(
            asked, cwd=scratch, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, used = os.wait4(job.pid, 0)
        seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{command} failed with status {os.waitstatus_to_exitcode(status)}")
    return {
        "s": seconds,
        "s of CPU": used.ru_utime + used.ru_stime,
        "peak MB": used.ru_maxrss * 1024 / MEGABYTE,
    }


STAGES = {
    "read": ("count.smears", "read_photograph"),
    "surround of an eyepiece": ("count.fitness", "fill_surround"),
    "width of red cells": ("pixels.scale", "red_cell_diameter"),
    "white background": ("pixels.stain", "whiten"),
    "what the detector is shown": ("count.detector", "show"),
    "networks": ("runs.answering", "OnnxNetwork.outputs"),
    "boxes out of maps": ("count.detector", "find_boxes"),
    "crops of white cells": ("classify.classifier", "Classifier.cut_boxed"),
    "answers": ("classify.classifier", "Classifier.name"),
    "fitness": ("count.fitness", "measure"),
    "own scale": ("count.fitness", "read_at_own_scale"),
    "tables of boxes": ("count.detector", "SmearReader._judge"),
    "journal": ("count.smears", "_line"),
    "cells.csv, counts.csv": ("count.smears", "_write_tables"),
    "pages": ("count.pages", "render_counts"),
}
"""Functions whose own time, without that of those below, makes up a count."""


def by_stage(folder: str, size: tuple[int, int]) -> dict:
    """Milliseconds of CPU a photograph in each of `STAGES`, of 60 photographs on one core."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:1]))
    import importlib

    from wbc_helpers.__main__ import main as wbc
    from wbc_helpers.data import catalog

    spent, open_stages = dict.fromkeys(STAGES, 0.0), threading.local()

    def timed(stage: str, function: Callable) -> Callable:
        @wraps(function)
        def measured(*arguments, **options):
            above = getattr(open_stages, "below", None)
            open_stages.below, started = 0.0, time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                took = time.thread_time() - started
                spent[stage] += took - open_stages.below
                open_stages.below = None if above is None else above + took

        return measured

    for stage, (module, name) in STAGES.items():
        place = importlib.import_module(f"wbc_helpers.{module}")
        *way, last = name.split(".")
        for part in way:
            place = getattr(place, part)
        setattr(place, last, timed(stage, getattr(place, last)))
    photographs = sorted((catalog.smears_folder(folder) / "JPEGImages").glob("*.jp*g"))[:60]
    with tempfile.TemporaryDirectory() as scratch:
        shown = Path(scratch) / "photographs"
        shown.mkdir()
        for photograph in photographs:
            (shown / photograph.name).symlink_to(photograph)
        started = time.process_time()
        with redirect_stdout(sys.stderr):
            wbc(["count", str(shown), "--out", f"{scratch}/report"])
        whole = time.process_time() - started
    spent["all else"] = whole - sum(spent.values())
    return {f"ms {stage}": 1e3 * s / len(photographs) for stage, s in spent.items()}


def network_alone(folder: str, size: tuple[int, int], model: str, looks: int = 1) -> dict:
    """A network in ONNX Runtime on one core: from 480 × 640 pixels of noise to what it answers.

    Ours are shown 240 × 320, at which red cells are 52 pixels wide.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    import numpy as np

    from wbc_helpers.runs import answering

    ours = Path(model).name == model
    path = ROOT / "wbc_helpers" / "weights" / model if ours else Path(model)
    network = answering.open_onnx(path)
    (asked,) = network.session.get_inputs()
    shape = (1, 240, 320, 3) if ours else (1, 3, 480, 640)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    pixels = pixels if ours else pixels.astype(np.float32) / 255
    walls, cpus = [], []
    for _ in range(25):
        started, cpu = time.perf_counter(), time.process_time()
        for _ in range(looks):
            network.session.run(None, {asked.name: pixels})
        walls.append(1e3 * (time.perf_counter() - started))
        cpus.append(1e3 * (time.process_time() - cpu))
    return {"ms": statistics.median(walls[5:]), "ms of CPU": statistics.median(cpus[5:])}


def importing(folder: str, size: tuple[int, int]) -> dict:
    """`import wbc_helpers` in a fresh Python."""
    started = time.perf_counter()
    import wbc_helpers  # noqa: F401

    return {"s": time.perf_counter() - started}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


LENET = "lenet, three convolutions at 120×160"

LEARNING = "Learning: accuracy on grouped validation, images of other photographs (n = 1)"
"""Measured once: it takes minutes."""

GROUPS = {
    "Getting pixels: JPEG files to one uint8 array": {
        "wbc_helpers.pixels.images.decode": pixels_ours,
        "plain Pillow loop": pixels_pillow_loop,
        "image_dataset_from_directory": pixels_keras_dataset,
    },
    "One epoch of the paper recipe": {
        "uint8, decoded once, memory-mapped": epoch_ours,
        "usual: float32 at 240×320, resized in fit": epoch_usual,
    },
    "import wbc_helpers": {"import": importing},
    LEARNING: {
        "compact": learning_compact,
        LENET: learning_lenet,
        "paper, 20 epochs": learning_paper,
    },
}

for _cores in (1, 2):
    GROUPS[f"Training on views beside its steps alone, on {_cores} core{'s'[: _cores - 1]}"] = {
        f"{recipe} ({_cores})": partial(steps_on_views, cores=_cores, recipe=recipe)
        for recipe in ("compact", "broad")
    }
    GROUPS[f"Answering, from file to cell type, on {_cores} core{'s'[: _cores - 1]}"] = {
        f"{name} ({_cores})": partial(answering, cores=_cores, what=what)
        for name, what in {
            "compact": "compact",
            "lenet": "lenet",
            "floor: decoding alone": "decode",
            "floor: the compact network alone": "network",
        }.items()
    }


SMEARS = "Counting, from file to boxes"
for _cores in (1, 2):
    GROUPS[f"{SMEARS}, on {_cores} core{'s'[: _cores - 1]}"] = {
        f"{name} ({_cores})": partial(finding, cores=_cores, what=what)
        for name, what in {
            "detector": "detector",
            "detector, in float32": "exact",
            "detector, white cells named": "both",
            "classical, without learning": "classical",
        }.items()
    }


PEERS = Path(os.environ.get("WBC_PEERS", ROOT / "runs" / "peers")).absolute()
"""Environment of other projects, with their `yolo….onnx` and `cbc.py`, see docs/speed.md; without
it ours are measured alone."""

SHELL = "From the shell, Python's start included"
COMMANDS = [
    (command, n)
    for command in ("wbc classify", "wbc count", "wbc count --fast", "wbc count --no-pages")
    for n in (1, 60)
]
if (PEERS / "cbc.py").is_file():
    COMMANDS.append(("cbc", 1))
for _cores in (1, 2):
    GROUPS[f"{SHELL}, on {_cores} core{'s'[: _cores - 1]}"] = {
        f"{command}, {n} photograph{'s'[: n - 1]} ({_cores})": partial(
            from_the_shell, cores=_cores, command=command, n=n
        )
        for command, n in COMMANDS
    }
PROFILE = "Where the time goes: CPU a photograph by stage, of a count of 60"
GROUPS[PROFILE] = {"wbc count": by_stage}

GROUPS["Networks that find cells, a photograph on one core"] = {
    **{
        f"ours{numbers}, looking in {ways}": partial(network_alone, model=model, looks=looks)
        for numbers, model in (
            (", as it ships", "detector.int8.onnx"),
            (" in float32", "detector.onnx"),
        )
        for ways, looks in (("four ways", 4), ("two ways", 2), ("one way", 1))
    },
    **{
        f"{file.stem}, untrained": partial(network_alone, model=str(file.absolute()))
        for file in sorted(PEERS.glob("yolo*.onnx"))
    },
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


def compare_learning(curves: dict[str, pd.Series], n_images: int, figure: Path) -> None:
    """Say when each recipe passes LeNet's best, and draw them all."""
    from wbc_helpers import figures

    best = curves[LENET].max()
    for name, accuracy in curves.items():
        passed = accuracy.index[accuracy >= best]
        when = f"after {passed[0]:,.0f} s" if len(passed) else "never"
        print(f"  {name} reaches LeNet's best, {best:.1%}, {when}")
    figure.parent.mkdir(exist_ok=True)
    figures.accuracy_by_seconds(curves, n_images).savefig(figure, metadata={"Date": None})
    print(f"  Figure: {figure}")


def show(name: str, measured: list[dict]) -> None:
    if len(measured[0]) > 8:
        for key in measured[0]:
            show(f"{name}: {key.removeprefix('ms ')}", [{"ms": one[key]} for one in measured])
        return
    columns = []
    for key in measured[0]:
        if key == "curve":
            continue
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
    parser.add_argument(
        "--replace", action="store_true", help="replace the figure of docs/, not that of runs/"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        title, _, name = options.measure.partition("|")
        print(json.dumps(GROUPS[title][name](options.source, tuple(options.size))))
        return

    from wbc_helpers.data import sources
    from wbc_helpers.data.identity import identify
    from wbc_helpers.runs import recipes
    from wbc_helpers.runs.recipes import RECIPES

    size = tuple(options.size or RECIPES["paper"].image_size)
    folder = sources.fetch(options.source, options.data_dir)
    identity = identify(folder)
    versions = recipes.versions()
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
        for _ in range(1 if title == LEARNING else options.repeats):
            for name in group:
                measured[name].append(in_fresh_process(f"{title}|{name}", folder, size))
        for name, each in measured.items():
            show(name, each)
        if title == LEARNING:
            compare_learning(
                {name: pd.Series(*each[0]["curve"][::-1]) for name, each in measured.items()},
                measured[LENET][0]["validation images"],
                ROOT / ("docs/images" if options.replace else "runs") / "learning.svg",
            )
    title = "The main job, one epoch, all processes together"
    if options.only in title:
        print(title)
        show("python -m wbc_helpers run", [whole_run(folder)])


if __name__ == "__main__":
    main()
