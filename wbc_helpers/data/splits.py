"""Which photograph each image was made from, whose it is, and what trains, validates and tests.

Photographs of one field, and images made from them, show the same cells. Where one of them trains
and the other tests, the score says how well cells are recognised that were trained on: they form a
group here, and groups stay undivided. The lists that come with the BCCD data set do not keep them
together: of the 47 pairs of its photographs that overlap, they part 32, and 22 of those show the
same white cell; 15 pairs have one photograph in its test list and the other outside.

Of several laboratories: which type each white cell is, and who photographed which field. What
counts for a network that is to travel is the number of laboratories, not of cells.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wbc_helpers.cells import BOX
from wbc_helpers.data import sample
from wbc_helpers.data.annotations import Annotations, read_annotations
from wbc_helpers.data.catalog import (
    CELL_FOLDERS,
    cells_folder,
    class_folders,
    digest_paths,
    find_photographs,
    name_photographs,
    read_manifest,
    smears_folder,
)
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter

MATCH_COLUMNS = {
    "source_id": "string",
    "inliers": "int64",
    "residual": "float64",
    "runner_up_id": "string",
    "runner_up_inliers": "int64",
    "runner_up_residual": "float64",
    **dict.fromkeys(sample.AFFINE, "float64"),
    "ambiguous": "boolean",
}


def shipped() -> pd.DataFrame:
    """Provenance of the 12,515 images of the Kaggle data set `paultimothymooney/blood-cells`.

    Worked out from the pixels by `origins.audit`; `make audit` does it again and compares.

    One row an image, ordered like the catalog. `file`: relative to the images folder. `content`:
    first 16 hexadecimal digits of the file's SHA-256. `source_id`: the photograph, such as
    `BloodImage_00012`; `missing_1` for the 15 images of a photograph that is not in the archive (by
    `labels.csv` it can only be `BloodImage_00280`, the one labelled neutrophil that is not there).
    `group_id`: see `group_sources`. `inliers`, `residual`, `runner_up_id`, `runner_up_inliers`,
    `runner_up_residual`, `AFFINE` and `ambiguous`: see `assign_sources`. `nucleus_shown`: part of
    the nucleus that the image shows, 0–1, counting what the photograph shows; `whole_nucleus`:
    whether nothing of it is cut off, by the image or by the photograph. `cell_in_train` (bool): for
    TEST and TEST_SIMPLE, whether TRAIN shows the same white cell; False for TRAIN.
    """
    types = {
        **MATCH_COLUMNS,
        "file": "string",
        **dict.fromkeys(["whole_nucleus", "cell_in_train"], "boolean"),
    }
    with resources.as_file(_shipped_file("provenance.csv.gz")) as path:
        table = pd.read_csv(path, dtype=types)
    with resources.as_file(_shipped_file("blood-cells.csv.gz")) as path:
        digests = pd.read_csv(path, dtype="string", index_col="file")["sha256"]
    table.insert(1, "content", table["file"].map(digests))
    pairs = shipped_overlaps()
    # Photographs of which no image was made link others, too.
    groups = group_sources(pairs, {*table["source_id"], *pairs["first"], *pairs["second"]})
    table.insert(3, "group_id", table["source_id"].map(groups).astype("string"))
    return table


def shipped_overlaps() -> pd.DataFrame:
    """Pairs of photographs of the Kaggle data set that show a part of the same field.

    One row a pair, see `overlaps.find_overlaps`.
    """
    with resources.as_file(_shipped_file("overlaps.csv")) as path:
        return pd.read_csv(path, dtype={"first": "string", "second": "string"})


def _shipped_file(name: str) -> resources.abc.Traversable:
    return resources.files("wbc_helpers") / "manifests" / name


def content_of(paths: list[str]) -> list[str]:
    """First 16 hexadecimal digits of the SHA-256 of each file, see `catalog.digest_paths`."""
    return [digest[:16] for digest in digest_paths(paths)]


def add_provenance(catalog: pd.DataFrame) -> pd.DataFrame:
    """Add to a catalog which photograph each image was made from, where that is known.

    Images of the known data set are recognised by content, wherever they lie and whatever they are
    called; those of the drawn sample by their name in it, where the truth lies beside them.
    Anything else is honestly unknown: see `origins.audit` for other data with photographs.

    New columns are `source_id` and `group_id` (string), NA where unknown, and `cell_in_train`
    (boolean): whether this image of TEST or TEST_SIMPLE shows a white cell that TRAIN shows too.
    """
    origins = _truth_of_sample(catalog)
    if origins is None:
        origins = shipped().drop_duplicates("content").set_index("content")
        keys = content_of(list(catalog["path"]))
    else:
        keys = list(catalog["file"])
    origins = origins.reindex(keys)
    added = ("source_id", "group_id", "cell_in_train")
    return catalog.assign(**{name: origins[name].array for name in added})


def _truth_of_sample(catalog: pd.DataFrame) -> pd.DataFrame | None:
    """Provenance by file, if these images are the drawn sample."""
    if catalog.empty:
        return None
    path, file = Path(catalog["path"].iloc[0]), Path(catalog["file"].iloc[0])
    folder = sample.enclosing(path.parents[len(file.parts) - 1])
    if folder is None:
        return None
    truth = sample.truth(folder).astype({"source_id": "string"})
    pairs = sample.overlaps(folder)
    truth["group_id"] = truth["source_id"].map(group_sources(pairs, truth["source_id"]))
    # Its photographs that overlap show the same cell by construction.
    in_train = truth["file"].str.startswith("TRAIN/")
    shown = truth["group_id"].isin(truth.loc[in_train, "group_id"]) & ~in_train
    truth["cell_in_train"] = shown.astype("boolean")
    return truth.astype({"group_id": "string"}).set_index("file")


def group_sources(overlaps: pd.DataFrame, source_ids: Iterable[str]) -> pd.Series:
    """Join photographs that overlap, directly or through others: the first name of each's group.

    Examples
    --------
    >>> pairs = pd.DataFrame({"first": ["c", "b"], "second": ["b", "a"]})
    >>> group_sources(pairs, ["a", "b", "c", "d"]).to_dict()
    {'a': 'a', 'b': 'a', 'c': 'a', 'd': 'd'}
    """
    names = sorted(set(source_ids))
    number = {name: i for i, name in enumerate(names)}
    links = overlaps[overlaps["first"].isin(number) & overlaps["second"].isin(number)]
    ends = links["first"].map(number), links["second"].map(number)
    graph = coo_array((np.ones(len(links)), ends), shape=(len(names), len(names)))
    _, labels = connected_components(graph, directed=False)
    # In the order of names the first of a group is its smallest.
    groups = pd.Series(names, dtype=object, name="group_id").groupby(labels).transform("first")
    return groups.set_axis(pd.Index(names, name="source_id"))


def grouped_folds(training_catalog: pd.DataFrame, n_folds: int = 5, seed: int = 0) -> pd.Series:
    """Deal images into folds, photographs undivided: 0 to `n_folds` − 1 for each row.

    The folds are as alike in their `cell_type` as the groups (`group_id`, which photographs that
    overlap share) allow. Raises `InvalidParameter` if the photographs are not known, or are too few
    for so many folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if "group_id" not in training_catalog or training_catalog["group_id"].isna().any():
        raise InvalidParameter(
            "It is not known which photographs these images were made from. Expected a group_id "
            "for each, see splits.add_provenance; without it only validation='random' is "
            "possible, which flatters wherever two images show one cell."
        )
    fold = pd.Series(0, index=training_catalog.index, name="fold")
    try:
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        parts = splitter.split(fold, training_catalog["cell_type"], training_catalog["group_id"])
        for number, (_, rows) in enumerate(parts):
            fold.iloc[rows] = number
    except ValueError as error:
        raise InvalidParameter(
            f"{training_catalog['group_id'].nunique()} groups of photographs cannot be dealt into "
            f"{n_folds!r} folds: {str(error).rstrip('.')}."
        ) from error
    return fold


