"""Which photograph each image was made from.

For the known data set the answer ships with the package (`shipped`), and `add_provenance` puts it
into a catalog. `assign_sources` works it out from the pixels, for that data set or any other
that comes with its photographs.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers import images, matching, sample
from wbc_helpers.errors import DataMismatch, InvalidParameter, UnreadableImage
from wbc_helpers.overlaps import group_sources

AFFINE = ["m00", "m01", "m02", "m10", "m11", "m12"]
"""Columns of the affine map from the photograph at half size to the image: an image's
x = m00 · X + m01 · Y + m02 and y = m10 · X + m11 · Y + m12, in pixels, (0, 0) the centre of
the upper left pixel."""

RIVAL_INLIERS = 12
"""A second photograph on which so many features agree shows the same field, and how well its
pixels explain the image is compared."""

CLEAR_MARGIN = 1.5
"""Factor by which every other residual must exceed the best one's; else the image is ambiguous.
In the known data set it is at least 2.1, between two photographs one pixel apart, and 32 in the
median."""

MOST_UNKNOWN = 2_000
"""Images without a photograph that are still compared with each other."""

_MATCH_COLUMNS = {
    "source_id": "string",
    "inliers": "int64",
    "residual": "float64",
    "runner_up_id": "string",
    "runner_up_inliers": "int64",
    "runner_up_residual": "float64",
    **dict.fromkeys(AFFINE, "float64"),
    "ambiguous": "boolean",
}
_CONTENT_DIGITS = 16


def assign_sources(
    catalog: pd.DataFrame,
    photographs: Mapping[str, np.ndarray],
    progress: bool = True,
    workers: int = 2,
) -> pd.DataFrame:
    """Find the photograph that each image was made from, by content alone.

    A photograph counts as found when `matching.MIN_INLIERS` features agree on one affine map. Of
    several, which happens where photographs overlap, the one whose pixels and edges explain the
    image best is taken; if none stands out, the image is marked ambiguous and gets no source.
    Images that no photograph explains are compared with each other, and those that show one
    field become a group `missing_1`, `missing_2`, … : a photograph that is not there.

    Parameters
    ----------
    catalog : DataFrame
        With columns `path` and `file`.
    photographs : mapping of str to (height, width, 3) uint8 ndarray
        RGB at half size, see `overlaps.read_photographs`.
    progress : bool
        Show a progress bar.
    workers : int
        Threads.

    Returns
    -------
    DataFrame
        One row an image, in the catalog's order. `file`; `source_id` (NA where ambiguous or
        unknown); `inliers` and `residual` (grey levels) of the best photograph, or, in a group
        of a missing one, `inliers` with another image of it; the same of the runner-up, with
        `runner_up_id`; the map `AFFINE` (NaN where there is no photograph); `ambiguous`.

    Raises
    ------
    UnreadableImage
        If an image is not complete; the message names it.
    """
    names = list(photographs)
    pictures = [photographs[name] for name in names]
    paths = list(catalog["path"])
    with _one_thread_each():
        index = matching.PictureIndex(pictures)
        rows = _in_threads(
            lambda path: _assign_one(path, index, names, pictures),
            paths, workers, "images", progress,
        )  # fmt: skip
        table = pd.DataFrame(rows, columns=list(_MATCH_COLUMNS)).astype(_MATCH_COLUMNS)
        table.insert(0, "file", catalog["file"].to_numpy())
        unknown = np.flatnonzero(table["source_id"].isna() & ~table["ambiguous"])
        if 1 < len(unknown) <= MOST_UNKNOWN:
            groups = _match_each_other([paths[i] for i in unknown], workers, progress)
            for number, members in enumerate(groups, start=1):
                for member, inliers in members.items():
                    table.loc[unknown[member], ["source_id", "inliers"]] = [
                        f"missing_{number}", inliers,
                    ]  # fmt: skip
    return table


def _assign_one(
    path: str, index: matching.PictureIndex, names: list[str], pictures: list[np.ndarray]
) -> tuple:
    """One image's values of `_MATCH_COLUMNS`."""
    image = images.read_image(path)
    matches = index.find(matching.find_features(image))
    if not matches:
        return (None, 0, np.nan, None, 0, np.nan, *[np.nan] * 6, False)
    rivals = [match for match in matches if match.inliers >= RIVAL_INLIERS] or matches[:1]
    refined = {
        match.picture: matching.refine_affine(pictures[match.picture], image, match.affine)
        for match in rivals
    }
    residuals = {picture: residual for picture, (_, residual) in refined.items()}
    best, *others = sorted(
        matches, key=lambda match: (residuals.get(match.picture, np.inf), -match.inliers)
    )
    second = (None, 0, np.nan)
    if others:
        other = max(others, key=lambda match: match.inliers)
        second = (names[other.picture], other.inliers, residuals.get(other.picture, np.nan))
    least = residuals[best.picture]
    found = best.inliers >= matching.MIN_INLIERS
    ambiguous = found and any(
        residuals.get(other.picture, np.inf) < CLEAR_MARGIN * least for other in others
    )
    source = names[best.picture] if found and not ambiguous else None
    affine = refined[best.picture][0].ravel() if found else [np.nan] * 6
    return (source, best.inliers, least if found else np.nan, *second, *affine, ambiguous)


