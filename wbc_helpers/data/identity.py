"""What is known about the sources of images, and what a folder of them turns out to be.

The digest of a data set is the SHA-256, in hexadecimal, of one line a file, sorted by path: the
path, a NUL character, the SHA-256 of the file in hexadecimal, a line feed; in UTF-8. For the
images, paths are relative to the folder that holds TRAIN and TEST, and every file in TRAIN, TEST
and TEST_SIMPLE counts; for the photographs, to the folder that holds `JPEGImages`, and every file
in `JPEGImages` and `Annotations` counts, and `labels.csv`. What operating systems leave behind
(hidden files, `__MACOSX`, `Thumbs.db`, `desktop.ini`) does not count.
"""

import csv
import gzip
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from wbc_helpers import cells, storage
from wbc_helpers.data import catalog, sample
from wbc_helpers.errors import DataMismatch, UnreadableImage


@dataclass(frozen=True, eq=False)
class Source:
    """A place where the data come from, and what is known about them.

    Attributes
    ----------
    name : str
        As given to `fetch`.
    title, address, licence, citation : str
        For people; empty where unknown.
    counts : mapping, optional
        Number of images by split, then cell type.
    digest, photographs_digest : str
        Digests of the images and of the photographs, see the module; empty where unknown.
    n_bytes : int
        Bytes when unpacked; 0 where unknown.
    kaggle : str
        `owner/name` on Kaggle; empty if it is not there.
    drawn : bool
        True if the cells are drawn: scores then say nothing about blood.
    """

    name: str
    title: str
    address: str = ""
    licence: str = ""
    citation: str = ""
    counts: Mapping[str, Mapping[str, int]] | None = None
    digest: str = ""
    photographs_digest: str = ""
    n_bytes: int = 0
    kaggle: str = ""
    drawn: bool = False


def _table(**splits: tuple[int, int, int, int]) -> dict[str, dict[str, int]]:
    return {split: dict(zip(cells.NAMES, row, strict=True)) for split, row in splits.items()}


SOURCES = {
    source.name: source
    for source in (
        Source(
            "kaggle",
            title="Blood Cell Images",
            address="https://www.kaggle.com/datasets/paultimothymooney/blood-cells",
            licence="MIT",
            citation=(
                "P. Mooney, Blood Cell Images, Kaggle (2018), made by augmentation from: "
                "Shenggan and Cosmicad, BCCD Dataset, https://github.com/Shenggan/BCCD_Dataset "
                "(MIT). The network: I. Singh, N. P. Singh, H. Singh, S. Bawankar, A. Ngom, Blood "
                "Cell Types Classification Using CNN, IWBBIO 2020, LNCS 12108, 727-738 (2020)."
            ),
            counts=_table(
                TRAIN=(2497, 2483, 2478, 2499),
                TEST=(623, 620, 620, 624),
                TEST_SIMPLE=(13, 6, 4, 48),
            ),
            digest="c610387f4840442e6846012358d604a5b8898d387f900a59a451ac9a7a5ba154",
            photographs_digest="60a6233eae9ac2771515fb26d0169305376b0b0650f40e2b41bad439861f99d5",
            n_bytes=113_567_876,
            kaggle="paultimothymooney/blood-cells",
        ),
        Source(
            "sample",
            title="Drawn sample",
            licence="MIT, as this project",
            citation="Drawn by wbc_helpers.data.sample; these are no photographs of blood.",
            counts=sample.COUNTS,
            drawn=True,
        ),
        Source("local", title="Own images"),
    )
}
MANIFEST = resources.files("wbc_helpers") / "manifests" / "blood-cells.csv.gz"
"""What each file of the images from Kaggle is, see `write_manifest`."""

MARKER = ".fetched.json"
"""File in a fetched folder that says what it was unpacked from."""