def split_validation(
    training_catalog: pd.DataFrame, how: str = "random", fraction: float = 0.1, seed: int = 0
) -> pd.Series:
    """Set part of the TRAIN images aside: `train` or `validation` for each row, by cell type alike.

    **A random split leaks.** The images of TRAIN are about 36 augmented versions of each of a few
    hundred photographs, and a random split, the paper's, puts versions of one cell on both sides:
    accuracy on such a validation part says how well a network recognises photographs that it has
    seen. A grouped split keeps a photograph, and those that overlap it, on one side.

    `how` is `random` or `grouped`, see `grouped_folds`; `fraction`, between 0 and 1, the part to
    set aside: 0.1 of the 9,957 TRAIN images are the paper's 996. A grouped split sets the nearest
    possible part aside: one of round(1 / fraction) folds. Raises `InvalidParameter` if the fraction
    leaves a side without images, or the groups are not known.
    """
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(training_catalog))
    try:
        if how == "grouped":
            folds = grouped_folds(training_catalog, round(1 / fraction), seed)
            validation = np.flatnonzero(folds == 0)
        else:
            _, validation = train_test_split(
                rows, test_size=fraction, random_state=seed, stratify=training_catalog["cell_type"]
            )
    except (ValueError, ZeroDivisionError) as error:
        raise InvalidParameter(
            f"A {how} part of {fraction} of {len(training_catalog)} images cannot be set aside: "
            f"{error}. Expected a fraction between 0 and 1 that leaves every cell type on both "
            "sides, and for a grouped split images of known photographs."
        ) from error
    part = pd.Series("train", index=training_catalog.index, name="part")
    part.iloc[validation] = "validation"
    return part