def _match_each_other(paths: list[str], workers: int, progress: bool) -> list[dict[int, int]]:
    """Group images that show one field: the number of each, and its inliers."""
    pixels = [images.read_image(path) for path in paths]
    index = matching.PictureIndex(pixels)

    def find_others(i: int) -> list[tuple[int, int, int]]:
        found = index.find(matching.find_features(pixels[i]), n_candidates=8, without=i)
        return [(i, m.picture, m.inliers) for m in found if m.inliers >= matching.MIN_INLIERS]

    pairs = _in_threads(find_others, range(len(paths)), workers, "without a photograph", progress)
    links = pd.DataFrame(itertools.chain(*pairs), columns=["first", "second", "inliers"])
    both = pd.concat([links, links.rename(columns={"first": "second", "second": "first"})])
    most = both.groupby("first")["inliers"].max()
    group = group_sources(links, range(len(paths)))[most.index]
    return [
        {int(i): int(most[i]) for i in members} for members in group.groupby(group).groups.values()
    ]


def _in_threads(
    work: Callable, tasks: list | range, workers: int, what: str, progress: bool
) -> list:
    # OpenCV and Pillow release Python's lock while they work.
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(work, tasks)
        return list(tqdm(results, total=len(tasks), desc=what, unit="image", disable=not progress))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own beside ours."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


# What ships with the package


def shipped() -> pd.DataFrame:
    """Provenance of the 12,515 images of the Kaggle data set `paultimothymooney/blood-cells`.

    Worked out from the pixels by `audit.audit`; `make audit` does it again and compares.

    Returns
    -------
    DataFrame
        One row an image, ordered like the catalog. `file`: relative to the images folder.
        `content`:
        first 16 hexadecimal digits of the file's SHA-256. `source_id`: the
        photograph, such as `BloodImage_00012`; `missing_1` for the 15 images of a photograph that
        is not in the archive (by `labels.csv` it can only be `BloodImage_00280`, the one
        labelled neutrophil that is not there). `group_id`: first name of the group of
        photographs that overlap.
        `inliers`, `residual`, `runner_up_id`, `runner_up_inliers`, `runner_up_residual`, `AFFINE`
        and `ambiguous`: see `assign_sources`. `nucleus_shown`: part of the nucleus that the
        image shows, 0–1, counting what the photograph shows; `whole_nucleus`: whether nothing of
        it is cut off, by the image or by the photograph. `cell_in_train` (bool): for TEST and
        TEST_SIMPLE, whether TRAIN shows the same white cell; False for TRAIN.
    """
    types = {
        **_MATCH_COLUMNS,
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
    """Pairs of photographs of the known data set that show a part of the same field.

    Returns
    -------
    DataFrame
        One row a pair, see `overlaps.find_overlaps`.
    """
    with resources.as_file(_shipped_file("overlaps.csv")) as path:
        return pd.read_csv(path, dtype={"first": "string", "second": "string"})


def _shipped_file(name: str) -> resources.abc.Traversable:
    return resources.files("wbc_helpers") / "manifests" / name


def content_of(paths: list[str]) -> list[str]:
    """First 16 hexadecimal digits of the SHA-256 of each file.

    Raises
    ------
    UnreadableImage
        If a file cannot be read.
    """

    def digest(path: str) -> str:
        try:
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:_CONTENT_DIGITS]
        except OSError as error:
            raise UnreadableImage(
                f"{path} cannot be read ({error.strerror}). Expected an image of the catalog; "
                "restore the file, or list the images again."
            ) from error

    with ThreadPoolExecutor() as pool:
        return list(pool.map(digest, paths))


