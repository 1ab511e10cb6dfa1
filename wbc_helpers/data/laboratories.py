"""Cells of several laboratories: which type each white cell is, and who photographed which field.

What counts for a network that is to travel is the number of laboratories, not of cells, and what
must not be parted (`group`): cells of one slide, photographs of one field.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from wbc_helpers.cells import BOX
from wbc_helpers.data import annotations, catalog, splits
from wbc_helpers.data.sources import SOURCES
from wbc_helpers.errors import DataMismatch

CELL_TYPES = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil", "other")
"""Of a labelled cell; `other` is one that is none of the five."""

CLASSES = ("neutrophil", "eosinophil", "basophil", "lymphocyte", "monocyte")
"""What the numbers of Chulalongkorn's boxes mean, where no file says it."""

RUN = 1000
"""File numbers of Barcelona's that make a run. No patients are published, and neighbouring numbers
are of one class no more often than any others (0.143 and 0.144 of pairs)."""


def find_cells(folder: str | Path, laboratory: str = "") -> pd.DataFrame:
    """List the labelled white cells of a laboratory, as `sources.fetch` gives the folder.

    One row a cell, ordered by file. `path` (str, absolute); `laboratory`: as given, by default that
    of the published source whose file names these are, else the folder's name; `cell_type`:
    categorical, one of `CELL_TYPES`; `label`: as published; `BOX`: float64, pixels of the file as
    it is, NaN where the image shows one cell in its middle; `group` (str): what must not be parted.
    Groups are, of fields with boxes, the file name up to `_`, the slide or session; of images in
    class folders, runs of `RUN` file numbers, joined where two files are the same image.

    Raises `DataNotFound` if there are no labelled cells, see `catalog.cells_folder`; `DataMismatch`
    if labels are unknown or boxes malformed, naming them.
    """
    root = catalog.cells_folder(folder)
    is_boxed = len(catalog.class_folders(root)) < 2
    rows = list(_cells_in_fields(root) if is_boxed else _cells_in_folders(root))
    table = pd.DataFrame(rows, columns=["path", "label", "cell_type", "group", *BOX])
    table["cell_type"] = pd.Categorical(table["cell_type"], categories=CELL_TYPES)
    if not is_boxed:
        table["group"] = _joined(table)
    table.insert(1, "laboratory", laboratory or _laboratory_of(root, table["path"]))
    table = table.astype(dict.fromkeys(BOX, float))
    columns = ["path", "laboratory", "cell_type", "label", *BOX, "group"]
    return table[columns].sort_values(["path", "x_min"], ignore_index=True)


def _cells_in_folders(root: Path) -> Iterator[tuple]:
    for folder in catalog.class_folders(root):
        cell_type = catalog.CELL_FOLDERS[folder.name.lower()]
        for path in catalog.find_photographs(folder):
            number = path.stem.rpartition("_")[2]
            run = f"run-{int(number) // RUN:05d}" if number.isdecimal() else path.stem
            yield (str(path), folder.name, cell_type, run, *[np.nan] * 4)


def _cells_in_fields(root: Path) -> Iterator[tuple]:
    has_names = any((root / name).is_file() for name in ("data.yaml", "classes.txt"))
    read = annotations.read_annotations(
        root, CELL_TYPES, None if has_names else CLASSES, must_occur=False
    )
    wrong = read.problems[read.problems["box"].notna() & (read.problems["handled"] == "dropped")]
    if len(wrong):
        first = wrong.iloc[0]
        raise DataMismatch(
            f"{len(wrong)} boxes in {root} are malformed; the first: {first['photograph']}, box "
            f"{first['box']}, {first['problem']} ({first['found']}). Expected lines of a class "
            "number, centre and size; restore the files."
        )
    paths = read.photographs.set_index("photograph")["path"]
    for row in read.boxes.to_dict("records"):
        path = paths[row["photograph"]]
        group = Path(path).stem.rpartition("_")[0] or Path(path).stem
        yield (path, row["kind"], row["kind"], group, *(row[edge] for edge in BOX))


def _joined(table: pd.DataFrame) -> list[str]:
    """Join the groups of images that are the same."""
    content = pd.Series(splits.content_of(list(table["path"])), table.index)
    first = table["group"].groupby(content).transform("first")
    pairs = pd.DataFrame({"first": first, "second": table["group"]}).drop_duplicates()
    return list(table["group"].map(splits.group_sources(pairs, table["group"])))