PARTS = ("train", "val", "test")

_PART_OF = {**dict(zip(PARTS, PARTS, strict=True)), "valid": "val"}


def has_lists(folder: str | Path) -> bool:
    """Tell whether lists of photographs come with a data set, see `read_lists`."""
    root = smears_folder(folder)
    is_listed = (root / "ImageSets" / "Main").is_dir()
    return is_listed or set(_parts_by_folder(root).values()) == set(PARTS)


def _parts_by_folder(root: Path) -> dict[str, str]:
    """Part of each photograph that is in a folder of a part's name."""
    return {
        name: _PART_OF[part]
        for name, path in name_photographs(root).items()
        for part in path.relative_to(root).parts[:-1]
        if part in _PART_OF
    }


def read_lists(folder: str | Path) -> pd.Series:
    """Read the lists of photographs that come with a data set, see `catalog.smears_folder`.

    They stand in `ImageSets`, or are folders: train, val (or valid) and test. Returns `PARTS` by
    photograph, in the order of names; those in no list are left out. Raises `DataNotFound` if there
    are no lists, `DataMismatch` if one names a photograph that is not
    there, or two name the same one.
    """
    root = smears_folder(folder)
    photographs = name_photographs(root)
    by_folder = _parts_by_folder(root)
    if set(by_folder.values()) == set(PARTS):
        return pd.Series(by_folder, name="part").rename_axis("photograph").sort_index()
    files = {part: root / "ImageSets" / "Main" / f"{part}.txt" for part in PARTS}
    if absent := [file.name for file in files.values() if not file.is_file()]:
        raise DataNotFound(
            f"{root} has no list {', '.join(absent)} in ImageSets/Main. Expected train.txt, "
            "val.txt and test.txt, a name a line; or deal the photographs yourself, see "
            "splits.split_photographs."
        )
    listed = pd.Series(
        {part: file.read_text(encoding="utf-8").split() for part, file in files.items()}
    ).explode()
    listed = pd.Series(listed.index, index=listed.array, name="part").rename_axis("photograph")
    twice = listed.index[listed.index.duplicated()]
    unknown = [name for name in listed.index if name not in photographs]
    if len(twice) or unknown:
        raise DataMismatch(
            f"The lists in {root / 'ImageSets'} name {len(twice)} photographs twice "
            f"({', '.join(twice[:5])}) and {len(unknown)} that are not there "
            f"({', '.join(unknown[:5])}). Expected each photograph at most once; mend the lists, "
            "or deal the photographs yourself, see splits.split_photographs."
        )
    return listed.sort_index()


