"""What the images of a data set really show: photographs, overlaps, leaks, labels, repeats.

`audit` works out from the pixels which photograph each image was made from, for the known data set
or any other that comes with its photographs. For the known one the answer ships with the package,
see `splits.shipped`.
"""

import csv
import gzip
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from wbc_helpers import cells, storage
from wbc_helpers.audit import overlaps
from wbc_helpers.audit.overlaps import find_overlaps, read_photographs
from wbc_helpers.data.catalog import find_images, photographs_folder
from wbc_helpers.data.sample import AFFINE
from wbc_helpers.data.splits import MATCH_COLUMNS, content_of, group_sources, shipped
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter
from wbc_helpers.pixels import images
from wbc_helpers.pixels.stain import find_nuclei

WHOLE = 0.99
"""Part of a nucleus, 0–1, from which on an image counts as showing all of it: where its edge lies
is no more certain than that."""


@dataclass(frozen=True, eq=False)
class AuditReport:
    """Everything that an audit finds; printed, it is a page of text.

    Attributes
    ----------
    images : DataFrame
        One row an image: the columns of `splits.shipped`, and `split` and `cell_type`.
    overlaps : DataFrame
        One row a pair of photographs, see `overlaps.find_overlaps`; with `first_split`,
        `second_split`, `first_cell_type`, `second_cell_type` of the images made from them (NA where
        none were), and `across` (bool): whether one is TRAIN's, the other TEST's.
    photographs : DataFrame
        Number of photographs by split and cell type, with totals `all`.
    n_photographs, unused, not_in_archive, two_white_cells
        Photographs in the archive: how many; from which no image was made; that `labels.csv` lists
        but the archive lacks; with two white cells, by their label or by their nuclei.
    repeated_files : tuple of tuple of str
        Files of the same content.
    label_conflicts : DataFrame
        Pairs of photographs that show the same white cell, and whose images lie in folders of
        different cell types: `first`, `first_cell_type`, `second`, `second_cell_type`. A photograph
        whose images lie in two folders is paired with itself.
    deviations : DataFrame or None
        Where this differs from the table in the package, see `compare`; None for other data.
    seconds : float
        Time the audit took.
    """

    images: pd.DataFrame
    overlaps: pd.DataFrame
    photographs: pd.DataFrame
    n_photographs: int
    unused: tuple[str, ...]
    not_in_archive: tuple[str, ...]
    two_white_cells: tuple[str, ...]
    repeated_files: tuple[tuple[str, ...], ...]
    label_conflicts: pd.DataFrame
    deviations: pd.DataFrame | None
    seconds: float

    @property
    def n_assigned(self) -> int:
        """Images whose photograph was found in the archive."""
        return int((self.images["source_id"].notna() & ~self._missing).sum())

    @property
    def _missing(self) -> pd.Series:
        """Whether an image's photograph is known to be missing."""
        return self.images["source_id"].str.startswith("missing_").fillna(False).astype(bool)

    @property
    def pairs_across(self) -> pd.DataFrame:
        """Overlapping photographs of which one is in TRAIN, the other in TEST."""
        return self.overlaps[self.overlaps["across"]]

    @property
    def test_images_with_train_cell(self) -> pd.DataFrame:
        """Images of TEST whose white cell TRAIN shows too."""
        return self.images[(self.images["split"] == "TEST") & self.images["cell_in_train"]]

    @property
    def test_images_with_train_group(self) -> pd.DataFrame:
        """Images of TEST whose photograph is in one group with a photograph of TRAIN."""
        groups = self.images.loc[self.images["split"] == "TRAIN", "group_id"].dropna()
        return self.images[(self.images["split"] == "TEST") & self.images["group_id"].isin(groups)]

    @property
    def images_without_whole_nucleus(self) -> pd.DataFrame:
        """Images in which the frame, or the photograph's, cuts the nucleus."""
        return self.images[~self.images["whole_nucleus"].fillna(True).astype(bool)]

    def __str__(self) -> str:
        """All numbers, on a page."""
        images = self.images
        n_images, across = len(images), self.pairs_across
        in_train, in_group = self.test_images_with_train_cell, self.test_images_with_train_group
        cut, shown = self.images_without_whole_nucleus, images["nucleus_shown"]
        by_image = shown < WHOLE
        missing = images.loc[self._missing, "source_id"].value_counts()
        lines = [
            f"Images assigned to a photograph   {self.n_assigned:,} of {n_images:,} "
            f"({self.n_assigned / n_images:.2%})",
            f"  ambiguous, not guessed          {int(images['ambiguous'].sum())}",
            f"  of photographs not there        {missing.sum()} images in {len(missing)} groups"
            + "".join(f"; {name}: {count}" for name, count in missing.items()),
            f"  unknown                         {int(images['source_id'].isna().sum())}",
            f"Photographs in the archive        {self.n_photographs} ({len(self.unused)} unused; "
            f"{len(self.not_in_archive)} labelled but missing; "
            f"{len(self.two_white_cells)} with two white cells)",
            "Photographs behind the images, by split and cell type",
            *("  " + line for line in self.photographs.to_string().splitlines()),
            f"Overlapping pairs                 {len(self.overlaps)} "
            f"({int(self.overlaps['same_cell'].sum())} show the same white cell)",
            f"  across TRAIN and TEST           {len(across)} "
            f"({int(across['same_cell'].sum())} show the same white cell)",
            *(f"    {_pair(pair)}" for pair in across.itertuples()),
            f"TEST images whose cell TRAIN shows  {len(in_train)} of "
            f"{in_train['source_id'].nunique()} photographs",
            f"TEST images in a group with TRAIN   {len(in_group)} of "
            f"{in_group['source_id'].nunique()} photographs",
            f"Label conflicts on one cell       {len(self.label_conflicts)}",
            *(
                f"    {first} {first_type} – {second} {second_type}"
                for first, first_type, second, second_type in self.label_conflicts.to_numpy()
            ),
            f"Repeated files                    {len(self.repeated_files)}",
            *(f"    {' = '.join(files)}" for files in self.repeated_files),
            f"Images without a whole nucleus    {len(cut):,}",
            f"  cut by the augmentation         {by_image.sum():,} ({(shown < 0.5).sum()} show "
            f"less than half of what the photograph shows, {(shown == 0).sum()} nothing)",
            f"  by the photograph's frame only  {len(cut) - by_image.sum():,}",
            f"  not judged                      {shown.isna().sum()}",
            f"Table in the package              {self._agreement()}",
            f"Seconds                           {self.seconds:.0f}",
        ]
        return "\n".join(lines)

    def _agreement(self) -> str:
        """Say whether the table in the package comes out again."""
        if self.deviations is None:
            return "describes another data set"
        if self.deviations.empty:
            return "agrees on every image"
        files = ", ".join(self.deviations["file"].head(5))
        return f"differs on {len(self.deviations)} images: {files}"


