"""Which photographs of smears train, validate and test a detector.

Photographs of one field show the same cells. Where one of them trains and the other tests, the
score says how well cells are recognised that were seen before: such photographs stay together
here, as `overlaps` finds them. The lists that come with the BCCD data set do not: of the 47 pairs
of its photographs that overlap, they part 32, and 22 of those show the same white cell; 15 pairs
have one photograph in its test list and the other outside.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from wbc_helpers import identity, overlaps, provenance, sample
from wbc_helpers.annotations import Annotations
from wbc_helpers.catalog import IMAGE_SUFFIXES, grouped_folds
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter
from wbc_helpers.smear_identity import smears_folder

PARTS = ("train", "val", "test")


def read_lists(folder: str | Path) -> pd.Series:
    """Read the lists of photographs that come with a data set.

    Parameters
    ----------
    folder : path
        As `smear_sources.fetch_smears` returns it.

    Returns
    -------
    Series of str
        `PARTS` by photograph, in the order of names; those in no list are not in it.

    Raises
    ------
    DataNotFound
        If there are no lists.
    DataMismatch
        If a list names a photograph that is not there, or two name the same one.
    """
    root = smears_folder(folder)
    files = {part: root / "ImageSets" / "Main" / f"{part}.txt" for part in PARTS}
    if absent := [file.name for file in files.values() if not file.is_file()]:
        raise DataNotFound(
            f"{root} has no list {', '.join(absent)} in ImageSets/Main. Expected train.txt, "
            "val.txt and test.txt, a name a line; or deal the photographs yourself, see "
            "smear_splits.split_photographs."
        )
    listed = pd.Series(
        {part: file.read_text(encoding="utf-8").split() for part, file in files.items()}
    ).explode()
    listed = pd.Series(listed.index, index=listed.array, name="part").rename_axis("photograph")
    there = {path.stem for path in _photographs(root)}
    twice = listed.index[listed.index.duplicated()]
    unknown = [name for name in listed.index if name not in there]
    if len(twice) or unknown:
        raise DataMismatch(
            f"The lists in {root / 'ImageSets'} name {len(twice)} photographs twice "
            f"({', '.join(twice[:5])}) and {len(unknown)} that are not there "
            f"({', '.join(unknown[:5])}). Expected each photograph at most once; mend the lists, "
            "or deal the photographs yourself, see smear_splits.split_photographs."
        )
    return listed.sort_index()


def _photographs(root: Path) -> list[Path]:
    return sorted(
        path
        for path in (root / "JPEGImages").iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def find_pairs(folder: str | Path, progress: bool = True, workers: int = 2) -> pd.DataFrame:
    """Pairs of photographs that show a part of the same field.

    Of drawn smears they are known by construction, of the BCCD photographs from the table in the
    package, by content; of any others they are worked out from the pixels.

    Parameters
    ----------
    folder : path
        As `smear_sources.fetch_smears` returns it.
    progress : bool
        Show progress bars.
    workers : int
        Threads.

    Returns
    -------
    DataFrame
        One row a pair: `first`, `second`, `same_cell` (bool; whether they show the same white
        cell), and where measured more, see `overlaps.find_overlaps`.

    Raises
    ------
    DataNotFound, UnreadableImage
        See `overlaps.read_photographs`.
    """
    root = smears_folder(folder)
    drawn = next((place for place in [root, *root.parents][:4] if sample.is_sample(place)), None)
    if drawn is not None:
        about = json.loads((drawn / "sample.json").read_text(encoding="utf-8"))
        pairs = [pair["photographs"] for pair in about["overlaps"]]
        # Its fields are photographed twice so that both show the white cell.
        return pd.DataFrame(pairs, columns=["first", "second"]).assign(same_cell=True)
    published = identity.read_manifest(identity.MANIFEST)
    digests = identity.digest_files(root, ["JPEGImages"], progress=False)
    if all(published.get(file) == digest[:16] for file, digest in digests.items()):
        names = {Path(file).stem for file in digests}
        pairs = provenance.shipped_overlaps()
        return pairs[pairs["first"].isin(names) & pairs["second"].isin(names)].reset_index(
            drop=True
        )
    return overlaps.find_overlaps(overlaps.read_photographs(root, progress), progress, workers)


def parted_pairs(pairs: pd.DataFrame, parts: pd.Series) -> pd.DataFrame:
    """Overlapping photographs of which a split puts one here, the other there.

    Parameters
    ----------
    pairs : DataFrame
        See `find_pairs`.
    parts : Series of str
        Part by photograph, see `read_lists`. Photographs in none are passed over.

    Returns
    -------
    DataFrame
        Those rows of `pairs`, with `first_part` and `second_part`; none for a split that keeps
        overlapping photographs together.
    """
    sides = {f"{side}_part": pairs[side].map(parts) for side in ("first", "second")}
    both = pairs.assign(**sides)
    known = both["first_part"].notna() & both["second_part"].notna()
    return both[known & (both["first_part"] != both["second_part"])].reset_index(drop=True)


def split_photographs(
    annotations: Annotations,
    pairs: pd.DataFrame,
    fraction: float = 0.2,
    seed: int = 0,
    test: Iterable[str] = (),
) -> pd.Series:
    """Deal photographs to training, validation and test, overlapping ones together.

    Parameters
    ----------
    annotations : Annotations
        See `annotations.read_annotations`.
    pairs : DataFrame
        See `find_pairs`.
    fraction : float
        Part for validation, and as much for the test: the nearest of 1/3, 1/4, 1/5, …
    seed : int
        Seed of the shuffle.
    test : iterable of str
        Photographs to test on, such as those that a classifier did not see; those that overlap
        them are added, and the others dealt to training and validation. None deals all.

    Returns
    -------
    Series of str
        `PARTS` by photograph, in the order of `annotations.photographs`: as alike in their
        numbers of photographs and of cells of each kind as the groups allow.

    Raises
    ------
    InvalidParameter
        If the fraction is not usable, a test photograph is not annotated, or there are too few
        groups.
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
    groups = overlaps.group_sources(pairs, names)
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
