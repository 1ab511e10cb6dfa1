"""What each part of the `compact` recipe brings: `make ablation SOURCE=...`.

Each row trains the recipe with one part changed, by grouped cross-validation over the photographs
of TRAIN (five folds, one seed), and compares it with the recipe as it is on the same photographs:
the difference in balanced accuracy, with the 95 % interval that drawing photographs anew gives it.
The last columns are the same for simulated laboratories, see `benchmarks/simulated.py`, the
networks being those of the row. TEST has no part in any of it. The laboratories were looked at
while the recipe was made, so that their scores are those of development.

Rows that were measured are kept in `runs/ablation-SEED/`; an interrupted ablation goes on there. A
seed decides the folds, too. A second table compares rows measured with several seeds
(`--seed 1 --only ...`), since with one seed half a point is no more than chance. `--workers` or
`--scheduler` share the rows, see docs/scale.md.
"""

import argparse
import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pandas as pd
import simulated as laboratories
from results import spread

from wbc_helpers import cells, storage
from wbc_helpers.__main__ import add_workers, workers_of
from wbc_helpers.classify import inputs, networks, training
from wbc_helpers.data import catalog, sources, splits
from wbc_helpers.data.identity import identify
from wbc_helpers.evaluate import classification, uncertainty
from wbc_helpers.evaluate.classification import Evaluation
from wbc_helpers.pixels import images, scale, stain, white_cells
from wbc_helpers.runs import answering, recipes
from wbc_helpers.runs.folders import find, open_run

ROOT = Path(__file__).resolve().parents[1]

COMPACT = recipes.RECIPES["compact"]
IMAGES_EACH = 3  # images of each photograph that are shown to the simulated laboratories


def changed(**parts) -> Callable[[], contextlib.AbstractContextManager]:
    """The recipe with other values.

    By its module, since a worker gets this file's own names as copies.
    """
    return lambda: mock.patch.dict(recipes.RECIPES, compact=replace(COMPACT, **parts))


def with_views(**parts) -> Callable[[], contextlib.AbstractContextManager]:
    """The recipe with other views."""
    return changed(views=replace(COMPACT.views, **parts))


def fill_only(image: np.ndarray) -> np.ndarray:
    """Black fill made background, and no white balance."""
    image = image.copy()
    image[stain.is_fill(image)] = stain.WHITE
    return image


def averaged(*arguments) -> keras.Model:
    """The recipe's model, whose weights are averaged over the last hundred steps."""
    model = COMPILED(*arguments)
    model.optimizer.use_ema, model.optimizer.ema_momentum = True, 0.99
    return model


COMPILED = training.compiled_model

AS_IT_IS = "as it is"

VARIANTS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    AS_IT_IS: contextlib.nullcontext,
    "whole images of 72×96, no crops, no views": changed(
        # What is not square is answered as it lies: its quarter turns have another shape.
        sees="image",
        views=None,
        image_size=(72, 96),
        epochs=4,
        turned=False,
    ),
    "crops of the augmented images, no views": changed(views=None, epochs=4),
    # Crops are kept on disk by their version.
    "light and stain not balanced": lambda: mock.patch.multiple(
        white_cells, balance=fill_only, VERSION="unbalanced"
    ),
    "no change of stain in the views": with_views(stain=0),
    "no blur, noise, cut, zoom or shear in the views": with_views(
        blur=0, noise=0, cut=0, zoom=0, shear=0
    ),
    "crops of 48×48": changed(image_size=(48, 48)),
    "crops of 96×96": changed(image_size=(96, 96)),
    "no softened labels": changed(label_smoothing=0.0),
    "averaged weights": lambda: mock.patch.object(training, "compiled_model", averaged),
    "twice the epochs": changed(epochs=2 * COMPACT.epochs),
}
"""Four epochs of all images are nine tenths of the steps that the recipe takes."""


def held_out(
    table: pd.DataFrame, folder: Path
) -> Iterator[tuple[networks.keras.Model, pd.DataFrame]]:
    """Each fold's network with the rows that it did not see."""
    fold_of = {}
    for fold in sorted(folder.glob("fold-*")):
        split = pd.read_csv(fold / "split.csv", index_col="file")["part"]
        fold_of |= dict.fromkeys(split.index[split == "validation"], fold.name)
    for name, rows in table.groupby(table["file"].map(fold_of)):
        yield networks.load(open_run(name, folder)), rows


