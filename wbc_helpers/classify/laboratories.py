"""Learning from several laboratories, and judging on one that was left out: the recipe `broad`.

Cells come from folders of images (the Kaggle set, whose photographs stand for their augmented
images), and of labelled cells, see `data.splits`. Each laboratory comes as often as any
other, and of each its answers equally often. A part of every laboratory, whole slides or
photographs, is always held out.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.cells import BOX, OTHER
from wbc_helpers.classify import inputs, networks, teaching, training
from wbc_helpers.classify.inputs import Patches
from wbc_helpers.data import catalog, sources, splits
from wbc_helpers.errors import DataNotFound, InvalidParameter
from wbc_helpers.evaluate import uncertainty
from wbc_helpers.pixels import images, stain, views, white_cells
from wbc_helpers.pixels.scale import red_cell_diameter_of
from wbc_helpers.runs import answering, backend, folders, recorder
from wbc_helpers.runs.recipes import RECIPES, TrainingSettings, describe

VERSION = 2
"""Of how patches are made. To be raised with any change of their pixels."""

NO_CELL = "no cell"
"""Label of a patch that shows no white cell in its middle."""

APART = 1.6
"""Red cells from a white cell's middle to that of a patch without one, at least."""

BCCD = "BCCD"
ANSWERS = RECIPES["broad"].answers


def fetch_all(given: Iterable[str], data_dir: Path) -> dict[str, Path]:
    """Fetch the data of laboratories given as NAME=SOURCE, see `sources.fetch`; folders by name."""
    named = (text.partition("=") for text in given)
    return {
        name: sources.fetch(
            source or name.lower(), data_dir, holds="images" if name == BCCD else "cells"
        )
        for name, _, source in named
    }


def title_of(seed: int, leave_out: str | None) -> str:
    """Name of the run that benchmarks train with a seed, without a laboratory or with all."""
    return f"broad-without-{leave_out}-{seed}" if leave_out else f"broad-{seed}"


def find_all(folders: Mapping[str, Path]) -> pd.DataFrame:
    """List the labelled cells of several laboratories, by the folder of each.

    The columns of `splits.find_cells` and `held_out` (bool): of the Kaggle set, listed by
    photograph, those of TEST; of others a fifth, as alike in types as whole groups allow.
    """
    tables = []
    for name, folder in folders.items():
        try:
            table = splits.find_cells(folder, name)
            dealt = table.assign(group_id=table["group"])
            table["held_out"] = splits.grouped_folds(dealt, 5).eq(0)
        except DataNotFound:
            table = _of_photographs(folder, name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True).astype({"cell_type": str})


def _of_photographs(folder: Path, name: str) -> pd.DataFrame:
    """List the photographs from which the images of the Kaggle set were made, one cell each."""
    rows = splits.add_provenance(catalog.find_images(folder))
    rows = rows[rows["split"].isin(("TRAIN", "TEST"))]
    paths = inputs.photographs_of(folder, rows)
    rows = rows.drop_duplicates("source_id")
    table = pd.DataFrame(
        {
            "path": [str(paths[source]) for source in rows["source_id"]],
            "laboratory": name,
            "cell_type": rows["cell_type"].astype(str).to_numpy(),
            "label": rows["cell_type"].astype(str).to_numpy(),
            "group": rows.get("group_id", rows["source_id"]).astype(str).to_numpy(),
            "held_out": rows["split"].eq("TEST").to_numpy(),
        }
    )
    return table.assign(**dict.fromkeys(BOX, np.nan))


def cut_patches(
    table: pd.DataFrame, cache_folder: str | Path | None = None, progress: bool = True
) -> Patches:
    """Cut the cells of a table, see `find_all`, out of their images, for the views of `broad`.

    Of each field with boxes, and each of BCCD's photographs, comes a patch without a white cell
    too, of `cell_type` `other` and label `NO_CELL`. The patches' table is the given one with
    `source_id` (the group) and `file` (of the image). Raises `UnreadableImage` if a file is not a
    complete image.
    """
    recipe = RECIPES["broad"]
    assert recipe.views is not None
    side = views.patch_size(recipe.image_size[0], recipe.views.sharpness)
    key = hashlib.sha256(f"{VERSION}-{side}-".encode() + table.to_csv().encode()).hexdigest()[:16]
    cache = Path(cache_folder) / f"patches-{key}" if cache_folder else None
    if cache and (cache / "table.csv").is_file():
        pixels = np.load(cache / "pixels.npy", mmap_mode="r")
        return Patches(pixels, pd.read_csv(cache / "table.csv", keep_default_na=False))
    widths = {
        name: red_cell_diameter_of(rows["path"].drop_duplicates())
        for name, rows in table.groupby("laboratory")
    }
    by_image = list(table.groupby("path", sort=False))

    def cut(item: tuple[str, pd.DataFrame]) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
        return _cut_image(*item, widths[item[1]["laboratory"].iloc[0]], side)

    pixels, rows = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for crops, described in tqdm(
            pool.map(cut, by_image), "cells", len(by_image), unit="image", disable=not progress
        ):
            pixels += crops
            rows += described
    patches = Patches(np.stack(pixels), pd.DataFrame(rows))
    if cache:
        storage.make_folder(cache)
        np.save(cache / "pixels.npy", patches.pixels)
        with storage.atomic_file(cache / "table.csv") as partial:
            patches.table.to_csv(partial, index=False)
    return patches