_PHOTOGRAPHS = ("JPEGImages", "Annotations", "labels.csv")
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, eq=False)
class Identity:
    """What a folder of images turned out to be.

    Attributes
    ----------
    source : Source
        `SOURCES["kaggle"]` also for a copy that came another way, or is damaged.
    folder : Path
        As given.
    n_images : int
        Number of images.
    counts : DataFrame
        Number of images; rows are splits, columns cell types.
    digest, photographs_digest : str
        See the module; the latter is empty where the copy has no photographs.
    deviations : tuple of str
        Sentences that say what differs from the source; empty if nothing does.
    """

    source: Source
    folder: Path
    n_images: int
    counts: pd.DataFrame
    digest: str
    photographs_digest: str
    deviations: tuple[str, ...]

    @property
    def drawn(self) -> bool:
        """True if the cells are drawn."""
        return self.source.drawn

    def to_dict(self) -> dict[str, Any]:
        """Describe the data for a run's `settings.json`, in plain values."""
        return {
            "source": self.source.name,
            "title": self.source.title,
            "drawn": self.drawn,
            "digest": self.digest,
            "n_images": self.n_images,
            "folder": str(self.folder),
        }


def identify(folder: str | Path, progress: bool = False) -> Identity:
    """Find out what a folder of images is, by content.

    It is the data set from Kaggle if at least half of its images are, name and content, or if
    it was fetched from there; everything that differs is then named. Any other folder is somebody's
    own, about which nothing is known.

    Parameters
    ----------
    folder : path
        As `fetch` returns it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Identity
        What it is.

    Raises
    ------
    DataNotFound
        If it holds no `TRAIN` and `TEST`, see `catalog.images_folder`.
    UnreadableImage
        If a file cannot be read.
    """
    folder = Path(folder).expanduser().absolute()
    root = catalog.images_folder(folder)
    images = digest_files(root, catalog.SPLITS, progress)
    photographs_root = catalog.photographs_folder(folder)
    photographs = digest_files(photographs_root, _PHOTOGRAPHS, progress) if photographs_root else {}
    counts = _count(images)
    known = read_manifest(MANIFEST)
    n_known = sum(known.get(file) == digest[:16] for file, digest in images.items())
    above = _folders_above(root)
    if any(sample.is_sample(candidate) for candidate in above):
        source, deviations = SOURCES["sample"], ()
    elif 2 * n_known >= max(1, len(images)) or any(came_from_kaggle(place) for place in above):
        source = SOURCES["kaggle"]
        if not photographs:
            known = {file: known[file] for file in known if file.split("/")[0] in catalog.SPLITS}
        deviations = name_differences(known, images | photographs)
        if not deviations and digest_of(images) != source.digest:
            deviations = (f"The digest is {digest_of(images)}, expected {source.digest}.",)
    else:
        source, deviations = SOURCES["local"], ()
    return Identity(
        source,
        folder,
        int(counts.to_numpy().sum()),
        counts,
        digest_of(images),
        digest_of(photographs) if photographs else "",
        _compare_counts(source, counts) + deviations,
    )


def verify(folder: str | Path, strict: bool = True, progress: bool = False) -> Identity:
    """Identify a folder, and refuse a copy of a known data set that is not as published.

    Parameters
    ----------
    folder : path
        As `fetch` returns it.
    strict : bool
        False returns the deviations instead of raising.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Identity
        What it is. A folder of one's own has no deviations.

    Raises
    ------
    DataMismatch
        If files of a known data set are missing, changed or extra; the message names them.
    """
    identity = identify(folder, progress)
    if strict and identity.deviations:
        raise DataMismatch(
            f"{identity.folder} is not {identity.source.title} as published: "
            f"{' '.join(identity.deviations)} Expected {_total(identity.source):,} images. Move "
            "the folder away and fetch it again, or put those files right."
        )
    return identity