def parted_pairs(pairs: pd.DataFrame, parts: pd.Series) -> pd.DataFrame:
    """Overlapping photographs of which a split puts one here, the other there.

    Those rows of `pairs` (see `overlaps.find_smear_pairs`), with `first_part` and `second_part` of
    `parts` (by photograph, see `read_lists`); photographs in no part are passed over.
    """
    sides = {f"{side}_part": pairs[side].map(parts) for side in ("first", "second")}
    both = pairs.assign(**sides)
    dealt = both["first_part"].notna() & both["second_part"].notna()
    return both[dealt & (both["first_part"] != both["second_part"])].reset_index(drop=True)


def split_photographs(
    annotations: Annotations,
    pairs: pd.DataFrame,
    fraction: float = 0.2,
    seed: int = 0,
    test: Iterable[str] = (),
) -> pd.Series:
    """Deal photographs to training, validation and test, overlapping ones together.

    `pairs` are those of `overlaps.find_smear_pairs`. `fraction` is the part for validation, and as
    much for the test: the nearest of 1/3, 1/4, 1/5, … `test` are photographs to test on, such as
    those that a classifier did not see; those that overlap them are added, and the others dealt to
    training and validation. None deals all.

    Returns `PARTS` by photograph, in the order of `annotations.photographs`: as alike in their
    numbers of photographs and of cells of each kind as the groups allow. Raises `InvalidParameter`
    if the fraction is not usable, a test photograph is not annotated, or there are too few groups.
    """
    names = annotations.photographs["photograph"]
    test = set(test)
    n_folds = round(1 / fraction) if 0 < fraction <= 1 else 0
    if n_folds < 3 or not test <= set(names):
        raise InvalidParameter(
            f"Cannot deal {len(names)} photographs with fraction={fraction!r}, testing on "
            f"{len(test)}, of which {len(test - set(names))} are not annotated. Expected a "
            "fraction above 0 and up to 1/3, and names of annotated photographs."
        )
    groups = group_sources(pairs, names)
    parts = pd.Series("train", index=pd.Index(names, name="photograph"), name="part")
    in_test = groups.isin(groups[sorted(test)]) if test else pd.Series(False, groups.index)
    dealt = [name for name in names if not in_test[name]]
    # A row a cell, and one a photograph, so that one without cells is dealt too.
    rows = pd.concat(
        [
            annotations.boxes[["photograph", "kind"]].astype(str),
            pd.DataFrame({"photograph": dealt, "kind": "photograph"}),
        ]
    )
    rows = rows[rows["photograph"].isin(dealt)].reset_index(drop=True)
    if groups[dealt].nunique() < n_folds:
        raise InvalidParameter(
            f"{groups[dealt].nunique()} groups of overlapping photographs cannot be dealt into "
            f"{n_folds} parts, as fraction={fraction!r} asks. Choose a larger fraction."
        )
    rows["group_id"] = rows["photograph"].map(groups)
    folds = grouped_folds(rows.rename(columns={"kind": "cell_type"}), n_folds, seed)
    fold = folds.groupby(rows["photograph"]).first().reindex(names)
    for number, part in enumerate(("val",) if test else ("test", "val")):
        parts[(fold == number).to_numpy()] = part
    parts[in_test.reindex(names).to_numpy()] = "test"
    return parts


# Of several laboratories

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
    root = cells_folder(folder)
    is_boxed = len(class_folders(root)) < 2
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
    for folder in class_folders(root):
        cell_type = CELL_FOLDERS[folder.name.lower()]
        for path in find_photographs(folder):
            number = path.stem.rpartition("_")[2]
            run = f"run-{int(number) // RUN:05d}" if number.isdecimal() else path.stem
            yield (str(path), folder.name, cell_type, run, *[np.nan] * 4)