def _cut_image(
    path: str, rows: pd.DataFrame, red_cell: float, side: int
) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """Cut the labelled cells of one image, and where others may lie, a place without one."""
    image = images.read_image(path)
    white, located = stain.whiten(image), white_cells.locate(image, red_cell)
    field = views.MARGIN * white_cells.SIDE
    crops, described = [], []
    facts = {"source_id": rows["group"].iloc[0], "file": Path(path).name}
    middles = [(cell.x, cell.y) for cell in located]
    records: list[dict[str, Any]] = rows.to_dict("records")  # type: ignore[assignment]
    for row in records:
        cell = _labelled(row, image.shape, located, red_cell)
        crops.append(white_cells.cut_out(white, cell, side, red_cell, field))
        described.append({**row, **facts})
        middles.append((cell.x, cell.y))
    if np.isfinite(rows["x_min"].iloc[0]) or rows["laboratory"].iloc[0] == BCCD:
        seed = int(hashlib.sha256(facts["file"].encode()).hexdigest()[:8], 16)
        rng = np.random.default_rng(seed)
        for _ in range(30):
            x, y = rng.uniform(0, image.shape[1]), rng.uniform(0, image.shape[0])
            if all(np.hypot(x - a, y - b) > APART * red_cell for a, b in middles):
                crops.append(white_cells.cut_out(white, _at(x, y), side, red_cell, field))
                nothing = {"cell_type": OTHER, "label": NO_CELL}
                described.append({**records[0], **facts, **nothing})
                break
    return crops, described


def _at(x: float, y: float) -> white_cells.WhiteCell:
    return white_cells.WhiteCell(x, y, x, y, x, y, 0.0, False)


def _labelled(
    row: dict[str, Any], shape: tuple, located: list[white_cells.WhiteCell], red_cell: float
) -> white_cells.WhiteCell:
    """Choose the located cell that a label means: in its box, or else in the image's middle."""
    if np.isfinite(row["x_min"]):
        return white_cells.meant(located, [row[edge] for edge in BOX])
    if row["laboratory"] == BCCD and located:
        return located[0]
    y, x = shape[0] / 2, shape[1] / 2
    reach = 0.5 * red_cell
    return white_cells.meant(located, (x - reach, y - reach, x + reach, y + reach))


def weights_of(table: pd.DataFrame) -> np.ndarray:
    """Weigh patches so that laboratories count alike, and within each its answers: sums to 1."""
    n_answers = table.groupby("laboratory")["cell_type"].transform("nunique")
    n_alike = table.groupby(["laboratory", "cell_type"])["cell_type"].transform("size")
    weights = 1 / (n_answers * n_alike * table["laboratory"].nunique())
    return weights.to_numpy(np.float64)


def middles(pixels: np.ndarray, size: int) -> np.ndarray:
    """Take out of patches what the network is shown when it answers, (n, size, size, 3) uint8."""
    margin = (pixels.shape[1] - size) // 2
    return np.ascontiguousarray(pixels[:, margin : margin + size, margin : margin + size])