def read_marker(folder: Path) -> dict[str, Any]:
    """Read what was noted when the folder was fetched; empty if we did not fetch it."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return marker if marker["format"] == 1 and marker["archive"] and marker["n_files"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def came_from_kaggle(folder: Path) -> bool:
    """Tell whether a folder was downloaded from Kaggle, whatever is in it by now."""
    return read_marker(folder).get("source") == "kaggle"


def is_junk(name: str) -> bool:
    """Tell whether a file or folder of this name is what operating systems leave behind."""
    return name.startswith(".") or name in _JUNK


def _total(source: Source) -> int:
    return sum(sum(row.values()) for row in (source.counts or {}).values())


def _folders_above(root: Path) -> list[Path]:
    """Where marks of fetching or drawing may be, when given the innermost folder."""
    above = [root]
    while above[-1].name in ("images", "dataset2-master"):
        above.append(above[-1].parent)
    # The whole may be wrapped in one more folder, see `sources.fetch`.
    return [*above, above[-1].parent]


def _files(root: Path, names: Iterable[str]) -> Iterator[str]:
    """List the files in these folders of `root`, by relative path."""
    for name in names:
        if (root / name).is_file():
            yield name
        for folder, subfolders, files in os.walk(root / name, followlinks=True):
            subfolders[:] = [entry for entry in subfolders if not is_junk(entry)]
            below = Path(folder).relative_to(root).as_posix()
            yield from (f"{below}/{file}" for file in files if not is_junk(file))


def digest_files(root: Path, names: Iterable[str], progress: bool) -> dict[str, str]:
    """SHA-256 of each file in these files and folders of `root`, by relative path, sorted.

    Raises
    ------
    UnreadableImage
        If a file cannot be read; the message names it.
    """

    def digest_one(file: str) -> str:
        try:
            return hashlib.sha256((root / file).read_bytes()).hexdigest()
        except OSError as error:
            raise UnreadableImage(
                f"{root / file} cannot be read ({error.strerror}). Restore the file, or take it "
                "out of the data."
            ) from error

    files = sorted(_files(root, names))
    with ThreadPoolExecutor(2) as pool:
        found = tqdm(
            pool.map(digest_one, files),
            total=len(files),
            desc="checking",
            unit="file",
            disable=not progress,
            mininterval=0.5,
        )
        return dict(zip(files, found, strict=True))


def digest_of(digests: Mapping[str, str]) -> str:
    """Digest of a data set, see the module, from those of its files."""
    lines = "".join(f"{file}\0{digests[file]}\n" for file in sorted(digests))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _count(files: Iterable[str]) -> pd.DataFrame:
    parts = [file.split("/") for file in files if file.lower().endswith(catalog.IMAGE_SUFFIXES)]
    counted = Counter(tuple(part[:2]) for part in parts if len(part) == 3)
    return pd.DataFrame(
        [[counted[split, cell.folder] for cell in cells.CELL_TYPES] for split in catalog.SPLITS],
        index=catalog.SPLITS,
        columns=cells.NAMES,
    )


def _compare_counts(source: Source, counts: pd.DataFrame) -> tuple[str, ...]:
    return tuple(
        f"{split}/{cells.BY_NAME[name].folder} holds {counts.loc[split, name]:,} images, expected "
        f"{expected:,}."
        for split, row in (source.counts or {}).items()
        for name, expected in row.items()
        if counts.loc[split, name] != expected
    )


def name_differences(known: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, ...]:
    """Say in sentences which files differ from the manifest; nothing if none does."""
    both = known.keys() & found.keys()
    groups = {
        "missing": known.keys() - found.keys(),
        "no part of the data set": found.keys() - known.keys(),
        "changed": {file for file in both if known[file] != found[file][:16]},
    }
    return tuple(
        f"{len(files):,} {'file is' if len(files) == 1 else 'files are'} {what}: "
        f"{', '.join(sorted(files)[:10])}"
        f"{f' and {len(files) - 10:,} more' if len(files) > 10 else ''}."
        for what, files in groups.items()
        if files
    )


def read_manifest(manifest: resources.abc.Traversable) -> dict[str, str]:
    """Read the first 16 digits of the SHA-256 of each file, by relative path."""
    with manifest.open("rb") as packed, gzip.open(packed, "rt", encoding="utf-8") as lines:
        return {row["file"]: row["sha256"] for row in csv.DictReader(lines)}


def write_manifest(folder: str | Path, target: str | Path) -> None:
    """Write the manifest of a data set: `file` and the first 16 digits of its SHA-256.

    The same folder gives the same bytes.

    Parameters
    ----------
    folder : path
        The data set, complete.
    target : path
        The .csv.gz file to write.
    """
    images = digest_files(catalog.images_folder(folder), catalog.SPLITS, progress=True)
    photographs_root = catalog.photographs_folder(folder)
    photographs = (
        digest_files(photographs_root, _PHOTOGRAPHS, progress=True) if photographs_root else {}
    )
    pack_manifest(images | photographs, target)
    print(f"digest={digest_of(images)}\nphotographs_digest={digest_of(photographs)}")


def pack_manifest(digests: Mapping[str, str], target: str | Path) -> None:
    """Write a manifest from the digests of files, see `write_manifest` and `read_manifest`."""
    rows = [f"{file},{digest[:16]}\n" for file, digest in digests.items()]
    text = "".join(["file,sha256\n", *rows])
    with storage.atomic_file(target) as partial:
        partial.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