def _laboratory_of(root: Path, paths: pd.Series) -> str:
    files = {Path(path).relative_to(root).as_posix() for path in paths}
    for source in SOURCES.values():
        if source.holds == "cells" and source.manifest:
            n_known = len(files & catalog.read_manifest(source.manifest).keys())
            if 2 * n_known >= max(1, len(files)):
                return source.laboratory
    return root.name


LABORATORIES = {
    (640, 480): "BCCD",
    (416, 416): "BCCD",
    (360, 363): "Barcelona",
    (366, 369): "Barcelona",
    (575, 575): "Raabin",
}
"""Whose photographs those of TXL-PBC are, by their size in pixels. Those of 416×416 are BCCD's,
turned and pressed into a square."""


def of_photographs(read: annotations.Annotations) -> pd.DataFrame:
    """Say whose the photographs are, in which list they stand and which belong together.

    One row a photograph, those of `read.photographs` with four columns more. `laboratory`: see
    `LABORATORIES`; of another size, its own folder's name. `part`: the folder it is in, one of
    `splits.PARTS`, or empty. `original` and `group`: see `originals`; `group` is its own name where
    no other photograph shows the same field.
    """
    table = read.photographs.copy()
    sizes = zip(table["width"], table["height"], strict=True)
    table["laboratory"] = [
        LABORATORIES.get(size, Path(path).parent.name)
        for size, path in zip(sizes, table["path"], strict=True)
    ]
    parts = [Path(path).parent.name for path in table["path"]]
    table["part"] = [part if part in splits.PARTS else "" for part in parts]
    known = originals().reindex(table["photograph"])
    table["original"] = known["original"].fillna("").array
    table["group"] = known["group"].array
    table["group"] = table["group"].fillna(table["photograph"])
    return table


INCOMPLETE = {"Raabin": "Platelets"}
"""Kinds of which few are boxed in TXL-PBC, by laboratory: 28 in 500 photographs of Raabin."""


def read_boxed(folder: str | Path, classes: Sequence[str] | None = None) -> annotations.Annotations:
    """Read the boxes of a data set, and of TXL-PBC also whose photographs they lie in.

    `photographs` then have the columns of `of_photographs` and `incomplete`, the kinds of which
    people boxed only some, parted by spaces. `classes` and what is raised: see
    `annotations.read_annotations`.
    """
    read = annotations.read_annotations(folder, classes=classes)
    if not set(read.photographs["photograph"]) & set(originals().index):
        return read
    table = of_photographs(read)
    incomplete = table["laboratory"].map(INCOMPLETE).fillna("")
    return replace(read, photographs=table.assign(incomplete=incomplete))


def deal(boxed: annotations.Annotations, fraction: float = 1 / 8, seed: int = 0) -> pd.Series:
    """Deal the photographs of TXL-PBC, see `read_boxed`, those of one field together.

    Tested is on its own test list and on every copy of a photograph in BCCD's, and on what shows
    the same fields; `fraction` of the others validate. Returns as `splits.split_photographs`.
    """
    table = boxed.photographs.set_index("photograph", drop=False)
    test = table.index[table["part"].eq("test") | in_own_test(table)]
    first = table.groupby("group")["photograph"].transform("first")
    pairs = pd.DataFrame({"first": first, "second": table["photograph"]})
    # By all boxes as published: so were the photographs dealt that what ships has learned from.
    twice = boxed.problems[boxed.problems["problem"] == "boxed twice"]
    twice = pd.DataFrame(
        {"photograph": twice["photograph"], "kind": twice["found"].str.split().str[0]}
    )
    boxed = replace(boxed, boxes=pd.concat([boxed.boxes.astype({"kind": str}), twice]))
    return splits.split_photographs(boxed, pairs, fraction, seed, test)


def in_own_test(photographs: pd.DataFrame) -> pd.Series:
    """Tell which photographs, by name as index, show one of BCCD's own test list: bool."""
    parts = photographs.index.to_series().map(originals()["original_part"])
    return parts.eq("test").fillna(False).astype(bool)


def originals() -> pd.DataFrame:
    """Where the photographs of TXL-PBC come from, and which of them show the same field.

    By name of the photograph (index); one that has neither original nor partner is absent.
    `original` (string): the name of BCCD's photograph, found by its features in every copy, turned,
    pressed or cropped, see `audit.overlaps`; or the file of Barcelona's, the same byte for byte,
    such as `basophil/BA_100102`; empty where unknown. `group`: what photographs of one field share.
    `original_part`: the list of BCCD's own in which that photograph is, or empty.
    """
    file = resources.files("wbc_helpers") / "manifests" / "txl-originals.csv.gz"
    with resources.as_file(file) as path:
        table = pd.read_csv(path, dtype="string", keep_default_na=False)
    return table.set_index("photograph")