def train(
    patches: Patches,
    name: str,
    runs_dir: str | Path,
    settings: TrainingSettings | None = None,
    leave_out: str | None = None,
    verbose: int = 2,
) -> folders.Run:
    """Train `broad` on all laboratories but the one to `leave_out`, or go on where it was cut off.

    What is held out is validated on. For `verbose` and errors see `recorder.fit`;
    `InvalidParameter` is also raised if there is no such laboratory.
    """
    settings = settings or TrainingSettings("broad")
    table = patches.table
    names = sorted(table["laboratory"].unique())
    if leave_out is not None and leave_out not in names:
        raise InvalidParameter(
            f"leave_out={leave_out!r} is none of the laboratories: {', '.join(names)}."
        )
    learned = table["laboratory"].ne(leave_out or "")
    runtime = backend.choose()
    digest = hashlib.sha256(table.drop(columns="path").to_csv().encode()).hexdigest()
    data = {
        "source": ", ".join(names), "title": "Several laboratories", "drawn": False,
        "digest": digest, "n_images": len(table), "folder": "", "left_out": leave_out,
    }  # fmt: skip
    run = folders.start(name, runs_dir, describe(settings, data, runtime))
    if run.is_complete:
        return run
    facts = run.settings["training"]
    size = facts["image_size"][0]
    rows = {
        "train": np.flatnonzero(learned & ~table["held_out"]),
        "validation": np.flatnonzero(learned & table["held_out"]),
    }
    answers = training.one_hot(table["cell_type"], ANSWERS)
    chosen = rows["train"]
    drawn = training.DrawnViews(
        np.ascontiguousarray(patches.pixels[chosen]), answers[chosen],
        weights_of(table.iloc[chosen]), facts,
    )  # fmt: skip
    shown = middles(patches.pixels[rows["validation"]], size)
    validation = training.Batches(
        shown, answers[rows["validation"]], np.arange(len(shown)), facts["batch_size"],
        runtime.n_devices,
    )  # fmt: skip

    def make():
        model = networks.build("broad", (size, size), None)
        training.compile_model(model, facts, len(drawn))
        return model

    return recorder.fit(run, make, drawn, validation, runtime.n_devices, verbose=verbose)


def answers_of(run: folders.Run, patches: Patches) -> pd.DataFrame:
    """Ask a run's network about all patches: their table and a column `p_…` for each answer."""
    recipe = run.settings["training"]["recipe"]
    size = run.settings["training"]["image_size"][0]
    shown = middles(patches.pixels, size)
    probabilities = answering.answer(networks.load(run), shown, RECIPES[recipe].turned)
    columns = [f"p_{answer}" for answer in ANSWERS]
    return patches.table.join(pd.DataFrame(probabilities, columns=columns))


def features_of(run: folders.Run, patches: Patches) -> np.ndarray:
    """Ask what a run's last layer goes by, of all patches: (n_patches, n_features) float32."""
    recipe, size = (run.settings["training"][key] for key in ("recipe", "image_size"))
    asked = answering.featured(networks.load(run))
    shown = middles(patches.pixels, size[0])
    return answering.look(asked, shown, RECIPES[recipe].turned).mean(axis=0)


def learned_by(run: folders.Run, patches: Patches, features: np.ndarray) -> teaching.Learned:
    """Describe what a run of `train` learned from; `features`: see `features_of`."""
    table, left_out = patches.table, run.settings["data"]["left_out"]
    rows = table["laboratory"].ne(left_out or "") & ~table["held_out"]
    weights, bias = networks.load(run).get_layer("cell_type").get_weights()
    chosen = table[rows].assign(nothing=table["label"].eq(NO_CELL)).reset_index(drop=True)
    return teaching.learn(features[rows.to_numpy()], chosen, weights, bias)


def balanced_accuracy(
    table: pd.DataFrame, n_draws: int = 1000, seed: int = 0
) -> tuple[float, float, float, dict[str, float]]:
    """Mean recall of the types of leukocyte that a table of answers holds, and each type's.

    Returns it with its 95 % interval, which draws groups (`source_id`), and the recalls, 0–1. What
    is none of the five types is left out; the answer is the most probable of the five.
    """
    table = table[table["cell_type"].isin(cells.LEUKOCYTES)]
    columns = [f"p_{name}" for name in cells.LEUKOCYTES]
    named = np.array(cells.LEUKOCYTES)[table[columns].to_numpy().argmax(axis=1)]
    right = pd.DataFrame(
        {"type": table["cell_type"].to_numpy(), "right": named == table["cell_type"].to_numpy(),
         "group": table["source_id"].to_numpy()}
    )  # fmt: skip
    recalls = right.groupby("type")["right"].mean()
    rng = np.random.default_rng(seed)
    low, high = uncertainty.mean_over_types(
        right["right"], right["type"], right["group"], rng, n_draws
    )
    of_types = {str(name): float(recall) for name, recall in recalls.items()}
    return float(recalls.mean()), low, high, of_types