def _cells_in_fields(root: Path) -> Iterator[tuple]:
    has_names = any((root / name).is_file() for name in ("data.yaml", "classes.txt"))
    read = read_annotations(root, CELL_TYPES, None if has_names else CLASSES, must_occur=False)
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
    content = pd.Series(content_of(list(table["path"])), table.index)
    first = table["group"].groupby(content).transform("first")
    pairs = pd.DataFrame({"first": first, "second": table["group"]}).drop_duplicates()
    return list(table["group"].map(group_sources(pairs, table["group"])))


def _laboratory_of(root: Path, paths: pd.Series) -> str:
    # Here, since a run that deals images needs no table of what can be downloaded.
    from wbc_helpers.data.sources import SOURCES

    files = {Path(path).relative_to(root).as_posix() for path in paths}
    for source in SOURCES.values():
        if source.holds == "cells" and source.manifest:
            n_known = len(files & read_manifest(source.manifest).keys())
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


def of_photographs(read: Annotations) -> pd.DataFrame:
    """Say whose the photographs are, in which list they stand and which belong together.

    One row a photograph, those of `read.photographs` with four columns more. `laboratory`: see
    `LABORATORIES`; of another size, its own folder's name. `part`: the folder it is in, one of
    `PARTS`, or empty. `original` and `group`: see `originals`; `group` is its own name where
    no other photograph shows the same field.
    """
    table = read.photographs.copy()
    sizes = zip(table["width"], table["height"], strict=True)
    table["laboratory"] = [
        LABORATORIES.get(size, Path(path).parent.name)
        for size, path in zip(sizes, table["path"], strict=True)
    ]
    parts = [Path(path).parent.name for path in table["path"]]
    table["part"] = [part if part in PARTS else "" for part in parts]
    known = originals().reindex(table["photograph"])
    table["original"] = known["original"].fillna("").array
    table["group"] = known["group"].array
    table["group"] = table["group"].fillna(table["photograph"])
    return table


INCOMPLETE = {"Raabin": "Platelets"}
"""Kinds of which few are boxed in TXL-PBC, by laboratory: 28 in 500 photographs of Raabin."""


def read_boxed(folder: str | Path, classes: Sequence[str] | None = None) -> Annotations:
    """Read the boxes of a data set, and of TXL-PBC also whose photographs they lie in.

    `photographs` then have the columns of `of_photographs` and `incomplete`, the kinds of which
    people boxed only some, parted by spaces. `classes` and what is raised: see
    `annotations.read_annotations`.
    """
    read = read_annotations(folder, classes=classes)
    if not set(read.photographs["photograph"]) & set(originals().index):
        return read
    table = of_photographs(read)
    incomplete = table["laboratory"].map(INCOMPLETE).fillna("")
    return replace(read, photographs=table.assign(incomplete=incomplete))


def deal(boxed: Annotations, fraction: float = 1 / 8, seed: int = 0) -> pd.Series:
    """Deal the photographs of TXL-PBC, see `read_boxed`, those of one field together.

    Tested is on its own test list and on every copy of a photograph in BCCD's, and on what shows
    the same fields; `fraction` of the others validate. Returns as `split_photographs`.
    """
    table = boxed.photographs.set_index("photograph", drop=False)
    test = table.index[table["part"].eq("test") | in_own_test(table)]
    first = table.groupby("group")["photograph"].transform("first")
    pairs = pd.DataFrame({"first": first, "second": table["photograph"]})
    # By all boxes as published, or dropping double ones would deal other photographs elsewhere.
    twice = boxed.problems[boxed.problems["problem"] == "boxed twice"]
    twice = pd.DataFrame(
        {"photograph": twice["photograph"], "kind": twice["found"].str.split().str[0]}
    )
    boxed = replace(boxed, boxes=pd.concat([boxed.boxes.astype({"kind": str}), twice]))
    return split_photographs(boxed, pairs, fraction, seed, test)


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
