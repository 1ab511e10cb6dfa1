"""What the images of a data set really show: photographs, overlaps, leaks, labels, repeats."""

import argparse
import csv
import gzip
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from wbc_helpers import cells, provenance, sources, storage
from wbc_helpers.catalog import find_images, photographs_folder
from wbc_helpers.errors import DataNotFound
from wbc_helpers.overlaps import find_overlaps, group_sources, read_photographs
from wbc_helpers.provenance import AFFINE
from wbc_helpers.white_cells import find_nuclei

WHOLE = 0.99
"""Part of a nucleus, 0–1, from which on an image counts as showing all of it: where its edge lies
is no more certain than that."""


@dataclass(frozen=True, eq=False)
class AuditReport:
    """Everything that an audit found; printed, it is a page of text.

    Attributes
    ----------
    images : DataFrame
        One row an image: the columns of `provenance.shipped`, and `split` and `cell_type`.
    overlaps : DataFrame
        One row a pair of photographs, as `overlaps.find_overlaps` finds them; with
        `first_split`, `second_split`, `first_cell_type`, `second_cell_type` of the images made
        from them (NA where none were), and `across` (bool): whether one is TRAIN's, the other
        TEST's.
    photographs : DataFrame
        Number of photographs by split and cell type, with totals `all`.
    n_photographs : int
        Photographs in the archive.
    unused : tuple of str
        Photographs from which no image was made.
    not_in_archive : tuple of str
        Photographs that `labels.csv` lists but the archive lacks.
    two_white_cells : tuple of str
        Photographs with two white cells, by their label or by their nuclei.
    repeated_files : tuple of tuple of str
        Files of the same content.
    label_conflicts : DataFrame
        Pairs of photographs that show the same white cell, and whose images lie in folders of
        different cell types: `first`, `first_cell_type`, `second`, `second_cell_type`. A
        photograph whose images lie in two folders is paired with itself.
    deviations : DataFrame or None
        Where this differs from the table in the package, see `provenance.compare`; None if
        these are other data.
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
                f"    {row.first} {row.first_cell_type} – {row.second} {row.second_cell_type}"
                for row in self.label_conflicts.itertuples()
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
        if self.deviations is None:
            return "describes another data set"
        if self.deviations.empty:
            return "agrees on every image"
        files = ", ".join(self.deviations["file"].head(5))
        return f"differs on {len(self.deviations)} images: {files}"


def _pair(pair: tuple) -> str:
    what = "same white cell" if pair.same_cell else "same field"
    return (
        f"{pair.first} ({pair.first_split}) – {pair.second} ({pair.second_split}): {what}, "
        f"{pair.shared:.0%} shared"
    )


def require_photographs(catalog: pd.DataFrame) -> None:
    """Refuse images of which it is not known which photographs they were made from.

    Parameters
    ----------
    catalog : DataFrame
        With `source_id`, see `provenance.add_provenance`.

    Raises
    ------
    DataNotFound
        If the photograph of any image is unknown.
    """
    n_unknown = int(catalog["source_id"].isna().sum())
    if n_unknown:
        raise DataNotFound(
            f"Of {n_unknown:,} of {len(catalog):,} images it is not known which photographs they "
            "were made from. Expected the published blood-cells data or the drawn sample; other "
            "data with photographs are audited by `python -m wbc_helpers.audit --source FOLDER`."
        )


def audit(folder: str | Path, progress: bool = True, workers: int = 2) -> AuditReport:
    """Find out from the pixels what the images of a data set show.

    Parameters
    ----------
    folder : path
        Of the data set, with its photographs.
    progress : bool
        Show progress bars.
    workers : int
        Threads.

    Returns
    -------
    AuditReport

    Raises
    ------
    DataNotFound
        If the images or the photographs are not there.
    DataMismatch
        If a class folder is missing, empty or unknown.
    UnreadableImage
        If an image or a photograph is not complete.
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
    photographs = read_photographs(originals, progress)
    table = provenance.assign_sources(catalog, photographs, progress, workers)
    table = table.merge(catalog[["file", "split", "cell_type"]], on="file")
    pairs = find_overlaps(photographs, progress, workers)
    groups = group_sources(pairs, {*photographs, *table["source_id"].dropna()})
    table["group_id"] = table["source_id"].map(groups).astype("string")
    nuclei = {name: find_nuclei(photograph) for name, photograph in photographs.items()}
    table = table.assign(**_judge_nuclei(table, nuclei))
    pairs = _describe_pairs(pairs, table)
    table["cell_in_train"] = _cell_in_train(table, pairs)
    table["content"] = provenance.content_of(list(catalog["path"]))
    labels = _read_labels(originals / "labels.csv")
    shipped = provenance.shipped()
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
            provenance.compare(table, shipped)
            if set(table["content"]) & set(shipped["content"])
            else None
        ),
        seconds=time.monotonic() - begun,
    )