def add_provenance(catalog: pd.DataFrame) -> pd.DataFrame:
    """Add to a catalog which photograph each image was made from, where that is known.

    Images of the known data set are recognised by content, wherever they lie and whatever they
    are called; those of the drawn sample by their name in it, where the truth lies beside them.
    Anything else is honestly unknown: see `audit.audit` for other data with photographs.

    Parameters
    ----------
    catalog : DataFrame
        With columns `path` and `file`.

    Returns
    -------
    DataFrame
        A copy with `source_id` and `group_id` (string), NA where unknown, and `cell_in_train`
        (boolean): whether this image of TEST or TEST_SIMPLE shows a white cell that TRAIN
        shows too.
    """
    known = _truth_of_sample(catalog)
    if known is None:
        known = shipped().drop_duplicates("content").set_index("content")
        keys = content_of(list(catalog["path"]))
    else:
        keys = catalog["file"]
    found = known.reindex(keys)[["source_id", "group_id", "cell_in_train"]]
    return catalog.assign(**{name: found[name].array for name in found})


def _truth_of_sample(catalog: pd.DataFrame) -> pd.DataFrame | None:
    """Provenance by file, if these images are the drawn sample."""
    if catalog.empty:
        return None
    path, file = Path(catalog["path"].iloc[0]), Path(catalog["file"].iloc[0])
    # The sample's marker lies up to three folders above that of the splits.
    above = list(path.parents)[len(file.parts) - 1 :][:4]
    folder = next((folder for folder in above if sample.is_sample(folder)), None)
    if folder is None:
        return None
    truth = sample.truth(folder).astype({"source_id": "string"})
    about = json.loads((folder / "sample.json").read_text(encoding="utf-8"))
    pairs = pd.DataFrame(
        [pair["photographs"] for pair in about["overlaps"]], columns=["first", "second"]
    )
    truth["group_id"] = truth["source_id"].map(group_sources(pairs, truth["source_id"]))
    # Its photographs that overlap show the same cell by construction.
    in_train = truth["file"].str.startswith("TRAIN/")
    shown = truth["group_id"].isin(truth.loc[in_train, "group_id"]) & ~in_train
    truth["cell_in_train"] = shown.astype("boolean")
    return truth.astype({"group_id": "string"}).set_index("file")


def compare(recomputed: pd.DataFrame, expected: pd.DataFrame) -> pd.DataFrame:
    """Compare two tables of provenance, such as a new one and `shipped`.

    Parameters
    ----------
    recomputed, expected : DataFrame
        With columns `file`, `source_id`, `group_id` and `AFFINE`.

    Returns
    -------
    DataFrame
        One row for each image on which they differ, empty if they agree: `file`; `source_id`,
        `group_id`, `expected_source_id`, `expected_group_id`; `displacement`: farthest distance,
        in pixels, by which the two maps move a corner of a 320×240 photograph apart. Maps
        differ if that exceeds 2 pixels, the tolerance with which they are fitted.

    Raises
    ------
    InvalidParameter
        If a table lacks a column, or lists a file twice.
    DataMismatch
        If the tables have no file in common.
    """
    columns = ["file", "source_id", "group_id", *AFFINE]
    for table in (recomputed, expected):
        lacking = [name for name in columns if name not in table]
        if lacking or table["file"].duplicated().any():
            raise InvalidParameter(
                f"A table of provenance lacks the columns {lacking} or lists a file twice. "
                "Expected one row an image with the columns of provenance.shipped()."
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
    differs = np.nan_to_num(moved) > matching.TOLERANCE
    for name in ("file", "source_id", "group_id"):
        differs |= both[name].fillna("").ne(both[f"expected_{name}"].fillna("")).to_numpy()
    both["file"] = both["file"].fillna(both["expected_file"])
    kept = ["file", "source_id", "group_id", "expected_source_id", "expected_group_id"]
    return both.loc[differs, [*kept, "displacement"]].reset_index(drop=True)