def _pair(pair: Any) -> str:
    """Say in a line which two photographs overlap, and by how much."""
    what = "same white cell" if pair.same_cell else "same field"
    return (
        f"{pair.first} ({pair.first_split}) – {pair.second} ({pair.second_split}): {what}, "
        f"{pair.shared:.0%} shared"
    )


def require_photographs(catalog: pd.DataFrame) -> None:
    """Refuse (DataNotFound) images, see `splits.add_provenance`, of unknown photographs."""
    n_unknown = int(catalog["source_id"].isna().sum())
    if n_unknown:
        raise DataNotFound(
            f"Of {n_unknown:,} of {len(catalog):,} images it is not known which photographs they "
            "were made from. Expected the published blood-cells data or the drawn sample; other "
            "data with photographs are audited by `wbc audit --source FOLDER`."
        )


def audit(folder: str | Path, progress: bool = True) -> AuditReport:
    """Find out from the pixels what the images of a data set, with its photographs, show.

    Raises `DataNotFound` if either are not there, `DataMismatch` if a class folder is missing,
    empty or unknown, `UnreadableImage` if an image or a photograph is not complete.
    """
    begun = time.monotonic()
    catalog = find_images(folder)
    originals = photographs_folder(folder)
    if originals is None:
        raise DataNotFound(
            f"{folder} holds images but no photographs. Expected JPEGImages in it, as in the "
            "dataset-master part of the blood-cells archive: without the photographs, where the "
            "images come from cannot be worked out."
        )
    labels = _read_labels(originals / "labels.csv")
    photographs = read_photographs(originals, progress)
    table = assign_sources(catalog, photographs, progress)
    table = table.merge(catalog[["file", "split", "cell_type"]], on="file")
    pairs = find_overlaps(photographs, progress)
    groups = group_sources(pairs, {*photographs, *table["source_id"].dropna()})
    table["group_id"] = table["source_id"].map(groups).astype("string")
    nuclei = {name: find_nuclei(photograph) for name, photograph in photographs.items()}
    table = table.assign(**_judge_nuclei(table, nuclei))
    pairs = _describe_pairs(pairs, table)
    table["cell_in_train"] = _cell_in_train(table, pairs)
    table["content"] = content_of(list(catalog["path"]))
    published = shipped()
    return AuditReport(
        images=table,
        overlaps=pairs,
        photographs=_count_photographs(table),
        n_photographs=len(photographs),
        unused=tuple(name for name in photographs if name not in set(table["source_id"])),
        not_in_archive=tuple(name for name in labels if name not in photographs),
        two_white_cells=tuple(
            name for name in photographs if len(labels.get(name, ())) > 1 or nuclei[name].max() > 1
        ),
        repeated_files=tuple(
            tuple(files) for _, files in table.groupby("content")["file"] if len(files) > 1
        ),
        label_conflicts=_find_conflicts(table, pairs),
        deviations=(
            compare(table, published) if set(table["content"]) & set(published["content"]) else None
        ),
        seconds=time.monotonic() - begun,
    )