def seen_elsewhere(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Answers to some of the images as each simulated laboratory would have taken them."""
    some = table.groupby("source_id").head(IMAGES_EACH)
    size = recipes.RECIPES["compact"].image_size
    answers = []
    for network, rows in held_out(some, folder):
        for laboratory in laboratories.LABORATORIES:
            taken = [
                laboratories.simulate(images.read_image(path), laboratory) for path in rows["path"]
            ]
            told = answering.answer(network, shown(taken, size), turned=True)
            answers.append(classification.tabulate(rows, told).assign(laboratory=laboratory.name))
    return pd.concat(answers, ignore_index=True)


def shown(taken: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """What the recipe's network is shown of images in memory, see `inputs.decode`."""
    if recipes.RECIPES["compact"].sees == "image":
        return np.stack([images.resize(each, size) for each in taken])
    red_cell = scale.red_cell_diameter_of(taken)
    return np.stack(
        [
            white_cells.cut_out(
                stain.balance(each), white_cells.locate_one(each, red_cell)[0], size[0], red_cell
            )
            for each in taken
        ]
    )


def as_it_lies(table: pd.DataFrame, folder: Path, kept: dict) -> pd.DataFrame:
    """Answers to crops as they lie, not averaged over the eight ways to turn and flip them."""
    crop = inputs.decode("compact", table["path"], COMPACT.image_size, **kept)
    place = pd.Series(range(len(table)), index=table["file"])
    answers = [
        classification.tabulate(
            rows, answering.predict(network, crop[place[rows["file"]].to_numpy()])
        )
        for network, rows in held_out(table, folder)
    ]
    return pd.concat(answers, ignore_index=True)


def balanced(table: pd.DataFrame) -> float:
    return classification.evaluate_table(table).balanced_accuracy


def by_photograph(table: pd.DataFrame) -> Evaluation:
    return classification.by_photograph(classification.evaluate_table(table), table["source_id"])


def are_wrong(table: pd.DataFrame) -> np.ndarray:
    """Which photographs, in the order of their names, get another type than the published."""
    judged = by_photograph(table)
    return np.array(cells.NAMES)[judged.probabilities.argmax(axis=1)] != judged.true_types


def together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The mean answer of several networks to each image."""
    columns, files = list(classification.PROBABILITIES), tables[0]["file"]
    told = [table.set_index("file").loc[files, columns].to_numpy() for table in tables]
    return classification.tabulate(tables[0], np.mean(told, axis=0))


def against(reference: pd.DataFrame, other: pd.DataFrame) -> str:
    """Difference in balanced accuracy by image, in points, with its interval."""
    rows, first, second = classification.align(reference, other)
    compared = uncertainty.compare(first, second, rows["source_id"]).loc["balanced_accuracy"]
    return (
        f"{100 * compared['difference']:+.1f} "
        f"({100 * compared['low']:+.1f} to {100 * compared['high']:+.1f})"
    )


def elsewhere(folder: Path) -> pd.Series:
    """Balanced accuracy by laboratory."""
    table = pd.read_csv(beside(folder, "elsewhere"), dtype=classification.COLUMNS)
    return table.groupby("laboratory", sort=False)[table.columns.tolist()].apply(balanced)


def folder_of(name: str, options: argparse.Namespace, seed: int | None = None) -> Path:
    words = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
    return options.runs_dir / f"ablation-{options.seed if seed is None else seed}" / words


def is_measured(folder: Path) -> bool:
    return beside(folder, "elsewhere").is_file()


def beside(folder: Path, what: str) -> Path:
    """Path of a table that belongs to a row; the row's folder is its cross-validation's alone."""
    return folder.with_name(f"{folder.name}-{what}.csv")


def measure(name: str, options: argparse.Namespace, identity, table: pd.DataFrame) -> str:
    """Train one variant, unless that was done with these data and this recipe; say how long."""
    folder = folder_of(name, options)
    started = time.perf_counter()
    with VARIANTS[name]():
        chosen = recipes.TrainingSettings(recipe="compact", seed=options.seed)
        if is_measured(folder):
            find("fold-0", folder, training.describe_fold(chosen, identity))
            return f"{name}: measured before"
        told = training.cross_validate(
            chosen, identity, folder.name, options.data_dir, folder.parent
        )
        rows = told.assign(path=table.set_index("file")["path"][told["file"]].to_numpy())
        if name == AS_IT_IS:
            kept = {
                "red_cell": inputs.red_cell_of(table), "cache_folder": options.data_dir / "cache"
            }  # fmt: skip
            lying = as_it_lies(rows, folder, kept)
            storage.write_text(beside(folder, "as-it-lies"), lying.to_csv(index=False))
        # Last, because a row with this file counts as measured.
        storage.write_text(
            beside(folder, "elsewhere"), seen_elsewhere(rows, folder).to_csv(index=False)
        )
    return f"{name}: {time.perf_counter() - started:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="auto")
    parser.add_argument("--data-dir", default=ROOT / "data", type=Path)
    parser.add_argument("--runs-dir", default=ROOT / "runs", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="*", choices=VARIANTS, metavar="ROW",
        help=f"rows to measure, of: {'; '.join(VARIANTS)}",
    )  # fmt: skip
    add_workers(parser)
    options = parser.parse_args()
    workers = workers_of(options)
    options.data_dir, options.runs_dir = options.data_dir.absolute(), options.runs_dir.absolute()
    identity = identify(sources.fetch(options.source, options.data_dir))
    print(sources.banner(identity.source), flush=True)
    table = splits.add_provenance(catalog.find_images(identity.folder))
    work = functools.partial(measure, options=options, identity=identity, table=table)
    for words in workers.share(work, list(options.only or VARIANTS)):
        print(words, flush=True)
    print(report(options))
    print(of_several_seeds(options))


def report(options: argparse.Namespace) -> str:
    """The table of docs/choices.md, of rows that were measured."""
    lines = [
        "| changed | balanced accuracy by image, % | difference, points | photographs right, % "
        "| simulated laboratories, % | worst of them, % | training, s |",
        "|---|---|---|---|---|---|---|",
    ]
    reference, measured = None, []
    for name in VARIANTS:
        folder = folder_of(name, options)
        if not is_measured(folder):
            continue
        told, there = classification.read_predictions(folder), elsewhere(folder)
        seconds = [
            pd.read_csv(history)["seconds"].sum() for history in folder.glob("fold-*/history.csv")
        ]
        reference = told if name == AS_IT_IS else reference
        measured.append(told)
        compared = name != AS_IT_IS and reference is not None
        difference = against(reference, told) if compared else ""
        lines.append(
            f"| {name} | {100 * balanced(told):.1f} | {difference} "
            f"| {100 * by_photograph(told).accuracy:.1f} | {100 * there.mean():.1f} "
            f"| {100 * there.min():.1f} ({there.idxmin()}) | {np.mean(seconds):.0f} |"
        )
        if name == AS_IT_IS:
            lying = pd.read_csv(beside(folder, "as-it-lies"), dtype=classification.COLUMNS)
            lines.append(
                "| answers not averaged over turned and flipped crops "
                f"| {100 * balanced(lying):.1f} | {against(reference, lying)} "
                f"| {100 * by_photograph(lying).accuracy:.1f} | | | |"
            )
    if len(measured) > 1 and reference is not None:
        mean = together(measured)
        lines.append(
            f"| the answers of these {len(measured)} times five networks averaged "
            f"| {100 * balanced(mean):.1f} | {against(reference, mean)} "
            f"| {100 * by_photograph(mean).accuracy:.1f} | | | |"
        )
        wrong = np.mean([are_wrong(each) for each in measured], axis=0)
        lines.append(
            f"\nOf {len(wrong)} photographs, {np.sum(wrong == 1)} are wrong in each of these rows, "
            f"{np.sum(wrong == 0)} in none."
        )
    return "\n".join(lines)


def of_several_seeds(options: argparse.Namespace) -> str:
    """Rows that were measured with more than one seed, compared seed by seed."""
    lines = [
        "| changed | seeds | balanced accuracy by image, % | difference, points "
        "| photographs right, % | simulated laboratories, % | worst of them, % "
        "| answers of the seeds averaged: by image, % | photographs, % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    seeds = sorted(int(folder.name[9:]) for folder in options.runs_dir.glob("ablation-[0-9]*"))
    for name in VARIANTS:
        measured = [seed for seed in seeds if is_measured(folder_of(name, options, seed))]
        if len(measured) < 2:
            continue
        folders = [folder_of(name, options, seed) for seed in measured]
        tables = [classification.read_predictions(folder) for folder in folders]
        there = [elsewhere(folder) for folder in folders]
        scores = [balanced(table) for table in tables]
        references = [folder_of(AS_IT_IS, options, seed) for seed in measured]
        difference = ""
        if name != AS_IT_IS and all(map(is_measured, references)):
            beyond = np.subtract(
                scores, [balanced(classification.read_predictions(each)) for each in references]
            )
            difference = spread(beyond, "+.1f", " to ")
        mean = together(tables)
        lines.append(
            f"| {name} | {len(measured)} | {spread(scores, to=' to ')} | {difference} "
            f"| {spread([by_photograph(table).accuracy for table in tables], to=' to ')} "
            f"| {spread([each.mean() for each in there], to=' to ')} "
            f"| {spread([each.min() for each in there], to=' to ')} "
            f"| {100 * balanced(mean):.1f} | {100 * by_photograph(mean).accuracy:.1f} |"
        )
    return "\n".join(lines) if len(lines) > 2 else ""


if __name__ == "__main__":
    main()