def _judge_nuclei(table: pd.DataFrame, nuclei: Mapping[str, np.ndarray]) -> dict[str, list]:
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
        known = places.get(name) if isinstance(name, str) else None
        if known is None or not known.size:
            shown.append(np.nan)
            continue
        x, y = affine.reshape(2, 3) @ known
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
    described = pairs.copy()
    for side in ("first", "second"):
        for what in ("split", "cell_type"):
            described[f"{side}_{what}"] = described[side].map(made[what].astype("string"))
    splits = described[["first_split", "second_split"]].fillna("")
    described["across"] = [set(pair) == {"TRAIN", "TEST"} for pair in splits.to_numpy()]
    return described.astype({"across": bool})


def _cell_in_train(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Whether TRAIN shows the white cell of an image of another split."""
    is_train = table["split"] == "TRAIN"
    in_train = set(table.loc[is_train, "source_id"].dropna())
    same = pairs[pairs["same_cell"]]
    shown = {second for first, second in zip(same["first"], same["second"], strict=True)
             if first in in_train}  # fmt: skip
    shown |= {first for first, second in zip(same["first"], same["second"], strict=True)
              if second in in_train}  # fmt: skip
    return (table["source_id"].isin(shown | in_train) & ~is_train).astype("boolean")


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
        (name, str(found[0]), name, str(other))
        for name, found in types.items()
        for other in found[1:]
    ]
    return pd.concat(
        [pairs.loc[differ, columns], pd.DataFrame(twice, columns=columns)], ignore_index=True
    )


def _read_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """Cell types that `labels.csv` gives each photograph; empty if there is no such file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = [row for row in csv.reader(lines) if len(row) > 2 and row[1].strip().isdigit()]
    return {
        f"BloodImage_{int(row[1]):05d}": tuple(
            cells.BY_FOLDER[part.strip()].name if part.strip() in cells.BY_FOLDER
            else part.strip().lower()
            for part in ",".join(row[2:]).split(",")
            if part.strip()
        )
        for row in rows
    }  # fmt: skip


def save(report: AuditReport, folder: str | Path) -> None:
    """Write the two tables of an audit, `provenance.csv.gz` and `overlaps.csv`.

    Groups and digests are left out: they follow from the pairs and the files.

    Parameters
    ----------
    report : AuditReport
        Of any data set.
    folder : path
        Made if needed.

    Raises
    ------
    NoSpaceLeft, ReadOnlyFolder
        If they cannot be written.
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


def main(arguments: list[str] | None = None) -> None:
    """Fetch a data set if need be, audit it and print the report."""
    parser = argparse.ArgumentParser(prog="python -m wbc_helpers.audit", description=__doc__)
    parser.add_argument("--source", default="auto", help="as for sources.fetch")
    parser.add_argument("--data-dir", default="data", help="folder of the data")
    parser.add_argument("--save", metavar="FOLDER", help="write the tables there, too")
    chosen = parser.parse_args(arguments)
    report = audit(sources.fetch(chosen.source, data_dir=chosen.data_dir))
    print(report)
    if chosen.save:
        save(report, chosen.save)


if __name__ == "__main__":
    main()