def _judge_nuclei(table: pd.DataFrame, nuclei: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Part of the nucleus that each image shows, and whether it shows the nucleus whole."""
    places, cut = {}, {}
    for name, labelled in nuclei.items():
        y, x = np.nonzero(labelled)
        places[name] = np.stack([x, y, np.ones_like(x)]).astype(float)
        edges = (labelled[0], labelled[-1], labelled[:, 0], labelled[:, -1])
        cut[name] = any(edge.any() for edge in edges)
    frames = {name: labelled.shape[::-1] for name, labelled in nuclei.items()}
    shown = []
    for name, affine in zip(table["source_id"], table[AFFINE].to_numpy(float), strict=True):
        place = places.get(name) if isinstance(name, str) else None
        if place is None or not place.size:
            shown.append(np.nan)
            continue
        x, y = affine.reshape(2, 3) @ place
        width, height = frames[name]
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        shown.append(round(float(inside.mean()), 3))
    whole = [
        pd.NA if np.isnan(part) else bool(part >= WHOLE and not cut[name])
        for name, part in zip(table["source_id"], shown, strict=True)
    ]
    return {"nucleus_shown": shown, "whole_nucleus": pd.array(whole, dtype="boolean")}


def _describe_pairs(pairs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Add the split and the cell type of the images made from each photograph."""
    made = table[table["split"] != "TEST_SIMPLE"].drop_duplicates("source_id")
    made = made.set_index("source_id")
    pairs = pairs.copy()
    for side in ("first", "second"):
        for what in ("split", "cell_type"):
            pairs[f"{side}_{what}"] = pairs[side].map(made[what].astype("string"))
    splits = pairs[["first_split", "second_split"]].fillna("")
    pairs["across"] = [set(pair) == {"TRAIN", "TEST"} for pair in splits.to_numpy()]
    return pairs.astype({"across": bool})


def _cell_in_train(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Whether TRAIN shows the white cell of an image of another split."""
    is_train = table["split"] == "TRAIN"
    in_train = set(table.loc[is_train, "source_id"].dropna())
    same = pairs[pairs["same_cell"]]
    shown = in_train | {*same.loc[same["first"].isin(in_train), "second"]}
    shown |= {*same.loc[same["second"].isin(in_train), "first"]}
    return (table["source_id"].isin(shown) & ~is_train).astype("boolean")


def _count_photographs(table: pd.DataFrame) -> pd.DataFrame:
    """Count the photographs behind the images, by split and cell type."""
    distinct = table.dropna(subset="source_id").drop_duplicates(["split", "source_id", "cell_type"])
    return pd.crosstab(
        distinct["split"], distinct["cell_type"], margins=True, margins_name="all", dropna=False
    ).drop(index="all")


def _find_conflicts(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Different cell types for one white cell."""
    columns = ["first", "first_cell_type", "second", "second_cell_type"]
    differ = pairs["same_cell"] & (pairs["first_cell_type"] != pairs["second_cell_type"]).fillna(
        False
    )
    types = table.dropna(subset="source_id").groupby("source_id")["cell_type"].unique()
    twice = [
        (name, str(first), name, str(other))
        for name, (first, *others) in types.items()
        for other in others
    ]
    return pd.concat(
        [pairs.loc[differ, columns], pd.DataFrame(twice, columns=columns)], ignore_index=True
    )


def _read_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """Cell types that `labels.csv` gives each photograph; empty if there is no such file."""
    try:
        lines = storage.read_text(path).splitlines()
        # Spreadsheets part columns by semicolons where a comma stands in numbers.
        by = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
        rows = list(csv.reader(lines, delimiter=by))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise DataMismatch(f"{path} cannot be read as a table ({error}). {_LABELS}") from error
    head, rows = rows[:1], [row for row in rows if len(row) > 2 and row[1].strip().isdecimal()]
    if head and not rows:
        raise DataMismatch(f"{path} labels nothing; it begins with {head[0]}. {_LABELS}")
    twice = [number for number, n in Counter(int(row[1]) for row in rows).items() if n > 1]
    if twice:
        raise DataMismatch(f"{path} labels photograph {twice[0]} more than once. {_LABELS}")
    return {
        f"BloodImage_{int(row[1]):05d}": tuple(
            cells.BY_FOLDER[part.strip()].name if part.strip() in cells.BY_FOLDER
            else part.strip().lower()
            for part in ",".join(row[2:]).split(",")
            if part.strip()
        )
        for row in rows
    }  # fmt: skip


_LABELS = (
    "Expected a row a photograph: anything, its number, its cell types, such as 0,12,NEUTROPHIL; "
    "mend the file, or move it away."
)


def save(report: AuditReport, folder: str | Path) -> None:
    """Write the two tables of an audit, `provenance.csv.gz` and `overlaps.csv`, to a folder.

    Groups and digests are left out: they follow from the pairs and the files.
    """
    folder = storage.make_folder(folder)
    table = report.images.drop(columns=["split", "cell_type", "content", "group_id"])
    # As fine as the evidence is; the rest would only not compress.
    digits = dict.fromkeys(AFFINE, 3) | dict.fromkeys(["m02", "m12", "residual"], 1)
    table = table.round(digits | {"runner_up_residual": 0, "nucleus_shown": 2})
    leading = ["file", "source_id"]
    table = table[[*leading, *(name for name in table if name not in leading)]]
    with storage.atomic_file(folder / "provenance.csv.gz") as partial:
        # Not pandas' own compression, which notes the temporary file's name.
        partial.write_bytes(gzip.compress(table.to_csv(index=False).encode(), mtime=0))
    with storage.atomic_file(folder / "overlaps.csv") as partial:
        report.overlaps.to_csv(partial, index=False)


# The photograph behind each image

RIVAL_INLIERS = 12
"""A second photograph on which so many features agree shows the same field, and how well its
pixels explain the image is compared."""

CLEAR_MARGIN = 1.5
"""Factor by which every other residual must exceed the best one's; else the image is ambiguous.
In the known data set it is at least 2.1, between two photographs one pixel apart, and 32 in the
median."""

MOST_UNKNOWN = 2_000
"""Images without a photograph that are still compared with each other."""


def assign_sources(
    catalog: pd.DataFrame, photographs: Mapping[str, np.ndarray], progress: bool = True
) -> pd.DataFrame:
    """Find the photograph that each image of a catalog was made from, by content alone.

    A photograph, see `overlaps.read_photographs`, counts as found when `overlaps.MIN_INLIERS`
    features agree on one affine map. Of several, which happens where photographs overlap, the one
    whose pixels and edges explain the image best is taken; if none stands out, the image is marked
    ambiguous and gets no source. Images that no photograph explains are compared with each other,
    and those that show one field become a group `missing_1`, `missing_2`, … : a photograph that is
    not there.

    Returns one row an image, in the catalog's order: `file`; `source_id` (NA where ambiguous or
    unknown); `inliers` and `residual` (grey levels) of the best photograph, or, in a group of a
    missing one, `inliers` with another image of it; the same of the runner-up, with `runner_up_id`;
    the map `AFFINE` (NaN where there is no photograph); `ambiguous`.
    """
    names = list(photographs)
    pictures = [photographs[name] for name in names]
    paths = list(catalog["path"])
    with _one_thread_each():
        index = overlaps.PictureIndex(pictures)
        matched = overlaps.in_threads(
            lambda path: _assign_one(path, index, names, pictures), paths, "images", progress
        )
        table = pd.DataFrame(matched, columns=list(MATCH_COLUMNS)).astype(MATCH_COLUMNS)
        table.insert(0, "file", catalog["file"].to_numpy())
        unknown = np.flatnonzero(table["source_id"].isna() & ~table["ambiguous"])
        if 1 < len(unknown) <= MOST_UNKNOWN:
            groups = _match_each_other([paths[i] for i in unknown], progress)
            for number, members in enumerate(groups, start=1):
                rows = unknown[list(members)]
                table.loc[rows, "source_id"] = f"missing_{number}"
                table.loc[rows, "inliers"] = list(members.values())
    return table


def _assign_one(
    path: str, index: overlaps.PictureIndex, names: list[str], pictures: list[np.ndarray]
) -> tuple:
    """One image's values of `MATCH_COLUMNS`."""
    image = images.read_image(path)
    matches = index.find(overlaps.find_features(image))
    if not matches:
        return (None, 0, np.nan, None, 0, np.nan, *[np.nan] * 6, False)
    rivals = [match for match in matches if match.inliers >= RIVAL_INLIERS] or matches[:1]
    refined = {
        match.picture: overlaps.refine_affine(pictures[match.picture], image, match.affine)
        for match in rivals
    }
    residuals = {picture: residual for picture, (_, residual) in refined.items()}
    best, *others = sorted(
        matches, key=lambda match: (residuals.get(match.picture, np.inf), -match.inliers)
    )
    second: tuple[str | None, int, float] = (None, 0, np.nan)
    if others:
        other = max(others, key=lambda match: match.inliers)
        second = (names[other.picture], other.inliers, residuals.get(other.picture, np.nan))
    least = residuals[best.picture]
    is_sure = best.inliers >= overlaps.MIN_INLIERS
    ambiguous = is_sure and any(
        residuals.get(other.picture, np.inf) < CLEAR_MARGIN * least for other in others
    )
    source = names[best.picture] if is_sure and not ambiguous else None
    affine = refined[best.picture][0].ravel() if is_sure else [np.nan] * 6
    return (source, best.inliers, least if is_sure else np.nan, *second, *affine, ambiguous)


def _match_each_other(paths: list[str], progress: bool) -> list[dict[int, int]]:
    """Group images that show one field: the number of each, and its inliers."""
    pixels = [images.read_image(path) for path in paths]
    index = overlaps.PictureIndex(pixels)

    # Groups are of names, in whose order they come.
    names = [f"{number:06}" for number in range(len(paths))]

    def find_others(i: int) -> list[tuple[str, str, int]]:
        matches = index.find(overlaps.find_features(pixels[i]), n_candidates=8, without=i)
        sure = [match for match in matches if match.inliers >= overlaps.MIN_INLIERS]
        return [(names[i], names[match.picture], match.inliers) for match in sure]

    pairs = overlaps.in_threads(find_others, range(len(paths)), "without a photograph", progress)
    links = pd.DataFrame(itertools.chain(*pairs), columns=["first", "second", "inliers"])
    both = pd.concat([links, links.rename(columns={"first": "second", "second": "first"})])
    most = both.groupby("first")["inliers"].max()
    group = group_sources(links, names)[most.index]
    return [
        {int(i): int(most[i]) for i in members} for members in group.groupby(group).groups.values()
    ]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own beside ours."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def compare(recomputed: pd.DataFrame, expected: pd.DataFrame) -> pd.DataFrame:
    """Compare two tables of provenance, such as a new one and `splits.shipped`.

    One row for each image on which they differ, with `displacement`: farthest distance, in pixels,
    by which the two maps move a corner of a 320×240 photograph apart. Maps differ if that exceeds
    `overlaps.TOLERANCE`, with which they are fitted.

    Raises `InvalidParameter` if a table lacks a column or lists a file twice, `DataMismatch` if the
    tables have no file in common.
    """
    columns = ["file", "source_id", "group_id", *AFFINE]
    for table in (recomputed, expected):
        lacking = [name for name in columns if name not in table]
        if lacking or table["file"].duplicated().any():
            raise InvalidParameter(
                f"A table of provenance lacks the columns {lacking} or lists a file twice. "
                "Expected one row an image with the columns of splits.shipped()."
            )
    both = recomputed[columns].merge(
        expected[columns].add_prefix("expected_"), left_on="file", right_on="expected_file",
        how="outer",
    )  # fmt: skip
    if both[["file", "expected_file"]].notna().all(axis=1).sum() == 0:
        raise DataMismatch(
            f"The two tables ({len(recomputed)} and {len(expected)} images) share no file name. "
            "Expected two descriptions of one data set."
        )
    corners = np.array([[0, 0, 1], [319, 0, 1], [0, 239, 1], [319, 239, 1]]).T
    apart = both[AFFINE].to_numpy(float) - both[[f"expected_{m}" for m in AFFINE]].to_numpy(float)
    moved = np.linalg.norm(apart.reshape(-1, 2, 3) @ corners, axis=1).max(axis=1)
    both["displacement"] = moved
    differs = np.nan_to_num(moved) > overlaps.TOLERANCE
    for name in ("file", "source_id", "group_id"):
        differs |= both[name].fillna("").ne(both[f"expected_{name}"].fillna("")).to_numpy()
    both["file"] = both["file"].fillna(both["expected_file"])
    names = ["file", "source_id", "group_id", "expected_source_id", "expected_group_id"]
    return both.loc[differs, [*names, "displacement"]].reset_index(drop=True)
